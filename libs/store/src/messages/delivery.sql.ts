import { LEASE_GRACE_MS } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Transaction } from '../database/database.js';
import { hex, hexList } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';
import { WAITING } from '../groups/waiting.js';
import type { Delivery } from './delivery.js';
import { TOKEN_BYTES } from './lease-token.js';

export { LEASE_GRACE_MS };

/** The token of a delivery without a lease. No claim draws it. */
export const NO_TOKEN = Buffer.alloc(TOKEN_BYTES);
/** {@link NO_TOKEN} in SQL. */
export const NO_LEASE = hex(NO_TOKEN);

/** Whether a token is {@link NO_TOKEN}. A forged receipt may name it and must never match. */
export function isNoLease(token: Buffer): boolean {
  return token.equals(NO_TOKEN);
}

/**
 * Whether a consumer holds a delivery at this time, or held it less than the grace period ago. A
 * follower waits behind its group, so `delayed_until` is the end of its lease.
 *
 * @param alias precedes each column
 */
export function isLeasedAt(time: string, alias = ''): string {
  const until = `IF(${alias}available_at < ${WAITING}, ${alias}available_at, COALESCE(${alias}delayed_until, 0))`;
  return `(${alias}lease_token <> ${NO_LEASE} AND ${until} > ${time})`;
}

/** {@link isLeasedAt} now. */
export const IS_LEASED = isLeasedAt(NOW_MS);

export const DELIVERY_COLUMNS = `
  d.queue_id AS queueId,
  d.pack_id AS packId,
  d.lease_token AS leaseToken,
  d.part,
  d.members,
  d.priority_rank AS priorityRank,
  d.available_at AS availableAt,
  d.expires_at AS expiresAt,
  d.producer_expires_at AS producerExpiresAt,
  d.receive_count AS receiveCount,
  d.first_received_at AS firstReceivedAt,
  d.nack_reason AS nackReason,
  d.source_queue_id AS sourceQueueId,
  d.moves,
  d.group_key AS groupKey,
  d.delayed_until AS delayedUntil`;

/**
 * The end of a locking read that joins a list. MySQL must be told not to lock the list. MariaDB
 * does not know OF, and skips the comment.
 */
export const FOR_UPDATE = 'FOR UPDATE /*!80000 OF d */';

/** A delivery's place in the index `delivery_next`, and its size. */
export type Position = Pick<Delivery, 'packId' | 'priorityRank' | 'availableAt' | 'members' | 'groupKey'>;

/**
 * Locks deliveries that still have these positions, are under no lease, and meet a condition. Skips
 * deliveries that other transactions have locked. With `withFollowers`, it also locks deliveries
 * that wait under a lease.
 *
 * The columns of the first condition on leases are all in the index, so the server can check it
 * before it locks the row.
 *
 * The statement locks the index entry before the row, as a claim does. A lookup by primary key
 * would lock the row first and could deadlock with a claim. MySQL's SKIP LOCKED never waits, but
 * MariaDB's waits for an instant, long enough for its deadlock detection. `docs/locking.md` has the
 * lock order.
 */
export async function lockUnleased(
  tx: Transaction,
  queueId: number,
  positions: readonly Position[],
  condition: string,
  { withFollowers = false }: { withFollowers?: boolean } = {},
): Promise<Delivery[]> {
  if (positions.length === 0) return [];
  // Deliveries of one enqueue share a priority and a time, so grouping keeps the list short.
  const groups = groupBy(positions, ({ priorityRank, availableAt }) => `${priorityRank}.${availableAt}`);
  return tx.read<Delivery>(
    `SELECT ${DELIVERY_COLUMNS}
     FROM delivery d FORCE INDEX (delivery_next)
     WHERE d.queue_id = ?
       AND (${Array.from(groups, () => '(d.priority_rank = ? AND d.available_at = ? AND d.pack_id IN (?))').join('\n         OR ')})
       AND (d.lease_token = ${NO_LEASE} OR d.available_at <= ${NOW_MS} OR d.available_at >= ${WAITING})
       AND ${withFollowers ? 'TRUE' : `NOT ${IS_LEASED}`}
       AND ${condition}
     FOR UPDATE SKIP LOCKED`,
    [
      queueId,
      ...[...groups.values()].flatMap((group) => [
        group[0]?.priorityRank,
        group[0]?.availableAt,
        group.map(({ packId }) => packId),
      ]),
    ],
  );
}

/**
 * Replaces rows that the transaction has locked. A row that changes its token changes its key, so
 * InnoDB would delete and insert it in any case.
 */
export function rewrite(before: readonly Delivery[], after: readonly Delivery[]): Statement[] {
  return [
    ...(before.length > 0 ? [deleteDeliveries(before)] : []),
    ...(after.length > 0 ? [insertDeliveries(after)] : []),
  ];
}

/** The key of a delivery. */
export type DeliveryKey = Pick<Delivery, 'queueId' | 'packId' | 'leaseToken' | 'part'>;

/** With more groups than this, a condition per group costs more than a join with a list. */
export const MOST_GROUPS = 50;

/**
 * Deletes deliveries in primary-key order. One condition covers the packs of a queue, token and
 * part: fresh deliveries differ in nothing else.
 *
 * The condition on `members` is always true. If a DELETE reads only columns of the index, both
 * servers prefer a scan on a small table, despite FORCE INDEX, and wait for rows that other
 * transactions have locked. With another column they find the rows by their primary key at every
 * table size. A join with a list does so too, and is cheaper for many groups.
 * `docs/decisions/0001-delete-by-primary-key.md` has the plans and times.
 */
export function deleteDeliveries(deliveries: readonly DeliveryKey[]): Statement {
  const groups = groupBy(
    deliveries,
    ({ queueId, leaseToken, part }) =>
      `d.queue_id = ${queueId} AND d.lease_token = ${hex(leaseToken)} AND d.part = ${part}`,
  );
  if (groups.size > MOST_GROUPS) return deleteByList(deliveries);
  const conditions = Array.from(
    groups,
    ([key, group]) => `(${key} AND d.pack_id IN (${hexList(group.map(({ packId }) => packId))}))`,
  );
  return {
    sql: `DELETE d FROM delivery d FORCE INDEX (PRIMARY) WHERE (${conditions.join('\n    OR ')}) AND d.members <> 0`,
  };
}

function deleteByList(deliveries: readonly DeliveryKey[]): Statement {
  return { sql: `DELETE d FROM ${BY_KEY}`, values: [keysJson(deliveries)] };
}

/**
 * Locks those of these deliveries that still exist. Waits until a transaction that replaces them
 * has ended.
 */
export function lockByKey(deliveries: readonly DeliveryKey[]): Statement {
  return { sql: `SELECT d.part FROM ${BY_KEY}\n  ${FOR_UPDATE}`, values: [keysJson(deliveries)] };
}

/** The list of {@link BY_KEY}. */
export function keysJson(deliveries: readonly DeliveryKey[]): string {
  const keys = deliveries
    .toSorted(byKey)
    .map(({ queueId, packId, leaseToken, part }) => [
      queueId,
      packId.toString('hex'),
      leaseToken.toString('hex'),
      part,
    ]);
  return JSON.stringify(keys);
}

/** The deliveries with these whole keys, for FROM and UPDATE. */
export const BY_KEY = `JSON_TABLE(?, '$[*]' COLUMNS (
    queue_id INT UNSIGNED PATH '$[0]',
    pack_id CHAR(32) PATH '$[1]',
    lease_token CHAR(16) PATH '$[2]',
    part SMALLINT UNSIGNED PATH '$[3]'
  )) wanted
  STRAIGHT_JOIN delivery d FORCE INDEX (PRIMARY)
    ON d.queue_id = wanted.queue_id
   AND d.pack_id = UNHEX(wanted.pack_id)
   AND d.lease_token = UNHEX(wanted.lease_token)
   AND d.part = wanted.part`;

function insertDeliveries(deliveries: readonly Delivery[]): Statement {
  const rows = deliveries.toSorted(byKey).map((row) => {
    const { queueId, packId, leaseToken, part, members, priorityRank, availableAt, expiresAt, receiveCount } = row;
    const reason = row.nackReason === null ? 'NULL' : '?';
    const moves = row.moves === null ? 'NULL' : '?';
    return `(${queueId},${hex(packId)},${hex(leaseToken)},${part},${members},${priorityRank},${availableAt},${expiresAt},${row.producerExpiresAt ?? 'NULL'},${receiveCount},${row.firstReceivedAt ?? 'NULL'},${reason},${row.sourceQueueId ?? 'NULL'},${moves},${row.groupKey ?? 'NULL'},${row.delayedUntil ?? 'NULL'})`;
  });
  return {
    sql: `INSERT INTO delivery (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, producer_expires_at, receive_count, first_received_at, nack_reason, source_queue_id, moves, group_key, delayed_until) VALUES ${rows.join(',')}`,
    values: deliveries.toSorted(byKey).flatMap(({ nackReason, moves }) => [nackReason ?? [], moves ?? []].flat()),
  };
}

/** The order of the primary key. Every transaction locks and writes deliveries in it. */
export function byKey(one: DeliveryKey, other: DeliveryKey): number {
  return (
    one.queueId - other.queueId ||
    one.packId.compare(other.packId) ||
    one.leaseToken.compare(other.leaseToken) ||
    one.part - other.part
  );
}
