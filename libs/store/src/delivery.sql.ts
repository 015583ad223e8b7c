import type { Transaction } from './database.js';
import { clock } from './clock.js';
import { SELECT_QUEUE, type Queue, type QueueRow } from './queue.repository.js';

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

export async function deleteDeliveries(tx: Transaction, queueId: number, messageIds: readonly Buffer[]): Promise<void> {
  if (messageIds.length === 0) return;
  const sorted = messageIds.map((id) => id.toString('hex')).toSorted();
  await tx.write(DELETE_DELIVERIES, [JSON.stringify(sorted), queueId]);
}

/** Moves deliveries, whose rows the transaction holds, to another queue as if they were new there: available now, never received. Expiry and reason stay. */
export async function moveDeliveries(
  tx: Transaction,
  from: number,
  to: number,
  messageIds: readonly Buffer[],
  at?: number,
): Promise<void> {
  if (messageIds.length === 0) return;
  await tx.write(
    `UPDATE delivery FORCE INDEX (PRIMARY)
     SET queue_id = ?,
         available_at = ${clock(at)},
         receive_count = 0,
         lease_token = NULL
     WHERE queue_id = ?
       AND message_id IN (?)`,
    [to, from, messageIds],
  );
}

/** Reads a queue and the database's clock, and holds the queue's row until the transaction ends. */
export async function lockQueue(
  tx: Transaction,
  name: string,
  lock: 'shared' | 'exclusive',
  at?: number,
): Promise<(Queue & { now: number }) | undefined> {
  const select = SELECT_QUEUE.replace('FROM queue', `, ${clock(at)} AS now FROM queue`);
  const [row] = await tx.read<QueueRow & { now: number }>(
    `${select} WHERE name = ? ${lock === 'shared' ? 'LOCK IN SHARE MODE' : 'FOR UPDATE'}`,
    [name],
  );
  return row && { ...row, name, paused: row.paused !== 0 };
}
