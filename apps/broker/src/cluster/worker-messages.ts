import type { MetricObject, MetricObjectWithValues, MetricValueWithName } from 'prom-client';

/** One metric with its samples, as a registry gives it away. */
export type MetricReport = MetricObjectWithValues<MetricValueWithName<string>> & Pick<MetricObject, 'aggregator'>;

/** Queues in which something is ready that the consumers of the worker who says so do not take. */
interface Available {
  kind: 'available';
  queues: string[];
}

/** A queue that is gone: nothing is to be reported of it any more. */
interface Deleted {
  kind: 'deleted';
  queue: string;
}

/** What a worker tells its primary. `ready`, as every process of ours says, comes before all of it. */
export type FromWorker =
  | Available
  | Deleted
  /** Asks for the metrics of the whole broker. */
  | { kind: 'scrape'; id: number }
  | { kind: 'report'; metrics: MetricReport[] };

/** What the primary tells a worker. */
export type ToWorker =
  | Available
  | Deleted
  /** Asks for the worker's own metrics. */
  | { kind: 'report' }
  | { kind: 'scraped'; id: number; text: string };
