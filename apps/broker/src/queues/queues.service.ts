import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable, Logger } from '@nestjs/common';
import { LIMITS, type PauseAnswer, type PauseSide, type PutQueueRequest, type QueueAnswer } from '@rowmq/contract';
import { FIRST_ID, type Queue, QueueRepository, UnleasedRepository } from '@rowmq/store';
import type { Caller } from '../http/caller.js';
import { formatTime } from '../messages/message.codec.js';
import { WaitingConsumers } from '../messages/waiting-consumers.js';
import { Metrics } from '../metrics/metrics.js';
import { QueueStatsService } from './queue-stats.service.js';

/** Deliveries that one transaction removes. */
const BATCH = 500;
/** A delete answers after this long, and leaves the rest to the reaper. */
const CALL_MS = LIMITS.sweepSeconds * 1000;
/** The pause after a pass that removed nothing: others hold the deliveries that are left. */
const PAUSE_MS = 50;

type Settings = Omit<QueueAnswer, 'stats' | 'rates'>;

/** Creates, changes and deletes queues. */
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

  /** Creates a queue and changes none. Throws `queue-exists`, `invalid-request`. */
  async create(name: string, settings: PutQueueRequest): Promise<{ created: true; answer: QueueAnswer }> {
    return { created: true, answer: await this.answer(await this.queues.create(name, settings)) };
  }

  /** Throws `queue-not-found`. */
  async get(name: string): Promise<QueueAnswer> {
    return this.answer(await this.queues.getFresh(name));
  }

  /** A queue without its figures, which may take long to count. Throws `queue-not-found`. */
  async settings(name: string): Promise<Settings> {
    return toSettings(await this.queues.getFresh(name), await this.queues.names());
  }

  /** The queues that the caller reaches. */
  async list(caller: Caller): Promise<QueueAnswer[]> {
    const names = await this.queues.names();
    const reached = (await this.stats.all()).filter(({ queue }) => caller.reaches(queue.name));
    return reached.map(({ queue, ...figures }) => toAnswer(queue, names, figures));
  }

  /**
   * Deletes a queue and its deliveries. The reaper removes deliveries for which one call has no
   * time. Throws `queue-not-found`, `invalid-request`, and without `force` `queue-not-empty`.
   */
  async delete(name: string, { force }: { force: boolean }): Promise<void> {
    const id = await this.queues.delete(name, { onlyEmpty: !force });
    this.metrics.forget(name);
    try {
      if (await this.removeDeliveries(id)) await this.queues.forget(id);
    } catch (error) {
      // The queue is gone. After a failure, the client would delete it again and not find it.
      this.logger.warn(`left the deliveries of the deleted queue '${name}' to the reaper: ${String(error)}`);
    }
  }

  /** Throws `queue-not-found`. */
  async setPaused(name: string, side: PauseSide, value: boolean): Promise<PauseAnswer> {
    const { paused, producersPaused } = await this.queues.setPaused(name, {
      ...(side !== 'producers' && { paused: value }),
      ...(side !== 'consumers' && { producersPaused: value }),
    });
    if (side !== 'producers' && !value) this.consumers.resumed(name);
    return { name, paused, producersPaused };
  }

  /**
   * Passes over the queue until nothing is left that was there at the start, or the time is up. A
   * pass skips deliveries that others hold; the next one removes them. Returns whether it removed
   * all.
   */
  private async removeDeliveries(queueId: number): Promise<boolean> {
    const until = performance.now() + CALL_MS;
    const last = await this.unleased.lastId(queueId);
    for (let left = last === null ? 0 : 1; last !== null && left > 0;) {
      left = 0;
      let purged = 0;
      for (let after: Buffer | null = FIRST_ID; after !== null;) {
        if (performance.now() > until) return false;
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
      if (left > 0 && purged === 0) await sleep(PAUSE_MS);
    }
    return true;
  }

  private async answer(queue: Queue): Promise<QueueAnswer> {
    const [names, figures] = await Promise.all([this.queues.names(), this.stats.of(queue)]);
    return toAnswer(queue, names, figures);
  }
}

function toAnswer(
  queue: Queue,
  names: Map<number, string>,
  { stats, rates }: Pick<QueueAnswer, 'stats' | 'rates'>,
): QueueAnswer {
  return { ...toSettings(queue, names), stats, rates };
}

function toSettings(queue: Queue, names: Map<number, string>): Settings {
  return {
    name: queue.name,
    leaseSeconds: queue.leaseSeconds,
    messageTtlSeconds: queue.messageTtlSeconds,
    delaySeconds: queue.delaySeconds,
    maxReceives: queue.maxReceives,
    deadLetterQueue: queue.deadLetterQueueId === null ? null : (names.get(queue.deadLetterQueueId) ?? null),
    deadLetterExpired: queue.deadLetterExpired,
    maxDepth: queue.maxDepth,
    maxMessagesPerSecond: queue.maxMessagesPerSecond,
    maxLongPolls: queue.maxLongPolls,
    deduplicationSeconds: queue.deduplicationSeconds,
    ordering: queue.ordering,
    paused: queue.paused,
    producersPaused: queue.producersPaused,
    createdAt: formatTime(queue.createdAt),
  };
}
