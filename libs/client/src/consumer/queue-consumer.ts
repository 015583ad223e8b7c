import { EventEmitter } from 'node:events';
import type { BrokerClient } from '../broker-client.js';
import { PayloadCodec, type PayloadOptions } from '@rowmq/contract/producer';
import type { ConsumerEvents, Tell } from './consumer-events.js';
import { type ConsumerOptions, consumerSettings, type ConsumerSettings } from './consumer-options.js';
import { ConsumerRun } from './consumer-run.js';
import { type Handler, Handling } from './handling.js';
import { describe } from './thrown.js';

/**
 * Takes messages from a queue, passes them to handlers and settles them. It holds no more than its
 * handlers work on, and a few for the next. While there is none, it waits in the broker. It extends
 * leases while handlers work, and recovers by itself after an outage of the broker.
 *
 * Needs no framework.
 */
export class QueueConsumer<T = unknown> extends EventEmitter<ConsumerEvents> {
  readonly settings: ConsumerSettings;
  readonly #client: BrokerClient;
  readonly #handling: Handling<T>;
  #run: ConsumerRun<T> | undefined;
  #isPaused = false;

  /** Throws TypeError that names every invalid option. */
  constructor(
    client: BrokerClient,
    readonly queue: string,
    handler: Handler<T>,
    options: ConsumerOptions & PayloadOptions<unknown, T> = {},
  ) {
    super();
    this.#client = client;
    this.settings = consumerSettings(queue, 'batch' in handler, options);
    const codec = new PayloadCodec<unknown, T>(queue, options);
    this.#handling = new Handling(queue, handler, codec, this.settings, this.#tell);
  }

  /**
   * Starts to take messages, also after a stop. If the stop has not ended, it waits for its end.
   * Does nothing if the consumer has started.
   */
  start(): void {
    if (this.#run?.isStopping === false) return;
    this.#run = new ConsumerRun(this.#client, this.queue, this.settings, this.#handling, this.#tell, {
      previous: this.#run?.stop(),
      isPaused: this.#isPaused,
    });
  }

  /**
   * Takes no more messages, and releases those that no handler has begun. Handlers may finish until
   * the deadline. After it, the consumer aborts their signals and nacks their messages.
   *
   * Resolves when the broker has answered for all of them, at most 10 seconds later. A message that
   * is not settled by then comes again when its lease ends. Idempotent; never rejects.
   */
  async stop(): Promise<void> {
    await this.#run?.stop();
  }

  /**
   * Takes no more messages until {@link resume}, and releases those that no handler has begun.
   * Handlers finish. A message that is on its way is released when it comes. Idempotent. A consumer
   * that is paused stays so when it is stopped and started.
   */
  pause(): void {
    this.#isPaused = true;
    this.#run?.pause();
  }

  /** Takes messages again after {@link pause}. Idempotent. */
  resume(): void {
    this.#isPaused = false;
    this.#run?.resume();
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** It was started, and not stopped since. */
  get isStarted(): boolean {
    return this.#run?.isStopping === false;
  }

  /** Messages held: those that wait for a handler, and those with one. */
  get inHand(): number {
    return this.#run?.inHand ?? 0;
  }

  /**
   * Calls each listener by itself: a failure of one concerns neither the others nor the consumer.
   */
  readonly #tell: Tell = (name, ...what) => {
    const listeners = this.rawListeners(name) as ((...args: unknown[]) => unknown)[];
    if (name === 'listenerFailed' && listeners.length === 0) {
      const [event, error] = what;
      this.#warn(String(event), error);
    }
    for (const listener of listeners) {
      try {
        const result = listener.apply(this, what);
        if (result instanceof Promise) result.catch((error: unknown) => this.#listenerFailed(name, error));
      } catch (error) {
        this.#listenerFailed(name, error);
      }
    }
  };

  #listenerFailed(name: string, error: unknown): void {
    if (name === 'listenerFailed') this.#warn(name, error);
    else this.#tell('listenerFailed', name, error);
  }

  #warn(name: string, error: unknown): void {
    process.emitWarning(`A listener of '${name}' of the consumer of queue '${this.queue}' failed: ${describe(error)}`);
  }
}
