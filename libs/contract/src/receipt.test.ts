import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeReceipt, encodeReceipt, leaseOf, type Receipt } from './receipt.js';

const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array));

const receipts: fc.Arbitrary<Receipt> = fc.record({
  messageId: bytes(16),
  leaseToken: bytes(8),
  part: fc.nat(65_535),
  members: fc.nat(0xff_ff_ff_ff),
});

test('a receipt names a message and a lease in 42 characters that a URL can contain', () => {
  fc.assert(
    fc.property(receipts, (contents) => {
      const receipt = encodeReceipt(contents);
      expect(receipt).toMatch(/^[A-Za-z0-9_-]{42}$/);
      expect(encodeURIComponent(receipt)).toBe(receipt);
      expect(decodeReceipt(receipt)).toEqual(contents);
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
    fc.property(receipts, (contents) => {
      const receipt = encodeReceipt(contents);
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
    fc.property(fc.stringMatching(/^[A-Za-z0-9_-]{41}$/), fc.constantFrom('A', 'Q', 'g', 'w'), (start, last) => {
      const text = `${start}${last}`;
      expect(isReceipt(text)).toBe(Buffer.from(text, 'base64url')[0] === 1);
    }),
  );
});

test('the lease that a receipt names does not depend on the hints', () => {
  fc.assert(
    fc.property(receipts, receipts, (one, other) => {
      const lease = leaseOf(encodeReceipt(one));
      expect(leaseOf(encodeReceipt({ ...one, part: other.part, members: other.members }))).toBe(lease);
      if (!one.messageId.equals(other.messageId)) expect(leaseOf(encodeReceipt(other))).not.toBe(lease);
    }),
  );
});

test('a receipt of another version is refused', () => {
  const receipt = encodeReceipt({
    messageId: Buffer.alloc(16, 7),
    leaseToken: Buffer.alloc(8, 9),
    part: 1,
    members: 2,
  });
  for (const version of [0, 2, 255]) {
    const other = Buffer.from(receipt, 'base64url');
    other[0] = version;
    expect(isReceipt(other.toString('base64url'))).toBe(false);
  }
});

function isReceipt(text: string): boolean {
  try {
    return encodeReceipt(decodeReceipt(text)) === text;
  } catch {
    return false;
  }
}

const GOOD = encodeReceipt({ messageId: Buffer.alloc(16), leaseToken: Buffer.alloc(8), part: 0, members: 1 });

test.each([
  '',
  GOOD.slice(0, -1),
  `${GOOD}A`,
  GOOD.slice(2),
  `${GOOD.slice(0, -1)}+`,
  `${GOOD.slice(0, -1)}=`,
  `${GOOD}\n`,
  `${GOOD}==`,
  'ä'.repeat(42),
])('a text that no dequeue answered is not a receipt: %j', (text) => {
  expect(() => decodeReceipt(text)).toThrow(expect.objectContaining({ code: 'invalid-request' }));
});
