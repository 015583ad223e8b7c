import type { QueueRepository } from '@rowmq/store';
import { Pressure } from '../metrics/pressure.js';
import { KeyLimits } from './key-limits.js';
import { RequestLimits } from './request-limits.js';

const NO_QUEUES = { peek: () => undefined } as unknown as QueueRepository;

/** Limits of a broker without any. */
export function noLimits(): RequestLimits {
  const keys = new KeyLimits({ keyMessagesPerSecond: undefined, keyLongPolls: undefined });
  return new RequestLimits(NO_QUEUES, keys, noPressure(), { workers: 1 });
}

/** A database that is never slow. */
export function noPressure(): Pressure {
  return new Pressure({ slowMs: { reaper: Infinity, enqueues: Infinity, dequeues: Infinity } });
}
