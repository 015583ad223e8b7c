import type { QueueRepository, UnleasedRepository } from '@rowmq/store';
import { expect, test, vi } from 'vitest';
import type { WaitingConsumers } from '../messages/waiting-consumers.js';
import { Metrics } from '../metrics/metrics.js';
import type { QueueStatsService } from './queue-stats.service.js';
import { QueuesService } from './queues.service.js';

const HELD_MS = 300;

test('a delete pauses before its next pass over deliveries that others hold', async () => {
  const started = performance.now();
  const purge = vi.fn<UnleasedRepository['purge']>(async () => {
    const isHeld = performance.now() - started < HELD_MS;
    return { purged: isHeld ? 0 : 1, left: isHeld ? 1 : 0, next: null };
  });
  const unleased = { purge, lastId: async () => Buffer.alloc(16, 1) } as unknown as UnleasedRepository;
  const forget = vi.fn<QueueRepository['forget']>(async () => undefined);
  const queues = { delete: async () => 7, forget } as unknown as QueueRepository;
  const service = new QueuesService(
    queues,
    unleased,
    {} as QueueStatsService,
    {} as WaitingConsumers,
    new Metrics({ metricsQueues: 200 }),
  );
  await service.delete('q', { force: true });
  expect(forget).toHaveBeenCalledOnce();
  // A timer may be a millisecond early.
  expect(purge.mock.calls.length).toBeLessThanOrEqual((performance.now() - started) / 49 + 1);
});
