import type { Quantiles } from './figures.js';

/** Work that goes on until it is stopped, and counts what it has done. */
export interface Load {
  /** Messages with which the load is done. */
  done(): number;
  /** Latencies since the last call, by the name of what took them. */
  takeLatencies(): Record<string, Quantiles>;
  /** Resolves when nothing is left to do. Rejects when something fails. Most loads only reject. */
  readonly ended: Promise<void>;
  /** Only waits, and is never done with a message. */
  readonly isIdle: boolean;
  /** Ends the work in order. Throws if a message was lost or came twice. */
  stop(): Promise<void>;
}

/** Workers in closed loops, or requests a second. */
export type Side = number | { perSecond: number };

export interface LoadShape {
  producers: Side;
  consumers: Side;
  /** Messages of each enqueue, dequeue and ack. */
  batch: number;
  bodyBytes: number;
  /** Whether each enqueue has an `Idempotency-Key`, as those of `@rowmq/client`. */
  idempotencyKeys?: boolean;
  apiKey?: string;
  /** An ordered queue, and messages of so many groups in turn. */
  groups?: number;
  /** Priorities that closed producers use; absent: the default one. */
  priorities?: number;
  /** Backlog, in batches per consumer, at which closed producers pause. */
  backlogBatches?: number;
  /**
   * Whether the latency of a paced request counts from the moment at which it was due. A stall then
   * shows in every request that it delayed.
   */
  countsFromDue?: boolean;
}

/**
 * A load on queues. Closed workers are dealt to the queues in turn. Paced requests go to the first.
 */
export interface QueueLoadShape extends LoadShape {
  queues: readonly string[];
  /** Producers publish to this topic. */
  topic?: string;
}

export interface ClosedShape extends LoadShape {
  producers: number;
  consumers: number;
}

/** Closed loads by the size of their batches. The tables call them batch 1, 10 and 100. */
export const BATCH_1: ClosedShape = { batch: 1, producers: 50, consumers: 50, bodyBytes: 200 };
export const BATCH_10: ClosedShape = { batch: 10, producers: 16, consumers: 16, bodyBytes: 200 };
export const BATCH_100: ClosedShape = { batch: 100, producers: 8, consumers: 8, bodyBytes: 200 };
/** Single messages at a steady rate, to consumers that wait. */
export const PACED_200: LoadShape = { batch: 1, producers: { perSecond: 200 }, consumers: 8, bodyBytes: 200 };
