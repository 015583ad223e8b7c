import {
  enqueueRequest,
  formatMessageId,
  type EnqueueRequest,
  messageBytes,
  readRequest,
  RowmqError,
} from '@rowmq/contract';
import type { EntityManager } from 'typeorm';
import { storeIn } from '@rowmq/store/enqueue';

export { RowmqError };

export interface TransactionalEnqueueOptions {
  /** The database with RowMQ's tables, on the same server. Default: the connection's database. */
  database?: string | undefined;
}

/**
 * Enqueues messages in the caller's own transaction, for services whose data is on RowMQ's database
 * server. The messages exist if and only if the transaction commits, and nobody sees them before.
 * Returns their ids, in order.
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
 * With `database`, await each enqueue before the next one of the same transaction.
 *
 * The database user needs SELECT on `queue` and `delivery`, and INSERT on `pack` and `delivery`.
 * @param manager the transaction's EntityManager: `dataSource.transaction((manager) =>
 * enqueue(manager, …))`
 * @param messages 1 to 100, as in a request to a broker
 * @throws Error without an open transaction
 * @throws RowmqError with code `queue-not-found`, `queue-full`, `message-too-large` or
 * `invalid-request`
 * @throws the database's own errors. Roll back after any error.
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
  const request = readRequest(enqueueRequest, { messages });
  const made = request.messages.map((message, index) => ({ ...message, ...messageBytes(message, index) }));
  const query = async <T>(sql: string, values: readonly unknown[] = []): Promise<T> =>
    (await manager.query(sql, [...values])) as T;
  const store = (): Promise<Buffer[]> => storeIn({ read: query, write: query }, { queueName, messages: made });
  let ids: Buffer[];
  if (database === undefined) ids = await store();
  else {
    const [{ own }] = await query<[{ own: string | null }]>('SELECT DATABASE() AS own');
    await query(`USE ${quoted(database)}`);
    try {
      ids = await store();
    } finally {
      if (own !== null) await query(`USE ${quoted(own)}`);
    }
  }
  return ids.map(formatMessageId);
}

function quoted(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}
