import { Injectable } from '@nestjs/common';
import type { QueueAnswer } from '@rowmq/contract';
import {
  BrowseRepository,
  type DeliveryStats,
  MinuteRepository,
  noRates,
  type Queue,
  QueueRepository,
} from '@rowmq/store';

/**
 * A count is reused for ten times as long as it took. This holds for one queue, and for a scrape of
 * all.
 */
const REUSE_FACTOR = 10;
/** Deliveries whose count takes some milliseconds. */
const SMALL = 10_000;

/** Small queues that one statement counts. */
const TOGETHER = 200;
const EMPTY: DeliveryStats = {
  ready: 0,
  delayed: 0,
  leased: 0,
  waiting: 0,
  oldestReadyAgeSeconds: null,
  oldestLeaseAgeSeconds: null,
  deliveries: 0,
};

/** A queue and its counts. */
interface CountedQueue {
  queue: Queue;
  stats: DeliveryStats;
}

/** The figures of a queue in the answers of the API. */
type Figures = Pick<QueueAnswer, 'stats' | 'rates'>;

interface Count {
  stats: DeliveryStats;
  /** By `performance.now()`. The counts are of a moment after it. */
  begunAt: number;
  tookMs: number;
}

/**
 * Counts deliveries by state. Small queues are counted at every request. A deep queue is counted in
 * the background, for at most a tenth of the time, and a call gets the last counts and their age.
 * Only a call that does not know yet that the queue is deep waits.
 */
@Injectable()
export class QueueStatsService {
  private readonly counted = new Map<number, Count>();
  private readonly running = new Map<number, Promise<Count>>();
  private lastSample: Promise<unknown> = Promise.resolve();
  private lastRefresh: Promise<unknown> = Promise.resolve();
  private readonly refreshing = new Set<number>();
  private restsUntil = 0;

  constructor(
    private readonly browse: BrowseRepository,
    private readonly queues: QueueRepository,
    private readonly minutes: MinuteRepository,
  ) {}

  /** The counts and rates of one queue. */
  async of(queue: Queue): Promise<Figures> {
    const [stats, rates] = await Promise.all([this.answer(queue), this.minutes.rates(queue.id)]);
    return { stats, rates: rates.get(queue.id) ?? noRates() };
  }

  /** The counts and rates of every queue. */
  async all(): Promise<(Figures & { queue: Queue })[]> {
    const rates = await this.minutes.rates();
    return this.forEach(async (queue) => ({
      queue,
      stats: await this.answer(queue),
      rates: rates.get(queue.id) ?? noRates(),
    }));
  }

  /**
   * The counts of every queue for an overview, and how old each is. Small queues share statements.
   * Deep ones are counted in the background, as {@link of} does it.
   */
  async overview(): Promise<(CountedQueue & { ageMs: number })[]> {
    const queues = await this.queues.list();
    this.forgetAllBut(queues);
    const isDeep = ({ id }: Queue): boolean => (this.counted.get(id)?.stats.deliveries ?? 0) > SMALL;
    const small = queues.filter((queue) => !isDeep(queue));
    for (let from = 0; from < small.length; from += TOGETHER)
      await this.countTogether(small.slice(from, from + TOGETHER));
    for (const queue of queues) if (isDeep(queue) && isRested(this.counted.get(queue.id) as Count)) this.refresh(queue);
    const now = performance.now();
    return queues.flatMap((queue) => {
      const count = this.counted.get(queue.id);
      return count === undefined ? [] : { queue, stats: count.stats, ageMs: now - count.begunAt };
    });
  }

  /**
   * The counts of every queue that exists now. Counts may be older, so that counting takes at most
   * a tenth of the time, however often it is called.
   */
  async sample(): Promise<CountedQueue[]> {
    // One sample at a time: the others reuse the counts of the first.
    const sample = this.lastSample.then(async () => this.takeSample());
    this.lastSample = sample.catch(() => undefined);
    return sample;
  }

  private async takeSample(): Promise<CountedQueue[]> {
    const started = performance.now();
    const isResting = started < this.restsUntil;
    try {
      return await this.forEach(async (queue) => {
        const last = this.counted.get(queue.id);
        const mayReuse = last !== undefined && (isResting || !isRested(last));
        return { queue, stats: (mayReuse ? last : await this.share(queue)).stats };
      });
    } finally {
      const now = performance.now();
      if (!isResting) this.restsUntil = now + (now - started) * REUSE_FACTOR;
    }
  }

  private async answer(queue: Queue): Promise<QueueAnswer['stats']> {
    const last = this.counted.get(queue.id);
    const isDeep = last !== undefined && last.stats.deliveries > SMALL;
    if (isDeep && isRested(last)) this.refresh(queue);
    const { stats, begunAt } = isDeep ? last : await this.count(queue);
    const { ready, delayed, leased, waiting, oldestReadyAgeSeconds } = stats;
    const ageMs = isDeep ? performance.now() - begunAt : 0;
    return {
      ready,
      delayed,
      leased,
      waiting,
      oldestReadyAgeSeconds,
      ageSeconds: Math.round(ageMs) / 1000,
      errorBound: isDeep ? await this.minutes.changes(queue.id, ageMs) : 0,
    };
  }

  /** Counts in the background, one queue at a time. */
  private refresh(queue: Queue): void {
    if (this.refreshing.has(queue.id)) return;
    this.refreshing.add(queue.id);
    this.lastRefresh = this.lastRefresh
      .then(async () => this.share(queue))
      .catch(() => undefined)
      .finally(() => this.refreshing.delete(queue.id));
  }

  /** A count that is under way, or else a new one. */
  private async share(queue: Queue): Promise<Count> {
    return this.running.get(queue.id) ?? this.count(queue);
  }

  /** Counts from now on. */
  private async count(queue: Queue): Promise<Count> {
    const count = this.begin(queue);
    this.running.set(queue.id, count);
    try {
      return await count;
    } finally {
      if (this.running.get(queue.id) === count) this.running.delete(queue.id);
    }
  }

  private async begin(queue: Queue): Promise<Count> {
    const begunAt = performance.now();
    const stats = await this.browse.stats(queue.id);
    const count = { stats, begunAt, tookMs: performance.now() - begunAt };
    this.counted.set(queue.id, count);
    return count;
  }

  private async forEach<T>(count: (queue: Queue) => Promise<T>): Promise<T[]> {
    const result: T[] = [];
    const queues = await this.queues.list();
    for (const queue of queues) result.push(await count(queue));
    this.forgetAllBut(queues);
    return result;
  }

  private forgetAllBut(queues: readonly Queue[]): void {
    const existing = new Set(queues.map(({ id }) => id));
    for (const id of this.counted.keys()) if (!existing.has(id)) this.counted.delete(id);
  }

  private async countTogether(queues: readonly Queue[]): Promise<void> {
    const begunAt = performance.now();
    const found = await this.browse.statsOfSeveral(queues.map(({ id }) => id));
    const tookMs = (performance.now() - begunAt) / queues.length;
    for (const { id } of queues) this.counted.set(id, { stats: found.get(id) ?? EMPTY, begunAt, tookMs });
  }
}

/** It may be counted again. */
function isRested({ begunAt, tookMs }: Count): boolean {
  return performance.now() >= begunAt + tookMs * (1 + REUSE_FACTOR);
}
