import { isUtf8 } from 'node:buffer';
import type { IncomingMessage } from 'node:http';
import type { FastifyAdapter } from '@nestjs/platform-fastify';
import { clip, RowmqError } from '@rowmq/contract';
import { HttpRefusal } from './http-refusal.js';

const JSON_TYPE = 'application/json';
/**
 * Matches every text with a key that could be `__proto__`, also with escapes, and hardly any other.
 */
const MAY_NAME_PROTO = /__proto__|\\u00[4-7]/i;
const CHARSET = /;\s*charset\s*=\s*"?([^\s";]*)/i;
/** Every text in ASCII is also UTF-8. */
const CHARSETS = new Set(['utf-8', 'utf8', 'us-ascii', 'ascii']);

/**
 * Accepts JSON in UTF-8 and no other content. An empty body counts as none, however it is framed:
 * some proxies send it chunked.
 */
export function acceptJson(adapter: FastifyAdapter): void {
  const instance = adapter.getInstance();
  instance.removeAllContentTypeParsers();
  instance.addContentTypeParser(JSON_TYPE, { parseAs: 'buffer' }, ({ headers }, body, done) => {
    try {
      done(null, body.length === 0 ? undefined : parseJson(body as Buffer, headers));
    } catch (error) {
      done(error as Error);
    }
  });
  instance.addContentTypeParser('*', ({ headers }, body: IncomingMessage, done) => {
    const refuse = (): void => {
      body.off('end', accept);
      done(
        unsupported(
          `The Content-Type is ${named(headers['content-type'])}. Send the body as JSON, with \`Content-Type: ${JSON_TYPE}\`.`,
        ),
      );
    };
    const accept = (): void => {
      body.off('data', refuse);
      done(null, undefined);
    };
    body.once('data', refuse).once('end', accept);
  });
}

function parseJson(body: Buffer, headers: IncomingMessage['headers']): unknown {
  refuseEncoded(headers);
  // JSON.parse alone would replace broken UTF-8, and the broker would store another text than it
  // got.
  if (!isUtf8(body))
    throw new RowmqError(
      'invalid-request',
      'The request is not valid UTF-8. Send a body that is not text with bodyEncoding base64.',
    );
  const text = body.toString();
  try {
    return JSON.parse(text, MAY_NAME_PROTO.test(text) ? refuseProto : undefined) as unknown;
  } catch (error) {
    if (error instanceof RowmqError) throw error;
    throw new RowmqError('invalid-request', `The request is not JSON: ${clip((error as Error).message)}.`, {
      cause: error,
    });
  }
}

/** Refuses a body that is compressed, or in another charset than UTF-8. */
function refuseEncoded({ 'content-encoding': encoding, 'content-type': type }: IncomingMessage['headers']): void {
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity')
    throw unsupported(`The Content-Encoding is ${named(encoding)}. The broker reads no compressed bodies.`);
  if (type === undefined || type.length === JSON_TYPE.length) return;
  const charset = CHARSET.exec(type)?.[1];
  if (charset !== undefined && !CHARSETS.has(charset.toLowerCase()))
    throw unsupported(`The charset is ${named(charset)}. Send JSON in UTF-8.`);
}

function named(header: string | undefined): string {
  return header === undefined ? 'missing' : clip(header);
}

function unsupported(detail: string): HttpRefusal {
  return new HttpRefusal(415, 'invalid-request', detail);
}

/** Zod drops a key of this name, so a header would be lost quietly. */
function refuseProto(key: string, value: unknown): unknown {
  if (key === '__proto__')
    throw new RowmqError('invalid-request', "'__proto__' cannot be the name of a field or of a header.");
  return value;
}
