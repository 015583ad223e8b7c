import {
  type AckAnswer,
  type AuditAnswer,
  ackRequest,
  type AckRequest,
  type BrowseAnswer,
  type BrowseQuery,
  type ConsumersAnswer,
  type CreateKeyRequest,
  type DequeueAnswer,
  dequeueRequest,
  type DequeueRequest,
  type EnqueueAnswer,
  type EnqueueRequest,
  type ExtendAnswer,
  type ExtendRequest,
  extendRequest,
  type HistoryAnswer,
  type KeyAnswer,
  type KeyLimitsRequest,
  type KeysAnswer,
  type KeysQuery,
  type MessageAnswer,
  type DropRequest,
  type JobsAnswer,
  type JobsQuery,
  type JobAnswer,
  type MoveMessageRequest,
  type OneMessageRequest,
  type NackAnswer,
  type NackRequest,
  nackRequest,
  type NewKeyAnswer,
  type PauseAnswer,
  type PauseSide,
  type PublishAnswer,
  type PublishRequest,
  type PutQueueRequest,
  type PutScheduleRequest,
  putSubscriptionRequest,
  type PutSubscriptionRequest,
  putTopicRequest,
  type PutTopicRequest,
  type QueueAnswer,
  type QueuesAnswer,
  type ReaperAnswer,
  readRequest,
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
import { type CallOptions, BrokerClient, type DeleteQueueOptions, type EnqueueCallOptions } from '../broker-client.js';
import { MemoryJobs } from './memory-jobs.js';
import { MemoryKeys } from './memory-keys.js';
import { MemoryMessages } from './memory-messages.js';
import { MemoryOneMessage } from './memory-one-message.js';
import { MemoryProducers } from './memory-producers.js';
import { MemoryQueues } from './memory-queues.js';
import { MemorySchedules } from './memory-schedules.js';
import { MemoryTopics } from './memory-topics.js';
import { type MemoryMessage, MemoryViews } from './memory-views.js';

export type { MemoryMessage } from './memory-views.js';

export interface InMemoryBrokerOptions {
  /** The largest body, as `ROWMQ_MAX_BODY_BYTES` of a broker. Default 4096. */
  maxBodyBytes?: number | undefined;
}

const POLL_MS = 5;

/**
 * A broker in this process's memory, for tests of services that use RowMQ. It has the same verbs
 * and refuses the same requests, without HTTP, a database or durability.
 *
 * The first use of a queue creates it, with the settings of a new queue. `putQueue` changes them.
 */
export class InMemoryBroker extends BrokerClient {
  readonly #messages: MemoryMessages;
  readonly #views: MemoryViews;
  readonly #queues: MemoryQueues;
  readonly #producers: MemoryProducers;
  readonly #jobs: MemoryJobs;
  readonly #oneMessage: MemoryOneMessage;
  readonly #topics = new MemoryTopics();
  readonly #keys = new MemoryKeys();
  readonly #schedules = new MemorySchedules(async ({ queue, topic }, message) => {
    const { messages } = await (topic === null
      ? this.enqueue(queue as string, { messages: [message] })
      : this.publish(topic, { messages: [message] }));
    return messages[0]?.id as string;
  });
  readonly #sizes: SizeLimits;
  #isClosed = false;

  constructor({ maxBodyBytes }: InMemoryBrokerOptions = {}) {
    super();
    this.#sizes = sizeLimits(maxBodyBytes);
    this.#messages = new MemoryMessages(this.#sizes);
    this.#views = new MemoryViews(this.#messages);
    this.#queues = new MemoryQueues(this.#messages, this.#views);
    this.#producers = new MemoryProducers(this.#messages, this.#topics, this.#sizes);
    this.#jobs = new MemoryJobs(this.#messages);
    this.#oneMessage = new MemoryOneMessage(this.#messages);
  }

  async enqueue(
    queue: string,
    request: EnqueueRequest,
    { idempotencyKey }: EnqueueCallOptions = {},
  ): Promise<EnqueueAnswer> {
    return this.#producers.enqueue(queue, request, idempotencyKey);
  }

  async publish(
    topic: string,
    request: PublishRequest,
    { idempotencyKey }: EnqueueCallOptions = {},
  ): Promise<PublishAnswer> {
    return this.#producers.publish(topic, request, idempotencyKey);
  }

  async dequeue(queue: string, request: DequeueRequest = {}, { signal }: CallOptions = {}): Promise<DequeueAnswer> {
    const settings = this.#messages.use(queue);
    const { maxMessages, waitSeconds, leaseSeconds, ack, withSettings } = readRequest(dequeueRequest, request);
    const began = Date.now();
    const until = began + waitSeconds * 1000;
    signal?.throwIfAborted();
    const acks = ack === undefined ? {} : this.#ack(queue, ack);
    for (;;) {
      signal?.throwIfAborted();
      const length = leaseSeconds ?? settings.leaseSeconds;
      const messages = settings.paused ? [] : this.#messages.lease(queue, maxMessages, length);
      if (messages.length > 0 || Date.now() >= until || this.#isClosed) {
        const maxReceives = settings.deadLetterQueue === null ? null : settings.maxReceives;
        // These leases began at the time of the protocol.
        const waitedMs = Math.max(0, this.#messages.protocol.now - began);
        const timing = { waitedMs, settings: { leaseSeconds: length, maxReceives, ordering: settings.ordering } };
        return { messages, ...acks, ...(withSettings === true && timing) };
      }
      await this.#messages.change(queue, until, signal);
    }
  }

  async ack(queue: string, request: AckRequest): Promise<AckAnswer> {
    this.#messages.use(queue);
    return this.#ack(queue, readRequest(ackRequest, request).receipts);
  }

  async nack(queue: string, request: NackRequest): Promise<NackAnswer> {
    this.#messages.use(queue);
    const { receipts, delaySeconds, deadLetter, reason } = readRequest(nackRequest, request);
    const { done, failed } = this.#messages.settle(queue, receipts, (receipt) => {
      const delivery = this.#messages.protocol.held(receipt);
      const code = deadLetter
        ? this.#messages.protocol.reject(receipt)
        : this.#messages.protocol.nack(receipt, delaySeconds);
      if (code === 'invalid-request') {
        throw new RowmqError(
          code,
          'The queue has no dead-letter queue; set its deadLetterQueue, or nack without deadLetter.',
        );
      }
      // A move keeps an earlier reason if it has none of its own.
      if (code === null && !(deadLetter && reason === undefined)) this.#messages.setReason(delivery, reason);
      if (code === null && deadLetter && delivery !== undefined && reason !== undefined)
        this.#messages.moves.setReason(delivery, reason);
      return code;
    });
    this.#messages.wake();
    return { nacked: done, failed };
  }

  async release(queue: string, request: ReleaseRequest): Promise<ReleaseAnswer> {
    this.#messages.use(queue);
    const { receipts, delaySeconds, reason } = readRequest(releaseRequest, request);
    const { done, failed } = this.#messages.settle(queue, receipts, (receipt) => {
      const delivery = this.#messages.protocol.held(receipt);
      const code = this.#messages.protocol.release(receipt, delaySeconds);
      if (code === null && reason !== undefined) this.#messages.setReason(delivery, reason);
      return code;
    });
    this.#messages.wake();
    return { released: done, failed };
  }

  async extend(queue: string, request: ExtendRequest): Promise<ExtendAnswer> {
    this.#messages.use(queue);
    const { receipts, leaseSeconds } = readRequest(extendRequest, request);
    const leaseExpiresAt = new Date(this.#messages.protocol.now + leaseSeconds * 1000).toISOString();
    const { done, failed } = this.#messages.settle(queue, receipts, (receipt) =>
      this.#messages.protocol.extend(receipt, leaseSeconds),
    );
    return { extended: done.map((receipt) => ({ receipt, leaseExpiresAt })), failed };
  }

  async ackOne(queue: string, receipt: string): Promise<void> {
    const { failed } = await this.ack(queue, { receipts: [receipt] });
    const code = failed[0]?.code;
    if (code !== undefined) throw new RowmqError(code, `The message was not acked: ${code}.`);
  }

  #ack(queue: string, receipts: readonly string[]): AckAnswer {
    const { done, failed } = this.#messages.settle(queue, receipts, (receipt) => this.#messages.protocol.ack(receipt));
    this.#messages.forgetSettled();
    return { acked: done, failed };
  }

  async createQueue(queue: string, settings: PutQueueRequest = {}): Promise<void> {
    this.#queues.create(queue, settings);
  }

  async createNewQueue(queue: string, settings: PutQueueRequest = {}): Promise<boolean> {
    return this.#queues.create(queue, settings);
  }

  async putQueue(queue: string, settings: PutQueueRequest = {}): Promise<QueueAnswer> {
    return this.#queues.put(queue, settings);
  }

  async getQueue(queue: string): Promise<QueueAnswer> {
    return this.#queues.get(queue);
  }

  async listQueues(): Promise<QueuesAnswer> {
    return { queues: this.#queues.list() };
  }

  async deleteQueue(queue: string, { force = false }: DeleteQueueOptions = {}): Promise<void> {
    this.#queues.delete(queue, force);
    this.#producers.forgetQueue(queue);
    this.#topics.forgetQueue(queue);
  }

  async pauseQueue(queue: string, { side = 'consumers' }: { side?: PauseSide } = {}): Promise<PauseAnswer> {
    return this.#queues.setPaused(queue, side, true);
  }

  async resumeQueue(queue: string, { side = 'both' }: { side?: PauseSide } = {}): Promise<PauseAnswer> {
    return this.#queues.setPaused(queue, side, false);
  }

  /** It remembers no minutes. */
  async getHistory(queue: string): Promise<HistoryAnswer> {
    this.#messages.use(queue);
    return { queue, minutes: [] };
  }

  /** It does not know who calls. */
  async getConsumers(queue: string): Promise<ConsumersAnswer> {
    this.#messages.use(queue);
    return { queue, consumers: [], otherLeases: this.#views.stats(queue).leased, complete: true };
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
    this.#producers.forgetTopic(topic);
  }

  async putSubscription(
    topic: string,
    queue: string,
    request: PutSubscriptionRequest = {},
  ): Promise<SubscriptionAnswer> {
    this.#messages.use(queue);
    return this.#topics.putSubscription(topic, queue, readRequest(putSubscriptionRequest, request));
  }

  async getSubscription(topic: string, queue: string): Promise<SubscriptionAnswer> {
    return this.#topics.getSubscription(topic, queue);
  }

  async deleteSubscription(topic: string, queue: string): Promise<void> {
    this.#topics.deleteSubscription(topic, queue);
  }

  async purge(queue: string): Promise<JobAnswer> {
    return this.#jobs.purge(queue);
  }

  async redrive(queue: string, request: RedriveRequest = {}): Promise<JobAnswer> {
    return this.#jobs.redrive(queue, request);
  }

  async drop(queue: string, request: DropRequest = {}): Promise<JobAnswer> {
    return this.#jobs.drop(queue, request);
  }

  async listJobs(query: Partial<JobsQuery> = {}): Promise<JobsAnswer> {
    return this.#jobs.list(query);
  }

  async getJob(id: string): Promise<JobAnswer> {
    return this.#jobs.get(id);
  }

  /** Every job is done, so nothing changes. */
  async cancelJob(id: string): Promise<JobAnswer> {
    return this.#jobs.get(id);
  }

  /**
   * Finds nothing to replay: a settled message is forgotten at once, as if it had been reaped. It
   * counts what is owed.
   */
  async replay(queue: string, request: ReplayRequest): Promise<ReplayAnswer> {
    const { from, to, toQueue = queue } = readRequest(replayRequest, request);
    this.#messages.use(queue);
    this.#messages.use(toQueue);
    const owed = [...this.#messages.protocol.owed.values()].filter(({ id, origin }) => {
      const { enqueuedAt } = this.#messages.content(id);
      return origin === queue && enqueuedAt >= Date.parse(from) && enqueuedAt < Date.parse(to);
    });
    return { replayed: 0, owed: owed.length, complete: true, cursor: null };
  }

  async browse(queue: string, query: Partial<BrowseQuery> = {}): Promise<BrowseAnswer> {
    return this.#views.browse(queue, query);
  }

  async getMessage(id: string): Promise<MessageAnswer> {
    return this.#views.message(id);
  }

  async cancelMessage(id: string): Promise<void> {
    this.#oneMessage.cancel(id);
  }

  async ackMessage(id: string, request: OneMessageRequest = {}): Promise<void> {
    this.#oneMessage.ack(id, request);
  }

  async releaseMessage(id: string, request: OneMessageRequest = {}): Promise<void> {
    this.#oneMessage.release(id, request);
  }

  async redriveMessage(id: string, request: OneMessageRequest = {}): Promise<void> {
    this.#oneMessage.redrive(id, request);
  }

  async moveMessage(id: string, request: MoveMessageRequest): Promise<void> {
    this.#oneMessage.move(id, request);
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

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#schedules.close();
    this.#messages.wake();
  }

  /** All deliveries of a queue, in any state, in the order in which they were enqueued. */
  messages(queue: string): MemoryMessage[] {
    return this.#views.all(queue);
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
}
