import { LIMITS } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { LEASE_GRACE_MS, NO_LEASE, type Position } from './delivery.sql.js';
import { hex, hexList } from '../database/hex.js';
import type { Queue } from '../queues/queue.repository.js';
import type { Floors, IndexPosition } from './scan-floors.js';

/*
 * The statements of a claim: finding what may be leased, leasing it, reading its messages, and
 * taking it all back.
 */

/** Every priority, most urgent first. */
export const RANKS = Array.from({ length: LIMITS.priorityMax + 1 }, (_, rank) => rank);
const FROM_THE_START: Floors = new Map(RANKS.map((rank) => [rank, 0]));

/**
 * While few deliveries are alive, the optimizers prefer a scan of the whole index, dead entries and
 * all, to its ranges: unless the index alone does not answer.
 */
const NOT_IN_THE_INDEX = 'expires_at';

/** Where to look for deliveries of a queue, and for how many. */
export interface PeekRequest {
  queueId: number;
  /** Undefined: from the start of every priority. */
  floors: Floors | undefined;
  limit: number;
}

/** What a claim goes by, as it is at this moment: the caller's settings may be a second old. */
export type ClaimSettings = Pick<Queue, 'id' | 'maxReceives' | 'deadLetterQueueId'>;

/** The deliveries of one priority that are ready, as far as a claim wants them. */
export interface SeenRank {
  priorityRank: number;
  first: number;
  last: number;
  count: number;
}

/** What a look without locks found at the head of a queue, as far as a claim wants it. */
export interface SeenQueue {
  queueId: number;
  limit: number;
  /** Most urgent first. */
  ranks: SeenRank[];
  /** How many are to be locked: all that was seen, unless that is more than is wanted. */
  count: number;
  /** How many more may stand in the same ranges. */
  ties: number;
  /** Needs a statement of its own. */
  isSeparate: boolean;
}

/**
 * Looks, without locks, what is ready at the heads of queues, in hand-out order. Also tells the
 * database's time before the look.
 *
 * What a claim locks then is no more than was seen. A locking read of a range with nothing (more)
 * in it runs on, on both servers: over the dead entries behind its end, until it meets a live one,
 * which it locks; a leased delivery, whose ack then waits, or the next queue's first, which that
 * queue's claims then skip. While purge is held up, these are hundreds of thousands
 * (`docs/decisions/0007-look-then-lock.md`).
 */
export async function peekQueues(
  database: Database,
  heads: readonly PeekRequest[],
): Promise<{ positions: IndexPosition[][]; now: number }> {
  // Where no priority is in use there is nothing but what a rescan finds.
  const looked = heads.filter(({ floors }) => floors === undefined || floors.size > 0);
  const [[time], ...answers] = (await database.all([
    { sql: `SELECT ${NOW_MS} AS now` },
    ...looked.map((head) => peekQueue(head)),
  ])) as [[{ now: number }], ...IndexPosition[][]];
  const found = new Map(looked.map((head, index) => [head, answers[index]]));
  return { positions: heads.map((head) => found.get(head) ?? []), now: time.now };
}

/**
 * A statement of one table and nothing around it: for that alone MySQL takes the word of FORCE
 * INDEX and estimates nothing. As part of a UNION, or as a derived table that returned no more than
 * first, last and count, it dived into the index first, which cost 0.3 ms in a small queue and 8 ms
 * in one of a million.
 */
function peekQueue({ queueId, floors = FROM_THE_START, limit }: PeekRequest): Statement {
  const ranges = [...floors].map(([rank, floor]): Range => [queueId, rank, floor, NOW_MS]);
  return {
    sql: `SELECT priority_rank AS priorityRank, available_at AS availableAt, ${NOT_IN_THE_INDEX}
       ${inRanges(ranges)}
       LIMIT ${limit}`,
  };
}

/** @param positions in hand-out order */
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
 * Ranges of an index that is walked in its order, which no ORDER BY is allowed to change. `from`
 * must lie before `to`: of an equality the optimizers would make another plan, and sort.
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

/** A delivery at the head of a queue, whose row the transaction holds. */
export interface Candidate extends Position {
  queueId: number;
  expiresAt: number;
  receiveCount: number;
}

/**
 * Locks what was seen at the heads of queues, index entry before row, and skips what others hold:
 * with one statement for all queues. One that is separate has a statement of its own; where there was
 * more in it than was wanted, that goes on behind what others hold. Also tells the queues'
 * settings, of those that exist, and the database's time after the last lock.
 */
export async function lockSeen(
  tx: Transaction,
  heads: readonly SeenQueue[],
): Promise<{ rows: Candidate[][]; settings: Map<number, ClaimSettings>; now: number }> {
  const together = heads.filter(({ isSeparate }) => !isSeparate);
  const separate = heads.filter(({ isSeparate }) => isSeparate).toSorted((one, other) => one.queueId - other.queueId);
  const [settings, ...answers] = await tx.all([
    {
      sql: `SELECT id, max_receives AS maxReceives, dead_letter_queue_id AS deadLetterQueueId
       FROM queue FORCE INDEX (PRIMARY)
       WHERE id IN (?)
         AND name IS NOT NULL`,
      values: [heads.map(({ queueId }) => queueId)],
    },
    ...(together.length > 0 ? [lockTogether(together)] : []),
    ...separate.map((head) => lockSeparately(head)),
    { sql: `SELECT ${NOW_MS} AS now` },
  ]);
  const rows = new Map(heads.map(({ queueId }): [number, Candidate[]] => [queueId, []]));
  for (const row of (answers.slice(0, -1) as Candidate[][]).flat()) rows.get(row.queueId)?.push(row);
  return {
    rows: heads.map(({ queueId }) => rows.get(queueId) ?? []),
    settings: new Map((settings as ClaimSettings[]).map((queue) => [queue.id, queue])),
    now: (answers.at(-1) as [{ now: number }])[0].now,
  };
}

/**
 * Its ranges hold no more than was seen and what ties with it, unless something was committed late:
 * else one queue would use up what all of them may take.
 */
function lockTogether(heads: readonly SeenQueue[]): Statement {
  const ranges = heads.flatMap(({ queueId, ranks }) =>
    ranks.map(({ priorityRank, first, last }): Range => [queueId, priorityRank, first - 1, last]),
  );
  return lock(
    ranges,
    heads.reduce((sum, { count, ties }) => sum + count + ties, 0),
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
 * ORDER BY names no message_id: InnoDB's index ends with it anyway, and MariaDB sorts (and so locks
 * the whole backlog) when it is named.
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

/** What may be leased among the rows at a queue's head, and what may not. */
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
  // Deleted.
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

/** Deliveries of queues, by primary key. */
export type ByQueue = readonly (readonly [queueId: number, messageIds: readonly Buffer[]])[];

/** Leases deliveries whose rows the transaction holds. */
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
 * Undoes a lease that is still held: its deliveries are available now, and the receive is not
 * counted.
 */
export function releaseLeases(queueId: number, messageIds: readonly Buffer[], leaseToken: Buffer): Statement {
  const { sql, values = [] } = endLeases(NOW_MS, queueId, messageIds, leaseToken);
  return { sql: `${sql} AND ${IS_LEASED}`, values };
}

/**
 * Undoes what a claim has leased whose COMMIT got no answer, and whose leases therefore nobody has:
 * like {@link releaseLeases}, but also where the lease ran out meanwhile, as it may while the database
 * fails over, unless another claim has taken the delivery since. Of such a delivery only the count
 * is changed, which is in no index: so this takes no index entry after a row, and cannot meet a
 * claim in the opposite order.
 */
export function undoLeases(queueId: number, messageIds: readonly Buffer[], leaseToken: Buffer): Statement {
  return endLeases(`IF(${IS_LEASED}, ${NOW_MS}, available_at)`, queueId, messageIds, leaseToken);
}

/** For who holds a lease it has not run out. */
const IS_LEASED = `available_at > ${NOW_MS} + ${LEASE_GRACE_MS}`;

/** Of the deliveries that no claim has taken since: the receive is not counted. */
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

/** A message as a claim reads it. */
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

/** Rows a look without locks reads at most. */
const PEEK_ROWS = 500;
/**
 * Deliveries of a queue that are ready but that a claim with these floors would not see, whoever
 * holds them: no locks.
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
     LIMIT ${PEEK_ROWS}`,
    [queueId],
  );
}

/**
 * Deliveries of queues that are ready, in these priorities and from an `available_at` on, whoever
 * holds them: no locks. All of them, or as many as a look reads.
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
     LIMIT ${PEEK_ROWS}`,
    [queueIds, ranks, from],
  );
  return { positions, isWhole: positions.length < PEEK_ROWS };
}
