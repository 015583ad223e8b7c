/** For each priority rank that is in use, the `available_at` at which a claim begins to look. */
export type Floors = ReadonlyMap<number, number>;

interface RankFloor {
  floor: number;
  /** When something of this rank was last seen, by `performance.now()`. */
  seenAt: number;
}

interface QueueFloors {
  ranks: Map<number, RankFloor>;
  rescannedAt: number;
  rescanMs: number;
  isRescanning: boolean;
}

/** Where a delivery stands in its queue. */
export interface Place {
  priorityRank: number;
  availableAt: number;
}

/**
 * How far a floor stays behind what was seen, in ms. Enqueues that run at the same time commit in another order than they read the clock: without this, those that commit late would be
 * found by the rescan only.
 */
const LATE_COMMIT_MS = 100;
/** A rescan waits for this many times what the last one took: together they take at most a twentieth of the time. */
const RESCAN_PAUSE_FACTOR = 20;
/** And, while a queue has messages to hand out, for this long. */
const RESCAN_EVERY_MS = 250;
/** A rank of which nothing was seen for so long is no longer in use. */
const RANK_IN_USE_MS = 60_000;
const QUEUES_REMEMBERED = 10_000;

/**
 * Where claims begin to look.
 *
 * InnoDB keeps the index entries of leased and deleted deliveries until purge may remove them, and one long transaction (a backup) stops purge. A claim from the left edge would walk over
 * all of them: after 40,000 claimed deliveries for 10 ms, and longer for ever. So a claim begins where the last one of its queue and priority saw its first delivery, and looks only at
 * priorities that are in use: each range costs, and on MariaDB a range with nothing in it walks on through the dead entries behind it.
 *
 * A delivery can still appear below: its enqueue committed late, or a claim that held it rolled back; or in a priority that was not in use. So a rescan of all that runs regularly, and
 * before a queue is called empty, as often as its cost allows: what stands there is late by that, never lost.
 */
export class ScanFloors {
  private readonly queues = new Map<number, QueueFloors>();

  /** Undefined: everything has to be looked at. */
  of(queueId: number): Floors | undefined {
    const queue = this.queues.get(queueId);
    return queue && new Map([...queue.ranks].map(([rank, { floor }]) => [rank, floor]));
  }

  /**
   * After a look from these floors on: which ranks it saw, and where the first delivery of each stood. `now` is the database's time before it.
   * @param isWhole it saw all there is; otherwise nothing behind the last rank.
   */
  raise(
    queueId: number,
    seen: readonly { priorityRank: number; first: number }[],
    isWhole: boolean,
    now: number,
  ): void {
    const { ranks } = this.remember(queueId);
    for (const { priorityRank, first } of seen) {
      const floor = Math.max(ranks.get(priorityRank)?.floor ?? 0, first - LATE_COMMIT_MS);
      ranks.set(priorityRank, { floor, seenAt: performance.now() });
    }
    const last = isWhole ? Infinity : (seen.at(-1)?.priorityRank ?? Infinity);
    for (const [rank, known] of ranks) {
      if (rank > last || seen.some(({ priorityRank }) => priorityRank === rank)) continue;
      if (known.seenAt < performance.now() - RANK_IN_USE_MS) ranks.delete(rank);
      else known.floor = Math.max(known.floor, now - LATE_COMMIT_MS);
    }
  }

  /** Deliveries stand there, or later. */
  lower(queueId: number, { priorityRank, availableAt }: Place): void {
    const ranks = this.queues.get(queueId)?.ranks;
    if (ranks === undefined) return;
    // Before it: a range from now to now would be made an equality, and the plan be another.
    const floor = Math.min(ranks.get(priorityRank)?.floor ?? Infinity, availableAt - 1);
    ranks.set(priorityRank, { floor, seenAt: performance.now() });
  }

  /** Whether a rescan of this queue has its turn: at the latest before it is called empty. */
  isRescanDue(queueId: number, isEmpty: boolean): boolean {
    const queue = this.queues.get(queueId);
    if (queue === undefined || queue.isRescanning) return false;
    const pause = queue.rescanMs * RESCAN_PAUSE_FACTOR;
    return performance.now() >= queue.rescannedAt + (isEmpty ? pause : Math.max(pause, RESCAN_EVERY_MS));
  }

  /** Runs a rescan and notes what it cost. */
  async rescan<T>(queueId: number, work: () => Promise<T>): Promise<T> {
    const queue = this.remember(queueId);
    queue.isRescanning = true;
    const started = performance.now();
    try {
      return await work();
    } finally {
      queue.rescannedAt = performance.now();
      queue.rescanMs = queue.rescannedAt - started;
      queue.isRescanning = false;
    }
  }

  private remember(queueId: number): QueueFloors {
    const known = this.queues.get(queueId);
    if (known !== undefined) return known;
    if (this.queues.size >= QUEUES_REMEMBERED) this.queues.clear();
    // The claim that is remembered first looked at everything.
    const queue = { ranks: new Map(), rescannedAt: performance.now(), rescanMs: 0, isRescanning: false };
    this.queues.set(queueId, queue);
    return queue;
  }
}
