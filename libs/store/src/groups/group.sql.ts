import { NOW_MS, UTC_NOW_MS } from '../database/clock.js';
import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { BY_KEY, DELIVERY_COLUMNS, type DeliveryKey, IS_LEASED, keysJson } from '../messages/delivery.sql.js';
import { byGroup, type GroupKey, keyText, ONLY_RANK } from './group.js';
import { WAITING } from './waiting.js';

/*
 * The statements of ordered queues. Only the holder of a group's row changes or deletes deliveries
 * that wait in the group. So it reads them without locks. A claim may add some, because it holds
 * the first delivery.
 */

/** A group and its last pack. */
export interface Group extends GroupKey {
  /** {@link NO_PACK}: the group owed nothing before the transaction. */
  lastPackId: Buffer;
}

/** A group that the transaction has locked, and the database's time after that. */
export interface LockedGroup extends Group {
  now: number;
}

export const NO_PACK = Buffer.alloc(16);

/** Whether a group owed nothing before the transaction locked it. */
export function isIdle({ lastPackId }: Group): boolean {
  return lastPackId.equals(NO_PACK);
}

/** The next delivery of a group. Null: none waits. */
export interface Next extends GroupKey {
  /** Pack, token, part. */
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

/** Reads groups that the transaction has locked: each a {@link LockedGroup}. */
export function readGroups(groups: readonly GroupKey[], schema = ''): Statement {
  return {
    sql: `SELECT g.queue_id AS queueId, g.group_key AS groupKey, g.last_pack_id AS lastPackId, ${UTC_NOW_MS} AS now
       ${inList(schema)}
       FOR UPDATE /*!80000 OF g */`,
    values: [groupsJson(groups)],
  };
}

/** Deletes groups that owe nothing any more. */
export function deleteGroups(groups: readonly GroupKey[]): Statement {
  return { sql: `DELETE g ${inList()}`, values: [groupsJson(groups)] };
}

/** Expired messages do not count, unless a consumer holds them: the reaper removes them. */
const COUNTS = `(expires_at > ${NOW_MS} OR ${IS_LEASED})`;

/**
 * Finds the first waiting delivery of each group. In the index, the token comes before the part. So
 * the index finds the first pack, and then the first part of it.
 */
export function readNext(groups: readonly GroupKey[]): Statement {
  return {
    sql: `SELECT head.queue_id AS queueId, head.group_key AS groupKey, (
         SELECT CONCAT(HEX(n.pack_id), ' ', HEX(n.lease_token), ' ', n.part)
         FROM delivery n FORCE INDEX (delivery_next)
         WHERE n.queue_id = head.queue_id
           AND n.priority_rank = ${ONLY_RANK}
           AND n.available_at = ${WAITING} + head.group_key
           AND n.pack_id = head.pack_id
           AND ${COUNTS}
         ORDER BY n.part
         LIMIT 1) AS next
       FROM (
         SELECT wanted.queue_id, wanted.group_key, (
           SELECT p.pack_id
           FROM delivery p FORCE INDEX (delivery_next)
           WHERE p.queue_id = wanted.queue_id
             AND p.priority_rank = ${ONLY_RANK}
             AND p.available_at = ${WAITING} + wanted.group_key
             AND ${COUNTS}
           LIMIT 1) AS pack_id
         FROM ${WANTED}
       ) head`,
    values: [groupsJson(groups)],
  };
}

/**
 * Reads the first waiting deliveries of a group, in order: at least so many messages, or all. The
 * first packs come from a list of their own. With a condition on their ids, MariaDB reads the whole
 * group.
 */
export function readWaiting({ queueId, groupKey }: GroupKey, messages: number): Statement {
  const ofGroup = `queue_id = ${queueId} AND priority_rank = ${ONLY_RANK} AND available_at = ${WAITING + groupKey}`;
  return {
    sql: `SELECT ${DELIVERY_COLUMNS}
       FROM (
         SELECT DISTINCT pack_id
         FROM (
           SELECT p.pack_id
           FROM delivery p FORCE INDEX (delivery_next)
           WHERE ${ofGroup}
             AND ${COUNTS}
           LIMIT ${messages}
         ) waiting
       ) packs
       STRAIGHT_JOIN delivery d FORCE INDEX (delivery_next)
         ON d.pack_id = packs.pack_id
       WHERE ${ofGroup}
         AND ${COUNTS}
       ORDER BY d.pack_id, d.part`,
  };
}

/** The key of a {@link Next} that exists. */
export function keyOf({ queueId, next }: Next): DeliveryKey {
  const [packId, token, part] = String(next).split(' ') as [string, string, string];
  return { queueId, packId: Buffer.from(packId, 'hex'), leaseToken: Buffer.from(token, 'hex'), part: Number(part) };
}

/**
 * Makes waiting deliveries the first of their groups: ready, unless a nack delayed them. A follower
 * keeps its lease.
 */
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
