import { UTC_NOW_MS } from '../database/clock.js';
import { type LockedGroup, lockGroups, readGroups } from '../groups/group.sql.js';
import { groupsIn, packAll, storeTopicPacks } from '../groups/ordered-publish.js';
import { idsAfter, withNumbers } from '../groups/store-in-order.js';
import { type Queue, QUEUE_COLUMNS, type QueueRow, toQueue } from '../queues/queue.js';
import { readFilter, type Topic, topicNotFound } from '../topics/topic.js';
import { Deduplication, inTopic, isDeduplicated } from './deduplication.js';
import { countMessages, refuseIfFull } from './depth-gauge.js';
import {
  assertUsable,
  type ForeignTransaction,
  numbers,
  TRANSACTION_FACTS,
  type TransactionFacts,
  textOf,
} from './foreign-transaction.js';
import { countByQueue, nameUnwanted, type Published, type PublishRequest, toPublished, withTerms } from './publish.js';
import type { TopicMessage } from './publish-packing.js';
import { MessageTerms, ofSubscriber } from './publish-terms.js';
import { RecordsInTransaction } from './records-in-transaction.js';

export type { ForeignTransaction };

/** A topic with one of its subscriptions, or without any. */
interface TopicRow extends Pick<Topic, 'id' | 'deduplicationSeconds' | 'version'>, TransactionFacts {
  queueId: number | null;
  filter: string | null;
}

/**
 * Stores the messages of one request to a topic in the caller's transaction, as `storeIn` does for
 * a queue. The messages reach the queues that subscribe at this time, and not those that subscribe
 * before the transaction commits.
 *
 * Throws `topic-not-found`, `queue-full` or `invalid-request` of one of the queues, and Error for a
 * transaction that cannot be used.
 *
 * Shares the entries of the queues in `queue_by_name` until the caller's transaction ends, and then
 * locks what an enqueue locks: records of duplicates, groups. It locks neither the topic nor its
 * subscriptions, so both can change meanwhile.
 */
export async function publishIn(tx: ForeignTransaction, request: PublishRequest): Promise<Published[]> {
  const { schema = '' } = tx;
  const { topic, now } = await readTopic(tx, request.topicName);
  const records = isDeduplicated(request)
    ? await RecordsInTransaction.claim<TopicMessage>(tx, inTopic(topic), request, now)
    : undefined;
  const terms = new MessageTerms(now);
  const plan = (records?.deduplication ?? new Deduplication<TopicMessage>()).plan(
    inTopic(topic),
    request,
    (message, index) => withTerms(message, topic, index, terms),
  );
  for (const [queue, count] of countByQueue(plan.messages)) {
    if (queue.maxDepth === null) continue;
    try {
      refuseIfFull(
        queue.maxDepth,
        await countMessages(tx, queue.id, queue.maxDepth, { clock: UTC_NOW_MS, schema }),
        count,
      );
    } catch (error) {
      throw ofSubscriber(error, queue, topic);
    }
  }
  nameUnwanted(plan.messages);
  const groups = await lockGroupsOf(tx, plan.messages);
  const packs = packAll(plan.messages, idsAfter(groups));
  for (const { sql } of storeTopicPacks(packs, groups, String(now), { schema })) await tx.write(sql);
  await records?.complete(plan.records());
  return toPublished(plan);
}

/** Reads a topic, and keeps the queues that subscribe to it from being deleted. */
async function readTopic(tx: ForeignTransaction, name: string): Promise<{ topic: Topic; now: number }> {
  const { schema = '' } = tx;
  const rows = await tx.read<TopicRow>(
    `SELECT t.id, t.deduplication_seconds AS deduplicationSeconds, t.version, s.queue_id AS queueId, s.filter, ${TRANSACTION_FACTS}
     FROM ${schema}topic t FORCE INDEX (topic_by_name)
     LEFT JOIN ${schema}subscription s FORCE INDEX (PRIMARY) ON s.topic_id = t.id
     WHERE t.name = ?`,
    [name],
  );
  const [first] = rows;
  if (first === undefined) throw topicNotFound(name);
  assertUsable(first);
  const filters = new Map(
    rows.flatMap(({ queueId, filter }) =>
      queueId === null ? [] : [[Number(queueId), filter === null ? null : textOf(filter)] as const],
    ),
  );
  const queues = filters.size === 0 ? [] : await readQueues(tx, [...filters.keys()]);
  const [time] = await tx.read<{ now: number }>(`SELECT ${UTC_NOW_MS} AS now`);
  const { id, deduplicationSeconds, version } = first;
  const subscriptions = queues.map((queue) => ({ queue, filter: readFilter(filters.get(queue.id) ?? null) }));
  return {
    topic: { ...numbers({ id, deduplicationSeconds, version }), name, subscriptions },
    now: Number(time?.now),
  };
}

/** Reads these queues, in id order, and leaves out those that are deleted. */
async function readQueues(tx: ForeignTransaction, ids: readonly number[]): Promise<Queue[]> {
  const { schema = '' } = tx;
  const rows = await tx.read<QueueRow>(
    `SELECT ${QUEUE_COLUMNS} FROM ${schema}queue FORCE INDEX (PRIMARY) WHERE id IN (?) AND name IS NOT NULL ORDER BY id`,
    [ids],
  );
  if (rows.length === 0) return [];
  const queues = rows.map(({ name, ordering, ...settings }) =>
    toQueue({ ...numbers(settings), name: name && textOf(name), ordering: ordering && textOf(ordering) }),
  );
  // The index has all columns that this reads, so it locks the entries and not the rows.
  const locked = await tx.read<{ id: number }>(
    `SELECT id FROM ${schema}queue FORCE INDEX (queue_by_name) WHERE name IN (?) LOCK IN SHARE MODE`,
    [queues.map(({ name }) => name)],
  );
  const kept = new Set(locked.map(({ id }) => Number(id)));
  return queues.filter(({ id }) => kept.has(id));
}

async function lockGroupsOf(tx: ForeignTransaction, messages: readonly TopicMessage[]): Promise<LockedGroup[]> {
  const keys = groupsIn(messages);
  if (keys.length === 0) return [];
  await tx.write(lockGroups(keys, tx.schema).sql);
  const { sql, values } = readGroups(keys, tx.schema);
  return (await tx.read<LockedGroup>(sql, values)).map(withNumbers);
}
