import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeReceipt, encodeReceipt } from './receipt.js';

const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array));

test('a receipt names a message and a lease in 32 characters that a URL can contain', () => {
  fc.assert(
    fc.property(bytes(16), bytes(8), (messageId, leaseToken) => {
      const receipt = encodeReceipt(messageId, leaseToken);
      expect(receipt).toMatch(/^[A-Za-z0-9_-]{32}$/);
      expect(encodeURIComponent(receipt)).toBe(receipt);
      expect(decodeReceipt(receipt)).toEqual({ messageId, leaseToken });
    }),
  );
});

test('each receipt has only one text', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[A-Za-z0-9_-]{32}$/), (receipt) => {
      const { messageId, leaseToken } = decodeReceipt(receipt);
      expect(encodeReceipt(messageId, leaseToken)).toBe(receipt);
    }),
  );
});

test.each([
  '',
  'A'.repeat(31),
  'A'.repeat(33),
  `${'A'.repeat(31)}+`,
  `${'A'.repeat(31)}=`,
  `${'A'.repeat(32)}\n`,
  'ä'.repeat(32),
])('a text that no dequeue answered is not a receipt: %j', (text) => {
  expect(() => decodeReceipt(text)).toThrow(expect.objectContaining({ code: 'invalid-request' }));
});
