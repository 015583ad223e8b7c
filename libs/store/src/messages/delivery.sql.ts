import { LEASE_GRACE_MS } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Transaction } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';

export { LEASE_GRACE_MS };

/** The token of a delivery that is under no lease: no claim draws it. Not NULL, which would make a row grow when it is claimed. */
export const NO_LEASE = `x'${'00'.repeat(8)}'`;

/** Whether a token is that of {@link NO_LEASE}. A receipt may name it, and must open nothing. */
export function isNoLease(token: Buffer): boolean {
  return token.every((byte) => byte === 0);
}

/** Where a delivery stands in hand-out order: what leads to its entry in the index `delivery_next`. */
export interface Position {
  messageId: Buffer;
  priorityRank: number;
  availableAt: number;
}

/**
 * Locks those of these deliveries that still stand where they were seen, are under no lease and fulfil a condition; skips what others hold. Returns their ids.
 *
 * Locks the index entry first and the row after it, in the way of a claim. By primary key it would be the other way round, and two transactions that want the same delivery would each
 * hold what the other waits for. (MySQL's SKIP LOCKED never waits; MariaDB's does for an instant, long enough for its deadlock detection.)
 */
export async function lockUnleased(
  tx: Transaction,
  queueId: number,
  positions: readonly Position[],
  condition: string,
): Promise<Buffer[]> {
  if (positions.length === 0) return [];
  // The deliveries of one enqueue stand together: a short list of ranges instead of a long one.
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
 * Deletes deliveries by primary key, in its order.
 *
 * The join with a list is what makes both servers look rows up one by one at every table size. With `message_id IN (…)` MySQL (unless hinted) scans a small table, and MariaDB, which
 * takes no hint here, walks the whole queue: both then wait for rows that others hold. `docs/decisions/0001-delete-by-primary-key.md` has the plans and times.
 */
export const DELETE_DELIVERIES = `
  DELETE d
  FROM JSON_TABLE(?, '$[*]' COLUMNS (id CHAR(32) PATH '$')) ids
  STRAIGHT_JOIN delivery d FORCE INDEX (PRIMARY)
    ON d.queue_id = ? AND d.message_id = UNHEX(ids.id)`;

export function deleteDeliveries(queueId: number, messageIds: readonly Buffer[]): Statement {
  const sorted = messageIds.map((id) => id.toString('hex')).toSorted();
  return { sql: DELETE_DELIVERIES, values: [JSON.stringify(sorted), queueId] };
}

/** Moves deliveries, whose rows the transaction holds, to another queue as if they were new there: available now, never received. Expiry stays, and the reason unless another is given. */
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
