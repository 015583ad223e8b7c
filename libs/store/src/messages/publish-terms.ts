import { matches, RowmqError } from '@rowmq/contract';
import type { Queue } from '../queues/queue.js';
import type { Topic } from '../topics/topic.js';
import { fateOf } from './new-message.js';
import type { NewFate } from './packing.js';
import type { PublishedMessage } from './publish.js';

/** One subscription's share in messages: the fate that they have in its queue. */
export interface Share extends NewFate {
  queue: Queue;
  /** The place of the subscription in its topic. It tells apart the copies of a message. */
  number: number;
}

/**
 * The terms that messages of a topic share: the same subscriptions want them, and they have the
 * same fate in each. A topic may have many subscriptions and a batch many messages, so a batch does
 * the work for a subscription once for all messages of equal terms.
 */
export interface Terms {
  topic: Topic;
  /** One for each subscription that wants the messages. Without any, they are not stored. */
  shares: readonly Share[];
  /** The names of their queues. */
  queues: readonly string[];
}

/** Finds the {@link Terms} of a batch's messages. Equal terms are one object. */
export class MessageTerms {
  private readonly known = new Map<Topic, Map<string, Terms>>();

  /** @param now the database's time, for messages that name an instant */
  constructor(private readonly now: number) {}

  /**
   * Throws `invalid-request` if the message would expire in a subscriber's queue before its delay
   * ends, or does not fit a queue's ordering.
   */
  of(message: PublishedMessage, topic: Topic, index: number): Terms {
    const { values, priority, delaySeconds, availableAt, expiresInSeconds, groupId } = message;
    const wanted = topic.subscriptions.map(({ filter }) => matches(filter, values));
    const key = [priority, delaySeconds, availableAt, expiresInSeconds, groupId === undefined, ...wanted].join();
    const ofTopic = this.known.get(topic) ?? new Map<string, Terms>();
    this.known.set(topic, ofTopic);
    const known = ofTopic.get(key);
    if (known !== undefined) return known;
    const shares = topic.subscriptions.flatMap(({ queue }, number): Share[] => {
      if (wanted[number] !== true) return [];
      try {
        return [{ ...fateOf(message, queue, index, this.now), queue, number }];
      } catch (error) {
        throw ofSubscriber(error, queue, topic);
      }
    });
    const terms = { topic, shares, queues: shares.map(({ queue }) => queue.name) };
    ofTopic.set(key, terms);
    return terms;
  }
}

/** The refusal of a queue, with its name: the client knows only the topic's. */
export function ofSubscriber(error: unknown, queue: Queue, topic: Topic): unknown {
  if (!(error instanceof RowmqError) || error.code === 'database-unavailable') return error;
  const { retryAfterSeconds } = error;
  return new RowmqError(
    error.code,
    `Queue '${queue.name}', which subscribes to topic '${topic.name}', refuses the request, so nothing was stored. ${error.message}`,
    { cause: error, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) },
  );
}
