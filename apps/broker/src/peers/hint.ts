import { queueName } from '@rowmq/contract';
import { z } from 'zod';

/** The path of a hint on a peer's own listener. */
export const HINT_PATH = '/hints';
/** Names of one kind in a hint. The poll finds the messages of other queues. */
export const MOST_QUEUES = 1000;
/** More than two lists of the longest names need. */
export const MOST_HINT_BYTES = 256 * 1024;

/** One request between brokers. It is advice: the receiver looks into the database. */
export const hintRequest = z.object({
  /** The sender's id. */
  from: z.string().max(36),
  /** Queues with ready messages that the sender's consumers do not want. */
  ready: z
    .array(
      z.object({
        queue: queueName,
        /** Absent: the sender does not know how many. */
        messages: z.int().positive().optional(),
      }),
    )
    .max(MOST_QUEUES),
  /** Queues whose consumers are parked at the sender. */
  parked: z.array(queueName).max(MOST_QUEUES),
});

export type Hint = z.output<typeof hintRequest>;
