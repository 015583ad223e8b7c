import { LEASE_GRACE_MS } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Transaction } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';

export { LEASE_GRACE_MS };

/**
 * The token of a delivery without a lease. No claim draws it. NULL would make the row grow at the
 * claim.
 */
export const NO_LEASE = `x'${'00'.repeat(8)}'`;

/** Whether a token is {@link NO_LEASE}. A forged receipt may name it and must never match. */
export function isNoLease(token: Buffer): boolean {
  return token.every((byte) => byte === 0);
}

/** A delivery's key in the index `delivery_next`, which is in hand-out order. */
export interface Position {
  messageId: Buffer;
  priorityRank: number;
  availableAt: number;
}

/**
 * Locks deliveries that still have these positions, are under no lease, and meet a condition. Skips
 * deliveries that other transactions have locked. Returns the ids of the locked deliveries.
 *
 * The statement locks the index entry before the row, as a claim does. A lookup by primary key
 * would lock the row first and could deadlock with a claim. MySQL's SKIP LOCKED never waits, but
 * MariaDB's waits for an instant, long enough for its deadlock detection. `docs/locking.md` has the
 * lock order.
 */
export async function lockUnleased(
  tx: Transaction,
  queueId: number,
  positions: readonly Position[],
  condition: string,
): Promise<Buffer[]> {
  if (positions.length === 0) return [];
  // Deliveries of one enqueue share a priority and a time, so grouping keeps the list short.
  const groups = groupBy(positions, ({ priorityRank, availableAt }) => `${priorityRank}.${availableAt}`);
  const rows = await tx.read<{ messageId: Buffer }>(
    `SELECT message_id AS messageId
     FROM delivery FORCE INDEX (delivery_next)
     WHERE queue_id = ?
       AND (${Array.from(groups, () => '(priority_rank = ? AND available_at = ? AND message_id IN (?))').join('\n         OR ')})
       AND (lease_token = ${NO_LEASE} OR available_at <= ${NOW_MS})
       AND ${condition}
     FOR UPDATE SKIP LOCKED`,
    [
      queueId,
      ...[...groups.values()].flatMap((group) => [
        group[0]?.priorityRank,
        group[0]?.availableAt,
        group.map(({ messageId }) => messageId),
      ]),
    ],
  );
  return rows.map(({ messageId }) => messageId);
}

/**
 * Deletes deliveries in primary-key order.
 *
 * The join with a list makes both servers find each row by its primary key at every table size.
 * With `message_id IN (…)`, MySQL scans a small table unless hinted. MariaDB accepts no hint here
 * and walks the whole queue. Both then wait for rows that other transactions have locked.
 * `docs/decisions/0001-delete-by-primary-key.md` has the plans and times.
 */
const DELETE_DELIVERIES = `
  DELETE d
  FROM JSON_TABLE(?, '$[*]' COLUMNS (id CHAR(32) PATH '$')) ids
  STRAIGHT_JOIN delivery d FORCE INDEX (PRIMARY)
    ON d.queue_id = ? AND d.message_id = UNHEX(ids.id)`;

export function deleteDeliveries(queueId: number, messageIds: readonly Buffer[]): Statement {
  const sorted = messageIds.map((id) => id.toString('hex')).toSorted();
  return { sql: DELETE_DELIVERIES, values: [JSON.stringify(sorted), queueId] };
}

/**
 * Moves deliveries that the transaction has locked to another queue, where they are available now
 * and count as never received. They keep their expiry, and their nack reason unless the caller
 * gives another.
 */
export function moveDeliveries(from: number, to: number, messageIds: readonly Buffer[], reason?: string): Statement {
  return {
    sql: `UPDATE delivery FORCE INDEX (PRIMARY)
     SET queue_id = ?,
         available_at = ${NOW_MS},
         receive_count = 0,
         lease_token = ${NO_LEASE},
         nack_reason = COALESCE(?, nack_reason)
     WHERE queue_id = ?
       AND message_id IN (?)`,
    values: [to, reason ?? null, from, messageIds],
  };
}
