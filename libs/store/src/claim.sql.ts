import { LIMITS } from '@rowmq/contract';
import { clock } from './clock.js';
import type { Transaction } from './database.js';
import { deleteDeliveries, LEASE_GRACE_MS, type Position } from './delivery.sql.js';
import type { LeasedDelivery } from './message.repository.js';
import type { Queue } from './queue.repository.js';

/*
 * The statements of a claim: finding what may be leased, reading its messages, and taking it all back.
 */

/** A delivery at the head of a queue, whose row the transaction holds. */
export interface Candidate extends Position {
  expiresAt: number;
  receiveCount: number;
  now: number;
}

/** Every priority, most urgent first, as a list: a range per priority, walked in index order until the claim has enough. */
const PRIORITY_RANKS = Array.from({ length: LIMITS.priorityMax + 1 }, (_, rank) => rank).join(',');
/** A claim that meets rows to remove looks again, at more rows at a time, but not for ever: the next claim goes on. */
export const CLAIM_ROUNDS = 5;
const CLAIM_ROWS_AFTER_REMOVAL = 200;

/** Finds what a claim may lease, at the head of the queue, and removes what is expired there. The rows stay locked. */
export async function claim(
  tx: Transaction,
  queue: Queue,
  max: number,
  isMariaDb: boolean,
  at: number | undefined,
): Promise<{ live: Candidate[]; overReceived: Candidate[]; expired: number }> {
  const live: Candidate[] = [];
  const overReceived: Candidate[] = [];
  const known = new Set<string>();
  let removed = 0;
  for (
    let round = 0, limit = max;
    round < CLAIM_ROUNDS && live.length < max;
    round += 1, limit = CLAIM_ROWS_AFTER_REMOVAL
  ) {
    const head = `
       FROM delivery FORCE INDEX (delivery_next)
       WHERE queue_id = ?
         AND priority_rank IN (${PRIORITY_RANKS})
         AND available_at <= ${clock(at)}`;
    let look = limit;
    if (isMariaDb) {
      // A claim that finds less than it wants has looked past the end of its range, and MariaDB keeps the entry there locked: the next queue's first message, which that queue's claims then skip.
      const [there] = await tx.read<{ n: number }>(`SELECT COUNT(*) AS n FROM (SELECT 1 ${head} LIMIT ?) AS head`, [
        queue.id,
        limit,
      ]);
      look = Number(there?.n ?? 0);
      if (look === 0) break;
    }
    // ORDER BY names no message_id: InnoDB's index ends with it anyway, and MariaDB sorts (and so locks the whole backlog) when it is named.
    const rows = await tx.read<Candidate>(
      `SELECT message_id AS messageId, priority_rank AS priorityRank, available_at AS availableAt,
              expires_at AS expiresAt, receive_count AS receiveCount, ${clock(at)} AS now
       ${head}
       ORDER BY priority_rank, available_at
       LIMIT ?
       FOR UPDATE SKIP LOCKED`,
      [queue.id, look],
    );
    const expired: Candidate[] = [];
    for (const row of rows) {
      // What an earlier round found is still at the head: a transaction does not skip its own locks.
      const key = row.messageId.toString('latin1');
      if (known.has(key)) continue;
      known.add(key);
      if (row.expiresAt <= row.now) expired.push(row);
      else if (isOverReceived(row, queue)) overReceived.push(row);
      else if (live.length < max) live.push(row);
    }
    const passedOver = expired.length + overReceived.length;
    await deleteDeliveries(tx, queue.id, ids(expired));
    removed += expired.length;
    if (passedOver === 0 || rows.length < limit) break;
  }
  return { live, overReceived, expired: removed };
}

function isOverReceived(
  row: { receiveCount: number },
  queue: Pick<Queue, 'maxReceives' | 'deadLetterQueueId'>,
): boolean {
  return queue.maxReceives !== null && queue.deadLetterQueueId !== null && row.receiveCount >= queue.maxReceives;
}

/** Undoes a lease that is still held: its deliveries are available now, and the receive is not counted. */
export async function giveBack(
  tx: Transaction,
  queueId: number,
  messageIds: readonly Buffer[],
  leaseToken: Buffer,
  at: number | undefined,
): Promise<void> {
  if (messageIds.length === 0) return;
  await tx.write(
    `UPDATE delivery FORCE INDEX (PRIMARY)
     SET available_at = ${clock(at)},
         lease_token = NULL,
         receive_count = receive_count - 1
     WHERE queue_id = ?
       AND message_id IN (?)
       AND lease_token = ?
       AND available_at > ${clock(at)} + ${LEASE_GRACE_MS}`,
    [queueId, messageIds, leaseToken],
  );
}

interface StoredMessage {
  id: Buffer;
  body: Buffer;
  headers: Buffer | null;
}

async function readMessages(
  tx: Transaction,
  table: 'message' | 'message_overflow',
  messageIds: readonly Buffer[],
): Promise<StoredMessage[]> {
  return tx.read<StoredMessage>(`SELECT id, body, headers FROM ${table} FORCE INDEX (PRIMARY) WHERE id IN (?)`, [
    messageIds,
  ]);
}

/** Joins claimed deliveries with their messages, in hand-out order. */
export async function withMessages(
  tx: Transaction,
  claimed: readonly Candidate[],
  leaseToken: Buffer,
  leaseExpiresAt: number,
): Promise<LeasedDelivery[]> {
  const byId = new Map<string, StoredMessage>();
  // The second table, and the first once more, are read only while the reaper splits an overfull partition: rows move out and back.
  for (const table of ['message', 'message_overflow', 'message'] as const) {
    if (byId.size === claimed.length) break;
    for (const message of await readMessages(tx, table, ids(claimed))) byId.set(message.id.toString('latin1'), message);
  }
  return claimed.flatMap((row) => {
    const message = byId.get(row.messageId.toString('latin1'));
    // A delivery whose message cannot be read now stays under its lease and comes back: it is not for a reader to decide that it is lost.
    if (message === undefined) return [];
    return {
      messageId: row.messageId,
      leaseToken,
      body: message.body,
      headers: message.headers,
      priority: LIMITS.priorityMax - row.priorityRank,
      receiveCount: row.receiveCount + 1,
      expiresAt: row.expiresAt,
      leaseExpiresAt,
    };
  });
}

/** Their ids. */
export function ids(rows: readonly { messageId: Buffer }[]): Buffer[] {
  return rows.map(({ messageId }) => messageId);
}
