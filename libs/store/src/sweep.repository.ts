import { clock } from './clock.js';
import type { Database, Transaction } from './database.js';
import { deleteDeliveries, moveDeliveries } from './delivery.sql.js';
import type { Timed } from './message.repository.js';
import type { Queue } from './queue.repository.js';

/** A stretch of a queue's deliveries, in primary-key order. */
export interface Stretch {
  /** Those of the stretch that were looked for. */
  found: Buffer[];
  /** Where the next stretch begins: after this id. Null when this one was the last. */
  next: Buffer | null;
}

/** What one batch of a redrive did. */
export interface RedriveBatch {
  /** How many went back, by the queue they went to. */
  moved: Map<number, number>;
  skipped: number;
  next: Buffer | null;
}

/** Before every id. */
export const FIRST_ID = Buffer.alloc(16);

/**
 * Walks whole queues a bounded stretch at a time: for what has no index of its own (an index on the expiry would cost every enqueue and ack more than this walk costs in all) and for
 * the admin calls that touch everything.
 */
export class SweepRepository {
  constructor(private readonly database: Database) {}

  /** Looks at the next `rows` deliveries after an id for expired ones under no lease. Takes no locks. */
  async findExpired(queueId: number, after: Buffer, rows: number, { now }: Timed = {}): Promise<Stretch> {
    return this.find(
      queueId,
      after,
      rows,
      `expires_at <= ${clock(now)} AND (lease_token IS NULL OR available_at <= ${clock(now)})`,
    );
  }

  /** Looks at the next `rows` deliveries after an id for available ones that were received too often. Takes no locks. */
  async findOverReceived(queue: Queue, after: Buffer, rows: number, { now }: Timed = {}): Promise<Stretch> {
    return this.find(
      queue.id,
      after,
      rows,
      `receive_count >= ${Number(queue.maxReceives)} AND available_at <= ${clock(now)} AND expires_at > ${clock(now)}`,
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

  /** Deletes up to `rows` deliveries after an id and up to another, whatever their state. Locks them in primary-key order. */
  async purge(
    queueId: number,
    after: Buffer,
    upTo: Buffer,
    rows: number,
  ): Promise<{ purged: number; next: Buffer | null }> {
    return this.database.transaction(async (tx) => {
      const found = await tx.read<{ messageId: Buffer }>(
        `SELECT message_id AS messageId
         FROM delivery FORCE INDEX (PRIMARY)
         WHERE queue_id = ?
           AND message_id > ?
           AND message_id <= ?
         ORDER BY message_id
         LIMIT ?
         FOR UPDATE`,
        [queueId, after, upTo, rows],
      );
      await deleteDeliveries(
        tx,
        queueId,
        found.map(({ messageId }) => messageId),
      );
      return { purged: found.length, next: found.length < rows ? null : (found.at(-1)?.messageId ?? null) };
    });
  }

  /**
   * Moves up to `rows` deliveries after an id back to the queues they were enqueued in. Left where they are: leased and expired ones, and those that were enqueued
   * here or whose queue is gone.
   *
   * Locks: delivery rows in primary-key order, skipping what others hold; then the rows of the target queues, shared, in id order.
   */
  async redrive(queueId: number, after: Buffer, rows: number, { now }: Timed = {}): Promise<RedriveBatch> {
    return this.database.transaction(async (tx) => {
      const found = await tx.read<{ messageId: Buffer }>(
        `SELECT message_id AS messageId
         FROM delivery FORCE INDEX (PRIMARY)
         WHERE queue_id = ?
           AND message_id > ?
           AND (lease_token IS NULL OR available_at <= ${clock(now)})
           AND expires_at > ${clock(now)}
         ORDER BY message_id
         LIMIT ?
         FOR UPDATE SKIP LOCKED`,
        [queueId, after, rows],
      );
      const byOrigin = await origins(
        tx,
        found.map(({ messageId }) => messageId),
      );
      byOrigin.delete(queueId);
      const moved = new Map<number, number>();
      for (const target of await lockExisting(tx, [...byOrigin.keys()])) {
        const messageIds = byOrigin.get(target) ?? [];
        await moveDeliveries(tx, queueId, target, messageIds, now);
        moved.set(target, messageIds.length);
      }
      const total = [...moved.values()].reduce((sum, count) => sum + count, 0);
      return {
        moved,
        skipped: found.length - total,
        next: found.length < rows ? null : (found.at(-1)?.messageId ?? null),
      };
    });
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
    const found = await this.database.read<{ messageId: Buffer }>(
      `SELECT message_id AS messageId
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id = ?
         AND message_id > ?
         ${end === undefined ? '' : 'AND message_id <= ?'}
         AND ${condition}
       ORDER BY message_id
       LIMIT ?`,
      [queueId, after, ...(end === undefined ? [] : [end.messageId]), rows],
    );
    return { found: found.map(({ messageId }) => messageId), next: end?.messageId ?? null };
  }
}

/** Groups messages by the queue they were enqueued in. */
async function origins(tx: Transaction, messageIds: readonly Buffer[]): Promise<Map<number, Buffer[]>> {
  const groups = new Map<number, Buffer[]>();
  if (messageIds.length === 0) return groups;
  const rows = await tx.read<{ id: Buffer; queueId: number }>(
    'SELECT id, queue_id AS queueId FROM message FORCE INDEX (PRIMARY) WHERE id IN (?)',
    [messageIds],
  );
  for (const { id, queueId } of rows) {
    const group = groups.get(queueId);
    if (group === undefined) groups.set(queueId, [id]);
    else group.push(id);
  }
  return groups;
}

async function lockExisting(tx: Transaction, queueIds: readonly number[]): Promise<number[]> {
  if (queueIds.length === 0) return [];
  const rows = await tx.read<{ id: number }>(
    'SELECT id FROM queue FORCE INDEX (PRIMARY) WHERE id IN (?) AND name IS NOT NULL ORDER BY id LOCK IN SHARE MODE',
    [queueIds],
  );
  return rows.map(({ id }) => id);
}
