import { setImmediate as nextTurn } from 'node:timers/promises';
import { newPackId } from '@rowmq/contract';
import type { JobBatch, JobRepository, QueueRepository } from '@rowmq/store';
import { expect, it, vi } from 'vitest';
import type { WaitingConsumers } from '../messages/waiting-consumers.js';
import type { Metrics } from '../metrics/metrics.js';
import { JobRunner } from './job-runner.js';

/** Jobs of which one is created while the runner reads those that there are. */
class FakeJobs {
  reads = 0;
  readonly created: Buffer[] = [];
  readonly carriedOut: Buffer[] = [];
  onRead = async (): Promise<void> => undefined;

  async idle(): Promise<Buffer[]> {
    this.reads += 1;
    const found = this.created.splice(0);
    await this.onRead();
    return found;
  }

  async acquire(): Promise<boolean> {
    return true;
  }

  async get(): Promise<{ messagesPerSecond: null }> {
    return { messagesPerSecond: null };
  }

  async runBatch(id: Buffer): Promise<JobBatch> {
    this.carriedOut.push(id);
    return { job: { state: 'done', kind: 'purge', queue: 'orders', done: 0 }, count: 0, moved: new Map() } as never;
  }
}

it('a job that is created while the runner looks for jobs does not wait for the next regular look', async () => {
  const jobs = new FakeJobs();
  const runner = new JobRunner(
    jobs as unknown as JobRepository,
    {} as QueueRepository,
    {} as WaitingConsumers,
    {} as Metrics,
  );
  const id = newPackId();
  jobs.onRead = async () => {
    if (jobs.reads > 1) return;
    await nextTurn();
    jobs.created.push(id);
    runner.look();
  };
  // The regular look never comes.
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  runner.look();
  for (let turn = 0; turn < 10; turn += 1) await nextTurn();
  vi.useRealTimers();
  expect(jobs.carriedOut).toEqual([id]);
  await runner.beforeApplicationShutdown();
  const { reads } = jobs;
  runner.look();
  expect(jobs.reads).toBe(reads);
});
