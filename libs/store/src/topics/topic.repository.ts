import { type Filter, LIMITS, type PutTopicRequest, RowmqError, TOPIC_DEFAULTS } from '@rowmq/contract';
import { IsNull, Not } from 'typeorm';
import { NOW_MS, timeOf } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import { QueueEntity, SubscriptionEntity, TopicEntity } from '../entities/index.js';
import { groupBy } from '../group-by.js';
import { queueNotFound } from '../queues/queue.js';
import { TAKE_TURN } from '../queues/take-turn.js';
import { readFilter, topicNotFound } from './topic.js';

/** A topic as an operator sees it. Times are ms since 1970 on the database's clock. */
export interface TopicView {
  name: string;
  deduplicationSeconds: number;
  createdAt: number;
  subscriptions: SubscriptionView[];
}

export interface SubscriptionView {
  queue: string;
  filter: Filter | null;
  createdAt: number;
}

/**
 * Topics and their subscriptions.
 *
 * Lock order: a topic's row, then a queue's row. Only a transaction that holds the topic's row
 * writes its subscriptions, and each change counts the topic's version on. A deletion of a queue
 * touches no topic: its subscriptions end because their readers leave deleted queues out.
 */
export class TopicRepository {
  constructor(private readonly database: Database) {}

  /** All topics, by name. */
  async list(): Promise<TopicView[]> {
    return this.view(await this.database.manager.find(TopicEntity, { order: { name: 'ASC' } }));
  }

  /** Throws `topic-not-found`. */
  async get(name: string): Promise<TopicView> {
    const [topic] = await this.view(await this.database.manager.findBy(TopicEntity, { name }));
    if (topic === undefined) throw topicNotFound(name);
    return topic;
  }

  /** The name of a topic; undefined: it does not exist. */
  async nameOf(id: number): Promise<string | undefined> {
    return (await this.database.manager.findOneBy(TopicEntity, { id }))?.name;
  }

  /**
   * Creates a topic, or changes the settings that are given. Takes no lock if nothing changes.
   * Throws `topic-not-found` if somebody deletes it meanwhile.
   */
  async put(name: string, given: PutTopicRequest = {}): Promise<{ topic: TopicView; created: boolean }> {
    const known = await this.database.manager.findOneBy(TopicEntity, { name });
    const created = known === null && (await this.create(name, given));
    if (!created) await this.change(name, known, given);
    return { topic: await this.get(name), created };
  }

  /** Returns false if the topic exists already. */
  private async create(
    name: string,
    { deduplicationSeconds = TOPIC_DEFAULTS.deduplicationSeconds }: PutTopicRequest,
  ): Promise<boolean> {
    let inserted: number | undefined;
    return this.database.transaction(async (tx) => {
      await tx.read(TAKE_TURN);
      const known = await tx.manager.findOneBy(TopicEntity, { name });
      // The COMMIT of an earlier attempt may have taken effect, and its answer was lost.
      if (known !== null) return known.id === inserted;
      const row = { name, deduplicationSeconds, version: 1, createdAt: (): string => NOW_MS };
      const { identifiers } = await tx.manager.insert(TopicEntity, row);
      inserted = (identifiers as [{ id: number }])[0].id;
      return true;
    });
  }

  private async change(name: string, known: TopicEntity | null, given: PutTopicRequest): Promise<void> {
    const { deduplicationSeconds = known?.deduplicationSeconds } = given;
    if (deduplicationSeconds === undefined || deduplicationSeconds === known?.deduplicationSeconds) return;
    await this.database.transaction(async (tx) => {
      const id = await lockTopic(tx, name);
      await tx.manager.update(TopicEntity, { id }, { deduplicationSeconds });
      await tx.finish([{ sql: NEXT_VERSION, values: [id] }]);
    });
  }

  /** Deletes a topic and its subscriptions. Their queues keep its messages. */
  async delete(name: string): Promise<void> {
    let found: number | undefined;
    await this.database.transaction(async (tx) => {
      const [row] = await tx.read<{ id: number }>(
        'SELECT id FROM topic FORCE INDEX (topic_by_name) WHERE name = ? FOR UPDATE',
        [name],
      );
      // An earlier attempt deleted the topic, and a new one may have its name.
      if (tx.commitUnknown && found !== undefined && row?.id !== found) return;
      if (row === undefined) throw topicNotFound(name);
      found = row.id;
      await tx.finish([
        { sql: `${DELETE_SUBSCRIPTIONS} WHERE s.topic_id = ? AND s.created_at > 0`, values: [row.id] },
        { sql: 'DELETE FROM topic WHERE id = ?', values: [row.id] },
      ]);
    });
  }

  /** Throws `topic-not-found`, `subscription-not-found`. */
  async getSubscription(topic: string, queue: string): Promise<SubscriptionView> {
    const found = (await this.get(topic)).subscriptions.find((one) => one.queue === queue);
    if (found === undefined) throw subscriptionNotFound(topic, queue);
    return found;
  }

  /**
   * Subscribes a queue to a topic, or changes the subscription's filter unless that is undefined.
   * Takes no lock if nothing changes.
   *
   * Throws `topic-not-found`, `queue-not-found`, and `invalid-request` for too many subscriptions.
   */
  async putSubscription(
    topicName: string,
    queueName: string,
    filter: Filter | null | undefined,
  ): Promise<{ subscription: SubscriptionView; created: boolean }> {
    const same = (await this.get(topicName)).subscriptions.find(({ queue }) => queue === queueName);
    if (same !== undefined && (filter === undefined || JSON.stringify(filter) === JSON.stringify(same.filter))) {
      return { subscription: same, created: false };
    }
    let insertedAt: number | undefined;
    const created = await this.database.transaction(async (tx) => {
      const topicId = await lockTopic(tx, topicName);
      const queueId = await lockQueue(tx, queueName);
      const key = { topicId, queueId };
      const value = filter == null ? null : JSON.stringify(filter);
      const known = await tx.manager.findOneBy(SubscriptionEntity, key);
      // The COMMIT of an earlier attempt took effect, and its answer was lost.
      if (known !== null && known.createdAt === insertedAt) return true;
      const isNew = known === null;
      if (isNew) {
        const count = await tx.manager.countBy(SubscriptionEntity, { topicId });
        if (count >= LIMITS.subscriptions) throw tooMany(topicName);
        const createdAt = await timeOf(tx);
        await tx.manager.insert(SubscriptionEntity, { ...key, filter: value, createdAt });
        insertedAt = createdAt;
      } else if (filter !== undefined) {
        await tx.manager.update(SubscriptionEntity, key, { filter: value });
      }
      await tx.finish([{ sql: NEXT_VERSION, values: [topicId] }]);
      return isNew;
    });
    return { subscription: await this.getSubscription(topicName, queueName), created };
  }

  /** Throws `topic-not-found`, `subscription-not-found`. The queue keeps the topic's messages. */
  async deleteSubscription(topicName: string, queueName: string): Promise<void> {
    let foundAt: number | undefined;
    await this.database.transaction(async (tx) => {
      const topicId = await lockTopic(tx, topicName);
      const queue = await tx.manager.findOneBy(QueueEntity, { name: queueName });
      const key = { topicId, queueId: queue?.id ?? 0 };
      const known = await tx.manager.findOneBy(SubscriptionEntity, key);
      // An earlier attempt ended the subscription, and the queue may have a new one.
      if (tx.commitUnknown && known?.createdAt !== foundAt) return;
      if (known === null) throw subscriptionNotFound(topicName, queueName);
      foundAt = known.createdAt;
      await tx.finish([
        { sql: DELETE_SUBSCRIPTION, values: [key.topicId, key.queueId] },
        { sql: NEXT_VERSION, values: [topicId] },
      ]);
    });
  }

  private async view(topics: readonly TopicEntity[]): Promise<TopicView[]> {
    const { manager } = this.database;
    const [only] = topics;
    const where = topics.length === 1 && only !== undefined ? { topicId: only.id } : {};
    const subscriptions = topics.length === 0 ? [] : await manager.findBy(SubscriptionEntity, where);
    const queues =
      subscriptions.length === 0
        ? []
        : await manager.find(QueueEntity, { select: { id: true, name: true }, where: { name: Not(IsNull()) } });
    const names = new Map(queues.map(({ id, name }) => [id, name as string]));
    const byTopic = groupBy(subscriptions, ({ topicId }) => topicId);
    return topics.map(({ id, name, deduplicationSeconds, createdAt }) => ({
      name,
      deduplicationSeconds,
      createdAt,
      subscriptions: (byTopic.get(id) ?? [])
        .flatMap((one) => {
          const queue = names.get(one.queueId);
          return queue === undefined ? [] : { queue, filter: readFilter(one.filter), createdAt: one.createdAt };
        })
        .toSorted((one, other) => (one.queue < other.queue ? -1 : 1)),
    }));
  }
}

/**
 * Deletes by primary key. The condition on `created_at`, which is always true, keeps both servers
 * from a scan of the index: `docs/decisions/0001-delete-by-primary-key.md`.
 */
const DELETE_SUBSCRIPTIONS = 'DELETE s FROM subscription s FORCE INDEX (PRIMARY)';
const DELETE_SUBSCRIPTION = `${DELETE_SUBSCRIPTIONS} WHERE s.topic_id = ? AND s.queue_id = ? AND s.created_at > 0`;
const NEXT_VERSION = 'UPDATE topic SET version = version + 1 WHERE id = ?';

/**
 * Removes the subscriptions of a deleted queue, one topic at a time. They have ended already, so no
 * version counts on.
 */
export async function forgetSubscriptions(database: Database, queueId: number): Promise<void> {
  const rows = await database.read<{ topicId: number }>(
    'SELECT topic_id AS topicId FROM subscription FORCE INDEX (subscription_by_queue) WHERE queue_id = ?',
    [queueId],
  );
  for (const { topicId } of rows) {
    await database.transaction(async (tx) => {
      await tx.read('SELECT 1 FROM topic FORCE INDEX (PRIMARY) WHERE id = ? FOR UPDATE', [topicId]);
      await tx.finish([{ sql: DELETE_SUBSCRIPTION, values: [topicId, queueId] }]);
    });
  }
}

/** Locks a topic's row, and returns its id. Throws `topic-not-found`. */
async function lockTopic(tx: Transaction, name: string): Promise<number> {
  const [known] = await tx.read<{ id: number }>('SELECT id FROM topic WHERE name = ?', [name]);
  const [row] = await tx.read<{ id: number }>('SELECT id FROM topic FORCE INDEX (PRIMARY) WHERE id = ? FOR UPDATE', [
    known?.id ?? 0,
  ]);
  if (row === undefined) throw topicNotFound(name);
  return row.id;
}

/**
 * Shares a queue's row, and returns its id. The lock keeps the queue from being deleted. Throws
 * `queue-not-found`.
 */
async function lockQueue(tx: Transaction, name: string): Promise<number> {
  const [known] = await tx.read<{ id: number }>('SELECT id FROM queue WHERE name = ?', [name]);
  const [row] = await tx.read<{ id: number }>(
    'SELECT id FROM queue FORCE INDEX (PRIMARY) WHERE id = ? AND name IS NOT NULL LOCK IN SHARE MODE',
    [known?.id ?? 0],
  );
  if (row === undefined) throw queueNotFound(name);
  return row.id;
}

function subscriptionNotFound(topic: string, queue: string): RowmqError {
  return new RowmqError(
    'subscription-not-found',
    `Queue '${queue}' does not subscribe to topic '${topic}'; subscribe it with PUT /v1/admin/topics/${topic}/subscriptions/${queue}.`,
  );
}

function tooMany(topic: string): RowmqError {
  return new RowmqError(
    'invalid-request',
    `Topic '${topic}' has ${LIMITS.subscriptions} subscriptions, the most that a topic can have; end one, or publish to a second topic too.`,
  );
}
