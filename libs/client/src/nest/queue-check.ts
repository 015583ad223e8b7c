import type { Filter, PutQueueRequest, PutTopicRequest } from '@rowmq/contract';
import type { BrokerClient } from '../broker-client.js';
import type { BootStep } from './boot-check.js';
import { RowmqConfigurationError } from './rowmq-configuration.error.js';
import { assertUsableQueue, assertUsableTopic, isOf } from './usable.js';

/** A queue that an application uses, and whether to create it. */
export interface NeededQueue {
  /** 1 to 80 of the characters A-Z a-z 0-9 . _ - */
  name: string;
  /**
   * `true` or settings create the queue at boot if it is missing. An existing queue stays as it is.
   * Needs an API key with that right. By default a missing queue is an error.
   */
  create?: boolean | PutQueueRequest | undefined;
  /**
   * `true` also applies the settings of `create` to an existing queue, at every boot. That undoes
   * what an operator changed meanwhile.
   */
  update?: boolean | undefined;
  /**
   * The topics to which it subscribes, at every boot. A missing topic is an error. A filter
   * replaces that of an existing subscription, which otherwise stays as it is.
   */
  subscribeTo?: readonly { topic: string; filter?: Filter | null | undefined }[] | undefined;
}

/** A topic that an application publishes to, and whether to create it. */
export interface NeededTopic {
  /** 1 to 80 of the characters A-Z a-z 0-9 . _ - */
  name: string;
  /**
   * `true` or settings create the topic at boot if it is missing, and settings also apply to an
   * existing one. By default a missing topic is an error.
   */
  create?: boolean | PutTopicRequest | undefined;
}

/** The queues and topics that an application uses on one connection. */
export interface Needed {
  queues: readonly NeededQueue[];
  /** The names of those queues that it consumes. */
  consumed: ReadonlySet<string>;
  topics?: readonly NeededTopic[];
}

/** Makes sure at boot that the topics and queues of an application exist. */
export class QueueCheck {
  readonly #client: BrokerClient;

  constructor(client: BrokerClient) {
    this.#client = client;
  }

  /**
   * The steps of the check: the topics, then the queues, dead-letter queues before those that use
   * them. The fault of a step is a queue or a topic that is missing, or that the API key may not
   * use.
   * @throws RowmqConfigurationError for a queue that cannot be
   */
  steps({ queues, consumed, topics = [] }: Needed): BootStep[] {
    for (const queue of queues) assertComplete(queue);
    return [
      ...topics.map((topic) => this.#topicStep(topic)),
      ...deadLetterQueuesFirst(queues).map((queue) => this.#queueStep(queue, consumed.has(queue.name))),
    ];
  }

  #topicStep({ name, create }: NeededTopic): BootStep {
    return {
      notYet: `Topic '${name}' could not be checked yet`,
      run: async (options) => {
        if (create) await this.#client.putTopic(name, typeof create === 'object' ? create : {}, options);
        else await assertUsableTopic(this.#client, name, options);
      },
      asFault: (cause) =>
        new RowmqConfigurationError(
          isOf(cause, 'topic-not-found')
            ? `Topic '${name}' does not exist: create it with PUT /v1/admin/topics/${name}, or register it with create: true.`
            : `Topic '${name}' cannot be used: ${(cause as Error).message}`,
          { cause },
        ),
    };
  }

  #queueStep(queue: NeededQueue, isConsumed: boolean): BootStep {
    const { name, create, update, subscribeTo = [] } = queue;
    const settings = typeof create === 'object' ? create : {};
    return {
      notYet: `Queue '${name}' could not be checked yet`,
      run: async (options) => {
        if (update === true) await this.#client.putQueue(name, settings, options);
        else if (create) await this.#client.createQueue(name, settings, options);
        else await assertUsableQueue(this.#client, { name, isConsumed }, options);
        for (const { topic, filter } of subscribeTo)
          await this.#client.putSubscription(topic, name, filter === undefined ? {} : { filter }, options);
      },
      asFault: (error) => asFault(queue, error),
    };
  }
}

/** @throws RowmqConfigurationError for `update` without settings, which would change nothing */
export function assertComplete({ name, create, update }: NeededQueue): void {
  if (update !== true || typeof create === 'object') return;
  throw new RowmqConfigurationError(
    `Queue '${name}' has update: true but no settings: say create: { … }, or remove update.`,
  );
}

/** The queue that takes its dead letters, if its registration says so. */
function deadLetterQueueOf({ create }: NeededQueue): string | undefined {
  return typeof create === 'object' ? (create.deadLetterQueue ?? undefined) : undefined;
}

/** Each queue after its dead-letter queue. A circle has no such order: the broker refuses it. */
function deadLetterQueuesFirst(needed: readonly NeededQueue[]): NeededQueue[] {
  const byName = new Map(needed.map((queue) => [queue.name, queue]));
  const sorted = new Set<NeededQueue>();
  const visit = (queue: NeededQueue, users: readonly NeededQueue[]): void => {
    if (sorted.has(queue) || users.includes(queue)) return;
    const target = byName.get(deadLetterQueueOf(queue) ?? '');
    if (target !== undefined) visit(target, [...users, queue]);
    sorted.add(queue);
  };
  for (const queue of needed) visit(queue, []);
  return [...sorted];
}

function asFault({ name, create, subscribeTo = [] }: NeededQueue, error: unknown): RowmqConfigurationError {
  if (isOf(error, 'topic-not-found')) {
    const topics = subscribeTo.map(({ topic }) => `'${topic}'`).join(', ');
    return new RowmqConfigurationError(
      `Queue '${name}' subscribes to ${topics}, and one of these topics does not exist: create it, or register it with create: true. ${(error as Error).message}`,
      { cause: error },
    );
  }
  if (isOf(error, 'queue-not-found')) {
    return new RowmqConfigurationError(
      `Queue '${name}' does not exist: create it with PUT /v1/admin/queues/${name}, or use it with create: true.`,
      { cause: error },
    );
  }
  const deadLetterQueue = deadLetterQueueOf({ name, create });
  const hint =
    deadLetterQueue === undefined ? '' : ` Its registration names the dead-letter queue '${deadLetterQueue}'.`;
  return new RowmqConfigurationError(`Queue '${name}' cannot be used: ${(error as Error).message}${hint}`, {
    cause: error,
  });
}
