import { newPackId, packIdAfter } from '@rowmq/contract';
import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { partOf } from '../messages/delivery.js';
import { LEASE_GRACE_MS, NO_LEASE } from '../messages/delivery.sql.js';
import type { ForeignTransaction } from '../messages/foreign-transaction.js';
import { type Members, without } from '../messages/members.js';
import { insertPacks } from '../messages/pack.sql.js';
import { type GroupKey, groupsOf, keyText, ONLY_RANK } from './group.js';
import { type Group, isIdle, lastIds, type LockedGroup, lockGroups, NO_PACK, readGroups } from './group.sql.js';
import { groupKeyOfMessage, type OrderedMessage, type OrderedPack, packInOrder } from './pack-in-order.js';
import { WAITING } from './waiting.js';

interface QueuePacks {
  queueId: number;
  packs: OrderedPack[];
}

/**
 * Stores messages of one ordered queue in the caller's transaction, which locks the groups until it
 * ends. Gives the messages their ids.
 */
export async function storeInOrder(
  tx: ForeignTransaction,
  queueId: number,
  messages: readonly OrderedMessage[],
  now: number,
): Promise<void> {
  const keys = groupsIn(queueId, messages);
  await tx.write(lockGroups(keys, tx.schema).sql);
  const { sql, values } = readGroups(keys, tx.schema);
  const groups = (await tx.read<LockedGroup>(sql, values)).map(withNumbers);
  const packs = packInOrder(messages, idsAfter(groups));
  for (const statement of storePacks([{ queueId, packs }], groups, String(now), { schema: tx.schema }))
    await tx.write(statement.sql);
}

/** The groups of messages for a queue, in the order in which transactions lock them. */
export function groupsIn(queueId: number, messages: readonly OrderedMessage[]): GroupKey[] {
  return groupsOf(messages.map((message) => ({ queueId, groupKey: groupKeyOfMessage(message) })));
}

interface InsertOptions {
  /** The token of deliveries that are stored leased. */
  leaseToken?: Buffer | undefined;
  /** Precedes the name of each table, as in `ForeignTransaction`. */
  schema?: string | undefined;
}

/** Inserts packs with their deliveries. */
export function storePacks(
  queues: readonly QueuePacks[],
  groups: readonly Group[],
  now: string,
  options: InsertOptions = {},
): Statement[] {
  const packs = queues.flatMap(({ queueId, packs: ofQueue }) =>
    ofQueue.map(
      ({ id, count, lifeMs, payload }) => `(${hex(id)},${queueId},${count},${now}+${lifeMs},${hex(payload)})`,
    ),
  );
  const deliveries = queues.flatMap(({ queueId, packs: ofQueue }) =>
    ofQueue.flatMap(({ id, deliveries: rows }) => rows.map((row) => ({ ...row, queueId, packId: id, copy: 0 }))),
  );
  return packs.length === 0 ? [] : [insertPacks(packs, options), ...storeDeliveries(deliveries, groups, now, options)];
}

/** A new delivery of an ordered queue. */
export interface OrderedDelivery extends GroupKey {
  packId: Buffer;
  copy: number;
  members: Members;
  delayMs: number;
  lifeMs: number;
  producerLifeMs: number | null;
  /** Its first messages, if a consumer gets them at once. */
  leased?: { members: Members; leaseMs: number };
}

/**
 * Inserts deliveries, and remembers the last pack of each group. The first delivery of an idle
 * group is ready, delayed or leased, all others wait.
 *
 * @param deliveries in the order of each group
 */
export function storeDeliveries(
  deliveries: readonly OrderedDelivery[],
  groups: readonly Group[],
  now: string,
  { leaseToken, schema = '' }: InsertOptions = {},
): Statement[] {
  const busy = new Set(groups.filter((group) => !isIdle(group)).map(keyText));
  const rows: string[] = [];
  for (const { queueId, packId, copy, members, groupKey, delayMs, lifeMs, producerLifeMs, leased } of deliveries) {
    const group = keyText({ queueId, groupKey });
    const producerExpiresAt = producerLifeMs === null ? 'NULL' : `${now}+${producerLifeMs}`;
    const delayEndsAt = `${now}+${delayMs}`;
    const add = (token: string, part: Members, availableAt: string | number, delayedUntil = 'NULL'): void => {
      if (part === 0) return;
      const receives = token === NO_LEASE ? '0,NULL' : `1,${now}`;
      rows.push(
        `(${queueId},${hex(packId)},${token},${partOf(copy, part)},${part},${ONLY_RANK},${availableAt},${now}+${lifeMs},${producerExpiresAt},${receives},${groupKey},${delayedUntil})`,
      );
    };
    if (leased !== undefined && leaseToken !== undefined)
      add(hex(leaseToken), leased.members, `${now}+${leased.leaseMs + LEASE_GRACE_MS}`);
    const isBehind = leased !== undefined || busy.has(group);
    const rest = without(members, leased?.members ?? 0);
    if (!isBehind) add(NO_LEASE, rest, delayEndsAt);
    else add(NO_LEASE, rest, WAITING + groupKey, delayMs > 0 ? delayEndsAt : 'NULL');
    busy.add(group);
  }
  return [
    {
      sql: `INSERT INTO ${schema}delivery (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, producer_expires_at, receive_count, first_received_at, group_key, delayed_until) VALUES ${rows.join(',')}`,
    },
    lockGroups(lastIds(deliveries), schema),
  ];
}

/** A service's connection may return large numbers as text. */
export function withNumbers(group: LockedGroup): LockedGroup {
  return { ...group, groupKey: Number(group.groupKey), now: Number(group.now) };
}

/**
 * Makes ascending ids, higher than any of these groups. They have the database's time: a group that
 * owes nothing has no row that remembers its last id, and the clocks of brokers and services
 * differ.
 */
export function idsAfter(groups: readonly LockedGroup[]): () => Buffer {
  const [first] = groups;
  if (first === undefined) return newPackId;
  const { now } = first;
  let last = groups.reduce<Buffer>(
    (most, { lastPackId }) => (lastPackId.compare(most) > 0 ? lastPackId : most),
    NO_PACK,
  );
  return () => (last = packIdAfter(last, now));
}
