import type { Transaction } from '../database/database.js';

/**
 * The broker reuses a count for this many times its cost. Counting therefore uses at most a
 * twentieth of the time.
 */
const REUSE_FACTOR = 20;
/** Up to this depth a count takes a few tenths of a millisecond, so every enqueue makes one. */
const EXACT_DEPTH = 1000;

/**
 * Keeps queues within their maximum depth.
 *
 * The cost of a count grows with the depth. Up to {@link EXACT_DEPTH} deliveries, every enqueue
 * counts, and the limit is exact. Beyond it the broker reuses a count for twenty times its cost,
 * and subtracts its own enqueues since. In that time the enqueues of other brokers may exceed the
 * limit. The broker always counts anew before it refuses a request.
 */
export class DepthGauge {
  private readonly counts = new Map<number, { maxDepth: number; room: number; until: number }>();

  /**
   * Returns the number of deliveries that still fit into a queue. Counts anew unless a recent count
   * leaves room for the wanted number. The transaction must hold the queue's row exclusively.
   */
  async room(tx: Pick<Transaction, 'read'>, queueId: number, maxDepth: number, wanted: number): Promise<number> {
    const known = this.counts.get(queueId);
    if (known !== undefined && known.maxDepth === maxDepth && known.until > performance.now() && known.room >= wanted) {
      return known.room;
    }
    const started = performance.now();
    const [row] = await tx.read<{ depth: number }>(
      'SELECT COUNT(*) AS depth FROM (SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? LIMIT ?) AS counted',
      [queueId, maxDepth],
    );
    const cost = performance.now() - started;
    const depth = Number(row?.depth ?? 0);
    const room = maxDepth - depth;
    if (depth <= EXACT_DEPTH) this.counts.delete(queueId);
    else this.counts.set(queueId, { maxDepth, room, until: performance.now() + cost * REUSE_FACTOR });
    return room;
  }

  /** Subtracts stored deliveries from the room that the last count found. */
  subtract(queueId: number, stored: number): void {
    const known = this.counts.get(queueId);
    if (known !== undefined) known.room -= stored;
  }
}
