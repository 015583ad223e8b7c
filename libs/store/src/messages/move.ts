import type { MoveCause } from '@rowmq/contract';
import type { Queue } from '../queues/queue.js';
import { type Delivery, type Fate, split } from './delivery.js';
import { NO_TOKEN } from './delivery.sql.js';
import { withMove } from './moves.js';

/** A queue to which deliveries move. */
export type MoveTarget = Pick<Queue, 'id' | 'messageTtlSeconds'>;

/**
 * The fate of messages that move to another queue. They are available now and count as never
 * received. They live by the target's TTL from now on, and no longer than their producer said. If
 * they have expired, the producer's time has passed, and no longer counts. They keep their nack
 * reason unless the caller gives another.
 *
 * They remember the queue that they left first, and forget it when they are back there. They also
 * remember when and why they moved.
 */
export function moveTo(
  { id, messageTtlSeconds }: MoveTarget,
  { queueId, sourceQueueId, producerExpiresAt, nackReason, receiveCount, moves }: Delivery,
  now: number,
  cause: MoveCause,
  reason: string | null = nackReason,
): Fate {
  const source = sourceQueueId ?? queueId;
  const bindsUntil = cause === 'expired' ? null : producerExpiresAt;
  return {
    queueId: id,
    leaseToken: NO_TOKEN,
    availableAt: now,
    expiresAt: Math.min(now + messageTtlSeconds * 1000, bindsUntil ?? Infinity),
    producerExpiresAt: bindsUntil,
    receiveCount: 0,
    nackReason: reason,
    delayedUntil: null,
    sourceQueueId: source === id ? null : source,
    moves: withMove(moves, { from: queueId, at: now, cause, receives: receiveCount, reason }),
  };
}

/** The rows of deliveries after a move of all their messages. */
export function moveAll(
  deliveries: readonly Delivery[],
  target: MoveTarget,
  now: number,
  cause: MoveCause,
): Delivery[] {
  return deliveries.flatMap((row) => split(row, new Map([[moveTo(target, row, now, cause), row.members]])));
}
