import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeReceipt, encodeReceipt } from './receipt.js';

const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array));

test('a receipt names a message and a lease in 34 characters that a URL can contain', () => {
  fc.assert(
    fc.property(bytes(16), bytes(8), (messageId, leaseToken) => {
      const receipt = encodeReceipt(messageId, leaseToken);
      expect(receipt).toMatch(/^[A-Za-z0-9_-]{34}$/);
      expect(encodeURIComponent(receipt)).toBe(receipt);
      expect(decodeReceipt(receipt)).toEqual({ messageId, leaseToken });
    }),
  );
});

test('each receipt has only one text', () => {
  // The last character has four bits that say nothing.
  const alphabet = Array.from({ length: 64 }, (_, index) =>
    Buffer.of(index << 2)
      .toString('base64url')
      .charAt(0),
  );
  fc.assert(
    fc.property(bytes(16), bytes(8), (messageId, leaseToken) => {
      const receipt = encodeReceipt(messageId, leaseToken);
      const same = alphabet
        .map((last) => `${receipt.slice(0, -1)}${last}`)
        .filter((text) => Buffer.from(text, 'base64url').equals(Buffer.from(receipt, 'base64url')));
      expect(same).toHaveLength(16);
      expect(same.filter(isReceipt)).toEqual([receipt]);
    }),
  );
});

test('a text is a receipt only if it has the length, the alphabet and the version of one', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[A-Za-z0-9_-]{33}$/), fc.constantFrom('A', 'Q', 'g', 'w'), (start, last) => {
      const text = `${start}${last}`;
      expect(isReceipt(text)).toBe(Buffer.from(text, 'base64url')[0] === 1);
    }),
  );
});

test('a receipt of another version is refused', () => {
  const receipt = encodeReceipt(Buffer.alloc(16, 7), Buffer.alloc(8, 9));
  for (const version of [0, 2, 255]) {
    const other = Buffer.from(receipt, 'base64url');
    other[0] = version;
    expect(isReceipt(other.toString('base64url'))).toBe(false);
  }
});

function isReceipt(text: string): boolean {
  try {
    const { messageId, leaseToken } = decodeReceipt(text);
    return encodeReceipt(messageId, leaseToken) === text;
  } catch {
    return false;
  }
}

const GOOD = encodeReceipt(Buffer.alloc(16), Buffer.alloc(8));

test.each([
  '',
  GOOD.slice(0, -1),
  `${GOOD}A`,
  GOOD.slice(2),
  `${GOOD.slice(0, -1)}+`,
  `${GOOD.slice(0, -1)}=`,
  `${GOOD}\n`,
  `${GOOD}==`,
  'ä'.repeat(34),
])('a text that no dequeue answered is not a receipt: %j', (text) => {
  expect(() => decodeReceipt(text)).toThrow(expect.objectContaining({ code: 'invalid-request' }));
});
