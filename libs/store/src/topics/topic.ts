import { type Filter, RowmqError } from '@rowmq/contract';
import type { Queue } from '../queues/queue.js';

/** A queue that gets the messages of a topic that match a filter. */
export interface Subscription {
  queue: Queue;
  /** Null: every message matches. */
  filter: Filter | null;
}

/** An existing topic, with its subscriptions in the order of their queues' ids. */
export interface Topic {
  id: number;
  name: string;
  deduplicationSeconds: number;
  /**
   * Counts changes of the topic and its subscriptions. A publish that used another version stores
   * nothing.
   */
  version: number;
  subscriptions: readonly Subscription[];
}

export function topicNotFound(name: string): RowmqError {
  return new RowmqError(
    'topic-not-found',
    `Topic '${name}' does not exist; create it with PUT /v1/admin/topics/${name}.`,
  );
}

/** Reads a stored filter, which fits its schema. */
export function readFilter(filter: string | null): Filter | null {
  return filter === null ? null : (JSON.parse(filter) as Filter);
}
