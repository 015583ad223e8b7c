import { LIMITS } from '@rowmq/contract';

/** A position in the index `delivery_next` of one queue. */
export interface IndexPosition {
  priorityRank: number;
  availableAt: number;
}

/** For each priority rank in use, the `available_at` from which a claim reads: the scan floor. */
export type Floors = ReadonlyMap<number, number>;

/** The result of a peek at one queue. */
export interface FinishedPeek {
  /** The value of {@link QueueView.lowerings} when the peek began. */
  begunAt: number;
  /** The database's time before the peek. */
  databaseTime: number;
  /** In hand-out order. */
  seen: readonly IndexPosition[];
  /**
   * The peek saw all ready deliveries. Otherwise it did not read past the last rank that it saw.
   */
  isWhole: boolean;
}

interface RankFloor {
  floor: number;
  /** When a peek last saw a delivery of this rank, by `performance.now()`. */
  seenAt: number;
  /** The number of {@link QueueView.lowerings} when the floor was last lowered. */
  loweredAt: number;
}

/** Every priority, most urgent first. */
export const RANKS = Array.from({ length: LIMITS.priorityMax + 1 }, (_, rank) => rank);

/**
 * A floor stays this many ms below the first delivery that a peek saw. Concurrent enqueues do not
 * commit in the order in which they read the clock. Without the margin only a rescan would find the
 * deliveries that commit late.
 */
const LATE_COMMIT_MS = 100;
/**
 * A claim looks for messages of other brokers in unused priorities this often. An urgent message
 * that has been ready for 250 ms is therefore not overtaken. The exception is a message whose
 * COMMIT came more than {@link LATE_COMMIT_MS} after its enqueue read the clock. Only a rescan
 * finds it.
 */
const WIDE_PEEK_EVERY_MS = 200;
/** A rank is no longer in use if no peek saw a delivery of it for this long. */
const RANK_IN_USE_MS = 60_000;
/**
 * A rescan waits for this many times the duration of the last one, of whatever queue. All rescans
 * together therefore use at most a twentieth of a broker's time.
 */
const RESCAN_PAUSE_FACTOR = 20;
/** A queue that has ready messages also waits this long between two rescans. */
const RESCAN_EVERY_MS = 250;
const QUEUES_REMEMBERED = 10_000;

/**
 * All that a broker's claims remember of one queue.
 *
 * The scan floors are the index positions from which claims read. InnoDB keeps the index entries of
 * leased and deleted deliveries until its purge removes them. One long transaction, such as a
 * backup, stops purge. A claim from the left edge of the index would walk over all dead entries.
 * After 40,000 claimed deliveries the walk took 10 ms, and it grows without limit.
 *
 * A peek therefore starts at the first delivery that the last peek saw in the same queue and
 * priority. It reads only the priorities in use, because each range costs time. On MariaDB an empty
 * range walks on over the dead entries behind it.
 *
 * A delivery can still appear below a floor or in an unused priority. Another broker stored it, its
 * enqueue committed late, or the claim that held it rolled back. A hint of that broker adds the
 * unused priorities to the next peek. A rescan therefore reads everything below the floors:
 * regularly, and before a queue counts as empty, as often as its cost allows. Such a delivery is
 * late, but never lost.
 */
export class QueueView {
  /** The last claim met deliveries that it had to remove. */
  isObstructed = false;
  /** The last claim leased nothing, and some of the deliveries that it saw were locked. */
  isOccupied = false;
  /**
   * The most rows that the next claim locks, because the last one could not lease all that it
   * locked: their messages are large. Infinity: it could.
   */
  rowsThatFit = Infinity;
  rescannedAt = performance.now();
  /** A logical time for {@link endPeek}: how often a floor was lowered. */
  lowerings = 0;
  /** For each rank, the database's time at the last peek that read all of it. */
  private readonly readAt = RANKS.map(() => 0);
  /** The next peek reads every priority from this time on, by `performance.now()`. */
  private wideFrom = 0;
  /** Without ranks, the first peek reads everything. */
  private ranks: Map<number, RankFloor> | undefined;
  /**
   * The ranks of deliveries that were stored before the first peek, each with its last lowering.
   * That peek does not see those that were stored leased, and their leases may run out.
   */
  private readonly usedBefore = new Map<number, number>();

  /** Whether it is time for a peek at every priority. Without one, urgent messages could starve. */
  get isWideDue(): boolean {
    return performance.now() >= this.wideFrom;
  }

  /** Undefined: the peek must read everything. */
  get floors(): Floors | undefined {
    return this.ranks && new Map([...this.ranks].map(([rank, { floor }]) => [rank, floor]));
  }

  /**
   * Raises the floor of each rank to the first delivery that the peek saw.
   *
   * A floor that was lowered since the peek began stays, because the peek may not have seen the
   * delivery that lowered it.
   */
  endPeek({ begunAt, databaseTime, seen, isWhole }: FinishedPeek): void {
    const isFirst = this.ranks === undefined;
    const ranks = (this.ranks ??= new Map());
    const first = new Map(seen.toReversed().map(({ priorityRank, availableAt }) => [priorityRank, availableAt]));
    for (const rank of first.keys()) if (!ranks.has(rank)) ranks.set(rank, { floor: 0, seenAt: 0, loweredAt: 0 });
    const last = isWhole ? Infinity : (seen.at(-1)?.priorityRank ?? Infinity);
    // No peek has read the ranks behind the end of a queue's first peek.
    for (let rank = last + 1; isFirst && rank <= LIMITS.priorityMax; rank += 1) {
      ranks.set(rank, { floor: 0, seenAt: -Infinity, loweredAt: 0 });
    }
    if (isFirst) for (const rank of RANKS) if (rank < last) this.readAt[rank] = databaseTime;
    for (const [rank, loweredAt] of this.usedBefore)
      ranks.set(rank, { floor: 0, seenAt: performance.now(), loweredAt });
    this.usedBefore.clear();
    for (const [rank, known] of ranks) {
      if (rank > last || known.loweredAt > begunAt) continue;
      if (rank < last) this.readAt[rank] = databaseTime;
      if (first.has(rank)) known.seenAt = performance.now();
      if (known.seenAt < performance.now() - RANK_IN_USE_MS) ranks.delete(rank);
      else known.floor = Math.max(known.floor, (first.get(rank) ?? databaseTime) - LATE_COMMIT_MS);
    }
  }

  /**
   * Other brokers may have stored deliveries of any priority. The next peek also reads the
   * priorities that are not in use, each from the last peek that read it.
   */
  expectMore(): void {
    const { ranks } = this;
    this.wideFrom = performance.now() + WIDE_PEEK_EVERY_MS;
    if (ranks === undefined) return;
    // A peek that has begun did not read them.
    this.lowerings += 1;
    // Never seen: the peek drops them again unless it finds a delivery there.
    for (const [rank, readAt] of this.readAt.entries()) {
      const floor = Math.max(0, readAt - LATE_COMMIT_MS);
      if (!ranks.has(rank)) ranks.set(rank, { floor, seenAt: -Infinity, loweredAt: this.lowerings });
    }
  }

  /** Lowers a floor for deliveries that lie at this position or later. */
  lower({ priorityRank, availableAt }: IndexPosition): void {
    this.lowerings += 1;
    if (this.ranks === undefined) {
      this.usedBefore.set(priorityRank, this.lowerings);
      return;
    }
    // One less: the optimizers turn a range from now to now into an equality and change the plan.
    const floor = Math.min(this.ranks.get(priorityRank)?.floor ?? Infinity, availableAt - 1);
    this.ranks.set(priorityRank, { floor, seenAt: performance.now(), loweredAt: this.lowerings });
  }
}

/** A broker's views of all queues, and the pace of their rescans. */
export class QueueViews {
  private readonly views = new Map<number, QueueView>();
  private isRescanning = false;
  private nextRescanAt = 0;

  of(queueId: number): QueueView {
    const known = this.views.get(queueId);
    if (known !== undefined) return known;
    if (this.views.size >= QUEUES_REMEMBERED) this.views.clear();
    const view = new QueueView();
    this.views.set(queueId, view);
    return view;
  }

  /** The queue's next peek reads everything. */
  forget(queueId: number): void {
    this.views.delete(queueId);
  }

  /**
   * Whether a rescan of this queue may start now. A broker runs one rescan at a time, for the
   * queues of one claim. An apparently empty queue need not wait for {@link RESCAN_EVERY_MS}.
   */
  isRescanDue(queueId: number, isEmpty: boolean): boolean {
    const view = this.views.get(queueId);
    const now = performance.now();
    if (view === undefined || this.isRescanning || now < this.nextRescanAt) return false;
    return isEmpty || now >= view.rescannedAt + RESCAN_EVERY_MS;
  }

  /** Runs a rescan of these queues and records its cost. */
  async rescan<T>(queueIds: readonly number[], work: () => Promise<T>): Promise<T> {
    this.isRescanning = true;
    const started = performance.now();
    try {
      return await work();
    } finally {
      const ended = performance.now();
      for (const queueId of queueIds) this.of(queueId).rescannedAt = ended;
      this.nextRescanAt = ended + (ended - started) * RESCAN_PAUSE_FACTOR;
      this.isRescanning = false;
    }
  }
}
