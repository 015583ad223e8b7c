import { type LeasedMessage, LIMITS } from '@rowmq/contract';

/** The outcome of a delivery. */
export type Settlement =
  | { verb: 'ack' }
  | { verb: 'nack'; delaySeconds: number; reason?: string | undefined }
  | { verb: 'reject'; reason?: string | undefined };

/** A delivery that a consumer holds under a lease. */
export class Delivery {
  /**
   * Made on demand: most handlers never ask for the signal, and it costs as much as the rest of a
   * delivery.
   */
  #controller: AbortController | undefined;
  isSettled = false;
  /** By `performance.now()`: the time to extend its lease, and the latest end of its lease. */
  extendAt = 0;
  leaseEndsAt = 0;

  readonly #onSettle: (delivery: Delivery, settlement: Settlement) => void;

  constructor(
    readonly message: LeasedMessage,
    onSettle: (delivery: Delivery, settlement: Settlement) => void,
  ) {
    this.#onSettle = onSettle;
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    return this.#controller.signal;
  }

  /** Fires the signal. */
  abort(reason: Error): void {
    this.#controller ??= new AbortController();
    this.#controller.abort(reason);
  }

  /** Only the first call counts. */
  settle(settlement: Settlement): void {
    if (this.isSettled) return;
    this.isSettled = true;
    this.#onSettle(this, settlement);
  }
}

/** A message as a handler gets it. */
export class Message<T = unknown> {
  readonly #delivery: Delivery;

  constructor(
    /** The payload, as the queue's schema returns it. */
    readonly payload: T,
    delivery: Delivery,
  ) {
    this.#delivery = delivery;
  }

  get id(): string {
    return this.#delivery.message.id;
  }

  get headers(): Record<string, string> {
    return this.#delivery.message.headers;
  }

  get priority(): number {
    return this.#delivery.message.priority;
  }

  /** The number of hand-outs, including this one. */
  get receiveCount(): number {
    return this.#delivery.message.receiveCount;
  }

  get enqueuedAt(): Date {
    return new Date(this.#delivery.message.enqueuedAt);
  }

  get expiresAt(): Date {
    return new Date(this.#delivery.message.expiresAt);
  }

  /**
   * Fires if the lease is lost (`LeaseLostError`), or if the consumer stops and no longer waits
   * (`ConsumerStoppedError`). From then on, another consumer may handle the message too.
   */
  get signal(): AbortSignal {
    return this.#delivery.signal;
  }

  /**
   * For batch handlers: this message is done, whatever the outcome of the others. Only the first
   * settlement of a message counts. A message that is not settled when the handler ends shares its
   * outcome.
   */
  ack(): void {
    this.#delivery.settle({ verb: 'ack' });
  }

  /**
   * For batch handlers: nacks this message. It comes again after 0 ms to 12 hours, rounded up to
   * whole seconds.
   * @param reason kept with the delivery
   */
  nack({ delayMs = 0, reason }: { delayMs?: number; reason?: string } = {}): void {
    this.#delivery.settle({ verb: 'nack', delaySeconds: toDelaySeconds(delayMs), reason });
  }

  /**
   * For batch handlers: dead-letters this message at once.
   * @param reason kept with the delivery
   */
  reject(reason?: string): void {
    this.#delivery.settle({ verb: 'reject', reason });
  }
}

/** Rounded up, and limited to the longest delay of a delivery. */
export function toDelaySeconds(ms: number): number {
  return Math.min(LIMITS.delaySeconds, Math.ceil(Math.max(0, ms) / 1000));
}
