import {
  Inject,
  Injectable,
  Logger,
  type OnApplicationShutdown,
  type OnModuleDestroy,
  type OnModuleInit,
} from '@nestjs/common';
import { BootCheck } from './boot-check.js';
import type { RowmqConnection } from './connection.js';
import { ConsumerExplorer, type FoundConsumer } from './consumer-explorer.js';
import { QueueCheck } from './queue-check.js';
import type { RegisteredQueue } from './registered-queue.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';
import { scheduleSteps } from './schedule-check.js';

/** A consumer, its queue as registered, and its client. */
export interface BoundConsumer extends FoundConsumer {
  registered: RegisteredQueue;
}

/**
 * Checks the configuration, makes sure that the topics and queues exist, and puts the schedules,
 * before any `onModuleInit` of the application. It closes the clients after any
 * `onApplicationShutdown`: other providers may enqueue until then.
 */
@Injectable()
export class QueuesService implements OnModuleInit, OnModuleDestroy, OnApplicationShutdown {
  readonly #logger = new Logger('Rowmq');
  readonly #closing = new AbortController();
  readonly #explorer: ConsumerExplorer;

  constructor(@Inject(ConsumerExplorer) explorer: ConsumerExplorer) {
    this.#explorer = explorer;
  }

  async onModuleInit(): Promise<void> {
    const consumers = this.consumers();
    const checks = [...this.connections().values()].map(async ({ name, client }) => {
      const own = consumers.filter(({ connection }) => connection === name);
      const schedules = await scheduleSteps(client, own);
      const queues = new QueueCheck(client).steps({
        queues: [...this.#explorer.queues(name).values()].map(({ registration }) => registration),
        consumed: new Set(own.map(({ registered }) => registered.name)),
        topics: this.#explorer.topics(name),
      });
      await new BootCheck(this.#logger, this.#closing.signal).runAll([...queues, ...schedules]);
    });
    try {
      await Promise.all(checks);
    } catch (error) {
      // Nest calls no hook of the stop after a start that failed.
      this.#closing.abort(error);
      throw error;
    }
  }

  onModuleDestroy(): void {
    this.#closing.abort(new Error('the application is closed'));
  }

  async onApplicationShutdown(): Promise<void> {
    await Promise.all([...this.#explorer.clients()].map(async (client) => client.close()));
  }

  /** Every connection, by name. */
  connections(): Map<string, RowmqConnection> {
    return this.#explorer.connections();
  }

  /**
   * The application's consumers.
   * @throws {@link RowmqConfigurationError} for a configuration that cannot work
   */
  consumers(): BoundConsumer[] {
    const connections = this.connections();
    const consumers = this.#explorer.consumers().map((consumer) => {
      const { className, connection, queue } = consumer;
      if (!connections.has(connection)) {
        throw new RowmqConfigurationError(
          `${className} consumes queue '${queue}' on connection '${connection}', which does not exist: import RowmqModule.forRoot({ name: '${connection}', url }).`,
        );
      }
      const registered = this.#explorer.queues(connection).get(queue);
      if (registered !== undefined) return { ...consumer, registered };
      throw new RowmqConfigurationError(
        `${className} consumes queue '${queue}', which no module registers: import RowmqModule.registerQueue({ name: '${queue}' }).`,
      );
    });
    for (const [index, one] of consumers.entries()) {
      const other = consumers
        .slice(0, index)
        .find(({ connection, registered }) => connection === one.connection && registered.name === one.registered.name);
      if (other === undefined) continue;
      throw new RowmqConfigurationError(
        `${other.className} and ${one.className} both consume queue '${one.registered.name}', and each message would go to only one of them. Keep one consumer, with a higher concurrency if needed.`,
      );
    }
    return consumers;
  }
}
