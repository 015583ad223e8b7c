import { LIMITS } from '@rowmq/contract';

/** For each priority rank in use, the `available_at` from which a claim reads. */
export type Floors = ReadonlyMap<number, number>;

interface RankFloor {
  floor: number;
  /** When a peek last saw a delivery of this rank, by `performance.now()`. */
  seenAt: number;
  /** The value of {@link ScanFloors.now} when the floor was last lowered. */
  loweredAt: number;
}

interface QueueFloors {
  ranks: Map<number, RankFloor>;
  rescannedAt: number;
  /** The first position, in hand-out order, that lowered a floor since the last peek began. */
  lowest: IndexPosition | undefined;
  /** The last peek saw many more deliveries than its claim wanted. */
  isDeep: boolean;
  /**
   * Until this time the queue's peeks read no further than their claims want: the last read-ahead
   * was discarded unused.
   */
  noReadAheadUntil: number;
}

/** Positions of the deliveries that a claim is to lock, in hand-out order. */
export interface ClaimPositions {
  positions: readonly IndexPosition[];
  /** Number of further deliveries at the last position. Undefined: the peek did not see its end. */
  ties: number | undefined;
}

/** Positions that the last peek at a queue saw and that no claim has used yet. */
interface ReadAhead {
  /** In hand-out order. */
  positions: readonly IndexPosition[];
  /** The peek saw all ready deliveries. */
  isWhole: boolean;
  /** Claims may use the positions until this time, by `performance.now()`. */
  until: number;
  /** A claim has used some of the positions. */
  isUsed: boolean;
}

/** A position in the index `delivery_next` of one queue. */
export interface IndexPosition {
  priorityRank: number;
  availableAt: number;
}

/** The result of a peek at one queue. */
export interface FinishedPeek {
  /** The value of {@link ScanFloors.now} when the peek began. */
  begunAt: number;
  /** The database's time before the peek. */
  databaseTime: number;
  /** In hand-out order. */
  seen: readonly IndexPosition[];
  /**
   * The peek saw all ready deliveries. Otherwise it did not read past the last rank that it saw.
   */
  isWhole: boolean;
  /** The claim that peeked wants this many of the first deliveries. */
  claimed: number;
}

/**
 * A floor stays this many ms below the first delivery that a peek saw. Concurrent enqueues do not
 * commit in the order in which they read the clock. Without the margin only a rescan would find the
 * deliveries that commit late.
 */
const LATE_COMMIT_MS = 100;
/**
 * A rescan waits for this many times the duration of the last one, of whatever queue. All rescans
 * together therefore use at most a twentieth of a broker's time.
 */
const RESCAN_PAUSE_FACTOR = 20;
/** A queue that has ready messages also waits this long between two rescans. */
const RESCAN_EVERY_MS = 250;
/** A rank is no longer in use if no peek saw a delivery of it for this long. */
const RANK_IN_USE_MS = 60_000;
const QUEUES_REMEMBERED = 10_000;
/**
 * Claims use a read-ahead for at most this long. A more urgent message waits that long if a peer
 * enqueued it, or if a lease or a delay ended.
 */
const READ_AHEAD_MS = 100;
/**
 * A queue is deep if a peek saw this many times the deliveries that its claim wants. Read-ahead
 * pays only in deep queues.
 */
const DEEP_FACTOR = 4;
/**
 * A steady stream of mixed priorities discards each read-ahead before a claim can use it. After an
 * unused read-ahead a queue therefore reads none for this long.
 */
const NO_READ_AHEAD_MS = 1000;
/** Bounds the memory: a read-ahead uses some tens of kilobytes. */
const READ_AHEADS_REMEMBERED = 1000;

/**
 * Keeps the scan floors: the index positions from which claims read.
 *
 * InnoDB keeps the index entries of leased and deleted deliveries until its purge removes them. One
 * long transaction, such as a backup, stops purge. A claim from the left edge of the index would
 * walk over all dead entries. After 40,000 claimed deliveries the walk took 10 ms, and it grows
 * without limit.
 *
 * A peek therefore starts at the first delivery that the last peek saw in the same queue and
 * priority. It reads only the priorities in use, because each range costs time. On MariaDB an empty
 * range walks on over the dead entries behind it.
 *
 * A delivery can still appear below a floor or in an unused priority. Its enqueue committed late,
 * or the claim that held it rolled back. A rescan therefore reads everything below the floors:
 * regularly, and before a queue counts as empty, as often as its cost allows. Such a delivery is
 * late, but never lost.
 *
 * A peek at a deep queue reads ahead. The next claims use these positions without a peek of their
 * own, until a more urgent delivery arrives.
 */
export class ScanFloors {
  private readonly queues = new Map<number, QueueFloors>();
  private readonly readAheads = new Map<number, ReadAhead>();
  private moment = 0;
  private isRescanning = false;
  private nextRescanAt = 0;

  /** Returns a logical time for {@link endPeek}: the number of times that a floor was lowered. */
  now(): number {
    return this.moment;
  }

  /** Returns a queue's floors. Undefined: the peek must read everything. */
  of(queueId: number): Floors | undefined {
    const queue = this.queues.get(queueId);
    return queue && new Map([...queue.ranks].map(([rank, { floor }]) => [rank, floor]));
  }

  /**
   * Begins a peek, which {@link endPeek} must end. Returns the floors to read from, and whether the
   * queue is deep enough for read-ahead.
   */
  beginPeek(queueId: number): { floors: Floors | undefined; isDeep: boolean } {
    const queue = this.queues.get(queueId);
    if (queue !== undefined) queue.lowest = undefined;
    return {
      floors: this.of(queueId),
      isDeep: queue !== undefined && queue.isDeep && performance.now() >= queue.noReadAheadUntil,
    };
  }

  /**
   * Ends a peek. Raises the floor of each rank to the first delivery that the peek saw, and keeps
   * the rest of its positions as read-ahead. Returns the positions for the claim.
   *
   * A floor that was lowered since the peek began stays, because the peek may not have seen the
   * delivery that lowered it.
   */
  endPeek(queueId: number, peek: FinishedPeek): ClaimPositions {
    this.keepReadAhead(queueId, peek);
    const isFirst = !this.queues.has(queueId);
    const queue = this.remember(queueId);
    const { ranks } = queue;
    queue.isDeep = !peek.isWhole || peek.seen.length >= peek.claimed * DEEP_FACTOR;
    const first = new Map(peek.seen.toReversed().map(({ priorityRank, availableAt }) => [priorityRank, availableAt]));
    for (const rank of first.keys()) if (!ranks.has(rank)) ranks.set(rank, { floor: 0, seenAt: 0, loweredAt: 0 });
    const last = peek.isWhole ? Infinity : (peek.seen.at(-1)?.priorityRank ?? Infinity);
    // No peek has read the ranks behind the end of a queue's first peek.
    for (let rank = last + 1; isFirst && rank <= LIMITS.priorityMax; rank += 1) {
      ranks.set(rank, { floor: 0, seenAt: -Infinity, loweredAt: 0 });
    }
    for (const [rank, known] of ranks) {
      if (rank > last || known.loweredAt > peek.begunAt) continue;
      if (first.has(rank)) known.seenAt = performance.now();
      if (known.seenAt < performance.now() - RANK_IN_USE_MS) ranks.delete(rank);
      else known.floor = Math.max(known.floor, (first.get(rank) ?? peek.databaseTime) - LATE_COMMIT_MS);
    }
    return firstOf(peek.seen, peek.claimed, peek.isWhole);
  }

  /** Lowers a floor for deliveries that lie at this position or later. */
  lower(queueId: number, position: IndexPosition): void {
    const queue = this.queues.get(queueId);
    const readAhead = this.readAheads.get(queueId);
    if (isBefore(position, readAhead?.positions.at(-1))) {
      this.forgetReadAhead(queueId);
      if (queue !== undefined && readAhead?.isUsed === false)
        queue.noReadAheadUntil = performance.now() + NO_READ_AHEAD_MS;
    }
    if (queue === undefined) return;
    const { ranks } = queue;
    const { priorityRank, availableAt } = position;
    // One less: the optimizers turn a range from now to now into an equality and change the plan.
    const floor = Math.min(ranks.get(priorityRank)?.floor ?? Infinity, availableAt - 1);
    this.moment += 1;
    if (queue.lowest === undefined || isBefore(position, queue.lowest)) queue.lowest = position;
    ranks.set(priorityRank, { floor, seenAt: performance.now(), loweredAt: this.moment });
  }

  /**
   * Returns the next `count` positions of a queue's read-ahead and removes them. Returns undefined
   * if the read-ahead is too old or holds fewer. Peers may have leased these deliveries since.
   */
  useReadAhead(queueId: number, count: number): ClaimPositions | undefined {
    const readAhead = this.readAheads.get(queueId);
    if (readAhead === undefined) return undefined;
    if (readAhead.positions.length < count || performance.now() > readAhead.until) {
      this.forgetReadAhead(queueId);
      return undefined;
    }
    this.readAheads.set(queueId, { ...readAhead, positions: readAhead.positions.slice(count), isUsed: true });
    return firstOf(readAhead.positions, count, readAhead.isWhole);
  }

  /**
   * Discards a queue's read-ahead, so the next claim peeks. Callers do so if peers claim from the
   * queue, or if a delivery became ready that may be more urgent.
   */
  forgetReadAhead(queueId: number): void {
    this.readAheads.delete(queueId);
  }

  /**
   * Keeps the read-ahead of a peek, unless a delivery arrived before its end that the peek may not
   * have seen. Keeps none for an unknown queue, whose arrivals nobody recorded.
   */
  private keepReadAhead(queueId: number, { seen, claimed, isWhole }: FinishedPeek): void {
    this.forgetReadAhead(queueId);
    const queue = this.queues.get(queueId);
    if (queue === undefined || seen.length <= claimed) return;
    if (queue.lowest !== undefined && isBefore(queue.lowest, seen.at(-1))) return;
    if (this.readAheads.size >= READ_AHEADS_REMEMBERED) this.readAheads.clear();
    this.readAheads.set(queueId, {
      positions: seen.slice(claimed),
      isWhole,
      until: performance.now() + READ_AHEAD_MS,
      isUsed: false,
    });
  }

  /**
   * Whether a rescan of this queue may start now. A broker runs one rescan at a time. An apparently
   * empty queue need not wait for {@link RESCAN_EVERY_MS}.
   */
  isRescanDue(queueId: number, isEmpty: boolean): boolean {
    const queue = this.queues.get(queueId);
    const now = performance.now();
    if (queue === undefined || this.isRescanning || now < this.nextRescanAt) return false;
    return isEmpty || now >= queue.rescannedAt + RESCAN_EVERY_MS;
  }

  /** Runs a rescan and records its cost. */
  async rescan<T>(queueId: number, work: () => Promise<T>): Promise<T> {
    this.isRescanning = true;
    const started = performance.now();
    try {
      return await work();
    } finally {
      const ended = performance.now();
      this.remember(queueId).rescannedAt = ended;
      this.nextRescanAt = ended + (ended - started) * RESCAN_PAUSE_FACTOR;
      this.isRescanning = false;
    }
  }

  private remember(queueId: number): QueueFloors {
    const known = this.queues.get(queueId);
    if (known !== undefined) return known;
    if (this.queues.size >= QUEUES_REMEMBERED) {
      this.queues.clear();
      this.readAheads.clear();
    }
    // Without ranks, the queue's first peek reads everything.
    const queue = {
      ranks: new Map(),
      rescannedAt: performance.now(),
      lowest: undefined,
      isDeep: false,
      noReadAheadUntil: 0,
    };
    this.queues.set(queueId, queue);
    return queue;
  }
}

/** Whether a position comes before another in hand-out order. */
function isBefore(position: IndexPosition, other: IndexPosition | undefined): boolean {
  if (other === undefined) return false;
  return (
    position.priorityRank < other.priorityRank ||
    (position.priorityRank === other.priorityRank && position.availableAt < other.availableAt)
  );
}

function firstOf(positions: readonly IndexPosition[], count: number, isWhole: boolean): ClaimPositions {
  const [first, others] = [positions.slice(0, count), positions.slice(count)];
  const last = first.at(-1);
  const ties = others.findIndex((position) => isBefore(last as IndexPosition, position));
  if (ties >= 0) return { positions: first, ties };
  return { positions: first, ties: isWhole ? others.length : undefined };
}
