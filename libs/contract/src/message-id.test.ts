import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  formatMessageId,
  indexInPack,
  lowestMessageId,
  messageIdIn,
  messageIdTime,
  mostPackBytes,
  newPackId,
  PACK_MESSAGES,
  packIdAfter,
  packIdOf,
  parseMessageId,
  withPackBytes,
} from './message-id.js';

test('ids ascend in the order in which they are made, also within a millisecond', () => {
  const ids = Array.from({ length: 20_000 }, () => newPackId());
  expect(ids.filter((id, index) => index > 0 && Buffer.compare(ids[index - 1]!, id) !== -1)).toEqual([]);
});

test('ids in order ascend if the clock stands still or is read out of order, and follow it if it goes back', () => {
  const start = Date.UTC(2030, 0);
  const none = Buffer.alloc(16);
  const times = [...Array.from({ length: 600 }, () => start), start + 5, start + 3, start - 900, start + 4];
  const ids = times.map((time) => packIdAfter(none, time));
  expect(ids.filter((id, index) => index > 0 && Buffer.compare(ids[index - 1]!, id) !== -1)).toEqual([]);
  // 255 packs fill a millisecond.
  expect(messageIdTime(ids[599]!)).toBe(start + 2);
  expect(messageIdTime(packIdAfter(none, start - 60_000))).toBe(start - 60_000);
});

test('an id in order is higher than the last one of its groups, whoever made that, and hardly ahead of the clock', () => {
  const start = Date.UTC(2031, 0);
  // As of another process, whose clock was ahead.
  const last = newPackId(start + 7);
  const ids = [last];
  for (let n = 0; n < 700; n += 1) ids.push(packIdAfter(withPackBytes(ids.at(-1)!, 100_000), start));
  expect(ids.filter((id, index) => index > 0 && Buffer.compare(ids[index - 1]!, id) !== -1)).toEqual([]);
  expect(messageIdTime(ids.at(-1)!)).toBe(start + 9);
  expect(formatMessageId(ids.at(-1)!)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  // Another group knows nothing of that.
  expect(messageIdTime(packIdAfter(Buffer.alloc(16), start + 20))).toBe(start + 20);
});

test('an id is a UUIDv7 and contains the time at which it was made', () => {
  const before = Date.now();
  const id = newPackId();
  expect(formatMessageId(id)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(messageIdTime(id)).toBeGreaterThanOrEqual(before);
  expect(messageIdTime(id)).toBeLessThanOrEqual(Date.now());
});

test('an id can be made for any time, and no id of that time is below the lowest', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: Date.UTC(9999, 0) }), (time) => {
      const id = newPackId(time);
      expect(messageIdTime(id)).toBe(time);
      expect(messageIdTime(lowestMessageId(time))).toBe(time);
      expect(Buffer.compare(lowestMessageId(time), id)).toBe(-1);
      expect(Buffer.compare(id, lowestMessageId(time + 1))).toBe(-1);
    }),
  );
});

test('an id can be parsed from its text, in upper and lower case', () => {
  const id = newPackId();
  expect(parseMessageId(formatMessageId(id)).equals(id)).toBe(true);
  expect(parseMessageId(formatMessageId(id).toUpperCase()).equals(id)).toBe(true);
  expect(() => parseMessageId('019a0b5d')).toThrow(TypeError);
});

test('a message’s id names its pack and its index, keeps the pack’s time and is a UUIDv7', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: Date.UTC(9999, 0) }), fc.nat(PACK_MESSAGES - 1), (time, index) => {
      const packId = newPackId(time);
      const id = messageIdIn(packId, index);
      expect(packIdOf(id)).toEqual(packId);
      expect(indexInPack(id)).toBe(index);
      expect(messageIdTime(id)).toBe(time);
      expect(formatMessageId(id)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      expect(packIdOf(packId)).toEqual(packId);
    }),
  );
});

test('the ids of a pack’s messages ascend, differ, and lie before those of the next pack', () => {
  const [pack, next] = [newPackId(), newPackId()];
  const ids = Array.from({ length: PACK_MESSAGES }, (_, index) => messageIdIn(pack, index));
  expect([...ids, next].toSorted((one, other) => one.compare(other))).toEqual([...ids, next]);
  expect(new Set([...ids, next].map(formatMessageId)).size).toBe(PACK_MESSAGES + 1);
  // The id of the pack itself stays as it was.
  expect(indexInPack(pack)).toBe(0);
});

test('the id of a pack tells the most bytes of its payload, and stays a UUIDv7 that ascends', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 500_000 }), (bytes) => {
      const [before, id, next] = [newPackId(), withPackBytes(newPackId(), bytes), newPackId()];
      expect(mostPackBytes(id)).toBeGreaterThan(bytes);
      expect(mostPackBytes(id)).toBeLessThanOrEqual(bytes + 4096);
      expect(mostPackBytes(messageIdIn(id, PACK_MESSAGES - 1))).toBe(mostPackBytes(id));
      expect(packIdOf(id)).toEqual(id);
      expect(formatMessageId(id)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      expect([before, id, next].toSorted((one, other) => one.compare(other))).toEqual([before, id, next]);
    }),
  );
  expect(mostPackBytes(newPackId())).toBe(4096);
});
