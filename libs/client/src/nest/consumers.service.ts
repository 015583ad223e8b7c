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
 * The application's consumers. They are checked and started in `onApplicationBootstrap`, and
 * stopped in `onModuleDestroy`. Resources of handlers have to stay open until then: close them in
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

  /**
   * The running consumer of a queue, for access to its events.
   * @throws {@link RowmqConfigurationError} if this application has none
   */
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
    // If an HTTP application is closed meanwhile, Nest does not wait for the end of this.
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

  /** The client closes last, because other providers may enqueue until then. */
  async onApplicationShutdown(): Promise<void> {
    await this.#client.close();
  }
}
