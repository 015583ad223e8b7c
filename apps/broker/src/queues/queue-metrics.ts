import { Injectable } from '@nestjs/common';
import { DatabaseMetrics } from '../metrics/database-metrics.js';
import { Metrics } from '../metrics/metrics.js';
import { QueueStatsService } from './queue-stats.service.js';

/** Gauges of what is in each queue. */
@Injectable()
export class QueueMetrics {
  constructor(
    shared: DatabaseMetrics,
    private readonly metrics: Metrics,
    private readonly stats: QueueStatsService,
  ) {
    const deliveries = shared.gauge('rowmq_queue_deliveries', 'Deliveries by state', ['queue', 'state']);
    const oldestReady = shared.gauge(
      'rowmq_queue_oldest_ready_age_seconds',
      'How long the oldest ready delivery has been ready',
      ['queue'],
    );
    const paused = shared.gauge('rowmq_queue_paused', 'Whether the queue is paused: 1 while it is', ['queue']);
    shared.register(async (reported) => {
      const queues = await this.stats.sample();
      this.metrics.forgetAllBut(new Set(queues.map(({ name }) => name)), reported);
      return () => {
        for (const { name: queue, queue: settings, stats } of queues) {
          for (const state of ['ready', 'delayed', 'leased'] as const) deliveries.set({ queue, state }, stats[state]);
          oldestReady.set({ queue }, stats.oldestReadyAgeSeconds ?? 0);
          paused.set({ queue }, Number(settings.paused));
        }
      };
    });
  }
}
