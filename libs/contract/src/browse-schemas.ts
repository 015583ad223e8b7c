import { z } from 'zod';
import { LIMITS } from './limits.js';
import { messageFilter, moveCause } from './message-filter.js';
import { messageContent, priority, queueName, timestamp } from './schemas.js';

/* Messages as an operator sees them. */

export const deliveryState = z.enum(['ready', 'delayed', 'leased', 'waiting']);

export const browseQuery = messageFilter.extend({
  state: deliveryState.default('ready'),
  limit: z.coerce.number().int().min(1).max(LIMITS.page).default(20),
  after: z.string().max(100).optional().meta({ description: 'The nextAfter of the previous page' }),
});

/** A move of a message from one queue to another. */
export const messageMove = z.object({
  from: queueName.nullable().meta({ description: 'The queue that it left; null if that queue was deleted' }),
  at: timestamp,
  cause: moveCause,
  receiveCount: z.int().meta({ description: 'The number of hand-outs in that queue', example: 5 }),
  reason: z
    .string()
    .nullable()
    .meta({ description: "The reason of the last nack, or the operator's", example: 'payment gateway is down' }),
});

export const browsedDelivery = z.object({
  queue: queueName,
  state: z.enum(['ready', 'delayed', 'leased', 'waiting', 'expired']),
  priority,
  receiveCount: z.int(),
  availableAt: timestamp.meta({
    description:
      'The time from which it is available; for a leased delivery, the end of its lease; for a waiting one, the earliest time',
  }),
  expiresAt: timestamp,
  lastNackReason: z.string().nullable(),
  source: queueName.nullable().meta({
    description: 'The queue that it left first; null if it is there, or if that queue was deleted',
    example: 'orders',
  }),
  moves: z.array(messageMove).meta({
    description: 'When and why it moved, oldest first: its first move, and the last three',
  }),
  leasedAt: timestamp.nullable().optional().meta({
    description:
      'The time since which it is leased, on the clock of the broker that leased it, for leased deliveries; null if that clock was more than an hour ahead',
  }),
  consumer: z.string().nullable().optional().meta({
    description:
      'The consumer that leased it or last extended its lease, for leased deliveries; null if this broker does not remember',
    example: 'orders-worker-3',
  }),
});
export const browsedMessage = messageContent.extend(browsedDelivery.omit({ queue: true }).shape);

export const browseAnswer = z.object({
  messages: z.array(browsedMessage),
  examined: z.int().meta({
    description: 'The messages that this page has looked at: a filter may leave out all of them',
    example: 20,
  }),
  nextAfter: z
    .string()
    .nullable()
    .meta({ description: 'Send it as after to get the next page; null on the last page' }),
});

export const messageAnswer = messageContent.extend({
  queue: queueName
    .nullable()
    .meta({ description: 'The queue to which it was enqueued; null if it was published, or that queue was deleted' }),
  topic: queueName
    .nullable()
    .meta({ description: 'The topic to which it was published; null if it was enqueued, or that topic was deleted' }),
  settled: z.boolean().meta({ description: 'true: no delivery is left' }),
  endings: z
    .array(
      z.object({
        queue: queueName.nullable().meta({ description: 'Where its delivery began; null if that queue was deleted' }),
        how: z.enum(['cancelled', 'purged', 'dropped']),
      }),
    )
    .meta({
      description: 'How operators have settled it. That a consumer acked it, or that it expired, is not recorded',
      example: [],
    }),
  deliveries: z.array(browsedDelivery),
});

export type DeliveryState = z.output<typeof deliveryState>;
export type BrowseQuery = z.output<typeof browseQuery>;
export type MessageMove = z.output<typeof messageMove>;
export type BrowseAnswer = z.output<typeof browseAnswer>;
export type MessageAnswer = z.output<typeof messageAnswer>;
