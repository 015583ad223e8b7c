import type { PublishAnswer } from '@rowmq/contract';
import type { EnqueueOptions, PayloadOptions } from '@rowmq/contract/producer';
import { PayloadSender } from './payload-sender.js';

/** A published message: its id, the number of queues that get it, and whether it is a duplicate. */
export type Published = PublishAnswer['messages'][number];

/** The options of one message. */
export type PublishOptions = EnqueueOptions;

/** A topic to publish to in a service's own transaction. */
export abstract class PayloadTopic<Tx, In, Out> extends PayloadSender<Tx, In, Out, Published> {
  protected constructor(
    readonly name: string,
    options: PayloadOptions<In, Out>,
  ) {
    super(`topic '${name}'`, options);
  }

  /**
   * Stores a message in the transaction, for every queue whose subscription matches. Filters choose
   * by the headers in `options`. The message exists if and only if the transaction commits.
   *
   * Throws `PayloadError`, `RowmqError` with code `topic-not-found`, `queue-full`,
   * `message-too-large` or `invalid-request`, Error for a transaction that cannot be used, and the
   * database's own errors. Roll back after any error.
   */
  async publish(transaction: Tx, payload: In, options: PublishOptions = {}): Promise<Published> {
    return this.send(transaction, payload, options);
  }

  /**
   * Stores 1 to 100 messages in the transaction. Answers for each, in order. The options hold for
   * all of them, or a function makes them for each.
   *
   * Throws as {@link publish} does, and RangeError for none or too many.
   */
  async publishMany(
    transaction: Tx,
    payloads: readonly In[],
    options: PublishOptions | ((payload: In, index: number) => PublishOptions) = {},
  ): Promise<Published[]> {
    return this.sendMany('publishMany', transaction, payloads, options);
  }
}
