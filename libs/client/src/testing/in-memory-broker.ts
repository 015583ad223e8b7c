import { randomBytes } from 'node:crypto';
import {
  type AckAnswer,
  ackRequest,
  type AckRequest,
  bodyEncodingOf,
  type BrowseAnswer,
  browseQuery,
  type BrowseQuery,
  checkDeadLetterPath,
  checkMaxReceives,
  decodeReceipt,
  type DeliveryState,
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
  type MessageAnswer,
  messageBytes,
  messageIdText,
  type NackAnswer,
  type NackRequest,
  nackRequest,
  newPackId,
  parseMessageId,
  type PauseAnswer,
  type PurgeAnswer,
  putQueueRequest,
  type PutQueueRequest,
  QUEUE_DEFAULTS,
  type QueueAnswer,
  queueName,
  type QueueSettings,
  type QueuesAnswer,
  type QueueStats,
  type ReaperAnswer,
  readRequest,
  type RedriveAnswer,
  redriveRequest,
  type RedriveRequest,
  type ReleaseAnswer,
  type ReleaseRequest,
  releaseRequest,
  RowmqError,
} from '@rowmq/contract';
import { pause } from '../timers.js';
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

interface MemoryQueue extends QueueSettings {
  paused: boolean;
  createdAt: number;
}

/**
 * A broker in this process's memory, for tests of services that use RowMQ. It has the same verbs
 * and refuses the same requests, without HTTP, a database or durability.
 *
 * The first use of a queue creates it, with the settings of a new queue. `putQueue` changes them.
 */
export class InMemoryBroker extends BrokerClient {
  readonly #queues = new Map<string, MemoryQueue>();
  readonly #protocol = new LeaseProtocol(this.#queues, Date.now());
  readonly #contents = new Map<string, Content>();
  /** The dequeues that wait for messages. */
  readonly #waiting = new Set<AbortController>();
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
    this.#wake();
    return { messages: stamped.map(({ id }) => ({ id })) };
  }

  async dequeue(queue: string, request: DequeueRequest = {}, { signal }: CallOptions = {}): Promise<DequeueAnswer> {
    const settings = this.#use(queue);
    const { maxMessages, waitSeconds, leaseSeconds, ack, withSettings } = readRequest(dequeueRequest, request);
    const until = Date.now() + waitSeconds * 1000;
    signal?.throwIfAborted();
    const acks = ack === undefined ? {} : this.#ack(queue, ack);
    for (;;) {
      signal?.throwIfAborted();
      const length = leaseSeconds ?? settings.leaseSeconds;
      const messages = settings.paused ? [] : this.#lease(queue, maxMessages, length);
      if (messages.length > 0 || Date.now() >= until || this.#isClosed) {
        const maxReceives = settings.deadLetterQueue === null ? null : settings.maxReceives;
        return { messages, ...acks, ...(withSettings === true && { settings: { leaseSeconds: length, maxReceives } }) };
      }
      await this.#change(queue, until, signal);
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
    this.#wake();
    return { nacked: done, failed };
  }

  async release(queue: string, request: ReleaseRequest): Promise<ReleaseAnswer> {
    this.#use(queue);
    const { receipts, delaySeconds, reason } = readRequest(releaseRequest, request);
    const { done, failed } = this.#settle(queue, receipts, (receipt) => {
      const code = this.#protocol.release(receipt, delaySeconds);
      const content = code === null ? this.#contents.get(receipt.id) : undefined;
      if (content !== undefined && reason !== undefined) content.nackReason = reason;
      return code;
    });
    this.#wake();
    return { released: done, failed };
  }

  async extend(queue: string, request: ExtendRequest): Promise<ExtendAnswer> {
    this.#use(queue);
    const { receipts, leaseSeconds } = readRequest(extendRequest, request);
    const leaseExpiresAt = new Date(this.#protocol.now + leaseSeconds * 1000).toISOString();
    const { done, failed } = this.#settle(queue, receipts, (receipt) => this.#protocol.extend(receipt, leaseSeconds));
    return { extended: done.map((receipt) => ({ receipt, leaseExpiresAt })), failed };
  }

  async ackOne(queue: string, receipt: string): Promise<void> {
    const { failed } = await this.ack(queue, { receipts: [receipt] });
    const code = failed[0]?.code;
    if (code !== undefined) throw new RowmqError(code, `The message was not acked: ${code}.`);
  }

  async createQueue(queue: string, settings: PutQueueRequest = {}): Promise<void> {
    if (!this.#queues.has(queue)) await this.putQueue(queue, settings);
  }

  async putQueue(queue: string, settings: PutQueueRequest = {}): Promise<QueueAnswer> {
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
    this.#wake();
    return this.getQueue(name);
  }

  async getQueue(queue: string): Promise<QueueAnswer> {
    const { createdAt, ...settings } = this.#use(queue);
    return { name: queue, ...settings, createdAt: new Date(createdAt).toISOString(), stats: this.#stats(queue) };
  }

  async listQueues(): Promise<QueuesAnswer> {
    return { queues: await Promise.all([...this.#queues.keys()].toSorted().map(async (name) => this.getQueue(name))) };
  }

  async deleteQueue(queue: string): Promise<void> {
    this.#use(queue);
    const user = [...this.#queues].find(([, { deadLetterQueue }]) => deadLetterQueue === queue)?.[0];
    if (user !== undefined) {
      throw new RowmqError(
        'invalid-request',
        `Queue '${queue}' is the dead-letter queue of '${user}'; change that first.`,
      );
    }
    for (const { id } of this.#protocol.in(queue)) this.#protocol.owed.delete(id);
    this.#queues.delete(queue);
    this.#forgetSettled();
  }

  async pauseQueue(queue: string): Promise<PauseAnswer> {
    this.#use(queue).paused = true;
    return { name: queue, paused: true };
  }

  async resumeQueue(queue: string): Promise<PauseAnswer> {
    this.#use(queue).paused = false;
    this.#wake();
    return { name: queue, paused: false };
  }

  async purge(queue: string): Promise<PurgeAnswer> {
    this.#use(queue);
    const { purged, left } = this.#protocol.purge(queue);
    this.#forgetSettled();
    return { purged, complete: left === 0 };
  }

  async redrive(queue: string, request: RedriveRequest = {}): Promise<RedriveAnswer> {
    this.#use(queue);
    const { maxMessages = Infinity } = readRequest(redriveRequest, request);
    let chosen = 0;
    const { moved, skipped, left } = this.#protocol.redrive(queue, ({ origin }) => {
      const isChosen = this.#queues.has(origin) && chosen < maxMessages;
      if (isChosen) chosen += 1;
      return isChosen;
    });
    this.#wake();
    const redriven = [...moved.values()].reduce((sum, count) => sum + count, 0);
    const isCut = redriven === maxMessages && left > 0;
    return { redriven, skipped: isCut ? skipped : skipped + left, complete: !isCut };
  }

  async browse(queue: string, query: Partial<BrowseQuery> = {}): Promise<BrowseAnswer> {
    this.#use(queue);
    const { state, limit, after = '0' } = readRequest(browseQuery, query);
    const from = Number.parseInt(after, 10) || 0;
    const found = this.#protocol
      .in(queue)
      .filter((delivery) => this.#stateOf(delivery) === state)
      .toSorted(inHandOutOrder);
    const messages = found.slice(from, from + limit).map((delivery) => {
      const { queue: _, ...browsed } = this.#browsed(delivery);
      return { ...this.#shown(delivery), ...browsed };
    });
    return { messages, nextAfter: found.length > from + limit ? String(from + limit) : null };
  }

  /** A settled message is forgotten at once, as if it had been reaped. */
  async getMessage(id: string): Promise<MessageAnswer> {
    this.#protocol.now = Date.now();
    const delivery = this.#protocol.owed.get(readRequest(messageIdText, id).toLowerCase());
    if (delivery === undefined) {
      throw new RowmqError('delivery-not-found', `There is no message ${id}: it was settled, or never existed.`);
    }
    const queue = this.#queues.has(delivery.origin) ? delivery.origin : null;
    return { ...this.#shown(delivery), queue, settled: false, deliveries: [this.#browsed(delivery)] };
  }

  async getReaper(): Promise<ReaperAnswer> {
    return { leader: null, duties: [] };
  }

  async ready(): Promise<void> {}

  async live(): Promise<void> {}

  async metrics(): Promise<string> {
    return '';
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
    this.#wake();
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

  /** The queue. Every call starts here: it moves the protocol's clock on. */
  #use(queue: string): MemoryQueue {
    const name = readRequest(queueName, queue);
    this.#protocol.now = Date.now();
    const known = this.#queues.get(name);
    if (known !== undefined) return known;
    const settings: MemoryQueue = { ...QUEUE_DEFAULTS, paused: false, createdAt: Date.now() };
    this.#queues.set(name, settings);
    return settings;
  }

  /** Dequeues look again at what is ready. */
  #wake(): void {
    for (const waiting of this.#waiting) waiting.abort();
  }

  /** Resolves when a message of the queue may have become ready, or the time is up. */
  async #change(queue: string, until: number, signal: AbortSignal | undefined): Promise<void> {
    const now = Date.now();
    const next = this.#protocol.in(queue).map(({ availableAt }) => availableAt);
    const soonest = Math.min(until, ...next.filter((instant) => instant > now));
    const waiting = new AbortController();
    this.#waiting.add(waiting);
    await pause(soonest - now, signal, waiting.signal);
    this.#waiting.delete(waiting);
  }

  #stateOf(delivery: Delivery): DeliveryState | 'expired' {
    if (this.#protocol.isLeased(delivery)) return 'leased';
    if (delivery.expiresAt <= this.#protocol.now) return 'expired';
    return delivery.availableAt > this.#protocol.now ? 'delayed' : 'ready';
  }

  #stats(queue: string): QueueStats {
    const deliveries = this.#protocol.in(queue);
    const count = (state: DeliveryState) => deliveries.filter((one) => this.#stateOf(one) === state);
    const ready = count('ready');
    const oldest = Math.min(...ready.map(({ availableAt }) => availableAt));
    return {
      ready: ready.length,
      delayed: count('delayed').length,
      leased: count('leased').length,
      oldestReadyAgeSeconds: ready.length === 0 ? null : (this.#protocol.now - oldest) / 1000,
    };
  }

  #shown({ id, body, expiresAt }: Delivery) {
    const { bodyEncoding, headers, enqueuedAt } = this.#content(id);
    const times = { enqueuedAt: new Date(enqueuedAt).toISOString(), expiresAt: new Date(expiresAt).toISOString() };
    return { id, body, bodyEncoding, headers: { ...headers }, ...times };
  }

  #browsed(delivery: Delivery): MessageAnswer['deliveries'][number] {
    const { id, queue, priority, receiveCount, availableAt, expiresAt } = delivery;
    const state = this.#stateOf(delivery);
    return {
      queue,
      state,
      priority,
      receiveCount,
      availableAt: new Date(state === 'leased' ? availableAt - LEASE_GRACE_MS : availableAt).toISOString(),
      expiresAt: new Date(expiresAt).toISOString(),
      lastNackReason: this.#content(id).nackReason ?? null,
    };
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
