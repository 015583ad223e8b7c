import { NOW_MS } from '../database/clock.js';
import { hex, hexList } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';

/** The kinds of records. Rows are locked in the order of kind, scope and digest. */
export const KINDS = {
  queue: { idempotencyKey: 1, deduplicationId: 2 },
  topic: { idempotencyKey: 3, deduplicationId: 4 },
} as const;

export interface RecordKey {
  kind: number;
  /** The id of the queue or the topic. */
  scopeId: number;
  digest: Buffer;
}

/** A row of `deduplication`. */
export interface DeduplicationRecord extends RecordKey {
  requestDigest: Buffer | null;
  answer: Buffer;
}

/** A row to be written. Its time counts from the store. */
export interface NewRecord extends DeduplicationRecord {
  seconds: number;
}

/** The name of a record in a map. */
export function nameOf({ kind, scopeId, digest }: RecordKey): string {
  return `${kind}.${scopeId}.${digest.toString('hex')}`;
}

/** The order in which every transaction locks records. */
export function byRecordKey(one: RecordKey, other: RecordKey): number {
  return one.kind - other.kind || one.scopeId - other.scopeId || one.digest.compare(other.digest);
}

/**
 * Fails with 1690 if one of these records exists and is live: `EXP` overflows. The batch has not
 * inserted any then, so no insert is rolled back while others wait for its row. InnoDB would give
 * each of them a lock on the gap, and they would deadlock.
 *
 * On MySQL it also waits for records that are being inserted, for the same reason. MySQL releases
 * the row of an expired record at once. MariaDB keeps it, and {@link insertRecords} would then wait
 * for lower keys while it holds higher ones. So MariaDB reads without locks.
 */
export function refuseLive(keys: readonly RecordKey[], now: string): Statement {
  return {
    sql: `SET @live = EXP(IF((
      SELECT COUNT(*) FROM deduplication FORCE INDEX (PRIMARY)
      WHERE ${isOneOf(keys)} AND expires_at > ${now}
      /*!80000 FOR UPDATE */) = 0, 0, 99999))`,
  };
}

/**
 * Writes new records, or takes over those that have expired. Fails with 1690 if one is live.
 *
 * ON DUPLICATE KEY UPDATE locks an existing row exclusively. The duplicate check of a plain INSERT
 * would share it, and two that wait for a third would both share it, and deadlock.
 */
export function insertRecords(rows: readonly string[], now: string): Statement {
  return {
    sql: `INSERT INTO deduplication (${COLUMNS}) VALUES ${rows.join(',')}
     ON DUPLICATE KEY UPDATE
       request_digest = VALUES(request_digest),
       answer = VALUES(answer),
       expires_at = VALUES(expires_at) * EXP(IF(expires_at > ${now}, 99999, 0))`,
  };
}

const COLUMNS = 'kind, scope_id, digest, request_digest, answer, expires_at';

/** A record's row as SQL text. @param scopeId replaces the record's */
export function recordRow(record: NewRecord, now: string | number, scopeId: string | number = record.scopeId): string {
  const { kind, digest, requestDigest, answer, seconds } = record;
  return `(${kind},${scopeId},${hex(digest)},${requestDigest === null ? 'NULL' : hex(requestDigest)},${hex(answer)},${now}+${seconds * 1000})`;
}

/**
 * Writes new records, or takes over those that have expired, and leaves live ones as they are. For
 * the transaction of a service.
 */
export function insertOrKeepRecords(rows: readonly string[], now: number, schema = ''): Statement {
  const isLive = `expires_at > ${now}`;
  return {
    sql: `INSERT INTO ${schema}deduplication (${COLUMNS}) VALUES ${rows.join(',')}
     ON DUPLICATE KEY UPDATE
       request_digest = IF(${isLive}, request_digest, VALUES(request_digest)),
       answer = IF(${isLive}, answer, VALUES(answer)),
       expires_at = IF(${isLive}, expires_at, VALUES(expires_at))`,
  };
}

/** Completes records that this transaction has inserted. */
export function completeRecords(rows: readonly string[], schema = ''): Statement {
  return {
    sql: `INSERT INTO ${schema}deduplication (${COLUMNS}) VALUES ${rows.join(',')}
     ON DUPLICATE KEY UPDATE answer = VALUES(answer), expires_at = VALUES(expires_at)`,
  };
}

/** Deletes records. The transaction has locked them, or passes a condition on them. */
export function deleteRecords(keys: readonly RecordKey[], condition: string, schema = ''): Statement {
  // A column outside the key keeps both servers from a scan: see `deleteDeliveries`.
  return {
    sql: `DELETE d FROM ${schema}deduplication d FORCE INDEX (PRIMARY) WHERE ${isOneOf(keys)} AND ${condition}`,
  };
}

/** Reads those of these records that are live, without locks. */
export function selectLive(keys: readonly RecordKey[]): Statement {
  return { sql: `${selectRecord()} WHERE ${isOneOf(keys)} AND expires_at > ${NOW_MS}` };
}

/** Locks these records, which all exist. */
export function lockRecords(keys: readonly RecordKey[], schema = ''): Statement {
  return { sql: `${selectRecord(schema)} WHERE ${isOneOf(keys)} FOR UPDATE` };
}

function selectRecord(schema = ''): string {
  return `SELECT kind, scope_id AS scopeId, digest, request_digest AS requestDigest, answer
     FROM ${schema}deduplication FORCE INDEX (PRIMARY)`;
}

/** A condition that finds rows by their keys, in ascending order. */
export function isOneOf(keys: readonly RecordKey[]): string {
  const groups = groupBy(keys.toSorted(byRecordKey), ({ kind, scopeId }) => `kind = ${kind} AND scope_id = ${scopeId}`);
  const conditions = Array.from(
    groups,
    ([scope, group]) => `(${scope} AND digest IN (${hexList(group.map(({ digest }) => digest))}))`,
  );
  return `(${conditions.join('\n        OR ')})`;
}
