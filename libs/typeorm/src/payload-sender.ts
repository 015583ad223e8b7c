import { LIMITS } from '@rowmq/contract';
import {
  type EncodedMessage,
  encodeMessage,
  type EnqueueOptions,
  PayloadCodec,
  type PayloadOptions,
} from '@rowmq/contract/producer';

export interface TransactionalEnqueueOptions {
  /**
   * The database with RowMQ's tables, on the same server. Its name is ASCII. Default: the
   * connection's database.
   */
  database?: string | undefined;
  /** The largest body, 1 to 262,144: the brokers' `ROWMQ_MAX_BODY_BYTES`. Default 4096. */
  maxBodyBytes?: number | undefined;
  /**
   * 1 to 128 visible ASCII characters. A repeat of the call with the same key stores nothing and
   * returns the answer to the first.
   */
  idempotencyKey?: string | undefined;
}

export interface TransactionalQueueOptions<In = unknown, Out = In>
  extends PayloadOptions<In, Out>, Omit<TransactionalEnqueueOptions, 'idempotencyKey'> {}

/** Makes messages of payloads, for one queue or topic. */
export abstract class PayloadSender<Tx, In, Out, Stored> {
  readonly #codec: PayloadCodec<In, Out>;

  /** @param where the queue or the topic, as errors name it */
  protected constructor(where: string, options: PayloadOptions<In, Out>) {
    this.#codec = new PayloadCodec(where, options);
  }

  protected abstract store(transaction: Tx, messages: EncodedMessage[]): Promise<Stored[]>;

  protected async send(transaction: Tx, payload: In, options: EnqueueOptions): Promise<Stored> {
    const message = await encodeMessage(this.#codec, payload, options);
    const [stored] = await this.store(transaction, [message]);
    return stored as Stored;
  }

  /** @param verb the caller's name, for its RangeError */
  protected async sendMany(
    verb: string,
    transaction: Tx,
    payloads: readonly In[],
    options: EnqueueOptions | ((payload: In, index: number) => EnqueueOptions),
  ): Promise<Stored[]> {
    if (payloads.length === 0 || payloads.length > LIMITS.batch) {
      throw new RangeError(`${verb} takes 1 to ${LIMITS.batch} messages; these are ${payloads.length}.`);
    }
    const messages = payloads.map(async (payload, index) =>
      encodeMessage(this.#codec, payload, typeof options === 'function' ? options(payload, index) : options),
    );
    return this.store(transaction, await Promise.all(messages));
  }
}
