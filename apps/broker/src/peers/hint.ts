import { queueName } from '@rowmq/contract';
import { z } from 'zod';

/** The path of a hint on a peer's own listener. */
export const HINT_PATH = '/hints';
/** Names of one kind in a hint. The poll finds the messages of other queues. */
export const MOST_QUEUES = 1000;
/** More than two lists of the longest names need. */
export const MOST_HINT_BYTES = 256 * 1024;

const queueNames = z.array(queueName).max(MOST_QUEUES);

/** One request between brokers. It is advice: the receiver looks into the database. */
export const hintRequest = z.object({
  /** The sender's id. */
  from: z.string().max(36),
  /** Queues that may have more ready messages than the sender's consumers want. */
  ready: queueNames,
  /** Queues whose consumers are parked at the sender. */
  parked: queueNames,
});

export type Hint = z.output<typeof hintRequest>;
