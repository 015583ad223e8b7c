import {
  type EnqueueMessage,
  enqueueRequest,
  type EnqueueRequest,
  formatMessageId,
  idempotencyKey as idempotencyKeySchema,
  LIMITS,
  messageBytes,
  type PublishAnswer,
  type PublishMessage,
  publishRequest,
  type PublishRequest,
  queueName,
  readRequest,
  type SizeLimits,
  sizeLimits,
  topicName,
} from '@rowmq/contract';
import { type NewMessage, storeIn } from '@rowmq/store/enqueue';
import { type ForeignTransaction, publishIn } from '@rowmq/store/publish';
import { quotedName, withLiterals } from './literal.js';
import type { TransactionalEnqueueOptions } from './payload-sender.js';
import type { SqlTransaction } from './sql-transaction.js';

/**
 * All of a statement is ASCII, which means the same in every character set that a connection can
 * have. In GBK, the last byte of another character would take the quote behind it along.
 */
const ASCII_NAME = /^[ -~]{1,64}$/;

/** Enqueues messages in a transaction that is open. Returns their ids, in order. */
export async function storeMessages(
  transaction: SqlTransaction,
  enqueued: { queueName: string; messages: EnqueueRequest['messages'] },
  options: TransactionalEnqueueOptions,
): Promise<string[]> {
  const { tx, sizes, idempotencyKey } = readOptions(transaction, options);
  const { messages } = readRequest(enqueueRequest, { messages: enqueued.messages }, sizes);
  const stored = await storeIn(tx, {
    queueName: readRequest(queueName, enqueued.queueName),
    idempotencyKey,
    messages: messages.map((message, index) => toNewMessage(message, index, sizes)),
  });
  return stored.map(({ id }) => formatMessageId(id));
}

/** Publishes messages in a transaction that is open. Answers for each, in order. */
export async function publishMessages(
  transaction: SqlTransaction,
  published: { topicName: string; messages: PublishRequest['messages'] },
  options: TransactionalEnqueueOptions,
): Promise<PublishAnswer['messages']> {
  const { tx, sizes, idempotencyKey } = readOptions(transaction, options);
  const { messages } = readRequest(publishRequest, { messages: published.messages }, sizes);
  const stored = await publishIn(tx, {
    topicName: readRequest(topicName, published.topicName),
    idempotencyKey,
    messages: messages.map((message, index) => ({
      ...toNewMessage(message, index, sizes),
      values: message.headers ?? {},
    })),
  });
  return stored.map(({ id, subscriptions, duplicate }) => ({
    id: formatMessageId(id),
    subscriptions,
    ...(duplicate && { duplicate }),
  }));
}

/** Throws RangeError for options that cannot be. */
function readOptions(
  transaction: SqlTransaction,
  { database, maxBodyBytes = LIMITS.bodyBytesDefault, idempotencyKey }: TransactionalEnqueueOptions,
): { tx: ForeignTransaction; sizes: SizeLimits; idempotencyKey: string | undefined } {
  if (!Number.isInteger(maxBodyBytes) || maxBodyBytes < 1 || maxBodyBytes > LIMITS.bodyBytesMost) {
    throw new RangeError(
      `maxBodyBytes is ${maxBodyBytes}; give the brokers' ROWMQ_MAX_BODY_BYTES, a whole number from 1 to ${LIMITS.bodyBytesMost}.`,
    );
  }
  if (database !== undefined && !ASCII_NAME.test(database)) {
    throw new RangeError(
      `database is '${database}'; give the name of RowMQ's database, 1 to 64 characters of printable ASCII.`,
    );
  }
  return {
    tx: {
      schema: database === undefined ? '' : `${quotedName(database)}.`,
      read: async <Row>(sql: string, values: readonly unknown[] = []) =>
        rowsOf(await transaction.read(withLiterals(sql, values))) as Row[],
      write: async (sql, values = []) => transaction.write(withLiterals(sql, values)),
    },
    sizes: sizeLimits(maxBodyBytes),
    idempotencyKey: readRequest(idempotencyKeySchema, idempotencyKey),
  };
}

/** @param index its place in the request, for errors */
function toNewMessage(
  { bodyEncoding, availableAt, ...message }: EnqueueMessage | PublishMessage,
  index: number,
  sizes: SizeLimits,
): NewMessage {
  return {
    ...message,
    ...messageBytes({ ...message, bodyEncoding }, index, sizes),
    availableAt: availableAt === undefined ? undefined : Date.parse(availableAt),
  };
}

/** Refuses an answer that is not the rows. Drivers often return the rows inside another array. */
function rowsOf(answer: unknown): object[] {
  if (!Array.isArray(answer)) {
    throw new TypeError(
      `The adapter's read returned ${answer === null ? 'null' : typeof answer}; return the rows of the SELECT as an array of objects.`,
    );
  }
  for (const row of answer as unknown[]) {
    if (Array.isArray(row)) {
      throw new TypeError(
        "The adapter's read returned an array of arrays; return the rows as objects. With mysql2, the rows are the first element of what query() returns.",
      );
    }
    if (typeof row !== 'object' || row === null) {
      throw new TypeError(`The adapter's read returned an array of ${typeof row}; return the rows as objects.`);
    }
  }
  return (answer as object[]).map((row) =>
    Object.fromEntries(Object.entries(row).map(([column, value]) => [column, asMysql2(value)])),
  );
}

/** Prisma returns integers as BigInt, and bytes without the methods of a Buffer. */
function asMysql2(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return value;
}
