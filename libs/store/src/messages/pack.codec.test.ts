import { PACK_MESSAGES } from '@rowmq/contract';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Content, contentBytes, decodePack, encodePack } from './pack.codec.js';

const bytes = (minLength: number): fc.Arbitrary<Buffer> =>
  fc.oneof(
    { weight: 6, arbitrary: fc.uint8Array({ minLength, maxLength: 20 }).map((array) => Buffer.from(array)) },
    // Around the lengths at which a varint gets another byte.
    {
      weight: 1,
      arbitrary: fc.constantFrom(127, 128, 129, 16_383, 16_384).map((length) => Buffer.alloc(length, length)),
    },
  );
/** Stored headers are never empty: null stands for none. */
const content: fc.Arbitrary<Content> = fc.record({ headers: fc.option(bytes(1)), body: bytes(0) });
const id = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((array) => Buffer.from(array));
const sent = fc.array(content, { minLength: 1, maxLength: PACK_MESSAGES });
const replayed = fc.array(
  fc.tuple(content, id).map(([one, replayOf]): Content => ({ ...one, replayOf })),
  { minLength: 1, maxLength: PACK_MESSAGES },
);
/** All messages of a pack have a group id, or none has. */
const grouped = fc
  .oneof(sent, replayed)
  .map((all) => all.map((one, index) => ({ ...one, groupId: 'gé'.repeat((index % 100) + 1) })));
const contents = fc.oneof(sent, replayed, grouped);

test('a pack holds the contents of its messages, in their order', () => {
  fc.assert(
    fc.property(contents, (all) => {
      expect(decodePack(encodePack(all), all.length).map(text)).toEqual(all.map(text));
    }),
  );
});

test('a pack holds the largest message', () => {
  const all = [{ headers: Buffer.alloc(300, 'h'), body: Buffer.alloc(2_097_152, 'b') }];
  expect(decodePack(encodePack(all), 1).map(text)).toEqual(all.map(text));
});

test('a pack’s size is its version byte and the bytes of each content', () => {
  fc.assert(
    fc.property(contents, (all) => {
      const sizes = all.map(contentBytes);
      expect(encodePack(all)).toHaveLength(sizes.reduce((sum, size) => sum + size, 1));
    }),
  );
});

test('every truncated pack is refused', () => {
  fc.assert(
    fc.property(fc.array(content, { minLength: 1, maxLength: 4 }), (all) => {
      const payload = encodePack(all);
      // Every cut of a short pack. A long one is cut in and behind its lengths, and before its end.
      const cuts = new Set([...Array.from({ length: 100 }, (_, cut) => cut), payload.length - 1, payload.length >> 1]);
      for (const cut of cuts) {
        if (cut >= payload.length) continue;
        expect(() => decodePack(payload.subarray(0, cut), all.length), `${cut} of ${payload.length}`).toThrow(
          RangeError,
        );
      }
    }),
  );
});

test('a pack with bytes behind its last message is refused', () => {
  fc.assert(
    fc.property(contents, bytes(1), (all, more) => {
      expect(() => decodePack(Buffer.concat([encodePack(all), more]), all.length)).toThrow(RangeError);
    }),
  );
});

test('a pack of another version is refused, and the error names the version', () => {
  fc.assert(
    fc.property(contents, fc.integer({ min: 0, max: 255 }), (all, version) => {
      fc.pre(version === 0 || version > 4);
      const payload = encodePack(all);
      payload[0] = version;
      expect(() => decodePack(payload, all.length)).toThrow(`a pack of version ${version};`);
    }),
  );
});

test('the documented format: version, lengths of headers and body, then headers and body of each message', () => {
  const payload = encodePack([
    { headers: null, body: Buffer.from('one') },
    { headers: Buffer.from('{}'), body: Buffer.alloc(200, 'x') },
  ]);
  expect(payload.toString('latin1')).toBe(`\u0001\u0000\u0003\u0002\u00c8\u0001one{}${'x'.repeat(200)}`);
});

test('the documented format of a pack of replays: the id of its original precedes each message', () => {
  const payload = encodePack([
    { headers: null, body: Buffer.from('one'), replayOf: Buffer.alloc(16, 'A') },
    { headers: Buffer.from('{}'), body: Buffer.from('two'), replayOf: Buffer.alloc(16, 'B') },
  ]);
  expect(payload.toString('latin1')).toBe(`\u0002\u0000\u0003\u0002\u0003${'A'.repeat(16)}one${'B'.repeat(16)}{}two`);
});

/** Vitest compares large buffers slowly, and texts at once. */
function text({ headers, body, replayOf, groupId }: Content): (string | null | undefined)[] {
  return [headers && headers.toString('latin1'), body.toString('latin1'), replayOf?.toString('latin1'), groupId];
}
