import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable, Logger } from '@nestjs/common';
import { LIMITS, type PurgeAnswer, type PutQueueRequest, type QueueAnswer, type RedriveAnswer } from '@rowmq/contract';
import { FIRST_ID, type Queue, QueueRepository, UnleasedRepository } from '@rowmq/store';
import { formatTime } from '../messages/message.codec.js';
import { WaitingConsumers } from '../messages/waiting-consumers.js';
import { Metrics } from '../metrics/metrics.js';
import { QueueStatsService } from './queue-stats.service.js';

/** Deliveries that one transaction removes or moves. */
const BATCH = 500;
/**
 * A call for a whole queue answers after this long, with its counts so far and `complete: false`.
 */
const CALL_MS = LIMITS.sweepSeconds * 1000;
/** The pause after a pass that removed nothing: others hold the deliveries that are left. */
const PAUSE_MS = 50;

/** Creates, changes, empties and deletes queues. */
@Injectable()
export class QueuesService {
  private readonly logger = new Logger(QueuesService.name);

  constructor(
    private readonly queues: QueueRepository,
    private readonly unleased: UnleasedRepository,
    private readonly stats: QueueStatsService,
    private readonly consumers: WaitingConsumers,
    private readonly metrics: Metrics,
  ) {}

  /** Throws `invalid-request` if the dead-letter queue does not exist. */
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

  /**
   * Deletes a queue and its deliveries. The reaper removes deliveries for which one call has no
   * time. Throws `queue-not-found`, `invalid-request`.
   */
  async delete(name: string): Promise<void> {
    const id = await this.queues.delete(name);
    this.metrics.forget(name);
    try {
      const { complete } = await this.removeDeliveries(id);
      if (complete) await this.queues.forget(id);
    } catch (error) {
      // The queue is gone. After a failure, the client would delete it again and not find it.
      this.logger.warn(`left the deliveries of the deleted queue '${name}' to the reaper: ${String(error)}`);
    }
  }

  /**
   * Removes every delivery that is in the queue now, leased ones included. Throws
   * `queue-not-found`.
   */
  async purge(name: string): Promise<PurgeAnswer> {
    const queue = await this.queues.getFresh(name);
    const answer = await this.removeDeliveries(queue.id);
    this.metrics.count('purged', name, answer.purged);
    return answer;
  }

  /** Throws `queue-not-found`. */
  async setPaused(name: string, paused: boolean): Promise<{ name: string; paused: boolean }> {
    await this.queues.setPaused(name, paused);
    if (!paused) this.consumers.resumed(name);
    return { name, paused };
  }

  /**
   * Moves a dead-letter queue's deliveries back to their original queues. Throws `queue-not-found`.
   */
  async redrive(name: string, maxMessages = Number.POSITIVE_INFINITY): Promise<RedriveAnswer> {
    const queue = await this.queues.getFresh(name);
    const until = performance.now() + CALL_MS;
    const names = await this.queues.names();
    let [redriven, skipped, left] = [0, 0, 0];
    let after: Buffer | null = FIRST_ID;
    while (after !== null && redriven < maxMessages && performance.now() < until) {
      const batch = await this.unleased.redrive(queue.id, after, BATCH, maxMessages - redriven);
      for (const [target, count] of batch.moved) {
        redriven += count;
        const targetName = names.get(target);
        if (targetName !== undefined) this.consumers.wake(targetName, count);
      }
      skipped += batch.skipped;
      left += batch.left;
      after = batch.next;
    }
    this.metrics.count('redriven', name, redriven);
    return { redriven, skipped, complete: after === null && left === 0 };
  }

  /**
   * Passes over the queue until nothing is left that was there at the start. A pass skips
   * deliveries that others hold; the next one removes them.
   */
  private async removeDeliveries(queueId: number): Promise<PurgeAnswer> {
    const until = performance.now() + CALL_MS;
    const last = await this.unleased.lastId(queueId);
    let purged = 0;
    for (let left = last === null ? 0 : 1; last !== null && left > 0;) {
      left = 0;
      const before = purged;
      for (let after: Buffer | null = FIRST_ID; after !== null;) {
        if (performance.now() > until) return { purged, complete: false };
        const batch: Awaited<ReturnType<UnleasedRepository['purge']>> = await this.unleased.purge(
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

function toAnswer(
  queue: Queue,
  names: Map<number, string>,
  { ready, delayed, leased, oldestReadyAgeSeconds }: QueueAnswer['stats'],
): QueueAnswer {
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
    stats: { ready, delayed, leased, oldestReadyAgeSeconds },
  };
}
