import { NOW_MS } from '../database/clock.js';
import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { BY_KEY, type DeliveryKey, keysJson, NO_TOKEN } from '../messages/delivery.sql.js';
import { byGroup, type GroupKey, keyText, ONLY_RANK, WAITING } from './group.js';

/*
 * The statements of ordered queues. Only the holder of a group's row moves or deletes deliveries
 * that wait in the group. A claim may add some, because it holds the first delivery.
 */

/** A locked group. */
export interface Group extends GroupKey {
  /** {@link NO_PACK}: the group owed nothing before the transaction. */
  lastPackId: Buffer;
}

export const NO_PACK = Buffer.alloc(16);

/** Whether a group owed nothing before the transaction locked it. */
export function isIdle({ lastPackId }: Group): boolean {
  return lastPackId.equals(NO_PACK);
}

/** The next delivery of a group. Null: none waits. */
export interface Next extends GroupKey {
  /** Pack, part. */
  next: string | null;
}

/**
 * Locks groups, exclusive, in the given order, which must be `byGroup`. Creates those that owe
 * nothing, and raises the last pack ids of the others.
 */
export function lockGroups(groups: readonly (GroupKey & { lastPackId?: Buffer })[], schema = ''): Statement {
  const rows = groups.map(
    ({ queueId, groupKey, lastPackId = NO_PACK }) => `(${queueId},${groupKey},${hex(lastPackId)})`,
  );
  return {
    sql: `INSERT INTO ${schema}message_group (queue_id, group_key, last_pack_id) VALUES ${rows.join(',')}
       ON DUPLICATE KEY UPDATE last_pack_id = GREATEST(last_pack_id, VALUES(last_pack_id))`,
  };
}

/** Reads groups that the transaction has locked. */
export function readGroups(groups: readonly GroupKey[], schema = ''): Statement {
  return {
    sql: `SELECT g.queue_id AS queueId, g.group_key AS groupKey, g.last_pack_id AS lastPackId
       ${inList(schema)}
       FOR UPDATE /*!80000 OF g */`,
    values: [groupsJson(groups)],
  };
}

/** Deletes groups that owe nothing any more. */
export function deleteGroups(groups: readonly GroupKey[]): Statement {
  return { sql: `DELETE g ${inList()}`, values: [groupsJson(groups)] };
}

/**
 * Finds the first waiting delivery of each group. Expired ones do not count: the reaper removes
 * them.
 */
export function readNext(groups: readonly GroupKey[]): Statement {
  return {
    sql: `SELECT wanted.queue_id AS queueId, wanted.group_key AS groupKey, (
         SELECT CONCAT(HEX(n.pack_id), ' ', n.part)
         FROM delivery n FORCE INDEX (delivery_next)
         WHERE n.queue_id = wanted.queue_id
           AND n.priority_rank = ${ONLY_RANK}
           AND n.available_at = ${WAITING} + wanted.group_key
           AND n.expires_at > ${NOW_MS}
         LIMIT 1) AS next
       FROM ${WANTED}`,
    values: [groupsJson(groups)],
  };
}

/** The key of a {@link Next} that exists. */
export function keyOf({ queueId, next }: Next): DeliveryKey {
  const [packId, part] = String(next).split(' ') as [string, string];
  return { queueId, packId: Buffer.from(packId, 'hex'), leaseToken: NO_TOKEN, part: Number(part) };
}

/** Makes waiting deliveries the first of their groups: ready, unless a nack delayed them. */
export function promote(next: readonly DeliveryKey[]): Statement {
  return {
    sql: `UPDATE ${BY_KEY}
       SET d.available_at = GREATEST(${NOW_MS}, COALESCE(d.delayed_until, 0))`,
    values: [keysJson(next)],
  };
}

const WANTED = `JSON_TABLE(?, '$[*]' COLUMNS (
         queue_id INT UNSIGNED PATH '$[0]',
         group_key BIGINT UNSIGNED PATH '$[1]'
       )) wanted`;

function inList(schema = ''): string {
  return `FROM ${WANTED}
       STRAIGHT_JOIN ${schema}message_group g FORCE INDEX (PRIMARY)
         ON g.queue_id = wanted.queue_id
        AND g.group_key = wanted.group_key`;
}

function groupsJson(groups: readonly GroupKey[]): string {
  return JSON.stringify(groups.map(({ queueId, groupKey }) => [queueId, groupKey]));
}

/** The groups of these deliveries, each with its highest pack id. */
export function lastIds(rows: readonly (GroupKey & { packId: Buffer })[]): Group[] {
  const last = new Map<string, Group>();
  for (const { queueId, groupKey, packId } of rows.toSorted((one, other) => one.packId.compare(other.packId)))
    last.set(keyText({ queueId, groupKey }), { queueId, groupKey, lastPackId: packId });
  return [...last.values()].toSorted(byGroup);
}
