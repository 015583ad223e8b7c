import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { AdaptiveLimit } from './adaptive-limit.js';

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

/** A database that carries out so many flights at a time as fast as one alone; more of them only wait for each other. */
interface ModelDatabase {
  atATime: number;
  /** Round trip of a flight of one row, alone, in ms; 64 rows take twice that. */
  baseMs: number;
}

const ROWS = [1, 1, 64, 8];

/** Keeps as many flights under way as the limit allows, for so many seconds. Returns the limit after each landing. */
function run(limit: AdaptiveLimit, database: ModelDatabase, seconds: number, isBusy = true): number[] {
  const seen: number[] = [];
  const until = performance.now() + seconds * 1000;
  for (let flight = 0; performance.now() < until; flight += 1) {
    const underWay = isBusy ? limit.value : 1;
    const rows = ROWS[flight % ROWS.length] as number;
    // Round trips vary, as they do.
    const jitter = 1 + 0.3 * (((flight * 7919) % 101) / 101);
    const ms = database.baseMs * (1 + rows / 64) * jitter * Math.max(1, underWay / database.atATime);
    vi.advanceTimersByTime(ms / underWay);
    limit.landed(rows, ms, isBusy);
    seen.push(limit.value);
  }
  return seen;
}

function extremes(seen: number[]): [number, number] {
  const sorted = seen.toSorted((one, other) => one - other);
  return [sorted[0] ?? NaN, sorted.at(-1) ?? NaN];
}

describe('the limit of flights', () => {
  test.each([1, 2, 4, 8])('settles near what a database does at a time: %i', (atATime) => {
    const limit = new AdaptiveLimit(64);
    run(limit, { atATime, baseMs: 5 }, 10);
    const [least, most] = extremes(run(limit, { atATime, baseMs: 5 }, 10));
    expect(least).toBeGreaterThanOrEqual(atATime);
    expect(most).toBeLessThanOrEqual(2 * atATime + 2);
  });

  test('stays there for as long as the load lasts', () => {
    const limit = new AdaptiveLimit(64);
    run(limit, { atATime: 4, baseMs: 5 }, 20);
    const seen = run(limit, { atATime: 4, baseMs: 5 }, 600);
    // But for a moment every half minute, when one at a time measures anew.
    expect(seen.filter((value) => value < 4).length / seen.length).toBeLessThan(0.01);
    expect(extremes(seen)[1]).toBeLessThanOrEqual(16);
  });

  test('goes down when the database can do less at a time, and up again when it can do more', () => {
    const limit = new AdaptiveLimit(64);
    run(limit, { atATime: 8, baseMs: 5 }, 20);
    const before = limit.value;
    expect(before).toBeGreaterThanOrEqual(8);
    run(limit, { atATime: 1, baseMs: 5 }, 20);
    expect(limit.value).toBeLessThanOrEqual(5);
    expect(Math.max(...run(limit, { atATime: 8, baseMs: 5 }, 20).slice(-50))).toBeGreaterThanOrEqual(8);
  });

  test('recovers when every round trip has become longer for good, as by slower disks', () => {
    const limit = new AdaptiveLimit(64);
    run(limit, { atATime: 8, baseMs: 2 }, 20);
    run(limit, { atATime: 8, baseMs: 20 }, 120);
    expect(limit.value).toBeGreaterThanOrEqual(8);
  });

  test('is never below one nor above its maximum, whatever round trips take', () => {
    const limit = new AdaptiveLimit(3);
    for (let flight = 0; flight < 5000; flight += 1) {
      const ms = flight % 1000 < 500 ? 0.01 + (flight % 7) : 10 ** (flight % 9);
      vi.advanceTimersByTime(20);
      limit.landed(1 + (flight % 1000), ms, flight % 3 > 0);
      expect(limit.value).toBeGreaterThanOrEqual(1);
      expect(limit.value).toBeLessThanOrEqual(3);
    }
    expect(new AdaptiveLimit(1).value).toBe(1);
  });

  test('does not grow while nobody waits', () => {
    const limit = new AdaptiveLimit(64);
    const before = limit.value;
    run(limit, { atATime: 8, baseMs: 5 }, 20, false);
    expect(limit.value).toBe(before);
  });

  test('compares flights with others of their size: large ones among small ones do not lower it', () => {
    const limit = new AdaptiveLimit(8);
    run(limit, { atATime: 64, baseMs: 5 }, 5);
    expect(limit.value).toBe(8);
    for (let flight = 0; flight < 500; flight += 1) {
      vi.advanceTimersByTime(1);
      limit.landed(flight % 2 === 0 ? 1 : 1000, flight % 2 === 0 ? 5 : 300, true);
    }
    expect(limit.value).toBe(8);
  });
});
