import type { QueueStats } from '@rowmq/contract';
import type { BrowseRepository, Queue, QueueRepository } from '@rowmq/store';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { QueueStatsService } from './queue-stats.service.js';

/** What counting a queue, or asking which there are, takes. */
const QUERY_MS = 1;

let queues: Queue[];
let counts: number;
let isAway: boolean;
let service: QueueStatsService;

beforeEach(() => {
  vi.useFakeTimers();
  queues = Array.from({ length: 100 }, (_, index) => newQueue(index + 1));
  counts = 0;
  isAway = false;
  const browse = {
    stats: async (): Promise<QueueStats> => {
      counts += 1;
      await pass(QUERY_MS);
      return { ready: counts, delayed: 0, leased: 0, oldestReadyAgeSeconds: null };
    },
  };
  const repository = {
    list: async () => {
      if (isAway) throw new Error('away');
      await pass(QUERY_MS);
      return queues.slice();
    },
  };
  service = new QueueStatsService(browse as unknown as BrowseRepository, repository as unknown as QueueRepository);
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

/** What this brings, however long it takes by the clock of the test. */
async function soon<T>(work: Promise<T>): Promise<T> {
  await vi.advanceTimersByTimeAsync(1000);
  return work;
}

describe('a sample of all queues', () => {
  test('leaves the database alone for nine tenths of the time, however many ask without a pause', async () => {
    const until = performance.now() + 2000;
    const scrapers = Array.from({ length: 5 }, async (_, index) => {
      await pass(15 * index);
      while (performance.now() < until) expect(await service.sample()).toHaveLength(100);
    });
    await vi.advanceTimersByTimeAsync(2500);
    await Promise.all(scrapers);
    expect(counts).toBeGreaterThanOrEqual(100);
    expect(counts * QUERY_MS).toBeLessThan(300);
  });

  test('has the queues that there are, with counts that may be old', async () => {
    const before = await soon(service.sample());
    queues = [...queues.slice(50), newQueue(101)];
    const after = await soon(service.sample());
    expect(after.map(({ name }) => name)).toEqual(queues.map(({ name }) => name));
    expect(after.slice(0, 50)).toEqual(before.slice(50));
    expect(counts).toBe(101);
  });

  test('counts anew once it has rested', async () => {
    await soon(service.sample());
    await vi.advanceTimersByTimeAsync(1100);
    await soon(service.sample());
    expect(counts).toBe(200);
  });

  test('is taken by the next who asks when one failed', async () => {
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
    expect(await soon(service.of(queues[0] as Queue))).toMatchObject({ ready: 201 });
  });
});
