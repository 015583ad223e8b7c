import type { LeasedMessage } from '@rowmq/contract';
import { describe, expect, it } from 'vitest';
import { contentOf, Payloads } from './payload.js';
import { Random } from './random.js';

/** The message as an honest broker delivers it. */
function delivered(
  message: ReturnType<Payloads['make']>['message'],
  changes: Partial<LeasedMessage> = {},
): LeasedMessage {
  const { body, bodyEncoding = 'utf8', headers = {}, priority = 4 } = message;
  const time = new Date(0).toISOString();
  const times = { enqueuedAt: time, expiresAt: time, leaseExpiresAt: time };
  return { id: '', receipt: '', receiveCount: 1, body, bodyEncoding, headers, priority, ...times, ...changes };
}

const make = (seed: number) => new Payloads(new Random(seed), 10, 100).make('run.1', 4);

const sizeOf = ({ body, bodyEncoding }: { body: string; bodyEncoding?: 'utf8' | 'base64' | undefined }) =>
  Buffer.byteLength(body, bodyEncoding ?? 'utf8');

describe('Payloads', () => {
  it('makes every kind of body within the sizes asked for', () => {
    const payloads = new Payloads(new Random(7), 0, 4096);
    const messages = Array.from({ length: 3000 }, (_, number) => payloads.make(`run.${number}`, 4).message);
    const sizes = messages.map(sizeOf);
    expect(Math.min(...sizes)).toBeLessThan(10);
    expect(Math.max(...sizes)).toBeGreaterThan(4080);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(4096);
    expect(messages.some(({ bodyEncoding }) => bodyEncoding === 'base64')).toBe(true);
    expect(messages.some(({ body }) => body.includes('🐘'))).toBe(true);
    expect(messages.every(({ body }) => body.isWellFormed())).toBe(true);
  });

  it('makes bodies of exactly one size when both bounds are equal', () => {
    const payloads = new Payloads(new Random(7), 333, 333);
    for (let number = 0; number < 500; number++) expect(sizeOf(payloads.make('run.1', 4).message)).toBe(333);
  });

  it('makes the same messages of the same seed', () => {
    expect(make(3)).toEqual(make(3));
    expect(make(3)).not.toEqual(make(4));
  });

  it('gives a delivered message the same checksums, whatever the order of headers and the encoding of the body', () => {
    const payloads = new Payloads(new Random(7), 0, 512);
    for (let number = 0; number < 200; number++) {
      const { message, content } = payloads.make(`run.${number}`, number % 10);
      const headers = Object.fromEntries(Object.entries(message.headers ?? {}).toReversed());
      const bytes = Buffer.from(message.body, message.bodyEncoding ?? 'utf8');
      expect(contentOf(delivered(message, { headers }))).toEqual(content);
      expect(contentOf(delivered(message, { body: bytes.toString('base64'), bodyEncoding: 'base64' }))).toEqual(
        content,
      );
    }
  });

  it('notices a changed byte, header or priority', () => {
    const { message, content } = new Payloads(new Random(7), 100, 100).make('run.1', 4);
    const changed = (changes: Partial<LeasedMessage>) => contentOf(delivered(message, changes));
    expect(changed({ body: `${message.body.slice(1)}!` }).bodyCrc).not.toBe(content.bodyCrc);
    expect(changed({ headers: { ...message.headers, more: '1' } }).headersCrc).not.toBe(content.headersCrc);
    expect(changed({ priority: 5 }).headersCrc).not.toBe(content.headersCrc);
  });
});
