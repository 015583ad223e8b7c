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
 * A split copies rows at about 3 µs each while writers wait. With more rows than this, the reaper
 * exchanges the partition for a table instead.
 */
const COPY_ROWS = 10_000;
/**
 * A rebuild copies the remaining rows while writers wait. With more rows than this, there is none.
 */
const REBUILD_ROWS = 10_000;
/**
 * Kept partitions are merged while there are more than this. MySQL allows 8,192 partitions, and a
 * few hundred already make DDL slow. A message a year ahead keeps its hour for a year.
 */
const MOST_KEPT = 48;
/** One merge copies so many rows at most, while writers wait, of so many partitions. */
const MERGE_ROWS = 10_000;
const MERGE_AT_ONCE = 24;
/**
 * Limits for the partitions dropped under one lock, and for their rows. Small partitions share a
 * lock. The first drop costs 30 ms or more. Each further partition costs 10 ms, and so does each
 * 100,000 rows.
 */
const DROP_AT_ONCE = 4;
const DROP_ROWS = 50_000;
/**
 * The drop is postponed if the check for owed messages takes longer than this. An unfinished purge,
 * for example, leaves many dead index entries to read.
 */
const SLOW_CHECK_MS = 250;
/** Moving rows back from the overflow table stops after this time. The next run continues. */
const RESTORE_MS = 5000;
/** The deadline of a DDL statement. It waits at most one second of that for locks. */
const DDL_DEADLINE_MS = 120_000;

/**
 * The partitions of the table `pack`. Ids begin with their time, so each partition covers a span of
 * time.
 *
 * DDL waits at most 1 s for the table and then fails with 1205, because a waiting ALTER blocks
 * every later writer. Each operation checks rows under the same lock under which it acts. A wrong
 * clock or a slow transaction therefore cannot cause the drop of an owed message.
 */
export class PartitionRepository {
  constructor(private readonly database: Database) {}

  /** All partitions, oldest first. */
  async list(): Promise<Partition[]> {
    return this.database.exclusive(listPartitions);
  }

  /**
   * Creates missing partitions of `widthMinutes` until `advanceMinutes` from now. Returns the
   * number of them.
   *
   * The catch-all partition fills when no reaper runs for long. Its split does not copy the rows,
   * but may produce a wider partition. It does copy if every new boundary would cut through the
   * rows, for example because one broker's clock runs far ahead.
   */
  async createMissing({
    widthMinutes,
    advanceMinutes,
  }: {
    widthMinutes: number;
    advanceMinutes: number;
  }): Promise<number> {
    return this.database.exclusive(async (session) => {
      const width = widthMinutes * MINUTE;
      const at = await readClock(session);
      const missing = (partitions: Partition[]): number[] => {
        const last = partitions.at(-2)?.until ?? 0;
        const untils: number[] = [];
        for (
          let until = (Math.floor(at / width) + 1) * width;
          until < at + advanceMinutes * MINUTE + width;
          until += width
        ) {
          if (until > last) untils.push(until);
        }
        return untils;
      };
      if (!(await restoreOverflow(session))) return 0;
      if (missing(await listPartitions(session)).length === 0) return 0;
      return withTablesLocked(session, 'pack WRITE, pack_overflow WRITE', async () => {
        const untils = missing(await listPartitions(session));
        return untils.length === 0 ? 0 : split(session, untils);
      });
    }, DDL_DEADLINE_MS);
  }

  /**
   * Drops partitions that owe nothing and whose youngest possible message is past retention.
   * Returns their names.
   *
   * It checks first without locks, then again with `pack` locked while writers wait. One
   * transaction stores a pack and its deliveries, and it ends before the lock is granted. A
   * snapshot taken after that contains every delivery, even one that is moving between queues.
   *
   * A second connection reads `delivery`. On the first, LOCK TABLES would have to lock `delivery`
   * too, in the opposite order to claims.
   *
   * @param locks The number of times that writers may wait, about 50 ms each. Unlimited by default.
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
            dropped.push(...(await withTablesLocked(session, 'pack WRITE', () => drop(session, reader, names))));
          }
          return dropped;
        }),
      DDL_DEADLINE_MS,
    );
  }

  /** Partitions past retention that still owe messages and cannot be dropped. */
  async listKept({ retentionSeconds }: { retentionSeconds: number }): Promise<Partition[]> {
    return this.database.exclusive(async (session) => {
      const kept: Partition[] = [];
      for (const partition of await pastRetention(session, retentionSeconds)) {
        if (await isOwed(session, partition, partition)) kept.push(partition);
      }
      return kept;
    });
  }

  /** Counts the deliveries that a partition still owes, up to `limit`. */
  async countOwed(partition: Partition, limit: number): Promise<number> {
    return this.database.exclusive(async (session) => {
      let owed = 0;
      for (const queues of await queueIds(session)) {
        if (owed >= limit) break;
        const [row] = await session.read<{ n: number }>(
          `SELECT COUNT(*) AS n FROM (SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id IN (?) AND pack_id >= ? AND pack_id < ? LIMIT ?) AS owed`,
          [queues, ...range(partition, partition), limit - owed],
        );
        owed += Number(row?.n ?? 0);
      }
      return owed;
    });
  }

  /**
   * Deletes the settled packs among the next `rows` of a partition after an id. Returns their
   * number and the cursor of the next call.
   *
   * One snapshot covers packs and deliveries, so it contains a delivery that moves between
   * queues. A settled pack stays settled, so the later DELETE is safe.
   */
  async thin(partition: Partition, after: Buffer, rows: number): Promise<{ deleted: number; next: Buffer | null }> {
    return this.database.exclusive(async (session) => {
      const { settled, next } = await pRetry(() => findSettled(session, partition, after, rows), {
        retries: 3,
        minTimeout: 0,
        // Another reaper changed the table's partitions after the snapshot.
        shouldRetry: ({ error }) => isDefinitionChanged(error),
      });
      if (settled.length > 0) {
        await session.write(
          `DELETE p
           FROM JSON_TABLE(?, '$[*]' COLUMNS (id CHAR(32) PATH '$')) ids
           STRAIGHT_JOIN pack p FORCE INDEX (PRIMARY)
             ON p.id = UNHEX(ids.id)`,
          [JSON.stringify(settled)],
        );
      }
      return { deleted: settled.length, next };
    });
  }

  /**
   * Merges the oldest adjacent partitions that still owe messages and hold few rows, if there are
   * many partitions past retention. Returns the names of the merged ones, or none. The last of them
   * then holds the rows of all.
   *
   * Rows only move, so it does not matter what becomes of their messages meanwhile.
   */
  async mergeKept({ retentionSeconds }: { retentionSeconds: number }): Promise<string[]> {
    return this.database.exclusive(async (session) => {
      const kept = await pastRetention(session, retentionSeconds);
      if (kept.length <= MOST_KEPT) return [];
      const run = await smallRun(session, kept);
      const last = run.at(-1);
      if (last === undefined || run.length < 2) return [];
      const names = run.map(({ name }) => name);
      await withTablesLocked(session, 'pack WRITE', () =>
        session.write(
          `ALTER TABLE pack REORGANIZE PARTITION ${names.join(', ')} INTO (${definePartition(last.until as number)})`,
        ),
      );
      return names;
    }, DDL_DEADLINE_MS);
  }

  /**
   * Returns a thinned partition's free space to the file system. Does so only if few rows remain,
   * because writers wait for the copy. Returns false if it did nothing, for example because the
   * partition is gone.
   */
  async rebuild({ name }: Partition): Promise<boolean> {
    return this.database
      .exclusive(async (session) => {
        const [row] = await session.read<{ n: number }>(
          `SELECT COUNT(*) AS n FROM (SELECT 1 FROM pack PARTITION (${name}) LIMIT ?) AS counted`,
          [REBUILD_ROWS + 1],
        );
        if (Number(row?.n) > REBUILD_ROWS) return false;
        // Without this lock MariaDB waits for the table twice.
        await withTablesLocked(session, 'pack WRITE', () =>
          session.write(`ALTER TABLE pack REBUILD PARTITION ${name}`),
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
 * Names of partitions past retention that owe nothing now, in runs of adjacent partitions. Returns
 * at most `most` runs.
 */
async function settledRuns(session: Session, retentionSeconds: number, most: number): Promise<string[][]> {
  const runs: string[][] = [];
  let previous: Partition | undefined;
  let rows = 0;
  for (const partition of await pastRetention(session, retentionSeconds)) {
    const started = performance.now();
    if (await isOwed(session, partition, partition)) continue;
    // The check will run again while writers wait.
    if (performance.now() - started > SLOW_CHECK_MS) continue;
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

/** The first two or more adjacent partitions that together hold few rows. */
async function smallRun(session: Session, partitions: readonly Partition[]): Promise<Partition[]> {
  let run: Partition[] = [];
  let rows = 0;
  for (const partition of partitions) {
    const [counted] = await session.read<{ n: number }>(
      `SELECT COUNT(*) AS n FROM (SELECT 1 FROM pack PARTITION (${partition.name}) LIMIT ?) AS counted`,
      [MERGE_ROWS + 1],
    );
    rows += Number(counted?.n);
    if (rows <= MERGE_ROWS && run.length < MERGE_AT_ONCE) {
      run.push(partition);
      continue;
    }
    if (run.length > 1) return run;
    run = [partition];
    rows = Number(counted?.n);
  }
  return run;
}

/**
 * Drops these partitions, as far as they exist, if the whole range owes nothing. The caller holds
 * the lock on `pack` in `session`.
 */
async function drop(session: Session, reader: Session, names: readonly string[]): Promise<string[]> {
  // This must be a fresh read: when a partition is dropped, its successor takes over its range of
  // ids.
  const present = (await listPartitions(session)).filter(({ name }) => names.includes(name));
  const [first, last] = [present[0], present.at(-1)];
  if (first === undefined || last === undefined) return [];
  await startSnapshot(reader);
  const owed = await isOwed(reader, first, last);
  await reader.write('COMMIT');
  if (owed) return [];
  const list = present.map(({ name }) => name);
  await session.write(`ALTER TABLE pack DROP PARTITION ${list.join(', ')}`);
  return list;
}

/**
 * Finds the settled packs among the next `rows` after an id. Returns their ids in hexadecimal,
 * and the cursor of the next call.
 */
async function findSettled(
  session: Session,
  partition: Partition,
  after: Buffer,
  rows: number,
): Promise<{ settled: string[]; next: Buffer | null }> {
  await startSnapshot(session);
  const [, until] = range(partition, partition);
  const packs = await session.read<{ id: Buffer }>(
    'SELECT id FROM pack FORCE INDEX (PRIMARY) WHERE id > ? AND id < ? ORDER BY id LIMIT ?',
    [after, until, rows],
  );
  const [first, last] = [packs[0]?.id, packs.at(-1)?.id];
  const owed = new Set<string>();
  for (const queues of last === undefined ? [] : await queueIds(session)) {
    const deliveries = await session.read<{ packId: Buffer }>(
      'SELECT DISTINCT pack_id AS packId FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id IN (?) AND pack_id >= ? AND pack_id <= ?',
      [queues, first, last],
    );
    for (const { packId } of deliveries) owed.add(packId.toString('hex'));
  }
  await session.write('COMMIT');
  return {
    settled: packs.map(({ id }) => id.toString('hex')).filter((id) => !owed.has(id)),
    next: last === undefined || packs.length < rows ? null : last,
  };
}

/**
 * Splits the catch-all partition at these instants. If it holds many rows, it leaves out the
 * instants that would cut through them. The caller holds the table's lock. Returns the number of
 * splits.
 */
async function split(session: Session, untils: readonly number[]): Promise<number> {
  const [many] = await session.read('SELECT 1 FROM pack PARTITION (p_max) LIMIT ?, 1', [COPY_ROWS]);
  const reorganize = (at: readonly number[]): Promise<unknown> =>
    session.write(
      `ALTER TABLE pack REORGANIZE PARTITION p_max INTO (${at.map(definePartition).join(', ')}, PARTITION p_max VALUES LESS THAN (MAXVALUE))`,
    );
  const [lowest, highest] = many === undefined ? [0, 0] : await timesInCatchAll(session);
  const uncut = untils.filter((until) => until <= lowest || until > highest);
  if (many === undefined || uncut.length === 0) {
    await reorganize(untils);
    return untils.length;
  }
  const target = uncut.find((until) => until > highest);
  await session.write('ALTER TABLE pack EXCHANGE PARTITION p_max WITH TABLE pack_overflow');
  await reorganize(uncut);
  // MariaDB before 11.4 lacks WITHOUT VALIDATION and reads the rows again.
  await session.write(
    `ALTER TABLE pack EXCHANGE PARTITION ${target === undefined ? 'p_max' : partitionName(target)} WITH TABLE pack_overflow /*!80000 WITHOUT VALIDATION */`,
  );
  return uncut.length;
}

/** The times of the first and last message in the catch-all partition. */
async function timesInCatchAll(session: Session): Promise<[number, number]> {
  const [first] = await session.read<{ id: Buffer }>('SELECT id FROM pack PARTITION (p_max) ORDER BY id LIMIT 1');
  const [last] = await session.read<{ id: Buffer }>('SELECT id FROM pack PARTITION (p_max) ORDER BY id DESC LIMIT 1');
  return [first === undefined ? 0 : messageIdTime(first.id), last === undefined ? 0 : messageIdTime(last.id)];
}

/**
 * Moves rows from the overflow table back into `pack`, a few at a time. An interrupted split
 * leaves them there, and claims read them from there meanwhile. Returns whether the table is empty.
 */
async function restoreOverflow(session: Session): Promise<boolean> {
  for (const until = performance.now() + RESTORE_MS; performance.now() < until;) {
    const rows = await session.read<{ id: Buffer }>('SELECT id FROM pack_overflow ORDER BY id LIMIT 500');
    const last = rows.at(-1);
    if (last === undefined) return true;
    await session.write('START TRANSACTION');
    await session.write('INSERT IGNORE INTO pack SELECT * FROM pack_overflow WHERE id <= ?', [last.id]);
    await session.write('DELETE FROM pack_overflow WHERE id <= ?', [last.id]);
    await session.write('COMMIT');
  }
  return false;
}
