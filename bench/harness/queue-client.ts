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

/** A connection that works on one queue, one call at a time; each call's latency is recorded under its verb. Whatever is no success is an error. */
export class QueueClient {
  private readonly path: string;

  private constructor(
    private readonly connection: HttpConnection,
    queue: string,
    private readonly latencies: LatencyRecorder,
  ) {
    this.path = `/v1/queues/${queue}/messages`;
  }

  static async open(url: string, queue: string, latencies: LatencyRecorder): Promise<QueueClient> {
    return new QueueClient(await HttpConnection.open(url), queue, latencies);
  }

  /** Takes the request as JSON, so that a load that always sends the same builds it once. Returns the ids. */
  async enqueue(request: string): Promise<string[]> {
    const { messages } = await this.call<EnqueueAnswer>('enqueue', request);
    return messages.map(({ id }) => id);
  }

  async dequeue(request: DequeueRequest): Promise<LeasedMessage[]> {
    return (await this.call<DequeueAnswer>('dequeue', JSON.stringify(request))).messages;
  }

  /** Fails unless every message is acked. */
  async ack(messages: readonly LeasedMessage[]): Promise<void> {
    const request = JSON.stringify({ receipts: messages.map(({ receipt }) => receipt) });
    const { acked, failed } = await this.call<AckAnswer>('ack', request);
    if (acked.length === messages.length && failed.length === 0) return;
    throw new Error(`acked ${acked.length} of ${messages.length}; failed: ${JSON.stringify(failed.slice(0, 3))}`);
  }

  /** Closes at once; a call under way fails with `ConnectionClosedError`. */
  close(): void {
    this.connection.close();
  }

  private async call<T>(verb: Verb, request: string): Promise<T> {
    const { path, status } = VERBS[verb];
    const began = performance.now();
    const answer = await this.connection.post(this.path + path, request);
    this.latencies.record(verb, began);
    if (answer.status !== status) throw new Error(`${verb} answered ${answer.status}: ${answer.text.slice(0, 500)}`);
    return JSON.parse(answer.text) as T;
  }
}

/** An enqueue request of so many messages as JSON. `priorityOf` a message's place in it; absent: the default. */
export function enqueueRequest(messages: number, bodyBytes: number, priorityOf?: (place: number) => number): string {
  const body = 'x'.repeat(bodyBytes);
  return JSON.stringify({
    messages: Array.from({ length: messages }, (_, place) =>
      priorityOf ? { body, priority: priorityOf(place) } : { body },
    ),
  });
}
