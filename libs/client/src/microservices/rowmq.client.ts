import { ClientProxy, type ReadPacket } from '@nestjs/microservices';
import { type Observable, throwError } from 'rxjs';
import type { BrokerClient } from '../broker-client.js';
import { RowmqHttpClient, type RowmqClientOptions } from '../http/rowmq-http-client.js';
import { RowmqConfigurationError } from '../nest/rowmq-configuration.error.js';
import { Queue } from '../queue/queue.js';
import type { EnqueueOptions } from '@rowmq/contract/producer';

/** A payload with options: `client.emit('orders', new RowmqRecord(order, { priority: 9 }))`. */
export class RowmqRecord<T = unknown> {
  constructor(
    readonly payload: T,
    readonly options: EnqueueOptions = {},
  ) {}
}

/**
 * The client side of the transport. `emit(queue, payload)` enqueues, and completes with the
 * message's id once it is durable. It refuses `send`: a queue is not an RPC channel.
 */
export class RowmqClient extends ClientProxy {
  readonly #client: BrokerClient;
  readonly #queues = new Map<string, Queue>();

  /**
   * Throws TypeError that names every invalid option.
   * @param client replaces the HTTP client, for example with an `InMemoryBroker`
   */
  constructor(options: RowmqClientOptions, client?: BrokerClient) {
    super();
    this.#client = client ?? new RowmqHttpClient(options);
  }

  /** Connections are made when they are needed. */
  async connect(): Promise<void> {}

  async close(): Promise<void> {
    await this.#client.close();
  }

  override send<Result = never>(pattern: unknown, _data?: unknown): Observable<Result> {
    return throwError(() => noAnswers(pattern));
  }

  override on(): never {
    throw new RowmqConfigurationError('RowmqClient has no events: its connections come and go as they are needed.');
  }

  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- Nest's signature
  unwrap<T = BrokerClient>(): T {
    return this.#client as T;
  }

  protected publish({ pattern }: ReadPacket): () => void {
    throw noAnswers(pattern);
  }

  protected async dispatchEvent<T = string>({ pattern, data }: ReadPacket): Promise<T> {
    if (typeof pattern !== 'string') {
      throw new RowmqConfigurationError(`A pattern is a queue's name, not ${JSON.stringify(pattern)}.`);
    }
    const queue = this.#queues.get(pattern) ?? new Queue(this.#client, pattern);
    this.#queues.set(pattern, queue);
    const { payload, options } = data instanceof RowmqRecord ? data : new RowmqRecord(data as unknown);
    return (await queue.enqueue(payload, options)) as T;
  }
}

function noAnswers(pattern: unknown): RowmqConfigurationError {
  return new RowmqConfigurationError(
    `send('${String(pattern)}') asks for an answer, but a queue is not an RPC channel: a message may be handled in a second, tomorrow or twice. Use emit, and enqueue the answer if there is one.`,
  );
}
