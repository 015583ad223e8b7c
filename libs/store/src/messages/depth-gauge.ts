import type { Database } from '../database/database.js';
import type { Session } from '../database/session.js';
import { NOW_MS } from '../database/clock.js';
import { NO_LEASE } from './delivery.sql.js';

/** A count of a deeper queue is reused for this long. */
const REUSE_MS = 1000;
/** A count up to this depth takes a few milliseconds, so every refusal rests on a fresh one. */
const CHEAP_DEPTH = 10_000;
const QUEUES_REMEMBERED = 10_000;

/**
 * Keeps queues near their maximum depth.
 *
 * A broker counts a queue's messages at most once a second, and adds its own enqueues since. Other
 * brokers' enqueues of that second may exceed the limit. Before a batch refuses a request the
 * broker counts again, unless the queue is deep and its last count recent.
 */
export class DepthGauge {
  private readonly counts = new Map<number, { depth: number; countedAt: number }>();
  /** Messages that are being stored, by queue. A count does not see them. */
  private readonly underWay = new Map<number, number>();

  constructor(private readonly database: Database) {}

  /**
   * Returns the number of messages that still fit into a queue. May be negative. A refusal rests on
   * a count from `since` on (`performance.now()`).
   */
  async room(queueId: number, maxDepth: number, wanted: number, since: number): Promise<number> {
    const known = this.counts.get(queueId);
    if (known !== undefined && performance.now() - known.countedAt < REUSE_MS) {
      const isFirm = known.depth > CHEAP_DEPTH || known.countedAt >= since;
      if (known.depth + wanted <= maxDepth || isFirm) return maxDepth - known.depth;
    }
    const countedAt = performance.now();
    const counted = await countMessages(this.database, queueId, maxDepth);
    const depth = counted + (this.underWay.get(queueId) ?? 0);
    if (this.counts.size >= QUEUES_REMEMBERED) this.counts.clear();
    this.counts.set(queueId, { depth, countedAt });
    return maxDepth - depth;
  }

  /** Counts messages that the broker is about to store. The caller must call {@link end}. */
  begin(queueId: number, messages: number): void {
    this.underWay.set(queueId, (this.underWay.get(queueId) ?? 0) + messages);
    this.add(queueId, messages);
  }

  /** Messages that {@link begin} counted are stored now, or will not be. */
  end(queueId: number, messages: number, isStored: boolean): void {
    const left = (this.underWay.get(queueId) ?? 0) - messages;
    if (left > 0) this.underWay.set(queueId, left);
    else this.underWay.delete(queueId);
    if (!isStored) this.add(queueId, -messages);
  }

  private add(queueId: number, messages: number): void {
    const known = this.counts.get(queueId);
    if (known !== undefined) known.depth += messages;
  }
}

/**
 * Counts the messages that a queue owes, without locks. Expired ones do not count, unless they are
 * under a lease. Stops at `enough` deliveries.
 */
export async function countMessages(
  session: Pick<Session, 'read'>,
  queueId: number,
  enough: number,
  clock = NOW_MS,
): Promise<number> {
  const [row] = await session.read<{ messages: number | string | null }>(
    `SELECT SUM(BIT_COUNT(members)) AS messages
     FROM (
       SELECT members
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id = ?
         AND (expires_at > ${clock} OR (lease_token <> ${NO_LEASE} AND available_at > ${clock}))
       LIMIT ?
     ) AS counted`,
    [queueId, enough],
  );
  return Number(row?.messages ?? 0);
}
