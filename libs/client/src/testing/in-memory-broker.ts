import {
  type AckAnswer,
  type AckRequest,
  type DequeueAnswer,
  dequeueRequest,
  type EnqueueAnswer,
  enqueueRequest,
  type EnqueueRequest,
  type DequeueRequest,
  type ExtendAnswer,
  type ExtendRequest,
  extendRequest,
  type FailedReceipt,
  formatMessageId,
  LIMITS,
  type LeasedMessage,
  type NackAnswer,
  type NackRequest,
  nackRequest,
  newMessageId,
  putQueueRequest,
  type PutQueueRequest,
  QUEUE_DEFAULTS,
  type QueueSettings,
  RowmqError,
} from '@rowmq/contract';
import { type CallOptions, BrokerClient } from '../broker-client.js';

/** A delivery in memory. Times: ms since 1970, by this process's clock. */
interface Entry {
  id: string;
  body: string;
  bodyEncoding: 'utf8' | 'base64';
  headers: Record<string, string>;
  priority: number;
  enqueuedAt: number;
  expiresAt: number;
  availableAt: number;
  receiveCount: number;
  receipt: string | undefined;
  nackReason: string | undefined;
}

interface MemoryQueue {
  settings: QueueSettings;
  entries: Map<string, Entry>;
}

const POLL_MS = 5;

/**
 * A broker in this process's memory, for tests of services that use RowMQ: the same verbs with the same outcomes, without HTTP, a database, or durability. A queue comes into being when it is first used,
 * with the settings of a new one, unless `putQueue` gave it others.
 */
export class InMemoryBroker extends BrokerClient {
  readonly #queues = new Map<string, MemoryQueue>();
  #receipts = 0;
  #isClosed = false;

  async enqueue(queue: string, request: EnqueueRequest): Promise<EnqueueAnswer> {
    const { messages } = valid(enqueueRequest, request);
    const { settings, entries } = this.#queue(queue);
    const now = Date.now();
    if (settings.maxDepth !== null && entries.size + messages.length > settings.maxDepth) {
      throw new RowmqError('queue-full', `The queue holds ${entries.size} of at most ${settings.maxDepth} deliveries.`);
    }
    const made = messages.map((message, index): Entry => {
      if (Buffer.byteLength(message.body, message.bodyEncoding) > LIMITS.bodyBytes) {
        throw new RowmqError(
          'message-too-large',
          `Message ${index}: the body has more than ${LIMITS.bodyBytes} bytes.`,
        );
      }
      const lifeSeconds = Math.min(message.expiresInSeconds ?? Infinity, settings.messageTtlSeconds);
      return {
        id: formatMessageId(newMessageId()),
        body: message.body,
        bodyEncoding: message.bodyEncoding,
        headers: message.headers ?? {},
        priority: message.priority,
        enqueuedAt: now,
        expiresAt: now + lifeSeconds * 1000,
        availableAt: now + (message.delaySeconds ?? settings.delaySeconds) * 1000,
        receiveCount: 0,
        receipt: undefined,
        nackReason: undefined,
      };
    });
    for (const entry of made) entries.set(entry.id, entry);
    return { messages: made.map(({ id }) => ({ id })) };
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
    const { done, failed } = this.#settle(queue, request.receipts, (entry, { entries }) => entries.delete(entry.id));
    return { acked: done, failed };
  }

  async nack(queue: string, request: NackRequest): Promise<NackAnswer> {
    const { receipts, delaySeconds, deadLetter, reason } = valid(nackRequest, request);
    const { deadLetterQueue } = this.#queue(queue).settings;
    if (deadLetter && deadLetterQueue === null) {
      throw new RowmqError('invalid-request', `Queue '${queue}' has no dead-letter queue.`);
    }
    const { done, failed } = this.#settle(queue, receipts, (entry, from) => {
      Object.assign(entry, { availableAt: Date.now() + delaySeconds * 1000, receipt: undefined, nackReason: reason });
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
    Object.assign(this.#queue(queue).settings, valid(putQueueRequest, settings));
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }

  /** What is in a queue, in whatever state, in the order in which it was enqueued. */
  messages(
    queue: string,
  ): (Pick<Entry, 'id' | 'body' | 'headers' | 'priority' | 'receiveCount' | 'nackReason'> & { availableAt: Date })[] {
    return [...this.#queue(queue).entries.values()].map(
      ({ id, body, headers, priority, receiveCount, nackReason, availableAt }) => ({
        id,
        body,
        headers,
        priority,
        receiveCount,
        nackReason,
        availableAt: new Date(availableAt),
      }),
    );
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
    for (const entry of queue.entries.values()) {
      if (entry.expiresAt <= now) queue.entries.delete(entry.id);
      else if (entry.availableAt <= now && !this.#isOverReceived(entry, queue)) ready.push(entry);
    }
    const first = ready.toSorted((one, other) => other.priority - one.priority || one.availableAt - other.availableAt);
    const leaseEnd = now + (leaseSeconds ?? queue.settings.leaseSeconds) * 1000;
    return first.slice(0, maxMessages).map((entry) => {
      entry.receiveCount += 1;
      entry.availableAt = leaseEnd;
      entry.receipt = `memory-${(this.#receipts += 1)}`;
      return {
        id: entry.id,
        body: entry.body,
        bodyEncoding: entry.bodyEncoding,
        headers: entry.headers,
        priority: entry.priority,
        receipt: entry.receipt,
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
    from.entries.delete(entry.id);
    entry.receiveCount = 0;
    entry.receipt = undefined;
    this.#queue(to).entries.set(entry.id, entry);
  }

  #settle(
    name: string,
    receipts: readonly string[],
    work: (entry: Entry, queue: MemoryQueue) => void,
  ): { done: string[]; failed: FailedReceipt[] } {
    const queue = this.#queue(name);
    const held = new Map([...queue.entries.values()].map((entry) => [entry.receipt, entry]));
    const [done, failed]: [string[], FailedReceipt[]] = [[], []];
    for (const receipt of new Set(receipts)) {
      const entry = held.get(receipt);
      if (entry !== undefined && entry.availableAt > Date.now()) {
        work(entry, queue);
        done.push(receipt);
      } else {
        failed.push({ receipt, code: entry === undefined ? 'delivery-not-found' : 'lease-lost' });
      }
    }
    return { done, failed };
  }
}

interface Schema<Out> {
  safeParse(value: unknown): { success: true; data: Out } | { success: false; error: { message: string } };
}

function valid<Out>(schema: Schema<Out>, value: unknown): Out {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new RowmqError('invalid-request', result.error.message);
}
