import { z } from 'zod';
import { LIMITS } from './limits.js';
import { queueName, timestamp } from './schemas.js';

/*
 * The calls of one queue as an operator uses them: pause, delete, history and consumers.
 */

const side = z.enum(['consumers', 'producers', 'both']);

export const pauseRequest = z
  .strictObject({
    side: side.default('consumers').meta({
      description:
        'consumers: dequeue hands out nothing. producers: enqueue is refused with queue-paused. A pause adds to one that is in force',
    }),
  })
  .nullish()
  .meta({ example: { side: 'both' } });
export const resumeRequest = z
  .strictObject({ side: side.default('both').meta({ description: 'Whose pause ends' }) })
  .nullish()
  .meta({ example: { side: 'both' } });
export const pauseAnswer = z.object({
  name: queueName,
  paused: z.boolean().meta({ description: 'true: consumers get nothing' }),
  producersPaused: z.boolean().meta({ description: 'true: enqueue is refused with queue-paused' }),
});

export const deleteQueueQuery = z.strictObject({
  force: z
    .enum(['true', 'false'])
    .optional()
    .meta({ description: 'true: delete the queue with its messages. Otherwise a queue with messages is kept' }),
});

export const historyQuery = z.strictObject({
  minutes: z.coerce.number().int().min(1).max(LIMITS.historyMinutes).default(60),
});

const events = z.int().min(0);
const depth = z.int().min(0).nullable();
export const historyAnswer = z.object({
  queue: queueName,
  minutes: z
    .array(
      z.object({
        at: timestamp.meta({ description: 'The beginning of the minute, by the clock of the database' }),
        enqueued: events,
        dequeued: events,
        acked: events,
        nacked: events,
        deadLettered: events.meta({ description: 'Moved from here to the dead-letter queue' }),
        expired: events,
        purged: events.meta({ description: 'Purged or cancelled' }),
        redriven: events.meta({ description: 'Moved from here back to the queue that they had left' }),
        ready: depth.meta({ description: 'Once in the minute, a reaper counts the queue; null if it did not' }),
        delayed: depth,
        leased: depth,
        waiting: depth,
        oldestReadyAgeSeconds: z.int().min(0).nullable(),
      }),
    )
    .meta({ description: 'Oldest first. A minute in which nothing happened and nobody counted is left out' }),
});

export const consumersAnswer = z.object({
  queue: queueName,
  consumers: z.array(
    z.object({
      name: z.string().nullable().meta({
        description: 'The consumer of its requests, or else the User-Agent',
        example: 'orders-worker-3',
      }),
      address: z.string().meta({
        description: 'The address from which it connects: that of a proxy, if there is one',
        example: '10.0.3.17',
      }),
      waiting: z.int().meta({ description: 'Its dequeues that wait now', example: 1 }),
      leases: z.int().meta({ description: 'Messages that it holds', example: 10 }),
      lastSeenAt: timestamp.meta({ description: 'Its last dequeue or extend' }),
    }),
  ),
  otherLeases: z.int().meta({
    description: 'Leased messages whose consumer no broker remembers',
    example: 0,
  }),
  complete: z.boolean().meta({
    description: `false: some broker did not answer, or more than ${LIMITS.consumerLeases} messages are leased`,
    example: true,
  }),
});

export type PauseRequest = z.input<typeof pauseRequest>;
export type PauseSide = z.output<typeof side>;
export type PauseAnswer = z.output<typeof pauseAnswer>;
export type HistoryQuery = z.output<typeof historyQuery>;
export type HistoryAnswer = z.output<typeof historyAnswer>;
export type ConsumersAnswer = z.output<typeof consumersAnswer>;
