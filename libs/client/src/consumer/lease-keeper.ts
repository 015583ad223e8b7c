import { type ExtendAnswer, LIMITS } from '@rowmq/contract';
import type { Delivery } from './message.js';

/** A lease is extended when a third of it has passed: that leaves time for two more tries. */
const EXTEND_AFTER = 1 / 3;
/** Leases that are due this soon are extended together with those that are due now. */
const TOGETHER = 1 / 12;
/** A try without an answer by then is repeated, with another broker if there is one. */
const GIVE_UP_AFTER = 1 / 6;
/** The pause before a failed try is repeated. */
const AGAIN_AFTER = 1 / 12;

/**
 * Extends the leases of deliveries while they are held, many with one request. An extended lease
 * counts from before the request, by the monotonic clock of this process. So a slow network never
 * makes it seem longer than it is.
 */
export class LeaseKeeper {
  readonly #held = new Set<Delivery>();
  readonly #leaseMs: number;
  #timer: NodeJS.Timeout | undefined;
  #wakesAt = Infinity;

  readonly #ask: (receipts: string[], timeoutMs: number) => Promise<ExtendAnswer>;
  readonly #onLost: (delivery: Delivery) => void;
  readonly #onFailure: (error: unknown) => void;

  /** @param onLost called once for each lost lease, which the keeper then forgets */
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

  /** @param since by `performance.now()`: the earliest time at which the lease can have begun */
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
    // Not again before the answer, or before the lease ends.
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
        // The delivery was settled meanwhile, and the answer no longer matters.
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
