import { type LeasedMessage, LIMITS } from '@rowmq/contract';
import { guardedController } from './guarded-signal.js';
import { reasonOf } from './thrown.js';

/** The outcome of a delivery. */
export type Settlement =
  | { verb: 'ack' }
  | { verb: 'nack'; delaySeconds: number; reason?: string | undefined }
  /** As if it had not been received. */
  | { verb: 'release'; delaySeconds: number; reason?: string | undefined }
  | { verb: 'reject'; reason?: string | undefined };

/** A delivery that a consumer holds under a lease. */
export class Delivery {
  /**
   * Made on demand: most handlers never ask for the signal, and it costs as much as the rest of a
   * delivery.
   */
  #controller: AbortController | undefined;
  isSettled = false;
  /** Told when a listener of the signal fails. Never throws. */
  onListenerError: (error: unknown) => void = () => undefined;
  /** A handler works on it, or has done so. */
  isBegun = false;
  /** By `performance.now()`: the time to extend its lease, and the end that is certain. */
  extendAt = 0;
  leaseEndsAt = 0;
  /** By `performance.now()`: the message has expired by then for certain. */
  expiresBy = Infinity;
  /** In an ordered queue: handled one after the other with others of this group. */
  group: string | undefined;

  readonly #onSettle: (delivery: Delivery, settlement: Settlement) => void;

  constructor(
    readonly message: LeasedMessage,
    onSettle: (delivery: Delivery, settlement: Settlement) => void,
    /** The length of its lease. */
    readonly leaseSeconds: number,
    /** Receives after which it is dead-lettered. Null: it never is. */
    readonly maxReceives: number | null = null,
  ) {
    this.#onSettle = onSettle;
  }

  /** The queue dead-letters it unless this receive succeeds. */
  get isLastAttempt(): boolean {
    return this.maxReceives !== null && this.message.receiveCount >= this.maxReceives;
  }

  /** Nobody waits for its handler any more. */
  get isAborted(): boolean {
    return this.#controller?.signal.aborted === true;
  }

  get signal(): AbortSignal {
    this.#controller ??= guardedController((error) => this.onListenerError(error));
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

/**
 * The life of a message beyond the end of its lease; below zero if it expires first. The broker
 * gave both times by one clock, so the clock of this process does not matter.
 */
export function lifeAfterLeaseMs({ expiresAt, leaseExpiresAt }: LeasedMessage): number {
  return Date.parse(expiresAt) - Date.parse(leaseExpiresAt);
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

  /** Its group in a queue with ordering `group`. */
  get groupId(): string | undefined {
    return this.#delivery.message.groupId;
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

  /** True: the queue dead-letters the message unless its handler succeeds this time. */
  get isLastAttempt(): boolean {
    return this.#delivery.isLastAttempt;
  }

  /**
   * Fires if the lease is lost (`LeaseLostError`), if the handler takes longer than
   * `handlerTimeoutSeconds` (`HandlerTimeoutError`), or if the consumer stops and no longer waits
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
    this.#delivery.settle({ verb: 'nack', delaySeconds: toDelaySeconds(delayMs), reason: textOf(reason) });
  }

  /**
   * For batch handlers: puts this message off as `Retry.later` does. It comes again after 0 ms to
   * 12 hours, and this time does not count as a receive.
   * @param reason kept with the delivery
   */
  release({ delayMs = 0, reason }: { delayMs?: number; reason?: string } = {}): void {
    this.#delivery.settle({ verb: 'release', delaySeconds: toDelaySeconds(delayMs), reason: textOf(reason) });
  }

  /**
   * For batch handlers: dead-letters this message at once.
   * @param reason kept with the delivery
   */
  reject(reason?: string): void {
    this.#delivery.settle({ verb: 'reject', reason: textOf(reason) });
  }
}

/** Rounded up, and limited to the longest delay of a delivery. Nonsense is no delay. */
export function toDelaySeconds(ms: number): number {
  return Math.min(LIMITS.delaySeconds, Math.ceil(Math.max(0, Number(ms) || 0) / 1000));
}

/** A reason of whatever type JavaScript gave, as a text that the broker takes. */
function textOf(reason: unknown): string | undefined {
  return reason === undefined ? undefined : reasonOf(reason);
}
