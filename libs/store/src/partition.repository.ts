import { lowestMessageId } from '@rowmq/contract';
import { clock } from './clock.js';
import { isUnknownPartition } from './database-errors.js';
import type { Database, Session } from './database.js';
import type { Timed } from './message.repository.js';

/** A span of the message table. */
export interface Partition {
  name: string;
  /** Ids stamped from this instant on (ms since 1970); null: from the beginning. */
  from: number | null;
  /** Ids stamped before this instant; null: without end, the one that catches what no other takes. */
  until: number | null;
  /** The server's estimate. */
  rows: number;
}

const MINUTE = 60_000;
/** Splitting copies rows, some 3 µs each, while writers wait; above this many the rows are swapped out and in instead. */
const COPY_ROWS = 10_000;
/** A rebuild copies what is left, while writers wait. */
const REBUILD_ROWS = 10_000;
/** Partitions dropped under one lock, and their rows: some 30 ms for the first, 10 ms for each further one and for each 100,000 rows. */
const DROP_AT_ONCE = 4;
const DROP_ROWS = 200_000;
/** Queues whose deliveries one statement looks through. */
const QUEUES_AT_ONCE = 200;
/** Taking rows back from the overflow table ends after this long, and goes on in the next run. */
const RESTORE_MS = 5000;
/** DDL may take as long as this; waiting for its locks may take a second. */
const DDL_DEADLINE_MS = 120_000;

/**
 * The message table's partitions, which are spans of time because ids are.
 *
 * DDL waits at most a second for the table and then fails with 1205: a waiting ALTER blocks every writer behind it. Whatever decides over rows decides under the lock
 * under which it acts, so brokers with wrong clocks or slow transactions cannot have a message dropped that is still owed.
 */
export class PartitionRepository {
  constructor(private readonly database: Database) {}

  /** Every partition, oldest first. */
  async list(): Promise<Partition[]> {
    return this.database.exclusive(listPartitions);
  }

  /**
   * Sees to it that there are partitions of `widthMinutes` until `aheadMinutes` from now. Returns how many it made. The split of a catch-all partition that has filled (no
   * reaper ran for long) does not copy its rows unless a broker's clock ran ahead.
   */
  async createAhead({
    widthMinutes,
    aheadMinutes,
    now,
  }: { widthMinutes: number; aheadMinutes: number } & Timed): Promise<number> {
    return this.database.exclusive(async (session) => {
      const width = widthMinutes * MINUTE;
      const at = await readClock(session, now);
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
        if (untils.length > 0) await split(session, untils, at);
        return untils.length;
      });
    }, DDL_DEADLINE_MS);
  }

  /**
   * Drops partitions in which nothing is owed and whose youngest possible message is older than the retention. Returns their names.
   *
   * That nothing is owed is found out without locks, and then once more with `message` locked: a message and its delivery are stored in one transaction, which has ended before
   * the lock is given, and a snapshot taken after that sees every delivery, also one that is just being moved between queues. Writers wait meanwhile. `delivery` is read
   * on a second connection because LOCK TABLES would have it locked too, in the opposite order of claims.
   * @param locks how often writers may be made to wait, for 50 ms or so; no limit when absent
   */
  async dropSettled({
    retentionSeconds,
    locks = Infinity,
    now,
  }: { retentionSeconds: number; locks?: number } & Timed): Promise<string[]> {
    return this.database.exclusive(
      (session) =>
        this.database.exclusive(async (reader) => {
          const dropped: string[] = [];
          for (const names of await settledRuns(session, retentionSeconds, locks, now)) {
            dropped.push(...(await withTablesLocked(session, 'message WRITE', () => drop(session, reader, names))));
          }
          return dropped;
        }),
      DDL_DEADLINE_MS,
    );
  }

  /** Partitions past retention in which something is owed, so that they cannot be dropped. */
  async listKept({ retentionSeconds, now }: { retentionSeconds: number } & Timed): Promise<Partition[]> {
    return this.database.exclusive(async (session) => {
      const kept: Partition[] = [];
      for (const partition of await pastRetention(session, retentionSeconds, now)) {
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
   * Deletes the settled ones among the next `rows` messages of a partition after an id. Returns how many, and where to go on.
   *
   * Messages and deliveries are read in one snapshot: a delivery that moves between queues meanwhile is seen in one of them. Settled is final, so deleting afterwards is safe.
   */
  async thin(partition: Partition, after: Buffer, rows: number): Promise<{ deleted: number; next: Buffer | null }> {
    return this.database.exclusive(async (session) => {
      await startSnapshot(session);
      const [, until] = range(partition, partition);
      const messages = await session.read<{ id: Buffer }>(
        'SELECT id FROM message FORCE INDEX (PRIMARY) WHERE id > ? AND id < ? ORDER BY id LIMIT ?',
        [after, until, rows],
      );
      const [first, last] = [messages[0]?.id, messages.at(-1)?.id];
      if (first === undefined || last === undefined) return { deleted: 0, next: null };
      const owed = new Set<string>();
      for (const queues of await queueIds(session)) {
        const deliveries = await session.read<{ messageId: Buffer }>(
          'SELECT message_id AS messageId FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id IN (?) AND message_id >= ? AND message_id <= ?',
          [queues, first, last],
        );
        for (const { messageId } of deliveries) owed.add(messageId.toString('hex'));
      }
      await session.write('COMMIT');
      const settled = messages.map(({ id }) => id.toString('hex')).filter((id) => !owed.has(id));
      if (settled.length > 0) {
        await session.write(
          `DELETE m
           FROM JSON_TABLE(?, '$[*]' COLUMNS (id CHAR(32) PATH '$')) ids
           STRAIGHT_JOIN message m FORCE INDEX (PRIMARY)
             ON m.id = UNHEX(ids.id)`,
          [JSON.stringify(settled)],
        );
      }
      return { deleted: settled.length, next: messages.length < rows ? null : last };
    });
  }

  /**
   * Gives the space of a thinned partition back to the file system, if what is left is little enough to be copied while writers wait. Returns whether it did; it does not for a
   * partition that is gone.
   */
  async rebuild({ name }: Partition): Promise<boolean> {
    return this.database
      .exclusive(async (session) => {
        const [row] = await session.read<{ n: number }>(
          `SELECT COUNT(*) AS n FROM (SELECT 1 FROM message PARTITION (${name}) LIMIT ?) AS head`,
          [REBUILD_ROWS + 1],
        );
        if (Number(row?.n) > REBUILD_ROWS) return false;
        await session.write(DDL_SESSION);
        await session.write(`ALTER TABLE message REBUILD PARTITION ${name}`);
        return true;
      }, DDL_DEADLINE_MS)
      .catch((error: unknown) => {
        if (isUnknownPartition(error)) return false;
        throw error;
      });
  }
}

/** A waiting DDL blocks everybody behind it: a second, then it gives way. Fresh row estimates, which MySQL (not MariaDB) keeps for a day. */
const DDL_SESSION = 'SET SESSION lock_wait_timeout = 1 /*!80000 , information_schema_stats_expiry = 0 */';

async function withTablesLocked<T>(session: Session, tables: string, work: () => Promise<T>): Promise<T> {
  await session.write(DDL_SESSION);
  await session.write(`LOCK TABLES ${tables}`);
  try {
    return await work();
  } finally {
    // Should this fail, the connection is broken, which ends the lock as well.
    await session.write('UNLOCK TABLES').catch(() => undefined);
  }
}

async function readClock(session: Session, now: number | undefined): Promise<number> {
  const [row] = await session.read<{ now: number }>(`SELECT ${clock(now)} AS now`);
  return Number(row?.now);
}

async function listPartitions(session: Session): Promise<Partition[]> {
  await session.write(DDL_SESSION);
  const rows = await session.read<{ name: string; description: string; rows_: number }>(
    `SELECT PARTITION_NAME AS name, PARTITION_DESCRIPTION AS description, TABLE_ROWS AS rows_
     FROM information_schema.PARTITIONS
     WHERE TABLE_SCHEMA = DATABASE()
       AND TABLE_NAME = 'message'
     ORDER BY PARTITION_ORDINAL_POSITION`,
  );
  let from: number | null = null;
  return rows.map(({ name, description, rows_ }) => {
    // Both servers describe a bound of binary(16) as `_binary 0x…`; its first six bytes are the time.
    const hex = /0x([0-9a-f]{12})/i.exec(description)?.[1];
    const partition = { name, from, until: hex === undefined ? null : Number.parseInt(hex, 16), rows: Number(rows_) };
    from = partition.until;
    return partition;
  });
}

async function pastRetention(
  session: Session,
  retentionSeconds: number,
  now: number | undefined,
): Promise<Partition[]> {
  const horizon = (await readClock(session, now)) - retentionSeconds * 1000;
  return (await listPartitions(session)).filter(({ until }) => until !== null && until <= horizon);
}

/** The ids from one partition's first to another's last, the second excluded. Neither is the catch-all. */
function range(first: Partition, last: Partition): [Buffer, Buffer] {
  if (last.until === null) throw new TypeError('the catch-all partition has no end');
  return [lowestMessageId(first.from ?? 0), lowestMessageId(last.until)];
}

/** Every queue's id, the deleted ones' included, as many at a time as one statement looks through. */
async function queueIds(session: Session): Promise<number[][]> {
  const ids = (await session.read<{ id: number }>('SELECT id FROM queue ORDER BY id')).map(({ id }) => id);
  return Array.from({ length: Math.ceil(ids.length / QUEUES_AT_ONCE) }, (_, chunk) =>
    ids.slice(chunk * QUEUES_AT_ONCE, (chunk + 1) * QUEUES_AT_ONCE),
  );
}

/** Does any queue, a deleted one included, still owe a message of these partitions? One index look-up a queue. */
async function isOwed(session: Session, first: Partition, last: Partition): Promise<boolean> {
  for (const queues of await queueIds(session)) {
    const [owed] = await session.read(
      'SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id IN (?) AND message_id >= ? AND message_id < ? LIMIT 1',
      [queues, ...range(first, last)],
    );
    if (owed !== undefined) return true;
  }
  return false;
}

/** From here on the session sees one state of all tables, until its next COMMIT. */
async function startSnapshot(session: Session): Promise<void> {
  await session.write('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
  await session.write('START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY');
}

/** Names of partitions past retention in which, as of now, nothing is owed: the first so many runs of neighbours. */
async function settledRuns(
  session: Session,
  retentionSeconds: number,
  most: number,
  now: number | undefined,
): Promise<string[][]> {
  const runs: string[][] = [];
  let previous: Partition | undefined;
  let rows = 0;
  for (const partition of await pastRetention(session, retentionSeconds, now)) {
    if (await isOwed(session, partition, partition)) continue;
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

/** Drops those of these partitions that are still there, if nothing between the first and the last is owed. `message` is locked by `session`. */
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

/** Splits the catch-all partition at these instants. The table is locked. */
async function split(session: Session, untils: readonly number[], now: number): Promise<void> {
  const [highest] = await session.read<{ id: Buffer }>(
    'SELECT id FROM message PARTITION (p_max) ORDER BY id DESC LIMIT 1',
  );
  const [many] = await session.read('SELECT 1 FROM message PARTITION (p_max) LIMIT ?, 1', [COPY_ROWS]);
  const definition = `REORGANIZE PARTITION p_max INTO (${untils.map(definePartition).join(', ')}, PARTITION p_max VALUES LESS THAN (MAXVALUE))`;
  const first = untils[0] as number;
  const allFitFirst = highest !== undefined && highest.id.readUIntBE(0, 6) < first;
  if (many === undefined || !allFitFirst || now > first) {
    await session.write(`ALTER TABLE message ${definition}`);
    return;
  }
  await session.write('ALTER TABLE message EXCHANGE PARTITION p_max WITH TABLE message_overflow');
  await session.write(`ALTER TABLE message ${definition}`);
  // MariaDB before 11.4 does not know WITHOUT VALIDATION, and reads the rows once more.
  await session.write(
    `ALTER TABLE message EXCHANGE PARTITION ${partitionName(first)} WITH TABLE message_overflow /*!80000 WITHOUT VALIDATION */`,
  );
}

/**
 * Takes back, a few at a time, the rows that a split left behind when it was cut short between its three steps. Until then claims read them where they are.
 * Returns whether none is left.
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

function partitionName(until: number): string {
  const [date, time] = new Date(until).toISOString().split('T') as [string, string];
  return `p_${date.replaceAll('-', '')}_${time.slice(0, 5).replace(':', '')}`;
}

function definePartition(until: number): string {
  return `PARTITION ${partitionName(until)} VALUES LESS THAN (x'${lowestMessageId(until).toString('hex')}')`;
}
