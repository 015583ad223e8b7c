import { type ErrorCode, queueName, readRequest, RowmqError, topicName } from '@rowmq/contract';
import type { BrokerClient, CallOptions } from '../broker-client.js';

/**
 * No broker ever gave this receipt. An ack of it tells whether the queue exists, with any API key
 * that may consume.
 */
const NO_RECEIPT = 'is-there-such-a-queue';

/**
 * Would expire before its delay ends, so no queue takes it. An enqueue of it tells whether the
 * queue exists, with any API key that may enqueue.
 */
const NEVER_STORED = { body: '', delaySeconds: 1, expiresInSeconds: 1 };

/** A queue that exists may refuse {@link NEVER_STORED} with one of these. */
const REFUSALS = new Set<ErrorCode>(['invalid-request', 'queue-paused', 'queue-full']);

/**
 * Passes if the queue exists and the API key may use it. A consumer needs the scope `dequeue`. Any
 * other user needs `dequeue` or `enqueue`, because nobody knows which verbs it calls.
 * @throws RowmqError such as `queue-not-found` or `forbidden`
 */
export async function assertUsableQueue(
  client: BrokerClient,
  { name, isConsumed }: { name: string; isConsumed: boolean },
  options: CallOptions,
): Promise<void> {
  readRequest(queueName, name);
  const ack = client.ack(name, { receipts: [NO_RECEIPT] }, options);
  await (isConsumed ? ack : orElse(ack, () => client.enqueue(name, { messages: [NEVER_STORED] }, options)));
}

/**
 * Passes if the topic exists, and the API key may read it or publish to it.
 * @throws RowmqError such as `topic-not-found` or `forbidden`
 */
export async function assertUsableTopic(client: BrokerClient, name: string, options: CallOptions): Promise<void> {
  readRequest(topicName, name);
  // Without a subscription, the topic takes the message, and it is stored nowhere.
  await orElse(client.getTopic(name, options), () => client.publish(name, { messages: [NEVER_STORED] }, options));
}

/** If the API key may not make the first call, its right to make the second counts. */
async function orElse(first: Promise<unknown>, sendNeverStored: () => Promise<unknown>): Promise<void> {
  try {
    await first;
  } catch (error) {
    if (!isOf(error, 'forbidden')) throw error;
    await sendNeverStored().catch((refusal: unknown) => {
      if (!(refusal instanceof RowmqError && REFUSALS.has(refusal.code))) throw refusal;
    });
  }
}

export function isOf(error: unknown, code: ErrorCode): boolean {
  return error instanceof RowmqError && error.code === code;
}
