import { Injectable } from '@nestjs/common';
import { BrowseRepository, type DeliveryStats, type Queue, QueueRepository } from '@rowmq/store';

/**
 * A count is reused for ten times as long as it took. This holds for one queue, and for a scrape of
 * all.
 */
const REUSE_FACTOR = 10;

/** A queue and its counts. */
interface CountedQueue {
  name: string;
  queue: Queue;
  stats: DeliveryStats;
}

/**
 * Counts deliveries by state. Small queues are counted at every request. A queue of millions, which
 * takes a second, is counted at most every ten seconds.
 */
@Injectable()
export class QueueStatsService {
  private readonly counted = new Map<number, { stats: Promise<DeliveryStats>; until: number }>();
  private lastSample: Promise<unknown> = Promise.resolve();
  private restsUntil = 0;

  constructor(
    private readonly browse: BrowseRepository,
    private readonly queues: QueueRepository,
  ) {}

  /** The counts of one queue. */
  async of(queue: Queue): Promise<DeliveryStats> {
    const known = this.counted.get(queue.id);
    if (known !== undefined && known.until > performance.now()) return known.stats;
    const started = performance.now();
    const entry = { stats: this.browse.stats(queue.id), until: Number.POSITIVE_INFINITY };
    this.counted.set(queue.id, entry);
    try {
      const stats = await entry.stats;
      const now = performance.now();
      entry.until = now + (now - started) * REUSE_FACTOR;
      return stats;
    } catch (error) {
      this.counted.delete(queue.id);
      throw error;
    }
  }

  /** The counts of every queue, one after the other. */
  async all(): Promise<CountedQueue[]> {
    return this.forEach(async (queue) => this.of(queue));
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
    if (started < this.restsUntil)
      return this.forEach(async (queue) => this.counted.get(queue.id)?.stats ?? this.of(queue));
    try {
      return await this.all();
    } finally {
      const now = performance.now();
      this.restsUntil = now + (now - started) * REUSE_FACTOR;
    }
  }

  private async forEach(count: (queue: Queue) => Promise<DeliveryStats>): Promise<CountedQueue[]> {
    const result: CountedQueue[] = [];
    const queues = await this.queues.list();
    for (const queue of queues) result.push({ name: queue.name, queue, stats: await count(queue) });
    const existing = new Set(queues.map(({ id }) => id));
    for (const id of this.counted.keys()) if (!existing.has(id)) this.counted.delete(id);
    return result;
  }
}
