import type { Queue } from '../queues/queue.js';
import { type Delivery, type Fate, split } from './delivery.js';
import { NO_TOKEN } from './delivery.sql.js';

/** A queue to which deliveries move. */
export type MoveTarget = Pick<Queue, 'id' | 'messageTtlSeconds'>;

/**
 * The fate of messages that move to another queue. They are available now and count as never
 * received. They live by the target's TTL from now on, and no longer than their producer said. They
 * keep their nack reason unless the caller gives another.
 */
export function moveTo(
  { id, messageTtlSeconds }: MoveTarget,
  { producerExpiresAt, nackReason }: Delivery,
  now: number,
  reason?: string,
): Fate {
  return {
    queueId: id,
    leaseToken: NO_TOKEN,
    availableAt: now,
    expiresAt: Math.min(now + messageTtlSeconds * 1000, producerExpiresAt ?? Infinity),
    receiveCount: 0,
    nackReason: reason ?? nackReason,
  };
}

/** The rows of deliveries after a move of all their messages. */
export function moveAll(deliveries: readonly Delivery[], target: MoveTarget, now: number): Delivery[] {
  return deliveries.flatMap((row) => split(row, new Map([[moveTo(target, row, now), row.members]])));
}
