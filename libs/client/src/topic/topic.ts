import type { PublishAnswer } from '@rowmq/contract';
import type { BrokerClient } from '../broker-client.js';
import type { EnqueueOptions, PayloadOptions } from '@rowmq/contract/producer';
import { Sender } from '../queue/sender.js';

/** A published message: its id, the number of queues that got it, and whether it is a duplicate. */
export type Published = PublishAnswer['messages'][number];

/** The options of one message. */
export interface PublishOptions extends EnqueueOptions {
  /**
   * 1 to 128 characters. A further message with this id is not stored within the topic's
   * `deduplicationSeconds`. Its publish returns the first one, with `duplicate: true`.
   */
  deduplicationId?: string | undefined;
  /** 1 to 128 characters. Required if a queue with ordering `group` gets the message. */
  groupId?: string | undefined;
}

/** A topic to publish to. Calls in the same turn of the event loop share a request. */
export class Topic<In = unknown> {
  readonly #sender: Sender<In, unknown, Published>;

  constructor(
    readonly client: BrokerClient,
    readonly name: string,
    options: PayloadOptions<In, unknown> = {},
  ) {
    this.#sender = new Sender(
      `topic '${name}'`,
      options,
      async (messages) => (await client.publish(name, { messages })).messages,
    );
  }

  /**
   * Stores a message for every queue whose subscription matches. Returns once it is durable.
   * Filters choose by the headers in `options`.
   *
   * Nothing is stored if it throws `PayloadError`, or `RowmqError` with code `topic-not-found`,
   * `queue-full`, `queue-paused`, `message-too-large` or `invalid-request`. `isOutcomeUnknown`
   * tells whether the messages may have been stored after another error.
   */
  async publish(payload: In, options: PublishOptions = {}): Promise<Published> {
    return this.#sender.send(payload, options);
  }

  /**
   * Stores 1 to 100 messages, all or none. Answers for each, in order. The options hold for all of
   * them, or a function makes them for each.
   *
   * Throws as {@link publish} does, and RangeError for none or too many.
   */
  async publishMany(
    payloads: readonly In[],
    options: PublishOptions | ((payload: In, index: number) => PublishOptions) = {},
  ): Promise<Published[]> {
    return this.#sender.sendMany('publishMany', payloads, options);
  }
}
