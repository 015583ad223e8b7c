import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import { isDatabaseFailure } from '../database/database-errors.js';
import { deleteDeliveries, moveDeliveries, NO_LEASE, type Position, lockUnleased } from './delivery.sql.js';
import { groupBy } from '../group-by.js';
import type { Queue } from '../queues/queue.js';

/** The result of one step of a walk through a queue, in primary-key order. */
export interface Stretch {
  /** The deliveries of this stretch that meet the condition. */
  found: Position[];
  /** The next stretch begins after this id. Null after the last stretch. */
  next: Buffer | null;
}

/** The result of one batch of a redrive. */
export interface RedriveBatch {
  /** Number of moved deliveries by target queue. */
  moved: Map<number, number>;
  /** Deliveries that no redrive moves: they were enqueued here, or their queue is gone. */
  skipped: number;
  /** Deliveries that another transaction has locked. A later batch may move them. */
  left: number;
  next: Buffer | null;
}

const POSITION = 'message_id AS messageId, priority_rank AS priorityRank, available_at AS availableAt';

/**
 * Purge spares a lease that ends sooner than this. Purge locks the row first and a claim the index
 * entry first, so the two must not want the same delivery.
 */
const PURGE_MARGIN_MS = 500;

/** Lies before every message id. */
export const FIRST_ID = Buffer.alloc(16);

/**
 * Walks whole queues, a bounded stretch at a time. The reaper finds expired and over-received
 * deliveries this way: an index on the expiry would cost every enqueue and ack more than the walk
 * costs in all. Purge and redrive walk because they touch every delivery.
 */
export class UnleasedRepository {
  constructor(private readonly database: Database) {}

  /** Finds expired deliveries under no lease among the next `rows` after an id, without locks. */
  async findExpired(queueId: number, after: Buffer, rows: number): Promise<Stretch> {
    return this.find(
      queueId,
      after,
      rows,
      `expires_at <= ${NOW_MS} AND (lease_token = ${NO_LEASE} OR available_at <= ${NOW_MS})`,
    );
  }

  /** Finds available over-received deliveries among the next `rows` after an id, without locks. */
  async findOverReceived(queue: Queue, after: Buffer, rows: number): Promise<Stretch> {
    return this.find(
      queue.id,
      after,
      rows,
      `receive_count >= ${Number(queue.maxReceives)} AND available_at <= ${NOW_MS} AND expires_at > ${NOW_MS}`,
    );
  }

  /** Returns the highest id in a queue, or null if the queue is empty. */
  async lastId(queueId: number): Promise<Buffer | null> {
    const [row] = await this.database.read<{ id: Buffer }>(
      'SELECT message_id AS id FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? ORDER BY message_id DESC LIMIT 1',
      [queueId],
    );
    return row?.id ?? null;
  }

  /**
   * Deletes up to `rows` deliveries from after one id up to another, in whatever state. `left`
   * counts the deliveries that stay because another transaction has locked them or because their
   * lease is about to end.
   *
   * If the database fails before any delivery is deleted, purge throws its error. If it fails
   * later, purge returns the deleted ones and counts the rest as left. The next call then fails or
   * deletes them.
   *
   * Locks: `purgeLeased` locks leased deliveries by primary key, as holders of leases do. A second
   * transaction, `purgeUnleased`, locks the others as a claim does.
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
   * Moves up to `rows` deliveries after an id back to the queues that their messages were enqueued
   * in. Skips leased, expired and locked deliveries. Also skips messages that were enqueued here or
   * whose queue is gone.
   *
   * Locks: `lockExisting` locks the target queues' rows, shared, in id order. After it,
   * `lockUnleased` in delivery.sql.ts locks the deliveries as a claim does.
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
        const locked = await lockUnleased(tx, queueId, byOrigin.get(target) ?? [], `expires_at > ${NOW_MS}`);
        if (locked.length > 0) await tx.all([moveDeliveries(queueId, target, locked)]);
        counts.set(target, locked.length);
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
      const locked = await lockUnleased(tx, queueId, found, 'TRUE');
      if (locked.length > 0) await tx.finish([deleteDeliveries(queueId, locked)]);
      return locked.length;
    });
  }

  /** Groups deliveries by the queue in which their messages were enqueued. */
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
