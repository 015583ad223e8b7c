import { beforeEach, describe, expect, test } from 'vitest';
import { HOUR, START } from '../support/partitions.js';
import { openStore, type TestStore } from '../support/store.js';

let store: TestStore;

beforeEach(async () => {
  store = await openStore();
  return () => store.close();
});

describe("the reaper's lease", () => {
  test('goes to one of several reapers that ask at the same time, and the others are refused', async () => {
    expect(await store.at(START).reaper.leader()).toBeNull();
    const holders = Array.from({ length: 12 }, (_, index) => `reaper-${index}`);
    const taken = await Promise.all(holders.map((holder) => store.at(START).reaper.acquireLease(holder, 30)));
    expect(taken.filter(Boolean)).toHaveLength(1);
    expect(await store.at(START).reaper.leader()).toEqual({
      holder: holders[taken.indexOf(true)],
      expiresAt: START + 30_000,
    });
  });

  test('stays with its holder as long as the holder renews it, and lapses to the millisecond', async () => {
    expect(await store.at(START).reaper.acquireLease('one', 30)).toBe(true);
    expect(await store.at(START + 29_999).reaper.acquireLease('two', 30)).toBe(false);
    expect(await store.at(START + 20_000).reaper.acquireLease('one', 30)).toBe(true);
    expect(await store.at(START + 49_999).reaper.acquireLease('two', 30)).toBe(false);
    expect(await store.at(START + 49_999).reaper.leader()).toMatchObject({ holder: 'one' });
    expect(await store.at(START + 50_000).reaper.leader()).toBeNull();
    expect(await store.at(START + 50_000).reaper.acquireLease('two', 30)).toBe(true);
    // A holder that was away for too long does not get the lease back before the new holder drops
    // it.
    expect(await store.at(START + 50_001).reaper.acquireLease('one', 30)).toBe(false);
    expect(await store.at(START + 50_001).reaper.leader()).toEqual({ holder: 'two', expiresAt: START + 80_000 });
  });

  test('is free at once when its holder drops it, and nobody else can drop it', async () => {
    await store.reaper.acquireLease('one', 30);
    await store.reaper.dropLease('two');
    expect(await store.reaper.acquireLease('two', 30)).toBe(false);
    await store.reaper.dropLease('one');
    expect(await store.reaper.leader()).toBeNull();
    expect(await store.reaper.acquireLease('two', 30)).toBe(true);
    expect(await store.reaper.acquireLease('one', 30)).toBe(false);
  });
});

describe("the reaper's run log", () => {
  const run = { duty: 'expire', reaper: 'one', startedAt: START, durationMs: 5, count: 1, error: null };

  test('returns the last runs of a duty, newest first, and keeps as much of an error as fits', async () => {
    await store.reaper.record(run);
    await store.reaper.record({ ...run, count: 2, error: 'é'.repeat(1500) });
    await store.reaper.record({ ...run, duty: 'drop', count: 3 });
    expect(await store.reaper.duties()).toEqual(['drop', 'expire']);
    const runs = await store.reaper.lastRuns('expire', 10);
    expect(runs.map(({ count, error }) => [count, error])).toEqual([
      [2, 'é'.repeat(1000)],
      [1, null],
    ]);
    expect(await store.reaper.lastRuns('expire', 1)).toMatchObject([{ ...run, count: 2, error: 'é'.repeat(1000) }]);
    expect(await store.reaper.lastRuns('nothing', 10)).toEqual([]);
  });

  test('reports for each duty the time since its last success and its count in the last hour', async () => {
    expect(await store.reaper.dutyStates()).toEqual([]);
    const busy = { ...run, error: 'the table is busy' };
    await store.reaper.record({ ...run, startedAt: START - HOUR, count: 1000 });
    await store.reaper.record({ ...run, startedAt: START - HOUR + 1, count: 20 });
    await store.reaper.record({ ...run, startedAt: START - 60_005, count: 3 });
    await store.reaper.record({ ...busy, startedAt: START - 10_000, count: 0 });
    await store.reaper.record({ ...busy, duty: 'drop', startedAt: START - 2 * HOUR, count: 0 });
    await store.reaper.record({ ...busy, duty: 'drop', startedAt: START - 5000, count: 0 });
    await store.reaper.record({ ...run, duty: 'ahead', startedAt: START + 5000, count: 0 });
    expect(await store.at(START).reaper.dutyStates()).toEqual([
      // The run of a reaper whose clock is fast.
      { duty: 'ahead', lastSuccessAgeMs: 0, handledLastHour: 0 },
      // The duty never succeeded, so its age counts from the first run in the log.
      { duty: 'drop', lastSuccessAgeMs: 2 * HOUR, handledLastHour: 0 },
      { duty: 'expire', lastSuccessAgeMs: 60_000, handledLastHour: 23 },
    ]);
  });

  test('prunes all but the last runs of a duty, some at a time, and no run of another duty', async () => {
    for (let count = 0; count < 12; count += 1) await store.reaper.record({ ...run, count });
    await store.reaper.record({ ...run, duty: 'drop' });
    expect(await store.reaper.pruneRuns('expire', 5, 4)).toBe(4);
    expect(await store.reaper.pruneRuns('expire', 5, 4)).toBe(3);
    expect(await store.reaper.pruneRuns('expire', 5, 4)).toBe(0);
    expect(await store.reaper.pruneRuns('drop', 5, 4)).toBe(0);
    expect((await store.reaper.lastRuns('expire', 100)).map(({ count }) => count)).toEqual([11, 10, 9, 8, 7]);
    expect(await store.reaper.lastRuns('drop', 100)).toHaveLength(1);
  });
});
