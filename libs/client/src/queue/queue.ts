import type { EnqueueOptions, PayloadCodec, PayloadOptions } from '@rowmq/contract/producer';
import type { BrokerClient } from '../broker-client.js';
import { Sender } from './sender.js';

/** A queue to enqueue to. Calls in the same turn of the event loop share a request. */
export class Queue<In = unknown, Out = In> {
  readonly codec: PayloadCodec<In, Out>;
  readonly #sender: Sender<In, Out, string>;

  constructor(
    readonly client: BrokerClient,
    readonly name: string,
    options: PayloadOptions<In, Out> = {},
  ) {
    this.#sender = new Sender(`queue '${name}'`, options, async (messages) =>
      (await client.enqueue(name, { messages })).messages.map(({ id }) => id),
    );
    this.codec = this.#sender.codec;
  }

  /**
   * Stores a message. Returns its id, a UUIDv7, once it is durable.
   *
   * Nothing is stored if it throws `PayloadError`, or `RowmqError` with code `queue-not-found`,
   * `queue-full`, `queue-paused`, `message-too-large` or `invalid-request`. `isOutcomeUnknown`
   * tells whether the messages may have been stored after another error.
   */
  async enqueue(payload: In, options: EnqueueOptions = {}): Promise<string> {
    return this.#sender.send(payload, options);
  }

  /**
   * Stores 1 to 100 messages, all or none. Returns their ids, in order. The options hold for all of
   * them, or a function makes them for each.
   *
   * Throws as {@link enqueue} does, and RangeError for none or too many.
   */
  async enqueueMany(
    payloads: readonly In[],
    options: EnqueueOptions | ((payload: In, index: number) => EnqueueOptions) = {},
  ): Promise<string[]> {
    return this.#sender.sendMany('enqueueMany', payloads, options);
  }
}
