import type { Quantiles } from './figures.js';

/** Work that goes on until it is stopped, and counts what it has done. */
export interface Load {
  /** Messages of which all is done that the load does to a message. */
  done(): number;
  /** Latencies since the last call, by the name of what took them. */
  takeLatencies(): Record<string, Quantiles>;
  /** Resolves when there is nothing left to do; rejects when something fails. Most loads only ever reject. */
  readonly ended: Promise<void>;
  /** Ends the work in order. Fails if a message was lost or came twice. */
  stop(): Promise<void>;
}

/** Messages that are enqueued, dequeued and acked again and again. */
export interface LifecycleShape {
  /** Producers and consumers are dealt to the queues in turn. */
  queues: readonly string[];
  producers: number;
  consumers: number;
  /** Messages of each enqueue, dequeue and ack. */
  batch: number;
  bodyBytes: number;
  /** How many priorities are in use; absent: the default one. */
  priorities?: number;
  /** Backlog, in batches per consumer, at which producers pause. */
  backlogBatches?: number;
}

/** A load by the size of its batches: together they are what the tables call batch 1, 10 and 100. */
export type LoadShape = Omit<LifecycleShape, 'queues'>;
export const BATCH_1: LoadShape = { batch: 1, producers: 50, consumers: 50, bodyBytes: 200 };
export const BATCH_10: LoadShape = { batch: 10, producers: 16, consumers: 16, bodyBytes: 200 };
export const BATCH_100: LoadShape = { batch: 100, producers: 8, consumers: 8, bodyBytes: 200 };
