import { randomBytes } from 'node:crypto';
import {
  type AckAnswer,
  type AuditAnswer,
  ackRequest,
  type AckRequest,
  bodyEncodingOf,
  type BrowseAnswer,
  browseQuery,
  type BrowseQuery,
  checkDeadLetterPath,
  checkGroup,
  checkDeadLetterExpired,
  checkMaxReceives,
  checkOrdering,
  type ConsumersAnswer,
  decodeReceipt,
  type CreateKeyRequest,
  type DeliveryState,
  type DequeueAnswer,
  dequeueRequest,
  type DequeueRequest,
  encodeReceipt,
  type EnqueueAnswer,
  type EnqueueMessage,
  enqueueRequest,
  type EnqueueRequest,
  type ExtendAnswer,
  type ExtendRequest,
  extendRequest,
  type FailedReceipt,
  formatMessageId,
  type HistoryAnswer,
  IDEMPOTENCY_SECONDS,
  idempotencyKey as idempotencyKeySchema,
  LEASE_GRACE_MS,
  countFitting,
  type KeyAnswer,
  type KeyLimitsRequest,
  type KeysAnswer,
  type KeysQuery,
  type LeasedMessage,
  type MessageAnswer,
  messageBytes,
  dropRequest,
  type DropRequest,
  jobId,
  type JobsAnswer,
  jobsQuery,
  type JobsQuery,
  type JobAnswer,
  matchesContent,
  matchesDelivery,
  type MessageFilter,
  messageIdText,
  moveMessageRequest,
  type MoveMessageRequest,
  oneMessageRequest,
  type OneMessageRequest,
  type NackAnswer,
  type NackRequest,
  nackRequest,
  newPackId,
  parseMessageId,
  type MessageMove,
  type MoveCause,
  type NewKeyAnswer,
  type PauseAnswer,
  type PauseSide,
  type PublishAnswer,
  publishRequest,
  type PublishRequest,
  putQueueRequest,
  type PutQueueRequest,
  type PutScheduleRequest,
  putSubscriptionRequest,
  type PutSubscriptionRequest,
  putTopicRequest,
  type PutTopicRequest,
  QUEUE_DEFAULTS,
  type QueueAnswer,
  queueName,
  type QueueSettings,
  type QueuesAnswer,
  type QueueStats,
  type ReaperAnswer,
  readRequest,
  redriveRequest,
  type RedriveRequest,
  type ReleaseAnswer,
  type ReleaseRequest,
  releaseRequest,
  type ReplayAnswer,
  type ReplayRequest,
  replayRequest,
  RowmqError,
  type RotateKeyRequest,
  type RunScheduleAnswer,
  type ScheduleAnswer,
  type SchedulesAnswer,
  type SchedulesQuery,
  type SizeLimits,
  sizeLimits,
  type SubscriptionAnswer,
  type TopicAnswer,
  type TopicsAnswer,
} from '@rowmq/contract';
import { pause } from '../timers.js';
import { type CallOptions, BrokerClient, type DeleteQueueOptions, type EnqueueCallOptions } from '../broker-client.js';
import { EarlierEnqueues } from './earlier-enqueues.js';
import { FairLines } from './fair-lines.js';
import { inGroupOrder } from './group-order.js';
import { type Code, type Delivery, keyOf, LeaseProtocol, type Message, type Receipt } from './lease-protocol.js';
import { MemoryKeys } from './memory-keys.js';
import { MemorySchedules } from './memory-schedules.js';
import { MemoryTopics } from './memory-topics.js';

/** The parts of a message that the lease protocol does not need. */
interface Content extends Pick<LeasedMessage, 'bodyEncoding' | 'headers' | 'groupId'> {
  enqueuedAt: number;
  topic: string | null;
}

export interface InMemoryBrokerOptions {
  /** The largest body, as `ROWMQ_MAX_BODY_BYTES` of a broker. Default 4096. */
  maxBodyBytes?: number | undefined;
}

/** A delivery, as {@link InMemoryBroker.messages} shows it. */
export type MemoryMessage = Pick<
  LeasedMessage,
  'id' | 'body' | 'bodyEncoding' | 'headers' | 'priority' | 'receiveCount'
> & {
  nackReason: string | undefined;
  /** For a leased delivery: the end of its lease. */
  availableAt: Date;
};

const TOKEN_BYTES = 8;
const POLL_MS = 5;
/** The last jobs that can be asked for. */
const JOBS_KEPT = 100;

/** A delivery keeps its first move and so many of the last ones, as in a broker. */
const LAST_MOVES = 3;

interface MemoryMove extends Omit<MessageMove, 'at'> {
  at: number;
}

interface MemoryQueue extends QueueSettings {
  paused: boolean;
  producersPaused: boolean;
  createdAt: number;
}

/**
 * A broker in this process's memory, for tests of services that use RowMQ. It has the same verbs
 * and refuses the same requests, without HTTP, a database or durability.
 *
 * The first use of a queue creates it, with the settings of a new queue. `putQueue` changes them.
 */
export class InMemoryBroker extends BrokerClient {
  readonly #sizes: SizeLimits;
  readonly #queues = new Map<string, MemoryQueue>();
  readonly #protocol = new LeaseProtocol(this.#queues, Date.now(), (delivery, cause) =>
    this.#noteMove(delivery, cause),
  );
  readonly #contents = new Map<string, Content>();
  readonly #earlier = new EarlierEnqueues();
  readonly #published = new EarlierEnqueues<PublishAnswer>();
  readonly #jobs = new Map<string, JobAnswer>();
  /** By delivery, the reason of its last nack. */
  readonly #reasons = new Map<string, string>();
  /** By delivery, its moves, oldest first. */
  readonly #moves = new Map<string, MemoryMove[]>();
  readonly #topics = new MemoryTopics();
  readonly #keys = new MemoryKeys();
  readonly #lines = new FairLines();
  /** The dequeues that wait for messages. */
  readonly #waiting = new Set<AbortController>();
  readonly #schedules = new MemorySchedules(async ({ queue, topic }, message) => {
    const { messages } = await (topic === null
      ? this.enqueue(queue as string, { messages: [message] })
      : this.publish(topic, { messages: [message] }));
    return messages[0]?.id as string;
  });
  #isClosed = false;

  constructor({ maxBodyBytes }: InMemoryBrokerOptions = {}) {
    super();
    this.#sizes = sizeLimits(maxBodyBytes);
  }

  async enqueue(
    queue: string,
    request: EnqueueRequest,
    { idempotencyKey }: EnqueueCallOptions = {},
  ): Promise<EnqueueAnswer> {
    const { deduplicationSeconds, ordering } = this.#use(queue);
    const { messages } = readRequest(enqueueRequest, request, this.#sizes);
    for (const [index, message] of messages.entries()) checkGroup(message, { name: queue, ordering }, index);
    const key = readRequest(idempotencyKeySchema, idempotencyKey);
    const enqueuedAt = this.#protocol.now;
    const repeated =
      key === undefined ? undefined : this.#earlier.answer(queue, key, JSON.stringify(messages), enqueuedAt);
    if (repeated !== undefined) return repeated;
    const stamped = this.#stamp(messages, null);
    const firsts = this.#earlier.firsts(queue, stamped, enqueuedAt);
    const fresh = stamped.filter((_, index) => firsts[index] === undefined);
    const drafts = this.#draft(queue, fresh, 0);
    const owed = this.#protocol.in(queue);
    for (const [index, { groupId }] of ordering === null ? fresh.entries() : [])
      if (groupId !== undefined) this.#lines.place(drafts[index] as Delivery, groupId, owed, enqueuedAt);
    this.#store(fresh, drafts);
    const answer = {
      messages: stamped.map(({ id }, index) => {
        const first = firsts[index];
        return first === undefined ? { id } : { id: first.id, duplicate: true as const };
      }),
    };
    this.#earlier.rememberMessages(queue, fresh, enqueuedAt, deduplicationSeconds);
    if (key !== undefined) {
      const seconds = Math.max(deduplicationSeconds, IDEMPOTENCY_SECONDS);
      this.#earlier.rememberAnswer(queue, key, { request: JSON.stringify(messages), answer }, enqueuedAt, seconds);
    }
    return answer;
  }

  async publish(
    topic: string,
    request: PublishRequest,
    { idempotencyKey }: EnqueueCallOptions = {},
  ): Promise<PublishAnswer> {
    const now = (this.#protocol.now = Date.now());
    const { messages } = readRequest(publishRequest, request, this.#sizes);
    const { deduplicationSeconds } = this.#topics.use(topic);
    const key = readRequest(idempotencyKeySchema, idempotencyKey);
    const text = JSON.stringify(messages);
    const repeated = key === undefined ? undefined : this.#published.answer(topic, key, text, now);
    if (repeated !== undefined) return repeated;
    const stamped = this.#stamp(messages, topic).map((message, index) => {
      const subscribers = this.#topics.subscribers(topic, message.headers ?? {});
      return { ...message, index, subscribers, subscriptions: subscribers.length };
    });
    const firsts = this.#published.firsts(topic, stamped, now);
    const fresh = stamped.filter((_, index) => firsts[index] === undefined);
    const copies = new Map(fresh.flatMap(({ subscribers }) => subscribers.map(({ queue, copy }) => [queue, copy])));
    const drafts = [...copies].flatMap(([queue, copy]) => {
      const ofQueue = fresh.filter(({ subscribers }) => subscribers.some((one) => one.queue === queue));
      const { ordering } = this.#use(queue);
      for (const one of ofQueue) checkGroup(one, { name: queue, ordering }, one.index);
      return this.#draft(queue, ofQueue, copy);
    });
    this.#store(fresh, drafts);
    this.#forgetSettled();
    const answer = {
      messages: stamped.map(({ id, subscriptions }, index) => {
        const first = firsts[index];
        if (first === undefined) return { id, subscriptions };
        return { id: first.id, subscriptions: first.subscriptions ?? 0, duplicate: true as const };
      }),
    };
    this.#published.rememberMessages(topic, fresh, now, deduplicationSeconds);
    if (key !== undefined) {
      const seconds = Math.max(deduplicationSeconds, IDEMPOTENCY_SECONDS);
      this.#published.rememberAnswer(topic, key, { request: text, answer }, now, seconds);
    }
    return answer;
  }

  async putTopic(topic: string, settings: PutTopicRequest = {}): Promise<TopicAnswer> {
    return this.#topics.put(topic, readRequest(putTopicRequest, settings));
  }

  async getTopic(topic: string): Promise<TopicAnswer> {
    return this.#topics.get(topic);
  }

  async listTopics(): Promise<TopicsAnswer> {
    return { topics: this.#topics.list() };
  }

  async deleteTopic(topic: string): Promise<void> {
    this.#topics.delete(topic);
    this.#published.forget(topic);
  }

  async putSubscription(
    topic: string,
    queue: string,
    request: PutSubscriptionRequest = {},
  ): Promise<SubscriptionAnswer> {
    this.#use(queue);
    return this.#topics.putSubscription(topic, queue, readRequest(putSubscriptionRequest, request));
  }

  async getSubscription(topic: string, queue: string): Promise<SubscriptionAnswer> {
    return this.#topics.getSubscription(topic, queue);
  }

  async deleteSubscription(topic: string, queue: string): Promise<void> {
    this.#topics.deleteSubscription(topic, queue);
  }

  async dequeue(queue: string, request: DequeueRequest = {}, { signal }: CallOptions = {}): Promise<DequeueAnswer> {
    const settings = this.#use(queue);
    const { maxMessages, waitSeconds, leaseSeconds, ack, withSettings } = readRequest(dequeueRequest, request);
    const began = Date.now();
    const until = began + waitSeconds * 1000;
    signal?.throwIfAborted();
    const acks = ack === undefined ? {} : this.#ack(queue, ack);
    for (;;) {
      signal?.throwIfAborted();
      const length = leaseSeconds ?? settings.leaseSeconds;
      const messages = settings.paused ? [] : this.#lease(queue, maxMessages, length);
      if (messages.length > 0 || Date.now() >= until || this.#isClosed) {
        const maxReceives = settings.deadLetterQueue === null ? null : settings.maxReceives;
        // These leases began at the time of the protocol.
        const waitedMs = Math.max(0, this.#protocol.now - began);
        const timing = { waitedMs, settings: { leaseSeconds: length, maxReceives, ordering: settings.ordering } };
        return { messages, ...acks, ...(withSettings === true && timing) };
      }
      await this.#change(queue, until, signal);
    }
  }

  async ack(queue: string, request: AckRequest): Promise<AckAnswer> {
    this.#use(queue);
    return this.#ack(queue, readRequest(ackRequest, request).receipts);
  }

  async nack(queue: string, request: NackRequest): Promise<NackAnswer> {
    this.#use(queue);
    const { receipts, delaySeconds, deadLetter, reason } = readRequest(nackRequest, request);
    const { done, failed } = this.#settle(queue, receipts, (receipt) => {
      const delivery = this.#protocol.held(receipt);
      const code = deadLetter ? this.#protocol.reject(receipt) : this.#protocol.nack(receipt, delaySeconds);
      if (code === 'invalid-request') {
        throw new RowmqError(
          code,
          'The queue has no dead-letter queue; set its deadLetterQueue, or nack without deadLetter.',
        );
      }
      // A move keeps an earlier reason if it has none of its own.
      if (code === null && !(deadLetter && reason === undefined)) this.#setReason(delivery, reason);
      const move = deadLetter && delivery !== undefined ? this.#moves.get(keyOf(delivery))?.at(-1) : undefined;
      if (code === null && move !== undefined && reason !== undefined) move.reason = reason;
      return code;
    });
    this.#wake();
    return { nacked: done, failed };
  }

  async release(queue: string, request: ReleaseRequest): Promise<ReleaseAnswer> {
    this.#use(queue);
    const { receipts, delaySeconds, reason } = readRequest(releaseRequest, request);
    const { done, failed } = this.#settle(queue, receipts, (receipt) => {
      const delivery = this.#protocol.held(receipt);
      const code = this.#protocol.release(receipt, delaySeconds);
      if (code === null && reason !== undefined) this.#setReason(delivery, reason);
      return code;
    });
    this.#wake();
    return { released: done, failed };
  }

  async extend(queue: string, request: ExtendRequest): Promise<ExtendAnswer> {
    this.#use(queue);
    const { receipts, leaseSeconds } = readRequest(extendRequest, request);
    const leaseExpiresAt = new Date(this.#protocol.now + leaseSeconds * 1000).toISOString();
    const { done, failed } = this.#settle(queue, receipts, (receipt) => this.#protocol.extend(receipt, leaseSeconds));
    return { extended: done.map((receipt) => ({ receipt, leaseExpiresAt })), failed };
  }

  async ackOne(queue: string, receipt: string): Promise<void> {
    const { failed } = await this.ack(queue, { receipts: [receipt] });
    const code = failed[0]?.code;
    if (code !== undefined) throw new RowmqError(code, `The message was not acked: ${code}.`);
  }

  async createQueue(queue: string, settings: PutQueueRequest = {}): Promise<void> {
    const name = readRequest(queueName, queue);
    readRequest(putQueueRequest, settings);
    if (!this.#queues.has(name)) await this.putQueue(name, settings);
  }

  async putQueue(queue: string, settings: PutQueueRequest = {}): Promise<QueueAnswer> {
    const name = readRequest(queueName, queue);
    const given = readRequest(putQueueRequest, settings);
    const to = given.deadLetterQueue;
    if (to !== undefined && to !== null) {
      if (to !== name && !this.#queues.has(to)) {
        throw new RowmqError('invalid-request', `Dead-letter queue '${to}' does not exist; create it first.`);
      }
      checkDeadLetterPath(name, this.#deadLetterPath(to));
    }
    const was = this.#queues.get(name)?.ordering;
    const changed = { ...this.#use(name), ...given };
    const target = typeof to === 'string' ? { name: to, ordering: this.#use(to).ordering } : undefined;
    try {
      checkOrdering(name, changed, was, target);
    } catch (error) {
      if (was === undefined) this.#queues.delete(name);
      throw error;
    }
    checkMaxReceives(name, changed.maxReceives, changed.deadLetterQueue !== null);
    checkDeadLetterExpired(name, changed.deadLetterExpired, changed.deadLetterQueue !== null);
    Object.assign(this.#use(name), given);
    this.#wake();
    return this.getQueue(name);
  }

  async getQueue(queue: string): Promise<QueueAnswer> {
    const { createdAt, ...settings } = this.#use(queue);
    const rates = ([1, 5, 60] as const).map((minutes) => ({ minutes, in: 0, out: 0, failed: 0, expired: 0 }));
    return { name: queue, ...settings, createdAt: new Date(createdAt).toISOString(), stats: this.#stats(queue), rates };
  }

  async listQueues(): Promise<QueuesAnswer> {
    return { queues: await Promise.all([...this.#queues.keys()].toSorted().map(async (name) => this.getQueue(name))) };
  }

  async deleteQueue(queue: string, { force = false }: DeleteQueueOptions = {}): Promise<void> {
    this.#use(queue);
    const user = [...this.#queues].find(([, { deadLetterQueue }]) => deadLetterQueue === queue)?.[0];
    if (user !== undefined) {
      throw new RowmqError(
        'invalid-request',
        `Queue '${queue}' is the dead-letter queue of '${user}'; change that first.`,
      );
    }
    const messages = this.#protocol.depth(queue);
    if (messages > 0 && !force)
      throw new RowmqError('queue-not-empty', `Queue '${queue}' has ${messages} messages; delete it with force.`);
    for (const delivery of this.#protocol.in(queue)) this.#protocol.drop(delivery);
    this.#queues.delete(queue);
    for (const move of [...this.#moves.values()].flat()) if (move.from === queue) move.from = null;
    this.#earlier.forget(queue);
    this.#topics.forgetQueue(queue);
    this.#lines.forgetQueue(queue);
    this.#forgetSettled();
  }

  async pauseQueue(queue: string, { side = 'consumers' }: { side?: PauseSide } = {}): Promise<PauseAnswer> {
    return this.#setPaused(queue, side, true);
  }

  async resumeQueue(queue: string, { side = 'both' }: { side?: PauseSide } = {}): Promise<PauseAnswer> {
    return this.#setPaused(queue, side, false);
  }

  #setPaused(queue: string, side: PauseSide, value: boolean): PauseAnswer {
    const settings = this.#use(queue);
    if (side !== 'producers') settings.paused = value;
    if (side !== 'consumers') settings.producersPaused = value;
    this.#wake();
    return { name: queue, paused: settings.paused, producersPaused: settings.producersPaused };
  }

  /** It remembers no minutes. */
  async getHistory(queue: string): Promise<HistoryAnswer> {
    this.#use(queue);
    return { queue, minutes: [] };
  }

  /** It does not know who calls. */
  async getConsumers(queue: string): Promise<ConsumersAnswer> {
    return { queue, consumers: [], otherLeases: this.#stats(queue).leased, complete: true };
  }

  /** The job is done when it is answered. */
  async purge(queue: string): Promise<JobAnswer> {
    this.#use(queue);
    const { purged, left } = this.#protocol.purge(queue);
    this.#forgetSettled();
    const total = purged + left;
    return this.#done({ kind: 'purge', queue, total, examined: total, done: purged, skipped: left });
  }

  /** The job is done when it is answered. */
  async redrive(queue: string, request: RedriveRequest = {}): Promise<JobAnswer> {
    this.#use(queue);
    const { filter, toQueue, messagesPerSecond, maxMessages = null } = readRequest(redriveRequest, request);
    if (toQueue !== undefined) this.#use(toQueue);
    const total = this.#protocol.in(queue).length;
    let done = 0;
    const { moved, skipped } = this.#protocol.redrive(
      queue,
      (one) => {
        const isChosen =
          this.#queues.has(toQueue ?? one.origin) &&
          (maxMessages === null || done < maxMessages) &&
          this.#matches(filter, one);
        if (isChosen) done += 1;
        return isChosen;
      },
      toQueue,
    );
    this.#wake();
    return this.#done({
      kind: 'redrive',
      queue,
      toQueue: toQueue ?? null,
      filter,
      messagesPerSecond,
      maxMessages,
      total,
      examined: total,
      done: [...moved.values()].reduce((sum, count) => sum + count, 0),
      skipped,
    });
  }

  #done(
    job: Partial<JobAnswer> & Pick<JobAnswer, 'kind' | 'queue' | 'total' | 'examined' | 'done' | 'skipped'>,
  ): JobAnswer {
    const now = new Date(this.#protocol.now).toISOString();
    const [oldest] = this.#jobs.keys();
    if (this.#jobs.size >= JOBS_KEPT && oldest !== undefined) this.#jobs.delete(oldest);
    const done: JobAnswer = {
      id: formatMessageId(newPackId()),
      toQueue: null,
      filter: {},
      messagesPerSecond: null,
      maxMessages: null,
      state: 'done',
      error: null,
      worker: null,
      createdAt: now,
      updatedAt: now,
      finishedAt: now,
      ...job,
    };
    this.#jobs.set(done.id, done);
    return done;
  }

  /** The job is done when it is answered. */
  async drop(queue: string, request: DropRequest = {}): Promise<JobAnswer> {
    this.#use(queue);
    const { filter, messagesPerSecond = null, maxMessages = null } = readRequest(dropRequest, request);
    const all = this.#protocol.in(queue);
    const chosen = all.filter((one) => !this.#protocol.isLeased(one) && this.#matches(filter, one));
    const dropped = maxMessages === null ? chosen : chosen.slice(0, maxMessages);
    for (const one of dropped) this.#protocol.drop(one);
    this.#forgetSettled();
    const counts = { total: all.length, examined: all.length, done: dropped.length, skipped: 0 };
    return this.#done({ kind: 'drop', queue, filter, messagesPerSecond, maxMessages, ...counts });
  }

  async listJobs(query: Partial<JobsQuery> = {}): Promise<JobsAnswer> {
    const { queue, state, limit, after } = readRequest(jobsQuery, query);
    const found = [...this.#jobs.values()]
      .toReversed()
      .filter(
        (job) =>
          (queue === undefined || job.queue === queue) &&
          (state === undefined || job.state === state) &&
          (after === undefined || job.id < after),
      );
    const jobs = found.slice(0, limit);
    return { jobs, nextAfter: found.length > limit ? (jobs.at(-1)?.id ?? null) : null };
  }

  /** Every job is done, so nothing changes. */
  async cancelJob(id: string): Promise<JobAnswer> {
    return this.getJob(id);
  }

  async getJob(id: string): Promise<JobAnswer> {
    const job = this.#jobs.get(readRequest(jobId, id).toLowerCase());
    if (job === undefined) throw new RowmqError('job-not-found', `Job ${id} does not exist.`);
    return job;
  }

  /**
   * Finds nothing to replay: a settled message is forgotten at once, as if it had been reaped. It
   * counts what is owed.
   */
  async replay(queue: string, request: ReplayRequest): Promise<ReplayAnswer> {
    const { from, to, toQueue = queue } = readRequest(replayRequest, request);
    this.#use(queue);
    this.#use(toQueue);
    const owed = [...this.#protocol.owed.values()].filter(({ id, origin }) => {
      const { enqueuedAt } = this.#content(id);
      return origin === queue && enqueuedAt >= Date.parse(from) && enqueuedAt < Date.parse(to);
    });
    return { replayed: 0, owed: owed.length, complete: true, cursor: null };
  }

  async browse(queue: string, query: Partial<BrowseQuery> = {}): Promise<BrowseAnswer> {
    this.#use(queue);
    const { state, limit, after = '0', ...filter } = readRequest(browseQuery, query);
    const from = Number.parseInt(after, 10) || 0;
    const found = this.#protocol
      .in(queue)
      .filter((delivery) => this.#stateOf(delivery) === state && this.#matches(filter, delivery))
      .toSorted(inHandOutOrder);
    const messages = found.slice(from, from + limit).map((delivery) => {
      const { queue: _, ...browsed } = this.#browsed(delivery);
      return { ...this.#shown(delivery), ...browsed };
    });
    return {
      messages,
      examined: messages.length,
      nextAfter: found.length > from + limit ? String(from + limit) : null,
    };
  }

  /** A settled message is forgotten at once, as if it had been reaped. */
  async getMessage(id: string): Promise<MessageAnswer> {
    this.#protocol.now = Date.now();
    const deliveries = this.#protocol.copies(readRequest(messageIdText, id).toLowerCase());
    const [first] = deliveries;
    if (first === undefined) {
      throw new RowmqError('delivery-not-found', `There is no message ${id}: it was settled, or never existed.`);
    }
    const { topic } = this.#content(first.id);
    return {
      ...this.#shown(first),
      queue: topic === null && this.#queues.has(first.origin) ? first.origin : null,
      topic,
      settled: false,
      endings: [],
      deliveries: deliveries.map((one) => this.#browsed(one)),
    };
  }

  async cancelMessage(id: string): Promise<void> {
    this.#protocol.now = Date.now();
    const code = this.#protocol.cancel(readRequest(messageIdText, id).toLowerCase());
    this.#forgetSettled();
    if (code === null) return;
    const why = code === 'message-leased' ? 'a consumer holds it' : 'it was settled, or never existed';
    throw new RowmqError(code, `Message ${id} cannot be cancelled: ${why}.`);
  }

  async ackMessage(id: string, request: OneMessageRequest = {}): Promise<void> {
    for (const one of this.#owing(id, readRequest(oneMessageRequest, request).queue)) this.#protocol.drop(one);
    this.#forgetSettled();
    this.#wake();
  }

  async releaseMessage(id: string, request: OneMessageRequest = {}): Promise<void> {
    for (const one of this.#owing(id, readRequest(oneMessageRequest, request).queue)) {
      const receiveCount = one.token === null ? one.receiveCount : one.receiveCount - 1;
      this.#protocol.offer(one, this.#protocol.now, { receiveCount });
    }
    this.#wake();
  }

  async redriveMessage(id: string, request: OneMessageRequest = {}): Promise<void> {
    for (const one of this.#owing(id, readRequest(oneMessageRequest, request).queue))
      this.#moveTo(one, one.origin, 'redriven');
  }

  async moveMessage(id: string, request: MoveMessageRequest): Promise<void> {
    const { toQueue, queue } = readRequest(moveMessageRequest, request);
    this.#use(toQueue);
    const [one, ...others] = this.#owing(id, queue);
    if (others.length > 0)
      throw new RowmqError('invalid-request', `Several queues owe message ${id}; name one as queue.`);
    this.#moveTo(one as Delivery, toQueue, 'moved');
  }

  #moveTo(delivery: Delivery, queue: string, cause: MoveCause): void {
    if (delivery.queue === queue || !this.#queues.has(queue))
      throw new RowmqError('invalid-request', `Message ${delivery.id} has no queue to go to.`);
    this.#protocol.move(delivery, queue, cause);
    this.#wake();
  }

  /** The deliveries of a message in a queue, or in all. Throws `delivery-not-found`. */
  #owing(id: string, queue: string | undefined): Delivery[] {
    if (queue !== undefined) this.#use(queue);
    this.#protocol.now = Date.now();
    const owing = this.#protocol
      .copies(readRequest(messageIdText, id).toLowerCase())
      .filter((one) => queue === undefined || one.queue === queue);
    if (owing.length === 0) throw new RowmqError('delivery-not-found', `No queue owes message ${id}.`);
    return owing;
  }

  /** The schedules run by this process's timers, fake ones included. */
  async putSchedule(schedule: string, request: PutScheduleRequest): Promise<ScheduleAnswer> {
    return this.#schedules.put(schedule, request, this.#sizes);
  }

  async getSchedule(schedule: string): Promise<ScheduleAnswer> {
    return this.#schedules.get(schedule);
  }

  async listSchedules(query: Partial<SchedulesQuery> = {}): Promise<SchedulesAnswer> {
    return this.#schedules.list(query);
  }

  async deleteSchedule(schedule: string): Promise<void> {
    this.#schedules.delete(schedule);
  }

  async runSchedule(schedule: string): Promise<RunScheduleAnswer> {
    return this.#schedules.run(schedule);
  }

  async getReaper(): Promise<ReaperAnswer> {
    return { leader: null, duties: [] };
  }

  async createKey(request: CreateKeyRequest): Promise<NewKeyAnswer> {
    return this.#keys.create(request);
  }

  async listKeys(query: Partial<KeysQuery> = {}): Promise<KeysAnswer> {
    return this.#keys.list(query);
  }

  async getKey(key: string): Promise<KeyAnswer> {
    return this.#keys.get(key);
  }

  async rotateKey(key: string, request: RotateKeyRequest = {}): Promise<NewKeyAnswer> {
    return this.#keys.rotate(key, request);
  }

  /** It stores the limits, and lets everybody exceed them. */
  async putKeyLimits(key: string, limits: KeyLimitsRequest): Promise<KeyAnswer> {
    return this.#keys.putLimits(key, limits);
  }

  async revokeKey(key: string): Promise<void> {
    this.#keys.revoke(key);
  }

  /** It has no audit. */
  async listAudit(): Promise<AuditAnswer> {
    return { entries: [], nextAfter: null };
  }

  async ready(): Promise<void> {}

  async live(): Promise<void> {}

  async metrics(): Promise<string> {
    return '';
  }

  #matches(filter: MessageFilter, delivery: Delivery): boolean {
    const { bodyEncoding, headers, enqueuedAt } = this.#content(delivery.id);
    const nackReason = this.#reasons.get(keyOf(delivery)) ?? null;
    const moves = this.#moves.get(keyOf(delivery)) ?? [];
    return (
      matchesDelivery(filter, { source: delivery.origin, nackReason, moves, enqueuedAt }) &&
      matchesContent(filter, { headers, body: Buffer.from(delivery.body, bodyEncoding) })
    );
  }

  /** A queue, its dead-letter queue, the dead-letter queue of that one, and so on. */
  #deadLetterPath(first: string): string[] {
    const path: string[] = [];
    for (let next: string | null = first; next !== null; next = this.#queues.get(next)?.deadLetterQueue ?? null)
      path.push(next);
    return path;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#schedules.close();
    this.#wake();
  }

  /** All deliveries of a queue, in any state, in the order in which they were enqueued. */
  messages(queue: string): MemoryMessage[] {
    this.#use(queue);
    return this.#protocol.in(queue).map((delivery) => {
      const { id, body, priority, receiveCount, availableAt, token } = delivery;
      const { bodyEncoding, headers } = this.#content(id);
      const nackReason = this.#reasons.get(keyOf(delivery));
      const from = new Date(token === null ? availableAt : availableAt - LEASE_GRACE_MS);
      return { id, body, bodyEncoding, headers, priority, receiveCount, nackReason, availableAt: from };
    });
  }

  /** Resolves when the queue is empty. Throws Error after `timeoutMs`, and names what is left. */
  async drained(queue: string, timeoutMs = 5000): Promise<void> {
    const until = Date.now() + timeoutMs;
    for (;;) {
      const left = this.messages(queue).map(
        ({ id, receiveCount, nackReason }) => `${id} (received ${receiveCount} times, ${nackReason ?? 'no reason'})`,
      );
      if (left.length === 0) return;
      if (Date.now() > until) {
        throw new Error(`Queue '${queue}' was not drained within ${timeoutMs} ms: ${left.join(', ')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** The queue. Every call starts here: it moves the protocol's clock on. */
  #use(queue: string): MemoryQueue {
    const name = readRequest(queueName, queue);
    this.#protocol.now = Date.now();
    const known = this.#queues.get(name);
    if (known !== undefined) return known;
    const settings: MemoryQueue = { ...QUEUE_DEFAULTS, paused: false, producersPaused: false, createdAt: Date.now() };
    this.#queues.set(name, settings);
    return settings;
  }

  /** Dequeues look again at what is ready. */
  #wake(): void {
    for (const waiting of this.#waiting) waiting.abort();
  }

  /** Resolves when a message of the queue may have become ready, or the time is up. */
  async #change(queue: string, until: number, signal: AbortSignal | undefined): Promise<void> {
    const now = Date.now();
    const next = this.#protocol.in(queue).map(({ availableAt }) => availableAt);
    const soonest = Math.min(until, ...next.filter((instant) => instant > now));
    const waiting = new AbortController();
    this.#waiting.add(waiting);
    await pause(soonest - now, signal, waiting.signal);
    this.#waiting.delete(waiting);
  }

  #stateOf(delivery: Delivery): DeliveryState | 'expired' {
    if (this.#protocol.isLeased(delivery)) return 'leased';
    if (delivery.expiresAt <= this.#protocol.now) return 'expired';
    if (this.#protocol.isBehind(delivery)) return 'waiting';
    return delivery.availableAt > this.#protocol.now ? 'delayed' : 'ready';
  }

  #stats(queue: string): QueueStats {
    const deliveries = this.#protocol.in(queue);
    const count = (state: DeliveryState) => deliveries.filter((one) => this.#stateOf(one) === state);
    const ready = count('ready');
    const oldest = Math.min(...ready.map(({ availableAt }) => availableAt));
    return {
      ready: ready.length,
      delayed: count('delayed').length,
      leased: count('leased').length,
      waiting: count('waiting').length,
      oldestReadyAgeSeconds: ready.length === 0 ? null : (this.#protocol.now - oldest) / 1000,
      ageSeconds: 0,
      errorBound: 0,
    };
  }

  #shown({ id, body, expiresAt }: Delivery) {
    const { bodyEncoding, headers, groupId, enqueuedAt } = this.#content(id);
    const times = { enqueuedAt: new Date(enqueuedAt).toISOString(), expiresAt: new Date(expiresAt).toISOString() };
    return { id, body, bodyEncoding, headers: { ...headers }, ...(groupId !== undefined && { groupId }), ...times };
  }

  #browsed(delivery: Delivery): MessageAnswer['deliveries'][number] {
    const { queue, priority, receiveCount, availableAt, expiresAt } = delivery;
    const state = this.#stateOf(delivery);
    return {
      queue,
      state,
      priority,
      receiveCount,
      availableAt: new Date(state === 'leased' ? availableAt - LEASE_GRACE_MS : availableAt).toISOString(),
      expiresAt: new Date(expiresAt).toISOString(),
      lastNackReason: this.#reasons.get(keyOf(delivery)) ?? null,
      source: delivery.origin === queue || !this.#queues.has(delivery.origin) ? null : delivery.origin,
      moves: (this.#moves.get(keyOf(delivery)) ?? []).map(({ at, ...move }) => ({
        ...move,
        at: new Date(at).toISOString(),
      })),
    };
  }

  #content(id: string): Content {
    return this.#contents.get(id) as Content;
  }

  #lease(queue: string, maxMessages: number, leaseSeconds: number): LeasedMessage[] {
    const protocol = this.#protocol;
    const now = (protocol.now = Date.now());
    protocol.expire();
    protocol.deadLetter();
    this.#forgetSettled();
    const ready = protocol.in(queue).filter((delivery) => protocol.isReady(delivery));
    const leaseExpiresAt = now + leaseSeconds * 1000;
    const isOrdered = this.#queues.get(queue)?.ordering === 'group';
    const inOrder = isOrdered ? inGroupOrder(ready) : ready.toSorted(inHandOutOrder);
    const wanted = inOrder.slice(0, maxMessages);
    return wanted
      .slice(
        0,
        countFitting(wanted, ({ body }) => Buffer.byteLength(body)),
      )
      .map((delivery) => {
        const token = randomBytes(TOKEN_BYTES);
        protocol.lease(delivery, token.toString('hex'), leaseExpiresAt);
        const { id, body, priority, receiveCount, expiresAt } = delivery;
        const { bodyEncoding, headers, groupId, enqueuedAt } = this.#content(id);
        return {
          id,
          body,
          bodyEncoding,
          headers: { ...headers },
          priority,
          ...(groupId !== undefined && { groupId }),
          receipt: encodeReceipt({ messageId: parseMessageId(id), leaseToken: token, part: 0, members: 0 }),
          receiveCount,
          enqueuedAt: new Date(enqueuedAt).toISOString(),
          expiresAt: new Date(expiresAt).toISOString(),
          leaseExpiresAt: new Date(leaseExpiresAt).toISOString(),
        };
      });
  }

  #ack(queue: string, receipts: readonly string[]): AckAnswer {
    const { done, failed } = this.#settle(queue, receipts, (receipt) => this.#protocol.ack(receipt));
    this.#forgetSettled();
    return { acked: done, failed };
  }

  /** Answers each receipt by itself. */
  #settle(
    queue: string,
    receipts: readonly string[],
    verb: (receipt: Receipt) => Code | null,
  ): { done: string[]; failed: FailedReceipt[] } {
    const [done, failed]: [string[], FailedReceipt[]] = [[], []];
    for (const text of new Set(receipts)) {
      const receipt = read(text, queue);
      const code = receipt === undefined ? 'invalid-request' : verb(receipt);
      if (code === null) done.push(text);
      else failed.push({ receipt: text, code: code as FailedReceipt['code'] });
    }
    return { done, failed };
  }

  /** Gives messages their ids. */
  #stamp(messages: readonly EnqueueMessage[], topic: string | null) {
    const enqueuedAt = this.#protocol.now;
    return messages.map((message, index) => {
      const { body } = messageBytes(message, index, this.#sizes);
      const bodyEncoding = bodyEncodingOf(body);
      const content: Content = {
        bodyEncoding,
        headers: message.headers ?? {},
        groupId: message.groupId,
        enqueuedAt,
        topic,
      };
      const availableAt = message.availableAt === undefined ? undefined : Date.parse(message.availableAt);
      return { ...message, id: formatMessageId(newPackId()), body: body.toString(bodyEncoding), content, availableAt };
    });
  }

  /** The deliveries of messages that one queue will owe. Throws if it refuses them. */
  #draft(queue: string, messages: readonly Message[], copy: number): Delivery[] {
    if (messages.length > 0 && this.#queues.get(queue)?.producersPaused === true)
      throw new RowmqError('queue-paused', `Queue '${queue}' is paused for producers; resume it.`, {
        retryAfterSeconds: 5,
      });
    const drafts = this.#protocol.draft(queue, messages, { copy });
    if (drafts === 'queue-full') {
      const held = this.#protocol.depth(queue);
      const detail = `Queue '${queue}' holds ${held} messages, no room for ${messages.length} more; try again when consumers have caught up.`;
      throw new RowmqError(drafts, detail, { retryAfterSeconds: 1 });
    }
    if (Array.isArray(drafts)) return drafts;
    const detail =
      'A message would expire before it is available, or be available in more than 366 days; name an earlier time or let it live longer.';
    throw new RowmqError(drafts, detail);
  }

  #store(stamped: readonly { id: string; content: Content }[], drafts: readonly Delivery[]): void {
    this.#protocol.store(drafts, null);
    for (const { id, content } of stamped) this.#contents.set(id, content);
    this.#wake();
  }

  #noteMove({ queue: from, receiveCount, ...delivery }: Readonly<Delivery>, cause: MoveCause): void {
    const key = keyOf(delivery);
    const reason = this.#reasons.get(key) ?? null;
    const move = { from, at: this.#protocol.now, cause, receiveCount, reason };
    const [first, ...others] = this.#moves.get(key) ?? [];
    this.#moves.set(key, first === undefined ? [move] : [first, ...[...others, move].slice(-LAST_MOVES)]);
  }

  #setReason(delivery: Delivery | undefined, reason: string | undefined): void {
    if (delivery === undefined) return;
    if (reason === undefined) this.#reasons.delete(keyOf(delivery));
    else this.#reasons.set(keyOf(delivery), reason);
  }

  #forgetSettled(): void {
    const owed = this.#protocol.all();
    if (this.#contents.size !== owed.length) {
      const ids = new Set(owed.map(({ id }) => id));
      for (const id of this.#contents.keys()) if (!ids.has(id)) this.#contents.delete(id);
    }
    for (const known of [this.#reasons, this.#moves])
      for (const key of known.keys()) if (!this.#protocol.owed.has(key)) known.delete(key);
  }
}

/** The most urgent first, then the longest available. */
function inHandOutOrder(one: Delivery, other: Delivery): number {
  return other.priority - one.priority || one.availableAt - other.availableAt || (one.id < other.id ? -1 : 1);
}

/** Undefined: no dequeue can have answered this receipt. */
function read(text: string, queue: string): Receipt | undefined {
  try {
    const { messageId, leaseToken } = decodeReceipt(text);
    return { queue, id: formatMessageId(messageId), token: leaseToken.toString('hex') };
  } catch {
    return undefined;
  }
}
