import { PayloadCodec, PayloadError } from '@rowmq/contract/producer';
import { inSpan } from '../tracing.js';
import type { Tell } from './consumer-events.js';
import type { ConsumerSettings } from './consumer-options.js';
import { type Delivery, Message, type Settlement, toDelaySeconds } from './message.js';
import { type Backoff, exponentialBackoff, HandlerTimeoutError, Reject, Retry } from './outcomes.js';
import { isA, quietly, reasonOf } from './thrown.js';

/**
 * Handles messages one by one. If it returns, the message is acked. If it throws, the message is
 * nacked with back-off. {@link Reject} dead-letters it, and {@link Retry} gets it again after a
 * delay.
 */
export type MessageHandler<T> = (payload: T, message: Message<T>) => unknown;
/**
 * Handles up to `batchSize` messages at once, and may settle each by itself. Its outcome is that of
 * the others.
 */
export type BatchHandler<T> = (messages: Message<T>[]) => unknown;
export type Handler<T> = { message: MessageHandler<T> } | { batch: BatchHandler<T> };

/** A call of a handler, and its deliveries. */
export interface RunningHandler {
  deliveries: readonly Delivery[];
  /** Resolves when the handler has ended, at its time limit, or when it is abandoned. */
  ended: Promise<void>;
  /** Waits for it no more. Its timer would keep the process alive until the time limit. */
  abandon: () => void;
}

/** Calls a handler with deliveries, and settles each by the outcome. */
export class Handling<T> {
  readonly #queue: string;
  readonly #handler: Handler<T>;
  readonly #codec: PayloadCodec<unknown, T>;
  readonly #settings: ConsumerSettings;
  readonly #tell: Tell;

  constructor(
    queue: string,
    handler: Handler<T>,
    codec: PayloadCodec<unknown, T>,
    settings: ConsumerSettings,
    tell: Tell,
  ) {
    this.#queue = queue;
    this.#handler = handler;
    this.#codec = codec;
    this.#settings = settings;
    this.#tell = tell;
  }

  /** Calls the handler. Never throws. */
  start(deliveries: readonly Delivery[]): RunningHandler {
    const { handlerTimeoutSeconds } = this.#settings;
    let abandon = (): void => undefined;
    const ended = new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#timeOut(deliveries, new HandlerTimeoutError(handlerTimeoutSeconds));
        resolve();
      }, handlerTimeoutSeconds * 1000);
      abandon = () => {
        clearTimeout(timer);
        resolve();
      };
      void this.#handle(deliveries).then(abandon);
    });
    return { deliveries, ended, abandon };
  }

  /** The outcome of a message whose handler failed. Never throws. */
  nackWithBackoff({ message: { receiveCount } }: Delivery, error: unknown): Settlement {
    const delayMs = delayBy(this.#settings.backoff, receiveCount, error);
    // Rounded at random: rounding up would remove the jitter of short delays. Never rounded to
    // nothing.
    const rounded = Math.floor(delayMs / 1000) + (Math.random() < (delayMs % 1000) / 1000 ? 1 : 0);
    const delaySeconds = delayMs > 0 ? Math.max(1, rounded) : 0;
    return { verb: 'nack', delaySeconds: toDelaySeconds(delaySeconds * 1000), reason: reasonOf(error) };
  }

  /** Never rejects. */
  async #handle(deliveries: readonly Delivery[]): Promise<void> {
    try {
      const messages = await this.#decode(deliveries);
      if (messages.length > 0) await inSpan({ queue: this.#queue, messages }, async () => this.#call(messages));
      for (const delivery of deliveries) delivery.settle({ verb: 'ack' });
    } catch (error) {
      for (const delivery of deliveries) this.#fail(delivery, error);
    }
  }

  /**
   * A message whose payload cannot be decoded fails by itself. A schema may take its time: a
   * message whose lease was lost meanwhile, or whose time is over, is another consumer's.
   */
  async #decode(deliveries: readonly Delivery[]): Promise<Message<T>[]> {
    const messages = new Map<Delivery, Message<T>>();
    for (const delivery of deliveries) {
      try {
        const payload = this.#codec.decode(delivery.message);
        messages.set(delivery, new Message(payload instanceof Promise ? await payload : payload, delivery));
      } catch (error) {
        this.#fail(delivery, error);
      }
    }
    return [...messages].flatMap(([{ isSettled }, message]) => (isSettled ? [] : message));
  }

  async #call(messages: Message<T>[]): Promise<void> {
    if ('batch' in this.#handler) {
      await this.#handler.batch(messages);
    } else {
      const [message] = messages as [Message<T>];
      await this.#handler.message(message.payload, message);
    }
  }

  #timeOut(deliveries: readonly Delivery[], error: HandlerTimeoutError): void {
    for (const delivery of deliveries) {
      if (delivery.isAborted) continue;
      this.#fail(delivery, error);
      delivery.abort(error);
    }
  }

  #fail(delivery: Delivery, error: unknown): void {
    // Its failure follows from the abort, which was told.
    if (delivery.isAborted) return;
    const settlement = delivery.isSettled ? undefined : this.#afterFailure(delivery, error);
    if (settlement !== undefined) delivery.settle(settlement);
    const isLast = settlement?.verb === 'nack' && delivery.isLastAttempt;
    this.#tell('handlerFailed', delivery.message, error, settlement, isLast);
  }

  #afterFailure(delivery: Delivery, error: unknown): Settlement {
    const reason = reasonOf(error);
    if (isA(error, Reject) || isA(error, PayloadError)) return { verb: 'reject', reason };
    if (!isA(error, Retry)) return this.nackWithBackoff(delivery, error);
    const delaySeconds = toDelaySeconds(error.delayMs);
    return { verb: error.usesAttempt ? 'nack' : 'release', delaySeconds, reason };
  }
}

/**
 * The user's back-off in milliseconds, if it returns a valid time. A defect in the user's function
 * must not keep the message from coming again.
 */
function delayBy(backoff: Backoff, attempt: number, error: unknown): number {
  const delayMs: unknown = quietly(() => backoff(attempt, error));
  if (typeof delayMs === 'number' && delayMs >= 0 && delayMs < Infinity) return delayMs;
  // A promise of a time is none, and its failure is nobody's.
  if (delayMs instanceof Promise) delayMs.catch(() => undefined);
  return exponentialBackoff(attempt, error);
}
