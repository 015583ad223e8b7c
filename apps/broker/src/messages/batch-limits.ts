import type { BrokerConfig } from '../broker.config.js';
import type { BatcherLimits } from './batcher.js';

/**
 * Rows of one batch. A batch up to this size is cheaper per row. A larger one only holds its locks
 * for longer.
 */
const BATCH_ROWS = 1000;
/**
 * Bodies and headers of one batch, unless its only request is larger. As SQL they take twice that,
 * which fits the smallest default of `max_allowed_packet` (16 MiB). `sizeLimits` says so of the
 * largest request.
 */
const BATCH_BYTES = 4 * 1024 * 1024;
/** Bodies and headers that may wait for their batch. */
const WAITING_BYTES = 64 * 1024 * 1024;
/** The share of a broker's connections that the batches of one verb may take. */
const SHARE_OF_POOL = 1 / 4;

export type BatchConfig = Pick<BrokerConfig, 'poolSize' | 'batchRequests' | 'maxWaitingRequests'>;

/** The limits of every verb's batches. */
export function batchLimits(config: BatchConfig): BatcherLimits {
  return {
    requests: config.batchRequests,
    rows: BATCH_ROWS,
    bytes: BATCH_BYTES,
    // Two at least: a batch that waits for a lock must not stop the others.
    batches: Math.max(2, Math.floor(config.poolSize * SHARE_OF_POOL)),
    waitingRequests: config.maxWaitingRequests,
    waitingBytes: WAITING_BYTES,
  };
}
