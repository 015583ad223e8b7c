import { type ExtendAnswer, type ExtendRequest, LIMITS } from '@rowmq/contract';
import { jittered } from '../timers.js';
import type { Delivery } from './message.js';

/** A lease is extended when a third of it has passed: that leaves time for two more tries. */
const EXTEND_AFTER = 1 / 3;
/** Leases that are due this soon are extended together with those that are due now. */
const TOGETHER = 1 / 12;
/** A try without an answer by then is repeated, with another broker if there is one. */
const GIVE_UP_AFTER = 1 / 6;
/** The longest pause before a failed try is repeated. */
const AGAIN_AFTER = 1 / 12;

type Extend = (request: ExtendRequest, timeoutMs: number) => Promise<ExtendAnswer>;

export interface LeaseKeeperEvents {
  /** Called once for each lost lease, which the keeper then forgets. */
  onLost(delivery: Delivery): void;
  /** No handler has begun with these, and their leases are not extended. */
  onIdle(deliveries: readonly Delivery[]): void;
  /** Leases could not be extended in this round. The keeper tries again. */
  onFailure(error: unknown): void;
}

/**
 * Extends the leases of deliveries that handlers work on, many with one request. A delivery that
 * still waits for a handler when its lease should be extended is idle: the consumer releases it.
 *
 * An extended lease counts from before the request, by the monotonic clock of this process. So a
 * slow network never makes it seem longer than it is.
 */
export class LeaseKeeper {
  readonly #held = new Set<Delivery>();
  #timer: NodeJS.Timeout | undefined;
  #wakesAt = Infinity;

  readonly #ask: Extend;
  readonly #events: LeaseKeeperEvents;

  constructor(ask: Extend, events: LeaseKeeperEvents) {
    this.#ask = ask;
    this.#events = events;
  }

  /** @param since by `performance.now()`: the earliest time at which the lease can have begun */
  add(delivery: Delivery, since: number): void {
    this.#held.add(delivery);
    this.#restart(delivery, since);
    this.#wakeAt(delivery.extendAt);
  }

  delete(delivery: Delivery): void {
    this.#held.delete(delivery);
  }

  close(): void {
    this.#held.clear();
    clearTimeout(this.#timer);
  }

  #restart(delivery: Delivery, since: number): void {
    const leaseMs = delivery.leaseSeconds * 1000;
    delivery.extendAt = since + leaseMs * EXTEND_AFTER;
    delivery.leaseEndsAt = since + leaseMs;
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
    const due = new Map<number, Delivery[]>();
    const idle: Delivery[] = [];
    const now = performance.now();
    for (const delivery of this.#held) {
      const { leaseEndsAt, extendAt, leaseSeconds } = delivery;
      if (leaseEndsAt <= now) this.#lose(delivery);
      if (leaseEndsAt <= now || extendAt > now + leaseSeconds * 1000 * TOGETHER) continue;
      // Not again before the answer, or before the lease ends.
      delivery.extendAt = leaseEndsAt;
      if (!delivery.isBegun) idle.push(delivery);
      else if (due.has(leaseSeconds)) due.get(leaseSeconds)?.push(delivery);
      else due.set(leaseSeconds, [delivery]);
    }
    const requests: Promise<void>[] = [];
    for (const [leaseSeconds, deliveries] of due) {
      for (let from = 0; from < deliveries.length; from += LIMITS.batch) {
        requests.push(this.#extend(leaseSeconds, deliveries.slice(from, from + LIMITS.batch)));
      }
    }
    if (idle.length > 0) this.#events.onIdle(idle);
    this.#wakeForNext();
    await Promise.all(requests);
  }

  #wakeForNext(): void {
    let next = Infinity;
    for (const { extendAt } of this.#held) next = Math.min(next, extendAt);
    if (next < Infinity) this.#wakeAt(next);
  }

  async #extend(leaseSeconds: number, deliveries: readonly Delivery[]): Promise<void> {
    const leaseMs = leaseSeconds * 1000;
    const sentAt = performance.now();
    try {
      const { extended, failed } = await this.#ask(
        { receipts: deliveries.map(({ message }) => message.receipt), leaseSeconds },
        leaseMs * GIVE_UP_AFTER,
      );
      const kept = new Set(extended.map(({ receipt }) => receipt));
      const lost = new Set(failed.map(({ receipt }) => receipt));
      for (const delivery of deliveries) {
        // The delivery was settled meanwhile, and the answer no longer matters.
        if (!this.#held.has(delivery)) continue;
        if (kept.has(delivery.message.receipt)) this.#restart(delivery, sentAt);
        else if (lost.has(delivery.message.receipt)) this.#lose(delivery);
      }
      this.#wakeForNext();
    } catch (error) {
      this.#events.onFailure(error);
      const again = performance.now() + jittered(leaseMs * AGAIN_AFTER);
      for (const delivery of deliveries) delivery.extendAt = Math.min(again, delivery.leaseEndsAt);
      this.#wakeForNext();
    }
  }

  #lose(delivery: Delivery): void {
    this.#held.delete(delivery);
    this.#events.onLost(delivery);
  }
}
