import { NOW_MS } from '../database/clock.js';
import { type Database, outcomeUnknown, type Transaction } from '../database/database.js';
import { isDatabaseFailure } from '../database/database-errors.js';
import { groupBy } from '../group-by.js';
import type { Queue } from '../queues/queue.js';
import { type Delivery, split } from './delivery.js';
import {
  DELIVERY_COLUMNS,
  FOR_UPDATE,
  isNoLease,
  lockUnleased,
  NO_LEASE,
  type Position,
  rewrite,
} from './delivery.sql.js';
import { countAll, countMembers, lowestMembers } from './members.js';
import { type MoveTarget, moveTo } from './move.js';

/** The result of one step of a walk through a queue, in primary-key order. */
export interface Stretch {
  /** The deliveries of this stretch that meet the condition. */
  found: Position[];
  /** The next stretch begins after this pack's id. Null after the last stretch. */
  next: Buffer | null;
}

/** The result of one batch of a redrive. */
export interface RedriveBatch {
  /** Number of moved messages by target queue. */
  moved: Map<number, number>;
  /** Messages that no redrive moves: they were enqueued here, or their queue is gone. */
  skipped: number;
  /** Messages that another transaction has locked. A later batch may move them. */
  left: number;
  next: Buffer | null;
}

/**
 * Purge spares a lease that ends sooner than this. Purge locks the row first and a claim the index
 * entry first, so the two must not want the same delivery.
 */
const PURGE_MARGIN_MS = 500;

/** Lies before every pack's id. */
export const FIRST_ID = Buffer.alloc(16);

/**
 * Walks whole queues, a bounded stretch at a time. The reaper finds expired and over-received
 * deliveries this way: an index on the expiry would cost every enqueue and ack more than the walk
 * costs in all. Purge and redrive walk because they touch every delivery.
 */
export class UnleasedRepository {
  constructor(private readonly database: Database) {}

  /** Finds expired deliveries under no lease among the next `rows` after a pack, without locks. */
  async findExpired(queueId: number, after: Buffer, rows: number): Promise<Stretch> {
    return this.find(
      queueId,
      after,
      rows,
      `d.expires_at <= ${NOW_MS} AND (d.lease_token = ${NO_LEASE} OR d.available_at <= ${NOW_MS})`,
    );
  }

  /** Finds available over-received deliveries among the next `rows` after a pack, without locks. */
  async findOverReceived(queue: Queue, after: Buffer, rows: number): Promise<Stretch> {
    return this.find(
      queue.id,
      after,
      rows,
      `d.receive_count >= ${Number(queue.maxReceives)} AND d.available_at <= ${NOW_MS} AND d.expires_at > ${NOW_MS}`,
    );
  }

  /** Returns the highest pack id in a queue, or null if the queue is empty. */
  async lastId(queueId: number): Promise<Buffer | null> {
    const [row] = await this.database.read<{ id: Buffer }>(
      'SELECT pack_id AS id FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? ORDER BY pack_id DESC LIMIT 1',
      [queueId],
    );
    return row?.id ?? null;
  }

  /**
   * Settles the messages of about `rows` deliveries from after one pack up to another, in whatever
   * state. `left` counts the messages that stay because another transaction has locked them or
   * because their lease is about to end.
   *
   * If the database fails before anything is settled, purge throws its error. If it fails later,
   * purge returns the settled messages and counts the rest as left. The next call then fails or
   * settles them.
   *
   * Locks: `lockLeased` locks leased deliveries by primary key, as holders of leases do. A second
   * transaction locks the others as a claim does.
   */
  async purge(
    queueId: number,
    after: Buffer,
    upTo: Buffer,
    rows: number,
  ): Promise<{ purged: number; left: number; next: Buffer | null }> {
    const { found, next } = await this.find(queueId, after, rows, 'TRUE', upTo);
    const leased = found.filter(
      ({ leaseToken, availableAt, now }) => !isNoLease(leaseToken) && availableAt > now + PURGE_MARGIN_MS,
    );
    const others = found.filter(({ leaseToken, availableAt, now }) => isNoLease(leaseToken) || availableAt <= now);
    const purgedLeased = await this.remove(leased, (tx) => lockLeased(tx, queueId, leased));
    const purgedOthers = await this.remove(others, (tx) => lockUnleased(tx, queueId, others, 'TRUE')).catch(
      (error: unknown) => {
        if (purgedLeased > 0 && isDatabaseFailure(error)) return 0;
        throw error;
      },
    );
    const purged = purgedLeased + purgedOthers;
    return { purged, left: Math.max(0, countAll(found) - purged), next };
  }

  /**
   * Moves the messages of about `rows` deliveries after a pack back to the queues that they were
   * enqueued in, `most` of them at most. Skips leased, expired and locked deliveries. Also skips
   * messages that were enqueued here or whose queue is gone.
   *
   * If a COMMIT gets no answer, the transaction is repeated. The messages that the first try moved
   * are no longer here, so the repeat counts them as left. It would then move others instead, more
   * than `most` in all. If there may be others, redrive throws that its outcome is unknown.
   *
   * Locks: `lockTargets` locks the target queues' rows, shared, in id order. After it,
   * `lockUnleased` in delivery.sql.ts locks the deliveries as a claim does.
   */
  async redrive(queueId: number, after: Buffer, rows: number, most = Infinity): Promise<RedriveBatch> {
    const { found, next } = await this.find(
      queueId,
      after,
      rows,
      `(d.lease_token = ${NO_LEASE} OR d.available_at <= ${NOW_MS}) AND d.expires_at > ${NOW_MS}`,
    );
    const byOrigin = await this.origins(found);
    byOrigin.delete(queueId);
    const moved = await this.database.transaction(async (tx) => {
      if (tx.commitUnknown && countAll(found) > most) throw outcomeUnknown();
      const { targets, now } = await lockTargets(tx, [...byOrigin.keys()]);
      const counts = new Map<number, number>();
      const moves = new Map<Delivery, Delivery[]>();
      let room = most;
      for (const target of targets) {
        const locked = await lockUnleased(tx, queueId, byOrigin.get(target.id) ?? [], `d.expires_at > ${NOW_MS}`);
        for (const row of locked) {
          const moving = lowestMembers(row.members, room);
          if (moving === 0) break;
          room -= countMembers(moving);
          counts.set(target.id, (counts.get(target.id) ?? 0) + countMembers(moving));
          moves.set(row, split(row, new Map([[moveTo(target, row, now), moving]])));
        }
      }
      await tx.finish(rewrite([...moves.keys()], [...moves.values()].flat()));
      return { counts, targets: targets.map(({ id }) => id) };
    });
    const wanted = moved.targets.reduce((sum, target) => sum + countAll(byOrigin.get(target) ?? []), 0);
    const total = [...moved.counts.values()].reduce((sum, count) => sum + count, 0);
    return {
      moved: moved.counts,
      skipped: countAll(found) - wanted,
      left: Math.max(0, wanted - total),
      next,
    };
  }

  /**
   * Settles all messages of the deliveries that `lock` locks. Returns their number. After a COMMIT
   * without an answer, the repeat finds fewer deliveries of the same list. So nothing else is
   * settled, and the caller counts as left what the first try settled.
   */
  private async remove(found: readonly unknown[], lock: (tx: Transaction) => Promise<Delivery[]>): Promise<number> {
    if (found.length === 0) return 0;
    return this.database.transaction(async (tx) => {
      const locked = await lock(tx);
      await tx.finish(rewrite(locked, []));
      return countAll(locked);
    });
  }

  /** Groups deliveries by the queue in which their messages were enqueued. */
  private async origins(positions: readonly Position[]): Promise<Map<number, Position[]>> {
    if (positions.length === 0) return new Map();
    const ids = positions.map(({ packId }) => packId);
    const rows = await this.database.read<{ id: Buffer; queueId: number }>(
      `SELECT id, queue_id AS queueId FROM pack FORCE INDEX (PRIMARY) WHERE id IN (?)
       UNION ALL
       SELECT id, queue_id FROM pack_overflow FORCE INDEX (PRIMARY) WHERE id IN (?)`,
      [ids, ids],
    );
    const queueOf = new Map(rows.map(({ id, queueId }) => [id.toString('latin1'), queueId]));
    const origin = ({ packId }: Position): number | undefined => queueOf.get(packId.toString('latin1'));
    const groups = groupBy(positions, origin);
    return new Map([...groups].flatMap(([queueId, group]) => (queueId === undefined ? [] : [[queueId, group]])));
  }

  /**
   * Finds the deliveries of the next `rows` after a pack that meet a condition. A stretch holds the
   * last pack whole, so it may be 31 deliveries longer.
   */
  private async find(
    queueId: number,
    after: Buffer,
    rows: number,
    condition: string,
    upTo: Buffer = LAST_ID,
  ): Promise<{ found: (Delivery & { now: number })[]; next: Buffer | null }> {
    const [end] = await this.database.read<{ packId: Buffer }>(
      `SELECT pack_id AS packId
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id = ?
         AND pack_id > ?
         AND pack_id <= ?
       ORDER BY pack_id
       LIMIT ?, 1`,
      [queueId, after, upTo, rows - 1],
    );
    const found = await this.database.read<Delivery & { now: number }>(
      `SELECT ${DELIVERY_COLUMNS}, ${NOW_MS} AS now
       FROM delivery d FORCE INDEX (PRIMARY)
       WHERE d.queue_id = ?
         AND d.pack_id > ?
         AND d.pack_id <= ?
         AND ${condition}
       ORDER BY d.pack_id`,
      [queueId, after, end?.packId ?? upTo],
    );
    return { found, next: end?.packId ?? null };
  }
}

/** Lies behind every pack's id. */
const LAST_ID = Buffer.alloc(16, 0xff);

/** The key of a delivery within its queue. */
type LeaseKey = Pick<Delivery, 'packId' | 'leaseToken' | 'part'>;

/**
 * Locks deliveries under these leases, in primary-key order. It looks them up by their whole keys.
 * A search by pack alone would also lock the dead entries of keys without a token, which a nack may
 * insert again.
 */
async function lockLeased(tx: Transaction, queueId: number, leased: readonly LeaseKey[]): Promise<Delivery[]> {
  const keys = leased
    .toSorted((one, other) => one.packId.compare(other.packId) || one.leaseToken.compare(other.leaseToken))
    .map(({ packId, leaseToken, part }) => [packId.toString('hex'), leaseToken.toString('hex'), part]);
  return tx.read<Delivery>(
    `SELECT ${DELIVERY_COLUMNS}
     FROM JSON_TABLE(?, '$[*]' COLUMNS (
       pack_id CHAR(32) PATH '$[0]',
       lease_token CHAR(16) PATH '$[1]',
       part TINYINT UNSIGNED PATH '$[2]'
     )) wanted
     STRAIGHT_JOIN delivery d FORCE INDEX (PRIMARY)
       ON d.queue_id = ?
      AND d.pack_id = UNHEX(wanted.pack_id)
      AND d.lease_token = UNHEX(wanted.lease_token)
      AND d.part = wanted.part
     WHERE d.available_at > ${NOW_MS} + ${PURGE_MARGIN_MS}
     ${FOR_UPDATE}`,
    [JSON.stringify(keys), queueId],
  );
}

/** Locks the rows of existing queues, shared, in id order. Also returns the database's time. */
async function lockTargets(
  tx: Transaction,
  queueIds: readonly number[],
): Promise<{ targets: MoveTarget[]; now: number }> {
  if (queueIds.length === 0) return { targets: [], now: 0 };
  const rows = await tx.read<MoveTarget & { now: number }>(
    `SELECT id, message_ttl_seconds AS messageTtlSeconds, ${NOW_MS} AS now
     FROM queue FORCE INDEX (PRIMARY)
     WHERE id IN (?)
       AND name IS NOT NULL
     ORDER BY id
     LOCK IN SHARE MODE`,
    [queueIds],
  );
  return { targets: rows, now: rows[0]?.now ?? 0 };
}
