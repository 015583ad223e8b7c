import { AggregatorRegistry } from 'prom-client';
import type { MetricReport } from './worker-messages.js';

/** A worker that has not answered by then is reported with its last answer. */
const ANSWER_MS = 2000;

/** A worker that can be asked for its metrics. */
interface Reporter {
  readonly number: number;
  ask(): void;
}

/**
 * The metrics of the whole broker, made of each worker's report. RowMQ's own metrics are summed up.
 * Metrics of a worker's process carry its number.
 *
 * No sum falls because a worker ended or is too busy to answer: its last report goes on counting.
 */
export class Reports {
  private readonly last = new Map<number, MetricReport[]>();
  private ended: MetricReport[] = [];
  private missing = new Set<number>();
  private onComplete = (): void => undefined;
  private current: Promise<unknown> = Promise.resolve();
  private following: Promise<string> | undefined;

  /**
   * In the Prometheus text format. A caller who asks while an answer is being made gets the next
   * one, which includes everything that happened before the call.
   */
  async text(reporters: () => readonly Reporter[]): Promise<string> {
    this.following ??= this.current.then(() => {
      const text = this.make(reporters());
      this.following = undefined;
      this.current = text.catch(() => undefined);
      return text;
    });
    return this.following;
  }

  /** Stores a worker's answer. */
  take(number: number, report: MetricReport[]): void {
    this.last.set(number, report);
    this.arrived(number);
  }

  /** A worker ended. Another one with the same number starts from zero. */
  retire(number: number): void {
    const report = this.last.get(number) ?? [];
    this.last.delete(number);
    this.ended = summed([this.ended, report.filter(({ name, type }) => isOurs(name) && String(type) !== 'gauge')]);
    this.arrived(number);
  }

  /** A queue was deleted. */
  forget(queue: string): void {
    this.ended = without(this.ended, queue);
    // Otherwise a worker that ends before its next report would bring the queue back.
    for (const [number, report] of this.last) this.last.set(number, without(report, queue));
  }

  private async make(reporters: readonly Reporter[]): Promise<string> {
    this.missing = new Set(reporters.map(({ number }) => number));
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ANSWER_MS);
      this.onComplete = () => {
        clearTimeout(timer);
        resolve();
      };
      for (const reporter of reporters) reporter.ask();
      if (reporters.length === 0) this.onComplete();
    });
    const reports = [...this.last].map(([number, report]) => report.map((metric) => labelled(metric, number)));
    return AggregatorRegistry.aggregate([this.ended, ...reports]).metrics();
  }

  private arrived(number: number): void {
    if (this.missing.delete(number) && this.missing.size === 0) this.onComplete();
  }
}

function without(report: MetricReport[], queue: string): MetricReport[] {
  return report.map((metric) => ({
    ...metric,
    values: metric.values.filter(({ labels }) => labels['queue'] !== queue),
  }));
}

function isOurs(name: string): boolean {
  return name.startsWith('rowmq_');
}

/**
 * Sums of memory, CPU time or lag mean nothing, and their counters begin again with each process.
 */
function labelled(metric: MetricReport, worker: number): MetricReport {
  if (isOurs(metric.name)) return metric;
  const values = metric.values.map((value) => ({ ...value, labels: { ...value.labels, worker } }));
  return { ...metric, values, aggregator: 'first' };
}

function summed(reports: MetricReport[][]): MetricReport[] {
  return AggregatorRegistry.aggregate(reports).getMetricsAsArray() as MetricReport[];
}
