import type {
  AckAnswer,
  BrowseAnswer,
  DeliveryState,
  DequeueRequest,
  EnqueueRequest,
  ErrorCode,
  ExtendAnswer,
  JobAnswer,
  JobKind,
  LeasedMessage,
  MessageAnswer,
  NackAnswer,
  Problem,
  QueueAnswer,
  QueueSettings,
  ReleaseAnswer,
} from '@rowmq/contract';
import { afterAll, beforeAll, expect } from 'vitest';
import { type Broker, startBroker } from './processes.js';
import { eventually } from './wait.js';

/** The answer of a call. */
export interface Answer<T = unknown> {
  status: number;
  headers: Headers;
  text: string;
  /** Undefined when the answer is not JSON, or has no body. */
  json: T;
}

/** A client that knows nothing but HTTP. */
export class Api {
  constructor(
    readonly url: string,
    private readonly headers: Record<string, string> = {},
  ) {}

  /** Makes one call. It sends text or bytes as they are, and any other body as JSON. */
  async call<T = unknown>(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer<T>> {
    const raw = typeof body === 'string' || body instanceof Uint8Array;
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...this.headers, ...headers },
      ...(body === undefined ? {} : { body: raw ? body : JSON.stringify(body) }),
      signal: AbortSignal.timeout(60_000),
    });
    const text = await response.text();
    const isJson = /json/.test(response.headers.get('content-type') ?? '');
    return {
      status: response.status,
      headers: response.headers,
      text,
      json: (isJson && text !== '' ? JSON.parse(text) : undefined) as T,
    };
  }

  get = async <T = unknown>(path: string): Promise<Answer<T>> => this.call<T>('GET', path);
  post = async <T = unknown>(path: string, body?: unknown): Promise<Answer<T>> => this.call<T>('POST', path, body);
  put = async <T = unknown>(path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer<T>> =>
    this.call<T>('PUT', path, body, headers);
  delete = async <T = unknown>(path: string): Promise<Answer<T>> => this.call<T>('DELETE', path);

  queue(name: string): QueueApi {
    return new QueueApi(this, name);
  }

  /** The message and its deliveries. */
  async message(id: string): Promise<MessageAnswer> {
    return succeed(await this.get<MessageAnswer>(`/v1/admin/messages/${id}`), 200);
  }

  /** A job, after so many seconds or at its end. */
  async job(id: string, waitSeconds: number): Promise<JobAnswer> {
    return succeed(await this.get<JobAnswer>(`/v1/admin/jobs/${id}?waitSeconds=${waitSeconds}`), 200);
  }

  /**
   * The value of a sample of `/metrics`, or 0 if it is absent. `sample` is its name with labels.
   */
  async metric(sample: string): Promise<number> {
    const { text } = await this.get('/metrics');
    const line = text.split('\n').find((candidate) => candidate.startsWith(`${sample} `));
    return line === undefined ? 0 : Number(line.slice(sample.length + 1));
  }
}

/** The calls on one queue. Each except `request` fails the test if it does not succeed. */
export class QueueApi {
  readonly messagesPath: string;
  readonly adminPath: string;

  constructor(
    readonly api: Api,
    readonly name: string,
  ) {
    this.messagesPath = `/v1/queues/${name}/messages`;
    this.adminPath = `/v1/admin/queues/${name}`;
  }

  /** Calls a message verb and returns any answer. */
  async request<T = unknown>(
    verb: 'enqueue' | 'dequeue' | 'ack' | 'nack' | 'release' | 'extend',
    body?: unknown,
  ): Promise<Answer<T>> {
    return this.api.post<T>(verb === 'enqueue' ? this.messagesPath : `${this.messagesPath}/${verb}`, body);
  }

  /** Acks one message and returns any answer. */
  async requestAckOne(receipt: string): Promise<Answer> {
    return this.api.delete(`${this.messagesPath}/${receipt}`);
  }

  /** Creates or changes the queue. */
  async put(settings: Partial<QueueSettings> = {}): Promise<QueueAnswer> {
    const answer = await untilUnlocked(async () => this.api.put<QueueAnswer>(this.adminPath, settings));
    expect(answer.status, answer.text).toBeOneOf([200, 201]);
    return answer.json;
  }

  async get(): Promise<QueueAnswer> {
    return succeed(await this.api.get<QueueAnswer>(this.adminPath), 200);
  }

  /** Enqueues messages. A string is a message with that body. Returns the ids. */
  async enqueue(...messages: (string | EnqueueRequest['messages'][number])[]): Promise<string[]> {
    const answer = await this.request<{ messages: { id: string }[] }>('enqueue', {
      messages: messages.map((message) => (typeof message === 'string' ? { body: message } : message)),
    });
    return succeed(answer, 201).messages.map(({ id }) => id);
  }

  async dequeue(request: DequeueRequest = {}): Promise<LeasedMessage[]> {
    return succeed(await this.request<{ messages: LeasedMessage[] }>('dequeue', request), 200).messages;
  }

  /**
   * Dequeues one message and waits a little for it, because an empty answer without a wait is best
   * effort. Fails if there is none.
   */
  async dequeueOne(request: Omit<DequeueRequest, 'maxMessages'> = {}): Promise<LeasedMessage> {
    const [message, ...more] = await this.dequeue({ waitSeconds: 5, ...request });
    expect(more).toEqual([]);
    expect(message).toBeDefined();
    return message as LeasedMessage;
  }

  async ack(...receipts: string[]): Promise<AckAnswer> {
    return succeed(await this.request<AckAnswer>('ack', { receipts }), 200);
  }

  async nack(receipts: string[], options: { delaySeconds?: number; reason?: string } = {}): Promise<NackAnswer> {
    return succeed(await this.request<NackAnswer>('nack', { receipts, ...options }), 200);
  }

  async release(receipts: string[], options: { delaySeconds?: number; reason?: string } = {}): Promise<ReleaseAnswer> {
    return succeed(await this.request<ReleaseAnswer>('release', { receipts, ...options }), 200);
  }

  async extend(receipts: string[], leaseSeconds: number): Promise<ExtendAnswer> {
    return succeed(await this.request<ExtendAnswer>('extend', { receipts, leaseSeconds }), 200);
  }

  /** The first messages in a state that a filter selects. */
  async browse(state: DeliveryState, filter: Record<string, string> = {}): Promise<BrowseAnswer['messages']> {
    const query = new URLSearchParams({ state, limit: '100', ...filter });
    const answer = await this.api.get<BrowseAnswer>(`${this.adminPath}/messages?${query.toString()}`);
    return succeed(answer, 200).messages;
  }

  /** Runs an admin call on the whole queue. */
  async admin<T>(action: 'pause' | 'resume', body?: unknown): Promise<T> {
    return succeed(await this.api.post<T>(`${this.adminPath}/${action}`, body), 200);
  }

  /** Begins a job on the whole queue. */
  async begin(kind: JobKind, request?: unknown): Promise<JobAnswer> {
    return succeed(await this.api.post<JobAnswer>(`${this.adminPath}/${kind}`, request), 202);
  }

  /** Runs a job on the whole queue to its end. */
  async job(kind: JobKind, request?: unknown): Promise<JobAnswer> {
    const { id } = await this.begin(kind, request);
    const job = await this.api.job(id, 20);
    expect(job, JSON.stringify(job)).toMatchObject({ kind, queue: this.name, state: 'done', error: null });
    return job;
  }
}

/**
 * Makes a call that changes a queue until the queue is not locked. Such changes take turns, and a
 * busy machine is slow at each. A broker that answers `queue-locked` has changed nothing.
 */
export async function untilUnlocked<T>(call: () => Promise<Answer<T>>): Promise<Answer<T>> {
  return eventually('the queue is not locked', async () => {
    const answer = await call();
    return (answer.json as Partial<Problem> | undefined)?.code !== 'queue-locked' && answer;
  });
}

/** The body of an answer with this status. Fails the test for any other status. */
function succeed<T>(answer: Answer<T>, status: number): T {
  expect(answer.status, answer.text).toBe(status);
  return answer.json;
}

/**
 * Fails unless the answer is this problem, complete and in the form of RFC 9457. Returns the
 * problem.
 */
export function expectProblem(answer: Answer, status: number, code: ErrorCode): Problem {
  const problem = answer.json as Problem;
  expect({ status: answer.status, code: problem?.code }, answer.text).toEqual({ status, code });
  expect(answer.headers.get('content-type')).toBe('application/problem+json; charset=utf-8');
  const { faults, ...rest } = problem;
  expect(rest).toEqual({
    type: `urn:rowmq:problem:${code}`,
    title: expect.stringMatching(/\w/),
    status,
    detail: expect.stringMatching(/\w/),
    code,
  });
  for (const fault of faults ?? [])
    expect(fault).toEqual({ path: expect.any(String), message: expect.stringMatching(/\w/) });
  return problem;
}

/** A broker that several tests share. Each test works on queues of its own. */
export interface SharedBroker {
  readonly broker: Broker;
  readonly api: Api;
  /** A fresh queue. */
  newQueue(settings?: Partial<QueueSettings>): Promise<QueueApi>;
}

let queues = 0;

/** A name that no other queue of this process has. */
export function newQueueName(): string {
  queues += 1;
  return `queue-${queues}`;
}

/**
 * Starts a broker before the tests of a file, and stops it in order after them. Its database is
 * removed with the server's folder, which stays if a test failed.
 */
export function useOwnBroker(env: Record<string, string> = {}): SharedBroker {
  let broker: Broker;
  beforeAll(async () => {
    broker = await startBroker({ env });
  });
  afterAll(async () => {
    await broker.stop();
  });
  return sharing(() => broker);
}

/** The broker of this process. vitest runs many files in one process, one after the other. */
let common: Broker | undefined;

/**
 * A broker that the files of this process share, because each start costs two seconds of CPU. It
 * has the default settings, and no reaper. It stops when this process is gone. A file takes {@link
 * useOwnBroker} if it stops the broker, starts others on its database, or counts all that it does.
 */
export function useBroker(): SharedBroker {
  beforeAll(async () => {
    if (common?.isAlive() !== true) common = await startBroker();
  });
  return sharing(() => common as Broker);
}

function sharing(brokerNow: () => Broker): SharedBroker {
  return {
    get broker() {
      return brokerNow();
    },
    get api() {
      return new Api(brokerNow().url);
    },
    async newQueue(settings = {}) {
      const queue = new Api(brokerNow().url).queue(newQueueName());
      await queue.put(settings);
      return queue;
    },
  };
}
