import type { EnqueueOptions, PayloadOptions } from '@rowmq/contract/producer';
import { PayloadSender } from './payload-sender.js';

/** A queue to enqueue to in a service's own transaction. */
export abstract class PayloadQueue<Tx, In, Out> extends PayloadSender<Tx, In, Out, string> {
  protected constructor(
    readonly name: string,
    options: PayloadOptions<In, Out>,
  ) {
    super(`queue '${name}'`, options);
  }

  /**
   * Stores a message in the transaction. Returns its id, a UUIDv7. The message exists if and only
   * if the transaction commits.
   *
   * Throws `PayloadError`, `RowmqError` with code `queue-not-found`, `queue-full`, `queue-paused`,
   * `message-too-large` or `invalid-request`, Error for a transaction that cannot be used, and the
   * database's own errors. Roll back after any error.
   */
  async enqueue(transaction: Tx, payload: In, options: EnqueueOptions = {}): Promise<string> {
    return this.send(transaction, payload, options);
  }

  /**
   * Stores 1 to 100 messages in the transaction. Returns their ids, in order. The options hold for
   * all of them, or a function makes them for each.
   *
   * Throws as {@link enqueue} does, and RangeError for none or too many.
   */
  async enqueueMany(
    transaction: Tx,
    payloads: readonly In[],
    options: EnqueueOptions | ((payload: In, index: number) => EnqueueOptions) = {},
  ): Promise<string[]> {
    return this.sendMany('enqueueMany', transaction, payloads, options);
  }
}
