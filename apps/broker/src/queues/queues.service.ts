import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable, Logger } from '@nestjs/common';
import { LIMITS, type PurgeAnswer, type PutQueueRequest, type QueueAnswer, type RedriveAnswer } from '@rowmq/contract';
import { FIRST_ID, type Queue, QueueRepository, SweepRepository } from '@rowmq/store';
import { CombinedDemand } from '../messages/combined-demand.js';
import { formatTime } from '../messages/message.codec.js';
import { Metrics } from '../metrics/metrics.js';
import { QueueStatsService } from './queue-stats.service.js';

/** Deliveries touched in one transaction. */
const BATCH = 500;
/** A call that touches a whole queue answers after this long, with what it has done and that more is left. */
const CALL_MS = LIMITS.sweepSeconds * 1000;
/** After a pass that removed nothing: what is left, others hold. */
const PAUSE_MS = 50;

/** Creating, changing, emptying and deleting queues. */
@Injectable()
export class QueuesService {
  private readonly logger = new Logger(QueuesService.name);

  constructor(
    private readonly queues: QueueRepository,
    private readonly sweep: SweepRepository,
    private readonly stats: QueueStatsService,
    private readonly demand: CombinedDemand,
    private readonly metrics: Metrics,
  ) {}

  /** Throws `invalid-request` for a dead-letter queue that does not exist. */
  async put(name: string, settings: PutQueueRequest): Promise<{ created: boolean; answer: QueueAnswer }> {
    const { queue, created } = await this.queues.put(name, settings);
    return { created, answer: await this.answer(queue) };
  }

  /** Throws `queue-not-found`. */
  async get(name: string): Promise<QueueAnswer> {
    return this.answer(await this.queues.getFresh(name));
  }

  async list(): Promise<QueueAnswer[]> {
    const names = await this.queues.names();
    return (await this.stats.all()).map(({ queue, stats }) => toAnswer(queue, names, stats));
  }

  /** Deletes a queue and what is in it; what does not go in one call's time, the reaper removes. Throws `queue-not-found`, `invalid-request`. */
  async delete(name: string): Promise<void> {
    const id = await this.queues.delete(name);
    this.metrics.forget(name);
    try {
      const { complete } = await this.removeDeliveries(id);
      if (complete) await this.queues.forget(id);
    } catch (error) {
      // The queue is gone: to answer with a failure would be to have it deleted again, and not found.
      this.logger.warn(`left what was in the deleted queue '${name}' to the reaper: ${String(error)}`);
    }
  }

  /** Drops every delivery that is in the queue now, leased ones included. Throws `queue-not-found`. */
  async purge(name: string): Promise<PurgeAnswer> {
    const queue = await this.queues.getFresh(name);
    const answer = await this.removeDeliveries(queue.id);
    this.metrics.count('purged', name, answer.purged);
    return answer;
  }

  /** Throws `queue-not-found`. */
  async setPaused(name: string, paused: boolean): Promise<{ name: string; paused: boolean }> {
    await this.queues.setPaused(name, paused);
    if (!paused) this.demand.wake(name);
    return { name, paused };
  }

  /** Moves a dead-letter queue's deliveries back to where they were enqueued. Throws `queue-not-found`. */
  async redrive(name: string, maxMessages = Number.POSITIVE_INFINITY): Promise<RedriveAnswer> {
    const queue = await this.queues.getFresh(name);
    const until = performance.now() + CALL_MS;
    const names = await this.queues.names();
    let [redriven, skipped, left] = [0, 0, 0];
    let after: Buffer | null = FIRST_ID;
    while (after !== null && redriven < maxMessages && performance.now() < until) {
      const batch = await this.sweep.redrive(queue.id, after, Math.min(BATCH, maxMessages - redriven));
      for (const [target, count] of batch.moved) {
        redriven += count;
        const targetName = names.get(target);
        if (targetName !== undefined) this.demand.wake(targetName);
      }
      skipped += batch.skipped;
      left += batch.left;
      after = batch.next;
    }
    this.metrics.count('redriven', name, redriven);
    return { redriven, skipped, complete: after === null && left === 0 };
  }

  /** Goes through the queue until nothing is left of what was there at the start: what others hold in one pass is taken in the next. */
  private async removeDeliveries(queueId: number): Promise<PurgeAnswer> {
    const until = performance.now() + CALL_MS;
    const last = await this.sweep.lastId(queueId);
    let purged = 0;
    for (let left = last === null ? 0 : 1; last !== null && left > 0;) {
      left = 0;
      const before = purged;
      for (let after: Buffer | null = FIRST_ID; after !== null;) {
        if (performance.now() > until) return { purged, complete: false };
        const batch: Awaited<ReturnType<SweepRepository['purge']>> = await this.sweep.purge(
          queueId,
          after,
          last,
          BATCH,
        );
        purged += batch.purged;
        left += batch.left;
        after = batch.next;
      }
      if (left > 0 && purged === before) await sleep(PAUSE_MS);
    }
    return { purged, complete: true };
  }

  private async answer(queue: Queue): Promise<QueueAnswer> {
    return toAnswer(queue, await this.queues.names(), await this.stats.of(queue));
  }
}

function toAnswer(queue: Queue, names: Map<number, string>, stats: QueueAnswer['stats']): QueueAnswer {
  return {
    name: queue.name,
    leaseSeconds: queue.leaseSeconds,
    messageTtlSeconds: queue.messageTtlSeconds,
    delaySeconds: queue.delaySeconds,
    maxReceives: queue.maxReceives,
    deadLetterQueue: queue.deadLetterQueueId === null ? null : (names.get(queue.deadLetterQueueId) ?? null),
    maxDepth: queue.maxDepth,
    paused: queue.paused,
    createdAt: formatTime(queue.createdAt),
    stats,
  };
}
