import type { LeasedDelivery } from '@rowmq/store';

/** A lease that somebody believes to hold, or used to. */
export interface Held {
  queue: string;
  queueId: number;
  lease: LeasedDelivery;
  /** When it runs out, on the clock of `performance`, or a little before. */
  until: number;
  /** Its consumer is not done before it has run out. */
  isSlow: boolean;
}

/** Beyond it the oldest are forgotten: their consumers are gone for good. */
const MOST_HELD = 4000;
/**
 * Of leases that are used, those that are used again meanwhile: a consumer extends what it is about
 * to ack, and repeats a request that was not answered.
 */
const SHARE_USED_TWICE = 0.3;
/** A lease that has less than this left may run out on the way. */
const FRESH_MS = 100;

/**
 * The leases of all consumers: settled by whichever broker comes next, as those of stateless
 * brokers are.
 */
export class HeldLeases {
  private readonly held: Held[] = [];

  add(leases: readonly Held[]): void {
    this.held.push(...leases);
    if (this.held.length > MOST_HELD) this.held.splice(0, this.held.length - MOST_HELD);
  }

  /** Takes up to so many that still run and whose consumers are done, of whatever queues. */
  takeRunning(count: number): Held[] {
    return this.take(count, ({ until, isSlow }, now) => !isSlow && until > now + FRESH_MS);
  }

  /**
   * Takes up to so many that ran out a moment ago, or are just about to: somebody else may have
   * claimed the message.
   */
  takeStale(count: number): Held[] {
    return this.take(count, ({ until }, now) => until < now + FRESH_MS / 2);
  }

  /** The last ones first: what ran out long ago meets nobody. */
  private take(count: number, wanted: (held: Held, now: number) => boolean): Held[] {
    const now = performance.now();
    const taken: Held[] = [];
    for (let index = this.held.length - 1; index >= 0 && taken.length < count; index -= 1) {
      const one = this.held[index] as Held;
      if (!wanted(one, now)) continue;
      if (Math.random() >= SHARE_USED_TWICE) this.held.splice(index, 1);
      taken.push(one);
    }
    return taken;
  }
}

/** Leases as requests of one flight, two for each queue, not in the order of locks. */
export function requestsFor(held: readonly Held[]): { queueId: number; receipts: LeasedDelivery[] }[] {
  const queues = new Map<number, LeasedDelivery[]>();
  for (const { queueId, lease } of held) queues.set(queueId, [...(queues.get(queueId) ?? []), lease]);
  return [...queues]
    .toSorted(([one], [other]) => other - one)
    .flatMap(([queueId, receipts]) => {
      const half = Math.ceil(receipts.length / 2);
      return [receipts.slice(half), receipts.slice(0, half)]
        .filter(({ length }) => length > 0)
        .map((some) => ({ queueId, receipts: some }));
    });
}
