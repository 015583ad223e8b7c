import type { Queue, QueueRepository, SweepRepository } from '@rowmq/store';
import { expect, test, vi } from 'vitest';
import type { CombinedDemand } from '../messages/combined-demand.js';
import { Metrics } from '../metrics/metrics.js';
import type { QueueStatsService } from './queue-stats.service.js';
import { QueuesService } from './queues.service.js';

const HELD_MS = 300;

test('a purge waits a little before it goes over what others hold again', async () => {
  const started = performance.now();
  const purge = vi.fn<SweepRepository['purge']>(async () => {
    const isHeld = performance.now() - started < HELD_MS;
    return { purged: isHeld ? 0 : 1, left: isHeld ? 1 : 0, next: null };
  });
  const sweep = { purge, lastId: async () => Buffer.alloc(16, 1) } as unknown as SweepRepository;
  const queues = { getFresh: async () => ({ id: 7 }) as Queue } as unknown as QueueRepository;
  const service = new QueuesService(queues, sweep, {} as QueueStatsService, {} as CombinedDemand, new Metrics());
  expect(await service.purge('q')).toEqual({ purged: 1, complete: true });
  // A timer may be a millisecond early.
  expect(purge.mock.calls.length).toBeLessThanOrEqual((performance.now() - started) / 49 + 1);
});
