import type { Delivery, Fate } from '../messages/delivery.js';
import { NO_TOKEN } from '../messages/delivery.sql.js';
import { firstMembers, lowestMember, type Members, without } from '../messages/members.js';

/**
 * How a verb on one message of an ordered queue concerns the other messages of its group that share
 * the lease.
 *
 * - `alone`: not at all.
 * - `with-later`: it undoes the leases of all later ones. They must not be handled before this one.
 * - `whole`: it does the same to all. Otherwise the lease of an earlier one could outlive its own.
 */
export type Reach = 'alone' | 'with-later' | 'whole';

/**
 * Extends the fates that receipts give to members of a delivery to its other members.
 *
 * @param ended the members that receipts name
 */
export function spread(
  reach: Reach,
  delivery: Delivery,
  fates: ReadonlyMap<Fate, Members>,
  ended: Members,
  now: number,
): ReadonlyMap<Fate, Members> {
  if (reach === 'alone') return fates;
  if (reach === 'whole') {
    const last = [...fates.keys()].reduce((one, other) => (availableAt(other) > availableAt(one) ? other : one));
    return new Map([[last, delivery.members]]);
  }
  const later = without(delivery.members, firstMembers(lowestMember(ended)));
  const undone: Fate = { leaseToken: NO_TOKEN, availableAt: now, receiveCount: delivery.receiveCount - 1 };
  return new Map([[undone, without(later, ended)], ...fates]);
}

function availableAt(fate: Fate): number {
  return typeof fate === 'symbol' ? 0 : (fate.availableAt ?? 0);
}
