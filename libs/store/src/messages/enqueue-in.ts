import { RowmqError } from '@rowmq/contract';
import { UTC_NOW_MS } from '../database/clock.js';
import { storeInOrder } from '../groups/store-in-order.js';
import { QUEUE_COLUMNS, queueNotFound, type QueueRow, toQueue } from '../queues/queue.js';
import { Deduplication, inQueue, isDeduplicated, toAnswer } from './deduplication.js';
import { NO_TOKEN } from './delivery.sql.js';
import { countMessages, refuseIfFull } from './depth-gauge.js';
import { insertNewDeliveries, rowsOf } from './enqueue.sql.js';
import {
  assertUsable,
  type ForeignTransaction,
  numbers,
  textOf,
  TRANSACTION_FACTS,
  type TransactionFacts,
} from './foreign-transaction.js';
import { type Admitted, type EnqueueRequest, type NewMessage, schedule } from './new-message.js';
import { insertPacks } from './pack.sql.js';
import { packMessages } from './packing.js';
import type { EnqueuedMessage } from './recorded-answer.js';
import { RecordsInTransaction } from './records-in-transaction.js';

export type { NewMessage };

/**
 * Stores the messages of one request in the caller's transaction, and returns their ids. It does
 * not commit, retry, or notify waiting consumers.
 *
 * Throws `queue-not-found`, `queue-full` or `invalid-request`, and Error for a transaction that
 * cannot be used.
 *
 * Shares the queue's entry in `queue_by_name` until the caller's transaction ends. That keeps the
 * queue from being deleted, and hinders no change of its settings. In REPEATABLE READ the settings
 * are those of the transaction's snapshot. A queue that is younger than the snapshot is not found.
 */
export async function storeIn(tx: ForeignTransaction, request: EnqueueRequest): Promise<EnqueuedMessage[]> {
  const { queueName } = request;
  const { schema = '' } = tx;
  // Without a lock: in REPEATABLE READ, a locking read of a missing name locks a gap between names.
  const [row] = await tx.read<QueueRow & TransactionFacts>(
    `SELECT ${QUEUE_COLUMNS}, ${TRANSACTION_FACTS} FROM ${schema}queue WHERE name = ?`,
    [queueName],
  );
  if (row === undefined) throw notFoundIn(queueName);
  const { name, ordering, level, isOpen, ...settings } = row;
  assertUsable({ level, isOpen });
  const queue = toQueue({ ...numbers(settings), name: textOf(name), ordering: ordering && textOf(ordering) });
  // The index has all columns that this reads, so it locks the entry and not the row.
  const [locked] = await tx.read<{ id: number; now: number }>(
    `SELECT id, ${UTC_NOW_MS} AS now FROM ${schema}queue FORCE INDEX (queue_by_name) WHERE name = ? LOCK IN SHARE MODE`,
    [queueName],
  );
  if (locked === undefined) throw notFoundIn(queueName);
  const { id, now } = numbers(locked);
  if (id !== queue.id) throw notFoundIn(queueName);
  const records = isDeduplicated(request)
    ? await RecordsInTransaction.claim<Admitted>(tx, inQueue(queue), request, now)
    : undefined;
  const plan = (records?.deduplication ?? new Deduplication<Admitted>()).plan(
    inQueue(queue),
    request,
    (message, index) => schedule(message, queue, index, now),
  );
  const { messages } = plan;
  if (messages.length > 0) {
    if (queue.maxDepth !== null) {
      const depth = await countMessages(tx, queue.id, queue.maxDepth, { clock: UTC_NOW_MS, schema });
      refuseIfFull(queue.maxDepth, depth, messages.length);
    }
    if (queue.ordering === null) {
      const rows = rowsOf(queue.id, now, packMessages(messages), NO_TOKEN);
      await tx.write(insertPacks(rows.packs, { schema }).sql);
      await tx.write(insertNewDeliveries(rows.deliveries, schema).sql);
    } else await storeInOrder(tx, queue.id, messages, now);
  }
  await records?.complete(plan.records());
  return toAnswer(plan);
}

function notFoundIn(name: string): RowmqError {
  const { message } = queueNotFound(name);
  return new RowmqError(
    'queue-not-found',
    `${message} A transaction in REPEATABLE READ does not see a queue that was created after its first read.`,
  );
}
