import { createHash } from 'node:crypto';
import { LIMITS } from '@rowmq/contract';
import { copyOf, type Delivery, type Fate, partOf } from '../messages/delivery.js';
import { NO_TOKEN } from '../messages/delivery.sql.js';
import { bitOf, has, indexesOf, type Members, union } from '../messages/members.js';
import { isWaiting, WAITING } from './waiting.js';

/*
 * Ordered queues. Each group has one delivery that is first: it is ready, leased or delayed like
 * any other. All others of the group wait, in the order of their packs and parts, which is the
 * order of commits. A waiting delivery is far in the future of the index, at a place that only its
 * group uses. So no claim meets it, and the index finds the next pack of a group.
 *
 * A waiting delivery may be under a lease: it is a follower (follow.ts).
 */

/** The rank of every message in an ordered queue. */
export const ONLY_RANK = LIMITS.priorityMax - LIMITS.priorityDefault;

const KEY_BYTES = 6;

/** A group of one queue. */
export interface GroupKey {
  queueId: number;
  groupKey: number;
}

/** A delivery of an ordered queue. */
export type Grouped = Delivery & { groupKey: number };

/**
 * The key of a group. Two groups with the same key wait for each other, which is harmless. Among a
 * million groups, that happens to about one pair in 500 queues.
 */
export function groupKeyOf(groupId: string): number {
  return createHash('sha256').update(groupId).digest().readUIntBE(0, KEY_BYTES);
}

export function isGrouped<T extends { groupKey: number | null }>(delivery: T): delivery is T & { groupKey: number } {
  return delivery.groupKey !== null;
}

/**
 * The delivery, behind the first one of its group. It keeps the delay that a nack gave it, and not
 * the token of a lease that has run out.
 */
export function behind<T extends Grouped>(delivery: T): T {
  if (isWaiting(delivery)) return delivery;
  return {
    ...delivery,
    leaseToken: NO_TOKEN,
    availableAt: WAITING + delivery.groupKey,
    delayedUntil: delivery.availableAt,
  };
}

/** A text that is equal for equal groups. */
export function keyText({ queueId, groupKey }: GroupKey): string {
  return `${queueId} ${groupKey}`;
}

/** The groups that these deliveries have, or would have, in a queue. */
export function inQueue(queueId: number, deliveries: readonly { groupKey: number | null }[]) {
  return deliveries.map(({ groupKey }) => ({ queueId, groupKey }));
}

/** The groups of these deliveries, each once, in the order in which transactions lock them. */
export function groupsOf(deliveries: readonly { queueId: number; groupKey: number | null }[]): GroupKey[] {
  const groups = new Map<string, GroupKey>();
  for (const one of deliveries)
    if (isGrouped(one)) groups.set(keyText(one), { queueId: one.queueId, groupKey: one.groupKey });
  return [...groups.values()].toSorted(byGroup);
}

export function byGroup(one: GroupKey, other: GroupKey): number {
  return one.queueId - other.queueId || one.groupKey - other.groupKey;
}

/**
 * Gives some members of a delivery a new fate each, like `split`, and keeps their order. Each row
 * has members that follow each other. In the delivery's queue, the first row takes its place and
 * the others wait. If the delivery waits, all of them do.
 */
export function splitInOrder(
  delivery: Grouped,
  fates: ReadonlyMap<Fate, Members>,
  isSettled: (fate: Fate) => boolean,
): Delivery[] {
  const rows: Grouped[] = [];
  for (const index of indexesOf(delivery.members)) {
    const fate = [...fates].findLast(([, members]) => has(members, index))?.[0];
    if (fate !== undefined && isSettled(fate)) continue;
    const row = inPlaceOf(delivery, { ...delivery, ...(fate as object), members: 0, part: 0 });
    const last = rows.findLast(({ queueId }) => queueId === row.queueId);
    const isSame = last !== undefined && JSON.stringify({ ...last, members: 0, part: 0 }) === JSON.stringify(row);
    if (isSame) last.members = union(last.members, bitOf(index));
    else rows.push({ ...row, members: bitOf(index), part: partOf(copyOf(delivery.part), bitOf(index)) });
  }
  const first = rows.find(({ queueId }) => queueId === delivery.queueId);
  return rows.map((row) => (row === first || row.queueId !== delivery.queueId ? row : behind(row)));
}

/** A new fate does not end the wait of a delivery. Its time is that of the lease or the delay. */
function inPlaceOf(delivery: Grouped, row: Grouped): Grouped {
  if (!isWaiting(delivery) || isWaiting(row) || row.queueId !== delivery.queueId) return row;
  return { ...row, availableAt: delivery.availableAt, delayedUntil: row.availableAt };
}
