import { Injectable } from '@nestjs/common';
import type { QueueStats } from '@rowmq/contract';
import { BrowseRepository, type Queue, QueueRepository } from '@rowmq/store';

/** What was counted is used again for ten times what counting it cost: of one queue, and, where anybody may ask, of all together. */
const REUSE_FACTOR = 10;

/** A queue and what is in it. */
interface CountedQueue {
  name: string;
  queue: Queue;
  stats: QueueStats;
}

/** Counts deliveries by state. Small queues are counted whenever asked; a queue of millions, which takes a second, at most every ten. */
@Injectable()
export class QueueStatsService {
  private readonly counted = new Map<number, { stats: Promise<QueueStats>; until: number }>();
  private lastSample: Promise<unknown> = Promise.resolve();
  private restsUntil = 0;

  constructor(
    private readonly browse: BrowseRepository,
    private readonly queues: QueueRepository,
  ) {}

  /** One queue's. */
  async of(queue: Queue): Promise<QueueStats> {
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

  /** Every queue's, counted one after the other. */
  async all(): Promise<CountedQueue[]> {
    return this.forEach(async (queue) => this.of(queue));
  }

  /** Every queue that there is now, with counts that may be older: however many ask however often, counting takes at most a tenth of the time. */
  async sample(): Promise<CountedQueue[]> {
    // One at a time, so that those behind find counted what the first counts.
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

  private async forEach(count: (queue: Queue) => Promise<QueueStats>): Promise<CountedQueue[]> {
    const result: CountedQueue[] = [];
    const queues = await this.queues.list();
    for (const queue of queues) result.push({ name: queue.name, queue, stats: await count(queue) });
    const existing = new Set(queues.map(({ id }) => id));
    for (const id of this.counted.keys()) if (!existing.has(id)) this.counted.delete(id);
    return result;
  }
}
