import type { BrowseRepository, DeliveryStats, MinuteRepository, Queue, QueueRepository } from '@rowmq/store';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { QueueStatsService } from './queue-stats.service.js';

/** The time of one count, and of one list of the queues. */
let queryMs: number;
let deliveries: number;

let queues: Queue[];
let counts: number;
let isAway: boolean;
let service: QueueStatsService;

beforeEach(() => {
  vi.useFakeTimers();
  queues = Array.from({ length: 100 }, (_, index) => newQueue(index + 1));
  counts = 0;
  isAway = false;
  queryMs = 1;
  deliveries = 10;
  const browse = {
    stats: async (): Promise<DeliveryStats> => {
      counts += 1;
      // The count of this moment.
      const ready = counts;
      await pass(queryMs);
      return {
        ready,
        delayed: 0,
        leased: 0,
        waiting: 0,
        oldestReadyAgeSeconds: null,
        oldestLeaseAgeSeconds: null,
        deliveries,
      };
    },
  };
  const repository = {
    list: async () => {
      if (isAway) throw new Error('away');
      await pass(1);
      return queues.slice();
    },
  };
  const minutes = { rates: async () => new Map(), changes: async (_: number, ageMs: number) => ageMs };
  service = new QueueStatsService(
    browse as unknown as BrowseRepository,
    repository as unknown as QueueRepository,
    minutes as unknown as MinuteRepository,
  );
});
afterEach(() => {
  vi.useRealTimers();
});

const newQueue = (id: number): Queue => ({ id, name: `queue-${id}` }) as Queue;

async function pass(ms: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

/** The result of this work, after its time has passed on the test's clock. */
async function soon<T>(work: Promise<T>): Promise<T> {
  await vi.advanceTimersByTimeAsync(1000);
  return work;
}

describe('a sample of all queues', () => {
  test('leaves the database alone for nine tenths of the time, however often it is called', async () => {
    const until = performance.now() + 2000;
    const scrapers = Array.from({ length: 5 }, async (_, index) => {
      await pass(15 * index);
      while (performance.now() < until) expect(await service.sample()).toHaveLength(100);
    });
    await vi.advanceTimersByTimeAsync(2500);
    await Promise.all(scrapers);
    expect(counts).toBeGreaterThanOrEqual(100);
    expect(counts * queryMs).toBeLessThan(300);
  });

  test('has the queues that exist now, with counts that may be old', async () => {
    const before = await soon(service.sample());
    queues = [...queues.slice(50), newQueue(101)];
    const after = await soon(service.sample());
    expect(after.map(({ queue }) => queue.name)).toEqual(queues.map(({ name }) => name));
    expect(after.slice(0, 50)).toEqual(before.slice(50));
    expect(counts).toBe(101);
  });

  test('counts anew once it has rested', async () => {
    await soon(service.sample());
    await vi.advanceTimersByTimeAsync(1100);
    await soon(service.sample());
    expect(counts).toBe(200);
  });

  test('is made by the next caller after one that failed', async () => {
    isAway = true;
    await expect(service.sample()).rejects.toThrow('away');
    isAway = false;
    expect(await soon(service.sample())).toHaveLength(100);
  });
});

describe('a list of all queues', () => {
  test('is not older than each count allows by itself', async () => {
    await soon(service.sample());
    await soon(service.all());
    expect(counts).toBe(200);
    expect(await soon(service.of(queues[0] as Queue))).toMatchObject({ stats: { ready: 201, errorBound: 0 } });
  });
});

describe('a deep queue', () => {
  const asked = async () => {
    const askedAt = performance.now();
    const answer = service.of(queues[0] as Queue).then(({ stats }) => ({ stats, ms: performance.now() - askedAt }));
    await vi.advanceTimersByTimeAsync(2000);
    return answer;
  };
  beforeEach(() => {
    queryMs = 2000;
    deliveries = 5_000_000;
  });

  test('is answered at once from the last count, with its age and what changed since', async () => {
    expect(await asked()).toMatchObject({ ms: 2000, stats: { ready: 1, ageSeconds: 0, errorBound: 0 } });
    await vi.advanceTimersByTimeAsync(16_000);
    expect(await asked()).toMatchObject({ ms: 0, stats: { ready: 1, ageSeconds: 18, errorBound: 18_000 } });
    expect(counts).toBe(1);
    await vi.advanceTimersByTimeAsync(2000);
    // Eleven times as long as the count took: the next one begins, and takes two seconds.
    expect(await asked()).toMatchObject({ ms: 0, stats: { ready: 1, ageSeconds: 22 } });
    expect(await asked()).toMatchObject({ ms: 0, stats: { ready: 2, ageSeconds: 2, errorBound: 2000 } });
    expect(counts).toBe(2);
  });

  test('is counted at every request again when it has become small', async () => {
    await asked();
    deliveries = 10;
    await vi.advanceTimersByTimeAsync(30_000);
    await asked();
    queryMs = 1;
    expect(await asked()).toMatchObject({ ms: 1, stats: { ready: 3, ageSeconds: 0 } });
    expect(await asked()).toMatchObject({ ms: 1, stats: { ready: 4, ageSeconds: 0 } });
  });
});
