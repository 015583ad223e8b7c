import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  bitOf,
  common,
  countMembers,
  firstMembers,
  has,
  indexesOf,
  lowestMember,
  lowestMembers,
  type Members,
  union,
  without,
} from './members.js';

/*
 * The mask must behave like a set of indexes. JavaScript's bit operators are signed, so index 31 is
 * the one that goes wrong.
 */

const INDEXES = Array.from({ length: 32 }, (_, index) => index);
const subset = fc.oneof(
  fc.subarray(INDEXES),
  fc.subarray(INDEXES).map((some) => [...new Set([...some, 31])]),
);
const maskOf = (indexes: readonly number[]): Members => indexes.reduce((sum, index) => sum + 2 ** index, 0);

test('a set contains the indexes that were put into it, ascending, and no other', () => {
  fc.assert(
    fc.property(subset, (indexes) => {
      const members = indexes.reduce((all, index) => union(all, bitOf(index)), 0);
      expect(members).toBe(maskOf(indexes));
      expect([...indexesOf(members)]).toEqual(indexes);
      expect(INDEXES.filter((index) => has(members, index))).toEqual(indexes);
      expect(countMembers(members)).toBe(indexes.length);
    }),
  );
});

test('common, union and without are those of sets', () => {
  fc.assert(
    fc.property(subset, subset, (one, other) => {
      const [a, b] = [maskOf(one), maskOf(other)];
      expect(common(a, b)).toBe(maskOf(one.filter((index) => other.includes(index))));
      expect(union(a, b)).toBe(maskOf(INDEXES.filter((index) => one.includes(index) || other.includes(index))));
      expect(without(a, b)).toBe(maskOf(one.filter((index) => !other.includes(index))));
    }),
  );
});

test('the lowest members are the first indexes, or all if there are fewer', () => {
  fc.assert(
    fc.property(subset, fc.integer({ min: 0, max: 40 }), (indexes, count) => {
      expect(lowestMembers(maskOf(indexes), count)).toBe(maskOf(indexes.slice(0, count)));
      if (indexes.length > 0) expect(lowestMember(maskOf(indexes))).toBe(indexes[0]);
    }),
  );
});

test('the first members of a full pack are all 32', () => {
  for (const count of [0, ...INDEXES, 32]) expect(firstMembers(count)).toBe(maskOf(INDEXES.slice(0, count)));
});
