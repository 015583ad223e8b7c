import { RowmqError } from '@rowmq/contract';
import pLimit, { type LimitFunction } from 'p-limit';

const WAITING = 1000;
const WAIT_MS = 10_000;

/**
 * Lets a few claims of each queue run at a time, in the order in which they came.
 *
 * More would only walk over each other's locked rows, and hold the index entries of what they skip, for which acks then wait: 64 at once acked 1,120 messages in 20 s on MySQL and 840 on
 * MariaDB, where 2 at once acked 4,000 in 3 s and 7 s (`docs/decisions/0002-claims-take-turns.md`).
 */
export class ClaimTurns {
  private readonly limits = new Map<number, LimitFunction>();

  constructor(private readonly atOnce: () => number) {}

  /** Runs a claim when its turn comes. Throws `overloaded`, with nothing claimed, when too many wait or the turn comes too late to be of use. */
  async take<T>(queueId: number, claim: () => Promise<T>): Promise<T> {
    const limit = this.limits.get(queueId) ?? pLimit(this.atOnce());
    this.limits.set(queueId, limit);
    if (limit.pendingCount >= WAITING) throw overloaded();
    const latest = performance.now() + WAIT_MS;
    try {
      return await limit(() => {
        if (performance.now() > latest) throw overloaded();
        return claim();
      });
    } finally {
      if (limit.activeCount + limit.pendingCount === 0) this.limits.delete(queueId);
    }
  }
}

function overloaded(): RowmqError {
  return new RowmqError(
    'overloaded',
    'Too many consumers take from this queue at once; try again later, or take more messages at a time.',
    { retryAfterSeconds: 1 },
  );
}
