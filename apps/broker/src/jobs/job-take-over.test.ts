import { Logger } from '@nestjs/common';
import { JobLost, type JobRepository } from '@rowmq/store';
import { expect, test, vi } from 'vitest';
import { JobRunner } from './job-runner.js';

Logger.overrideLogger(false);

test('a job whose batch takes longer than its lease is not carried out twice by one process', async () => {
  const id = Buffer.alloc(16, 1);
  let endBatch = (): void => undefined;
  const runBatch = vi.fn<JobRepository['runBatch']>(
    async () => new Promise((_, reject) => (endBatch = () => reject(new JobLost()))),
  );
  const acquire = vi.fn<JobRepository['acquire']>(async () => true);
  const idle = vi.fn<JobRepository['idle']>(async () => [id]);
  const jobs = { idle, acquire, runBatch, get: async () => ({ messagesPerSecond: null }) };
  const runner = new JobRunner(jobs as unknown as JobRepository, ...([{}, {}, {}] as unknown as [never, never, never]));
  runner.onApplicationBootstrap();
  await vi.waitFor(() => expect(runBatch).toHaveBeenCalledOnce());
  // The look under way ends before another one begins.
  await vi.waitFor(() => {
    runner.look();
    expect(idle).toHaveBeenCalledTimes(2);
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(acquire).toHaveBeenCalledOnce();
  const stopped = runner.beforeApplicationShutdown();
  endBatch();
  await stopped;
});
