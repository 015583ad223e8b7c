import { NOW_MS } from '../database/clock.js';
import type { Transaction } from '../database/database.js';
import { TryAgain } from '../database/database-errors.js';
import type { Statement } from '../database/session.js';
import type { Delivery } from '../messages/delivery.js';
import { DELIVERY_COLUMNS, isLeasedAt, LEASE_GRACE_MS } from '../messages/delivery.sql.js';
import { common } from '../messages/members.js';
import { type Held, leaseKey, sourceOf } from '../messages/receipts.sql.js';
import { groupsOf, inQueue } from './group.js';
import { type Group, lockGroups, readGroups } from './group.sql.js';
import { isWaiting } from './waiting.js';

/** Followers that a transaction may change, and the groups that it has locked. */
interface LockedFollowers {
  followers: Delivery[];
  groups: Group[];
  now: number;
}

/**
 * Finds the followers of these receipts. If there are any, it locks all groups that the transaction
 * needs, in one go. They are those of the followers, of the locked first deliveries, and of the
 * queue to which the messages move. The lock on a group protects its followers, so they need none
 * of their own.
 *
 * A follower may become the first of its group before the group is locked. First deliveries come
 * before groups in the order of locks, so the transaction begins again.
 *
 * @param firsts the deliveries that the transaction has locked
 */
export async function lockFollowers(
  tx: Transaction,
  receipts: readonly Held[],
  firsts: readonly Delivery[],
  targetId: number | undefined,
): Promise<LockedFollowers> {
  const seen = await readHeld(tx, receipts, []);
  if (seen.rows.length === 0) return { followers: [], groups: [], now: seen.now };
  const concerned = [...firsts, ...seen.rows];
  const groups = groupsOf([...concerned, ...(targetId === undefined ? [] : inQueue(targetId, concerned))]);
  const { answers, rows, now } = await readHeld(tx, receipts, [lockGroups(groups), readGroups(groups)]);
  return { followers: rows, groups: answers[1] as Group[], now };
}

/** Reads, without locks, the followers that hold these receipts' messages now. */
async function readHeld(
  tx: Transaction,
  receipts: readonly Held[],
  before: readonly Statement[],
): Promise<{ answers: unknown[]; rows: Delivery[]; now: number }> {
  const { table, values, condition } = sourceOf(receipts);
  const isHeld = isLeasedAt(`${NOW_MS} + ${LEASE_GRACE_MS}`, 'd.');
  const answers = await tx.all([
    ...before,
    { sql: `SELECT ${DELIVERY_COLUMNS} FROM ${table} WHERE ${condition} AND ${isHeld}`, values },
    { sql: `SELECT ${NOW_MS} AS now` },
  ]);
  const [found, [{ now }]] = answers.slice(-2) as [Delivery[], [{ now: number }]];
  // Other deliveries of the same packs have the same token.
  const wanted = new Map(receipts.map((receipt) => [leaseKey(receipt), receipt.members]));
  const rows = found.filter((row) => common(row.members, wanted.get(leaseKey(row)) ?? 0) !== 0);
  if (rows.some((row) => !isWaiting(row))) throw new TryAgain('a follower has become the first of its group');
  return { answers, rows, now };
}
