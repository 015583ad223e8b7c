import { randomBytes } from 'node:crypto';
import {
  type AckAnswer,
  ackRequest,
  type AckRequest,
  bodyEncodingOf,
  decodeReceipt,
  type DequeueAnswer,
  dequeueRequest,
  encodeReceipt,
  type EnqueueAnswer,
  type EnqueueMessage,
  enqueueRequest,
  type EnqueueRequest,
  type DequeueRequest,
  type ExtendAnswer,
  type ExtendRequest,
  extendRequest,
  type FailedReceipt,
  formatMessageId,
  type LeasedMessage,
  messageBytes,
  type NackAnswer,
  type NackRequest,
  nackRequest,
  newMessageId,
  putQueueRequest,
  type PutQueueRequest,
  QUEUE_DEFAULTS,
  type QueueSettings,
  type Receipt,
  RowmqError,
} from '@rowmq/contract';
import { type CallOptions, BrokerClient } from '../broker-client.js';

/** A delivery in memory. Times: ms since 1970, by this process's clock. */
interface Entry {
  id: Buffer;
  body: Buffer;
  headers: Record<string, string>;
  priority: number;
  enqueuedAt: number;
  expiresAt: number;
  availableAt: number;
  receiveCount: number;
  /** Of the lease that it is or was under; undefined if it was given back, or there was none. */
  leaseToken: Buffer | undefined;
  nackReason: string | undefined;
}

interface MemoryQueue {
  settings: QueueSettings;
  /** By message id. */
  entries: Map<string, Entry>;
}

/** What {@link InMemoryBroker.messages} tells of a delivery. */
export type MemoryMessage = Pick<
  LeasedMessage,
  'id' | 'body' | 'bodyEncoding' | 'headers' | 'priority' | 'receiveCount'
> & {
  nackReason: string | undefined;
  availableAt: Date;
};

const TOKEN_BYTES = 8;

const POLL_MS = 5;

/**
 * A broker in this process's memory, for tests of services that use RowMQ: the same verbs with the same outcomes, without HTTP, a database, or durability. A queue comes into being when it is first used,
 * with the settings of a new one, unless `putQueue` gave it others.
 */
export class InMemoryBroker extends BrokerClient {
  readonly #queues = new Map<string, MemoryQueue>();
  #isClosed = false;

  async enqueue(queue: string, request: EnqueueRequest): Promise<EnqueueAnswer> {
    const { messages } = valid(enqueueRequest, request);
    const { settings, entries } = this.#queue(queue);
    const made = messages.map((message, index) => newEntry(message, index, settings));
    if (settings.maxDepth !== null && entries.size + made.length > settings.maxDepth) {
      throw new RowmqError('queue-full', `The queue holds ${entries.size} of at most ${settings.maxDepth} deliveries.`);
    }
    const ids = made.map((entry) => {
      const id = formatMessageId(entry.id);
      entries.set(id, entry);
      return { id };
    });
    return { messages: ids };
  }

  async dequeue(queue: string, request: DequeueRequest = {}, { signal }: CallOptions = {}): Promise<DequeueAnswer> {
    const { maxMessages, waitSeconds, leaseSeconds } = valid(dequeueRequest, request);
    const until = Date.now() + waitSeconds * 1000;
    for (;;) {
      signal?.throwIfAborted();
      const messages = this.#take(queue, maxMessages, leaseSeconds);
      if (messages.length > 0 || Date.now() >= until || this.#isClosed) return { messages };
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async ack(queue: string, request: AckRequest): Promise<AckAnswer> {
    const { receipts } = valid(ackRequest, request);
    const { done, failed } = this.#settle(queue, receipts, (entry, { entries }) => {
      entries.delete(formatMessageId(entry.id));
    });
    return { acked: done, failed };
  }

  async nack(queue: string, request: NackRequest): Promise<NackAnswer> {
    const { receipts, delaySeconds, deadLetter, reason } = valid(nackRequest, request);
    const { deadLetterQueue } = this.#queue(queue).settings;
    if (deadLetter && deadLetterQueue === null) {
      throw new RowmqError('invalid-request', `Queue '${queue}' has no dead-letter queue.`);
    }
    const { done, failed } = this.#settle(queue, receipts, (entry, from) => {
      Object.assign(entry, {
        availableAt: Date.now() + delaySeconds * 1000,
        leaseToken: undefined,
        nackReason: reason,
      });
      if (deadLetter) this.#move(entry, from, deadLetterQueue as string);
    });
    return { nacked: done, failed };
  }

  async extend(queue: string, request: ExtendRequest): Promise<ExtendAnswer> {
    const { receipts, leaseSeconds } = valid(extendRequest, request);
    const availableAt = Date.now() + leaseSeconds * 1000;
    const { done, failed } = this.#settle(queue, receipts, (entry) => Object.assign(entry, { availableAt }));
    const leaseExpiresAt = new Date(availableAt).toISOString();
    return { extended: done.map((receipt) => ({ receipt, leaseExpiresAt })), failed };
  }

  async putQueue(queue: string, settings: PutQueueRequest = {}): Promise<void> {
    const given = valid(putQueueRequest, settings);
    if (given.deadLetterQueue === queue) {
      throw new RowmqError('invalid-request', 'A queue cannot be its own dead-letter queue; name another, or null.');
    }
    Object.assign(this.#queue(queue).settings, given);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }

  /** What is in a queue, in whatever state, in the order in which it was enqueued. */
  messages(queue: string): MemoryMessage[] {
    return [...this.#queue(queue).entries.values()].map((entry) => ({
      ...contentOf(entry),
      receiveCount: entry.receiveCount,
      nackReason: entry.nackReason,
      availableAt: new Date(entry.availableAt),
    }));
  }

  /** Resolves when nothing is in a queue any more. Throws Error after `timeoutMs`, which says what is left. */
  async drained(queue: string, timeoutMs = 5000): Promise<void> {
    const until = Date.now() + timeoutMs;
    while (this.#queue(queue).entries.size > 0) {
      if (Date.now() > until) {
        const left = this.messages(queue).map(
          ({ id, receiveCount, nackReason }) => `${id} (received ${receiveCount} times, ${nackReason ?? 'no reason'})`,
        );
        throw new Error(`Queue '${queue}' was not drained within ${timeoutMs} ms: ${left.join(', ')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  #queue(name: string): MemoryQueue {
    const known = this.#queues.get(name);
    if (known !== undefined) return known;
    const queue: MemoryQueue = { settings: { ...QUEUE_DEFAULTS }, entries: new Map() };
    this.#queues.set(name, queue);
    return queue;
  }

  #take(name: string, maxMessages: number, leaseSeconds: number | undefined): LeasedMessage[] {
    const queue = this.#queue(name);
    const now = Date.now();
    const ready: Entry[] = [];
    for (const [id, entry] of queue.entries) {
      // What is leased is its holder's to settle, also when it is expired.
      if (entry.expiresAt <= now && !isLeased(entry, now)) queue.entries.delete(id);
      else if (entry.availableAt <= now && !this.#isOverReceived(entry, queue)) ready.push(entry);
    }
    const first = ready.toSorted((one, other) => other.priority - one.priority || one.availableAt - other.availableAt);
    const leaseEnd = now + (leaseSeconds ?? queue.settings.leaseSeconds) * 1000;
    return first.slice(0, maxMessages).map((entry) => {
      entry.receiveCount += 1;
      entry.availableAt = leaseEnd;
      entry.leaseToken = randomBytes(TOKEN_BYTES);
      return {
        ...contentOf(entry),
        receipt: encodeReceipt(entry.id, entry.leaseToken),
        receiveCount: entry.receiveCount,
        enqueuedAt: new Date(entry.enqueuedAt).toISOString(),
        expiresAt: new Date(entry.expiresAt).toISOString(),
        leaseExpiresAt: new Date(leaseEnd).toISOString(),
      };
    });
  }

  /** Dead-letters it if it is. */
  #isOverReceived(entry: Entry, queue: MemoryQueue): boolean {
    const { maxReceives, deadLetterQueue } = queue.settings;
    if (maxReceives === null || deadLetterQueue === null || entry.receiveCount < maxReceives) return false;
    entry.availableAt = Date.now();
    this.#move(entry, queue, deadLetterQueue);
    return true;
  }

  #move(entry: Entry, from: MemoryQueue, to: string): void {
    const id = formatMessageId(entry.id);
    from.entries.delete(id);
    entry.receiveCount = 0;
    entry.leaseToken = undefined;
    this.#queue(to).entries.set(id, entry);
  }

  #settle(
    name: string,
    receipts: readonly string[],
    work: (entry: Entry, queue: MemoryQueue) => void,
  ): { done: string[]; failed: FailedReceipt[] } {
    const queue = this.#queue(name);
    const [done, failed]: [string[], FailedReceipt[]] = [[], []];
    for (const receipt of new Set(receipts)) {
      const found = find(receipt, queue);
      if (typeof found === 'string') {
        failed.push({ receipt, code: found });
      } else {
        work(found, queue);
        done.push(receipt);
      }
    }
    return { done, failed };
  }
}

/** Throws as the broker does: `message-too-large`, and `invalid-request` for what is not the base64 it is said to be, or would expire before it is available. */
function newEntry(message: EnqueueMessage, index: number, settings: QueueSettings): Entry {
  const { body } = messageBytes(message, index);
  const delaySeconds = message.delaySeconds ?? settings.delaySeconds;
  const lifeSeconds = Math.min(message.expiresInSeconds ?? Infinity, settings.messageTtlSeconds);
  if (delaySeconds >= lifeSeconds) {
    throw new RowmqError(
      'invalid-request',
      `Message ${index} would expire after ${lifeSeconds} s, before its delay of ${delaySeconds} s ends, and never be delivered; shorten the delay or let it live longer.`,
    );
  }
  const now = Date.now();
  return {
    id: newMessageId(),
    body,
    headers: message.headers ?? {},
    priority: message.priority,
    enqueuedAt: now,
    expiresAt: now + lifeSeconds * 1000,
    availableAt: now + delaySeconds * 1000,
    receiveCount: 0,
    leaseToken: undefined,
    nackReason: undefined,
  };
}

function contentOf({ id, body, headers, priority }: Entry) {
  const bodyEncoding = bodyEncodingOf(body);
  return { id: formatMessageId(id), body: body.toString(bodyEncoding), bodyEncoding, headers, priority };
}

function isLeased({ leaseToken, availableAt }: Entry, now: number): boolean {
  return leaseToken !== undefined && availableAt > now;
}

/** The delivery whose lease a receipt proves, or why it proves none. */
function find(receipt: string, { entries }: MemoryQueue): Entry | FailedReceipt['code'] {
  let named: Receipt;
  try {
    named = decodeReceipt(receipt);
  } catch {
    return 'invalid-request';
  }
  const entry = entries.get(formatMessageId(named.messageId));
  if (entry === undefined) return 'delivery-not-found';
  const isHeld = isLeased(entry, Date.now()) && entry.leaseToken?.equals(named.leaseToken) === true;
  return isHeld ? entry : 'lease-lost';
}

interface Schema<Out> {
  safeParse(value: unknown): { success: true; data: Out } | { success: false; error: { message: string } };
}

function valid<Out>(schema: Schema<Out>, value: unknown): Out {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new RowmqError('invalid-request', result.error.message);
}
