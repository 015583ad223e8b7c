import {
  type Filter,
  LIMITS,
  matches,
  type PutSubscriptionRequest,
  type PutTopicRequest,
  readRequest,
  RowmqError,
  type SubscriptionAnswer,
  TOPIC_DEFAULTS,
  type TopicAnswer,
  topicName,
  type TopicSettings,
} from '@rowmq/contract';

interface MemorySubscription {
  /** Tells apart the copies of a message that the topic's subscriptions get. */
  readonly copy: number;
  filter: Filter | null;
  createdAt: string;
}

interface MemoryTopic extends TopicSettings {
  createdAt: string;
  subscriptions: Map<string, MemorySubscription>;
  /** The number of subscriptions so far. */
  made: number;
}

/** The topics of an `InMemoryBroker`. The first use of a topic creates it. */
export class MemoryTopics {
  readonly #topics = new Map<string, MemoryTopic>();

  /** The queues that want a message with these headers, each with the number of its copy. */
  subscribers(topic: string, headers: Readonly<Record<string, string>>): { queue: string; copy: number }[] {
    return [...this.use(topic).subscriptions]
      .filter(([, { filter }]) => matches(filter, headers))
      .map(([queue, { copy }]) => ({ queue, copy }));
  }

  /** The topic. */
  use(topic: string): MemoryTopic {
    const name = readRequest(topicName, topic);
    let known = this.#topics.get(name);
    if (known === undefined) {
      known = { ...TOPIC_DEFAULTS, createdAt: new Date().toISOString(), subscriptions: new Map(), made: 0 };
      this.#topics.set(name, known);
    }
    return known;
  }

  put(topic: string, settings: PutTopicRequest): TopicAnswer {
    Object.assign(this.use(topic), settings);
    return this.get(topic);
  }

  get(topic: string): TopicAnswer {
    const { deduplicationSeconds, createdAt, subscriptions } = this.use(topic);
    return {
      name: topic,
      deduplicationSeconds,
      createdAt,
      subscriptions: Array.from(subscriptions, ([queue, { copy: _, ...one }]) => ({ queue, ...one })).toSorted(
        (one, other) => (one.queue < other.queue ? -1 : 1),
      ),
    };
  }

  list(): TopicAnswer[] {
    return [...this.#topics.keys()].toSorted().map((name) => this.get(name));
  }

  delete(topic: string): void {
    this.#topics.delete(topic);
  }

  putSubscription(topic: string, queue: string, { filter }: PutSubscriptionRequest): SubscriptionAnswer {
    const known = this.use(topic);
    const existing = known.subscriptions.get(queue);
    if (existing !== undefined) {
      if (filter !== undefined) existing.filter = filter;
      return this.getSubscription(topic, queue);
    }
    if (known.subscriptions.size >= LIMITS.subscriptions) {
      throw new RowmqError(
        'invalid-request',
        `Topic '${topic}' has ${LIMITS.subscriptions} subscriptions already; end one first.`,
      );
    }
    const subscription = { copy: known.made, filter: filter ?? null, createdAt: new Date().toISOString() };
    known.made += 1;
    known.subscriptions.set(queue, subscription);
    return this.getSubscription(topic, queue);
  }

  getSubscription(topic: string, queue: string): SubscriptionAnswer {
    const found = this.get(topic).subscriptions.find((one) => one.queue === queue);
    if (found !== undefined) return { topic, ...found };
    throw new RowmqError('subscription-not-found', `Queue '${queue}' does not subscribe to topic '${topic}'.`);
  }

  deleteSubscription(topic: string, queue: string): void {
    this.getSubscription(topic, queue);
    this.use(topic).subscriptions.delete(queue);
  }

  /** A queue was deleted. */
  forgetQueue(queue: string): void {
    for (const { subscriptions } of this.#topics.values()) subscriptions.delete(queue);
  }
}
