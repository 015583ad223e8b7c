import { LIMITS } from '@rowmq/contract';

/** For each priority rank that is in use, the `available_at` at which a claim begins to look. */
export type Floors = ReadonlyMap<number, number>;

interface RankFloor {
  floor: number;
  /** When something of this rank was last seen, by `performance.now()`. */
  seenAt: number;
  /** The moment at which it was lowered last. */
  loweredAt: number;
}

interface QueueFloors {
  ranks: Map<number, RankFloor>;
  rescannedAt: number;
  /** The first of the positions that were lowered to since the last look began. */
  lowest: IndexPosition | undefined;
  /** The last look saw much more than was claimed. */
  isDeep: boolean;
  /**
   * Until then it is not looked further than is claimed: what was seen was forgotten before anybody
   * took it.
   */
  noReadAheadUntil: number;
}

/** Where deliveries stand that a claim is made for, in hand-out order. */
export interface ClaimPositions {
  positions: readonly IndexPosition[];
  /** How many more stand at the same position as the last. Undefined: more than are known. */
  ties: number | undefined;
}

/** What the last look at a queue saw and no claim has taken yet. */
interface ReadAhead {
  /** In hand-out order. */
  positions: readonly IndexPosition[];
  /** There was no more. */
  isWhole: boolean;
  /** By `performance.now()`. */
  until: number;
  /** A claim went by it. */
  isUsed: boolean;
}

/** Where a delivery stands in its queue. */
export interface IndexPosition {
  priorityRank: number;
  availableAt: number;
}

/** What a look without locks saw of a queue. */
export interface FinishedPeek {
  /** By {@link ScanFloors.now}. */
  begunAt: number;
  /** The database's time before it. */
  databaseTime: number;
  /** In hand-out order. */
  seen: readonly IndexPosition[];
  /** It saw all there is; otherwise nothing behind the last rank. */
  isWhole: boolean;
  /** So many of the first are claimed now. */
  taken: number;
}

/**
 * How far a floor stays behind what was seen, in ms. Enqueues that run at the same time commit in
 * another order than they read the clock: without this, those that commit late would be found by
 * the rescan only.
 */
const LATE_COMMIT_MS = 100;
/**
 * A rescan waits for this many times what the last one took, of whatever queue: together they take
 * at most a twentieth of a broker's time.
 */
const RESCAN_PAUSE_FACTOR = 20;
/** And, while a queue has messages to hand out, for this long. */
const RESCAN_EVERY_MS = 250;
/** A rank of which nothing was seen for so long is no longer in use. */
const RANK_IN_USE_MS = 60_000;
const QUEUES_REMEMBERED = 10_000;
/**
 * How long claims go by what a look saw. What is more urgent and was enqueued by other brokers, or
 * comes back when a lease or a delay ends, waits for that long.
 */
const READ_AHEAD_MS = 100;
/**
 * A queue is deep when a look sees so many times what is claimed: only then is it worth its while
 * to look further than that.
 */
const DEEP_FACTOR = 4;
/**
 * Where messages of several priorities keep coming, what was seen is forgotten at once, and to look
 * for it again is in vain for a while.
 */
const IN_VAIN_MS = 1000;
/** For so many queues, some tens of kilobytes each. */
const READ_AHEADS_REMEMBERED = 1000;

/**
 * Where claims begin to look.
 *
 * InnoDB keeps the index entries of leased and deleted deliveries until purge may remove them, and
 * one long transaction (a backup) stops purge. A claim from the left edge would walk over all of
 * them: after 40,000 claimed deliveries for 10 ms, and longer for ever. So a claim begins where the
 * last one of its queue and priority saw its first delivery, and peeks only at priorities that are
 * in use: each range costs, and on MariaDB a range with nothing in it walks on through the dead
 * entries behind it.
 *
 * A delivery can still appear below: its enqueue committed late, or a claim that held it rolled
 * back; or in a priority that was not in use. So a rescan of all that runs regularly, and before a
 * queue is called empty, as often as its cost allows: what stands there is late by that, never
 * lost.
 *
 * What a look saw beyond what its claim takes, the claims of the next moment go by, without a look
 * of their own: unless something came before it.
 */
export class ScanFloors {
  private readonly queues = new Map<number, QueueFloors>();
  private readonly readAheads = new Map<number, ReadAhead>();
  private moment = 0;
  private isRescanning = false;
  private nextRescanAt = 0;

  /** This moment, for {@link endPeek}. */
  now(): number {
    return this.moment;
  }

  /** Undefined: everything has to be looked at. */
  of(queueId: number): Floors | undefined {
    const queue = this.queues.get(queueId);
    return queue && new Map([...queue.ranks].map(([rank, { floor }]) => [rank, floor]));
  }

  /**
   * Where a look that is to be ended with {@link endPeek} begins, and whether it may expect to see
   * much.
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
   * After a look from these floors on: raises them to the first delivery that it saw of each rank,
   * and keeps what it saw beyond what is claimed now, which it returns. What was lowered since the
   * look began stays: the look may not have seen why.
   */
  endPeek(queueId: number, look: FinishedPeek): ClaimPositions {
    this.keepReadAhead(queueId, look);
    const isFirst = !this.queues.has(queueId);
    const queue = this.remember(queueId);
    const { ranks } = queue;
    queue.isDeep = !look.isWhole || look.seen.length >= look.taken * DEEP_FACTOR;
    const first = new Map(look.seen.toReversed().map(({ priorityRank, availableAt }) => [priorityRank, availableAt]));
    for (const rank of first.keys()) if (!ranks.has(rank)) ranks.set(rank, { floor: 0, seenAt: 0, loweredAt: 0 });
    const last = look.isWhole ? Infinity : (look.seen.at(-1)?.priorityRank ?? Infinity);
    // What lies behind the end of a queue's first look, nobody has looked at.
    for (let rank = last + 1; isFirst && rank <= LIMITS.priorityMax; rank += 1) {
      ranks.set(rank, { floor: 0, seenAt: -Infinity, loweredAt: 0 });
    }
    for (const [rank, known] of ranks) {
      if (rank > last || known.loweredAt > look.begunAt) continue;
      if (first.has(rank)) known.seenAt = performance.now();
      if (known.seenAt < performance.now() - RANK_IN_USE_MS) ranks.delete(rank);
      else known.floor = Math.max(known.floor, (first.get(rank) ?? look.databaseTime) - LATE_COMMIT_MS);
    }
    return firstOf(look.seen, look.taken, look.isWhole);
  }

  /** Deliveries stand there, or later. */
  lower(queueId: number, position: IndexPosition): void {
    const queue = this.queues.get(queueId);
    const readAhead = this.readAheads.get(queueId);
    if (isBefore(position, readAhead?.positions.at(-1))) {
      this.forgetReadAhead(queueId);
      if (queue !== undefined && readAhead?.isUsed === false) queue.noReadAheadUntil = performance.now() + IN_VAIN_MS;
    }
    if (queue === undefined) return;
    const { ranks } = queue;
    const { priorityRank, availableAt } = position;
    // Before it: a range from now to now would be made an equality, and the plan be another.
    const floor = Math.min(ranks.get(priorityRank)?.floor ?? Infinity, availableAt - 1);
    this.moment += 1;
    if (queue.lowest === undefined || isBefore(position, queue.lowest)) queue.lowest = position;
    ranks.set(priorityRank, { floor, seenAt: performance.now(), loweredAt: this.moment });
  }

  /**
   * The next so many of what the last look saw, if it saw as many and not long ago. Others may have
   * taken them since.
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
   * The next claim peeks: others claim there too, or something came back that may be more urgent.
   */
  forgetReadAhead(queueId: number): void {
    this.readAheads.delete(queueId);
  }

  /** Unless something came before it that the look may not have seen, or nobody noted whether. */
  private keepReadAhead(queueId: number, { seen, taken, isWhole }: FinishedPeek): void {
    this.forgetReadAhead(queueId);
    const queue = this.queues.get(queueId);
    if (queue === undefined || seen.length <= taken) return;
    if (queue.lowest !== undefined && isBefore(queue.lowest, seen.at(-1))) return;
    if (this.readAheads.size >= READ_AHEADS_REMEMBERED) this.readAheads.clear();
    this.readAheads.set(queueId, {
      positions: seen.slice(taken),
      isWhole,
      until: performance.now() + READ_AHEAD_MS,
      isUsed: false,
    });
  }

  /**
   * Whether a rescan of this queue has its turn: one of a broker at a time; at the latest before
   * the queue is called empty.
   */
  isRescanDue(queueId: number, isEmpty: boolean): boolean {
    const queue = this.queues.get(queueId);
    const now = performance.now();
    if (queue === undefined || this.isRescanning || now < this.nextRescanAt) return false;
    return isEmpty || now >= queue.rescannedAt + RESCAN_EVERY_MS;
  }

  /** Runs a rescan and notes what it cost. */
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
    // Its first look begins with everything.
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

/** In hand-out order. */
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
