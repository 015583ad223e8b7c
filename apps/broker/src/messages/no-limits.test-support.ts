import type { QueueRepository } from '@rowmq/store';
import { RequestLimits } from './request-limits.js';

const NO_QUEUES = { peek: () => undefined } as unknown as QueueRepository;

/** Limits of a broker without any. */
export function noLimits(): RequestLimits {
  return new RequestLimits(NO_QUEUES, { workers: 1, keyMessagesPerSecond: undefined, keyLongPolls: undefined });
}
