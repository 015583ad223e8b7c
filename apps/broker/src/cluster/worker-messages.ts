import type { MetricObject, MetricObjectWithValues, MetricValueWithName } from 'prom-client';

/** One metric with its samples, as a registry exports it. */
export type MetricReport = MetricObjectWithValues<MetricValueWithName<string>> & Pick<MetricObject, 'aggregator'>;

/** Queues with ready messages beyond those that the sender's own consumers want. */
interface Available {
  kind: 'available';
  queues: string[];
}

/** A deleted queue: the workers stop reporting it. */
interface Deleted {
  kind: 'deleted';
  queue: string;
}

/** A worker's messages to its primary. They follow `ready`, which every process of RowMQ sends. */
export type FromWorker =
  | Available
  | Deleted
  /** Asks for the metrics of the whole broker. */
  | { kind: 'scrape'; id: number }
  | { kind: 'report'; metrics: MetricReport[] };

/** The primary's messages to a worker. */
export type ToWorker =
  | Available
  | Deleted
  /** Asks for the worker's own metrics. */
  | { kind: 'report' }
  | { kind: 'scraped'; id: number; text: string };
