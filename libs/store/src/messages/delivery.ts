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
   * Keeps keys unique under one token: the lowest member when the row was written. A member moves
   * to another row only by a rewrite, which names both rows anew. So no two rows with one pack and
   * token ever want the same name.
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
  nackReason: string | null;
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
  const rows: Delivery[] = [];
  let left = delivery.members;
  for (const [fate, wanted] of [...fates].toReversed()) {
    const members = common(left, wanted);
    if (members === 0) continue;
    left = without(left, members);
    if (fate !== GONE) rows.push({ ...delivery, ...fate, members, part: lowestMember(members) });
  }
  if (left !== 0) rows.push({ ...delivery, members: left, part: lowestMember(left) });
  return rows.length > 1 ? merge(rows) : rows;
}

/** Merges rows that differ only in their members, as after equal nacks of several requests. */
function merge(rows: readonly Delivery[]): Delivery[] {
  const merged = new Map<string, Delivery>();
  for (const row of rows) {
    const values = JSON.stringify({ ...row, members: 0, part: 0 });
    const members = union(row.members, merged.get(values)?.members ?? 0);
    merged.set(values, { ...row, members, part: lowestMember(members) });
  }
  return [...merged.values()];
}
