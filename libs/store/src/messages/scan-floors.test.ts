import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type IndexPosition, ScanFloors } from './scan-floors.js';

const QUEUE = 7;
const peek = (begunAt: number, databaseTime: number, seen: IndexPosition[] = []) => ({
  begunAt,
  databaseTime,
  seen,
  isWhole: true,
  claimed: 1,
});

// The clock stands still unless a test moves it.
beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

describe('a floor', () => {
  test('stays 100 ms below the first delivery of a peek, or below the time of an empty peek', () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, peek(floors.now(), 10_000, [{ priorityRank: 5, availableAt: 9000 }]));
    expect(floors.of(QUEUE)).toEqual(new Map([[5, 8900]]));
    floors.endPeek(QUEUE, peek(floors.now(), 20_000));
    expect(floors.of(QUEUE)).toEqual(new Map([[5, 19_900]]));
  });

  test('that was lowered during a peek is not raised by that peek', () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, peek(floors.now(), 10_000, [{ priorityRank: 5, availableAt: 9900 }]));
    const begunAt = floors.now();
    floors.lower(QUEUE, { priorityRank: 0, availableAt: 9000 });
    floors.lower(QUEUE, { priorityRank: 5, availableAt: 8000 });
    floors.endPeek(QUEUE, peek(begunAt, 11_000, [{ priorityRank: 5, availableAt: 10_500 }]));
    expect(floors.of(QUEUE)).toEqual(
      new Map([
        [5, 7999],
        [0, 8999],
      ]),
    );
    floors.endPeek(QUEUE, peek(floors.now(), 12_000, [{ priorityRank: 0, availableAt: 9000 }]));
    expect(floors.of(QUEUE)?.get(0)).toBe(8999);
  });

  test('does not move for a rank that the peek did not reach', () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, peek(floors.now(), 10_000, [{ priorityRank: 5, availableAt: 9000 }]));
    floors.endPeek(QUEUE, {
      ...peek(floors.now(), 20_000, [{ priorityRank: 3, availableAt: 15_000 }]),
      isWhole: false,
    });
    expect(floors.of(QUEUE)?.get(5)).toBe(8900);
  });
});

describe('a first peek that reaches its limit', () => {
  const seen = [{ priorityRank: 5, availableAt: 9000 }];

  test('leaves the ranks that it did not reach to the next peek, from the left edge of the index', () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, { ...peek(floors.now(), 10_000, seen), isWhole: false });
    expect(floors.of(QUEUE)).toEqual(new Map([[5, 8900], ...[6, 7, 8, 9].map((rank): [number, number] => [rank, 0])]));
    floors.endPeek(QUEUE, { ...peek(floors.now(), 11_000, seen), isWhole: false });
    expect(floors.of(QUEUE)?.get(7)).toBe(0);
  });

  test('no longer makes peeks read unused ranks once a later peek has seen the whole queue', () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, { ...peek(floors.now(), 10_000, seen), isWhole: false });
    floors.endPeek(QUEUE, peek(floors.now(), 11_000, [...seen, { priorityRank: 8, availableAt: 500 }]));
    expect([...(floors.of(QUEUE)?.keys() ?? [])]).toEqual([5, 8]);
  });
});

describe('a read-ahead', () => {
  const at = (availableAt: number, priorityRank = 5): IndexPosition => ({ priorityRank, availableAt });
  const positions = [at(100), at(200), at(200), at(200), at(300), at(50, 6)];

  function afterPeek({ meanwhile, ...how }: { isWhole?: boolean; meanwhile?: IndexPosition } = {}): ScanFloors {
    const floors = new ScanFloors();
    const finished = { databaseTime: 1000, isWhole: false, ...how };
    floors.endPeek(QUEUE, { ...finished, begunAt: floors.now(), seen: [], claimed: 1 });
    const begunAt = floors.now();
    floors.beginPeek(QUEUE);
    if (meanwhile !== undefined) floors.lower(QUEUE, meanwhile);
    const claimed = floors.endPeek(QUEUE, { ...finished, begunAt, seen: positions, claimed: 1 });
    expect(claimed).toEqual({ positions: [at(100)], ties: 0 });
    return floors;
  }

  test('is used in hand-out order, with the number of further deliveries at the last position', () => {
    const floors = afterPeek();
    expect(floors.useReadAhead(QUEUE, 1)).toEqual({ positions: [at(200)], ties: 2 });
    expect(floors.useReadAhead(QUEUE, 3)).toEqual({ positions: [at(200), at(200), at(300)], ties: 0 });
    expect(floors.useReadAhead(QUEUE, 1)).toEqual({ positions: [at(50, 6)], ties: undefined });
  });

  test('has no unknown ties at its end if the peek saw the whole queue', () => {
    expect(afterPeek({ isWhole: true }).useReadAhead(QUEUE, 5)).toMatchObject({ ties: 0 });
  });

  test('is discarded by a claim that wants more than it holds', () => {
    const floors = afterPeek();
    expect(floors.useReadAhead(QUEUE, 6)).toBeUndefined();
    expect(floors.useReadAhead(QUEUE, 1)).toBeUndefined();
  });

  test('is discarded when a delivery arrives before its end, but not when one arrives behind it', () => {
    const floors = afterPeek();
    floors.lower(QUEUE, at(51, 6));
    expect(floors.useReadAhead(QUEUE, 1)).toBeDefined();
    floors.lower(QUEUE, at(1000, 5));
    expect(floors.useReadAhead(QUEUE, 1)).toBeUndefined();
  });

  test('is not kept if a delivery arrived before its end during the peek', () => {
    expect(afterPeek({ meanwhile: at(1000, 0) }).useReadAhead(QUEUE, 1)).toBeUndefined();
    expect(afterPeek({ meanwhile: at(1000, 6) }).useReadAhead(QUEUE, 1)).toBeDefined();
  });

  test('is made only in deep queues, and not for a while after one was discarded unused', () => {
    const floors = afterPeek();
    expect(floors.beginPeek(QUEUE).isDeep).toBe(true);
    floors.useReadAhead(QUEUE, 1);
    floors.lower(QUEUE, at(1000, 0));
    expect(floors.beginPeek(QUEUE).isDeep).toBe(true);
    const unused = afterPeek();
    unused.lower(QUEUE, at(1000, 0));
    vi.advanceTimersByTime(999);
    expect(unused.beginPeek(QUEUE).isDeep).toBe(false);
    vi.advanceTimersByTime(1);
    expect(unused.beginPeek(QUEUE).isDeep).toBe(true);
    const shallow = new ScanFloors();
    shallow.endPeek(QUEUE, { begunAt: 0, databaseTime: 1000, seen: positions.slice(0, 3), isWhole: true, claimed: 1 });
    expect(shallow.beginPeek(QUEUE).isDeep).toBe(false);
  });

  test('is too old to use after 100 ms', () => {
    const floors = afterPeek();
    vi.advanceTimersByTime(100);
    expect(floors.useReadAhead(QUEUE, 1)).toBeDefined();
    vi.advanceTimersByTime(1);
    expect(floors.useReadAhead(QUEUE, 1)).toBeUndefined();
  });
});

describe('rescans', () => {
  test('run one at a time for all queues, and pause for twenty times the duration of the last one', async () => {
    const floors = new ScanFloors();
    floors.endPeek(QUEUE, peek(floors.now(), 10_000));
    floors.endPeek(8, peek(floors.now(), 10_000));
    expect(floors.isRescanDue(QUEUE, true)).toBe(true);
    let end = (): void => undefined;
    const rescan = floors.rescan(QUEUE, () => new Promise<void>((resolve) => (end = resolve)));
    vi.advanceTimersByTime(20);
    expect(floors.isRescanDue(8, true)).toBe(false);
    end();
    await rescan;
    vi.advanceTimersByTime(399);
    expect(floors.isRescanDue(8, true)).toBe(false);
    vi.advanceTimersByTime(1);
    expect(floors.isRescanDue(8, true)).toBe(true);
  });
});
