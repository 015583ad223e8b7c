import { RowmqError } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import { isDatabaseFailure } from '../database/database-errors.js';
import type { Session } from '../database/session.js';
import { groupBy } from '../group-by.js';
import { finish, lockGroupsOf } from '../groups/finish.js';
import { inQueue } from '../groups/group.js';
import { isWaiting } from '../groups/waiting.js';
import type { Queue } from '../queues/queue.js';
import { type Delivery, GONE, split } from './delivery.js';
import { DELIVERY_COLUMNS, FOR_UPDATE, IS_LEASED, isNoLease, lockUnleased, type Position } from './delivery.sql.js';
import {
  type BatchCounts,
  type BatchOfJob,
  countBatch,
  countOf,
  finderOf,
  LAST_ID,
  NO_JOB,
  sum,
  takeFirst,
} from './batch-of-job.js';
import { countAll, countMembers, type Members } from './members.js';
import { type MoveTarget, moveTo } from './move.js';
import { type Ending, withdraw } from './withdrawn.sql.js';

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
  /**
   * Messages that this redrive does not move: they came here first, their queue is gone, or the
   * caller may not reach it.
   */
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
    return this.find(queueId, after, rows, `d.expires_at <= ${NOW_MS} AND NOT ${IS_LEASED}`);
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
   * transaction locks the others as a claim does, and also those that wait under a lease. Each at
   * last inserts into `withdrawn`, because a replay must leave these messages out. If the queue is
   * deleted, its dead letters may still be replayed where they came from.
   */
  async purge(
    queueId: number,
    after: Buffer,
    upTo: Buffer,
    rows: number,
    job: BatchOfJob = NO_JOB,
  ): Promise<{ purged: number; left: number; next: Buffer | null }> {
    const { found, next } = await this.find(queueId, after, rows, 'TRUE', upTo);
    const chosen = await job.choose(found);
    const wantedOf = finderOf(chosen);
    const wanted = found.filter((row) => chosen.has(row));
    const isFree = (row: Found): boolean => isWaiting(row) || isNoLease(row.leaseToken) || row.availableAt <= row.now;
    const leased = wanted.filter((row) => !isFree(row) && row.availableAt > row.now + PURGE_MARGIN_MS);
    const others = wanted.filter(isFree);
    let purged = 0;
    if (leased.length > 0) {
      purged += await this.remove({
        lock: (tx) => lockLeased(tx, queueId, leased),
        groupsFirst: [],
        wantedOf,
        how: 'purged',
        job,
        counts: (gone) => ({ examined: 0, done: sumOf(gone), skipped: 0, left: 0, next: after }),
      });
    }
    const before = purged;
    if (others.length > 0 || job !== NO_JOB) {
      purged += await this.remove({
        lock: (tx) => lockUnleased(tx, queueId, others, 'TRUE', { withFollowers: true }),
        groupsFirst: others,
        wantedOf,
        how: 'purged',
        job,
        counts: (gone) => ({
          examined: countAll(found),
          done: sumOf(gone),
          skipped: 0,
          left: Math.max(0, countOf(found, chosen) - before - sumOf(gone)),
          next,
        }),
      }).catch((error: unknown) => {
        if (before > 0 && isDatabaseFailure(error)) return 0;
        throw error;
      });
    }
    return { purged, left: Math.max(0, countOf(found, chosen) - purged), next };
  }

  /**
   * Settles messages of about `rows` deliveries after a pack that its job has chosen, `most` of
   * them at most. Skips leased and locked deliveries.
   *
   * Locks: the job's row; the groups; `lockUnleased` in delivery.sql.ts; rows of `withdrawn`,
   * because a replay must leave these messages out.
   */
  async drop(queueId: number, after: Buffer, rows: number, most: number, job: BatchOfJob): Promise<void> {
    const { found, next } = await this.find(queueId, after, rows, `NOT ${IS_LEASED}`, job.upTo);
    const chosen = await job.choose(found);
    const wanted = takeFirst(found, chosen, most, { after, next });
    const going = found.filter((row) => wanted.members.has(row));
    await this.remove({
      lock: (tx) => lockUnleased(tx, queueId, going, 'TRUE'),
      groupsFirst: going,
      wantedOf: finderOf(wanted.members),
      how: 'dropped',
      job,
      counts: (gone) => countBatch(found, chosen, wanted, gone),
    });
  }

  /**
   * Moves messages of about `rows` deliveries after a pack back to the queues that they left first,
   * or to the queue of its job, `most` of them at most. Skips leased, expired and locked
   * deliveries. Also skips messages that came here first, or whose queue is gone or is none that
   * the job reaches.
   *
   * It chooses the messages before it locks them. If a COMMIT gets no answer, the repeat finds none
   * of those that the first try moved, and moves no others in their place.
   *
   * Locks: the job's row. `lockTargets` locks the target queues' rows, shared, in id order. The
   * groups follow. Then `lockUnleased` in delivery.sql.ts locks the deliveries as a claim does.
   */
  async redrive(
    queueId: number,
    after: Buffer,
    rows: number,
    most = Infinity,
    job: BatchOfJob = NO_JOB,
  ): Promise<RedriveBatch> {
    const { found, next } = await this.find(
      queueId,
      after,
      rows,
      `NOT ${IS_LEASED} AND d.expires_at > ${NOW_MS}`,
      job.upTo,
    );
    const targetOf = ({ sourceQueueId }: Delivery): number | null => job.targetId ?? sourceQueueId;
    const chosen = await job.choose(found);
    const leaving = found.filter((row) => targetOf(row) !== null && targetOf(row) !== queueId);
    // A batch must not be full of messages that have nowhere to go: it would never get past them.
    const open = await readTargets(this.database, [...new Set(leaving.map((row) => Number(targetOf(row))))], job);
    const movable = leaving.filter((row) => open.targets.some(({ id }) => id === targetOf(row)));
    const wanted = takeFirst(movable, chosen, most, { after, next });
    const byTarget = groupBy(movable, (row) => Number(targetOf(row)));
    const wantedOf = finderOf(wanted.members);
    let [moved, targetIds] = [new Map<number, number>(), new Set<number>()];
    await this.database.transaction(async (tx) => {
      if (!(await job.begin(tx))) return;
      const { targets, now } = await lockTargets(tx, [...byTarget.keys()], job);
      if (job.targetId !== null && leaving.length > 0 && targets.length === 0) throw targetGone();
      [moved, targetIds] = [new Map(), new Set(targets.map(({ id }) => id))];
      const moving = (target: number): Found[] => (byTarget.get(target) ?? []).filter((row) => wanted.members.has(row));
      const groups = await lockGroupsOf(
        tx,
        targets.flatMap(({ id }) => [...inQueue(queueId, moving(id)), ...inQueue(id, moving(id))]),
      );
      const replacedBy = new Map<Delivery, Delivery[]>();
      const handled = new Map<Delivery, Members>();
      for (const target of targets) {
        // Two copies of one pack, of different queues, may have the same position.
        const isItsOwn = job.targetId === null ? `d.source_queue_id = ${target.id}` : 'TRUE';
        const locked = await lockUnleased(tx, queueId, moving(target.id), `${isItsOwn} AND d.expires_at > ${NOW_MS}`);
        for (const row of locked) {
          const members = wantedOf(row);
          if (members === 0) continue;
          handled.set(row, members);
          moved.set(target.id, (moved.get(target.id) ?? 0) + countMembers(members));
          replacedBy.set(row, split(row, new Map([[moveTo(target, row, now, 'redriven'), members]])));
        }
      }
      const counts = countBatch(found, chosen, wanted, handled, (row) => targetIds.has(Number(targetOf(row))));
      await finish(tx, [...replacedBy.keys()], [...replacedBy.values()].flat(), groups, job.end(counts));
    });
    job.committed();
    const going = movable.filter((row) => targetIds.has(Number(targetOf(row))));
    return {
      moved,
      skipped: countOf(found, chosen) - countOf(going, chosen),
      left: Math.max(0, countOf(going, chosen) - sum(moved.values())),
      next: wanted.next,
    };
  }

  /**
   * Settles messages of the deliveries that `lock` locks. Returns their number. After a COMMIT
   * without an answer, the repeat finds fewer deliveries of the same list. So nothing else is
   * settled, and the caller counts as left what the first try settled.
   */
  private async remove({ lock, groupsFirst, wantedOf, how, job, counts }: Removal): Promise<number> {
    let removed = 0;
    await this.database.transaction(async (tx) => {
      if (!(await job.begin(tx))) return;
      const groups = await lockGroupsOf(tx, groupsFirst);
      const locked = await lock(tx);
      const gone = new Map(locked.map((row) => [row, wantedOf(row)] as const).filter(([, members]) => members !== 0));
      removed = sumOf(gone);
      const left = [...gone].flatMap(([row, members]) => split(row, new Map([[GONE, members]])));
      const withdrawn = [...gone].map(([row, members]) => ({ ...row, members }));
      await finish(tx, [...gone.keys()], left, groups, [...withdraw(withdrawn, how), ...job.end(counts(gone))]);
    });
    job.committed();
    return removed;
  }

  /**
   * Finds the deliveries of the next `rows` after a pack that meet a condition. A stretch holds the
   * last pack whole, so it may be longer by 31 deliveries of each of its copies.
   */
  private async find(
    queueId: number,
    after: Buffer,
    rows: number,
    condition: string,
    upTo: Buffer = LAST_ID,
  ): Promise<{ found: Found[]; next: Buffer | null }> {
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
    const found = await this.database.read<Found>(
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

type Lock = (tx: Transaction) => Promise<Delivery[]>;

/** A delivery that a step has found, and the database's time. */
type Found = Delivery & { now: number };

/** Messages to settle, and how to find and lock them. */
interface Removal {
  lock: Lock;
  /** The deliveries whose groups it locks before them. */
  groupsFirst: readonly Delivery[];
  /** The messages to settle of a delivery that it has locked. */
  wantedOf: (locked: Delivery) => Members;
  /** How the messages end, for the record. */
  how: Ending;
  job: BatchOfJob;
  /** The job's counts, if these messages are gone. */
  counts: (gone: ReadonlyMap<Delivery, Members>) => BatchCounts;
}

/** The number of messages of deliveries. */
function sumOf(messages: ReadonlyMap<Delivery, Members>): number {
  return sum([...messages.values()].map(countMembers));
}

function targetGone(): RowmqError {
  return new RowmqError('queue-not-found', 'The queue to which the messages were to move was deleted.');
}

/** The key of a delivery within its queue. */
type LeaseKey = Pick<Delivery, 'packId' | 'leaseToken' | 'part'>;

/**
 * Locks deliveries under these leases, in primary-key order. It looks them up by their whole keys.
 * A search by pack alone would also lock the dead entries of keys without a token, which a nack may
 * insert again.
 */
export async function lockLeased(tx: Transaction, queueId: number, leased: readonly LeaseKey[]): Promise<Delivery[]> {
  const keys = leased
    .toSorted((one, other) => one.packId.compare(other.packId) || one.leaseToken.compare(other.leaseToken))
    .map(({ packId, leaseToken, part }) => [packId.toString('hex'), leaseToken.toString('hex'), part]);
  return tx.read<Delivery>(
    `SELECT ${DELIVERY_COLUMNS}
     FROM JSON_TABLE(?, '$[*]' COLUMNS (
       pack_id CHAR(32) PATH '$[0]',
       lease_token CHAR(16) PATH '$[1]',
       part SMALLINT UNSIGNED PATH '$[2]'
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

/** Queues to which messages may move, and the database's time. */
interface Targets {
  targets: MoveTarget[];
  now: number;
}

/**
 * Locks the rows of existing queues, shared, in id order. Returns those that the job reaches, and
 * the database's time.
 */
export async function lockTargets(
  tx: Transaction,
  queueIds: readonly number[],
  job: Pick<BatchOfJob, 'reaches'>,
): Promise<Targets> {
  return readTargets(tx, queueIds, job, 'LOCK IN SHARE MODE');
}

async function readTargets(
  session: Pick<Session, 'read'>,
  queueIds: readonly number[],
  job: Pick<BatchOfJob, 'reaches'>,
  lock = '',
): Promise<Targets> {
  if (queueIds.length === 0) return { targets: [], now: 0 };
  const rows = await session.read<MoveTarget & { name: string; now: number }>(
    `SELECT id, message_ttl_seconds AS messageTtlSeconds, name, ${NOW_MS} AS now
     FROM queue FORCE INDEX (PRIMARY)
     WHERE id IN (?)
       AND name IS NOT NULL
     ORDER BY id
     ${lock}`,
    [queueIds],
  );
  return { targets: rows.filter(({ name }) => job.reaches(name)), now: rows[0]?.now ?? 0 };
}
