import { RowmqError } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import type { Session } from '../database/session.js';
import type { Queue } from '../queues/queue.js';
import { isLeasedAt } from './delivery.sql.js';

/** A count of a deeper queue is reused for this long. */
const REUSE_MS = 1000;
/** A count up to this depth takes a few milliseconds, so every refusal rests on a fresh one. */
const CHEAP_DEPTH = 10_000;
const QUEUES_REMEMBERED = 10_000;

/** A count of a queue's messages, and this broker's enqueues since it began. */
interface Count {
  depth: number;
  /** The count stopped here. A queue that may be deeper needs another one. */
  upTo: number;
  /** When the count began, by `performance.now()`. */
  countedAt: number;
}

/**
 * Keeps queues near their maximum depth.
 *
 * A broker counts a queue's messages at most once a second, and adds its own enqueues since. Other
 * brokers' enqueues of that second may exceed the limit. Before a batch refuses a request the
 * broker counts again, unless the queue is deep and its last count recent.
 *
 * A count cannot tell whether it sees a batch that commits while it runs. It adds all messages that
 * were being stored at any time since it began. It may count such a batch twice, but never misses
 * one. The next count is right again.
 */
export class DepthGauge {
  private readonly counts = new Map<number, Count>();
  /** Counts whose statement runs. */
  private readonly running = new Map<Count, number>();
  /** Messages that are being stored, by queue. */
  private readonly underWay = new Map<number, number>();

  constructor(private readonly database: Database) {}

  /**
   * Counts messages that the broker is about to store. The caller must call {@link end}.
   *
   * Throws `queue-full` if they do not fit. A refusal rests on a count from `since` on
   * (`performance.now()`). No other batch runs between the check and the addition, so two batches
   * never use the same room.
   */
  async begin({ id, maxDepth }: Pick<Queue, 'id' | 'maxDepth'>, messages: number, since: number): Promise<void> {
    // A repeat stores nothing, so it needs no room.
    if (maxDepth !== null && messages > 0) {
      let known = this.counts.get(id);
      if (known === undefined || !isEnough(known, { messages, maxDepth, since })) {
        known = { depth: this.underWay.get(id) ?? 0, upTo: maxDepth, countedAt: performance.now() };
        this.running.set(known, id);
        try {
          const counted = await countMessages(this.database, id, maxDepth);
          known.depth += counted;
        } finally {
          this.running.delete(known);
        }
        if (this.counts.size >= QUEUES_REMEMBERED) this.counts.clear();
        this.counts.set(id, known);
      }
      refuseIfFull(maxDepth, known.depth, messages);
    }
    this.underWay.set(id, (this.underWay.get(id) ?? 0) + messages);
    this.add(id, messages);
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
    for (const [count, id] of this.running) if (id === queueId) count.depth += messages;
  }
}

/** Whether these messages can be admitted or refused without another count. */
function isEnough(
  { depth, upTo, countedAt }: Count,
  { messages, maxDepth, since }: { messages: number; maxDepth: number; since: number },
): boolean {
  if (upTo < maxDepth || performance.now() - countedAt >= REUSE_MS) return false;
  return depth + messages <= maxDepth || depth > CHEAP_DEPTH || countedAt >= since;
}

export function refuseIfFull(maxDepth: number, depth: number, messages: number): void {
  if (depth + messages <= maxDepth) return;
  throw new RowmqError(
    'queue-full',
    `The queue holds ${depth} of at most ${maxDepth} messages, no room for ${messages} more; try again when consumers have caught up.`,
    { retryAfterSeconds: 1 },
  );
}

/**
 * Counts the messages that a queue owes, without locks. Expired ones do not count, unless they are
 * under a lease. Stops at `enough` deliveries.
 */
export async function countMessages(
  session: Pick<Session, 'read'>,
  queueId: number,
  enough: number,
  { clock = NOW_MS, schema = '' }: { clock?: string; schema?: string } = {},
): Promise<number> {
  const [row] = await session.read<{ messages: number | string | null }>(
    `SELECT SUM(BIT_COUNT(members)) AS messages
     FROM (
       SELECT members
       FROM ${schema}delivery FORCE INDEX (PRIMARY)
       WHERE queue_id = ?
         AND (expires_at > ${clock} OR ${isLeasedAt(clock)})
       LIMIT ?
     ) AS counted`,
    [queueId, enough],
  );
  return Number(row?.messages ?? 0);
}
