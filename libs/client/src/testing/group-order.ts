import { type Delivery, keyOf } from './lease-protocol.js';

/*
 * Ordered queues, for the lease protocol: of each group, no message is handed out while an earlier
 * one is leased or delayed.
 */

/**
 * The deliveries of one group of a queue, in their order. A delivery without a group is alone, also
 * beside a second copy of its message: a published message may reach one dead-letter queue twice.
 */
export function groupOf(deliveries: Iterable<Delivery>, { queue, groupId, ...delivery }: Delivery): Delivery[] {
  const key = keyOf(delivery);
  return [...deliveries]
    .filter((one) => one.queue === queue && (groupId === null ? keyOf(one) === key : one.groupId === groupId))
    .toSorted((one, other) => (one.id < other.id ? -1 : 1));
}

/** Whether an earlier message of its group keeps this one back. */
export function isBehind(deliveries: Iterable<Delivery>, delivery: Delivery, now: number): boolean {
  if (delivery.groupId === null) return false;
  return groupOf(deliveries, delivery).some(
    (one) => one.id < delivery.id && one.availableAt > now && (one.token !== null || one.expiresAt > now),
  );
}

/**
 * Sorts ready deliveries of an ordered queue: the group whose first message became available first
 * comes first, and the messages of a group follow each other.
 */
export function inGroupOrder(ready: readonly Delivery[]): Delivery[] {
  const groups = new Map<string, Delivery[]>();
  for (const one of ready.toSorted((a, b) => (a.id < b.id ? -1 : 1))) {
    const key = one.groupId ?? keyOf(one);
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  const first = (group: Delivery[]): Delivery => group[0] as Delivery;
  return [...groups.values()].toSorted((one, other) => first(one).availableAt - first(other).availableAt).flat();
}
