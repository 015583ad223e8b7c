import type { Database } from '../database/database.js';
import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { NO_TOKEN } from '../messages/delivery.sql.js';
import { deliveryRow, insertNewDeliveries } from '../messages/enqueue.sql.js';
import { insertPacks } from '../messages/pack.sql.js';
import type { TopicBatch } from '../messages/publish.js';
import {
  groupKeysIn,
  isInOrder,
  packWanted,
  packWantedInOrder,
  type TopicMessage,
  type TopicPack,
} from '../messages/publish-packing.js';
import type { Queue } from '../queues/queue.js';
import { commitInOrder, NO_ID } from './commit-in-order.js';
import { type GroupKey, groupsOf } from './group.js';
import type { Group } from './group.sql.js';
import { storeDeliveries } from './store-in-order.js';

/**
 * Stores messages of topics, of which ordered queues want some, as {@link commitInOrder} does. It
 * locks the groups in every queue, so a group has one order in all of them.
 */
export async function storePublishedInOrder(
  database: Database,
  { topics, messages, tokens, makeRecords }: TopicBatch,
): Promise<number | undefined> {
  for (const message of messages) message.id ??= NO_ID;
  return commitInOrder(database, {
    rows: [
      { table: 'topic', rows: topics },
      { table: 'queue', rows: queuesOf(messages) },
    ],
    groups: groupsIn(messages),
    makeRecords,
    pack: (makeId, groups) => {
      const packs = packAll(messages, makeId);
      return { firstPack: packs[0]?.id, inserts: storeTopicPacks(packs, groups, '@now', { tokens }) };
    },
  });
}

/** The queues that want these messages, each once. */
function queuesOf(messages: readonly TopicMessage[]): Queue[] {
  const terms = new Set(messages.map((message) => message.terms));
  return [...new Set([...terms].flatMap(({ shares }) => shares.map(({ queue }) => queue)))];
}

/** The groups of messages in ordered queues, in the order in which transactions lock them. */
export function groupsIn(messages: readonly TopicMessage[]): GroupKey[] {
  return groupsOf(messages.flatMap(groupKeysIn));
}

/** Packs messages, those for ordered queues in the order of their groups. */
export function packAll(messages: readonly TopicMessage[], makeId: () => Buffer): TopicPack[] {
  return [
    ...packWantedInOrder(messages.filter(isInOrder), makeId),
    ...packWanted(
      messages.filter((message) => !isInOrder(message)),
      makeId,
    ),
  ];
}

interface InsertOptions {
  /** For queues in which messages are handed off. */
  tokens?: ReadonlyMap<number, Buffer>;
  /** Precedes the name of each table, as in `ForeignTransaction`. */
  schema?: string;
}

/** Inserts packs of topics with their deliveries, in queues with ordering and without. */
export function storeTopicPacks(
  packs: readonly TopicPack[],
  groups: readonly Group[],
  now: string,
  { tokens, schema = '' }: InsertOptions = {},
): Statement[] {
  if (packs.length === 0) return [];
  const deliveries = packs
    .flatMap((pack) =>
      pack.deliveries.map((delivery) => ({ ...delivery, packId: pack.id, queueId: delivery.queue.id })),
    )
    .toSorted((one, other) => one.queueId - other.queueId);
  const plain = deliveries.filter(({ groupKey }) => groupKey === undefined);
  const ordered = deliveries.flatMap(({ groupKey, fate: { delayMs, lifeMs, producerLifeMs }, ...delivery }) =>
    groupKey === undefined ? [] : { ...delivery, groupKey, delayMs, lifeMs, producerLifeMs },
  );
  const rows = packs.map(
    ({ id, topic, count, lifeMs, payload }) => `(${hex(id)},${topic.id},${count},${now}+${lifeMs},${hex(payload)})`,
  );
  const tokenOf = (queueId: number): Buffer => tokens?.get(queueId) ?? NO_TOKEN;
  return [
    insertPacks(rows, { owner: 'topic_id', schema }),
    ...(plain.length > 0
      ? [
          insertNewDeliveries(
            plain.map((delivery) => deliveryRow(delivery, now, tokenOf(delivery.queueId))),
            schema,
          ),
        ]
      : []),
    ...(ordered.length > 0 ? storeDeliveries(ordered, groups, now, { schema }) : []),
  ];
}
