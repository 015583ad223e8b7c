import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import { isDatabaseFailure } from '../database/database-errors.js';
import { deleteDeliveries, moveDeliveries, NO_LEASE, type Position, lockUnleased } from './delivery.sql.js';
import { groupBy } from '../group-by.js';
import type { Queue } from '../queues/queue.repository.js';

/** A stretch of a queue's deliveries, in primary-key order. */
export interface Stretch {
  /** Those of the stretch that were looked for. */
  found: Position[];
  /** Where the next stretch begins: after this id. Null when this one was the last. */
  next: Buffer | null;
}

/** What one batch of a redrive did. */
export interface RedriveBatch {
  /** How many went back, by the queue they went to. */
  moved: Map<number, number>;
  /** Left for good: enqueued here, or their queue is gone. */
  skipped: number;
  /** Left because others hold them at this moment. */
  left: number;
  next: Buffer | null;
}

const POSITION = 'message_id AS messageId, priority_rank AS priorityRank, available_at AS availableAt';

/**
 * A lease that ends sooner is left to end: a claim could want the delivery, index entry first,
 * while it is being deleted, row first.
 */
const PURGE_MARGIN_MS = 500;

/** Before every id. */
export const FIRST_ID = Buffer.alloc(16);

/**
 * Walks whole queues a bounded stretch at a time: for what has no index of its own (an index on the
 * expiry would cost every enqueue and ack more than this walk costs in all) and for the admin calls
 * that touch everything.
 */
export class UnleasedRepository {
  constructor(private readonly database: Database) {}

  /**
   * Looks at the next `rows` deliveries after an id for expired ones under no lease. Takes no
   * locks.
   */
  async findExpired(queueId: number, after: Buffer, rows: number): Promise<Stretch> {
    return this.find(
      queueId,
      after,
      rows,
      `expires_at <= ${NOW_MS} AND (lease_token = ${NO_LEASE} OR available_at <= ${NOW_MS})`,
    );
  }

  /**
   * Looks at the next `rows` deliveries after an id for available ones that were received too
   * often. Takes no locks.
   */
  async findOverReceived(queue: Queue, after: Buffer, rows: number): Promise<Stretch> {
    return this.find(
      queue.id,
      after,
      rows,
      `receive_count >= ${Number(queue.maxReceives)} AND available_at <= ${NOW_MS} AND expires_at > ${NOW_MS}`,
    );
  }

  /** The highest id in a queue, or null when it is empty. */
  async lastId(queueId: number): Promise<Buffer | null> {
    const [row] = await this.database.read<{ id: Buffer }>(
      'SELECT message_id AS id FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? ORDER BY message_id DESC LIMIT 1',
      [queueId],
    );
    return row?.id ?? null;
  }

  /**
   * Deletes up to `rows` deliveries after an id and up to another, whatever their state. Those that
   * others hold at this moment, or whose lease is about to end, are left: `left` counts them. If
   * the database fails after some were deleted, it tells of those, and counts the rest as left: the
   * next call fails, or takes them. Throws what it says while none were.
   *
   * Locks: first those under a lease, by primary key as their holders do; then, in a transaction of
   * its own, the others like a claim.
   */
  async purge(
    queueId: number,
    after: Buffer,
    upTo: Buffer,
    rows: number,
  ): Promise<{ purged: number; left: number; next: Buffer | null }> {
    const found = await this.database.read<Position & { leased: number; ending: number }>(
      `SELECT ${POSITION}, lease_token <> ${NO_LEASE} AND available_at > ${NOW_MS} + ${PURGE_MARGIN_MS} AS leased,
              lease_token <> ${NO_LEASE} AND available_at > ${NOW_MS} AND available_at <= ${NOW_MS} + ${PURGE_MARGIN_MS} AS ending
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id = ?
         AND message_id > ?
         AND message_id <= ?
       ORDER BY message_id
       LIMIT ?`,
      [queueId, after, upTo, rows],
    );
    const leased = found.filter((row) => row.leased !== 0).map(({ messageId }) => messageId);
    const others = found.filter((row) => row.leased === 0 && row.ending === 0);
    const purgedLeased =
      leased.length === 0 ? 0 : await this.database.transaction((tx) => purgeLeased(tx, queueId, leased));
    const purgedOthers = await this.purgeUnleased(queueId, others).catch((error: unknown) => {
      if (purgedLeased > 0 && isDatabaseFailure(error)) return 0;
      throw error;
    });
    const purged = purgedLeased + purgedOthers;
    return {
      purged,
      left: found.length - purged,
      next: found.length < rows ? null : (found.at(-1)?.messageId ?? null),
    };
  }

  /**
   * Moves up to `rows` deliveries after an id back to the queues they were enqueued in. Left where
   * they are: leased and expired ones, those that others hold at this moment, and those that were
   * enqueued here or whose queue is gone.
   *
   * Locks: the rows of the target queues, shared, in id order; after them the deliveries, like a
   * claim.
   */
  async redrive(queueId: number, after: Buffer, rows: number): Promise<RedriveBatch> {
    const found = await this.database.read<Position>(
      `SELECT ${POSITION}
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id = ?
         AND message_id > ?
         AND (lease_token = ${NO_LEASE} OR available_at <= ${NOW_MS})
         AND expires_at > ${NOW_MS}
       ORDER BY message_id
       LIMIT ?`,
      [queueId, after, rows],
    );
    const byOrigin = await this.origins(found);
    byOrigin.delete(queueId);
    const moved = await this.database.transaction(async (tx) => {
      const counts = new Map<number, number>();
      for (const target of await lockExisting(tx, [...byOrigin.keys()])) {
        const taken = await lockUnleased(tx, queueId, byOrigin.get(target) ?? [], `expires_at > ${NOW_MS}`);
        if (taken.length > 0) await tx.all([moveDeliveries(queueId, target, taken)]);
        counts.set(target, taken.length);
      }
      return counts;
    });
    const wanted = [...moved.keys()].reduce((sum, target) => sum + (byOrigin.get(target)?.length ?? 0), 0);
    const total = [...moved.values()].reduce((sum, count) => sum + count, 0);
    return {
      moved,
      skipped: found.length - wanted,
      left: wanted - total,
      next: found.length < rows ? null : (found.at(-1)?.messageId ?? null),
    };
  }

  private async purgeUnleased(queueId: number, found: readonly Position[]): Promise<number> {
    return this.database.transaction(async (tx) => {
      const taken = await lockUnleased(tx, queueId, found, 'TRUE');
      if (taken.length > 0) await tx.finish([deleteDeliveries(queueId, taken)]);
      return taken.length;
    });
  }

  /** Groups deliveries by the queue their messages were enqueued in. */
  private async origins(positions: readonly Position[]): Promise<Map<number, Position[]>> {
    if (positions.length === 0) return new Map();
    const ids = positions.map(({ messageId }) => messageId);
    const rows = await this.database.read<{ id: Buffer; queueId: number }>(
      `SELECT id, queue_id AS queueId FROM message FORCE INDEX (PRIMARY) WHERE id IN (?)
       UNION ALL
       SELECT id, queue_id FROM message_overflow FORCE INDEX (PRIMARY) WHERE id IN (?)`,
      [ids, ids],
    );
    const queueOf = new Map(rows.map(({ id, queueId }) => [id.toString('latin1'), queueId]));
    const origin = ({ messageId }: Position): number | undefined => queueOf.get(messageId.toString('latin1'));
    const groups = groupBy(positions, origin);
    return new Map([...groups].flatMap(([queueId, group]) => (queueId === undefined ? [] : [[queueId, group]])));
  }

  private async find(queueId: number, after: Buffer, rows: number, condition: string): Promise<Stretch> {
    const [end] = await this.database.read<{ messageId: Buffer }>(
      `SELECT message_id AS messageId
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id = ?
         AND message_id > ?
       ORDER BY message_id
       LIMIT ?, 1`,
      [queueId, after, rows - 1],
    );
    const found = await this.database.read<Position>(
      `SELECT ${POSITION}
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id = ?
         AND message_id > ?
         ${end === undefined ? '' : 'AND message_id <= ?'}
         AND ${condition}
       ORDER BY message_id
       LIMIT ?`,
      [queueId, after, ...(end === undefined ? [] : [end.messageId]), rows],
    );
    return { found, next: end?.messageId ?? null };
  }
}

async function purgeLeased(tx: Transaction, queueId: number, found: readonly Buffer[]): Promise<number> {
  const rows = await tx.read<{ messageId: Buffer }>(
    `SELECT message_id AS messageId
     FROM delivery FORCE INDEX (PRIMARY)
     WHERE queue_id = ?
       AND message_id IN (?)
       AND lease_token <> ${NO_LEASE}
       AND available_at > ${NOW_MS} + ${PURGE_MARGIN_MS}
     ORDER BY message_id
     FOR UPDATE`,
    [queueId, found],
  );
  const messageIds = rows.map(({ messageId }) => messageId);
  if (messageIds.length > 0) await tx.finish([deleteDeliveries(queueId, messageIds)]);
  return rows.length;
}

async function lockExisting(tx: Transaction, queueIds: readonly number[]): Promise<number[]> {
  if (queueIds.length === 0) return [];
  const rows = await tx.read<{ id: number }>(
    'SELECT id FROM queue FORCE INDEX (PRIMARY) WHERE id IN (?) AND name IS NOT NULL ORDER BY id LOCK IN SHARE MODE',
    [queueIds],
  );
  return rows.map(({ id }) => id);
}
