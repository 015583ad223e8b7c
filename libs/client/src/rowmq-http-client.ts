import {
  ackAnswer,
  browseAnswer,
  dequeueAnswer,
  enqueueAnswer,
  extendAnswer,
  messageAnswer,
  nackAnswer,
  problem,
  purgeAnswer,
  queueAnswer,
  RowmqError,
  type AckAnswer,
  type AckRequest,
  type BrowseAnswer,
  type BrowseQuery,
  type DequeueAnswer,
  type DequeueRequest,
  type EnqueueAnswer,
  type EnqueueRequest,
  type ExtendAnswer,
  type ExtendRequest,
  type MessageAnswer,
  type NackAnswer,
  type NackRequest,
  type PurgeAnswer,
  type PutQueueRequest,
  type QueueAnswer,
} from '@rowmq/contract';
import { errors, Pool, type Dispatcher } from 'undici';
import { z } from 'zod';
import { BrokerUnreachableError } from './broker-unreachable.error.js';

export interface RowmqClientOptions {
  /** The broker's base URL, such as `http://127.0.0.1:8080`. */
  url: string;
  /** Sent as a bearer token; absent for a broker without keys. */
  apiKey?: string | undefined;
  /** Deadline of every call, in milliseconds; a dequeue gets its `waitSeconds` on top. Default 10,000. */
  timeoutMs?: number | undefined;
  /** Sockets kept open at most; each waiting dequeue holds one. Default 128. */
  maxConnections?: number | undefined;
}

/** Per call: `signal` gives the call up. For a dequeue the connection is dropped, so the broker gives back what it claimed for it. */
export interface CallOptions {
  signal?: AbortSignal | undefined;
}

interface Call {
  method: Dispatcher.HttpMethod;
  path: string;
  body?: unknown;
  extraMs?: number;
  signal?: AbortSignal | undefined;
}

const NOTHING = z.undefined();
const ANYTHING = z.unknown();
const DEFAULT_TIMEOUT_MS = 10_000;
const DEFAULT_CONNECTIONS = 128;

/** The system's and undici's codes for "no connection came about": the broker has seen nothing of the call. */
const NOT_SENT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
]);

/**
 * One RowMQ broker over HTTP, on a pool of kept-alive connections. One method per verb of the REST contract.
 *
 * Every call has a deadline. A refusal by the broker throws {@link RowmqError} with the broker's code; a call without a broker's answer
 * throws {@link BrokerUnreachableError}; a call given up by its signal throws the signal's reason. Nothing is retried: a call is sent once,
 * and what to do about an unknown outcome is the caller's decision.
 */
export class RowmqHttpClient {
  readonly url: string;
  readonly #pool: Pool;
  readonly #pathPrefix: string;
  readonly #timeoutMs: number;
  readonly #headers: Record<string, string>;

  /** Opens no connection yet. Throws TypeError when `url` is not an http or https URL. */
  constructor(options: RowmqClientOptions) {
    const url = parseUrl(options.url);
    this.url = url.href.replace(/\/$/, '');
    this.#pathPrefix = url.pathname.replace(/\/$/, '');
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#headers = options.apiKey === undefined ? {} : { authorization: `Bearer ${options.apiKey}` };
    // The deadline of a call is one timer in #call, which covers connecting and reading too: undici's own limits stay out of its way.
    this.#pool = new Pool(url.origin, {
      connections: options.maxConnections ?? DEFAULT_CONNECTIONS,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { timeout: this.#timeoutMs },
    });
  }

  /** Stores 1 to 100 messages, all or none. Answers their ids, in order, once they are durable. */
  enqueue(queue: string, request: EnqueueRequest, options: CallOptions = {}): Promise<EnqueueAnswer> {
    return this.#call(enqueueAnswer, { method: 'POST', path: messagesPath(queue), body: request, ...options });
  }

  /** Leases up to `maxMessages`, waiting up to `waitSeconds` for the first; may answer none. */
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

  /** Settles leased messages; answers each receipt as acked or failed. */
  ack(queue: string, request: AckRequest, options: CallOptions = {}): Promise<AckAnswer> {
    return this.#call(ackAnswer, { method: 'POST', path: `${messagesPath(queue)}/ack`, body: request, ...options });
  }

  /** Gives leased messages back, now or after `delaySeconds`; answers each receipt as nacked or failed. */
  nack(queue: string, request: NackRequest, options: CallOptions = {}): Promise<NackAnswer> {
    return this.#call(nackAnswer, { method: 'POST', path: `${messagesPath(queue)}/nack`, body: request, ...options });
  }

  /** Moves the deadlines of leases to `leaseSeconds` from now; answers each receipt as extended or failed. */
  extend(queue: string, request: ExtendRequest, options: CallOptions = {}): Promise<ExtendAnswer> {
    return this.#call(extendAnswer, {
      method: 'POST',
      path: `${messagesPath(queue)}/extend`,
      body: request,
      ...options,
    });
  }

  /** Creates the queue, or changes the settings that are named. */
  putQueue(queue: string, settings: PutQueueRequest = {}, options: CallOptions = {}): Promise<QueueAnswer> {
    return this.#call(queueAnswer, { method: 'PUT', path: queuePath(queue), body: settings, ...options });
  }

  /** A queue's settings and stats. */
  getQueue(queue: string, options: CallOptions = {}): Promise<QueueAnswer> {
    return this.#call(queueAnswer, { method: 'GET', path: queuePath(queue), ...options });
  }

  /** Deletes the queue and every delivery in it. */
  async deleteQueue(queue: string, options: CallOptions = {}): Promise<void> {
    await this.#call(NOTHING, { method: 'DELETE', path: queuePath(queue), ...options });
  }

  /** Drops every delivery of the queue; `complete: false` asks for another call. */
  purge(queue: string, options: CallOptions = {}): Promise<PurgeAnswer> {
    return this.#call(purgeAnswer, { method: 'POST', path: `${queuePath(queue)}/purge`, ...options });
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

  /** Throws unless the broker is up and reaches its database. */
  async ready(options: CallOptions = {}): Promise<void> {
    await this.#call(ANYTHING, { method: 'GET', path: '/health/ready', ...options });
  }

  /** Drops the connections, and with them the calls that are under way. Idempotent. */
  async close(): Promise<void> {
    if (!this.#pool.destroyed) await this.#pool.destroy();
  }

  async #call<Schema extends z.ZodType>(schema: Schema, call: Call): Promise<z.output<Schema>> {
    call.signal?.throwIfAborted();
    const deadlineMs = this.#timeoutMs + (call.extraMs ?? 0);
    // One controller and one timer per call rather than AbortSignal.any, which keeps every signal it made on a long-lived source.
    const giveUp = new AbortController();
    const onAbort = () => giveUp.abort(call.signal?.reason);
    const timer = setTimeout(() => giveUp.abort(new errors.HeadersTimeoutError()), deadlineMs);
    call.signal?.addEventListener('abort', onAbort, { once: true });
    try {
      const answer = await this.#pool.request({
        method: call.method,
        path: this.#pathPrefix + call.path,
        headers: call.body === undefined ? this.#headers : { ...this.#headers, 'content-type': 'application/json' },
        body: call.body === undefined ? null : JSON.stringify(call.body),
        signal: giveUp.signal,
      });
      const text = await answer.body.text();
      return this.#read(schema, call, answer.statusCode, text, answer.headers['retry-after']);
    } catch (error) {
      if (error instanceof RowmqError || error instanceof BrokerUnreachableError) throw error;
      call.signal?.throwIfAborted();
      throw this.#unreachable(call, error, deadlineMs);
    } finally {
      clearTimeout(timer);
      call.signal?.removeEventListener('abort', onAbort);
    }
  }

  #read<Schema extends z.ZodType>(
    schema: Schema,
    call: Call,
    status: number,
    text: string,
    retryAfter: string | string[] | undefined,
  ): z.output<Schema> {
    const answer = text === '' ? undefined : parseJson(text);
    const success = status < 300 ? schema.safeParse(answer) : undefined;
    if (success?.success) return success.data;
    const refusal = problem.safeParse(answer);
    if (refusal.success) {
      const { code, detail, faults } = refusal.data;
      const retryAfterSeconds = Number(retryAfter ?? Number.NaN);
      throw new RowmqError(code, detail, {
        ...(faults === undefined ? {} : { faults }),
        ...(Number.isFinite(retryAfterSeconds) ? { retryAfterSeconds } : {}),
      });
    }
    throw new BrokerUnreachableError(
      `${call.method} ${this.url}${call.path} was answered with status ${status} and something that is not RowMQ's answer to it; ` +
        'check that the URL is a RowMQ broker and not something in front of it.',
      this.url,
      'unknown',
    );
  }

  #unreachable(call: Call, cause: unknown, deadlineMs: number): BrokerUnreachableError {
    const code = errorCode(cause);
    if (NOT_SENT.has(code)) {
      const message = `No broker can be reached at ${this.url} (${code}); start one with npm start, or correct the URL.`;
      return new BrokerUnreachableError(message, this.url, 'not-sent', { cause });
    }
    const what =
      cause instanceof errors.HeadersTimeoutError
        ? `no answer within ${deadlineMs} ms`
        : `the connection broke (${cause instanceof Error ? cause.message : String(cause)})`;
    const message = `${call.method} ${this.url}${call.path}: ${what}; it may or may not have been carried out.`;
    return new BrokerUnreachableError(message, this.url, 'unknown', { cause });
  }
}

const queuePath = (queue: string) => `/v1/admin/queues/${encodeURIComponent(queue)}`;
const messagesPath = (queue: string) => `/v1/queues/${encodeURIComponent(queue)}/messages`;

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === 'http:' || url?.protocol === 'https:') return url;
  throw new TypeError(`'${text}' is not a broker's URL; give one such as http://127.0.0.1:8080.`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}
