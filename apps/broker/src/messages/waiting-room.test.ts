import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { WaitingRoom } from './waiting-room.js';

interface Named {
  name: string;
  bytes: number;
  reject: (error: Error) => void;
}

function roomOf(limit: { requests?: number; bytes?: number }) {
  const room = new WaitingRoom<Named>({ requests: 1000, bytes: 1_000_000, ...limit }, () => new Error('full'));
  const turnedAway: string[] = [];
  /** Whether it may wait. */
  const comes = (caller: string, queue: string, name = `${caller}/${queue}`, bytes = 1): boolean => {
    try {
      room.add(caller, queue, { name, bytes, reject: () => turnedAway.push(name) });
      return true;
    } catch {
      return false;
    }
  };
  const served = (count: number): string[] => {
    let left = count;
    return Array.from(
      room.take(() => (left -= 1) >= 0),
      ({ name }) => name,
    );
  };
  return { room, comes, turnedAway, served };
}

describe('a full waiting room', () => {
  test('turns away a flood of one queue, and lets every other queue have its share', () => {
    const { room, comes, turnedAway } = roomOf({ requests: 10 });
    for (let index = 0; index < 10; index += 1) expect(comes('', 'flood', `flood ${index}`)).toBe(true);
    expect(comes('', 'flood')).toBe(false);
    for (let index = 0; index < 5; index += 1) expect(comes('', 'other')).toBe(true);
    // The latest of the flood have gone, so those that wait longest are served.
    expect(turnedAway).toEqual(['flood 9', 'flood 8', 'flood 7', 'flood 6', 'flood 5']);
    expect([comes('', 'other'), comes('', 'flood')]).toEqual([false, false]);
    expect(comes('', 'third')).toBe(true);
    expect(room.size).toBe(10);
  });

  test('counts all queues of a caller as his, however many he floods', () => {
    const { comes, turnedAway } = roomOf({ requests: 100 });
    for (let index = 0; index < 100; index += 1) comes('hostile', `queue ${index % 50}`);
    for (let index = 0; index < 50; index += 1) expect(comes('friendly', 'orders')).toBe(true);
    expect(turnedAway).toHaveLength(50);
    expect(comes('friendly', 'orders')).toBe(false);
    expect(comes('hostile', 'queue 1')).toBe(false);
    // Within the share of a caller, each of his queues has its own.
    expect(comes('friendly', 'mails')).toBe(true);
    expect(turnedAway.at(-1)).toBe('friendly/orders');
  });

  test('makes room for the bytes of a request, of the line that has the most', () => {
    const { comes, turnedAway } = roomOf({ bytes: 100 });
    for (let index = 0; index < 9; index += 1) expect(comes('', 'large', `large ${index}`, 10)).toBe(true);
    expect(comes('', 'small', 'small', 30)).toBe(true);
    expect(turnedAway).toEqual(['large 8', 'large 7']);
    expect(comes('', 'huge', 'huge', 101)).toBe(false);
  });

  test('never exceeds its bounds, loses no request, and serves each line in its order', () => {
    const step = fc.record({
      caller: fc.nat(2),
      queue: fc.nat(3),
      bytes: fc.integer({ min: 1, max: 30 }),
      serve: fc.nat(2),
    });
    fc.assert(fc.property(fc.array(step, { maxLength: 300 }), check));
  });

  function check(steps: { caller: number; queue: number; bytes: number; serve: number }[]): void {
    const { room, comes, turnedAway, served } = roomOf({ requests: 20, bytes: 200 });
    const waiting = new Map<string, number>();
    const out: string[] = [];
    for (const [index, { caller, queue, bytes, serve }] of steps.entries()) {
      const name = `${caller}/${queue}/${index}`;
      if (comes(String(caller), String(queue), name, bytes)) waiting.set(name, bytes);
      for (const gone of turnedAway.splice(0)) expect(waiting.delete(gone)).toBe(true);
      expect(room.size).toBe(waiting.size);
      expect(room.size).toBeLessThanOrEqual(20);
      expect([...waiting.values()].reduce((sum, one) => sum + one, 0)).toBeLessThanOrEqual(200);
      for (const next of served(serve)) {
        expect(waiting.delete(next)).toBe(true);
        out.push(next);
      }
    }
    for (const next of served(100)) {
      expect(waiting.delete(next)).toBe(true);
      out.push(next);
    }
    expect(waiting.size).toBe(0);
    for (const line of new Set(out.map((name) => name.replace(/\/\d+$/, '')))) {
      const order = out.filter((name) => name.startsWith(`${line}/`)).map((name) => Number(name.split('/')[2]));
      expect(order).toEqual(order.toSorted((one, other) => one - other));
    }
  }
});
