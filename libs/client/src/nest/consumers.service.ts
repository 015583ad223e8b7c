import {
  Inject,
  Injectable,
  Logger,
  type OnApplicationBootstrap,
  type OnApplicationShutdown,
  type OnModuleDestroy,
} from '@nestjs/common';
import type { Settlement } from '../consumer/message.js';
import { QueueConsumer } from '../consumer/queue-consumer.js';
import { BrokerClient } from '../broker-client.js';
import { ConsumerExplorer } from './consumer-explorer.js';
import { QueueCheck } from './queue-check.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';

/**
 * The application's consumers: checked and started when it has started (`onApplicationBootstrap`), stopped as soon as it is closed (`onModuleDestroy`). What handlers use must be there until then: close it in
 * `beforeApplicationShutdown` or `onApplicationShutdown`.
 */
@Injectable()
export class ConsumersService implements OnApplicationBootstrap, OnModuleDestroy, OnApplicationShutdown {
  private readonly logger = new Logger('Rowmq');
  private readonly running = new Map<string, QueueConsumer>();
  private readonly closing = new AbortController();

  constructor(
    @Inject(BrokerClient) private readonly client: BrokerClient,
    private readonly explorer: ConsumerExplorer,
  ) {}

  /** The running consumer of a queue, for who wants its events. Throws {@link RowmqConfigurationError} if this application has none. */
  get(queue: string): QueueConsumer {
    const consumer = this.running.get(queue);
    if (consumer !== undefined) return consumer;
    throw new RowmqConfigurationError(`This application has no consumer of queue '${queue}' that has started.`);
  }

  async onApplicationBootstrap(): Promise<void> {
    const queues = this.explorer.queues();
    const consumers = this.explorer.consumers().map(({ queue, options, className, handler }) => {
      const registered = queues.get(queue);
      if (registered === undefined) {
        throw new RowmqConfigurationError(
          `${className} consumes queue '${queue}', which no module registers: import RowmqModule.registerQueue({ name: '${queue}' }).`,
        );
      }
      const { format, schema } = registered.registration;
      return new QueueConsumer(this.client, queue, handler, { ...options, format, schema });
    });
    const needed = [...queues.values()].map(({ registration }) => registration);
    await new QueueCheck(this.client, this.logger, this.closing.signal).ensureAll(needed);
    for (const consumer of consumers) {
      this.running.set(consumer.queue, consumer);
      this.log(consumer);
      consumer.start();
    }
  }

  async onModuleDestroy(): Promise<void> {
    this.closing.abort(new Error('the application is closed'));
    await Promise.all([...this.running.values()].map((consumer) => consumer.stop()));
  }

  /** Last: until then others may enqueue. */
  async onApplicationShutdown(): Promise<void> {
    await this.client.close();
  }

  private log(consumer: QueueConsumer): void {
    const { queue } = consumer;
    let isAway = false;
    consumer.on('dequeueFailed', (error) => {
      // Once for a time of trouble, not for each try.
      if (!isAway) this.logger.warn(`Queue '${queue}' gives no messages, and is asked again: ${String(error)}`);
      isAway = true;
    });
    consumer.on('dequeued', () => {
      if (isAway) this.logger.log(`Queue '${queue}' gives messages again.`);
      isAway = false;
    });
    consumer.on('handlerFailed', ({ id, receiveCount }, error, settlement) => {
      const what = whatBecomesOf(settlement);
      this.logger.warn(
        `Message ${id} of queue '${queue}' failed, received ${receiveCount} times; ${what}: ${String(error)}`,
      );
    });
    consumer.on('leaseLost', ({ id }) =>
      this.logger.warn(`The lease of message ${id} of queue '${queue}' was lost: it is handed out again.`),
    );
    consumer.on('extendFailed', (error) =>
      this.logger.warn(`Leases of queue '${queue}' could not be extended, and are tried again: ${String(error)}`),
    );
    consumer.on('settleFailed', (error, messages) =>
      this.logger.error(
        messages.length === 0
          ? `Messages of queue '${queue}' could not be dead-lettered, and were given back: ${String(error)}`
          : `${messages.length} messages of queue '${queue}' could not be settled, and come again: ${String(error)}`,
      ),
    );
  }
}

function whatBecomesOf(settlement: Settlement | undefined): string {
  if (settlement === undefined) return 'it had been settled before';
  return settlement.verb === 'nack' ? `it comes again in ${settlement.delaySeconds} s` : 'it is dead-lettered';
}
