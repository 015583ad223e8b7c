import {
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
  type OnModuleDestroy,
} from '@nestjs/common';
import { QueueConsumer } from '../consumer/queue-consumer.js';
import { BrokerClient } from '../broker-client.js';
import { ConsumerExplorer } from './consumer-explorer.js';
import { logConsumer } from './consumer-log.js';
import { QueueCheck } from './queue-check.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';

/**
 * The application's consumers: checked and started when it has started (`onApplicationBootstrap`), stopped as soon as it is closed (`onModuleDestroy`). What handlers use must be there until then: close it in
 * `beforeApplicationShutdown` or `onApplicationShutdown`.
 */
@Injectable()
export class ConsumersService implements OnApplicationBootstrap, OnModuleDestroy, OnApplicationShutdown {
  readonly #logger = new Logger('Rowmq');
  readonly #running = new Map<string, QueueConsumer>();
  readonly #closing = new AbortController();

  readonly #client: BrokerClient;
  readonly #explorer: ConsumerExplorer;

  constructor(@Inject(BrokerClient) client: BrokerClient, explorer: ConsumerExplorer) {
    this.#client = client;
    this.#explorer = explorer;
  }

  /** The running consumer of a queue, for who wants its events. Throws {@link RowmqConfigurationError} if this application has none. */
  get(queue: string): QueueConsumer {
    const consumer = this.#running.get(queue);
    if (consumer !== undefined) return consumer;
    throw new RowmqConfigurationError(`This application has no consumer of queue '${queue}' that has started.`);
  }

  async onApplicationBootstrap(): Promise<void> {
    const queues = this.#explorer.queues();
    const consumers = this.#explorer.consumers().map(({ queue, options, className, handler }) => {
      const registered = queues.get(queue);
      if (registered === undefined) {
        throw new RowmqConfigurationError(
          `${className} consumes queue '${queue}', which no module registers: import RowmqModule.registerQueue({ name: '${queue}' }).`,
        );
      }
      const { format, schema } = registered.registration;
      return new QueueConsumer(this.#client, queue, handler, { ...options, format, schema });
    });
    const needed = [...queues.values()].map(({ registration }) => registration);
    await new QueueCheck(this.#client, this.#logger, this.#closing.signal).ensureAll(needed);
    // Nest does not wait for the end of this when an HTTP application is closed meanwhile.
    if (this.#closing.signal.aborted) return;
    for (const consumer of consumers) {
      this.#running.set(consumer.queue, consumer);
      logConsumer(consumer, this.#logger);
      consumer.start();
    }
  }

  async onModuleDestroy(): Promise<void> {
    this.#closing.abort(new Error('the application is closed'));
    await Promise.all([...this.#running.values()].map((consumer) => consumer.stop()));
  }

  /** Last: until then others may enqueue. */
  async onApplicationShutdown(): Promise<void> {
    await this.#client.close();
  }
}
