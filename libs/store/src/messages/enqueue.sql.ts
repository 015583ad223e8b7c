import { NOW_MS } from '../database/clock.js';
import type { Transaction } from '../database/database.js';
import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import type { Queue } from '../queues/queue.js';
import { byRecordKey, insertRecords, type NewRecord, recordRow, refuseLive } from './deduplication.sql.js';
import { partOf } from './delivery.js';
import { LEASE_GRACE_MS, NO_LEASE } from './delivery.sql.js';
import { insertPacks } from './pack.sql.js';
import type { NewDelivery, NewPack } from './packing.js';

/** The rows of a batch in one queue. */
interface QueueRows {
  queue: Queue;
  packs: readonly NewPack[];
  records: readonly NewRecord[];
}

/** Whether an earlier try has stored this pack. */
export async function isStored(tx: Transaction, packId: Buffer): Promise<boolean> {
  const [found] = await tx.read(
    `SELECT 1 FROM pack FORCE INDEX (PRIMARY) WHERE id = ?
     UNION ALL
     SELECT 1 FROM pack_overflow FORCE INDEX (PRIMARY) WHERE id = ?`,
    [packId, packId],
  );
  return found !== undefined;
}

/**
 * The statements of a batch: lock the queues' rows, shared, in id order; lock and insert records in
 * key order; insert deliveries and packs; tell the time of the store.
 *
 * A queue that was deleted or changed since it was cached has no row with this version. Its
 * variable is then NULL, the INSERT of deliveries fails with 1048, and nothing of the batch is
 * stored. Packs come later: after that failure, a pack tells that an earlier try has committed.
 */
export function storeBatches(batches: readonly QueueRows[], leaseToken: Buffer): Statement[] {
  const sorted = batches.toSorted((one, other) => one.queue.id - other.queue.id);
  const rows = sorted.map(({ packs }, index) => rowsOf(`@queue_${index}`, '@now', packs, leaseToken));
  const packs = rows.flatMap((one) => one.packs);
  return [
    lockQueues(sorted.map(({ queue }) => queue)),
    // The time comes after the locks.
    { sql: `SET @now = ${NOW_MS}` },
    ...storeRecords(
      sorted.flatMap(({ records }, index) => records.map((record) => ({ record, scope: `@queue_${index}` }))),
    ),
    ...(packs.length > 0
      ? [insertNewDeliveries(rows.flatMap(({ deliveries }) => deliveries)), insertPacks(packs)]
      : []),
    { sql: 'SELECT @now AS now' },
  ];
}

/**
 * Locks and inserts records, in the order of their keys. Fails with 1690 if one is live.
 *
 * @param scope replaces the id of a record's queue or topic
 */
export function storeRecords(records: readonly { record: NewRecord; scope?: string }[]): Statement[] {
  if (records.length === 0) return [];
  const sorted = records.toSorted((one, other) => byRecordKey(one.record, other.record));
  return [
    refuseLive(
      sorted.map(({ record }) => record),
      '@now',
    ),
    insertRecords(
      sorted.map(({ record, scope }) => recordRow(record, '@now', scope)),
      '@now',
    ),
  ];
}

/**
 * Locks the rows of queues, shared. Sets the variable `@queue_n` to the id of the nth, or to NULL
 * if that queue was changed or deleted.
 *
 * @param queues in id order
 */
export function lockQueues(queues: readonly Queue[]): Statement {
  const guards = queues.map(
    ({ id, version }, index) =>
      `@queue_${index} = (SELECT id FROM queue FORCE INDEX (PRIMARY) WHERE id = ${id} AND version = ${version} AND name IS NOT NULL LOCK IN SHARE MODE)`,
  );
  return { sql: `SET ${guards.join(',\n    ')}` };
}

/** The rows of packs as SQL text. Escaping by mysql2, value by value, costs a third more. */
export function rowsOf(
  queueId: string | number,
  now: string | number,
  packs: readonly NewPack[],
  leaseToken: Buffer,
): { packs: string[]; deliveries: string[] } {
  return {
    packs: packs.map(
      ({ id, count, lifeMs, payload }) => `(${hex(id)},${queueId},${count},${now}+${lifeMs},${hex(payload)})`,
    ),
    deliveries: packs.flatMap(({ id, deliveries }) =>
      deliveries.map((delivery) => deliveryRow({ queueId, packId: id, ...delivery }, now, leaseToken)),
    ),
  };
}

/** A new row of `delivery`. */
export function deliveryRow(
  { queueId, packId, copy, members, fate }: NewDelivery & { queueId: string | number; packId: Buffer },
  now: string | number,
  leaseToken: Buffer,
): string {
  const { leaseMs, delayMs } = fate;
  const availableAt =
    leaseMs === null ? (fate.availableAt ?? `${now}+${delayMs}`) : `${now}+${leaseMs + LEASE_GRACE_MS}`;
  const token = leaseMs === null ? NO_LEASE : hex(leaseToken);
  const producerExpiresAt = fate.producerLifeMs === null ? 'NULL' : `${now}+${fate.producerLifeMs}`;
  return `(${queueId},${hex(packId)},${token},${partOf(copy, members)},${members},${fate.priorityRank},${availableAt},${now}+${fate.lifeMs},${producerExpiresAt},${leaseMs === null ? '0,NULL' : `1,${now}`})`;
}

export function insertNewDeliveries(rows: readonly string[], schema = ''): Statement {
  return {
    sql: `INSERT INTO ${schema}delivery (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, producer_expires_at, receive_count, first_received_at) VALUES ${rows.join(',')}`,
  };
}
