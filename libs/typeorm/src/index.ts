import { type EnqueueRequest, type PublishRequest, RowmqError } from '@rowmq/contract';
import { PayloadError } from '@rowmq/contract/producer';
import type { EntityManager } from 'typeorm';
import { inTurn } from './in-turn.js';
import { PayloadQueue } from './payload-queue.js';
import type { TransactionalEnqueueOptions, TransactionalQueueOptions } from './payload-sender.js';
import { PayloadTopic, type Published } from './payload-topic.js';
import type { SqlTransaction } from './sql-transaction.js';
import { publishMessages, storeMessages } from './store-messages.js';

export type { EnqueueOptions, PayloadOptions } from '@rowmq/contract/producer';
export type { Published, PublishOptions } from './payload-topic.js';
export type { TransactionalEnqueueOptions, TransactionalQueueOptions };
export { PayloadError, RowmqError };

/**
 * Enqueues messages in the caller's own transaction, for services whose data is on RowMQ's database
 * server. The messages exist if and only if the transaction commits, and nobody sees them before.
 * Returns their ids, in order. {@link TransactionalQueue} does the same for payloads.
 *
 * The brokers notice the messages within their poll interval after COMMIT. Delays and expiries
 * count from this call.
 *
 * Until the transaction ends, nobody can delete the queue: a deletion fails with 503
 * `queue-locked`. Changes of its settings, pause and other enqueues do not wait for the
 * transaction.
 *
 * The messages follow the settings that the transaction read. In REPEATABLE READ these are as old
 * as the transaction's first read.
 *
 * Overlapping enqueues may together exceed a maximum depth: none counts the messages of another
 * that has not committed.
 *
 * A message whose `deduplicationId` the queue remembers is not stored, and its id is that of the
 * first. Until the transaction ends, others that enqueue with the same ids or key wait for it. They
 * give up after two seconds, with `enqueue-in-progress`, and so does this call.
 *
 * In an ordered queue, the transaction locks the groups of its messages until it ends: other
 * enqueues and acks of these groups wait.
 *
 * The database user needs SELECT on `queue` and `delivery`, and INSERT on `pack` and `delivery`.
 * For ids and keys it also needs SELECT, INSERT, UPDATE and DELETE on `deduplication`.
 * For ordered queues it needs SELECT, INSERT and UPDATE on `message_group`.
 * @param manager the transaction's EntityManager: `dataSource.transaction((manager) =>
 * enqueue(manager, …))`
 * @param messages 1 to 100, as in a request to a broker
 * @throws Error without an open transaction, or at an isolation level that cannot work
 * @throws RangeError for a `database` or a `maxBodyBytes` that cannot be
 * @throws RowmqError with code `queue-not-found`, `queue-full`, `queue-paused`,
 * `message-too-large`, `invalid-request`, `idempotency-key-reused` or `enqueue-in-progress`
 * @throws the database's own errors. Roll back after any error.
 */
export async function enqueue(
  manager: EntityManager,
  queueName: string,
  messages: EnqueueRequest['messages'],
  options: TransactionalEnqueueOptions = {},
): Promise<string[]> {
  return inTransaction('enqueue', manager, async (transaction) =>
    storeMessages(transaction, { queueName, messages }, options),
  );
}

/**
 * Publishes messages in the caller's own transaction, as {@link enqueue} enqueues them. They reach
 * the queues whose subscriptions match at this call. Answers for each message, in order: its id,
 * and the number of those queues.
 *
 * Until the transaction ends, nobody can delete these queues. The topic and its subscriptions can
 * change.
 *
 * The database user needs what {@link enqueue} needs, and SELECT on `topic` and `subscription`.
 * @param manager the transaction's EntityManager
 * @param messages 1 to 100, as in a request to a broker
 * @throws as {@link enqueue} does, with `topic-not-found` instead of `queue-not-found`
 */
export async function publish(
  manager: EntityManager,
  topicName: string,
  messages: PublishRequest['messages'],
  options: TransactionalEnqueueOptions = {},
): Promise<Published[]> {
  return inTransaction('publish', manager, async (transaction) =>
    publishMessages(transaction, { topicName, messages }, options),
  );
}

async function inTransaction<T>(
  verb: string,
  manager: EntityManager,
  work: (transaction: SqlTransaction) => Promise<T>,
): Promise<T> {
  const { queryRunner } = manager;
  if (queryRunner?.isTransactionActive !== true) {
    throw new Error(
      `${verb} needs the EntityManager of an open transaction: dataSource.transaction((manager) => ${verb}(manager, …)). Without one, use the HTTP client.`,
    );
  }
  // A rollback may come between two statements, for example when another promise of a Promise.all
  // fails. The next statement would commit by itself.
  const run = async (sql: string): Promise<unknown> => {
    if (queryRunner.isTransactionActive) return manager.query(sql);
    throw new Error(
      `${verb} was still at work when its transaction ended; await it before COMMIT or ROLLBACK. It needs an open transaction.`,
    );
  };
  return inTurn(queryRunner, async () => work({ read: run, write: run }));
}

/** A queue to enqueue to in TypeORM's transactions, with the payloads of a client's `Queue`. */
export class TransactionalQueue<In = unknown, Out = In> extends PayloadQueue<EntityManager, In, Out> {
  readonly #options: TransactionalEnqueueOptions;

  constructor(name: string, options: TransactionalQueueOptions<In, Out> = {}) {
    super(name, options);
    this.#options = options;
  }

  protected override async store(manager: EntityManager, messages: EnqueueRequest['messages']): Promise<string[]> {
    return enqueue(manager, this.name, messages, this.#options);
  }
}

/** A topic to publish to in TypeORM's transactions, with the payloads of a client's `Topic`. */
export class TransactionalTopic<In = unknown, Out = In> extends PayloadTopic<EntityManager, In, Out> {
  readonly #options: TransactionalEnqueueOptions;

  constructor(name: string, options: TransactionalQueueOptions<In, Out> = {}) {
    super(name, options);
    this.#options = options;
  }

  protected override async store(manager: EntityManager, messages: PublishRequest['messages']): Promise<Published[]> {
    return publish(manager, this.name, messages, this.#options);
  }
}
