import { newPackId, RowmqError } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';
import { storePublishedInOrder } from '../groups/ordered-publish.js';
import type { Queue } from '../queues/queue.js';
import type { TopicCache } from '../topics/topic-cache.js';
import { type Topic, topicNotFound } from '../topics/topic.js';
import {
  Deduplication,
  inTopic,
  isDeduplicated,
  type Plan,
  readRecords,
  recordKeys,
  RecordMet,
} from './deduplication.js';
import type { NewRecord } from './deduplication.sql.js';
import { restless, ROUNDS, SettingsChanged } from './begin-again.js';
import type { Enqueue } from './enqueue.js';
import { deliveryRow, insertNewDeliveries, lockQueues, storeRecords } from './enqueue.sql.js';
import { type HandOffs, type Reserve, reserveFor } from './hand-off.js';
import { type Admitted, namesInstant, type NewMessage } from './new-message.js';
import { newLeaseToken } from './lease-token.js';
import { insertPacks } from './pack.sql.js';
import { isInOrder, packWanted, reservable, type TopicMessage, type TopicPack } from './publish-packing.js';
import { MessageTerms, ofSubscriber, type Share } from './publish-terms.js';

/** A message for a topic. */
export interface PublishedMessage extends NewMessage {
  /** The headers, by which filters choose. */
  values: Readonly<Record<string, string>>;
}

/** Messages for one topic. The broker stores all of them or none. */
export interface PublishRequest {
  topicName: string;
  messages: readonly PublishedMessage[];
  /** A repeat of the request has the same key, and gets the answer of the first. */
  idempotencyKey?: string | undefined;
}

/** The fate of one published message. */
export interface Published {
  /** Names nothing if no subscription wanted the message, which then is not stored. */
  id: Buffer;
  /** True: nothing was stored for it. The other fields are those of the first message. */
  duplicate: boolean;
  /** The number of queues that got it. */
  subscriptions: number;
  /** The queues that this request stored it in: none if it repeats an earlier one. */
  queues: readonly string[];
}

/**
 * For each message, in order. An error if nothing of the request is stored: a `RowmqError` with the
 * code `topic-not-found`, `queue-full`, `invalid-request`, `idempotency-key-reused` or
 * `enqueue-in-progress`.
 */
export type PublishOutcome = Published[] | Error;

/** A request that the batch carries out. */
interface Admission {
  request: PublishRequest;
  topic: Topic;
  plan: Pick<Plan<TopicMessage>, 'answer' | 'messages'> & Partial<Pick<Plan<TopicMessage>, 'records'>>;
}

/** The messages of one batch, all of which are stored or none. */
export interface TopicBatch {
  topics: readonly Topic[];
  messages: readonly TopicMessage[];
  /** By queue: the copies of a message must not share a receipt. */
  tokens: ReadonlyMap<number, Buffer>;
  /** Records of deduplicationIds and Idempotency-Keys, with the ids that the messages have now. */
  makeRecords: () => NewRecord[];
}

/**
 * Stores messages of topics: one copy of the payload, and a delivery for each subscription that
 * wants it. A batch is one round trip and one commit, as an enqueue is. Its statements check in the
 * database that the cached subscriptions and settings still hold.
 */
export class Publish {
  constructor(
    private readonly database: Database,
    private readonly topics: TopicCache,
    private readonly enqueuing: Enqueue,
    private readonly makePackId: () => Buffer = newPackId,
  ) {}

  async run(requests: readonly PublishRequest[], reserve: Reserve): Promise<PublishOutcome[]> {
    const deduplication = new Deduplication<TopicMessage>();
    for (let round = 1; ; round += 1) {
      const names = [...new Set(requests.map(({ topicName }) => topicName))];
      const topics = await this.topics.getAll(names);
      const outcomes = new Map<PublishRequest, PublishOutcome>();
      const admitted: Admission[] = [];
      const tokens = new Map<number, Buffer>();
      let batches: TopicQueueBatch[] = [];
      let storedAt: number | undefined;
      try {
        await this.admit(requests, topics, deduplication, { outcomes, admitted });
        const messages = admitted.flatMap(({ plan }) => plan.messages);
        batches = byQueue(messages);
        for (const batch of batches) {
          const { queue, ready } = batch;
          tokens.set(queue.id, newLeaseToken());
          // In an ordered queue, others of a group may come first.
          if (queue.ordering === null) reserveFor(batch, ready, () => reservablesOf(messages, queue.id), reserve);
        }
        const makeRecords = () => admitted.flatMap(({ plan }) => plan.records?.() ?? []);
        const used = [...new Set(admitted.map(({ topic }) => topic))];
        storedAt = await this.store({ topics: used, messages, tokens, makeRecords });
      } catch (error) {
        for (const admission of admitted) this.endCount(admission, false);
        this.enqueuing.cancel(batches, error);
        if (!(error instanceof SettingsChanged || error instanceof RecordMet)) throw error;
        if (round === ROUNDS) throw restless(error, 'topic');
        // One error of the database tells of either.
        for (const name of names) this.topics.evict(name);
        if (error instanceof RecordMet) await this.readRecords(requests, topics, deduplication, error);
        continue;
      }
      // Nothing may throw from here on: the caller would store the messages again.
      for (const admission of admitted) {
        this.endCount(admission, true);
        outcomes.set(admission.request, toPublished(admission.plan));
      }
      for (const batch of batches) {
        this.enqueuing.noteReady(batch.queue, batch.fates, storedAt);
        await this.enqueuing.handOff(batch, tokens.get(batch.queue.id) as Buffer, storedAt);
      }
      return requests.map((request) => outcomes.get(request) as PublishOutcome);
    }
  }

  /**
   * Adds each request that can be stored to `admitted`, and the outcome of every other one to
   * `outcomes`. The depth gauge counts admitted messages until the caller ends them.
   *
   * Throws {@link RecordMet} instead of refusing a request that may be a repeat.
   */
  private async admit(
    requests: readonly PublishRequest[],
    topics: ReadonlyMap<string, Topic>,
    deduplication: Deduplication<TopicMessage>,
    { outcomes, admitted }: { outcomes: Map<PublishRequest, PublishOutcome>; admitted: Admission[] },
  ): Promise<void> {
    const begunAt = performance.now();
    const terms = new MessageTerms(requests.some(namesInstant) ? await this.enqueuing.readClock() : 0);
    deduplication.startRound();
    for (const request of requests) {
      const topic = topics.get(request.topicName);
      if (topic === undefined) {
        outcomes.set(request, topicNotFound(request.topicName));
        continue;
      }
      try {
        const make = (message: PublishedMessage, index: number) => withTerms(message, topic, index, terms);
        const plan = isDeduplicated(request) ? deduplication.plan(inTopic(topic), request, make) : undefined;
        const admission = { request, topic, plan: plan ?? planOf(request.messages.map(make)) };
        await this.beginCount(admission, begunAt);
        if (plan !== undefined) deduplication.accept(plan);
        admitted.push(admission);
      } catch (error) {
        if (!(error instanceof RowmqError) || error.code === 'database-unavailable') throw error;
        if (isDeduplicated(request) && !deduplication.hasRead) throw new RecordMet(error);
        outcomes.set(request, error);
      }
    }
  }

  private async readRecords(
    requests: readonly PublishRequest[],
    topics: ReadonlyMap<string, Topic>,
    deduplication: Deduplication<TopicMessage>,
    met: RecordMet,
  ): Promise<void> {
    const keys = requests.flatMap((request) => {
      const topic = topics.get(request.topicName);
      return topic === undefined ? [] : recordKeys(inTopic(topic), request);
    });
    const { live, open } = await readRecords(this.database, keys, met);
    deduplication.learn(live, open);
  }

  /** Returns the database's time, as `Enqueue.store` does. */
  private async store(batch: TopicBatch): Promise<number | undefined> {
    if (batch.topics.length === 0) return undefined;
    nameUnwanted(batch.messages, this.makePackId);
    if (batch.messages.some(isInOrder)) return storePublishedInOrder(this.database, batch);
    const packs = packWanted(batch.messages, this.makePackId);
    const records = batch.makeRecords();
    return this.enqueuing.store(storePublished(batch, packs, records), {
      firstPack: packs[0]?.id,
      hasRecords: records.length > 0,
    });
  }

  /** Counts a request's messages in each queue. Throws `queue-full` if one has no room. */
  private async beginCount({ topic, plan }: Admission, begunAt: number): Promise<void> {
    const begun: [Queue, number][] = [];
    try {
      for (const [queue, count] of countByQueue(plan.messages)) {
        await this.enqueuing.depths.begin(queue, count, begunAt).catch((error: unknown) => {
          throw ofSubscriber(error, queue, topic);
        });
        begun.push([queue, count]);
      }
    } catch (error) {
      for (const [queue, count] of begun) this.enqueuing.depths.end(queue.id, count, false);
      throw error;
    }
  }

  private endCount({ plan }: Admission, isStored: boolean): void {
    for (const [queue, count] of countByQueue(plan.messages)) this.enqueuing.depths.end(queue.id, count, isStored);
  }
}

/** Gives ids to messages that no subscription wants, for their answers and records. */
export function nameUnwanted(messages: readonly TopicMessage[], makeId = newPackId): void {
  for (const message of messages) if (message.subscriptions === 0) message.id = makeId();
}

/** The plan of a request that names no id and no key. */
function planOf(messages: TopicMessage[]): Admission['plan'] {
  return { messages, answer: messages.map((message) => ({ message, duplicate: false })) };
}

/** A message with its terms, before it is stored. Throws what {@link MessageTerms.of} does. */
export function withTerms(message: PublishedMessage, topic: Topic, index: number, terms: MessageTerms): TopicMessage {
  const { body, headers, groupId, priority } = message;
  const its = terms.of(message, topic, index);
  return {
    terms: its,
    subscriptions: its.shares.length,
    body,
    headers,
    priority,
    ...(groupId !== undefined && { groupId }),
  };
}

/** The messages of a plan that was carried out. */
export function toPublished({ answer, messages }: Admission['plan']): Published[] {
  const queuesOf = new Map<object, readonly string[]>(messages.map((message) => [message, message.terms.queues]));
  return answer.map(({ message, duplicate }) => ({
    id: message.id as Buffer,
    duplicate,
    subscriptions: message.subscriptions as number,
    queues: (!duplicate && queuesOf.get(message)) || [],
  }));
}

export function countByQueue(messages: readonly TopicMessage[]): Map<Queue, number> {
  const counts = new Map<Queue, number>();
  for (const [{ shares }, group] of groupBy(messages, ({ terms }) => terms))
    for (const { queue } of shares) counts.set(queue, (counts.get(queue) ?? 0) + group.length);
  return counts;
}

/** The part of a batch for one queue, which several of its topics may share. */
interface TopicQueueBatch extends HandOffs {
  fates: Share[];
  /** The number of messages without a delay. */
  ready: number;
}

function byQueue(messages: readonly TopicMessage[]): TopicQueueBatch[] {
  const batches = new Map<number, TopicQueueBatch>();
  for (const [{ shares }, group] of groupBy(messages, ({ terms }) => terms)) {
    for (const share of shares) {
      const { queue, delayMs } = share;
      const batch = batches.get(queue.id) ?? { queue, fates: [], ready: 0, handOffs: [] };
      batches.set(queue.id, batch);
      batch.fates.push(share);
      if (delayMs === 0) batch.ready += group.length;
    }
  }
  return [...batches.values()];
}

/** The messages that a queue can hand off, the most urgent first. */
function reservablesOf(messages: readonly TopicMessage[], queueId: number): Admitted[] {
  return messages
    .flatMap((message) =>
      message.terms.shares.flatMap((share) =>
        share.queue.id === queueId && share.delayMs === 0 ? reservable(message, share) : [],
      ),
    )
    .toSorted((one, other) => one.priorityRank - other.priorityRank);
}

/**
 * The statements of a batch. They lock the topics' rows, then the queues' rows, shared, each in id
 * order, and lock and insert records in key order. They then insert deliveries and packs, and tell
 * the time of the store.
 *
 * A topic whose subscriptions changed since it was cached has no row with this version. Its
 * variable is then NULL, EXP overflows, the batch fails with 1690, and nothing of it is stored.
 * That also holds for a batch that stores nothing: a subscription that it does not know of might
 * want its messages. A queue that changed fails the INSERT, as in an enqueue.
 */
function storePublished(
  { topics, tokens }: TopicBatch,
  packs: readonly TopicPack[],
  records: readonly NewRecord[],
): Statement[] {
  const sorted = topics.toSorted((one, other) => one.id - other.id);
  const topicAt = new Map(sorted.map(({ id }, index) => [id, `@topic_${index}`]));
  const guards = sorted.map(
    ({ id, version }, index) =>
      `@topic_${index} = (SELECT id FROM topic FORCE INDEX (PRIMARY) WHERE id = ${id} AND version = ${version} LOCK IN SHARE MODE)`,
  );
  const isChanged = Array.from(topicAt.values(), (variable) => `${variable} IS NULL`).join(' OR ');
  const deliveries = packs.flatMap((pack) => pack.deliveries.map((delivery) => ({ ...delivery, packId: pack.id })));
  // Topics that were cached at different times may know two versions of a queue.
  const used = new Map(deliveries.map(({ queue }) => [versionOf(queue), queue]));
  const queues = [...used.values()].toSorted((one, other) => one.id - other.id);
  const queueAt = new Map(queues.map((queue, index) => [versionOf(queue), `@queue_${index}`]));
  const packRows = packs.map(
    ({ id, topic, count, lifeMs, payload }) =>
      `(${hex(id)},${topicAt.get(topic.id)},${count},@now+${lifeMs},${hex(payload)})`,
  );
  const deliveryRows = deliveries
    .toSorted((one, other) => one.queue.id - other.queue.id)
    .map(({ queue, ...delivery }) =>
      deliveryRow(
        { ...delivery, queueId: queueAt.get(versionOf(queue)) as string },
        '@now',
        tokens.get(queue.id) as Buffer,
      ),
    );
  return [
    { sql: `SET ${guards.join(',\n    ')}` },
    { sql: `SET @changed = EXP(IF(${isChanged}, 99999, 0))` },
    ...(queues.length > 0 ? [lockQueues(queues)] : []),
    // The time comes after the locks.
    { sql: `SET @now = ${NOW_MS}` },
    ...storeRecords(records.map((record) => ({ record }))),
    ...(packs.length > 0 ? [insertNewDeliveries(deliveryRows), insertPacks(packRows, { owner: 'topic_id' })] : []),
    { sql: 'SELECT @now AS now' },
  ];
}

function versionOf({ id, version }: Queue): string {
  return `${id}.${version}`;
}
