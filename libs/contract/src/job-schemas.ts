import { z } from 'zod';
import { LIMITS } from './limits.js';
import { messageFilter } from './message-filter.js';
import { messageIdText, queueName, timestamp } from './schemas.js';

/* Jobs: what an operator asks for and a broker carries out, a batch at a time. */

export const jobKind = z.enum(['redrive', 'drop', 'purge']);
export const jobState = z.enum(['running', 'done', 'cancelled', 'failed']);

export const jobId = messageIdText.meta({ description: 'Id of a job, a UUIDv7' });

const filter = messageFilter.default({}).meta({ description: 'All messages when absent' });
const messagesPerSecond = z.int().min(LIMITS.jobRate.min).max(LIMITS.jobRate.max);

export const redriveRequest = z
  .strictObject({
    filter,
    toQueue: queueName.optional().meta({
      description: 'The queue that gets the messages; absent: each goes to the queue that it left first',
    }),
    messagesPerSecond: messagesPerSecond
      .default(LIMITS.jobRate.default)
      .meta({ description: 'The most messages that the job moves a second' }),
    maxMessages: z.int().min(1).max(1_000_000_000).optional().meta({ description: 'All when absent' }),
  })
  .prefault({})
  .meta({ example: { filter: { source: 'orders', reason: 'timeout' }, messagesPerSecond: 200 } });

export const dropRequest = z
  .strictObject({
    filter,
    messagesPerSecond: messagesPerSecond
      .optional()
      .meta({ description: 'The most messages that the job settles a second; as fast as its batches go when absent' }),
    maxMessages: z.int().min(1).max(1_000_000_000).optional().meta({ description: 'All when absent' }),
  })
  .prefault({})
  .meta({ example: { filter: { source: 'orders', enqueuedTo: '2026-11-22T19:00:00.000Z' } } });

export const jobAnswer = z.object({
  id: jobId,
  kind: jobKind,
  queue: queueName,
  toQueue: queueName.nullable().meta({ description: 'null: each message goes to the queue that it left first' }),
  filter: messageFilter,
  messagesPerSecond: z.int().nullable().meta({ description: 'null: as fast as its batches go', example: 1000 }),
  maxMessages: z.int().nullable().meta({ example: null }),
  state: jobState.meta({ description: 'done: it has walked through the queue, or handled maxMessages' }),
  total: z.int().nullable().meta({
    description: 'Messages in the queue when it began; null: there were too many to count at once',
    example: 1200,
  }),
  examined: z.int().meta({ description: 'Messages that it has looked at', example: 1200 }),
  done: z.int().meta({ description: 'Messages that it has moved or settled', example: 17 }),
  skipped: z.int().meta({
    description: 'Messages that it wanted and left: they have no other queue to go to, or others kept them locked',
    example: 0,
  }),
  error: z.string().nullable().meta({ description: 'Why it failed, or its last batch did', example: null }),
  worker: z.string().nullable().meta({ description: 'The broker process that carries it out', example: null }),
  createdAt: timestamp,
  updatedAt: timestamp.meta({ description: 'When its last batch was committed' }),
  finishedAt: timestamp.nullable().meta({ example: null }),
});

export const jobQuery = z.strictObject({
  waitSeconds: z.coerce.number().int().min(0).max(LIMITS.waitSeconds).default(0).meta({
    description: 'The time to wait for the end of the job',
  }),
});

export const jobsQuery = z.strictObject({
  queue: queueName.optional(),
  state: jobState.optional(),
  limit: z.coerce.number().int().min(1).max(LIMITS.page).default(20),
  after: jobId.optional().meta({ description: 'The nextAfter of the previous page' }),
});

export const jobsAnswer = z.object({
  jobs: z.array(jobAnswer).meta({ description: 'Newest first' }),
  nextAfter: jobId.nullable().meta({ description: 'Send it as after to get the next page; null on the last page' }),
});

/** An operator's wish for one message. */
export const oneMessageRequest = z
  .strictObject({
    queue: queueName.optional().meta({ description: 'The queue that owes it; every queue that does when absent' }),
  })
  .prefault({})
  .meta({ example: { queue: 'orders-dead' } });

export const moveMessageRequest = z
  .strictObject({
    toQueue: queueName.meta({ description: 'The queue that gets the message' }),
    queue: queueName.optional().meta({ description: 'The queue that it leaves; needed if several queues owe it' }),
  })
  .meta({ example: { toQueue: 'orders-later' } });

export type OneMessageRequest = z.input<typeof oneMessageRequest>;
export type MoveMessageRequest = z.input<typeof moveMessageRequest>;
export type RedriveRequest = z.input<typeof redriveRequest>;
export type DropRequest = z.input<typeof dropRequest>;
export type JobKind = z.output<typeof jobKind>;
export type JobState = z.output<typeof jobState>;
export type JobAnswer = z.output<typeof jobAnswer>;
export type JobQuery = z.output<typeof jobQuery>;
export type JobsQuery = z.output<typeof jobsQuery>;
export type JobsAnswer = z.output<typeof jobsAnswer>;
