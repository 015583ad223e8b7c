import type { Random } from './random.js';

/**
 * A consumer's behaviour in one dequeue.
 * - `work`: handles the messages at once;
 * - `vanish`: keeps the leases and forgets them, as a crashed process does;
 * - `hangUp`: drops its connection while the dequeue is in flight;
 * - `slow`: handles for longer than the lease lasts, and then tries to ack;
 * - `slowExtending`: handles for longer than the lease lasts, and extends it in time.
 */
export type DequeueFate = 'work' | 'vanish' | 'hangUp' | 'slow' | 'slowExtending';

interface FaultRates {
  crashRate: number;
  slowRate: number;
  nackRate: number;
}

const NACK_DELAYS_SECONDS = [0, 0, 1, 2];

/** Decides when one consumer misbehaves. */
export class Faults {
  readonly #random: Random;
  readonly #rates: FaultRates;
  #over = false;

  constructor(random: Random, rates: FaultRates) {
    this.#random = random;
    this.#rates = rates;
  }

  /** From now on the consumer behaves, so that the queues can be emptied. */
  end(): void {
    this.#over = true;
  }

  dequeueFate(): DequeueFate {
    if (this.#happens(this.#rates.crashRate)) return this.#random.pick(['vanish', 'hangUp']);
    if (this.#happens(this.#rates.slowRate)) return this.#random.pick(['slow', 'slowExtending']);
    return 'work';
  }

  /** The delay with which to nack a message, or undefined to ack it. */
  nackDelaySeconds(): number | undefined {
    return this.#happens(this.#rates.nackRate) ? this.#random.pick(NACK_DELAYS_SECONDS) : undefined;
  }

  /**
   * Delay until the hang-up. Half of them come at once, in the middle of a claim; the others come
   * during the wait.
   */
  hangUpAfterMs(waitSeconds: number): number {
    return this.#random.happens(0.5) ? this.#random.between(0, 20) : this.#random.between(0, waitSeconds * 1000);
  }

  /** Duration of a slow handler, in leases. */
  slowness(): number {
    return 1.05 + this.#random.next() * 0.75;
  }

  #happens(rate: number): boolean {
    return !this.#over && this.#random.happens(rate);
  }
}
