import { createHash } from 'node:crypto';
import { isUtf8 } from 'node:buffer';

/** The characters that SQS allows in bodies. XML 1.0 allows the same. No half of a pair is one. */
const TEXT = /^[\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]*$/u;

export function isSqsText(text: string): boolean {
  return TEXT.test(text);
}

/**
 * A stored body as SQS answers it. A body of REST that SQS cannot carry comes as base64, with both
 * protocols.
 */
export function bodyText(body: Buffer): string {
  if (isUtf8(body)) {
    const text = body.toString();
    if (isSqsText(text)) return text;
  }
  return body.toString('base64');
}

export function md5(text: string): string {
  return createHash('md5').update(text).digest('hex');
}
