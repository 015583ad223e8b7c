import { LIMITS } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { LEASE_GRACE_MS, NO_LEASE, type Position } from './delivery.sql.js';
import { hex, hexList } from '../database/hex.js';
import type { Queue } from '../queues/queue.js';
import type { Floors, IndexPosition } from './scan-floors.js';

/*
 * The statements of a claim: find deliveries that may be leased, lease them, read their messages,
 * and undo leases.
 */

/** Every priority, most urgent first. */
export const RANKS = Array.from({ length: LIMITS.priorityMax + 1 }, (_, rank) => rank);
const FROM_THE_START: Floors = new Map(RANKS.map((rank) => [rank, 0]));

/**
 * A column that `delivery_next` does not contain. If the index alone answers a statement and few
 * deliveries are live, the optimizers scan the whole index, dead entries included.
 */
const NOT_IN_THE_INDEX = 'expires_at';

/** One queue that a claim peeks at. */
export interface PeekRequest {
  queueId: number;
  /** Undefined: the peek reads every priority from its start. */
  floors: Floors | undefined;
  limit: number;
}

/** A queue's settings as the claim reads them. The caller's copy may be a second old. */
export type ClaimSettings = Pick<Queue, 'id' | 'maxReceives' | 'deadLetterQueueId'>;

/** The ready deliveries of one priority that a peek saw, up to its limit. */
export interface SeenRank {
  priorityRank: number;
  first: number;
  last: number;
  count: number;
}

/** The ready deliveries of one queue that a peek saw, up to its limit. */
export interface SeenQueue {
  queueId: number;
  limit: number;
  /** Most urgent first. */
  ranks: SeenRank[];
  /** The number of deliveries to lock: all that the peek saw, or fewer if the claim wants fewer. */
  count: number;
  /** The number of further deliveries that may lie in the same ranges. */
  ties: number;
  /** The queue needs a locking statement of its own. */
  isSeparate: boolean;
}

/**
 * Reads the first ready deliveries of queues without locks, in hand-out order. Also returns the
 * database's time before the read.
 *
 * A claim peeks first because it must lock no more than it saw. On both servers, a locking read of
 * an exhausted range walks on over the dead entries behind it. While InnoDB's purge is held up,
 * these are hundreds of thousands. The read locks the first live entry that it meets. That entry
 * may be a leased delivery, whose ack then waits. It may also be the first delivery of the next
 * queue, whose claims then skip it. See `docs/decisions/0007-look-then-lock.md`.
 */
export async function peekQueues(
  database: Database,
  requests: readonly PeekRequest[],
): Promise<{ positions: IndexPosition[][]; now: number }> {
  // A queue with no priority in use holds only deliveries that a rescan finds.
  const peeked = requests.filter(({ floors }) => floors === undefined || floors.size > 0);
  const [[time], ...answers] = (await database.all([
    { sql: `SELECT ${NOW_MS} AS now` },
    ...peeked.map((request) => peekQueue(request)),
  ])) as [[{ now: number }], ...IndexPosition[][]];
  const found = new Map(peeked.map((request, index) => [request, answers[index]]));
  return { positions: requests.map((request) => found.get(request) ?? []), now: time.now };
}

/**
 * The statement reads one table, without a UNION or a derived table around it. Only then does MySQL
 * obey FORCE INDEX without estimating rows by index dives. In a UNION, and in a derived table that
 * returned first, last and count, the dives cost 0.3 ms in a small queue. In a queue of a million
 * they cost 8 ms.
 */
function peekQueue({ queueId, floors = FROM_THE_START, limit }: PeekRequest): Statement {
  const ranges = [...floors].map(([rank, floor]): Range => [queueId, rank, floor, NOW_MS]);
  return {
    sql: `SELECT priority_rank AS priorityRank, available_at AS availableAt, ${NOT_IN_THE_INDEX}
       ${inRanges(ranges)}
       LIMIT ${limit}`,
  };
}

/**
 * Groups positions by priority.
 * @param positions in hand-out order
 */
export function byRank(positions: readonly IndexPosition[]): SeenRank[] {
  const ranks: SeenRank[] = [];
  for (const { priorityRank, availableAt } of positions) {
    const rank = ranks.at(-1);
    if (rank?.priorityRank === priorityRank) {
      rank.last = availableAt;
      rank.count += 1;
    } else {
      ranks.push({ priorityRank, first: availableAt, last: availableAt, count: 1 });
    }
  }
  return ranks;
}

type Range = [queueId: number, priorityRank: number, from: number, to: number | string];

/**
 * Builds the clauses that read ranges of `delivery_next` in index order, so that ORDER BY needs no
 * sort. `from` must be less than `to`. The optimizers turn an equal pair into an equality, choose
 * another plan, and sort.
 */
function inRanges(ranges: readonly Range[]): string {
  const conditions = ranges
    .toSorted(([queue, rank], [otherQueue, otherRank]) => queue - otherQueue || rank - otherRank)
    .map(
      ([queueId, rank, from, to]) =>
        `(queue_id = ${queueId} AND priority_rank = ${rank} AND available_at BETWEEN ${from} AND ${to})`,
    );
  return `FROM delivery FORCE INDEX (delivery_next)
       WHERE ${conditions.join('\n          OR ')}
       ORDER BY queue_id, priority_rank, available_at`;
}

/** A delivery that the claim's transaction has locked. */
export interface Candidate extends Position {
  queueId: number;
  expiresAt: number;
  receiveCount: number;
}

/**
 * Locks deliveries that a peek saw, index entry before row, and skips deliveries that other
 * transactions have locked. Also returns the settings of the queues that still exist, and the
 * database's time after the last lock.
 *
 * One statement serves all queues but the separate ones, each of which has its own. If the peek at
 * a separate queue reached its limit, its statement reads on behind locked deliveries.
 */
export async function lockSeen(
  tx: Transaction,
  queues: readonly SeenQueue[],
): Promise<{ rows: Candidate[][]; settings: Map<number, ClaimSettings>; now: number }> {
  const together = queues.filter(({ isSeparate }) => !isSeparate);
  const separate = queues.filter(({ isSeparate }) => isSeparate).toSorted((one, other) => one.queueId - other.queueId);
  const [settings, ...answers] = await tx.all([
    {
      sql: `SELECT id, max_receives AS maxReceives, dead_letter_queue_id AS deadLetterQueueId
       FROM queue FORCE INDEX (PRIMARY)
       WHERE id IN (?)
         AND name IS NOT NULL`,
      values: [queues.map(({ queueId }) => queueId)],
    },
    ...(together.length > 0 ? [lockTogether(together)] : []),
    ...separate.map((queue) => lockSeparately(queue)),
    { sql: `SELECT ${NOW_MS} AS now` },
  ]);
  const rows = new Map(queues.map(({ queueId }): [number, Candidate[]] => [queueId, []]));
  for (const row of (answers.slice(0, -1) as Candidate[][]).flat()) rows.get(row.queueId)?.push(row);
  return {
    rows: queues.map(({ queueId }) => rows.get(queueId) ?? []),
    settings: new Map((settings as ClaimSettings[]).map((queue) => [queue.id, queue])),
    now: (answers.at(-1) as [{ now: number }])[0].now,
  };
}

/**
 * All queues share one LIMIT, so no queue may have more in its ranges than it adds to the LIMIT.
 * Each queue adds the deliveries that the peek saw and their ties. Only deliveries that commit
 * after the peek can exceed that.
 */
function lockTogether(queues: readonly SeenQueue[]): Statement {
  const ranges = queues.flatMap(({ queueId, ranks }) =>
    ranks.map(({ priorityRank, first, last }): Range => [queueId, priorityRank, first - 1, last]),
  );
  return lock(
    ranges,
    queues.reduce((sum, { count, ties }) => sum + count + ties, 0),
  );
}

function lockSeparately({ queueId, ranks, count, limit }: SeenQueue): Statement {
  const ranges = ranks.map(({ priorityRank, first, last }, index): Range => {
    const goesOn = count === limit && index === ranks.length - 1;
    return [queueId, priorityRank, first - 1, goesOn ? NOW_MS : last];
  });
  return lock(ranges, count);
}

/**
 * ORDER BY omits message_id: MariaDB sorts, and locks the whole backlog, when it is named. InnoDB's
 * index ends with message_id anyway.
 */
function lock(ranges: readonly Range[], limit: number): Statement {
  return {
    sql: `SELECT queue_id AS queueId, message_id AS messageId, priority_rank AS priorityRank,
              available_at AS availableAt, expires_at AS expiresAt, receive_count AS receiveCount
       ${inRanges(ranges)}
       LIMIT ${limit}
       FOR UPDATE SKIP LOCKED`,
  };
}

/** The locked deliveries of one queue. A claim may lease only the live ones. */
export interface SortedDeliveries {
  live: Candidate[];
  overReceived: Candidate[];
  expired: Candidate[];
}

export function sortDeliveries(
  rows: readonly Candidate[],
  queue: ClaimSettings | undefined,
  max: number,
  now: number,
): SortedDeliveries {
  const sorted: SortedDeliveries = { live: [], overReceived: [], expired: [] };
  // The queue was deleted after the peek.
  if (queue === undefined) return sorted;
  for (const row of rows) {
    if (row.expiresAt <= now) sorted.expired.push(row);
    else if (isOverReceived(row, queue)) sorted.overReceived.push(row);
    else if (sorted.live.length < max) sorted.live.push(row);
  }
  return sorted;
}

function isOverReceived(row: { receiveCount: number }, queue: ClaimSettings): boolean {
  return queue.maxReceives !== null && queue.deadLetterQueueId !== null && row.receiveCount >= queue.maxReceives;
}

/** Primary keys of deliveries, grouped by queue. */
export type ByQueue = readonly (readonly [queueId: number, messageIds: readonly Buffer[]])[];

/** Leases deliveries that the transaction has locked. */
export function leaseDeliveries(deliveries: ByQueue, leaseToken: Buffer, leaseExpiresAt: number): Statement {
  const keys = deliveries.map(
    ([queueId, messageIds]) => `(queue_id = ${queueId} AND message_id IN (${hexList(messageIds)}))`,
  );
  return {
    sql: `UPDATE delivery FORCE INDEX (PRIMARY)
         SET available_at = ${leaseExpiresAt + LEASE_GRACE_MS},
             lease_token = ${hex(leaseToken)},
             receive_count = LEAST(receive_count + 1, 65535)
         WHERE ${keys.join('\n            OR ')}`,
  };
}

/**
 * Undoes leases that are still held. The deliveries become available now, and the receive does not
 * count.
 */
export function releaseLeases(queueId: number, messageIds: readonly Buffer[], leaseToken: Buffer): Statement {
  const { sql, values = [] } = endLeases(NOW_MS, queueId, messageIds, leaseToken);
  return { sql: `${sql} AND ${IS_LEASED}`, values };
}

/**
 * Undoes leases of a claim whose COMMIT got no answer. Nobody holds their receipts.
 *
 * Unlike {@link releaseLeases} it also undoes leases that ran out, for instance during a failover.
 * It skips a delivery that another claim has leased since.
 *
 * After a lease ran out, the statement changes only the columns that no index contains. It then
 * locks no index entry after a row, so it cannot deadlock with a claim, which locks in the opposite
 * order.
 */
export function undoLeases(queueId: number, messageIds: readonly Buffer[], leaseToken: Buffer): Statement {
  return endLeases(`IF(${IS_LEASED}, ${NOW_MS}, available_at)`, queueId, messageIds, leaseToken);
}

/** The lease has not run out: its holder can still use the receipt. */
const IS_LEASED = `available_at > ${NOW_MS} + ${LEASE_GRACE_MS}`;

/** Skips deliveries that another claim has leased since. The receive does not count. */
function endLeases(availableAt: string, queueId: number, messageIds: readonly Buffer[], leaseToken: Buffer): Statement {
  return {
    sql: `UPDATE delivery FORCE INDEX (PRIMARY)
     SET available_at = ${availableAt},
         lease_token = ${NO_LEASE},
         receive_count = receive_count - 1
     WHERE queue_id = ?
       AND message_id IN (?)
       AND lease_token = ?
       AND lease_token <> ${NO_LEASE}`,
    values: [queueId, messageIds, leaseToken],
  };
}

/** The columns of a message that a claim reads. */
export interface StoredMessage {
  id: Buffer;
  body: Buffer;
  headers: Buffer | null;
}

export function readMessages(table: 'message' | 'message_overflow', messageIds: readonly Buffer[]): Statement {
  return {
    sql: `SELECT id, body, headers FROM ${table} FORCE INDEX (PRIMARY) WHERE id IN (${hexList(messageIds)})`,
  };
}

/** The most rows that a rescan or a poll reads. */
const READ_ROWS = 500;

/**
 * Reads, without locks, ready deliveries of a queue that lie below these floors, where no peek sees
 * them. Includes deliveries that other transactions have locked.
 */
export async function readBelow(database: Database, queueId: number, floors: Floors): Promise<IndexPosition[]> {
  const ranges = RANKS.map(
    (rank) => `(priority_rank = ${rank} AND available_at BETWEEN 0 AND ${floors.get(rank) ?? NOW_MS})`,
  );
  return database.read<IndexPosition>(
    `SELECT priority_rank AS priorityRank, available_at AS availableAt, ${NOT_IN_THE_INDEX}
     FROM delivery FORCE INDEX (delivery_next)
     WHERE queue_id = ?
       AND (${ranges.join('\n         OR ')})
     LIMIT ${READ_ROWS}`,
    [queueId],
  );
}

/**
 * Reads, without locks, ready deliveries of queues in these priorities from an `available_at` on.
 * Includes deliveries that other transactions have locked. `isWhole` is false if there may be more.
 */
export async function readReady(
  database: Database,
  queueIds: readonly number[],
  ranks: readonly number[],
  from: number,
): Promise<{ positions: (IndexPosition & { queueId: number })[]; isWhole: boolean }> {
  const positions = await database.read<IndexPosition & { queueId: number }>(
    `SELECT queue_id AS queueId, priority_rank AS priorityRank, available_at AS availableAt, ${NOT_IN_THE_INDEX}
     FROM delivery FORCE INDEX (delivery_next)
     WHERE queue_id IN (?)
       AND priority_rank IN (?)
       AND available_at BETWEEN ? AND ${NOW_MS}
     LIMIT ${READ_ROWS}`,
    [queueIds, ranks, from],
  );
  return { positions, isWhole: positions.length < READ_ROWS };
}
