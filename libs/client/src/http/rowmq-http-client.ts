import {
  ackAnswer,
  browseAnswer,
  dequeueAnswer,
  enqueueAnswer,
  extendAnswer,
  LIMITS,
  messageAnswer,
  nackAnswer,
  pauseAnswer,
  purgeAnswer,
  queueAnswer,
  queuesAnswer,
  reaperAnswer,
  redriveAnswer,
  releaseAnswer,
  RowmqError,
  type AckAnswer,
  type AckRequest,
  type BrowseAnswer,
  type BrowseQuery,
  type DequeueAnswer,
  type DequeueRequest,
  type EnqueueAnswer,
  type EnqueueRequest,
  type ErrorCode,
  type ExtendAnswer,
  type ExtendRequest,
  type MessageAnswer,
  type NackAnswer,
  type NackRequest,
  type PauseAnswer,
  type PurgeAnswer,
  type PutQueueRequest,
  type QueueAnswer,
  type QueuesAnswer,
  type ReaperAnswer,
  type RedriveAnswer,
  type RedriveRequest,
  type ReleaseAnswer,
  type ReleaseRequest,
} from '@rowmq/contract';
import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import { errors, type Dispatcher } from 'undici';
import { z } from 'zod';
import { type CallOptions, BrokerClient } from '../broker-client.js';
import { jittered, pause } from '../timers.js';
import { read, unreachable } from './answer.js';
import { BrokerUnreachableError, isOutcomeUnknown, mayPass, retryAfterMs } from './broker-unreachable.error.js';
import { NO_RECEIPT } from './no-receipt.js';
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
}

interface Call {
  method: Dispatcher.HttpMethod;
  path: string;
  body?: unknown;
  /** The time that the broker may take before it answers. */
  extraMs?: number;
  /** Its answer is text, not JSON. */
  isText?: boolean;
  /** Repeating it has a further effect. */
  once?: boolean;
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
});

/** Names this process to operators, who see in a broker who holds a message. */
const USER_AGENT = `rowmq-client (${hostname().replaceAll(/[^\x21-\x7e]/g, '?')}; ${process.pid})`;

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2000;

/** The time that a broker may take for a purge or a delete of a large queue. */
const SWEEP_MS = LIMITS.sweepSeconds * 1000;

/**
 * RowMQ over HTTP, on pools of kept-alive connections, with one method per verb of the REST
 * contract. Needs no framework.
 *
 * Every call has a deadline. If the broker refuses, the call throws {@link RowmqError} with the
 * broker's code. Without a broker's answer it throws {@link BrokerUnreachableError}. If its signal
 * cancels it, it throws the signal's reason.
 *
 * The client retries failures that may pass (`overloaded`, `database-unavailable`, `queue-locked`,
 * no answer). It pauses with jitter, and turns to the next broker if there are several.
 *
 * It repeats an enqueue only if the broker has certainly not stored it. If that is unknown, the
 * error says so. The caller decides whether to repeat the enqueue, at the risk of a second copy.
 */
export class RowmqHttpClient extends BrokerClient {
  readonly #endpoints: Endpoints;
  readonly #timeoutMs: number;
  readonly #retries: number;
  readonly #retrySeconds: number;
  readonly #headers: Record<string, string>;
  readonly #closed = new AbortController();

  /** Opens no connection yet. Throws TypeError that names every invalid option. */
  constructor(options: RowmqClientOptions) {
    super();
    const given = optionsSchema.safeParse(options);
    if (!given.success) throw new TypeError(`RowMQ's client has invalid options: ${z.prettifyError(given.error)}`);
    const { url, apiKey, timeoutMs, retries, retrySeconds, maxConnections } = given.data;
    // Each call that waits to be repeated listens to it.
    setMaxListeners(0, this.#closed.signal);
    this.#timeoutMs = timeoutMs;
    this.#retries = retries;
    this.#retrySeconds = retrySeconds;
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

  /** Stores 1 to 100 messages, all or none. Answers their ids, in order, once they are durable. */
  enqueue(queue: string, request: EnqueueRequest, options: CallOptions = {}): Promise<EnqueueAnswer> {
    return this.#call(enqueueAnswer, {
      method: 'POST',
      path: messagesPath(queue),
      body: request,
      once: true,
      ...options,
    });
  }

  /**
   * Leases up to `maxMessages` and waits up to `waitSeconds` for the first. It may answer none.
   *
   * Settles the receipts in `ack` first, and then answers each as acked or failed. After a retry,
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
    try {
      await this.ack(queue, { receipts: [NO_RECEIPT] }, options);
    } catch (error) {
      if (!(error instanceof RowmqError) || error.code !== 'queue-not-found') throw error;
      await this.putQueue(queue, settings, options);
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

  /** Deletes the queue and every delivery in it. */
  async deleteQueue(queue: string, options: CallOptions = {}): Promise<void> {
    await this.#call(NOTHING, {
      method: 'DELETE',
      path: queuePath(queue),
      extraMs: SWEEP_MS,
      doneCode: 'queue-not-found',
      ...options,
    });
  }

  /** Stops the hand-out of a queue's messages to all consumers. */
  pauseQueue(queue: string, options: CallOptions = {}): Promise<PauseAnswer> {
    return this.#call(pauseAnswer, { method: 'POST', path: `${queuePath(queue)}/pause`, ...options });
  }

  /** Resumes the hand-out of a queue's messages. */
  resumeQueue(queue: string, options: CallOptions = {}): Promise<PauseAnswer> {
    return this.#call(pauseAnswer, { method: 'POST', path: `${queuePath(queue)}/resume`, ...options });
  }

  /**
   * Moves the deliveries of a dead-letter queue back to the queues that they were enqueued in;
   * `complete: false` asks for another call. With `maxMessages` it is not repeated when its outcome
   * is unknown: a repeat would move more.
   */
  redrive(queue: string, request: RedriveRequest = {}, options: CallOptions = {}): Promise<RedriveAnswer> {
    return this.#call(redriveAnswer, {
      method: 'POST',
      path: `${queuePath(queue)}/redrive`,
      body: request,
      extraMs: SWEEP_MS,
      once: request.maxMessages !== undefined,
      ...options,
    });
  }

  /** Drops every delivery of the queue; `complete: false` asks for another call. */
  purge(queue: string, options: CallOptions = {}): Promise<PurgeAnswer> {
    return this.#call(purgeAnswer, {
      method: 'POST',
      path: `${queuePath(queue)}/purge`,
      extraMs: SWEEP_MS,
      ...options,
    });
  }

  /** One page of a queue's messages in one state, without leasing them. */
  browse(queue: string, query: Partial<BrowseQuery> = {}, options: CallOptions = {}): Promise<BrowseAnswer> {
    const pairs = Object.entries(query).filter(([, value]) => value !== undefined);
    const search = new URLSearchParams(pairs.map(([key, value]): [string, string] => [key, String(value)])).toString();
    return this.#call(browseAnswer, { method: 'GET', path: `${queuePath(queue)}/messages?${search}`, ...options });
  }

  /** A message and each of its deliveries, or that it is settled. */
  getMessage(id: string, options: CallOptions = {}): Promise<MessageAnswer> {
    return this.#call(messageAnswer, {
      method: 'GET',
      path: `/v1/admin/messages/${encodeURIComponent(id)}`,
      ...options,
    });
  }

  /** The reaper that works now, and the last runs of its duties. */
  getReaper(options: CallOptions = {}): Promise<ReaperAnswer> {
    return this.#call(reaperAnswer, { method: 'GET', path: '/v1/admin/reaper', ...options });
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

  async #call<Schema extends z.ZodType>(schema: Schema, call: Call): Promise<z.output<Schema>> {
    call.signal?.throwIfAborted();
    try {
      return await this.#try(schema, call);
    } catch (error) {
      const seconds = Math.min(this.#retrySeconds, call.retrySeconds ?? Infinity);
      if (this.#retries === 0 || seconds === 0 || !this.#mayBeSentAgain(call, error)) throw error;
      return this.#tryAgain(error, seconds, schema, call);
    }
  }

  /**
   * Retries after a first failure. It is a function of its own, so that a call that succeeds at
   * once costs nothing more.
   */
  async #tryAgain<Schema extends z.ZodType>(
    failure: unknown,
    seconds: number,
    schema: Schema,
    call: Call,
  ): Promise<z.output<Schema>> {
    const until = performance.now() + seconds * 1000;
    /** An earlier try may have been carried out. */
    let isInDoubt = false;
    let error = failure;
    for (let retries = 0; retries < this.#retries && this.#mayBeSentAgain(call, error); retries += 1) {
      isInDoubt ||= isOutcomeUnknown(error);
      const pauseMs = Math.max(
        jittered(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** retries)),
        Math.min(LONGEST_PAUSE_MS, retryAfterMs(error)),
      );
      if (performance.now() + pauseMs > until) break;
      await pause(pauseMs, call.signal, this.#closed.signal);
      call.signal?.throwIfAborted();
      try {
        return await this.#try(schema, call);
      } catch (again) {
        error = again;
      }
    }
    if (!isInDoubt) throw error;
    if (error instanceof RowmqError && error.code === call.doneCode) return schema.parse(undefined);
    throw error instanceof BrokerUnreachableError ? afterDoubt(error) : error;
  }

  #mayBeSentAgain(call: Call, error: unknown): boolean {
    if (this.#closed.signal.aborted || !mayPass(error)) return false;
    return !call.once || !isOutcomeUnknown(error);
  }

  /** Sends a call once. */
  async #try<Schema extends z.ZodType>(schema: Schema, call: Call): Promise<z.output<Schema>> {
    const endpoint = this.#endpoints.pick();
    try {
      const answer = await this.#send(endpoint, schema, call);
      this.#endpoints.succeeded(endpoint);
      return answer;
    } catch (error) {
      if (isOfBroker(error)) this.#endpoints.failed(endpoint);
      throw error;
    }
  }

  async #send<Schema extends z.ZodType>(endpoint: Endpoint, schema: Schema, call: Call): Promise<z.output<Schema>> {
    const deadlineMs = Math.min(this.#timeoutMs, call.timeoutMs ?? Infinity) + (call.extraMs ?? 0);
    const body = call.body === undefined ? null : JSON.stringify(call.body);
    const headers = body === null ? this.#headers : { ...this.#headers, 'content-type': 'application/json' };
    const request = { method: call.method, path: endpoint.pathPrefix + call.path, headers, body };
    const asked = { method: call.method, url: endpoint.url, path: call.path, isText: call.isText === true };
    const { pool } = endpoint;
    try {
      return read(schema, asked, await exchange(pool, request, { deadlineMs, signal: call.signal }));
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
      if (error.cause instanceof errors.HeadersTimeoutError && !error.neverLeft) this.#endpoints.renew(endpoint, pool);
      if (error.cause instanceof errors.InvalidArgumentError) throw error.cause;
      call.signal?.throwIfAborted();
      throw unreachable(asked, error, deadlineMs);
    }
  }
}

/** Another broker may do better. A locked queue is locked for every broker. */
function isOfBroker(error: unknown): boolean {
  return mayPass(error) && !(error instanceof RowmqError && error.code === 'queue-locked');
}

/** The error of a call whose earlier try may have been carried out. */
function afterDoubt(error: BrokerUnreachableError): BrokerUnreachableError {
  if (error.outcome === 'unknown') return error;
  const message = `${error.message} An earlier try may have been carried out.`;
  return new BrokerUnreachableError(message, error.url, 'unknown', { cause: error });
}

const queuePath = (queue: string) => `/v1/admin/queues/${encodeURIComponent(queue)}`;
const messagesPath = (queue: string) => `/v1/queues/${encodeURIComponent(queue)}/messages`;
