import { messageIdTime } from '@rowmq/contract';
import pRetry from 'p-retry';
import { isDefinitionChanged, isUnknownPartition } from '../database/database-errors.js';
import type { Database } from '../database/database.js';
import type { Session } from '../database/session.js';
import {
  definePartition,
  isOwed,
  listPartitions,
  type Partition,
  partitionName,
  pastRetention,
  queueIds,
  range,
  readClock,
  startSnapshot,
  withTablesLocked,
} from './partition.sql.js';

export type { Partition };

const MINUTE = 60_000;
/**
 * Splitting copies rows, some 3 µs each, while writers wait; above this many the rows are swapped
 * out and in instead.
 */
const COPY_ROWS = 10_000;
/** A rebuild copies what is left, while writers wait. */
const REBUILD_ROWS = 10_000;
/**
 * Partitions dropped under one lock, and their rows: small ones go together, since the first costs
 * 30 ms or more and each further one, and each 100,000 rows, 10 ms.
 */
const DROP_AT_ONCE = 4;
const DROP_ROWS = 50_000;
/**
 * A look at what is owed that takes longer (a stalled purge leaves many dead entries to walk over)
 * puts the drop off.
 */
const SLOW_LOOK_MS = 250;
/** Taking rows back from the overflow table ends after this long, and goes on in the next run. */
const RESTORE_MS = 5000;
/** DDL may take as long as this; waiting for its locks may take a second. */
const DDL_DEADLINE_MS = 120_000;

/**
 * The message table's partitions, which are spans of time because ids are.
 *
 * DDL waits at most a second for the table and then fails with 1205: a waiting ALTER blocks every
 * writer behind it. Whatever decides over rows decides under the lock under which it acts, so
 * brokers with wrong clocks or slow transactions cannot have a message dropped that is still owed.
 */
export class PartitionRepository {
  constructor(private readonly database: Database) {}

  /** Every partition, oldest first. */
  async list(): Promise<Partition[]> {
    return this.database.exclusive(listPartitions);
  }

  /**
   * Sees to it that there are partitions of `widthMinutes` until `aheadMinutes` from now. Returns
   * how many it made. The split of a catch-all partition that has filled (no reaper ran for long)
   * does not copy its rows; a partition may become wider for that. It does where only some of them
   * are from a clock that is further ahead than the partitions.
   */
  async createAhead({ widthMinutes, aheadMinutes }: { widthMinutes: number; aheadMinutes: number }): Promise<number> {
    return this.database.exclusive(async (session) => {
      const width = widthMinutes * MINUTE;
      const at = await readClock(session);
      const missing = (partitions: Partition[]): number[] => {
        const last = partitions.at(-2)?.until ?? 0;
        const untils: number[] = [];
        for (
          let until = (Math.floor(at / width) + 1) * width;
          until < at + aheadMinutes * MINUTE + width;
          until += width
        ) {
          if (until > last) untils.push(until);
        }
        return untils;
      };
      if (!(await restoreOverflow(session))) return 0;
      if (missing(await listPartitions(session)).length === 0) return 0;
      return withTablesLocked(session, 'message WRITE, message_overflow WRITE', async () => {
        const untils = missing(await listPartitions(session));
        return untils.length === 0 ? 0 : split(session, untils);
      });
    }, DDL_DEADLINE_MS);
  }

  /**
   * Drops partitions in which nothing is owed and whose youngest possible message is older than the
   * retention. Returns their names.
   *
   * That nothing is owed is found out without locks, and then once more with `message` locked: a
   * message and its delivery are stored in one transaction, which has ended before the lock is
   * given, and a snapshot taken after that sees every delivery, also one that is just being moved
   * between queues. Writers wait meanwhile. `delivery` is read on a second connection because LOCK
   * TABLES would have it locked too, in the opposite order of claims.
   * @param locks how often writers may be made to wait, for 50 ms or so; no limit when absent
   */
  async dropSettled({
    retentionSeconds,
    locks = Infinity,
  }: {
    retentionSeconds: number;
    locks?: number;
  }): Promise<string[]> {
    return this.database.exclusive(
      (session) =>
        this.database.exclusive(async (reader) => {
          const dropped: string[] = [];
          for (const names of await settledRuns(session, retentionSeconds, locks)) {
            dropped.push(...(await withTablesLocked(session, 'message WRITE', () => drop(session, reader, names))));
          }
          return dropped;
        }),
      DDL_DEADLINE_MS,
    );
  }

  /** Partitions past retention in which something is owed, so that they cannot be dropped. */
  async listKept({ retentionSeconds }: { retentionSeconds: number }): Promise<Partition[]> {
    return this.database.exclusive(async (session) => {
      const kept: Partition[] = [];
      for (const partition of await pastRetention(session, retentionSeconds)) {
        if (await isOwed(session, partition, partition)) kept.push(partition);
      }
      return kept;
    });
  }

  /** How many deliveries are owed from a partition; counts no further than `limit`. */
  async countOwed(partition: Partition, limit: number): Promise<number> {
    return this.database.exclusive(async (session) => {
      let owed = 0;
      for (const queues of await queueIds(session)) {
        if (owed >= limit) break;
        const [row] = await session.read<{ n: number }>(
          `SELECT COUNT(*) AS n FROM (SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id IN (?) AND message_id >= ? AND message_id < ? LIMIT ?) AS owed`,
          [queues, ...range(partition, partition), limit - owed],
        );
        owed += Number(row?.n ?? 0);
      }
      return owed;
    });
  }

  /**
   * Deletes the settled ones among the next `rows` messages of a partition after an id. Returns how
   * many, and where to go on.
   *
   * Messages and deliveries are read in one snapshot: a delivery that moves between queues
   * meanwhile is seen in one of them. Settled is final, so deleting afterwards is safe.
   */
  async thin(partition: Partition, after: Buffer, rows: number): Promise<{ deleted: number; next: Buffer | null }> {
    return this.database.exclusive(async (session) => {
      const { settled, next } = await pRetry(() => findSettled(session, partition, after, rows), {
        retries: 3,
        minTimeout: 0,
        // Another reaper changed the table's partitions after the snapshot was taken.
        shouldRetry: ({ error }) => isDefinitionChanged(error),
      });
      if (settled.length > 0) {
        await session.write(
          `DELETE m
           FROM JSON_TABLE(?, '$[*]' COLUMNS (id CHAR(32) PATH '$')) ids
           STRAIGHT_JOIN message m FORCE INDEX (PRIMARY)
             ON m.id = UNHEX(ids.id)`,
          [JSON.stringify(settled)],
        );
      }
      return { deleted: settled.length, next };
    });
  }

  /**
   * Gives the space of a thinned partition back to the file system, if what is left is little
   * enough to be copied while writers wait. Returns whether it did; it does not for a partition
   * that is gone.
   */
  async rebuild({ name }: Partition): Promise<boolean> {
    return this.database
      .exclusive(async (session) => {
        const [row] = await session.read<{ n: number }>(
          `SELECT COUNT(*) AS n FROM (SELECT 1 FROM message PARTITION (${name}) LIMIT ?) AS head`,
          [REBUILD_ROWS + 1],
        );
        if (Number(row?.n) > REBUILD_ROWS) return false;
        // Without the lock MariaDB waits for the table twice.
        await withTablesLocked(session, 'message WRITE', () =>
          session.write(`ALTER TABLE message REBUILD PARTITION ${name}`),
        );
        return true;
      }, DDL_DEADLINE_MS)
      .catch((error: unknown) => {
        if (isUnknownPartition(error)) return false;
        throw error;
      });
  }
}

/**
 * Names of partitions past retention in which, as of now, nothing is owed: the first so many runs
 * of neighbours.
 */
async function settledRuns(session: Session, retentionSeconds: number, most: number): Promise<string[][]> {
  const runs: string[][] = [];
  let previous: Partition | undefined;
  let rows = 0;
  for (const partition of await pastRetention(session, retentionSeconds)) {
    const started = performance.now();
    if (await isOwed(session, partition, partition)) continue;
    // It will be asked again while writers wait.
    if (performance.now() - started > SLOW_LOOK_MS) continue;
    rows += partition.rows;
    const run = runs.at(-1);
    if (run !== undefined && previous?.until === partition.from && run.length < DROP_AT_ONCE && rows <= DROP_ROWS) {
      run.push(partition.name);
    } else {
      if (runs.length >= most) break;
      runs.push([partition.name]);
      rows = partition.rows;
    }
    previous = partition;
  }
  return runs;
}

/**
 * Drops those of these partitions that are still there, if nothing between the first and the last
 * is owed. `message` is locked by `session`.
 */
async function drop(session: Session, reader: Session, names: readonly string[]): Promise<string[]> {
  // Read afresh: where a neighbour was dropped meanwhile, a partition takes that one's ids as well.
  const present = (await listPartitions(session)).filter(({ name }) => names.includes(name));
  const [first, last] = [present[0], present.at(-1)];
  if (first === undefined || last === undefined) return [];
  await startSnapshot(reader);
  const owed = await isOwed(reader, first, last);
  await reader.write('COMMIT');
  if (owed) return [];
  const list = present.map(({ name }) => name);
  await session.write(`ALTER TABLE message DROP PARTITION ${list.join(', ')}`);
  return list;
}

/**
 * Which of the next `rows` messages after an id nothing is owed of, in hexadecimal, and where to go
 * on.
 */
async function findSettled(
  session: Session,
  partition: Partition,
  after: Buffer,
  rows: number,
): Promise<{ settled: string[]; next: Buffer | null }> {
  await startSnapshot(session);
  const [, until] = range(partition, partition);
  const messages = await session.read<{ id: Buffer }>(
    'SELECT id FROM message FORCE INDEX (PRIMARY) WHERE id > ? AND id < ? ORDER BY id LIMIT ?',
    [after, until, rows],
  );
  const [first, last] = [messages[0]?.id, messages.at(-1)?.id];
  const owed = new Set<string>();
  for (const queues of last === undefined ? [] : await queueIds(session)) {
    const deliveries = await session.read<{ messageId: Buffer }>(
      'SELECT message_id AS messageId FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id IN (?) AND message_id >= ? AND message_id <= ?',
      [queues, first, last],
    );
    for (const { messageId } of deliveries) owed.add(messageId.toString('hex'));
  }
  await session.write('COMMIT');
  return {
    settled: messages.map(({ id }) => id.toString('hex')).filter((id) => !owed.has(id)),
    next: last === undefined || messages.length < rows ? null : last,
  };
}

/**
 * Splits the catch-all partition at these instants, or, where it has many rows, at those of them
 * that do not cut through them. The table is locked. Returns at how many.
 */
async function split(session: Session, untils: readonly number[]): Promise<number> {
  const [many] = await session.read('SELECT 1 FROM message PARTITION (p_max) LIMIT ?, 1', [COPY_ROWS]);
  const reorganize = (at: readonly number[]): Promise<unknown> =>
    session.write(
      `ALTER TABLE message REORGANIZE PARTITION p_max INTO (${at.map(definePartition).join(', ')}, PARTITION p_max VALUES LESS THAN (MAXVALUE))`,
    );
  const [lowest, highest] = many === undefined ? [0, 0] : await timesInCatchAll(session);
  const uncut = untils.filter((until) => until <= lowest || until > highest);
  if (many === undefined || uncut.length === 0) {
    await reorganize(untils);
    return untils.length;
  }
  const target = uncut.find((until) => until > highest);
  await session.write('ALTER TABLE message EXCHANGE PARTITION p_max WITH TABLE message_overflow');
  await reorganize(uncut);
  // MariaDB before 11.4 does not know WITHOUT VALIDATION, and reads the rows once more.
  await session.write(
    `ALTER TABLE message EXCHANGE PARTITION ${target === undefined ? 'p_max' : partitionName(target)} WITH TABLE message_overflow /*!80000 WITHOUT VALIDATION */`,
  );
  return uncut.length;
}

/** When the first and the last message of the catch-all partition were stamped. */
async function timesInCatchAll(session: Session): Promise<[number, number]> {
  const [first] = await session.read<{ id: Buffer }>('SELECT id FROM message PARTITION (p_max) ORDER BY id LIMIT 1');
  const [last] = await session.read<{ id: Buffer }>(
    'SELECT id FROM message PARTITION (p_max) ORDER BY id DESC LIMIT 1',
  );
  return [first === undefined ? 0 : messageIdTime(first.id), last === undefined ? 0 : messageIdTime(last.id)];
}

/**
 * Takes back, a few at a time, the rows that a split left behind when it was cut short between its
 * three steps. Until then claims read them where they are. Returns whether none is left.
 */
async function restoreOverflow(session: Session): Promise<boolean> {
  for (const until = performance.now() + RESTORE_MS; performance.now() < until;) {
    const rows = await session.read<{ id: Buffer }>('SELECT id FROM message_overflow ORDER BY id LIMIT 500');
    const last = rows.at(-1);
    if (last === undefined) return true;
    await session.write('START TRANSACTION');
    await session.write('INSERT IGNORE INTO message SELECT * FROM message_overflow WHERE id <= ?', [last.id]);
    await session.write('DELETE FROM message_overflow WHERE id <= ?', [last.id]);
    await session.write('COMMIT');
  }
  return false;
}
