import { type ExtendAnswer, LIMITS } from '@rowmq/contract';
import type { Delivery } from './message.js';

/** A lease is extended when a third of it has passed: two more tries have room before it ends. */
const EXTEND_AFTER = 1 / 3;
/** What is due so soon is extended with what is due now. */
const TOGETHER = 1 / 12;
/** A try that has no answer by then is made again, with another broker if there is one. */
const GIVE_UP_AFTER = 1 / 6;
/** Before a try that failed is repeated. */
const AGAIN_AFTER = 1 / 12;

/**
 * Extends the leases of deliveries for as long as they are held, many with one request. An extended lease counts from before the request, by this process's monotonic clock: it
 * does not seem to last longer than it does, whatever the network takes.
 */
export class LeaseKeeper {
  readonly #held = new Set<Delivery>();
  readonly #leaseMs: number;
  #timer: NodeJS.Timeout | undefined;
  #wakesAt = Infinity;

  readonly #ask: (receipts: string[], timeoutMs: number) => Promise<ExtendAnswer>;
  readonly #onLost: (delivery: Delivery) => void;
  readonly #onFailure: (error: unknown) => void;

  /** @param onLost is told once of a delivery whose lease is lost; it is no longer kept then. */
  constructor(
    leaseSeconds: number,
    extend: (receipts: string[], timeoutMs: number) => Promise<ExtendAnswer>,
    onLost: (delivery: Delivery) => void,
    onFailure: (error: unknown) => void,
  ) {
    this.#ask = extend;
    this.#onLost = onLost;
    this.#onFailure = onFailure;
    this.#leaseMs = leaseSeconds * 1000;
  }

  /** @param since by `performance.now()`: when the lease began, as far as can be known. */
  add(delivery: Delivery, since: number): void {
    this.#held.add(delivery);
    this.#reckon(delivery, since);
    this.#wakeAt(delivery.extendAt);
  }

  delete(delivery: Delivery): void {
    this.#held.delete(delivery);
  }

  close(): void {
    this.#held.clear();
    clearTimeout(this.#timer);
  }

  #reckon(delivery: Delivery, since: number): void {
    delivery.extendAt = since + this.#leaseMs * EXTEND_AFTER;
    delivery.leaseEndsAt = since + this.#leaseMs;
  }

  #wakeAt(time: number): void {
    if (time >= this.#wakesAt) return;
    clearTimeout(this.#timer);
    this.#wakesAt = time;
    this.#timer = setTimeout(() => void this.#round(), Math.max(0, time - performance.now()));
  }

  /** Never rejects. */
  async #round(): Promise<void> {
    this.#wakesAt = Infinity;
    const due: Delivery[] = [];
    const now = performance.now();
    for (const delivery of this.#held) {
      if (delivery.leaseEndsAt <= now) this.#lose(delivery);
      else if (delivery.extendAt <= now + this.#leaseMs * TOGETHER) due.push(delivery);
    }
    // Not again until there is an answer, or the lease ends.
    for (const delivery of due) delivery.extendAt = delivery.leaseEndsAt;
    const requests: Promise<void>[] = [];
    for (let from = 0; from < due.length; from += LIMITS.batch) {
      requests.push(this.#extend(due.slice(from, from + LIMITS.batch)));
    }
    this.#wakeForNext();
    await Promise.all(requests);
  }

  #wakeForNext(): void {
    let next = Infinity;
    for (const { extendAt } of this.#held) next = Math.min(next, extendAt);
    if (next < Infinity) this.#wakeAt(next);
  }

  async #extend(deliveries: readonly Delivery[]): Promise<void> {
    const sentAt = performance.now();
    try {
      const { extended, failed } = await this.#ask(
        deliveries.map(({ message }) => message.receipt),
        this.#leaseMs * GIVE_UP_AFTER,
      );
      const kept = new Set(extended.map(({ receipt }) => receipt));
      const lost = new Set(failed.map(({ receipt }) => receipt));
      for (const delivery of deliveries) {
        // Settled meanwhile: the answer is of no interest.
        if (!this.#held.has(delivery)) continue;
        if (kept.has(delivery.message.receipt)) this.#reckon(delivery, sentAt);
        else if (lost.has(delivery.message.receipt)) this.#lose(delivery);
      }
      this.#wakeForNext();
    } catch (error) {
      this.#onFailure(error);
      const again = performance.now() + this.#leaseMs * AGAIN_AFTER;
      for (const delivery of deliveries) delivery.extendAt = Math.min(again, delivery.leaseEndsAt);
      this.#wakeForNext();
    }
  }

  #lose(delivery: Delivery): void {
    this.#held.delete(delivery);
    this.#onLost(delivery);
  }
}
