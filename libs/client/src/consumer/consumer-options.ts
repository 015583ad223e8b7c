import { LIMITS } from '@rowmq/contract';
import { z } from 'zod';
import { type Backoff, exponentialBackoff } from './outcomes.js';

/** How a consumer works. */
export interface ConsumerOptions {
  /** Handlers that work at the same time. Default 1. */
  concurrency?: number | undefined;
  /**
   * Messages per dequeue, 1 to 100, and at most this many per call of a batch handler. By default,
   * a dequeue asks for as many as the consumer has room for, and a batch handler gets up to 10.
   */
  batchSize?: number | undefined;
  /**
   * Messages held beyond those that handlers work on, so that handlers need not wait for the next.
   * Default: half as many as those, and as many for a batch handler.
   */
  prefetch?: number | undefined;
  /**
   * 1 to 43,200. After this time without a sign of life of this process, other consumers get its
   * messages. Default: the queue's `leaseSeconds`. The consumer extends the lease while a handler
   * works.
   */
  leaseSeconds?: number | undefined;
  /** The time that a dequeue waits in the broker for a message, 0 to 20. Default 20. */
  waitSeconds?: number | undefined;
  /**
   * The time that a handler has for a message or a batch, 1 to 43,200. After it, its signal fires,
   * its messages are nacked, and another handler begins. Default 1800, half an hour.
   */
  handlerTimeoutSeconds?: number | undefined;
  /** The time that handlers have to finish after the consumer is stopped. Default 20. */
  shutdownSeconds?: number | undefined;
  /** The delay before a failed message comes again. Default {@link exponentialBackoff}. */
  backoff?: Backoff | undefined;
}

/** Options with their defaults, and the numbers that follow from them. */
export interface ConsumerSettings extends Required<{
  [Name in Exclude<keyof ConsumerOptions, 'leaseSeconds'>]: NonNullable<ConsumerOptions[Name]>;
}> {
  /** Undefined: the queue's. */
  leaseSeconds: number | undefined;
  /** Messages per handler call at most. */
  unit: number;
  /** Messages held at most. */
  capacity: number;
}

const seconds = (min: number, max: number) => z.int().min(min).max(max);

const schema = z.strictObject({
  concurrency: z.int().min(1).max(10_000).default(1),
  batchSize: z.int().min(1).max(LIMITS.batch).optional(),
  prefetch: z.int().min(0).max(10_000).optional(),
  leaseSeconds: seconds(1, LIMITS.leaseSeconds).optional(),
  waitSeconds: seconds(0, LIMITS.waitSeconds).default(LIMITS.waitSeconds),
  handlerTimeoutSeconds: seconds(1, LIMITS.leaseSeconds).default(1800),
  shutdownSeconds: seconds(0, 3600).default(20),
  backoff: z
    .custom<Backoff>((value) => typeof value === 'function', 'must be a function (attempt, error) => ms')
    .default(() => exponentialBackoff),
});

/** Messages for one call of a batch handler by default. */
const DEFAULT_UNIT = 10;

/**
 * @param isBatch a handler takes up to `batchSize` messages
 * @throws TypeError that names every invalid option
 */
export function consumerSettings(
  queue: string,
  isBatch: boolean,
  options: ConsumerOptions & { format?: unknown; schema?: unknown },
): ConsumerSettings {
  const { format: _format, schema: _schema, ...own } = options;
  const given = schema.safeParse(own);
  if (!given.success) {
    const faults = given.error.issues
      .map(({ path, message }) => `${path.join('.') || 'options'}: ${message}`)
      .join('; ');
    throw new TypeError(`The consumer of queue '${queue}' has invalid options: ${faults}`);
  }
  const { concurrency, batchSize } = given.data;
  const unit = isBatch ? (batchSize ?? DEFAULT_UNIT) : 1;
  const worked = concurrency * unit;
  const prefetch = given.data.prefetch ?? (isBatch ? worked : Math.floor(worked / 2));
  const capacity = worked + prefetch;
  const { leaseSeconds } = given.data;
  return {
    ...given.data,
    leaseSeconds,
    prefetch,
    unit,
    capacity,
    batchSize: batchSize ?? Math.min(LIMITS.batch, capacity),
  };
}
