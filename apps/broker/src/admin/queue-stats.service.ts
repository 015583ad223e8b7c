import { Injectable } from '@nestjs/common';
import type { QueueStats } from '@rowmq/contract';
import { BrowseRepository, type Queue, QueueRepository } from '@rowmq/store';

/** A count is used again for ten times what it cost, so that counting takes at most a tenth of the time however often it is asked for. */
const REUSE_FACTOR = 10;

/** Counts deliveries by state. Small queues are counted whenever asked; a queue of millions, which takes a second, at most every ten. */
@Injectable()
export class QueueStatsService {
  private readonly counted = new Map<number, { stats: Promise<QueueStats>; until: number }>();

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
  async all(): Promise<{ name: string; queue: Queue; stats: QueueStats }[]> {
    const result: { name: string; queue: Queue; stats: QueueStats }[] = [];
    const queues = await this.queues.list();
    for (const queue of queues) result.push({ name: queue.name, queue, stats: await this.of(queue) });
    const existing = new Set(queues.map(({ id }) => id));
    for (const id of this.counted.keys()) if (!existing.has(id)) this.counted.delete(id);
    return result;
  }
}
