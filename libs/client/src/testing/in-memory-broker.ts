import { randomBytes } from 'node:crypto';
import {
  type AckAnswer,
  ackRequest,
  type AckRequest,
  bodyEncodingOf,
  checkDeadLetterPath,
  checkMaxReceives,
  decodeReceipt,
  type DequeueAnswer,
  dequeueRequest,
  type DequeueRequest,
  encodeReceipt,
  type EnqueueAnswer,
  enqueueRequest,
  type EnqueueRequest,
  type ExtendAnswer,
  type ExtendRequest,
  extendRequest,
  type FailedReceipt,
  formatMessageId,
  LEASE_GRACE_MS,
  type LeasedMessage,
  messageBytes,
  type NackAnswer,
  type NackRequest,
  nackRequest,
  newPackId,
  parseMessageId,
  putQueueRequest,
  type PutQueueRequest,
  QUEUE_DEFAULTS,
  queueName,
  type QueueSettings,
  readRequest,
  RowmqError,
} from '@rowmq/contract';
import { type CallOptions, BrokerClient } from '../broker-client.js';
import { type Code, type Delivery, LeaseProtocol, type Receipt } from './lease-protocol.js';

/** The parts of a message that the lease protocol does not need. */
interface Content extends Pick<LeasedMessage, 'bodyEncoding' | 'headers'> {
  enqueuedAt: number;
  nackReason: string | undefined;
}

/** A delivery, as {@link InMemoryBroker.messages} shows it. */
export type MemoryMessage = Pick<
  LeasedMessage,
  'id' | 'body' | 'bodyEncoding' | 'headers' | 'priority' | 'receiveCount'
> & {
  nackReason: string | undefined;
  /** For a leased delivery: the end of its lease. */
  availableAt: Date;
};

const TOKEN_BYTES = 8;
const POLL_MS = 5;

/**
 * A broker in this process's memory, for tests of services that use RowMQ. It has the same verbs
 * and refuses the same requests, without HTTP, a database or durability.
 *
 * The first use of a queue creates it, with the settings of a new queue. `putQueue` changes them.
 */
export class InMemoryBroker extends BrokerClient {
  readonly #queues = new Map<string, QueueSettings>();
  readonly #protocol = new LeaseProtocol(this.#queues, Date.now());
  readonly #contents = new Map<string, Content>();
  #isClosed = false;

  async enqueue(queue: string, request: EnqueueRequest): Promise<EnqueueAnswer> {
    this.#use(queue);
    const { messages } = readRequest(enqueueRequest, request);
    const enqueuedAt = this.#protocol.now;
    const stamped = messages.map((message, index) => {
      const { body } = messageBytes(message, index);
      const bodyEncoding = bodyEncodingOf(body);
      const content: Content = { bodyEncoding, headers: message.headers ?? {}, enqueuedAt, nackReason: undefined };
      return { ...message, id: formatMessageId(newPackId()), body: body.toString(bodyEncoding), content };
    });
    const drafts = this.#protocol.draft(queue, stamped);
    if (drafts === 'queue-full') {
      const held = this.#protocol.depth(queue);
      const detail = `The queue holds ${held} messages, no room for ${messages.length} more; try again when consumers have caught up.`;
      throw new RowmqError(drafts, detail, { retryAfterSeconds: 1 });
    }
    if (!Array.isArray(drafts)) {
      const detail = 'A message would expire before its delay ends; shorten the delay or let the message live longer.';
      throw new RowmqError(drafts, detail);
    }
    this.#protocol.store(drafts, null);
    for (const { id, content } of stamped) this.#contents.set(id, content);
    return { messages: stamped.map(({ id }) => ({ id })) };
  }

  async dequeue(queue: string, request: DequeueRequest = {}, { signal }: CallOptions = {}): Promise<DequeueAnswer> {
    const settings = this.#use(queue);
    const { maxMessages, waitSeconds, leaseSeconds, ack } = readRequest(dequeueRequest, request);
    const until = Date.now() + waitSeconds * 1000;
    signal?.throwIfAborted();
    const acks = ack === undefined ? {} : this.#ack(queue, ack);
    for (;;) {
      signal?.throwIfAborted();
      const messages = this.#lease(queue, maxMessages, leaseSeconds ?? settings.leaseSeconds);
      if (messages.length > 0 || Date.now() >= until || this.#isClosed) return { messages, ...acks };
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  async ack(queue: string, request: AckRequest): Promise<AckAnswer> {
    this.#use(queue);
    return this.#ack(queue, readRequest(ackRequest, request).receipts);
  }

  async nack(queue: string, request: NackRequest): Promise<NackAnswer> {
    this.#use(queue);
    const { receipts, delaySeconds, deadLetter, reason } = readRequest(nackRequest, request);
    const { done, failed } = this.#settle(queue, receipts, (receipt) => {
      const code = deadLetter ? this.#protocol.reject(receipt) : this.#protocol.nack(receipt, delaySeconds);
      if (code === 'invalid-request') {
        throw new RowmqError(
          code,
          'The queue has no dead-letter queue; set its deadLetterQueue, or nack without deadLetter.',
        );
      }
      const content = code === null ? this.#contents.get(receipt.id) : undefined;
      // A move keeps an earlier reason if it has none of its own.
      if (content !== undefined && !(deadLetter && reason === undefined)) content.nackReason = reason;
      return code;
    });
    return { nacked: done, failed };
  }

  async extend(queue: string, request: ExtendRequest): Promise<ExtendAnswer> {
    this.#use(queue);
    const { receipts, leaseSeconds } = readRequest(extendRequest, request);
    const leaseExpiresAt = new Date(this.#protocol.now + leaseSeconds * 1000).toISOString();
    const { done, failed } = this.#settle(queue, receipts, (receipt) => this.#protocol.extend(receipt, leaseSeconds));
    return { extended: done.map((receipt) => ({ receipt, leaseExpiresAt })), failed };
  }

  async putQueue(queue: string, settings: PutQueueRequest = {}): Promise<void> {
    const name = readRequest(queueName, queue);
    const given = readRequest(putQueueRequest, settings);
    const to = given.deadLetterQueue;
    if (to !== undefined && to !== null) {
      if (to !== name && !this.#queues.has(to)) {
        throw new RowmqError('invalid-request', `Dead-letter queue '${to}' does not exist; create it first.`);
      }
      checkDeadLetterPath(name, this.#deadLetterPath(to));
    }
    const changed = { ...this.#use(name), ...given };
    checkMaxReceives(name, changed.maxReceives, changed.deadLetterQueue !== null);
    Object.assign(this.#use(name), given);
  }

  /** A queue, its dead-letter queue, the dead-letter queue of that one, and so on. */
  #deadLetterPath(first: string): string[] {
    const path: string[] = [];
    for (let next: string | null = first; next !== null; next = this.#queues.get(next)?.deadLetterQueue ?? null)
      path.push(next);
    return path;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }

  /** All deliveries of a queue, in any state, in the order in which they were enqueued. */
  messages(queue: string): MemoryMessage[] {
    this.#use(queue);
    return this.#protocol.in(queue).map(({ id, body, priority, receiveCount, availableAt, token }) => {
      const { bodyEncoding, headers, nackReason } = this.#content(id);
      const from = new Date(token === null ? availableAt : availableAt - LEASE_GRACE_MS);
      return { id, body, bodyEncoding, headers, priority, receiveCount, nackReason, availableAt: from };
    });
  }

  /** Resolves when the queue is empty. Throws Error after `timeoutMs`, and names what is left. */
  async drained(queue: string, timeoutMs = 5000): Promise<void> {
    const until = Date.now() + timeoutMs;
    for (;;) {
      const left = this.messages(queue).map(
        ({ id, receiveCount, nackReason }) => `${id} (received ${receiveCount} times, ${nackReason ?? 'no reason'})`,
      );
      if (left.length === 0) return;
      if (Date.now() > until) {
        throw new Error(`Queue '${queue}' was not drained within ${timeoutMs} ms: ${left.join(', ')}`);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** The queue's settings. Every call starts here: it moves the protocol's clock on. */
  #use(queue: string): QueueSettings {
    const name = readRequest(queueName, queue);
    this.#protocol.now = Date.now();
    const known = this.#queues.get(name);
    if (known !== undefined) return known;
    const settings: QueueSettings = { ...QUEUE_DEFAULTS };
    this.#queues.set(name, settings);
    return settings;
  }

  #content(id: string): Content {
    return this.#contents.get(id) as Content;
  }

  #lease(queue: string, maxMessages: number, leaseSeconds: number): LeasedMessage[] {
    const protocol = this.#protocol;
    const now = (protocol.now = Date.now());
    protocol.expire();
    protocol.deadLetter();
    this.#forgetSettled();
    const ready = protocol.in(queue).filter((delivery) => protocol.isReady(delivery));
    const leaseExpiresAt = now + leaseSeconds * 1000;
    return ready
      .toSorted(inHandOutOrder)
      .slice(0, maxMessages)
      .map((delivery) => {
        const token = randomBytes(TOKEN_BYTES);
        protocol.lease(delivery, token.toString('hex'), leaseExpiresAt);
        const { id, body, priority, receiveCount, expiresAt } = delivery;
        const { bodyEncoding, headers, enqueuedAt } = this.#content(id);
        return {
          id,
          body,
          bodyEncoding,
          headers: { ...headers },
          priority,
          receipt: encodeReceipt(parseMessageId(id), token),
          receiveCount,
          enqueuedAt: new Date(enqueuedAt).toISOString(),
          expiresAt: new Date(expiresAt).toISOString(),
          leaseExpiresAt: new Date(leaseExpiresAt).toISOString(),
        };
      });
  }

  #ack(queue: string, receipts: readonly string[]): AckAnswer {
    const { done, failed } = this.#settle(queue, receipts, (receipt) => this.#protocol.ack(receipt));
    this.#forgetSettled();
    return { acked: done, failed };
  }

  /** Answers each receipt by itself. */
  #settle(
    queue: string,
    receipts: readonly string[],
    verb: (receipt: Receipt) => Code | null,
  ): { done: string[]; failed: FailedReceipt[] } {
    const [done, failed]: [string[], FailedReceipt[]] = [[], []];
    for (const text of new Set(receipts)) {
      const receipt = read(text, queue);
      const code = receipt === undefined ? 'invalid-request' : verb(receipt);
      if (code === null) done.push(text);
      else failed.push({ receipt: text, code: code as FailedReceipt['code'] });
    }
    return { done, failed };
  }

  #forgetSettled(): void {
    if (this.#contents.size === this.#protocol.owed.size) return;
    for (const id of this.#contents.keys()) if (!this.#protocol.owed.has(id)) this.#contents.delete(id);
  }
}

/** The most urgent first, then the longest available. */
function inHandOutOrder(one: Delivery, other: Delivery): number {
  return other.priority - one.priority || one.availableAt - other.availableAt || (one.id < other.id ? -1 : 1);
}

/** Undefined: no dequeue can have answered this receipt. */
function read(text: string, queue: string): Receipt | undefined {
  try {
    const { messageId, leaseToken } = decodeReceipt(text);
    return { queue, id: formatMessageId(messageId), token: leaseToken.toString('hex') };
  } catch {
    return undefined;
  }
}
