import type { Delivery, Settlement } from './message.js';

/*
 * Ordered queues: a broker hands out several messages of one group together, in order. The
 * consumer handles them one after the other. Deliveries of other queues have no group here.
 */

/** Takes the first delivery whose group no handler works on. Undefined: there is none. */
export function takeNext(
  buffer: Delivery[],
  running: Iterable<{ deliveries: readonly Delivery[] }>,
): Delivery | undefined {
  // Most queues have no groups.
  if (buffer[0]?.group === undefined) return buffer.shift();
  const busy = new Set([...running].flatMap(({ deliveries }) => deliveries.map(({ group }) => group)));
  const index = buffer.findIndex((delivery) => !busy.has(delivery.group));
  return index < 0 ? undefined : buffer.splice(index, 1)[0];
}

/**
 * The deliveries whose leases end with this settlement: the later ones of its group. The broker
 * hands them out again, behind the one that it gets back.
 */
export function endedWith(delivery: Delivery, { verb }: Settlement, buffer: readonly Delivery[]): Delivery[] {
  const { group } = delivery;
  if (group === undefined || (verb !== 'nack' && verb !== 'release')) return [];
  return buffer.filter((one) => one.group === group && one.message.id > delivery.message.id);
}
