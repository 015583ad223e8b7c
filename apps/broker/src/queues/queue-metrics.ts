import { Inject, Injectable } from '@nestjs/common';
import { type DeliveryStats, MinuteRepository, type Queue, QueueRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { KnownConsumers } from '../messages/known-consumers.js';
import { DatabaseMetrics } from '../metrics/database-metrics.js';
import { Metrics } from '../metrics/metrics.js';
import { OTHERS } from '../metrics/shown-queues.js';
import { QueueStatsService } from './queue-stats.service.js';

type LastHour = Awaited<ReturnType<MinuteRepository['lastHour']>> extends Map<number, infer Events> ? Events : never;

/** The figures of a queue, or of several together. */
interface Sample {
  label: string;
  queues: readonly Queue[];
  stats: readonly DeliveryStats[];
  lastHour: readonly LastHour[];
}

/** Gauges of what is in each queue, and the end of a deleted queue's counters. */
@Injectable()
export class QueueMetrics {
  private isForgetting = false;

  constructor(
    shared: DatabaseMetrics,
    private readonly metrics: Metrics,
    private readonly queues: QueueRepository,
    private readonly counts: QueueStatsService,
    private readonly minutes: MinuteRepository,
    consumers: KnownConsumers,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'metricsQueues'>,
  ) {
    metrics.beforeReport(() => void this.forgetDeleted());
    metrics.gaugeBy(
      'rowmq_queue_consumers',
      'Consumers of the queue that used this broker within a minute',
      'queue',
      () => this.mostOf(consumers.counts()),
    );
    const deliveries = shared.gauge('rowmq_queue_deliveries', 'Deliveries by state', ['queue', 'state']);
    const oldestReady = shared.gauge(
      'rowmq_queue_oldest_ready_age_seconds',
      'How long the oldest ready delivery has been ready',
      ['queue'],
    );
    const oldestLease = shared.gauge(
      'rowmq_queue_oldest_lease_age_seconds',
      'How long the oldest lease has been held, extensions included',
      ['queue'],
    );
    const paused = shared.gauge('rowmq_queue_paused', 'Whether the queue is paused for consumers: 1 while it is', [
      'queue',
    ]);
    const producersPaused = shared.gauge(
      'rowmq_queue_producers_paused',
      'Whether the queue is paused for producers: 1 while it is',
      ['queue'],
    );
    const expired = shared.gauge(
      'rowmq_queue_expired_last_hour',
      'Messages that expired in the last hour, by claims and by reapers',
      ['queue'],
    );
    const deadLettered = shared.gauge(
      'rowmq_queue_dead_lettered_last_hour',
      'Messages that left for the dead-letter queue in the last hour, by claims, nacks and reapers',
      ['queue'],
    );
    shared.register(async () => {
      const samples = await this.sample();
      return () => {
        for (const { label: queue, queues: settings, stats, lastHour } of samples) {
          for (const state of ['ready', 'delayed', 'leased', 'waiting'] as const)
            deliveries.set({ queue, state }, sum(stats.map((one) => one[state])));
          oldestReady.set({ queue }, Math.max(...stats.map((one) => one.oldestReadyAgeSeconds ?? 0)));
          oldestLease.set({ queue }, Math.max(...stats.map((one) => one.oldestLeaseAgeSeconds ?? 0)));
          paused.set({ queue }, Number(settings.some((one) => one.paused)));
          producersPaused.set({ queue }, Number(settings.some((one) => one.producersPaused)));
          expired.set({ queue }, sum(lastHour.map((one) => one.expired)));
          deadLettered.set({ queue }, sum(lastHour.map((one) => one.deadLettered)));
        }
      };
    });
  }

  /** A sample for each of the busiest queues, and one for all others together. */
  private async sample(): Promise<Sample[]> {
    const counted = await this.counts.sample();
    const lastHour = await this.minutes.lastHour();
    const all = counted.map(({ queue, stats }) => {
      const events = lastHour.get(queue.id);
      return { queue, stats, events, activity: events === undefined ? 0 : sum(Object.values(events)) };
    });
    const ranked =
      all.length > this.config.metricsQueues ? all.toSorted((one, other) => other.activity - one.activity) : all;
    const shown = ranked.slice(0, this.config.metricsQueues).map((one) => ({ label: one.queue.name, of: [one] }));
    const others = ranked.slice(this.config.metricsQueues);
    if (others.length > 0) shown.push({ label: OTHERS, of: others });
    return shown.map(({ label, of }) => ({
      label,
      queues: of.map(({ queue }) => queue),
      stats: of.map(({ stats }) => stats),
      lastHour: of.flatMap(({ events }) => events ?? []),
    }));
  }

  /** The largest numbers by name, and the sum of the others. */
  private mostOf(numbers: ReadonlyMap<string, number>): [string, number][] {
    const most = this.config.metricsQueues;
    if (numbers.size <= most) return [...numbers];
    const ranked = [...numbers].toSorted(([, one], [, other]) => other - one);
    return [...ranked.slice(0, most), [OTHERS, sum(ranked.slice(most).map(([, number]) => number))]];
  }

  /**
   * Another broker or worker may have deleted queues, or a request that was in flight has counted
   * one again. The next report lacks them. Never rejects.
   */
  private async forgetDeleted(): Promise<void> {
    if (this.isForgetting) return;
    this.isForgetting = true;
    try {
      const counted = this.metrics.countedQueues;
      const existing = new Set((await this.queues.names()).values());
      for (const queue of counted) if (!existing.has(queue)) this.metrics.forget(queue);
    } catch {
      // Without the database, nobody knows. The next report tries again.
    } finally {
      this.isForgetting = false;
    }
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, number) => all + number, 0);
}
