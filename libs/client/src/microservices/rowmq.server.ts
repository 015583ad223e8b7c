import { type CustomTransportStrategy, type MessageHandler, Server } from '@nestjs/microservices';
import { queueName } from '@rowmq/contract';
import { isObservable, lastValueFrom } from 'rxjs';
import type { ConsumerOptions } from '../consumer/consumer-options.js';
import { QueueConsumer } from '../consumer/queue-consumer.js';
import type { BrokerClient } from '../broker-client.js';
import { RowmqHttpClient, type RowmqClientOptions } from '../http/rowmq-http-client.js';
import { logConsumer } from '../nest/consumer-log.js';
import { type NeededQueue, QueueCheck } from '../nest/queue-check.js';
import { RowmqConfigurationError } from '../nest/rowmq-configuration.error.js';
import type { PayloadOptions } from '../queue/payload-codec.js';
import { RowmqContext } from './rowmq.context.js';

type HandlerOptions = ConsumerOptions & PayloadOptions & Pick<NeededQueue, 'create'>;

/** Which names this transport by in `@EventPattern(queue, ROWMQ)`, where an application has several. */
export const ROWMQ = Symbol('rowmq');

export interface RowmqServerOptions extends RowmqClientOptions {
  /** How every queue is consumed, unless it says otherwise: `@EventPattern('orders', { concurrency: 5 })`. */
  consumer?: ConsumerOptions | undefined;
  /** `true` creates the queues that are not there yet; settings are given to all of them. Needs an API key that may. Default: a queue that does not exist is a fault. */
  create?: NeededQueue['create'];
}

/**
 * The server side of the transport: `createMicroservice(AppModule, { strategy: new RowmqServer({ url }) })`. An `@EventPattern(queue)` handler gets the queue's payloads; when it is done the message is
 * acked, when it throws it comes again, as with a `@Consumer`. A pattern is a queue's name. The last argument of `@EventPattern` has options: those of a consumer, `format`, `schema` and
 * `create`.
 */
export class RowmqServer extends Server implements CustomTransportStrategy {
  override readonly transportId = ROWMQ;
  /** What a handler throws is the consumer's to settle and to tell. */
  override readonly propagatesEventHandlerErrors = true;
  readonly #client: BrokerClient;
  readonly #consumers: QueueConsumer[] = [];
  readonly #closing = new AbortController();
  /** What holds for queues that do not say otherwise. */
  readonly #usual: HandlerOptions;

  /** Throws TypeError for a URL that is none. @param client in place of one over HTTP, such as an `InMemoryBroker` */
  constructor({ consumer, create, ...options }: RowmqServerOptions, client?: BrokerClient) {
    super();
    this.#usual = { ...consumer, create };
    this.#client = client ?? new RowmqHttpClient(options);
    this.initializeSerializer({});
    this.initializeDeserializer({});
  }

  /** Checks that the queues are there, and begins to consume. Answers {@link RowmqConfigurationError} for queues that are not, and for handlers that a queue cannot have. */
  listen(callback: (error?: unknown) => void): void {
    // oxlint-disable-next-line promise/no-callback-in-promise -- Nest's signature
    this.#begin().then(() => callback(), callback);
  }

  /** Stops as {@link QueueConsumer.stop} does. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('the server is closed'));
    await Promise.all(this.#consumers.map((consumer) => consumer.stop()));
    await this.#client.close();
  }

  /** There are no events of a connection: what happens is told by consumers. */
  on(): never {
    throw new RowmqConfigurationError('RowmqServer has no events; listen to those of unwrap().');
  }

  /** The consumers, one for each queue. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- Nest's signature
  unwrap<T = readonly QueueConsumer[]>(): T {
    return this.#consumers as T;
  }

  async #begin(): Promise<void> {
    const handlers = [...this.getHandlers()];
    for (const [queue, handler] of handlers) this.#consumers.push(this.#consumerOf(queue, handler));
    const needed = handlers.map(([name, handler]) => ({ name, create: this.#optionsOf(handler).create }));
    await new QueueCheck(this.#client, this.logger, this.#closing.signal).ensureAll(needed);
    if (this.#closing.signal.aborted) return;
    for (const consumer of this.#consumers) consumer.start();
  }

  #optionsOf(handler: MessageHandler): HandlerOptions {
    return { ...this.#usual, ...(handler.extras as HandlerOptions | undefined) };
  }

  #consumerOf(queue: string, handler: MessageHandler): QueueConsumer {
    if (!queueName.safeParse(queue).success) {
      throw new RowmqConfigurationError(
        `@EventPattern(${queue}) names no queue: a pattern is a queue's name, 1 to 80 of the characters A-Z a-z 0-9 . _ -`,
      );
    }
    if (!handler.isEventHandler) {
      throw new RowmqConfigurationError(
        `@MessagePattern('${queue}') asks for answers, and a queue is no RPC channel: nobody may be waiting any more when the message is handled. Use @EventPattern('${queue}'), and enqueue the answer if there is one.`,
      );
    }
    if (handler.next !== undefined) {
      throw new RowmqConfigurationError(
        `Several handlers have @EventPattern('${queue}'): one that fails would have the others do it again. Call them from one handler, or give each a queue.`,
      );
    }
    const { create: _, ...options } = this.#optionsOf(handler);
    const consumer = new QueueConsumer<unknown>(
      this.#client,
      queue,
      {
        message: async (payload, message) => this.#handle(handler, payload, new RowmqContext([message])),
      },
      options,
    );
    logConsumer(consumer, this.logger);
    return consumer;
  }

  /** Within Nest's hooks, for who instruments all transports alike. */
  async #handle(handler: MessageHandler, payload: unknown, context: RowmqContext): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const work = async (): Promise<void> => {
        try {
          const result: unknown = await handler(payload, context);
          if (isObservable(result)) await lastValueFrom(result, { defaultValue: undefined });
          resolve();
        } catch (error) {
          reject(error);
        } finally {
          this.onProcessingEndHook?.(this.transportId, context);
        }
      };
      this.onProcessingStartHook(this.transportId, context, work);
    });
  }
}
