import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { Database, ReaperRepository } from '@rowmq/store';
import { Gauge, Registry } from 'prom-client';
import { QueueStatsService } from '../admin/queue-stats.service.js';
import { Metrics } from './metrics.js';

/** Prometheus waits for ten seconds, and must not have waited in vain just when the database hangs. */
const PING_MS = 2000;
const READ_MS = 2500;

/** What the database knows: the same on every broker. And how this broker finds the database. */
@Injectable()
export class DatabaseMetrics {
  private readonly registry = new Registry();
  private readonly deliveries = this.gauge('rowmq_queue_deliveries', 'Deliveries by state', ['queue', 'state']);
  private readonly oldestReady = this.gauge(
    'rowmq_queue_oldest_ready_age_seconds',
    'How long the oldest ready delivery has been ready',
    ['queue'],
  );
  private readonly paused = this.gauge('rowmq_queue_paused', 'Whether hand-out is stopped: 1 while it is', ['queue']);
  private readonly leader = this.gauge('rowmq_reaper_leader', 'Whether a reaper holds the lease to work', []);
  private readonly succeeded = this.gauge(
    'rowmq_reaper_last_success_age_seconds',
    'How long ago a duty of the reaper last succeeded',
    ['duty'],
  );
  private readonly handled = this.gauge(
    'rowmq_reaper_handled_last_hour',
    'Rows or partitions that a duty of the reaper took care of in the last hour',
    ['duty'],
  );
  private last = '';
  private reading: Promise<void> | undefined;

  constructor(
    private readonly database: Database,
    private readonly stats: QueueStatsService,
    private readonly reaper: ReaperRepository,
    private readonly metrics: Metrics,
  ) {
    const { health } = database;
    metrics.gauge(
      'rowmq_database_up',
      'Whether the last that was heard of the database was an answer; of several workers, the worst',
      () => Number(health.isUp),
      'min',
    );
    metrics.counter(
      'rowmq_database_errors_total',
      'Failed tries of a statement or transaction, by the code of the failure',
      'code',
      () => health.failures,
    );
  }

  /**
   * What the broker tells of itself, in the Prometheus text format, and this behind it: nothing while the database does not answer; where it takes longer to count than a scrape may, as it was counted last.
   * What the broker tells of queues that are gone it tells no more from the next time on.
   */
  async withOwn(): Promise<string> {
    const late = sleep(READ_MS, undefined, { ref: false });
    const isUp = await this.database.ping(PING_MS).then(
      () => true,
      () => false,
    );
    // After that, as it tells whether the database is up, and when that is away is wanted all the more.
    const own = await this.metrics.text();
    if (!isUp) return `${own}\n`;
    this.reading ??= this.read(own).finally(() => {
      this.reading = undefined;
    });
    await Promise.race([this.reading, late]);
    return `${own}\n${this.last}`;
  }

  /** Never rejects. What is reported is from before it is asked which queues there are: so one that is created meanwhile is not taken for gone. */
  private async read(reported: string): Promise<void> {
    try {
      const [leader, duties, queues] = [
        await this.reaper.leader(),
        await this.reaper.dutyStates(),
        await this.stats.sample(),
      ];
      this.metrics.forgetAllBut(new Set(queues.map(({ name }) => name)), reported);
      this.registry.resetMetrics();
      this.leader.set(Number(leader !== null));
      for (const { duty, lastSuccessAgeMs, handledLastHour } of duties) {
        this.succeeded.set({ duty }, lastSuccessAgeMs / 1000);
        this.handled.set({ duty }, handledLastHour);
      }
      for (const { name: queue, queue: settings, stats } of queues) {
        for (const state of ['ready', 'delayed', 'leased'] as const)
          this.deliveries.set({ queue, state }, stats[state]);
        this.oldestReady.set({ queue }, stats.oldestReadyAgeSeconds ?? 0);
        this.paused.set({ queue }, Number(settings.paused));
      }
      this.last = await this.registry.metrics();
    } catch {
      this.last = '';
    }
  }

  private gauge<T extends string>(name: string, help: string, labelNames: T[]): Gauge<T> {
    return new Gauge({ name, help, labelNames, registers: [this.registry] });
  }
}
