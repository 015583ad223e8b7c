import {
  ackAnswer,
  auditAnswer,
  browseAnswer,
  consumersAnswer,
  dequeueAnswer,
  enqueueAnswer,
  extendAnswer,
  historyAnswer,
  IDEMPOTENCY_SECONDS,
  keyAnswer,
  keysAnswer,
  jobAnswer,
  jobsAnswer,
  LIMITS,
  PACK_MESSAGES,
  messageAnswer,
  nackAnswer,
  newKeyAnswer,
  pauseAnswer,
  publishAnswer,
  queueAnswer,
  queuesAnswer,
  reaperAnswer,
  releaseAnswer,
  replayAnswer,
  RowmqError,
  subscriptionAnswer,
  topicAnswer,
  topicsAnswer,
  runScheduleAnswer,
  scheduleAnswer,
  schedulesAnswer,
  type AckAnswer,
  type AckRequest,
  type AuditAnswer,
  type AuditQuery,
  type BrowseAnswer,
  type BrowseQuery,
  type CreateKeyRequest,
  type ConsumersAnswer,
  type DequeueAnswer,
  type DequeueRequest,
  type DropRequest,
  type EnqueueAnswer,
  type EnqueueRequest,
  type ErrorCode,
  type ExtendAnswer,
  type ExtendRequest,
  type KeyAnswer,
  type KeyLimitsRequest,
  type KeysAnswer,
  type KeysQuery,
  type HistoryAnswer,
  type HistoryQuery,
  type JobAnswer,
  type JobQuery,
  type JobsAnswer,
  type JobsQuery,
  type MessageAnswer,
  type MoveMessageRequest,
  type OneMessageRequest,
  type NackAnswer,
  type NackRequest,
  type NewKeyAnswer,
  type PauseAnswer,
  type PauseSide,
  type PublishAnswer,
  type PublishRequest,
  type PutQueueRequest,
  type PutScheduleRequest,
  type PutSubscriptionRequest,
  type PutTopicRequest,
  type QueueAnswer,
  type QueuesAnswer,
  type ReaperAnswer,
  type RedriveRequest,
  type ReleaseAnswer,
  type ReleaseRequest,
  type RunScheduleAnswer,
  type ScheduleAnswer,
  type SchedulesAnswer,
  type SchedulesQuery,
  type ReplayAnswer,
  type ReplayRequest,
  type RotateKeyRequest,
  type SubscriptionAnswer,
  type TopicAnswer,
  type TopicsAnswer,
} from '@rowmq/contract';
import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { errors, type Dispatcher } from 'undici';
import { z } from 'zod';
import { type CallOptions, BrokerClient, type DeleteQueueOptions, type EnqueueCallOptions } from '../broker-client.js';
import { jittered, pause } from '../timers.js';
import { read, unreachable } from './answer.js';
import { BrokerUnreachableError, isOutcomeUnknown, mayPass, retryAfterMs } from './broker-unreachable.error.js';
import { type Endpoint, Endpoints } from './endpoints.js';
import { exchange, NoAnswer } from './exchange.js';

export interface RowmqClientOptions {
  /**
   * The broker's base URL, such as `http://127.0.0.1:8080`; several for brokers that stand in for
   * each other.
   */
  url: string | readonly string[];
  /** Sent as a bearer token. Absent for a broker without keys. */
  apiKey?: string | undefined;
  /**
   * The deadline of every try, in milliseconds. A dequeue gets its `waitSeconds` on top, and a
   * purge or a delete 10 seconds. Default 10,000.
   */
  timeoutMs?: number | undefined;
  /**
   * The time for retries after a failure that may pass, 0 to 3600. Their pauses grow up to 2
   * seconds, with jitter. Default 30, which outlives a failover. A client with 0 sends each call
   * once.
   */
  retrySeconds?: number | undefined;
  /** The number of retries at most. Default: as many as `retrySeconds` has room for. */
  retries?: number | undefined;
  /** Sockets to each broker at most. Each waiting dequeue holds one. Default 128. */
  maxConnections?: number | undefined;
  /**
   * Whether each enqueue and publish carries an `Idempotency-Key`. With it, the client repeats one
   * whose answer was lost, and the broker stores it once. Default true. A broker stores a record
   * for each key, one more row for each request. `npm run bench:cost` measures that.
   */
  idempotencyKeys?: boolean | undefined;
}

interface Call {
  method: Dispatcher.HttpMethod;
  path: string;
  headers?: Record<string, string>;
  body?: unknown;
  /** The time that the broker may take before it answers. */
  extraMs?: number;
  /** Its answer is text, not JSON. */
  isText?: boolean;
  /** Repeating it has a further effect. */
  once?: boolean;
  /** A repeat with the same key has no effect, until the broker forgets the key. */
  key?: string | undefined;
  /** The refusal of a repeated call that was already carried out. */
  doneCode?: ErrorCode;
  signal?: AbortSignal | undefined;
  timeoutMs?: number | undefined;
  retrySeconds?: number | undefined;
}

const NOTHING = z.undefined();
const ANYTHING = z.unknown();
const optionsSchema = z.strictObject({
  url: z.union([z.string(), z.array(z.string())]),
  apiKey: z
    .string()
    .regex(
      /^[\x21-\x7e]+$/,
      'is not an API key: it has spaces, line ends or other characters that a header cannot carry',
    )
    .optional(),
  timeoutMs: z.int().min(1).max(600_000).default(10_000),
  retrySeconds: z.number().min(0).max(3600).default(30),
  retries: z.int().min(0).max(10_000).default(10_000),
  maxConnections: z.int().min(1).max(100_000).default(128),
  idempotencyKeys: z.boolean().default(true),
});

/** Names this process to operators, who see in a broker who holds a message. */
const USER_AGENT = `rowmq-client (${hostname().replaceAll(/[^\x21-\x7e]/g, '?')}; ${process.pid})`;

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2000;

/** The time that a broker may take for a purge or a delete of a large queue. */
const SWEEP_MS = LIMITS.sweepSeconds * 1000;
/** A replay may wait this much longer, for its rate: the time of a pack at the lowest rate. */
const LAST_PACE_MS = (PACK_MESSAGES / LIMITS.replayRate.min) * 1000;

/**
 * The client repeats an enqueue that may be stored for this long at most. The broker remembers its
 * key for a minute more, in which the last repeat can arrive.
 */
const KEY_MS = (IDEMPOTENCY_SECONDS - 60) * 1000;
/**
 * The deadline of such a repeat, from the first try on. One that still waits for a connection then
 * never leaves.
 */
const LAST_KEY_MS = (IDEMPOTENCY_SECONDS - 10) * 1000;

/**
 * RowMQ over HTTP, on pools of kept-alive connections, with one method per verb of the REST
 * contract. Needs no framework.
 *
 * Every call has a deadline. If the broker refuses, the call throws {@link RowmqError} with the
 * broker's code. Without a broker's answer it throws {@link BrokerUnreachableError}. If its signal
 * cancels it, it throws the signal's reason.
 *
 * The client retries failures that may pass (`overloaded`, `rate-limited`, `database-unavailable`,
 * `queue-locked`, `enqueue-in-progress`, no answer). It pauses with jitter, for as long as the
 * broker asked for, and turns to the next broker if there are several.
 *
 * Each enqueue and publish carries an `Idempotency-Key`, so that the broker stores it once, however
 * often the client repeats it. Without a key, the client repeats an enqueue only if the broker has
 * certainly not stored it. If the outcome is unknown in the end, the error says so. The caller then
 * decides whether to enqueue again, at the risk of a second copy.
 */
export class RowmqHttpClient extends BrokerClient {
  readonly #endpoints: Endpoints;
  readonly #timeoutMs: number;
  readonly #retries: number;
  readonly #retrySeconds: number;
  readonly #headers: Record<string, string>;
  readonly #makesKeys: boolean;
  readonly #closed = new AbortController();

  /** Opens no connection yet. Throws TypeError that names every invalid option. */
  constructor(options: RowmqClientOptions) {
    super();
    const given = optionsSchema.safeParse(options);
    if (!given.success) throw new TypeError(`RowMQ's client has invalid options: ${z.prettifyError(given.error)}`);
    const { url, apiKey, timeoutMs, retries, retrySeconds, maxConnections, idempotencyKeys } = given.data;
    // Each call that waits to be repeated listens to it.
    setMaxListeners(0, this.#closed.signal);
    this.#timeoutMs = timeoutMs;
    this.#retries = retries;
    this.#retrySeconds = retrySeconds;
    this.#makesKeys = idempotencyKeys;
    this.#headers = {
      'user-agent': USER_AGENT,
      ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }),
    };
    this.#endpoints = new Endpoints([url].flat(), { connectTimeout: timeoutMs, connections: maxConnections });
  }

  /** The broker's base URL. With several brokers, the first. */
  get url(): string {
    return this.#endpoints.urls[0] as string;
  }

  /**
   * Stores 1 to 100 messages, all or none. Answers their ids, in order, once they are durable. The
   * answer to a duplicate is the id of the first message, with `duplicate: true`.
   */
  enqueue(
    queue: string,
    request: EnqueueRequest,
    { idempotencyKey, ...options }: EnqueueCallOptions = {},
  ): Promise<EnqueueAnswer> {
    return this.#call(enqueueAnswer, {
      method: 'POST',
      path: messagesPath(queue),
      body: request,
      ...this.#named(idempotencyKey),
      ...options,
    });
  }

  /**
   * Leases up to `maxMessages` and waits up to `waitSeconds` for the first. It may answer none.
   *
   * Settles the receipts in `ack`, and answers each as acked or failed. After a retry,
   * `delivery-not-found` may mean that an earlier try settled it, as with {@link ack}.
   */
  dequeue(queue: string, request: DequeueRequest = {}, options: CallOptions = {}): Promise<DequeueAnswer> {
    const extraMs = (request.waitSeconds ?? 0) * 1000;
    return this.#call(dequeueAnswer, {
      method: 'POST',
      path: `${messagesPath(queue)}/dequeue`,
      body: request,
      extraMs,
      ...options,
    });
  }

  /** Settles leased messages. Answers each receipt as acked or failed. */
  ack(queue: string, request: AckRequest, options: CallOptions = {}): Promise<AckAnswer> {
    return this.#call(ackAnswer, { method: 'POST', path: `${messagesPath(queue)}/ack`, body: request, ...options });
  }

  /**
   * Makes leased messages ready again, now or after `delaySeconds`, or dead-letters them. Answers
   * each receipt as nacked or failed.
   */
  nack(queue: string, request: NackRequest, options: CallOptions = {}): Promise<NackAnswer> {
    return this.#call(nackAnswer, { method: 'POST', path: `${messagesPath(queue)}/nack`, body: request, ...options });
  }

  /**
   * Undoes leases of messages that nobody began to handle: they are ready again, now or after
   * `delaySeconds`, and the receive does not count. Answers each receipt as released or failed.
   */
  release(queue: string, request: ReleaseRequest, options: CallOptions = {}): Promise<ReleaseAnswer> {
    return this.#call(releaseAnswer, {
      method: 'POST',
      path: `${messagesPath(queue)}/release`,
      body: request,
      ...options,
    });
  }

  /**
   * Moves the deadlines of leases to `leaseSeconds` from now. Answers each receipt as extended or
   * failed.
   */
  extend(queue: string, request: ExtendRequest, options: CallOptions = {}): Promise<ExtendAnswer> {
    return this.#call(extendAnswer, {
      method: 'POST',
      path: `${messagesPath(queue)}/extend`,
      body: request,
      ...options,
    });
  }

  /** Settles one leased message. Throws `lease-lost`, `delivery-not-found`. */
  async ackOne(queue: string, receipt: string, options: CallOptions = {}): Promise<void> {
    await this.#call(NOTHING, {
      method: 'DELETE',
      path: `${messagesPath(queue)}/${encodeURIComponent(receipt)}`,
      doneCode: 'delivery-not-found',
      ...options,
    });
  }

  /** Creates the queue if it is missing, and changes nothing if it exists. */
  async createQueue(queue: string, settings: PutQueueRequest = {}, options: CallOptions = {}): Promise<void> {
    await this.createNewQueue(queue, settings, options);
  }

  /**
   * The same, and returns whether the call created it. If the answer to an earlier try was lost, a
   * queue that exists counts as its own.
   */
  async createNewQueue(queue: string, settings: PutQueueRequest = {}, options: CallOptions = {}): Promise<boolean> {
    try {
      await this.#call(z.union([queueAnswer, NOTHING]), {
        method: 'PUT',
        path: queuePath(queue),
        headers: { 'if-none-match': '*' },
        body: settings,
        doneCode: 'queue-exists',
        ...options,
      });
      return true;
    } catch (error) {
      if (error instanceof RowmqError && error.code === 'queue-exists') return false;
      throw error;
    }
  }

  /** Creates the queue, or changes the settings that are given. */
  putQueue(queue: string, settings: PutQueueRequest = {}, options: CallOptions = {}): Promise<QueueAnswer> {
    return this.#call(queueAnswer, { method: 'PUT', path: queuePath(queue), body: settings, ...options });
  }

  /** A queue's settings and stats. */
  getQueue(queue: string, options: CallOptions = {}): Promise<QueueAnswer> {
    return this.#call(queueAnswer, { method: 'GET', path: queuePath(queue), ...options });
  }

  /** Every queue with its settings and stats. */
  listQueues(options: CallOptions = {}): Promise<QueuesAnswer> {
    return this.#call(queuesAnswer, { method: 'GET', path: '/v1/admin/queues', ...options });
  }

  /** Deletes the queue. Throws `queue-not-empty` if it has messages, unless `force` is set. */
  async deleteQueue(queue: string, { force = false, ...options }: DeleteQueueOptions = {}): Promise<void> {
    await this.#call(NOTHING, {
      method: 'DELETE',
      path: `${queuePath(queue)}${force ? '?force=true' : ''}`,
      extraMs: SWEEP_MS,
      doneCode: 'queue-not-found',
      ...options,
    });
  }

  /**
   * Pauses consumers, who then get nothing, or producers, who then get `queue-paused`, or both.
   * Default: consumers.
   */
  pauseQueue(queue: string, request: { side?: PauseSide } = {}, options: CallOptions = {}): Promise<PauseAnswer> {
    return this.#call(pauseAnswer, { method: 'POST', path: `${queuePath(queue)}/pause`, body: request, ...options });
  }

  /** Ends the pause of both sides, or of one. */
  resumeQueue(queue: string, request: { side?: PauseSide } = {}, options: CallOptions = {}): Promise<PauseAnswer> {
    return this.#call(pauseAnswer, { method: 'POST', path: `${queuePath(queue)}/resume`, body: request, ...options });
  }

  /** The last minutes of a queue, up to a day: what happened in each, and how deep it was. */
  getHistory(queue: string, query: Partial<HistoryQuery> = {}, options: CallOptions = {}): Promise<HistoryAnswer> {
    return this.#call(historyAnswer, {
      method: 'GET',
      path: `${queuePath(queue)}/history?${searchOf(query)}`,
      ...options,
    });
  }

  /** The consumers of a queue, through any broker. */
  getConsumers(queue: string, options: CallOptions = {}): Promise<ConsumersAnswer> {
    return this.#call(consumersAnswer, { method: 'GET', path: `${queuePath(queue)}/consumers`, ...options });
  }

  /**
   * Begins a job that moves messages of a queue back to the queues that they left first, or to
   * another one. With `maxMessages` it is not repeated when its outcome is unknown: two jobs would
   * move more.
   */
  redrive(queue: string, request: RedriveRequest = {}, options: CallOptions = {}): Promise<JobAnswer> {
    return this.#call(jobAnswer, {
      method: 'POST',
      path: `${queuePath(queue)}/redrive`,
      body: request,
      once: request.maxMessages !== undefined,
      ...options,
    });
  }

  /** A job and its progress. Waits up to `waitSeconds` for its end. */
  getJob(id: string, query: Partial<JobQuery> = {}, options: CallOptions = {}): Promise<JobAnswer> {
    return this.#call(jobAnswer, {
      method: 'GET',
      path: `${jobPath(id)}?${searchOf(query)}`,
      extraMs: (query.waitSeconds ?? 0) * 1000,
      ...options,
    });
  }

  /** A page of jobs, newest first. */
  listJobs(query: Partial<JobsQuery> = {}, options: CallOptions = {}): Promise<JobsAnswer> {
    return this.#call(jobsAnswer, { method: 'GET', path: `/v1/admin/jobs?${searchOf(query)}`, ...options });
  }

  /** Cancels a job: it handles nothing more after the answer. A finished job stays as it is. */
  cancelJob(id: string, options: CallOptions = {}): Promise<JobAnswer> {
    return this.#call(jobAnswer, { method: 'DELETE', path: jobPath(id), ...options });
  }

  /**
   * Begins a job that settles messages that no consumer holds. Never repeated in doubt: a second
   * job would settle messages that came after the first.
   */
  drop(queue: string, request: DropRequest = {}, options: CallOptions = {}): Promise<JobAnswer> {
    return this.#call(jobAnswer, {
      method: 'POST',
      path: `${queuePath(queue)}/drop`,
      body: request,
      once: true,
      ...options,
    });
  }

  /**
   * Begins a job that settles every message that is in the queue now, leased ones included. Never
   * repeated in doubt, as {@link drop}.
   */
  purge(queue: string, options: CallOptions = {}): Promise<JobAnswer> {
    return this.#call(jobAnswer, {
      method: 'POST',
      path: `${queuePath(queue)}/purge`,
      once: true,
      ...options,
    });
  }

  /**
   * Enqueues settled messages of a time range again, as long as they are stored; `complete: false`
   * asks for another call with the answer's cursor. It is not repeated when its outcome is unknown:
   * a repeat would replay messages twice.
   */
  replay(queue: string, request: ReplayRequest, options: CallOptions = {}): Promise<ReplayAnswer> {
    return this.#call(replayAnswer, {
      method: 'POST',
      path: `${queuePath(queue)}/replay`,
      body: request,
      extraMs: SWEEP_MS + LAST_PACE_MS,
      once: true,
      ...options,
    });
  }

  /** One page of a queue's messages in one state, without leasing them. */
  browse(queue: string, query: Partial<BrowseQuery> = {}, options: CallOptions = {}): Promise<BrowseAnswer> {
    return this.#call(browseAnswer, {
      method: 'GET',
      path: `${queuePath(queue)}/messages?${searchOf(query)}`,
      ...options,
    });
  }

  /** A message and each of its deliveries, or that it is settled. */
  getMessage(id: string, options: CallOptions = {}): Promise<MessageAnswer> {
    return this.#call(messageAnswer, { method: 'GET', path: messagePath(id), ...options });
  }

  /**
   * Settles a message that is ready or delayed, so that it is never handed out. Throws
   * `delivery-not-found`, and `message-leased` if a consumer holds it.
   */
  async cancelMessage(id: string, options: CallOptions = {}): Promise<void> {
    await this.#call(NOTHING, { method: 'DELETE', path: messagePath(id), doneCode: 'delivery-not-found', ...options });
  }

  /**
   * Settles a message for an operator, in the queue that is named or in every queue that owes it.
   * If a consumer holds it, its receipt has no effect any more.
   */
  async ackMessage(id: string, request: OneMessageRequest = {}, options: CallOptions = {}): Promise<void> {
    await this.#onMessage(id, 'ack', request, options);
  }

  /** Makes a message ready that is leased or delayed. Its lease does not count as a receive. */
  async releaseMessage(id: string, request: OneMessageRequest = {}, options: CallOptions = {}): Promise<void> {
    await this.#onMessage(id, 'release', request, options);
  }

  /** Moves a message back to the queue that it left first. */
  async redriveMessage(id: string, request: OneMessageRequest = {}, options: CallOptions = {}): Promise<void> {
    await this.#onMessage(id, 'redrive', request, options);
  }

  /** Moves a message to another queue. */
  async moveMessage(id: string, request: MoveMessageRequest, options: CallOptions = {}): Promise<void> {
    await this.#onMessage(id, 'move', request, options);
  }

  async #onMessage(id: string, action: string, body: MoveMessageRequest | OneMessageRequest, options: CallOptions) {
    // After a repeat, the message may have been handled, and others may have taken it since.
    await this.#call(NOTHING, { method: 'POST', path: `${messagePath(id)}/${action}`, body, once: true, ...options });
  }

  /** Creates the schedule, or replaces its definition. The next tick stays if its times do. */
  putSchedule(schedule: string, request: PutScheduleRequest, options: CallOptions = {}): Promise<ScheduleAnswer> {
    return this.#call(scheduleAnswer, { method: 'PUT', path: schedulePath(schedule), body: request, ...options });
  }

  /** A schedule with its next and last run. */
  getSchedule(schedule: string, options: CallOptions = {}): Promise<ScheduleAnswer> {
    return this.#call(scheduleAnswer, { method: 'GET', path: schedulePath(schedule), ...options });
  }

  /** A page of schedules by name, with their next and last runs. */
  listSchedules(query: Partial<SchedulesQuery> = {}, options: CallOptions = {}): Promise<SchedulesAnswer> {
    return this.#call(schedulesAnswer, { method: 'GET', path: `/v1/admin/schedules?${searchOf(query)}`, ...options });
  }

  /** Deletes the schedule. Messages that it enqueued stay. */
  async deleteSchedule(schedule: string, options: CallOptions = {}): Promise<void> {
    await this.#call(NOTHING, {
      method: 'DELETE',
      path: schedulePath(schedule),
      doneCode: 'schedule-not-found',
      ...options,
    });
  }

  /** Enqueues the schedule's message now. Its ticks stay as they are. Repeated as an enqueue is. */
  runSchedule(schedule: string, options: CallOptions = {}): Promise<RunScheduleAnswer> {
    return this.#call(runScheduleAnswer, {
      method: 'POST',
      path: `${schedulePath(schedule)}/run`,
      once: true,
      ...options,
    });
  }

  /**
   * Stores 1 to 100 messages of a topic, all or none, for every queue whose subscription matches.
   * Answers each message's id and its number of queues once they are durable. The answer to a
   * duplicate is that of the first message, with `duplicate: true`.
   */
  publish(
    topic: string,
    request: PublishRequest,
    { idempotencyKey, ...options }: EnqueueCallOptions = {},
  ): Promise<PublishAnswer> {
    return this.#call(publishAnswer, {
      method: 'POST',
      path: `/v1/topics/${encodeURIComponent(topic)}/messages`,
      body: request,
      ...this.#named(idempotencyKey),
      ...options,
    });
  }

  /** Creates the topic, or changes the settings that are given. */
  putTopic(topic: string, settings: PutTopicRequest = {}, options: CallOptions = {}): Promise<TopicAnswer> {
    return this.#call(topicAnswer, { method: 'PUT', path: topicPath(topic), body: settings, ...options });
  }

  /** A topic and its subscriptions. */
  getTopic(topic: string, options: CallOptions = {}): Promise<TopicAnswer> {
    return this.#call(topicAnswer, { method: 'GET', path: topicPath(topic), ...options });
  }

  /** Every topic with its subscriptions. */
  listTopics(options: CallOptions = {}): Promise<TopicsAnswer> {
    return this.#call(topicsAnswer, { method: 'GET', path: '/v1/admin/topics', ...options });
  }

  /** Deletes the topic and its subscriptions. Their queues keep its messages. */
  async deleteTopic(topic: string, options: CallOptions = {}): Promise<void> {
    await this.#call(NOTHING, {
      method: 'DELETE',
      path: topicPath(topic),
      doneCode: 'topic-not-found',
      ...options,
    });
  }

  /** Subscribes the queue to the topic, or changes its subscription's filter if one is given. */
  putSubscription(
    topic: string,
    queue: string,
    request: PutSubscriptionRequest = {},
    options: CallOptions = {},
  ): Promise<SubscriptionAnswer> {
    return this.#call(subscriptionAnswer, {
      method: 'PUT',
      path: subscriptionPath(topic, queue),
      body: request,
      ...options,
    });
  }

  /** A queue's subscription to a topic. */
  getSubscription(topic: string, queue: string, options: CallOptions = {}): Promise<SubscriptionAnswer> {
    return this.#call(subscriptionAnswer, { method: 'GET', path: subscriptionPath(topic, queue), ...options });
  }

  /** Ends the subscription. The queue keeps the topic's messages. */
  async deleteSubscription(topic: string, queue: string, options: CallOptions = {}): Promise<void> {
    await this.#call(NOTHING, {
      method: 'DELETE',
      path: subscriptionPath(topic, queue),
      doneCode: 'subscription-not-found',
      ...options,
    });
  }

  /** The reaper that works now, and the last runs of its duties. */
  getReaper(options: CallOptions = {}): Promise<ReaperAnswer> {
    return this.#call(reaperAnswer, { method: 'GET', path: '/v1/admin/reaper', ...options });
  }

  /**
   * Creates an API key. No later call can show its secret. Never repeated after a lost answer:
   * rotate the key if it turns out to exist. Throws `key-exists`.
   */
  createKey(request: CreateKeyRequest, options: CallOptions = {}): Promise<NewKeyAnswer> {
    return this.#call(newKeyAnswer, { method: 'POST', path: KEYS, body: request, once: true, ...options });
  }

  /** A page of API keys by name. */
  listKeys(query: Partial<KeysQuery> = {}, options: CallOptions = {}): Promise<KeysAnswer> {
    return this.#call(keysAnswer, { method: 'GET', path: `${KEYS}?${searchOf(query)}`, ...options });
  }

  /** An API key without its secret. */
  getKey(key: string, options: CallOptions = {}): Promise<KeyAnswer> {
    return this.#call(keyAnswer, { method: 'GET', path: keyPath(key), ...options });
  }

  /** Gives the API key a new secret. The old one stays valid for a time, a day by default. */
  rotateKey(key: string, request: RotateKeyRequest = {}, options: CallOptions = {}): Promise<NewKeyAnswer> {
    const path = `${keyPath(key)}/rotate`;
    return this.#call(newKeyAnswer, { method: 'POST', path, body: request, once: true, ...options });
  }

  /** Changes the limits that are given. Null takes the broker's setting. */
  putKeyLimits(key: string, limits: KeyLimitsRequest, options: CallOptions = {}): Promise<KeyAnswer> {
    return this.#call(keyAnswer, { method: 'PUT', path: `${keyPath(key)}/limits`, body: limits, ...options });
  }

  /** Revokes the API key for good. Every broker refuses it within three seconds. */
  async revokeKey(key: string, options: CallOptions = {}): Promise<void> {
    await this.#call(NOTHING, { method: 'DELETE', path: keyPath(key), doneCode: 'key-not-found', ...options });
  }

  /** A page of the actions of administrators, the latest first. */
  listAudit(query: Partial<AuditQuery> = {}, options: CallOptions = {}): Promise<AuditAnswer> {
    return this.#call(auditAnswer, { method: 'GET', path: `/v1/admin/audit?${searchOf(query)}`, ...options });
  }

  /** Throws unless the broker is up. */
  async live(options: CallOptions = {}): Promise<void> {
    await this.#call(ANYTHING, { method: 'GET', path: '/health/live', ...options });
  }

  /** The broker's metrics in the text format of Prometheus. */
  metrics(options: CallOptions = {}): Promise<string> {
    return this.#call(z.string(), { method: 'GET', path: '/metrics', isText: true, ...options });
  }

  /** Throws unless the broker is up and reaches its database. */
  async ready(options: CallOptions = {}): Promise<void> {
    await this.#call(ANYTHING, { method: 'GET', path: '/health/ready', ...options });
  }

  /** Drops the connections, and ends the calls in flight. Idempotent. */
  async close(): Promise<void> {
    this.#closed.abort(new Error('the client is closed'));
    await this.#endpoints.close();
  }

  /** Names a request that stores messages, so that it can be repeated. */
  #named(idempotencyKey: string | undefined): Pick<Call, 'once' | 'key' | 'headers'> {
    const key = idempotencyKey ?? (this.#makesKeys ? randomUUID() : undefined);
    return key === undefined ? { once: true } : { key, headers: { 'idempotency-key': `"${key}"` } };
  }

  async #call<Schema extends z.ZodType>(schema: Schema, call: Call): Promise<z.output<Schema>> {
    call.signal?.throwIfAborted();
    const begunAt = performance.now();
    try {
      return await this.#try(schema, call);
    } catch (error) {
      const seconds = Math.min(this.#retrySeconds, call.retrySeconds ?? Infinity);
      if (this.#retries === 0 || seconds === 0 || !this.#mayBeSentAgain(call, error)) throw error;
      return this.#tryAgain(error, { seconds, begunAt }, schema, call);
    }
  }

  /**
   * Retries after a first failure. It is a function of its own, so that a call that succeeds at
   * once costs nothing more.
   */
  async #tryAgain<Schema extends z.ZodType>(
    failure: unknown,
    { seconds, begunAt }: { seconds: number; begunAt: number },
    schema: Schema,
    call: Call,
  ): Promise<z.output<Schema>> {
    let until = performance.now() + seconds * 1000;
    /** An earlier try may have been carried out. */
    let isInDoubt = false;
    let error = failure;
    for (let retries = 0; retries < this.#retries && this.#mayBeSentAgain(call, error); retries += 1) {
      isInDoubt ||= isOutcomeUnknown(error);
      const isKeyNeeded = isInDoubt && call.key !== undefined;
      if (isKeyNeeded) until = Math.min(until, begunAt + KEY_MS);
      const pauseMs = Math.max(
        jittered(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** retries)),
        retryAfterMs(error),
      );
      if (performance.now() + pauseMs > until) break;
      await pause(pauseMs, call.signal, this.#closed.signal);
      call.signal?.throwIfAborted();
      try {
        return await this.#try(schema, call, isKeyNeeded ? begunAt + LAST_KEY_MS : undefined);
      } catch (again) {
        error = again;
      }
    }
    if (!isInDoubt) throw error;
    if (error instanceof RowmqError && error.code === call.doneCode) return schema.parse(undefined);
    if (error instanceof BrokerUnreachableError) throw afterDoubt(error);
    throw call.key === undefined || hasLooked(error) ? error : unknownStill(error as Error, this.url);
  }

  #mayBeSentAgain(call: Call, error: unknown): boolean {
    if (this.#closed.signal.aborted || !mayPass(error)) return false;
    return !call.once || !isOutcomeUnknown(error);
  }

  /** The call gives up sooner than others do. */
  #isImpatient({ timeoutMs = Infinity }: Call): boolean {
    return timeoutMs < this.#timeoutMs;
  }

  /** Sends a call once, and gives up at `latest`, by `performance.now()`, if not before. */
  async #try<Schema extends z.ZodType>(schema: Schema, call: Call, latest?: number): Promise<z.output<Schema>> {
    const endpoint = this.#endpoints.pick();
    const sentAt = performance.now();
    try {
      const answer = await this.#send(endpoint, schema, call, latest);
      this.#endpoints.succeeded(endpoint);
      return answer;
    } catch (error) {
      const isLate = error instanceof BrokerUnreachableError && error.cause instanceof errors.HeadersTimeoutError;
      if (isLate && this.#isImpatient(call)) this.#endpoints.suspected(endpoint, sentAt);
      else if (isOfBroker(error)) this.#endpoints.failed(endpoint);
      throw error;
    }
  }

  async #send<Schema extends z.ZodType>(
    endpoint: Endpoint,
    schema: Schema,
    call: Call,
    latest = Infinity,
  ): Promise<z.output<Schema>> {
    const ownMs = Math.min(this.#timeoutMs, call.timeoutMs ?? Infinity) + (call.extraMs ?? 0);
    const deadlineMs = Math.min(ownMs, Math.round(latest - performance.now()));
    const body = call.body === undefined ? null : JSON.stringify(call.body);
    const headers =
      body === null ? this.#headers : { ...this.#headers, 'content-type': 'application/json', ...call.headers };
    const request = { method: call.method, path: endpoint.pathPrefix + call.path, headers, body };
    const asked = { method: call.method, url: endpoint.url, path: call.path, isText: call.isText === true };
    const { pool } = endpoint;
    const sentAt = performance.now();
    try {
      return read(schema, asked, await exchange(pool, request, { deadlineMs, signal: call.signal }));
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      const isLate = error.cause instanceof errors.HeadersTimeoutError && !error.neverLeft;
      // After a short deadline, the answer to another call shows that the way is not silent.
      if (isLate && !(this.#isImpatient(call) && endpoint.answeredAt >= sentAt)) this.#endpoints.renew(endpoint, pool);
      if (error.cause instanceof errors.InvalidArgumentError) throw error.cause;
      call.signal?.throwIfAborted();
      throw unreachable(asked, error, deadlineMs);
    }
  }
}

/**
 * Another broker may do better. A lock is held against every broker, and a limit is no fault of
 * one.
 */
function isOfBroker(error: unknown): boolean {
  return mayPass(error) && !(error instanceof RowmqError && NOT_OF_BROKER.has(error.code));
}

const NOT_OF_BROKER = new Set<ErrorCode>(['queue-locked', 'enqueue-in-progress', 'rate-limited']);

/**
 * Whether the broker looked for an earlier try before it refused this one. Most refusals come
 * before that: of a key that was revoked meanwhile, or of a broker with another limit of size.
 */
function hasLooked(error: unknown): boolean {
  return error instanceof RowmqError && LOOKED.has(error.code);
}

const LOOKED = new Set<ErrorCode>(['idempotency-key-reused', 'queue-full']);

/** The error of an enqueue whose earlier try may have been stored. The last one was refused. */
function unknownStill(error: Error, url: string): Error {
  if (isOutcomeUnknown(error)) return error;
  const message = `${error.message} An earlier try may have been carried out.`;
  return new BrokerUnreachableError(message, url, 'unknown', { cause: error });
}

/** The error of a call whose earlier try may have been carried out. */
function afterDoubt(error: BrokerUnreachableError): BrokerUnreachableError {
  if (error.outcome === 'unknown') return error;
  const message = `${error.message} An earlier try may have been carried out.`;
  return new BrokerUnreachableError(message, error.url, 'unknown', { cause: error });
}

const queuePath = (queue: string) => `/v1/admin/queues/${encodeURIComponent(queue)}`;
function searchOf(query: Record<string, unknown>): string {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined);
  return new URLSearchParams(pairs.map(([key, value]): [string, string] => [key, String(value)])).toString();
}

const KEYS = '/v1/admin/keys';
const keyPath = (key: string) => `${KEYS}/${encodeURIComponent(key)}`;
const schedulePath = (schedule: string) => `/v1/admin/schedules/${encodeURIComponent(schedule)}`;
const jobPath = (id: string) => `/v1/admin/jobs/${encodeURIComponent(id)}`;
const messagePath = (id: string) => `/v1/admin/messages/${encodeURIComponent(id)}`;
const messagesPath = (queue: string) => `/v1/queues/${encodeURIComponent(queue)}/messages`;
const topicPath = (topic: string) => `/v1/admin/topics/${encodeURIComponent(topic)}`;
const subscriptionPath = (topic: string, queue: string) =>
  `${topicPath(topic)}/subscriptions/${encodeURIComponent(queue)}`;
