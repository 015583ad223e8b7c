import { Injectable } from '@nestjs/common';
import { QueueRepository } from '@rowmq/store';
import { DatabaseMetrics } from '../metrics/database-metrics.js';
import { Metrics } from '../metrics/metrics.js';
import { QueueStatsService } from './queue-stats.service.js';

/** Gauges of what is in each queue, and the end of a deleted queue's counters. */
@Injectable()
export class QueueMetrics {
  private isForgetting = false;

  constructor(
    shared: DatabaseMetrics,
    private readonly metrics: Metrics,
    private readonly queues: QueueRepository,
    counts: QueueStatsService,
  ) {
    metrics.beforeReport(() => void this.forgetDeleted());
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
    const paused = shared.gauge('rowmq_queue_paused', 'Whether the queue is paused: 1 while it is', ['queue']);
    shared.register(async () => {
      const samples = await counts.sample();
      return () => {
        for (const { name: queue, queue: settings, stats } of samples) {
          for (const state of ['ready', 'delayed', 'leased'] as const) deliveries.set({ queue, state }, stats[state]);
          oldestReady.set({ queue }, stats.oldestReadyAgeSeconds ?? 0);
          oldestLease.set({ queue }, stats.oldestLeaseAgeSeconds ?? 0);
          paused.set({ queue }, Number(settings.paused));
        }
      };
    });
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
