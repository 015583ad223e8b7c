import { Injectable } from '@nestjs/common';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

/** What can happen to messages, as the `event` label names it. */
export type MessageEvent = (typeof EVENTS)[number];

const EVENTS = [
  'enqueued',
  'dequeued',
  'redelivered',
  'acked',
  'nacked',
  'extended',
  'released',
  'expired',
  'dead-lettered',
  'purged',
  'redriven',
] as const;

/** The broker's Prometheus metrics. `docs/operations.md` says which to watch. */
@Injectable()
export class Metrics {
  readonly registry = new Registry();

  private readonly messages = new Counter({
    name: 'rowmq_messages_total',
    help: 'Messages by what happened to them, on this broker',
    labelNames: ['event', 'queue'],
    registers: [this.registry],
  });

  private readonly requests = new Histogram({
    name: 'rowmq_request_duration_seconds',
    help: 'Time to answer a call, long polls included',
    labelNames: ['call', 'status'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20],
    registers: [this.registry],
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry });
  }

  count(event: MessageEvent, queue: string, messages: number): void {
    if (messages > 0) this.messages.inc({ event, queue }, messages);
  }

  /** Stops reporting a queue that is gone. */
  forget(queue: string): void {
    for (const event of EVENTS) this.messages.remove({ event, queue });
  }

  observe(call: string, status: number, seconds: number): void {
    this.requests.observe({ call, status }, seconds);
  }

  /** A gauge that is read when it is scraped. */
  gauge(name: string, help: string, read: () => number): void {
    const gauge: Gauge = new Gauge({ name, help, registers: [], collect: () => gauge.set(read()) });
    this.registry.registerMetric(gauge);
  }
}
