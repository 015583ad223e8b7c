import { AggregatorRegistry } from 'prom-client';
import type { MetricReport } from './worker-messages.js';

/** A worker that has not answered by then is reported as it was when it last did. */
const ANSWER_MS = 2000;

/** A worker that can be asked for its metrics. */
interface Reporter {
  readonly number: number;
  ask(): void;
}

/**
 * The metrics of the whole broker, made of what each worker reports: what RowMQ counts and measures is summed up, what the process of a worker is like carries its number.
 *
 * A sum never falls because a worker ended, or is too busy to answer: the last that was heard of it goes on counting.
 */
export class Reports {
  private readonly last = new Map<number, MetricReport[]>();
  private ended: MetricReport[] = [];
  private missing = new Set<number>();
  private onComplete = (): void => undefined;
  private current: Promise<unknown> = Promise.resolve();
  private following: Promise<string> | undefined;

  /** In the Prometheus text format. Whoever asks while an answer is made gets the one after it, which knows of all that he has seen. */
  async text(reporters: () => readonly Reporter[]): Promise<string> {
    this.following ??= this.current.then(() => {
      const text = this.make(reporters());
      this.following = undefined;
      this.current = text.catch(() => undefined);
      return text;
    });
    return this.following;
  }

  /** What a worker answered. */
  take(number: number, report: MetricReport[]): void {
    this.last.set(number, report);
    this.arrived(number);
  }

  /** A worker ended, and one that starts from nothing takes its place. */
  retire(number: number): void {
    const report = this.last.get(number) ?? [];
    this.last.delete(number);
    this.ended = summed([this.ended, report.filter(({ name, type }) => isOurs(name) && String(type) !== 'gauge')]);
    this.arrived(number);
  }

  /** A queue is gone. */
  forget(queue: string): void {
    this.ended = without(this.ended, queue);
    // Or a worker that ends before it reports again would bring it back.
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

/** Memory, CPU time or lag of several processes say nothing as a sum, and their counters begin again with each process. */
function labelled(metric: MetricReport, worker: number): MetricReport {
  if (isOurs(metric.name)) return metric;
  const values = metric.values.map((value) => ({ ...value, labels: { ...value.labels, worker } }));
  return { ...metric, values, aggregator: 'first' };
}

function summed(reports: MetricReport[][]): MetricReport[] {
  return AggregatorRegistry.aggregate(reports).getMetricsAsArray() as MetricReport[];
}
