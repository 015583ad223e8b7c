import { z } from 'zod';
import { filter } from './filter.js';
import { LIMITS } from './limits.js';
import { messageIdText, publishMessage, queueAnswer, queueName, queueSettings } from './schemas.js';

/* Topics: their subscriptions, and what is published to them. */

const { createdAt } = queueAnswer.shape;

export const topicName = queueName.meta({ example: 'order-events', description: 'Name of a topic' });

export const publishRequest = z.strictObject({ messages: z.array(publishMessage).min(1).max(LIMITS.batch) }).meta({
  example: { messages: [{ body: '{"order":17}', headers: { event: 'order-created' } }] },
});

export const publishAnswer = z.object({
  messages: z.array(
    z.object({
      id: messageIdText,
      subscriptions: z
        .int()
        .meta({ description: 'Number of queues that got the message; 0: none wanted it', example: 2 }),
      duplicate: z.literal(true).optional().meta({
        description: 'true: nothing was stored, and this is the answer to the first message with that deduplicationId',
      }),
    }),
  ),
});

export const topicSettings = z.object({
  deduplicationSeconds: queueSettings.shape.deduplicationSeconds.meta({
    description: 'For this long the topic remembers a deduplicationId; an Idempotency-Key for at least 300 seconds',
    example: 300,
  }),
});

/** Absent: the default when the topic is created, unchanged when it exists. */
export const putTopicRequest = z
  .strictObject(topicSettings.partial().shape)
  .default({})
  .meta({ example: { deduplicationSeconds: 3600 } });

/** Absent: no filter when the subscription is created, unchanged when it exists. */
export const putSubscriptionRequest = z
  .strictObject({ filter: filter.nullable().optional() })
  .default({})
  .meta({ example: { filter: { event: [{ prefix: 'order-' }] } } });

export const subscriptionAnswer = z.object({
  topic: topicName,
  queue: queueName,
  filter: filter.nullable(),
  createdAt,
});

export const topicAnswer = topicSettings.extend({
  name: topicName,
  createdAt,
  subscriptions: z.array(subscriptionAnswer.omit({ topic: true })),
});
export const topicsAnswer = z.object({ topics: z.array(topicAnswer) });

export type PublishRequest = z.input<typeof publishRequest>;
export type PublishAnswer = z.output<typeof publishAnswer>;
export type TopicSettings = z.output<typeof topicSettings>;
export type PutTopicRequest = z.output<typeof putTopicRequest>;
export type PutSubscriptionRequest = z.output<typeof putSubscriptionRequest>;
export type SubscriptionAnswer = z.output<typeof subscriptionAnswer>;
export type TopicAnswer = z.output<typeof topicAnswer>;
export type TopicsAnswer = z.output<typeof topicsAnswer>;
