import { PACK_MESSAGES } from '@rowmq/contract';
import { isGrouped, splitInOrder } from '../groups/group.js';
import { common, lowestMember, type Members, union, without } from './members.js';

/**
 * A delivery: the obligation to hand out some messages of one pack, which share one fate. One row
 * of the table `delivery`. Times are ms since 1970 on the database's clock.
 */
export interface Delivery {
  queueId: number;
  packId: Buffer;
  /** Zeros without a lease. */
  leaseToken: Buffer;
  /**
   * Keeps keys unique under one token: 32 · copy + the lowest member when the row was written. A
   * member moves to another row only by a rewrite, which names both rows anew. So no two rows of a
   * copy with one pack and token ever want the same name.
   *
   * A publish makes a copy of the obligation for each subscription, and every copy keeps its number
   * for life. So copies that meet in one dead-letter queue have different names.
   */
  part: number;
  members: Members;
  priorityRank: number;
  /** When the messages may be claimed. Under a lease: its deadline and the grace period. */
  availableAt: number;
  expiresAt: number;
  /** The expiry that the producer gave, which a move to another queue keeps. */
  producerExpiresAt: number | null;
  receiveCount: number;
  /** When it was handed out first. Void while {@link receiveCount} is 0. */
  firstReceivedAt: number | null;
  nackReason: string | null;
  /** The group of its messages in an ordered queue. Null in all other queues. */
  groupKey: number | null;
  /** When a nack lets a delivery be handed out that waits behind its group. */
  delayedUntil: number | null;
  /** The queue that it left first. Null in that queue itself. */
  sourceQueueId: number | null;
  /** When and why it moved, as `moves.ts` documents it. Null: it never moved. */
  moves: string | null;
}

/** The most copies of one message: `part` is a SMALLINT UNSIGNED. */
export const MOST_COPIES = 2 ** 16 / PACK_MESSAGES;

/** The number of the copy to which a delivery with this name belongs. */
export function copyOf(part: number): number {
  return Math.floor(part / PACK_MESSAGES);
}

/** The name of a copy's delivery that owes these members. */
export function partOf(copy: number, members: Members): number {
  return copy * PACK_MESSAGES + lowestMember(members);
}

/** The columns that a verb changes. `GONE` settles the messages. */
export type Fate = Partial<Omit<Delivery, 'packId' | 'part' | 'members'>> | typeof GONE;

export const GONE = Symbol('settled');

/**
 * Gives some members of a delivery a new fate each. Returns the rows that take the delivery's
 * place: one for the members that keep their fate, and one for each new fate. Fates of the same
 * values share a row. Every member is owed by exactly one row, or settled.
 *
 * Members that the delivery does not owe are ignored. If a member has several fates, the last wins.
 */
export function split(delivery: Delivery, fates: ReadonlyMap<Fate, Members>): Delivery[] {
  if (isGrouped(delivery)) return splitInOrder(delivery, fates, (fate) => fate === GONE);
  const rows: Delivery[] = [];
  const copy = copyOf(delivery.part);
  let left = delivery.members;
  for (const [fate, wanted] of [...fates].toReversed()) {
    const members = common(left, wanted);
    if (members === 0) continue;
    left = without(left, members);
    if (fate !== GONE) rows.push({ ...delivery, ...fate, members, part: partOf(copy, members) });
  }
  if (left !== 0) rows.push({ ...delivery, members: left, part: partOf(copy, left) });
  return rows.length > 1 ? merge(rows) : rows;
}

/**
 * Merges rows of one copy that differ only in their members, as after equal nacks of several
 * requests.
 */
function merge(rows: readonly Delivery[]): Delivery[] {
  const merged = new Map<string, Delivery>();
  for (const row of rows) {
    const values = JSON.stringify({ ...row, members: 0, part: 0 });
    const members = union(row.members, merged.get(values)?.members ?? 0);
    merged.set(values, { ...row, members, part: partOf(copyOf(row.part), members) });
  }
  return [...merged.values()];
}

/**
 * Leaves out deliveries of a pack that belong to another copy than its first one here. Copies of
 * one message meet in a dead-letter queue that several subscribers of a topic share. A receipt
 * names a message and a token, so a claim must never give one token to two copies.
 */
export function oneCopyOfEach(deliveries: readonly Delivery[]): readonly Delivery[] {
  // The copies of a pack have different numbers, so one of them is not 0.
  if (deliveries.every(({ part }) => copyOf(part) === 0)) return deliveries;
  const copies = new Map<string, number>();
  return deliveries.filter(({ packId, part }) => {
    const pack = packId.toString('latin1');
    const copy = copies.get(pack) ?? copyOf(part);
    copies.set(pack, copy);
    return copy === copyOf(part);
  });
}
