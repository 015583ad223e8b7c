import { type CustomTransportStrategy, type MessageHandler, Server } from '@nestjs/microservices';
import { queueName } from '@rowmq/contract';
import { isObservable, lastValueFrom } from 'rxjs';
import type { ConsumerOptions } from '../consumer/consumer-options.js';
import { QueueConsumer } from '../consumer/queue-consumer.js';
import type { BrokerClient } from '../broker-client.js';
import { RowmqHttpClient, type RowmqClientOptions } from '../http/rowmq-http-client.js';
import { logConsumer } from '../nest/consumer-log.js';
import { BootCheck } from '../nest/boot-check.js';
import { type NeededQueue, QueueCheck } from '../nest/queue-check.js';
import { RowmqConfigurationError } from '../nest/rowmq-configuration.error.js';
import type { PayloadOptions } from '@rowmq/contract/producer';
import { quietly } from '../consumer/thrown.js';
import { RowmqContext } from './rowmq.context.js';

type HandlerOptions = ConsumerOptions & PayloadOptions & Pick<NeededQueue, 'create' | 'update'>;

/** Names this transport in `@EventPattern(queue, ROWMQ)`, in an application with several. */
export const ROWMQ = Symbol('rowmq');

export interface RowmqServerOptions extends RowmqClientOptions {
  /**
   * The options of every consumer. A handler's own replace them: `@EventPattern('orders', {
   * concurrency: 5 })`.
   */
  consumer?: ConsumerOptions | undefined;
  /**
   * `true` or settings create the queues that are missing. Needs an API key with that right. By
   * default a missing queue is an error.
   */
  create?: NeededQueue['create'];
  /** `true` also applies the settings of `create` to queues that exist, at every boot. */
  update?: NeededQueue['update'];
}

/**
 * The server side of the transport: `createMicroservice(AppModule, { strategy: new RowmqServer({
 * url }) })`. An `@EventPattern(queue)` handler gets the queue's payloads. If it returns, the
 * message is acked. If it throws, the message comes again, as with a `@Consumer`.
 *
 * A pattern is a queue's name. The last argument of `@EventPattern` takes the options of a
 * consumer, and `format`, `schema`, `create` and `update`.
 */
export class RowmqServer extends Server implements CustomTransportStrategy {
  override readonly transportId = ROWMQ;
  /** The consumer settles and reports the errors of handlers. */
  override readonly propagatesEventHandlerErrors = true;
  readonly #client: BrokerClient;
  readonly #consumers: QueueConsumer[] = [];
  readonly #closing = new AbortController();
  /** The options of queues that have none of their own. */
  readonly #usual: HandlerOptions;

  /**
   * Throws TypeError that names every invalid option.
   * @param client replaces the HTTP client, for example with an `InMemoryBroker`
   */
  constructor({ consumer, create, update, ...options }: RowmqServerOptions, client?: BrokerClient) {
    super();
    this.#usual = { ...consumer, create, update };
    this.#client = client ?? new RowmqHttpClient(options);
    this.initializeSerializer({});
    this.initializeDeserializer({});
  }

  /**
   * Checks that the queues exist, and starts to consume. Passes {@link RowmqConfigurationError} on
   * for a missing queue, and for a handler that no queue can have.
   */
  listen(callback: (error?: unknown) => void): void {
    // oxlint-disable-next-line promise/no-callback-in-promise -- Nest's signature
    this.#begin().then(() => callback(), callback);
  }

  /** Stops each consumer as {@link QueueConsumer.stop} does. */
  async close(): Promise<void> {
    this.#closing.abort(new Error('the server is closed'));
    await Promise.all(this.#consumers.map((consumer) => consumer.stop()));
    await this.#client.close();
  }

  /** A connection has no events here. The consumers have events. */
  on(): never {
    throw new RowmqConfigurationError('RowmqServer has no events; listen to those of unwrap().');
  }

  /** The consumers, one per queue. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- Nest's signature
  unwrap<T = readonly QueueConsumer[]>(): T {
    return this.#consumers as T;
  }

  async #begin(): Promise<void> {
    const handlers = [...this.getHandlers()];
    for (const [queue, handler] of handlers) this.#consumers.push(this.#consumerOf(queue, handler));
    if (handlers.length === 0) {
      throw new RowmqConfigurationError(
        'RowmqServer has no handlers, so it would consume nothing: mark methods of controllers with @EventPattern(queue).',
      );
    }
    const queues = handlers.map(([name, handler]) => {
      const { create, update } = this.#optionsOf(handler);
      return { name, create, update };
    });
    const consumed = new Set(queues.map(({ name }) => name));
    const steps = new QueueCheck(this.#client).steps({ queues, consumed });
    await new BootCheck(this.logger, this.#closing.signal).runAll(steps);
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
        `@MessagePattern('${queue}') asks for answers, but a queue is not an RPC channel: nobody may wait any more when the message is handled. Use @EventPattern('${queue}'), and enqueue the answer if there is one.`,
      );
    }
    if (handler.next !== undefined) {
      throw new RowmqConfigurationError(
        `Several handlers have @EventPattern('${queue}'): if one fails, the others would run again. Call them from one handler, or give each a queue.`,
      );
    }
    const { create: _create, update: _update, ...options } = this.#optionsOf(handler);
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

  /** Runs inside Nest's hooks, for code that instruments all transports alike. */
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
          quietly(() => this.onProcessingEndHook?.(this.transportId, context));
        }
      };
      this.onProcessingStartHook(this.transportId, context, work);
    });
  }
}
