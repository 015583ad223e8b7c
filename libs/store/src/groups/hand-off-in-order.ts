import { countFitting } from '@rowmq/contract';
import type { QueueBatch, Reserve } from '../messages/hand-off.js';
import type { Admitted } from '../messages/new-message.js';
import { lowestMembers } from '../messages/members.js';
import { contentBytes } from '../messages/pack.codec.js';
import { keyText } from './group.js';
import { type Group, isIdle } from './group.sql.js';
import type { OrderedDelivery, OrderedPack } from './pack-in-order.js';

/**
 * Reserves parked consumers for the first delivery of each idle group, unless it is delayed. The
 * batch holds the locks of the groups, so nothing comes before these deliveries, and nothing behind
 * them is ready.
 *
 * A delivery goes to one consumer. If he does not take all of it, the rest waits behind his part.
 */
export function handOffInOrder(
  batch: QueueBatch,
  packs: readonly OrderedPack<Admitted>[],
  groups: readonly Group[],
  reserve: Reserve,
): void {
  const { queue, handOffs } = batch;
  if (queue.paused) return;
  const ready = firstOfIdle(queue.id, packs, groups);
  const count = ready.reduce((sum, { messages }) => sum + messages.length, 0);
  for (const reservation of count === 0 ? [] : reserve(queue, count)) {
    const wanted: Admitted[] = [];
    for (const { messages } of ready) {
      if (wanted.length === reservation.maxMessages) break;
      wanted.push(...messages.slice(0, reservation.maxMessages - wanted.length));
    }
    const reserved = wanted.slice(0, countFitting(wanted, contentBytes));
    if (reserved.length === 0) {
      reservation.cancel();
      continue;
    }
    for (let left = reserved.length; left > 0;) {
      const delivery = ready.shift() as OrderedDelivery<Admitted>;
      leaseFirst(delivery, left, reservation.leaseSeconds * 1000);
      left -= delivery.messages.length;
    }
    handOffs.push({ reservation, messages: reserved });
  }
}

/** Stores the first messages of a delivery under a lease. */
function leaseFirst(delivery: OrderedDelivery<Admitted>, count: number, leaseMs: number): void {
  const members = lowestMembers(delivery.members, count);
  delivery.leased = { members, leaseMs };
  for (const message of delivery.messages.slice(0, count)) {
    message.leaseMs = leaseMs;
    message.delivery = { copy: 0, fate: message, members };
  }
}

/** The deliveries that neither others nor a delay keep back, in the order of their ids. */
function firstOfIdle(
  queueId: number,
  packs: readonly OrderedPack<Admitted>[],
  groups: readonly Group[],
): OrderedDelivery<Admitted>[] {
  const idle = new Set(groups.filter(isIdle).map(keyText));
  return packs.flatMap(({ deliveries }) =>
    deliveries.filter(({ groupKey, delayMs }) => idle.delete(keyText({ queueId, groupKey })) && delayMs === 0),
  );
}
