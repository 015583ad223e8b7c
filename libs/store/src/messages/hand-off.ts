import { countFitting } from '@rowmq/contract';
import type { Queue } from '../queues/queue.js';
import { partOf } from './delivery.js';
import type { LeasedMessage } from './leased-message.js';
import type { Admitted } from './new-message.js';
import { contentBytes } from './pack.codec.js';
import type { NewDelivery } from './packing.js';

/** A parked consumer whom an enqueue has reserved. Exactly one of the two is called, once. */
export interface Reservation {
  readonly maxMessages: number;
  readonly leaseSeconds: number;
  /**
   * After COMMIT: these messages are leased to the consumer. At least one, at most `maxMessages`.
   */
  handOff(leased: LeasedMessage[]): void;
  /** Nothing is leased to the consumer. */
  cancel(): void;
}

/**
 * Reserves parked consumers of a queue for so many messages, first come first served. Together they
 * want about that many. The enqueue calls it once a queue, just before it sends its statements.
 */
export type Reserve = (queue: Queue, messages: number) => Reservation[];

/** The messages of one batch that consumers of a queue get at once. */
export interface HandOffs {
  queue: Queue;
  /** Each reservation with the messages that it gets. */
  handOffs: { reservation: Reservation; messages: Admitted[] }[];
}

/** The messages of one batch for one queue. */
export interface QueueBatch extends HandOffs {
  messages: Admitted[];
}

/** Reserves parked consumers for a batch's ready messages, the most urgent first. */
export function reserveReady(batch: QueueBatch, reserve: Reserve): void {
  const ready = batch.messages.filter(({ delayMs }) => delayMs === 0);
  reserveFor(batch, ready.length, () => ready.toSorted((one, other) => one.priorityRank - other.priorityRank), reserve);
}

/**
 * Reserves parked consumers of a queue for `count` ready messages.
 * @param inOrder makes the messages, in the order in which consumers get them
 */
export function reserveFor(
  { queue, handOffs }: HandOffs,
  count: number,
  inOrder: () => readonly Admitted[],
  reserve: Reserve,
): void {
  const reservations = queue.paused || count === 0 ? [] : reserve(queue, count);
  if (reservations.length === 0) return;
  const ready = inOrder();
  let used = 0;
  for (const reservation of reservations) {
    const wanted = ready.slice(used, used + reservation.maxMessages);
    const reserved = wanted.slice(0, countFitting(wanted, contentBytes));
    used += reserved.length;
    if (reserved.length === 0) {
      reservation.cancel();
      continue;
    }
    for (const message of reserved) message.leaseMs = reservation.leaseSeconds * 1000;
    handOffs.push({ reservation, messages: reserved });
  }
}

export function toLeased(message: Admitted, leaseToken: Buffer, now: number): LeasedMessage {
  const { copy, members } = message.delivery as NewDelivery;
  return {
    messageId: message.id as Buffer,
    leaseToken,
    part: partOf(copy, members),
    members,
    body: message.body,
    headers: message.headers,
    replayOf: message.replayOf,
    groupId: message.groupId,
    priority: message.priority,
    receiveCount: 1,
    firstReceivedAt: now,
    moves: null,
    expiresAt: now + message.lifeMs,
    leaseExpiresAt: now + (message.leaseMs ?? 0),
  };
}
