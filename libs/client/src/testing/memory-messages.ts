import { randomBytes } from 'node:crypto';
import {
  bodyEncodingOf,
  countFitting,
  decodeReceipt,
  encodeReceipt,
  type EnqueueMessage,
  type FailedReceipt,
  formatMessageId,
  type LeasedMessage,
  matchesContent,
  matchesDelivery,
  messageBytes,
  type MessageFilter,
  newPackId,
  parseMessageId,
  QUEUE_DEFAULTS,
  queueName,
  type QueueSettings,
  readRequest,
  RowmqError,
  type SizeLimits,
} from '@rowmq/contract';
import { pause } from '../timers.js';
import { FairLines } from './fair-lines.js';
import { inGroupOrder } from './group-order.js';
import { type Code, type Delivery, keyOf, LeaseProtocol, type Message, type Receipt } from './lease-protocol.js';
import { MemoryMoves } from './memory-moves.js';

export interface MemoryQueue extends QueueSettings {
  paused: boolean;
  producersPaused: boolean;
  createdAt: number;
}

/** The parts of a message that the lease protocol does not need. */
interface Content extends Pick<LeasedMessage, 'bodyEncoding' | 'headers' | 'groupId'> {
  enqueuedAt: number;
  topic: string | null;
}

/** A message with its id, before a queue owes it. */
interface Stamped extends Message {
  id: string;
  content: Content;
}

const TOKEN_BYTES = 8;

/** The queues of an `InMemoryBroker` and their messages: the lease protocol, and what it omits. */
export class MemoryMessages {
  readonly queues = new Map<string, MemoryQueue>();
  readonly moves = new MemoryMoves();
  readonly protocol = new LeaseProtocol(this.queues, Date.now(), (delivery, cause) =>
    this.moves.add(delivery, cause, this.reason(delivery), this.protocol.now),
  );
  readonly #contents = new Map<string, Content>();
  /** By delivery, the reason of its last nack. */
  readonly #reasons = new Map<string, string>();
  readonly #lines = new FairLines();
  /** The dequeues that wait for messages. */
  readonly #waiting = new Set<AbortController>();

  constructor(private readonly sizes: SizeLimits) {}

  /** The queue. Every call starts here: it moves the protocol's clock on. */
  use(queue: string): MemoryQueue {
    const name = readRequest(queueName, queue);
    this.protocol.now = Date.now();
    const known = this.queues.get(name);
    if (known !== undefined) return known;
    const settings: MemoryQueue = { ...QUEUE_DEFAULTS, paused: false, producersPaused: false, createdAt: Date.now() };
    this.queues.set(name, settings);
    return settings;
  }

  /** Gives messages their ids. */
  stamp(messages: readonly EnqueueMessage[], topic: string | null): (Omit<EnqueueMessage, 'availableAt'> & Stamped)[] {
    const enqueuedAt = this.protocol.now;
    return messages.map((message, index) => {
      const { body } = messageBytes(message, index, this.sizes);
      const bodyEncoding = bodyEncodingOf(body);
      const content: Content = {
        bodyEncoding,
        headers: message.headers ?? {},
        groupId: message.groupId,
        enqueuedAt,
        topic,
      };
      const availableAt = message.availableAt === undefined ? undefined : Date.parse(message.availableAt);
      return { ...message, id: formatMessageId(newPackId()), body: body.toString(bodyEncoding), content, availableAt };
    });
  }

  /** The deliveries of messages that one queue will owe. Throws if it refuses them. */
  draft(queue: string, messages: readonly Message[], copy: number): Delivery[] {
    if (messages.length > 0 && this.queues.get(queue)?.producersPaused === true)
      throw new RowmqError('queue-paused', `Queue '${queue}' is paused for producers; resume it.`, {
        retryAfterSeconds: 5,
      });
    const drafts = this.protocol.draft(queue, messages, { copy });
    if (drafts === 'queue-full') {
      const held = this.protocol.depth(queue);
      const detail = `Queue '${queue}' holds ${held} messages, no room for ${messages.length} more; try again when consumers have caught up.`;
      throw new RowmqError(drafts, detail, { retryAfterSeconds: 1 });
    }
    if (Array.isArray(drafts)) return drafts;
    const detail =
      'A message would expire before it is available, or be available in more than 366 days; name an earlier time or let it live longer.';
    throw new RowmqError(drafts, detail);
  }

  /** In a queue without ordering: gives new deliveries with a group their places. */
  place(queue: string, messages: readonly Stamped[], drafts: readonly Delivery[]): void {
    const owed = this.protocol.in(queue);
    const groupOf = new Map(messages.map(({ id, content }) => [id, content.groupId]));
    for (const draft of drafts) {
      const groupId = groupOf.get(draft.id);
      if (groupId !== undefined) this.#lines.place(draft, groupId, owed, this.protocol.now);
    }
  }

  store(stamped: readonly Pick<Stamped, 'id' | 'content'>[], drafts: readonly Delivery[]): void {
    this.protocol.store(drafts, null);
    for (const { id, content } of stamped) this.#contents.set(id, content);
    this.wake();
  }

  content(id: string): Content {
    return this.#contents.get(id) as Content;
  }

  reason(delivery: Readonly<Delivery>): string | null {
    return this.#reasons.get(keyOf(delivery)) ?? null;
  }

  setReason(delivery: Delivery | undefined, reason: string | undefined): void {
    if (delivery === undefined) return;
    if (reason === undefined) this.#reasons.delete(keyOf(delivery));
    else this.#reasons.set(keyOf(delivery), reason);
  }

  matches(filter: MessageFilter, delivery: Delivery): boolean {
    const { bodyEncoding, headers, enqueuedAt } = this.content(delivery.id);
    const nackReason = this.reason(delivery);
    return (
      matchesDelivery(filter, { source: delivery.origin, nackReason, moves: this.moves.of(delivery), enqueuedAt }) &&
      matchesContent(filter, { headers, body: Buffer.from(delivery.body, bodyEncoding) })
    );
  }

  /** Leases ready messages, after it has dealt with expired and over-received ones. */
  lease(queue: string, maxMessages: number, leaseSeconds: number): LeasedMessage[] {
    const now = (this.protocol.now = Date.now());
    const ended = this.protocol.expire() + this.protocol.deadLetter();
    this.forgetSettled();
    // Dead letters are new in another queue.
    if (ended > 0) this.wake();
    const ready = this.protocol.in(queue).filter((delivery) => this.protocol.isReady(delivery));
    const isOrdered = this.queues.get(queue)?.ordering === 'group';
    const inOrder = isOrdered ? inGroupOrder(ready) : ready.toSorted(inHandOutOrder);
    const wanted = inOrder.slice(0, maxMessages);
    const fitting = countFitting(wanted, ({ body }) => Buffer.byteLength(body));
    return wanted.slice(0, fitting).map((delivery) => this.#leaseOne(delivery, now + leaseSeconds * 1000));
  }

  #leaseOne(delivery: Delivery, leaseExpiresAt: number): LeasedMessage {
    const leaseToken = randomBytes(TOKEN_BYTES);
    this.protocol.lease(delivery, leaseToken.toString('hex'), leaseExpiresAt);
    const { id, body, priority, receiveCount, expiresAt } = delivery;
    const { bodyEncoding, headers, groupId, enqueuedAt } = this.content(id);
    return {
      id,
      body,
      bodyEncoding,
      headers: { ...headers },
      priority,
      ...(groupId !== undefined && { groupId }),
      receipt: encodeReceipt({ messageId: parseMessageId(id), leaseToken, part: 0, members: 0 }),
      receiveCount,
      enqueuedAt: new Date(enqueuedAt).toISOString(),
      expiresAt: new Date(expiresAt).toISOString(),
      leaseExpiresAt: new Date(leaseExpiresAt).toISOString(),
    };
  }

  /** Answers each receipt by itself. */
  settle(
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

  /** The contents of settled messages go, and the reasons of settled deliveries. */
  forgetSettled(): void {
    const owed = this.protocol.all();
    if (this.#contents.size !== owed.length) {
      const ids = new Set(owed.map(({ id }) => id));
      for (const id of this.#contents.keys()) if (!ids.has(id)) this.#contents.delete(id);
    }
    for (const key of this.#reasons.keys()) if (!this.protocol.owed.has(key)) this.#reasons.delete(key);
    this.moves.keep(this.protocol.owed);
  }

  /** Deletes a queue with its messages. */
  forgetQueue(queue: string): void {
    for (const delivery of this.protocol.in(queue)) this.protocol.drop(delivery);
    this.queues.delete(queue);
    this.#lines.forgetQueue(queue);
    this.moves.forgetQueue(queue);
    this.forgetSettled();
  }

  /** Dequeues look again at what is ready. */
  wake(): void {
    for (const waiting of this.#waiting) waiting.abort();
  }

  /** Resolves when a message may have become ready or moved here, or the time is up. */
  async change(queue: string, until: number, signal: AbortSignal | undefined): Promise<void> {
    const now = Date.now();
    const concerned = this.protocol
      .all()
      .filter((one) => one.queue === queue || this.queues.get(one.queue)?.deadLetterQueue === queue);
    const next = concerned.flatMap(({ availableAt, expiresAt }) => [availableAt, expiresAt]);
    const soonest = Math.min(until, ...next.filter((instant) => instant > now));
    const waiting = new AbortController();
    this.#waiting.add(waiting);
    await pause(soonest - now, signal, waiting.signal);
    this.#waiting.delete(waiting);
  }
}

/** The most urgent first, then the longest available. */
export function inHandOutOrder(one: Delivery, other: Delivery): number {
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
