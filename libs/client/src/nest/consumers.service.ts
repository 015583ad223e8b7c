import { Inject, Injectable, Logger, type OnApplicationBootstrap, type OnModuleDestroy } from '@nestjs/common';
import { QueueConsumer } from '../consumer/queue-consumer.js';
import { logConsumer } from './consumer-log.js';
import { type BoundConsumer, QueuesService } from './queues.service.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';
import { DEFAULT_CONNECTION } from './tokens.js';

/**
 * The application's consumers. They start when the application has started: after every
 * `onApplicationBootstrap`. They stop before every `onModuleDestroy`, so that handlers can use
 * whatever these close.
 */
@Injectable()
export class ConsumersService implements OnApplicationBootstrap, OnModuleDestroy {
  readonly #logger = new Logger('Rowmq');
  readonly #consumers = new Map<string, QueueConsumer>();
  readonly #queues: QueuesService;
  #isClosing = false;
  #isMade = false;

  constructor(@Inject(QueuesService) queues: QueuesService) {
    this.#queues = queues;
  }

  /**
   * The consumer of a queue: its events, `pause` and `resume`, `stop` and `start`. Available from
   * `onModuleInit` on.
   * @throws {@link RowmqConfigurationError} if this application has none
   */
  get(queue: string, connection = DEFAULT_CONNECTION): QueueConsumer {
    this.#make();
    const consumer = this.#consumers.get(keyOf(queue, connection));
    if (consumer !== undefined) return consumer;
    throw new RowmqConfigurationError(`This application has no consumer of queue '${queue}'.`);
  }

  /** Every consumer of the application. */
  all(): QueueConsumer[] {
    this.#make();
    return [...this.#consumers.values()];
  }

  onApplicationBootstrap(): void {
    this.#make();
    // If an HTTP application is closed meanwhile, Nest does not wait for the end of its start.
    if (this.#isClosing) return;
    for (const consumer of this.#consumers.values()) consumer.start();
  }

  async onModuleDestroy(): Promise<void> {
    this.#isClosing = true;
    await Promise.all([...this.#consumers.values()].map(async (consumer) => consumer.stop()));
  }

  #make(): void {
    if (this.#isMade) return;
    const made = this.#queues
      .consumers()
      .map((found) => [keyOf(found.queue, found.connection), consumerOf(found)] as const);
    this.#isMade = true;
    for (const [key, consumer] of made) {
      logConsumer(consumer, this.#logger);
      this.#consumers.set(key, consumer);
    }
  }
}

function keyOf(queue: string, connection: string): string {
  return `${connection} ${queue}`;
}

function consumerOf({ registered, handler, options, listeners }: BoundConsumer): QueueConsumer {
  const { format, schema } = registered.registration;
  const consumer = new QueueConsumer(registered.client, registered.name, handler, { ...options, format, schema });
  for (const { event, call } of listeners) consumer.on(event, call);
  return consumer;
}
