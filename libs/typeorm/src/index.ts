import {
  enqueueRequest,
  formatMessageId,
  type EnqueueRequest,
  messageBytes,
  newMessageId,
  RowmqError,
} from '@rowmq/contract';
import type { EntityManager } from 'typeorm';
import { z } from 'zod';
import { storeIn } from '@rowmq/store/enqueue';

export { RowmqError };

export interface TransactionalEnqueueOptions {
  /** The database on the same server that RowMQ's tables are in. Default: the connection's own. */
  database?: string | undefined;
}

/**
 * Enqueues in the caller's own transaction, for services whose data is on the database server that
 * RowMQ uses: the messages are there if and only if it commits, and nobody sees them before.
 * Returns their ids, in order.
 *
 * Waiting consumers notice within the brokers' poll interval. A transaction that commits late is
 * delivered late; a delay or expiry counts from this call. Until it ends it holds the queue's row,
 * shared: changes of the queue's settings wait for it. A queue with a maximum depth is held
 * exclusively: other enqueues to it wait, so keep such transactions short.
 *
 * A maximum depth holds in READ COMMITTED; in REPEATABLE READ, TypeORM's default, the depth is that
 * of the transaction's snapshot, and transactions that overlap may together exceed it. With
 * `database`, one enqueue of a transaction at a time.
 *
 * The user needs SELECT on `queue` and `delivery` and INSERT on `message` and `delivery`; for
 * queues with a maximum depth UPDATE on `queue` as well.
 * @param manager that of the transaction: `dataSource.transaction((manager) => enqueue(manager,
 * 'orders', [{ body }]))`
 * @param messages 1 to 100, as in a request to a broker
 * @throws Error where no transaction is open; `RowmqError` with code `queue-not-found`,
 * `queue-full`, `message-too-large`, `invalid-request`, `overloaded`; what the database says. Roll
 * back then.
 */
export async function enqueue(
  manager: EntityManager,
  queueName: string,
  messages: EnqueueRequest['messages'],
  { database }: TransactionalEnqueueOptions = {},
): Promise<string[]> {
  if (manager.queryRunner?.isTransactionActive !== true) {
    throw new Error(
      'enqueue needs the EntityManager of an open transaction: dataSource.transaction((manager) => enqueue(manager, …)). Without one, use the HTTP client.',
    );
  }
  const request = enqueueRequest.safeParse({ messages });
  if (!request.success) throw new RowmqError('invalid-request', z.prettifyError(request.error));
  const stamped = request.data.messages.map((message, index) => ({
    ...message,
    ...messageBytes(message, index),
    id: newMessageId(),
  }));
  const query = async <T>(sql: string, values: readonly unknown[] = []): Promise<T> =>
    (await manager.query(sql, [...values])) as T;
  const store = (): Promise<void> => storeIn({ read: query, write: query }, { queueName, messages: stamped });
  if (database === undefined) await store();
  else {
    const [{ own }] = await query<[{ own: string | null }]>('SELECT DATABASE() AS own');
    await query(`USE ${quoted(database)}`);
    try {
      await store();
    } finally {
      if (own !== null) await query(`USE ${quoted(own)}`);
    }
  }
  return stamped.map(({ id }) => formatMessageId(id));
}

function quoted(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}
