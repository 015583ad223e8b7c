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
  /** Messages that expire go to the dead-letter queue. */
  deadLetterExpired: boolean;
  maxDepth: number | null;
  /** Each broker counts for itself. */
  maxMessagesPerSecond: number | null;
  /** Each broker counts for itself. */
  maxLongPolls: number | null;
  deduplicationSeconds: number;
  /** Consumers get nothing. */
  paused: boolean;
  /** Enqueues are refused. */
  producersPaused: boolean;
  /** `group`: messages of one group are handed out in order. */
  ordering: 'group' | null;
  /** JSON: the attributes and tags that only SQS knows. Null: it has none. */
  sqs: string | null;
  createdAt: number;
  /** When its settings changed last. */
  changedAt: number;
  /** Counts the changes of this row. An enqueue that used another version stores nothing. */
  version: number;
}

/** A row of `queue` as {@link SELECT_QUEUE} reads it. Without a name, the queue is deleted. */
export type QueueRow = Omit<Queue, 'paused' | 'producersPaused' | 'deadLetterExpired' | 'name'> & {
  name: string | null;
  paused: number;
  producersPaused: number;
  deadLetterExpired: number;
};

export const QUEUE_COLUMNS = `
  id,
  name,
  lease_seconds AS leaseSeconds,
  message_ttl_seconds AS messageTtlSeconds,
  delay_seconds AS delaySeconds,
  max_receives AS maxReceives,
  dead_letter_queue_id AS deadLetterQueueId,
  dead_letter_expired AS deadLetterExpired,
  max_depth AS maxDepth,
  max_messages_per_second AS maxMessagesPerSecond,
  max_long_polls AS maxLongPolls,
  deduplication_seconds AS deduplicationSeconds,
  paused,
  producers_paused AS producersPaused,
  ordering,
  sqs,
  created_at AS createdAt,
  changed_at AS changedAt,
  version`;

export const SELECT_QUEUE = `SELECT ${QUEUE_COLUMNS} FROM queue`;

export function queueNotFound(name: string): RowmqError {
  return new RowmqError(
    'queue-not-found',
    `Queue '${name}' does not exist; create it with PUT /v1/admin/queues/${name}.`,
  );
}

/** A client may look again after this long: a person ends a pause. */
const PAUSED_SECONDS = 5;

export function queuePaused(name: string): RowmqError {
  return new RowmqError(
    'queue-paused',
    `Queue '${name}' is paused for producers, and nothing was stored; try again later, or end the pause with POST /v1/admin/queues/${name}/resume.`,
    { retryAfterSeconds: PAUSED_SECONDS },
  );
}

export function queueExists(name: string): RowmqError {
  return new RowmqError(
    'queue-exists',
    `Queue '${name}' exists already, and nothing was changed; to change it, send the PUT without If-None-Match.`,
  );
}

export function toQueue(row: QueueRow): Queue {
  return {
    ...row,
    name: row.name as string,
    paused: row.paused !== 0,
    producersPaused: row.producersPaused !== 0,
    deadLetterExpired: row.deadLetterExpired !== 0,
  };
}
