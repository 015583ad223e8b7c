import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FairLine, TURN_MESSAGES } from './fair-line.js';

/** A queue: messages that are ready, in order, and brokers that add to it. */
class Line {
  now = 1_800_000_000_000;
  readonly ready: { place: number; number: number; groupId: string }[] = [];
  private added = 0;

  constructor(private readonly brokers = [new FairLine()]) {}

  add(groupId: string, count = 1, broker = 0): void {
    const line = this.brokers[broker] as FairLine;
    const first = this.ready.find(({ place }) => place >= line.head)?.place;
    for (let nth = 0; nth < count; nth += 1)
      this.ready.push({ place: line.place(groupId, first, this.now), number: (this.added += 1), groupId });
    this.ready.sort((one, other) => one.place - other.place || one.number - other.number);
  }

  take(count: number): string[] {
    return this.ready.splice(0, count).map(({ groupId }) => groupId);
  }

  /** The number of messages that come before the first of this group. */
  before(groupId: string): number {
    return this.ready.findIndex((one) => one.groupId === groupId);
  }
}

describe('a line', () => {
  test('lets a new group pass one that floods it, at any time and from any broker', () => {
    const line = new Line([new FairLine(), new FairLine()]);
    for (let batch = 0; batch < 100; batch += 1) {
      line.add('flood', 1000);
      line.now += 7;
    }
    line.add('one');
    expect(line.before('one')).toBe(TURN_MESSAGES);
    line.take(TURN_MESSAGES);
    line.add('other', 1, 1);
    // The order of their commits.
    expect(line.take(3)).toEqual(['one', 'other', 'flood']);
    line.take(50_000);
    line.add('late', 1, 1);
    expect(line.before('late')).toBe(0);
  });

  test('lets a group that stands in it take no further turn, until it has reached its last message', () => {
    const line = new Line();
    line.add('a', TURN_MESSAGES + 5);
    line.now += 10;
    line.add('b', 3);
    line.add('a', 3);
    expect(line.take(100).join('')).toBe(`${'a'.repeat(TURN_MESSAGES)}bbb${'a'.repeat(8)}`);
    line.now += 10;
    line.add('b', TURN_MESSAGES + 1);
    line.add('a');
    expect(line.take(100).join('')).toBe(`${'b'.repeat(TURN_MESSAGES)}ab`);
  });

  test('keeps the order of messages that all have groups of their own', () => {
    const line = new Line([new FairLine(), new FairLine()]);
    for (let number = 0; number < 2500; number += 1) {
      line.add(String(number), 1, number % 2);
      if (number % 3 === 0) line.now += 1;
    }
    expect(line.take(1000)).toEqual(Array.from({ length: 1000 }, (_, number) => String(number)));
  });

  test('keeps the order within a group, and no message waits for more than a turn of each group', () => {
    const step = fc.record({
      group: fc.nat(3),
      count: fc.constantFrom(1, 1, 20, 50),
      taken: fc.nat(60),
      // Batches of the same two milliseconds share a place, so a group may wait for all of them.
      ms: fc.integer({ min: 2, max: 6 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const line = new Line();
        for (const { group, count, taken, ms } of steps) {
          const isNew = line.before(String(group)) < 0;
          line.add(String(group), count);
          if (isNew) expect(line.before(String(group))).toBeLessThanOrEqual(3 * TURN_MESSAGES);
          for (const of of ['0', '1', '2', '3']) {
            const numbers = line.ready.filter(({ groupId }) => groupId === of).map(({ number }) => number);
            expect(numbers).toEqual(numbers.toSorted((one, other) => one - other));
          }
          line.take(taken);
          line.now += ms;
        }
      }),
    );
  });
});
