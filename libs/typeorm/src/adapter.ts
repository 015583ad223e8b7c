/* For every library but TypeORM: the service says how its library runs a statement. */
import type { EncodedMessage } from '@rowmq/contract/producer';
import { inTurn } from './in-turn.js';
import { PayloadQueue } from './payload-queue.js';
import type { TransactionalQueueOptions } from './payload-sender.js';
import { PayloadTopic, type Published } from './payload-topic.js';
import type { Adapter } from './sql-transaction.js';
import { publishMessages, storeMessages } from './store-messages.js';

export { RowmqError } from '@rowmq/contract';
export { type EnqueueOptions, PayloadError, type PayloadOptions } from '@rowmq/contract/producer';
export type { TransactionalEnqueueOptions, TransactionalQueueOptions } from './payload-sender.js';
export type { Published, PublishOptions } from './payload-topic.js';
export type { Adapter, SqlTransaction } from './sql-transaction.js';

export interface AdaptedQueueOptions<Tx extends object, In = unknown, Out = In> extends TransactionalQueueOptions<
  In,
  Out
> {
  /** Fits the library's transactions to RowMQ. */
  adapter: Adapter<Tx>;
}

/**
 * A queue to enqueue to in transactions of a library that an adapter fits to RowMQ.
 *
 * Its messages follow the rules of `enqueue` for TypeORM.
 */
export class TransactionalQueue<Tx extends object, In = unknown, Out = In> extends PayloadQueue<Tx, In, Out> {
  readonly #options: AdaptedQueueOptions<Tx, In, Out>;

  constructor(name: string, options: AdaptedQueueOptions<Tx, In, Out>) {
    super(name, options);
    this.#options = options;
  }

  protected override async store(transaction: Tx, messages: EncodedMessage[]): Promise<string[]> {
    const { adapter } = this.#options;
    return inTurn(transaction, async () =>
      storeMessages(adapter(transaction), { queueName: this.name, messages }, this.#options),
    );
  }
}

/**
 * A topic to publish to in transactions of a library that an adapter fits to RowMQ.
 *
 * Its messages follow the rules of `publish` for TypeORM.
 */
export class TransactionalTopic<Tx extends object, In = unknown, Out = In> extends PayloadTopic<Tx, In, Out> {
  readonly #options: AdaptedQueueOptions<Tx, In, Out>;

  constructor(name: string, options: AdaptedQueueOptions<Tx, In, Out>) {
    super(name, options);
    this.#options = options;
  }

  protected override async store(transaction: Tx, messages: EncodedMessage[]): Promise<Published[]> {
    const { adapter } = this.#options;
    return inTurn(transaction, async () =>
      publishMessages(adapter(transaction), { topicName: this.name, messages }, this.#options),
    );
  }
}
