import type { LeasedMessage } from '@rowmq/store';

/** A lease that a consumer holds, or believes that it holds. */
export interface Held {
  queue: string;
  queueId: number;
  lease: LeasedMessage;
  /** The lease's end on `performance`'s clock, or slightly earlier. */
  until: number;
  /** Its consumer takes longer than the lease. */
  isSlow: boolean;
}

/** Above this number the oldest are dropped, like leases of dead consumers. */
const MOST_HELD = 4000;
/**
 * The share of leases that are used twice. A consumer extends a lease that it is about to ack, and
 * repeats an unanswered request.
 */
const SHARE_USED_TWICE = 0.3;
/** A lease with less time left may run out before the request arrives. */
const FRESH_MS = 100;

/** The leases of all consumers. Any broker may settle any lease. */
export class HeldLeases {
  private readonly held: Held[] = [];

  add(leases: readonly Held[]): void {
    this.held.push(...leases);
    if (this.held.length > MOST_HELD) this.held.splice(0, this.held.length - MOST_HELD);
  }

  /** Returns up to `count` leases of any queues that still run and whose consumers are done. */
  pickRunning(count: number): Held[] {
    return this.pick(count, ({ until, isSlow }, now) => !isSlow && until > now + FRESH_MS);
  }

  /**
   * Returns up to `count` leases that just ran out, or are about to. Another consumer may hold the
   * message.
   */
  pickStale(count: number): Held[] {
    return this.pick(count, ({ until }, now) => until < now + FRESH_MS / 2);
  }

  /** Picks the latest first, because nobody competes for leases that ended long ago. */
  private pick(count: number, wanted: (held: Held, now: number) => boolean): Held[] {
    const now = performance.now();
    const picked: Held[] = [];
    for (let index = this.held.length - 1; index >= 0 && picked.length < count; index -= 1) {
      const one = this.held[index] as Held;
      if (!wanted(one, now)) continue;
      if (Math.random() >= SHARE_USED_TWICE) this.held.splice(index, 1);
      picked.push(one);
    }
    return picked;
  }
}

/** Groups the leases into requests of one batch, two for each queue, not in the order of locks. */
export function requestsFor(held: readonly Held[]): { queueId: number; receipts: LeasedMessage[] }[] {
  const queues = new Map<number, LeasedMessage[]>();
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
