import { Counter, Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { AllWorkers } from './worker-metrics.js';

type Sent = { collect: number };

/** A worker that has counted so many messages. It answers when it is told to. */
function worker(count: number) {
  const own = new Registry();
  new Counter({ name: 'messages', help: 'Messages', registers: [own] }).inc(count);
  const asked: number[] = [];
  return {
    isConnected: () => true,
    send: (message: unknown) => {
      asked.push((message as Sent).collect);
      return true;
    },
    answer: async (all: AllWorkers) => {
      const collected = asked.shift() as number;
      all.took({ collected, metrics: await own.getMetricsAsJSON() });
    },
  };
}

describe('the metrics of all workers', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('are added up', async () => {
    const workers = [worker(2), worker(3)] as const;
    const gone = { ...worker(100), isConnected: () => false };
    const all = new AllWorkers(() => [...workers, gone]);
    const text = all.text();
    for (const one of workers) await one.answer(all);
    expect(await text).toContain('\nmessages 5\n');
    expect(all.open).toBe(0);
  });

  it('are not kept for a worker that never answers, nor if it answers too late', async () => {
    const [answers, stuck] = [worker(2), worker(3)];
    const all = new AllWorkers(() => [answers, stuck]);
    for (let scrape = 0; scrape < 3; scrape += 1) {
      const refused = all.text().catch((error: unknown) => error);
      await answers.answer(all);
      expect(all.open).toBe(1);
      await vi.advanceTimersByTimeAsync(5000);
      expect(await refused).toMatchObject({ message: 'a worker did not tell its metrics' });
      expect(all.open).toBe(0);
    }
    await stuck.answer(all);
    expect(all.open).toBe(0);
  });

  it('are empty without workers, and refused if one cannot be asked', async () => {
    expect((await new AllWorkers(() => []).text()).trim()).toBe('');
    const broken = {
      isConnected: () => true,
      send: (_: unknown, done?: unknown) => {
        (done as (error: Error) => void)(new Error('channel closed'));
        return false;
      },
    };
    const all = new AllWorkers(() => [broken]);
    await expect(all.text()).rejects.toThrow('did not tell its metrics');
    expect(all.open).toBe(0);
  });
});
