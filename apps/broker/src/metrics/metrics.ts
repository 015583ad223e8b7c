import { Inject, Injectable } from '@nestjs/common';
import type { ErrorCode } from '@rowmq/contract';
import type { EventCounts, MinuteEvent, StoreObserver } from '@rowmq/store';
import { type Aggregator, collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { ShownQueues } from './shown-queues.js';
import { WORKER_NUMBER, WorkerMetrics } from './worker-metrics.js';

/** An event of messages, as the `event` label names it. */
export type MessageEvent = (typeof EVENTS)[number];

const EVENTS = [
  'enqueued',
  'duplicate',
  'handed-off',
  'dequeued',
  'redelivered',
  'acked',
  'nacked',
  'extended',
  'released',
  'expired',
  'dead-lettered',
  'purged',
  'dropped',
  'cancelled',
  'redriven',
  'moved',
  'replayed',
] as const;

/** The events of a queue's history. */
const IN_HISTORY: Partial<Record<MessageEvent, MinuteEvent>> = {
  enqueued: 'enqueued',
  dequeued: 'dequeued',
  acked: 'acked',
  nacked: 'nacked',
  expired: 'expired',
  'dead-lettered': 'deadLettered',
  purged: 'purged',
  cancelled: 'purged',
  redriven: 'redriven',
};

/** Buckets for the time of a transaction or a statement. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** The broker's Prometheus metrics. `docs/operations.md` explains them. */
@Injectable()
export class Metrics implements StoreObserver {
  /** The metrics of this process. */
  readonly registry = new Registry();
  private readonly messages = new Counter({
    name: 'rowmq_messages_total',
    help: 'Messages by event, on this broker',
    labelNames: ['event', 'queue'],
    registers: [this.registry],
    collect: () => this.onReport(),
  });
  private readonly shown: ShownQueues;
  /** Events that nobody has taken for the history, by queue. */
  private fresh = new Map<string, EventCounts>();
  private onReport = (): void => undefined;

  private readonly requests = new Histogram({
    name: 'rowmq_request_duration_seconds',
    help: 'Time to answer a call, long polls included',
    labelNames: ['call', 'status'],
    // The bucket of 25 s holds a dequeue that waited 20 s in vain: it did not take too long.
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 25],
    registers: [this.registry],
  });

  private readonly refusals = new Counter({
    name: 'rowmq_refused_total',
    help: 'Requests that were refused or failed, by the code of the error',
    labelNames: ['code'],
    registers: [this.registry],
  });

  private readonly batches = new Histogram({
    name: 'rowmq_batch_duration_seconds',
    help: 'Time of one batch: the requests of one verb that share a transaction',
    labelNames: ['verb'],
    buckets: SECONDS,
    registers: [this.registry],
  });
  private readonly batchRows = new Histogram({
    name: 'rowmq_batch_rows',
    help: 'Deliveries in one batch',
    labelNames: ['verb'],
    buckets: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
    registers: [this.registry],
  });
  private readonly rescans = new Histogram({
    name: 'rowmq_rescan_duration_seconds',
    help: 'Time of one rescan below a scan floor; it grows while something delays the purge of InnoDB',
    buckets: SECONDS,
    registers: [this.registry],
  });
  private readonly belowFloor = new Counter({
    name: 'rowmq_found_below_floor_total',
    help: 'Deliveries that a rescan found below a scan floor',
    registers: [this.registry],
  });
  private readonly batchers = new Map<string, { readonly waiting: number }>();

  private readonly workers: WorkerMetrics | undefined;

  constructor(@Inject(BROKER_CONFIG) { metricsQueues }: Pick<BrokerConfig, 'metricsQueues'>) {
    this.shown = new ShownQueues(metricsQueues, (queue) => this.removeSeries(queue));
    // Sums of memory or lag mean nothing: each worker shows its own.
    const labels = WORKER_NUMBER === undefined ? {} : { worker: WORKER_NUMBER };
    collectDefaultMetrics({ register: this.registry, labels });
    this.workers = WORKER_NUMBER === undefined ? undefined : new WorkerMetrics(this.registry);
    const waiting: Gauge<'verb'> = new Gauge({
      name: 'rowmq_waiting_requests',
      help: 'Requests that wait for a batch',
      labelNames: ['verb'],
      registers: [this.registry],
      collect: () => {
        for (const [verb, batcher] of this.batchers) waiting.set({ verb }, batcher.waiting);
      },
    });
  }

  /** The metrics of all workers of this broker in the Prometheus text format. */
  async text(): Promise<string> {
    return this.workers === undefined ? this.registry.metrics() : this.workers.text();
  }

  count(event: MessageEvent, queue: string, messages: number): void {
    if (messages === 0) return;
    this.messages.inc({ event, queue: this.shown.labelOf(queue) }, messages);
    const kept = IN_HISTORY[event];
    if (kept !== undefined) this.addFresh(queue, kept, messages);
  }

  /** The events of each queue since the last call, for the queues' history. */
  takeFresh(): Map<string, EventCounts> {
    const { fresh } = this;
    this.fresh = new Map();
    return fresh;
  }

  /** These could not be stored. The next call takes them again. */
  putBack(counts: ReadonlyMap<string, EventCounts>): void {
    for (const [queue, events] of counts)
      for (const [event, messages] of Object.entries(events)) this.addFresh(queue, event as MinuteEvent, messages);
  }

  private addFresh(queue: string, event: MinuteEvent, messages: number): void {
    let events = this.fresh.get(queue);
    if (events === undefined) this.fresh.set(queue, (events = {}));
    events[event] = (events[event] ?? 0) + messages;
  }

  /** Queues with series of their own. */
  get countedQueues(): string[] {
    return this.shown.names;
  }

  /**
   * Calls the listener whenever this process reports its metrics. There is one listener: the
   * feature that knows which queues were deleted.
   */
  beforeReport(listener: () => void): void {
    this.onReport = listener;
  }

  /** Stops reporting a deleted queue. */
  forget(queue: string): void {
    this.shown.forget(queue);
    this.removeSeries(queue);
  }

  private removeSeries(queue: string): void {
    for (const event of EVENTS) this.messages.remove({ event, queue });
  }

  /** A request was refused, or failed. */
  refused(code: ErrorCode): void {
    this.refusals.inc({ code });
  }

  observe(call: string, status: number, seconds: number): void {
    this.requests.observe({ call, status }, seconds);
  }

  /**
   * A gauge that each scrape reads. `aggregator` says how the gauges of several workers become one.
   */
  gauge(name: string, help: string, read: () => number, aggregator: Aggregator = 'sum'): void {
    const gauge: Gauge = new Gauge({ name, help, registers: [], aggregator, collect: () => gauge.set(read()) });
    this.registry.registerMetric(gauge);
  }

  /** A gauge that is always 1. Its labels carry the information. */
  info(name: string, help: string, labels: Record<string, string>): void {
    const gauge = new Gauge({ name, help, labelNames: Object.keys(labels), registers: [], aggregator: 'first' });
    gauge.set(labels, 1);
    this.registry.registerMetric(gauge);
  }

  /** A gauge with one label that each scrape reads. */
  gaugeBy(name: string, help: string, label: string, read: () => Iterable<readonly [string, number]>): void {
    const gauge: Gauge = new Gauge({
      name,
      help,
      labelNames: [label],
      registers: [],
      collect: () => {
        gauge.reset();
        for (const [value, number] of read()) gauge.inc({ [label]: value }, number);
      },
    });
    this.registry.registerMetric(gauge);
  }

  /** A counter with one label that is kept elsewhere. Each scrape reads it. */
  counter(name: string, help: string, label: string, read: () => Iterable<readonly [string, number]>): void {
    const counter: Counter = new Counter({
      name,
      help,
      labelNames: [label],
      registers: [],
      collect: () => {
        counter.reset();
        for (const [value, count] of read()) counter.inc({ [label]: value }, count);
      },
    });
    this.registry.registerMetric(counter);
  }

  observeBatch(verb: string, { rows, ms }: { rows: number; ms: number }): void {
    this.batches.observe({ verb }, ms / 1000);
    this.batchRows.observe({ verb }, rows);
  }

  /** Reports a verb's waiting requests. */
  addBatcher(verb: string, batcher: { readonly waiting: number }): void {
    this.batchers.set(verb, batcher);
  }

  removedInClaim(event: 'expired' | 'dead-lettered', queueName: string, count: number): void {
    this.count(event, queueName, count);
  }

  rescanned(durationMs: number, found: number): void {
    this.rescans.observe(durationMs / 1000);
    this.belowFloor.inc(found);
  }
}
