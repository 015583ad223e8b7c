import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import type { AckAnswer, DequeueAnswer, DequeueRequest, EnqueueAnswer, LeasedMessage } from '@rowmq/contract';
import { HttpConnection } from './http-connection.js';
import type { LatencyRecorder } from './latency-recorder.js';

const VERBS = {
  enqueue: { path: '', status: 201 },
  dequeue: { path: '/dequeue', status: 200 },
  ack: { path: '/ack', status: 200 },
} as const;

export type Verb = keyof typeof VERBS;

/** Deals the calls of all its clients to several brokers in turn, as a load balancer does. */
export class Balancer {
  private calls = 0;

  constructor(readonly urls: readonly string[]) {}

  /** Index of the broker that gets the next call. */
  next(): number {
    const broker = this.calls % this.urls.length;
    this.calls += 1;
    return broker;
  }
}

/** The way of a client's calls: to the broker with this URL, or through a balancer. */
export type Route = string | Balancer;

/** The queue with this name, or a topic, whose clients only enqueue. */
export type Target = string | { topic: string };

export interface QueueClientOptions {
  /** Records the latency of each call under its verb. */
  latencies?: LatencyRecorder | undefined;
  /** Each enqueue has an Idempotency-Key, as those of `@rowmq/client`. */
  idempotencyKeys?: boolean | undefined;
  apiKey?: string | undefined;
}

/**
 * Works on one target, one call at a time, with a connection to each broker of its route. A latency
 * counts from `since` or from the call. Any answer but success is an error.
 */
export class QueueClient {
  private readonly path: string;

  private constructor(
    private readonly connections: readonly HttpConnection[],
    private readonly route: Route,
    target: Target,
    private readonly options: QueueClientOptions,
  ) {
    this.path = typeof target === 'string' ? `/v1/queues/${target}/messages` : `/v1/topics/${target.topic}/messages`;
  }

  static async open(route: Route, target: Target, options: QueueClientOptions = {}): Promise<QueueClient> {
    const urls = typeof route === 'string' ? [route] : route.urls;
    const connections = await Promise.all(urls.map(async (url) => HttpConnection.open(url, options.apiKey)));
    return new QueueClient(connections, route, target, options);
  }

  /**
   * Takes the request as JSON, so that a load that always sends the same builds it once. Returns
   * the ids.
   */
  async enqueue(request: string, since?: number): Promise<string[]> {
    const headers = this.options.idempotencyKeys === true ? `\r\nidempotency-key: "${randomUUID()}"` : '';
    const { messages } = await this.call<EnqueueAnswer>('enqueue', request, since, headers);
    return messages.map(({ id }) => id);
  }

  async dequeue(request: DequeueRequest, since?: number): Promise<LeasedMessage[]> {
    return (await this.call<DequeueAnswer>('dequeue', JSON.stringify(request), since)).messages;
  }

  /** Fails unless every message is acked. */
  async ack(messages: readonly LeasedMessage[]): Promise<void> {
    const request = JSON.stringify({ receipts: messages.map(({ receipt }) => receipt) });
    const { acked, failed } = await this.call<AckAnswer>('ack', request);
    if (acked.length === messages.length && failed.length === 0) return;
    throw new Error(`acked ${acked.length} of ${messages.length}; failed: ${JSON.stringify(failed.slice(0, 3))}`);
  }

  /** Closes at once; a call in flight fails with `ConnectionClosedError`. */
  close(): void {
    for (const connection of this.connections) connection.close();
  }

  private async call<T>(verb: Verb, request: string, since = performance.now(), headers = ''): Promise<T> {
    const { path, status } = VERBS[verb];
    const broker = typeof this.route === 'string' ? 0 : this.route.next();
    const answer = await (this.connections[broker] as HttpConnection).post(this.path + path, request, headers);
    this.options.latencies?.record(verb, since);
    if (answer.status !== status) throw new Error(`${verb} answered ${answer.status}: ${answer.text.slice(0, 500)}`);
    return JSON.parse(answer.text) as T;
  }
}
