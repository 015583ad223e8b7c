import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Metrics } from '../metrics/metrics.js';
import { Reports } from './reports.js';
import type { MetricReport } from './worker-messages.js';

let reports: Reports;
let workers: Worker[];

beforeEach(() => {
  reports = new Reports();
  workers = [new Worker(1), new Worker(2)];
});
afterEach(() => {
  vi.useRealTimers();
});

/** A worker that answers at once, unless it is busy. */
class Worker {
  readonly metrics = new Metrics();
  isBusy = false;
  isUp = true;
  errors = new Map<string, number>();
  asked = 0;

  constructor(readonly number: number) {
    this.metrics.gauge('rowmq_waiting_consumers', 'waiting', () => number);
    this.metrics.gauge('rowmq_database_up', 'up', () => Number(this.isUp), 'min');
    this.metrics.counter('rowmq_database_errors_total', 'errors', 'code', () => this.errors);
  }

  ask(): void {
    this.asked += 1;
    if (!this.isBusy) void this.answer();
  }

  async answer(): Promise<void> {
    // As a channel between processes encodes it.
    const sent = JSON.stringify(await this.metrics.registry.getMetricsAsJSON());
    reports.take(this.number, JSON.parse(sent) as MetricReport[]);
  }

  enqueue(count: number, queue = 'q'): void {
    this.metrics.count('enqueued', queue, count);
    this.metrics.observe('enqueue', 201, 0.002);
  }
}

const text = async (): Promise<string> => reports.text(() => workers);
const sample = async (name: string): Promise<number | undefined> => {
  const line = (await text()).split('\n').find((candidate) => candidate.startsWith(`${name} `));
  return line === undefined ? undefined : Number(line.slice(name.length + 1));
};
const ENQUEUED = 'rowmq_messages_total{event="enqueued",queue="q"}';

describe('the metrics of several workers', () => {
  test('are the sums over all workers', async () => {
    workers[0]!.enqueue(2);
    workers[1]!.enqueue(3);
    expect(await sample(ENQUEUED)).toBe(5);
    expect(await sample('rowmq_waiting_consumers')).toBe(3);
    expect(await sample('rowmq_request_duration_seconds_bucket{le="0.0025",call="enqueue",status="201"}')).toBe(2);
    expect(await sample('rowmq_request_duration_seconds_count{call="enqueue",status="201"}')).toBe(2);
  });

  test('report the database as the worst-off worker sees it, and sum up its failures', async () => {
    expect(await sample('rowmq_database_up')).toBe(1);
    workers[1]!.isUp = false;
    workers[0]!.errors.set('ECONNRESET', 1);
    workers[1]!.errors.set('ECONNRESET', 2).set('other', 1);
    expect(await sample('rowmq_database_up')).toBe(0);
    expect(await sample('rowmq_database_errors_total{code="ECONNRESET"}')).toBe(3);
    expect(await sample('rowmq_database_errors_total{code="other"}')).toBe(1);
    reports.retire(2);
    workers.pop();
    expect(await sample('rowmq_database_up')).toBe(1);
    expect(await sample('rowmq_database_errors_total{code="ECONNRESET"}')).toBe(3);
  });

  test('show each worker’s process by itself', async () => {
    const all = await text();
    for (const name of ['process_start_time_seconds', 'process_resident_memory_bytes', 'nodejs_eventloop_lag_seconds'])
      expect(all.match(new RegExp(`^${name}\\{worker="[12]"\\} `, 'gm')), name).toHaveLength(2);
  });

  test('count a worker that does not answer as it was last, and leave out one that never answered', async () => {
    for (const worker of workers) worker.enqueue(1);
    expect(await sample(ENQUEUED)).toBe(2);
    vi.useFakeTimers();
    for (const worker of workers) worker.enqueue(1);
    workers[1]!.isBusy = true;
    workers.push(new Worker(3));
    workers[2]!.isBusy = true;
    const answer = sample(ENQUEUED);
    await vi.advanceTimersByTimeAsync(2100);
    expect(await answer).toBe(3);
  });

  test('do not fall when another worker replaces one that ended', async () => {
    for (const worker of workers) worker.enqueue(10);
    expect(await sample(ENQUEUED)).toBe(20);
    reports.retire(2);
    workers[1] = new Worker(2);
    workers[1].enqueue(1);
    expect(await sample(ENQUEUED)).toBe(21);
    expect(await sample('rowmq_request_duration_seconds_count{call="enqueue",status="201"}')).toBe(3);
    // A gauge of the worker that ended counts no more.
    expect(await sample('rowmq_waiting_consumers')).toBe(3);
    reports.retire(2);
    expect(await sample(ENQUEUED)).toBe(22);
  });

  test('are complete without a worker that ends before it answers', async () => {
    workers[1]!.isBusy = true;
    const answer = sample('rowmq_waiting_consumers');
    await vi.waitFor(() => expect(workers[1]!.asked).toBe(1));
    reports.retire(2);
    expect(await answer).toBe(1);
  });

  test('leave out a deleted queue, also the counts of an ended worker', async () => {
    workers[1]!.enqueue(1);
    workers[1]!.enqueue(1, 'other');
    await text();
    reports.retire(2);
    workers.pop();
    reports.forget('q');
    const all = await text();
    expect(all).not.toContain('queue="q"');
    expect(all).toContain('queue="other"');
  });

  test('leave out a deleted queue although a worker ends before its next report', async () => {
    workers[1]!.enqueue(1);
    workers[1]!.enqueue(1, 'other');
    await text();
    reports.forget('q');
    reports.retire(2);
    workers.pop();
    const all = await text();
    expect(all).not.toContain('queue="q"');
    expect(all).toContain('queue="other"');
  });

  test('are gathered once for all callers who ask while others are answered', async () => {
    const answers = [text(), text(), text()];
    await vi.waitFor(() => expect(workers[0]!.asked).toBe(1));
    const late = [text(), text()];
    await Promise.all([...answers, ...late]);
    expect(workers[0]!.asked).toBe(2);
  });

  test('are empty without workers', async () => {
    workers = [];
    expect((await text()).trim()).toBe('');
  });
});
