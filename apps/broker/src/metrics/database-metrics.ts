import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { Database } from '@rowmq/store';
import { Gauge, Registry } from 'prom-client';
import { Metrics } from './metrics.js';
import { Pressure } from './pressure.js';

/** Prometheus gives a scrape ten seconds. A database that hangs must not use them up. */
const PING_MS = 2000;
const READ_MS = 2500;

/** Reads from the database, and returns a function that sets gauges to it. */
export type DatabaseCollector = () => Promise<() => void>;

/**
 * Gauges of the state in the database, which every broker reports alike. Each feature registers its
 * own.
 */
@Injectable()
export class DatabaseMetrics {
  private readonly registry = new Registry();
  private readonly collectors: DatabaseCollector[] = [];
  private last = '';
  private reading: Promise<void> | undefined;

  constructor(
    private readonly database: Database,
    private readonly metrics: Metrics,
    pressure: Pressure,
  ) {
    const { health } = database;
    metrics.gauge(
      'rowmq_database_up',
      'Whether the database answered when it was last tried; of several workers, the worst',
      () => Number(health.isUp),
      'min',
    );
    metrics.gauge(
      'rowmq_database_several_servers',
      'Whether several servers take writes where one primary should be, so that requests are refused',
      () => Number(health.hasSeveralServers),
      'max',
    );
    metrics.gauge(
      'rowmq_database_pressure',
      'How slow the database is: 1 the reaper yields, 2 enqueues are refused, 3 dequeues too',
      () => pressure.level(),
      'max',
    );
    metrics.counter(
      'rowmq_database_errors_total',
      'Failed tries of a statement or transaction, by the code of the failure',
      'code',
      () => health.failures,
    );
  }

  /** A gauge that a registered collector sets. */
  gauge<T extends string>(name: string, help: string, labelNames: T[]): Gauge<T> {
    return new Gauge({ name, help, labelNames, registers: [this.registry] });
  }

  /** Has every scrape call the collector. */
  register(collector: DatabaseCollector): void {
    this.collectors.push(collector);
  }

  /**
   * The broker's own metrics and these behind them, in the Prometheus text format. These are
   * missing while the database does not answer. If they take longer than a scrape may, the last
   * ones stand in.
   */
  async scrape(): Promise<string> {
    const late = sleep(READ_MS, undefined, { ref: false });
    const isUp = await this.database.ping(PING_MS).then(
      () => true,
      () => false,
    );
    // After the ping, because they report whether the database is up.
    const own = await this.metrics.text();
    if (!isUp) return `${own}\n`;
    this.reading ??= this.read().finally(() => {
      this.reading = undefined;
    });
    await Promise.race([this.reading, late]);
    return `${own}\n${this.last}`;
  }

  /** Never rejects. */
  private async read(): Promise<void> {
    try {
      const sets: (() => void)[] = [];
      for (const collect of this.collectors) sets.push(await collect());
      this.registry.resetMetrics();
      for (const set of sets) set();
      this.last = await this.registry.metrics();
    } catch {
      this.last = '';
    }
  }
}
