import { type LeasedMessage, LIMITS } from '@rowmq/contract';

/** What becomes of a delivery. */
export type Settlement =
  | { verb: 'ack' }
  | { verb: 'nack'; delaySeconds: number; reason?: string | undefined }
  | { verb: 'reject'; reason?: string | undefined };

/** A delivery that a consumer holds under a lease. */
export class Delivery {
  /** Made when somebody asks for its signal: most handlers do not, and it costs as much as all the rest of a delivery. */
  #controller: AbortController | undefined;
  isSettled = false;
  /** By `performance.now()`: when its lease is to be extended, and when it has surely run out. */
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
    /** As the queue's schema has it. */
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

  /** How often it was handed out, this time included. */
  get receiveCount(): number {
    return this.#delivery.message.receiveCount;
  }

  get enqueuedAt(): Date {
    return new Date(this.#delivery.message.enqueuedAt);
  }

  get expiresAt(): Date {
    return new Date(this.#delivery.message.expiresAt);
  }

  /** Fires when the lease is lost (`LeaseLostError`) or the consumer stops without waiting any longer (`ConsumerStoppedError`): what the handler does from then on, another may do as well. */
  get signal(): AbortSignal {
    return this.#delivery.signal;
  }

  /** For batch handlers: this one is done, whatever becomes of the others. Of the ways to settle a message the first call counts; a message that is not settled when the handler ends shares its outcome. */
  ack(): void {
    this.#delivery.settle({ verb: 'ack' });
  }

  /** For batch handlers: gives this one back, to come again after a delay of 0 ms to 12 hours, rounded up to whole seconds. @param reason kept with the delivery. */
  nack({ delayMs = 0, reason }: { delayMs?: number; reason?: string } = {}): void {
    this.#delivery.settle({ verb: 'nack', delaySeconds: toDelaySeconds(delayMs), reason });
  }

  /** For batch handlers: dead-letters this one at once. @param reason kept with the delivery. */
  reject(reason?: string): void {
    this.#delivery.settle({ verb: 'reject', reason });
  }
}

/** Rounded up, and no more than a delivery can be delayed. */
export function toDelaySeconds(ms: number): number {
  return Math.min(LIMITS.delaySeconds, Math.ceil(Math.max(0, ms) / 1000));
}
