import { enqueueMessage, LIMITS, newPackId, RowmqError, sizeLimits } from '@rowmq/contract';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatTime, toContent, toLeasedMessage, toNewMessage } from './message.codec.js';

const SIZES = sizeLimits();
const EXPIRES_AT = Date.UTC(2030, 0, 2, 3, 4, 5, 67);

function stored(sent: unknown): ReturnType<typeof toContent> {
  return toContent({ ...toNewMessage(enqueueMessage.parse(sent), 0, SIZES), id: newPackId(), expiresAt: EXPIRES_AT });
}

function failure(sent: unknown): RowmqError {
  try {
    toNewMessage(enqueueMessage.parse(sent), 7, SIZES);
  } catch (error) {
    if (error instanceof RowmqError) return error;
    throw error;
  }
  throw new Error('It was taken.');
}

describe('a message that is stored and read again', () => {
  const text = fc.string({ unit: 'binary', maxLength: 500 });

  test('has the text and headers that were sent', () => {
    fc.assert(
      fc.property(
        text,
        fc.dictionary(fc.string({ unit: 'binary', minLength: 1, maxLength: 9 }), fc.string({ maxLength: 20 }), {
          maxKeys: 16,
        }),
        (body, headers) => {
          fc.pre(body.isWellFormed() && Object.entries(headers).flat().join('').isWellFormed());
          fc.pre(!Object.hasOwn(headers, '__proto__') && JSON.stringify(headers).length < 500);
          expect(stored({ body, headers })).toMatchObject({ body, bodyEncoding: 'utf8', headers: { ...headers } });
        },
      ),
    );
  });

  test('has the bytes that were sent, as text exactly if they are UTF-8', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: LIMITS.bodyBytesDefault }), (bytes) => {
        const sent = Buffer.from(bytes);
        const { body, bodyEncoding } = stored({ body: sent.toString('base64'), bodyEncoding: 'base64' });
        expect(Buffer.from(body, bodyEncoding).equals(sent)).toBe(true);
        expect(bodyEncoding).toBe(Buffer.from(sent.toString()).equals(sent) ? 'utf8' : 'base64');
      }),
    );
  });

  test('shows the time of its enqueue, from its id', () => {
    const before = Date.now();
    const { enqueuedAt, expiresAt } = stored({ body: 'b' });
    expect(Date.parse(enqueuedAt)).toBeGreaterThanOrEqual(before);
    expect(Date.parse(enqueuedAt)).toBeLessThanOrEqual(Date.now());
    expect(expiresAt).toBe('2030-01-02T03:04:05.067Z');
  });

  test('stores no headers as none', () => {
    for (const headers of [undefined, {}]) {
      expect(toNewMessage(enqueueMessage.parse({ body: 'b', headers }), 0, SIZES).headers).toBeNull();
      expect(stored({ body: 'b', headers }).headers).toEqual({});
    }
  });
});

describe('a message that is refused', () => {
  test.each([
    [{ body: 'x'.repeat(4097) }, 'message-too-large', 'messages.7.body has 4097 bytes'],
    [{ body: 'ä'.repeat(2049) }, 'message-too-large', '4098 bytes'],
    [{ body: Buffer.alloc(4097).toString('base64'), bodyEncoding: 'base64' }, 'message-too-large', '4097 bytes'],
    [{ body: 'b', headers: { k: 'x'.repeat(1017) } }, 'message-too-large', 'messages.7.headers have 1025 bytes'],
    [{ body: 'a', bodyEncoding: 'base64' }, 'invalid-request', 'messages.7.body is not base64'],
    [{ body: 'ab=c', bodyEncoding: 'base64' }, 'invalid-request', 'not base64'],
    [{ body: 'YQ==YQ==', bodyEncoding: 'base64' }, 'invalid-request', 'not base64'],
  ])('has an error with its index and the fault: %#', (sent, code, detail) => {
    const error = failure(sent);
    expect(error.code).toBe(code);
    expect(error.message).toContain(detail);
  });
});

test('a leased delivery has the receipt of its message and lease, and the priority and count of its claim', () => {
  const messageId = Buffer.from('019a0b5dac96774b8cceb302099a8057', 'hex');
  expect(
    toLeasedMessage({
      messageId,
      leaseToken: Buffer.alloc(8, 0xab),
      body: Buffer.from('b'),
      headers: Buffer.from('{"k":"v"}'),
      priority: 9,
      receiveCount: 3,
      firstReceivedAt: 0,
      moves: null,
      expiresAt: EXPIRES_AT,
      leaseExpiresAt: EXPIRES_AT + 1,
      part: 0,
      members: 1,
    }),
  ).toEqual({
    id: '019a0b5d-ac96-774b-8cce-b302099a8057',
    body: 'b',
    bodyEncoding: 'utf8',
    headers: { k: 'v' },
    priority: 9,
    receipt: Buffer.concat([Buffer.of(1), messageId, Buffer.alloc(8, 0xab), Buffer.of(0, 0, 0, 0, 0, 1)]).toString(
      'base64url',
    ),
    receiveCount: 3,
    enqueuedAt: formatTime(0x019a0b5dac96),
    expiresAt: '2030-01-02T03:04:05.067Z',
    leaseExpiresAt: '2030-01-02T03:04:05.068Z',
  });
});
