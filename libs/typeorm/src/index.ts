import {
  enqueueRequest,
  formatMessageId,
  type EnqueueRequest,
  messageBytes,
  newMessageId,
  readRequest,
  RowmqError,
} from '@rowmq/contract';
import type { EntityManager } from 'typeorm';
import { storeIn } from '@rowmq/store/enqueue';

export { RowmqError };

/** Unlike `NOW_MS` right in every time zone a session may have. */
const UTC_NOW_MS = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000";

export interface TransactionalEnqueueOptions {
  /** The database on the same server that RowMQ's tables are in. Default: the connection's own. */
  database?: string | undefined;
}

/**
 * Enqueues in the caller's own transaction, for services whose data is on the database server that RowMQ uses: the messages are there if and only if it commits, and nobody sees them before. Returns their
 * ids, in order.
 *
 * Waiting consumers notice within the brokers' poll interval. A transaction that commits late is delivered late; a delay or expiry counts from this call. Until it ends it holds the queue's row, shared:
 * changes of the queue's settings wait for it. A queue with a maximum depth is held exclusively: other enqueues to it wait, so keep such transactions short.
 *
 * A maximum depth holds in READ COMMITTED; in REPEATABLE READ, TypeORM's default, the depth is that of the transaction's snapshot, and transactions that overlap may together exceed it. With `database`, one enqueue of a
 * transaction at a time.
 *
 * The user needs SELECT on `queue` and `delivery` and INSERT on `message` and `delivery`; for queues with a maximum depth UPDATE on `queue` as well.
 * @param manager that of the transaction: `dataSource.transaction((manager) => enqueue(manager, 'orders', [{ body }]))`
 * @param messages 1 to 100, as in a request to a broker
 * @throws Error where no transaction is open; `RowmqError` with code `queue-not-found`, `queue-full`, `message-too-large`, `invalid-request`, `overloaded`; what the database says. Roll back then.
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
  const stamped = request.messages.map((message, index) => ({
    ...message,
    ...messageBytes(message, index),
    id: newMessageId(),
  }));
  const query = async <T>(sql: string, values: readonly unknown[] = []): Promise<T> =>
    (await manager.query(sql, [...values])) as T;
  const [before] = await query<[{ now: number | string; own: string | null }]>(
    `SELECT ${UTC_NOW_MS} AS now, DATABASE() AS own`,
  );
  const elsewhere = database !== undefined && database !== before.own;
  if (elsewhere) await query(`USE ${quoted(database)}`);
  try {
    await storeIn({ read: query, write: query }, { queueName, messages: stamped }, Number(before.now));
  } finally {
    if (elsewhere && before.own !== null) await query(`USE ${quoted(before.own)}`);
  }
  return stamped.map(({ id }) => formatMessageId(id));
}

function quoted(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``;
}
