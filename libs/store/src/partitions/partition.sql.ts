import { lowestMessageId } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import { isConnectionLost } from '../database/database-errors.js';
import type { Session } from '../database/session.js';
import { type Members, union } from '../messages/members.js';

/** A partition of the table `pack`: a span of time. */
export interface Partition {
  name: string;
  /** The first id's time, in ms since 1970. Null means no lower bound. */
  from: number | null;
  /** Ids are older than this time, in ms since 1970. Null means the catch-all partition. */
  until: number | null;
  /** The server's estimate. */
  rows: number;
}

/** The number of queues whose deliveries one statement reads. */
const QUEUES_AT_ONCE = 200;

/**
 * A waiting DDL statement blocks all later requests, so it gives up after a second.
 *
 * If a lock's holder freezes or dies, the server ends its session after 10 s. Later DDL of that
 * holder then fails.
 */
const DDL_SESSION = 'SET SESSION lock_wait_timeout = 1, wait_timeout = 10';

export async function withTablesLocked<T>(session: Session, tables: string, work: () => Promise<T>): Promise<T> {
  await session.write(DDL_SESSION);
  await session.write(`LOCK TABLES ${tables}`);
  try {
    const result = await work();
    await session.write('UNLOCK TABLES');
    return result;
  } catch (error) {
    // On a connection that hangs, UNLOCK would wait too. The caller closes the connection, which
    // also releases the lock.
    if (!isConnectionLost(error)) await session.write('UNLOCK TABLES');
    throw error;
  }
}

export async function readClock(session: Session): Promise<number> {
  const [row] = await session.read<{ now: number }>(`SELECT ${NOW_MS} AS now`);
  return Number(row?.now);
}

export async function listPartitions(session: Session): Promise<Partition[]> {
  await session.write(DDL_SESSION);
  const rows = await session.read<{ name: string; description: string; rows_: number }>(
    `SELECT PARTITION_NAME AS name, PARTITION_DESCRIPTION AS description, TABLE_ROWS AS rows_
     FROM information_schema.PARTITIONS
     WHERE TABLE_SCHEMA = DATABASE()
       AND TABLE_NAME = 'pack'
     ORDER BY PARTITION_ORDINAL_POSITION`,
  );
  let from: number | null = null;
  return rows.map(({ name, description, rows_ }) => {
    // Both servers describe a bound of binary(16) as `_binary 0x…`. Its first six bytes are the
    // time.
    const hex = /0x([0-9a-f]{12})/i.exec(description)?.[1];
    const partition = { name, from, until: hex === undefined ? null : Number.parseInt(hex, 16), rows: Number(rows_) };
    from = partition.until;
    return partition;
  });
}

export async function pastRetention(session: Session, retentionSeconds: number): Promise<Partition[]> {
  const horizon = (await readClock(session)) - retentionSeconds * 1000;
  return (await listPartitions(session)).filter(({ until }) => until !== null && until <= horizon);
}

/**
 * The range of ids from the first partition to the last; the upper bound is exclusive. Neither may
 * be the catch-all partition.
 */
export function range(first: Partition, last: Partition): [Buffer, Buffer] {
  if (last.until === null) throw new TypeError('the catch-all partition has no end');
  return [lowestMessageId(first.from ?? 0), lowestMessageId(last.until)];
}

/** The ids of all queues, including deleted ones, in groups for one statement each. */
export async function queueIds(session: Session): Promise<number[][]> {
  const ids = (await session.read<{ id: number }>('SELECT id FROM queue ORDER BY id')).map(({ id }) => id);
  return Array.from({ length: Math.ceil(ids.length / QUEUES_AT_ONCE) }, (_, chunk) =>
    ids.slice(chunk * QUEUES_AT_ONCE, (chunk + 1) * QUEUES_AT_ONCE),
  );
}

/**
 * Checks whether any queue, even a deleted one, still owes a message of these partitions. It costs
 * one index lookup for each queue.
 */
export async function isOwed(session: Session, first: Partition, last: Partition): Promise<boolean> {
  for (const queues of await queueIds(session)) {
    const [owed] = await session.read(
      'SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id IN (?) AND pack_id >= ? AND pack_id < ? LIMIT 1',
      [queues, ...range(first, last)],
    );
    if (owed !== undefined) return true;
  }
  return false;
}

/**
 * The messages that queues, even deleted ones, still owe of the packs from one id to another, both
 * included. The keys are the packs' ids in hexadecimal.
 *
 * @param origin counts only deliveries that began in this queue
 */
export async function owedMembers(
  session: Session,
  first: Buffer,
  last: Buffer,
  origin?: number,
): Promise<Map<string, Members>> {
  const condition = origin === undefined ? '' : `AND COALESCE(source_queue_id, queue_id) = ${origin}`;
  const owed = new Map<string, Members>();
  for (const queues of await queueIds(session)) {
    const rows = await session.read<{ packId: Buffer; members: number }>(
      `SELECT pack_id AS packId, BIT_OR(members) AS members FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id IN (?) AND pack_id >= ? AND pack_id <= ? ${condition} GROUP BY pack_id`,
      [queues, first, last],
    );
    for (const { packId, members } of rows) {
      const id = packId.toString('hex');
      owed.set(id, union(owed.get(id) ?? 0, Number(members)));
    }
  }
  return owed;
}

/** Starts a snapshot: the session sees one state of all tables until its next COMMIT. */
export async function startSnapshot(session: Session): Promise<void> {
  // Ends a failed transaction.
  await session.write('ROLLBACK');
  await session.write('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
  await session.write('START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY');
}

export function partitionName(until: number): string {
  const [date, time] = new Date(until).toISOString().split('T') as [string, string];
  return `p_${date.replaceAll('-', '')}_${time.slice(0, 5).replace(':', '')}`;
}

export function definePartition(until: number): string {
  return `PARTITION ${partitionName(until)} VALUES LESS THAN (x'${lowestMessageId(until).toString('hex')}')`;
}
