import { EventEmitter } from 'node:events';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import type { LeasedMessage } from '@rowmq/contract';
import { PayloadCodec, PayloadError, type PayloadOptions } from '../queue/payload-codec.js';
import type { BrokerClient } from '../broker-client.js';
import { inSpan } from '../tracing.js';
import { type ConsumerOptions, consumerSettings, type ConsumerSettings } from './consumer-options.js';
import { LeaseKeeper } from './lease-keeper.js';
import { Delivery, Message, type Settlement, toDelaySeconds } from './message.js';
import { ConsumerStoppedError, exponentialBackoff, LeaseLostError, Reject, Retry } from './outcomes.js';
import { Settler } from './settler.js';

/**
 * Handles messages one by one. If it returns, the message is acked. If it throws, the message is
 * nacked with back-off. {@link Reject} dead-letters it, and {@link Retry} nacks it with that delay.
 */
export type MessageHandler<T> = (payload: T, message: Message<T>) => unknown;
/**
 * Handles up to `batchSize` messages at once, and may settle each by itself. Its outcome is that of
 * the others.
 */
export type BatchHandler<T> = (messages: Message<T>[]) => unknown;
export type Handler<T> = { message: MessageHandler<T> } | { batch: BatchHandler<T> };

/** The events of a consumer. It logs nothing itself. */
export interface ConsumerEvents {
  /** The broker answered, with this many messages. */
  dequeued: [count: number];
  /** A dequeue failed. The consumer makes the next after a pause. */
  dequeueFailed: [error: unknown, pauseMs: number];
  /** A handler threw, or a payload did not fit. Undefined: the message had already been settled. */
  handlerFailed: [message: LeasedMessage, error: unknown, settlement: Settlement | undefined];
  /** A lease was lost while the consumer held its message: another consumer has it, or will. */
  leaseLost: [message: LeasedMessage];
  /** Leases could not be extended in this round. The consumer tries again. */
  extendFailed: [error: unknown];
  /**
   * These messages could not be settled, and come again when their leases end. An empty list: the
   * broker refused to dead-letter, and the consumer nacked the messages instead.
   */
  settleFailed: [error: unknown, messages: LeasedMessage[]];
}

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5000;
/**
 * A pause follows an empty answer that comes sooner: the queue is paused, or the broker does not
 * wait.
 */
const QUICK_ANSWER_MS = 1000;
/**
 * The time for a dequeue in flight to answer after a stop. Nobody else nacks the messages of an
 * answer that has left the broker.
 */
const LAST_ANSWER_MS = 500;
/** The time for the broker to answer the last settlements after a stop. */
const FLUSH_DEADLINE_MS = 10_000;
/** This many unsettled messages delay the next dequeue, however small the consumer is. */
const UNSETTLED_AT_LEAST = 100;

/**
 * Takes messages from a queue, passes them to handlers and settles them. It holds no more than its
 * handlers work on, and a few for the next. While there is none, it waits in the broker. It extends
 * leases while handlers work, and recovers by itself after an outage of the broker.
 *
 * Needs no framework.
 */
export class QueueConsumer<T = unknown> extends EventEmitter<ConsumerEvents> {
  readonly settings: ConsumerSettings;
  readonly #codec: PayloadCodec<unknown, T>;
  readonly #keeper: LeaseKeeper;
  readonly #settler: Settler;
  readonly #stopping = new AbortController();
  /**
   * Cancels the dequeue in flight, a little after the stop: its answer may be on its way, and
   * nobody else would nack its messages.
   */
  readonly #givingUp = new AbortController();
  /** Waiting for a handler. */
  readonly #buffer: Delivery[] = [];
  /** Running handlers and their deliveries. */
  readonly #running = new Map<Promise<void>, readonly Delivery[]>();
  #handled = 0;
  #unsettled = 0;
  #loop: Promise<void> | undefined;
  #stopped: Promise<void> | undefined;
  #notify: () => void = () => undefined;

  readonly #client: BrokerClient;
  readonly #handler: Handler<T>;

  /** Throws TypeError that names every invalid option. */
  constructor(
    client: BrokerClient,
    readonly queue: string,
    handler: Handler<T>,
    options: ConsumerOptions & PayloadOptions<unknown, T> = {},
  ) {
    super();
    this.#client = client;
    this.#handler = handler;
    this.settings = consumerSettings(queue, 'batch' in handler, options);
    this.#codec = new PayloadCodec(queue, options);
    const { leaseSeconds } = this.settings;
    this.#keeper = new LeaseKeeper(
      leaseSeconds,
      (receipts, timeoutMs) => client.extend(queue, { receipts, leaseSeconds }, { timeoutMs }),
      (delivery) => this.#lost(delivery),
      (error) => this.#tell('extendFailed', error),
    );
    this.#settler = new Settler(client, queue, {
      onDone: (delivery) => this.#done(delivery),
      onLost: (delivery) => this.#tell('leaseLost', delivery.message),
      onFailure: (error, deliveries) =>
        this.#tell(
          'settleFailed',
          error,
          deliveries.map(({ message }) => message),
        ),
      instead: ({ message }, reason) => this.#nackWithBackoff(message, new Reject(reason)),
    });
  }

  /** Starts to take messages. */
  start(): void {
    this.#loop ??= this.#run();
  }

  /**
   * Takes no more messages, and nacks those that no handler has begun. Handlers may finish until
   * the deadline. After it, the consumer aborts their signals and nacks their messages.
   *
   * Resolves when the broker has answered for all of them, at most 10 seconds later. A message that
   * is not settled by then comes again when its lease ends. Idempotent; never rejects.
   */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  /** Messages held: those that wait for a handler, and those with one. */
  get inHand(): number {
    return this.#buffer.length + this.#handled;
  }

  async #run(): Promise<void> {
    let failures = 0;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      const maxMessages = await this.#room();
      if (signal.aborted) break;
      const began = performance.now();
      try {
        const { waitSeconds, leaseSeconds } = this.settings;
        const { messages } = await this.#settler.dequeue(async (ack) =>
          this.#client.dequeue(
            this.queue,
            { maxMessages, waitSeconds, leaseSeconds, ...(ack.length > 0 && { ack }) },
            { signal: this.#givingUp.signal },
          ),
        );
        failures = 0;
        this.#tell('dequeued', messages.length);
        this.#accept(messages);
        const took = performance.now() - began;
        // Handlers that are done within this turn of the event loop have their acks carried by the
        // next dequeue.
        if (messages.length > 0) await turn();
        else if (took < QUICK_ANSWER_MS) await this.#pause(QUICK_ANSWER_MS - took);
      } catch (error) {
        if (signal.aborted) break;
        const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures) * (0.5 + Math.random() / 2);
        failures += 1;
        this.#tell('dequeueFailed', error, pause);
        await this.#pause(pause);
      }
    }
  }

  /** Waits until another dequeue is worth its cost. Returns for how many messages. */
  async #room(): Promise<number> {
    const { capacity, prefetch, batchSize } = this.settings;
    const worthIt = Math.max(1, Math.min(prefetch, Math.ceil(batchSize / 2)));
    const isFull = () =>
      capacity - this.inHand < worthIt || this.#unsettled - this.#handled >= Math.max(UNSETTLED_AT_LEAST, capacity);
    while (isFull() && !this.#stopping.signal.aborted) {
      await new Promise<void>((resolve) => (this.#notify = resolve));
    }
    return Math.min(capacity - this.inHand, batchSize);
  }

  async #pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
  }

  #accept(messages: readonly LeasedMessage[]): void {
    const receivedAt = performance.now();
    for (const message of messages) {
      const delivery = new Delivery(message, (settled, settlement) => this.#settler.add(settled, settlement));
      this.#unsettled += 1;
      this.#keeper.add(delivery, receivedAt);
      this.#buffer.push(delivery);
    }
    if (this.#stopping.signal.aborted) this.#nackBuffered();
    this.#pump();
  }

  /** Passes waiting messages to free handlers. */
  #pump(): void {
    const { concurrency, unit } = this.settings;
    while (this.#buffer.length > 0 && this.#running.size < concurrency) {
      const deliveries = this.#buffer.splice(0, unit);
      this.#handled += deliveries.length;
      const running = this.#handle(deliveries).finally(() => {
        this.#running.delete(running);
        this.#handled -= deliveries.length;
        this.#pump();
        this.#notify();
      });
      this.#running.set(running, deliveries);
    }
  }

  /** Never rejects. */
  async #handle(deliveries: readonly Delivery[]): Promise<void> {
    try {
      const messages = await this.#decode(deliveries);
      if (messages.length > 0) await inSpan({ queue: this.queue, messages }, async () => this.#callHandler(messages));
      for (const delivery of deliveries) delivery.settle({ verb: 'ack' });
    } catch (error) {
      for (const delivery of deliveries) this.#fail(delivery, error);
    }
  }

  /** A message whose payload cannot be decoded fails by itself. */
  async #decode(deliveries: readonly Delivery[]): Promise<Message<T>[]> {
    const messages: Message<T>[] = [];
    for (const delivery of deliveries) {
      try {
        const payload = this.#codec.decode(delivery.message);
        messages.push(new Message(payload instanceof Promise ? await payload : payload, delivery));
      } catch (error) {
        this.#fail(delivery, error);
      }
    }
    return messages;
  }

  async #callHandler(messages: Message<T>[]): Promise<void> {
    if ('batch' in this.#handler) {
      await this.#handler.batch(messages);
    } else {
      const [message] = messages as [Message<T>];
      await this.#handler.message(message.payload, message);
    }
  }

  #fail(delivery: Delivery, error: unknown): void {
    const settlement = delivery.isSettled ? undefined : this.#afterFailure(delivery.message, error);
    if (settlement !== undefined) delivery.settle(settlement);
    this.#tell('handlerFailed', delivery.message, error, settlement);
  }

  #afterFailure(message: LeasedMessage, error: unknown): Settlement {
    const reason = reasonOf(error);
    if (error instanceof Reject || error instanceof PayloadError) return { verb: 'reject', reason };
    if (error instanceof Retry) return { verb: 'nack', delaySeconds: toDelaySeconds(error.delayMs), reason };
    return this.#nackWithBackoff(message, error);
  }

  #nackWithBackoff({ receiveCount }: LeasedMessage, error: unknown): Settlement {
    const delayMs = this.#backoff(receiveCount, error);
    // Rounded at random: rounding up would remove the jitter of short delays. Never rounded to
    // nothing.
    const rounded = Math.floor(delayMs / 1000) + (Math.random() < (delayMs % 1000) / 1000 ? 1 : 0);
    const delaySeconds = delayMs > 0 ? Math.max(1, rounded) : 0;
    return { verb: 'nack', delaySeconds: toDelaySeconds(delaySeconds * 1000), reason: reasonOf(error) };
  }

  /** The user's back-off, if it returns a valid time. */
  #backoff(attempt: number, error: unknown): number {
    try {
      const delayMs = this.settings.backoff(attempt, error);
      if (delayMs >= 0 && delayMs < Infinity) return delayMs;
    } catch {
      // A defect in the user’s function must not keep the message from coming again.
    }
    return exponentialBackoff(attempt, error);
  }

  /** An error of a listener becomes an uncaught exception, and the consumer carries on. */
  #tell<Name extends keyof ConsumerEvents>(name: Name, ...what: ConsumerEvents[Name]): void {
    try {
      (this as EventEmitter).emit(name, ...what);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  /** Aborts the signal of its handler, and no longer settles the outcome. */
  #lost(delivery: Delivery): void {
    if (delivery.isSettled) return;
    delivery.isSettled = true;
    const waiting = this.#buffer.indexOf(delivery);
    if (waiting >= 0) this.#buffer.splice(waiting, 1);
    delivery.abort(new LeaseLostError(delivery.message.id));
    this.#tell('leaseLost', delivery.message);
    this.#done(delivery);
  }

  /** The consumer no longer holds it. */
  #done(delivery: Delivery): void {
    this.#keeper.delete(delivery);
    this.#unsettled -= 1;
    this.#notify();
  }

  async #stop(): Promise<void> {
    this.#stopping.abort(new ConsumerStoppedError('The consumer was stopped.'));
    this.#notify();
    this.#nackBuffered();
    const timer = setTimeout(() => this.#givingUp.abort(this.#stopping.signal.reason), LAST_ANSWER_MS);
    await this.#loop;
    clearTimeout(timer);
    await this.#finishHandlers();
    await Promise.race([this.#settler.flush(), sleep(FLUSH_DEADLINE_MS, undefined, { ref: false })]);
    this.#settler.close(new ConsumerStoppedError('The consumer was stopped, and the broker did not answer in time.'));
    this.#keeper.close();
  }

  /** Lets handlers finish until the deadline, then nacks their messages. */
  async #finishHandlers(): Promise<void> {
    const deadline = new AbortController();
    const timedOut = sleep(this.settings.shutdownSeconds * 1000, undefined, { signal: deadline.signal }).catch(
      () => undefined,
    );
    await Promise.race([Promise.all(this.#running.keys()), timedOut]);
    deadline.abort();
    for (const delivery of [...this.#running.values()].flat()) {
      delivery.settle(STOPPED);
      delivery.abort(
        new ConsumerStoppedError(
          `The consumer was stopped, and its handlers did not finish within ${this.settings.shutdownSeconds} s.`,
        ),
      );
    }
  }

  #nackBuffered(): void {
    for (const delivery of this.#buffer.splice(0)) delivery.settle(STOPPED);
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  const { message } = (typeof error === 'object' && error !== null ? error : {}) as { message?: unknown };
  return typeof message === 'string' ? message : String(error);
}

const STOPPED: Settlement = { verb: 'nack', delaySeconds: 0, reason: 'the consumer was stopped' };
