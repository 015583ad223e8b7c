import type { Transaction } from '../database/database.js';

/**
 * A count is used again for as long as this many times what it cost, so counting takes at most a
 * twentieth of the time.
 */
const REUSE_FACTOR = 20;
/** Up to here a count takes some tenths of a millisecond and is made for every enqueue. */
const EXACT_DEPTH = 1000;

/**
 * Keeps queues within their maximum depth.
 *
 * Counting costs time in proportion to the depth. Up to {@link EXACT_DEPTH} deliveries it is done
 * for every enqueue, and the limit is exact; beyond it a count is used again for twenty times its
 * cost, less what was enqueued here since, so that other brokers together may overshoot by what
 * they enqueue in that time. Before anything is refused, it is counted afresh.
 */
export class DepthGauge {
  private readonly counts = new Map<number, { maxDepth: number; room: number; until: number }>();

  /**
   * Room in a queue, for who wants so many positions: counted afresh, unless what is known is enough.
   * The transaction holds the queue's row exclusively.
   */
  async room(tx: Pick<Transaction, 'read'>, queueId: number, maxDepth: number, wanted: number): Promise<number> {
    const known = this.counts.get(queueId);
    if (known !== undefined && known.maxDepth === maxDepth && known.until > performance.now() && known.room >= wanted) {
      return known.room;
    }
    const started = performance.now();
    const [row] = await tx.read<{ depth: number }>(
      'SELECT COUNT(*) AS depth FROM (SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? LIMIT ?) AS head',
      [queueId, maxDepth],
    );
    const cost = performance.now() - started;
    const depth = Number(row?.depth ?? 0);
    const room = maxDepth - depth;
    if (depth <= EXACT_DEPTH) this.counts.delete(queueId);
    else this.counts.set(queueId, { maxDepth, room, until: performance.now() + cost * REUSE_FACTOR });
    return room;
  }

  /** So many positions were taken. */
  take(queueId: number, positions: number): void {
    const known = this.counts.get(queueId);
    if (known !== undefined) known.room -= positions;
  }
}
