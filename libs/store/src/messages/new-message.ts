import { checkGroup, LIMITS, RowmqError } from '@rowmq/contract';
import { type Queue, queuePaused } from '../queues/queue.js';
import type { Content } from './pack.codec.js';
import type { NewFate, Packable } from './packing.js';

/** A message as a producer sends it. The caller has checked its size. */
export interface NewMessage extends Content {
  /** 0 to 9; 9 is the most urgent. */
  priority: number;
  /** Default: the queue's delay. */
  delaySeconds?: number | undefined;
  /** In place of a delay: ms since 1970. A past instant means now. */
  availableAt?: number | undefined;
  /** Counts from the enqueue. Default and maximum: the queue's TTL from when it is available. */
  expiresInSeconds?: number | undefined;
  /** A further message with this id is not stored for some time. */
  deduplicationId?: string | undefined;
}

/** Messages for one queue. The broker stores all of them or none. */
export interface EnqueueRequest {
  queueName: string;
  messages: readonly NewMessage[];
  /** A repeat of the request has the same key, and gets the answer of the first. */
  idempotencyKey?: string | undefined;
}

/** A message that the batch stores. */
export interface Admitted extends Packable {
  priority: number;
}

export function namesInstant({ messages }: Pick<EnqueueRequest, 'messages'>): boolean {
  return messages.some(({ availableAt }) => availableAt !== undefined);
}

/**
 * A message with its times. Throws what {@link fateOf} does.
 * @param now the database's time, for a message that names an instant
 */
export function schedule(message: NewMessage, queue: Queue, index: number, now: number): Admitted {
  const { body, headers, replayOf, groupId, priority } = message;
  const fate = fateOf(message, queue, index, now);
  return { body, headers, replayOf, ...(groupId !== undefined && { groupId }), priority, ...fate };
}

/**
 * The times of a message. Throws `queue-paused` if its queue takes none. Throws `invalid-request`
 * if it does not fit the ordering of its queue, if it would expire before it is available, or if it
 * is available too late.
 */
export function fateOf(message: NewMessage, queue: Queue, index: number, now: number): NewFate {
  if (queue.producersPaused) throw queuePaused(queue.name);
  checkGroup(message, queue, index);
  const { priority, expiresInSeconds } = message;
  const availableAt = message.availableAt !== undefined && message.availableAt > now ? message.availableAt : null;
  const delayMs = delayOf(message, queue, now);
  if (delayMs > LIMITS.aheadSeconds * 1000) {
    throw new RowmqError(
      'invalid-request',
      `Message ${index} would be available in more than ${LIMITS.aheadSeconds / 86_400} days; name an earlier time, and enqueue it again then.`,
    );
  }
  const ttlMs = queue.messageTtlSeconds * 1000;
  const producerLifeMs = expiresInSeconds === undefined ? null : expiresInSeconds * 1000;
  if (producerLifeMs !== null && delayMs >= producerLifeMs) {
    throw new RowmqError(
      'invalid-request',
      `Message ${index} would expire after ${expiresInSeconds} s, before its delay of ${Math.ceil(delayMs / 1000)} s ends, and never be delivered; shorten the delay or let it live longer.`,
    );
  }
  return {
    priorityRank: LIMITS.priorityMax - priority,
    delayMs,
    availableAt,
    lifeMs: Math.min(producerLifeMs ?? Infinity, delayMs + ttlMs),
    producerLifeMs,
    leaseMs: null,
  };
}

function delayOf({ availableAt, delaySeconds }: NewMessage, queue: Queue, now: number): number {
  if (availableAt !== undefined) return Math.max(0, availableAt - now);
  return (delaySeconds ?? queue.delaySeconds) * 1000;
}
