import { isUtf8 } from 'node:buffer';
import { RowmqError } from './errors.js';
import { LIMITS } from './limits.js';
import type { EnqueueMessage } from './schemas.js';
import type { SizeLimits } from './size-limits.js';

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/**
 * The stored form of a message that fits its schema: its body, and its headers as JSON or null.
 *
 * Throws `message-too-large`, and `invalid-request` for a body that is not valid base64 although
 * its bodyEncoding says so. `index` is the position of the message in its request.
 */
export function messageBytes(
  message: EnqueueMessage,
  index: number,
  limits: SizeLimits,
): { body: Buffer; headers: Buffer | null } {
  return { body: decodeBody(message, index, limits), headers: encodeHeaders(message.headers, index) };
}

/** The encoding of a body in an answer: base64 if it is not valid UTF-8, however it was sent. */
export function bodyEncodingOf(body: Buffer): 'utf8' | 'base64' {
  return isUtf8(body) ? 'utf8' : 'base64';
}

function decodeBody({ body, bodyEncoding }: EnqueueMessage, index: number, { bodyBytes }: SizeLimits): Buffer {
  if (bodyEncoding === 'base64' && !BASE64.test(body)) {
    throw new RowmqError(
      'invalid-request',
      `messages.${index}.body is not base64 (RFC 4648, padded) although its bodyEncoding says so.`,
    );
  }
  const bytes = Buffer.from(body, bodyEncoding);
  if (bytes.length > bodyBytes) {
    throw new RowmqError(
      'message-too-large',
      `messages.${index}.body has ${bytes.length} bytes, more than ${bodyBytes}; store large data elsewhere and send a reference.`,
    );
  }
  return bytes;
}

function encodeHeaders(headers: Record<string, string> | undefined, index: number): Buffer | null {
  if (headers === undefined || Object.keys(headers).length === 0) return null;
  const bytes = Buffer.from(JSON.stringify(headers));
  if (bytes.length > LIMITS.headersBytes) {
    throw new RowmqError(
      'message-too-large',
      `messages.${index}.headers have ${bytes.length} bytes as JSON, more than ${LIMITS.headersBytes}.`,
    );
  }
  return bytes;
}
