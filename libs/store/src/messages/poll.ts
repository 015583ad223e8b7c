import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import type { Statement } from '../database/session.js';
import type { StoreObserver } from '../store-observer.js';
import { NOT_IN_THE_INDEX } from './peek.sql.js';
import { type Floors, type IndexPosition, type QueueViews, RANKS } from './queue-view.js';

/**
 * The next full poll ({@link Poll.run}) waits this many times the duration of the last one, so
 * that full polls take up a twentieth of the time at most.
 */
const FULL_POLL_PAUSE_FACTOR = 20;
/** The most rows that a rescan or a poll reads. */
const READ_ROWS = 500;

/** Looks, without locks, whether queues have messages that a claim could lease. */
export class Poll {
  private fullPollFrom = 0;

  constructor(
    private readonly database: Database,
    private readonly views: QueueViews,
    private readonly observer: StoreObserver,
  ) {}

  /**
   * Reads below the scan floors ({@link QueueView}) of those queues of a claim whose rescan is due.
   * Returns those with deliveries that no claim would see. Never rejects: the next rescan reads the
   * same ranges.
   */
  async rescan(queues: readonly { queueId: number; isEmpty: boolean }[]): Promise<ReadonlySet<number>> {
    const due = queues.flatMap(({ queueId, isEmpty }) => (this.views.isRescanDue(queueId, isEmpty) ? queueId : []));
    if (due.length === 0) return new Set();
    const scan = this.views.rescan(due, async () => {
      const started = performance.now();
      const answers = await this.database.all(
        due.map((queueId) => readBelow(queueId, this.views.of(queueId).floors ?? new Map())),
      );
      const found = new Set<number>();
      let count = 0;
      for (const [index, queueId] of due.entries()) {
        const positions = answers[index] as IndexPosition[];
        for (const position of positions) this.views.of(queueId).lower(position);
        if (positions.length > 0) found.add(queueId);
        count += positions.length;
      }
      this.observer.rescanned(performance.now() - started, count);
      return found;
    });
    return scan.catch(() => new Set());
  }

  /**
   * Returns those of these queues that have ready deliveries, by one statement without locks.
   *
   * A full poll reads every priority from the left edge of the index, as often as its cost allows.
   * The others read from the scan floors, and only the priorities in use. A ready message in an
   * unused priority therefore waits for the next full poll. That comes 5 s after one of 250 ms, and
   * later while purge lags so much that full polls are slow.
   *
   * One deep queue can use up the row limit. The poll then reads the other queues once more. It
   * returns queues that it still did not reach as if they had ready deliveries. A poll from the
   * floors does the same with queues without floors.
   */
  async run(queueIds: readonly number[]): Promise<Set<number>> {
    const started = performance.now();
    const isFull = started >= this.fullPollFrom;
    if (!isFull) return this.pollFromFloors(queueIds);
    try {
      return await this.readReadyQueues(queueIds, RANKS, 0);
    } finally {
      // A failed poll also waits: it may have met more dead entries than it can read in time. The
      // server may still be at it.
      const pauseMs = (performance.now() - started) * FULL_POLL_PAUSE_FACTOR;
      this.fullPollFrom = performance.now() + pauseMs;
    }
  }

  /** A poll from the scan floors. */
  private async pollFromFloors(queueIds: readonly number[]): Promise<Set<number>> {
    const unknown = new Set(queueIds.filter((queueId) => this.views.of(queueId).floors === undefined));
    const floors = queueIds.flatMap((queueId) => [...(this.views.of(queueId).floors ?? [])]);
    if (floors.length === 0) return unknown;
    const ranks = [...new Set(floors.map(([rank]) => rank))];
    const from = Math.min(...floors.map(([, floor]) => floor));
    const known = queueIds.filter((queueId) => !unknown.has(queueId));
    return new Set([...(await this.readReadyQueues(known, ranks, from)), ...unknown]);
  }

  /** Returns queues with ready deliveries in these priorities, and those that it did not reach. */
  private async readReadyQueues(
    queueIds: readonly number[],
    ranks: readonly number[],
    from: number,
  ): Promise<Set<number>> {
    const ready = new Set<number>();
    let unread = queueIds;
    for (let reads = 0; reads < 2 && unread.length > 0; reads += 1) {
      const { positions, isWhole } = await readReady(this.database, unread, ranks, from);
      for (const { queueId, ...position } of positions) {
        this.views.of(queueId).lower(position);
        ready.add(queueId);
      }
      unread = isWhole ? [] : unread.filter((queueId) => !ready.has(queueId));
    }
    return new Set([...ready, ...unread]);
  }
}

/**
 * Reads, without locks, ready deliveries of a queue that lie below these floors, where no peek sees
 * them. Includes deliveries that other transactions have locked.
 */
function readBelow(queueId: number, floors: Floors): Statement {
  const ranges = RANKS.map(
    (rank) => `(priority_rank = ${rank} AND available_at BETWEEN 0 AND ${floors.get(rank) ?? NOW_MS})`,
  );
  return {
    sql: `SELECT priority_rank AS priorityRank, available_at AS availableAt, ${NOT_IN_THE_INDEX}
     FROM delivery FORCE INDEX (delivery_next)
     WHERE queue_id = ?
       AND (${ranges.join('\n         OR ')})
     LIMIT ${READ_ROWS}`,
    values: [queueId],
  };
}

/**
 * Reads, without locks, ready deliveries of queues in these priorities from an `available_at` on.
 * Includes deliveries that other transactions have locked. `isWhole` is false if there may be more.
 */
async function readReady(
  database: Database,
  queueIds: readonly number[],
  ranks: readonly number[],
  from: number,
): Promise<{ positions: (IndexPosition & { queueId: number })[]; isWhole: boolean }> {
  const positions = await database.read<IndexPosition & { queueId: number }>(
    `SELECT queue_id AS queueId, priority_rank AS priorityRank, available_at AS availableAt, ${NOT_IN_THE_INDEX}
     FROM delivery FORCE INDEX (delivery_next)
     WHERE queue_id IN (?)
       AND priority_rank IN (?)
       AND available_at BETWEEN ? AND ${NOW_MS}
     LIMIT ${READ_ROWS}`,
    [queueIds, ranks, from],
  );
  return { positions, isWhole: positions.length < READ_ROWS };
}
