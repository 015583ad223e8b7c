import { RowmqError } from '@rowmq/contract';

/*
 * A queue as the hot path reads it: without TypeORM, so that the package of the transactional
 * enqueue, which has this file inside, does not load it.
 */

/** An existing queue and its settings. */
export interface Queue {
  id: number;
  name: string;
  leaseSeconds: number;
  messageTtlSeconds: number;
  delaySeconds: number;
  maxReceives: number | null;
  deadLetterQueueId: number | null;
  maxDepth: number | null;
  paused: boolean;
  createdAt: number;
  /** Counts the changes of this row. An enqueue that used another version stores nothing. */
  version: number;
}

/** A row of `queue` as {@link SELECT_QUEUE} reads it. Without a name, the queue is deleted. */
export type QueueRow = Omit<Queue, 'paused' | 'name'> & { name: string | null; paused: number };

export const QUEUE_COLUMNS = `
  id,
  name,
  lease_seconds AS leaseSeconds,
  message_ttl_seconds AS messageTtlSeconds,
  delay_seconds AS delaySeconds,
  max_receives AS maxReceives,
  dead_letter_queue_id AS deadLetterQueueId,
  max_depth AS maxDepth,
  paused,
  created_at AS createdAt,
  version`;

export const SELECT_QUEUE = `SELECT ${QUEUE_COLUMNS} FROM queue`;

export function queueNotFound(name: string): RowmqError {
  return new RowmqError(
    'queue-not-found',
    `Queue '${name}' does not exist; create it with PUT /v1/admin/queues/${name}.`,
  );
}

export function toQueue(row: QueueRow): Queue {
  return { ...row, name: row.name as string, paused: row.paused !== 0 };
}
