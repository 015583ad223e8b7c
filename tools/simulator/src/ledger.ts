import { formatMessageId, parseMessageId } from '@rowmq/contract';
import { Columns } from './columns.js';
import type { Content } from './payload.js';

/*
 * Two clocks appear here. Times named `…At` without more are milliseconds on the simulator's own steady clock. Times named `…OnDatabase` are
 * milliseconds since 1970 on the database's clock, as the broker's answers give them. The two are never compared with each other.
 */

/** What became of an enqueue. `unknown`: no answer, so the messages may be stored, all or none. */
export const ENQUEUE = { planned: 0, confirmed: 1, refused: 2, unknown: 3 } as const;

/** The last thing a consumer did with a lease. `extend` only stands here when it failed: a successful one moves the lease. */
export const SETTLE = { none: 0, ack: 1, nack: 2, extend: 3 } as const;

/** What the broker said to it. */
export const OUTCOME = { none: 0, confirmed: 1, leaseLost: 2, notFound: 3, unknown: 4 } as const;

type ValueOf<T> = T[keyof T];
type SettleKind = ValueOf<typeof SETTLE>;
export type Outcome = ValueOf<typeof OUTCOME>;

/** Thrown when a run has more to remember than it was allowed to; says which option to change. */
export class LedgerFullError extends Error {
  override readonly name = 'LedgerFullError';
}

/** Something wrong that a single answer shows by itself. */
interface Finding {
  kind: 'stranger' | 'doubled' | 'wrong-queue' | 'expiry-changed';
  text: string;
}

/** A dequeue for which the broker may have taken leases that nobody saw. */
export interface DoubtfulDequeue {
  queue: number;
  askedAt: number;
  /** When it was answered, or its consumer stopped listening. */
  endedAt: number;
}

export interface Handout {
  message: number;
  queue: number;
  id: string;
  consumer: number;
  content: Content;
  receiveCount: number;
  leaseMs: number;
  leaseExpiresOnDatabase: number;
  expiresOnDatabase: number;
  askedAt: number;
  receivedAt: number;
}

const ID_BYTES = 16;
const LEASES_PER_MESSAGE = 3;
const FINDINGS_KEPT = 20;

/**
 * Everything a run knows: each message with its enqueue, and each lease with what was done under it. Filled by producers and consumers, read
 * by the verdict. It only records; it judges nothing but what one answer shows by itself.
 *
 * A message takes 63 bytes and a lease 100; up to `maxMessages` messages and three times as many leases are kept.
 */
export class Ledger {
  readonly #messages: Columns;
  readonly #leases: Columns;

  /** Per message, by number. Row 0 is no message, so that 0 can mean none. */
  readonly message;
  /** Per lease, by number. Row 0 is no lease. */
  readonly lease;

  readonly doubtful: DoubtfulDequeue[] = [];
  readonly findings: Finding[] = [];
  /** How many findings of each kind there were; only the first few are kept in {@link findings}. */
  readonly findingCounts: Record<Finding['kind'], number> = {
    stranger: 0,
    doubled: 0,
    'wrong-queue': 0,
    'expiry-changed': 0,
  };
  /** When the last of the short-lived messages that are surely stored has surely expired. */
  lastExpiryAt = 0;
  /** Of the leases that were asked for. */
  shortestLeaseMs = Number.POSITIVE_INFINITY;

  constructor(maxMessages: number) {
    const messages = new Columns(maxMessages + 1);
    const leases = new Columns(maxMessages * LEASES_PER_MESSAGE + 1);
    this.#messages = messages;
    this.#leases = leases;
    this.message = {
      id: messages.column(Uint8Array, ID_BYTES),
      /** 1 once {@link Ledger.idOf} knows it. */
      identified: messages.column(Uint8Array),
      sentAt: messages.column(Float64Array),
      answeredAt: messages.column(Float64Array),
      expiresOnDatabase: messages.column(Float64Array),
      bodyCrc: messages.column(Uint32Array),
      headersCrc: messages.column(Uint32Array),
      /** The first message of the enqueue request it travelled in. */
      batch: messages.column(Uint32Array),
      lastLease: messages.column(Uint32Array),
      /** 0 when none was asked for. */
      expiresInSeconds: messages.column(Uint16Array),
      queue: messages.column(Uint16Array),
      state: messages.column(Uint8Array),
      acked: messages.column(Uint8Array),
    };
    this.lease = {
      handedOutOnDatabase: leases.column(Float64Array),
      /** The least that is certain: a later, unanswered extend may have moved it further out. */
      endsOnDatabase: leases.column(Float64Array),
      /** When the last confirmed extend was carried out; 0 without one. */
      extendedOnDatabase: leases.column(Float64Array),
      askedAt: leases.column(Float64Array),
      receivedAt: leases.column(Float64Array),
      /** Until then the lease has certainly not run out. */
      heldUntil: leases.column(Float64Array),
      /** From then on it has certainly run out; Infinity when an extend got no answer. */
      overAt: leases.column(Float64Array),
      /** How long after {@link overAt} an extend was sent that was accepted; 0 if none was. */
      extendedLateMs: leases.column(Float64Array),
      settleSentAt: leases.column(Float64Array),
      settleAnsweredAt: leases.column(Float64Array),
      message: leases.column(Uint32Array),
      /** The lease of the same message that was received before. */
      previous: leases.column(Uint32Array),
      nackDelaySeconds: leases.column(Uint32Array),
      receiveCount: leases.column(Uint16Array),
      consumer: leases.column(Uint16Array),
      settle: leases.column(Uint8Array),
      outcome: leases.column(Uint8Array),
      bodyAltered: leases.column(Uint8Array),
      headersAltered: leases.column(Uint8Array),
    };
    messages.add(1);
    leases.add(1);
  }

  get messages(): number {
    return this.#messages.rows - 1;
  }

  get leases(): number {
    return this.#leases.rows - 1;
  }

  /** Reserves the numbers of a batch and answers the first. Throws {@link LedgerFullError}. */
  planBatch(count: number, queue: number): number {
    const first = this.#messages.add(count);
    if (first === undefined) {
      throw new LedgerFullError(
        `The ledger is full after ${this.messages} messages: every one is remembered until the verdict. ` +
          'Shorten the run with --seconds, slow it with --rate, or raise --max-messages.',
      );
    }
    for (let message = first; message < first + count; message++) {
      this.message.batch[message] = first;
      this.message.queue[message] = queue;
    }
    return first;
  }

  planMessage(message: number, content: Content, expiresInSeconds: number): void {
    this.message.bodyCrc[message] = content.bodyCrc;
    this.message.headersCrc[message] = content.headersCrc;
    this.message.expiresInSeconds[message] = expiresInSeconds;
  }

  /** Call before the request leaves: a delivery may arrive before the enqueue's own answer. */
  enqueueSent(first: number, count: number, at: number): void {
    for (let message = first; message < first + count; message++) {
      this.message.sentAt[message] = at;
      this.message.state[message] = ENQUEUE.unknown;
    }
  }

  enqueueConfirmed(first: number, ids: readonly string[], at: number): void {
    for (const [offset, id] of ids.entries()) {
      const message = first + offset;
      this.message.state[message] = ENQUEUE.confirmed;
      this.message.answeredAt[message] = at;
      this.#expiresAfter(message, at);
      this.#identify(message, id);
    }
  }

  enqueueRefused(first: number, count: number): void {
    this.message.state.fill(ENQUEUE.refused, first, first + count);
  }

  /** Records a delivery and answers its lease's number. Throws {@link LedgerFullError}. */
  handedOut(handout: Handout): number {
    const { message } = handout;
    const lease = this.#leases.add(1);
    if (lease === undefined) {
      throw new LedgerFullError(
        `The ledger is full after ${this.leases} leases of ${this.messages} messages. ` +
          'Lower the rates of faults, lengthen --lease-seconds, or raise --max-messages.',
      );
    }
    const row = this.lease;
    row.message[lease] = message;
    row.previous[lease] = this.message.lastLease[message] ?? 0;
    this.message.lastLease[message] = lease;
    row.handedOutOnDatabase[lease] = handout.leaseExpiresOnDatabase - handout.leaseMs;
    row.endsOnDatabase[lease] = handout.leaseExpiresOnDatabase;
    row.askedAt[lease] = handout.askedAt;
    row.receivedAt[lease] = handout.receivedAt;
    row.heldUntil[lease] = handout.askedAt + handout.leaseMs;
    row.overAt[lease] = handout.receivedAt + handout.leaseMs;
    this.shortestLeaseMs = Math.min(this.shortestLeaseMs, handout.leaseMs);
    row.receiveCount[lease] = handout.receiveCount;
    row.consumer[lease] = handout.consumer;
    row.bodyAltered[lease] = Number(handout.content.bodyCrc !== this.message.bodyCrc[message]);
    row.headersAltered[lease] = Number(handout.content.headersCrc !== this.message.headersCrc[message]);
    this.#compareWithEnqueue(handout);
    if (this.message.state[message] !== ENQUEUE.confirmed) this.#expiresAfter(message, handout.receivedAt);
    return lease;
  }

  /** A confirmed extend replaces the lease's deadline. */
  extended(lease: number, leaseMs: number, expiresOnDatabase: number, sentAt: number, answeredAt: number): void {
    const row = this.lease;
    row.extendedOnDatabase[lease] = expiresOnDatabase - leaseMs;
    row.endsOnDatabase[lease] = expiresOnDatabase;
    row.heldUntil[lease] = sentAt + leaseMs;
    const overAt = row.overAt[lease] ?? 0;
    row.extendedLateMs[lease] = Math.max(row.extendedLateMs[lease] ?? 0, sentAt - overAt);
    // An earlier one without an answer may still be carried out after this one.
    row.overAt[lease] = Math.max(overAt, answeredAt + leaseMs);
  }

  /** An extend without an answer may have moved the deadline either way: what is certain is the earlier of the two. */
  extendUnanswered(lease: number, leaseMs: number, sentAt: number): void {
    const row = this.lease;
    row.heldUntil[lease] = Math.min(row.heldUntil[lease] ?? 0, sentAt + leaseMs);
    const earliestOnDatabase = (row.handedOutOnDatabase[lease] ?? 0) + leaseMs;
    row.endsOnDatabase[lease] = Math.min(row.endsOnDatabase[lease] ?? 0, earliestOnDatabase);
    row.overAt[lease] = Number.POSITIVE_INFINITY;
  }

  settling(lease: number, kind: SettleKind, sentAt: number, nackDelaySeconds = 0): void {
    this.lease.settle[lease] = kind;
    this.lease.outcome[lease] = OUTCOME.unknown;
    this.lease.settleSentAt[lease] = sentAt;
    this.lease.settleAnsweredAt[lease] = Number.POSITIVE_INFINITY;
    this.lease.nackDelaySeconds[lease] = nackDelaySeconds;
  }

  /** The call was surely not carried out: the lease goes on as if it had never been sent. */
  notSettled(lease: number): void {
    this.lease.settle[lease] = SETTLE.none;
    this.lease.outcome[lease] = OUTCOME.none;
  }

  settled(lease: number, outcome: Outcome, answeredAt: number): void {
    this.lease.outcome[lease] = outcome;
    this.lease.settleAnsweredAt[lease] = answeredAt;
    if (this.lease.settle[lease] === SETTLE.ack && outcome === OUTCOME.confirmed) {
      this.message.acked[this.lease.message[lease] ?? 0] = 1;
    }
  }

  /** No answer reached the consumer: what the broker leased for it, nobody has. */
  dequeueUnanswered(dequeue: DoubtfulDequeue): void {
    this.doubtful.push(dequeue);
  }

  /**
   * Answered, with or without messages. Of one that took longer than a lease, the broker may have made the claim twice: the first got no answer from the database, and when it was to be undone others had
   * the messages, since its leases had run out.
   */
  dequeueAnswered(dequeue: DoubtfulDequeue, leaseMs: number): void {
    if (dequeue.endedAt - dequeue.askedAt >= leaseMs) this.doubtful.push(dequeue);
  }

  found(kind: Finding['kind'], text: string): void {
    this.findingCounts[kind]++;
    if (this.findings.length < FINDINGS_KEPT) this.findings.push({ kind, text });
  }

  /** The message's leases in the order in which the database handed them out. */
  leasesOf(message: number): number[] {
    const leases: number[] = [];
    for (let lease = this.message.lastLease[message] ?? 0; lease !== 0; lease = this.lease.previous[lease] ?? 0) {
      leases.push(lease);
    }
    if (leases.length < 2) return leases;
    const at = (lease: number) => this.lease.handedOutOnDatabase[lease] ?? 0;
    const count = (lease: number) => this.lease.receiveCount[lease] ?? 0;
    return leases.toSorted((a, b) => at(a) - at(b) || count(a) - count(b) || a - b);
  }

  /** The message's id, or undefined while it is not known. */
  idOf(message: number): string | undefined {
    if (this.message.identified[message] !== 1) return undefined;
    return formatMessageId(Buffer.from(this.message.id.subarray(message * ID_BYTES, (message + 1) * ID_BYTES)));
  }

  /** The message with this id, or undefined. Looks at every message: for the few that turn out to be odd. */
  findById(id: string): number | undefined {
    const bytes = parseMessageId(id);
    for (let message = 1; message <= this.messages; message++) {
      if (this.message.identified[message] === 1 && this.#sameId(message, bytes)) return message;
    }
    return undefined;
  }

  /** @param storedBy when its life had begun, at the latest. */
  #expiresAfter(message: number, storedBy: number): void {
    const lifeMs = (this.message.expiresInSeconds[message] ?? 0) * 1000;
    if (lifeMs > 0) this.lastExpiryAt = Math.max(this.lastExpiryAt, storedBy + lifeMs);
  }

  #compareWithEnqueue({ message, queue, id, expiresOnDatabase }: Handout): void {
    this.#identify(message, id);
    if (queue !== this.message.queue[message]) {
      this.found(
        'wrong-queue',
        `message ${id} was enqueued to queue ${this.message.queue[message]}, came from ${queue}`,
      );
    }
    const before = this.message.expiresOnDatabase[message] ?? 0;
    if (before === 0) this.message.expiresOnDatabase[message] = expiresOnDatabase;
    else if (before !== expiresOnDatabase) {
      const [was, is] = [before, expiresOnDatabase].map((time) => new Date(time).toISOString());
      this.found('expiry-changed', `message ${id}: expiresAt was ${was} at first, then ${is}`);
    }
  }

  #identify(message: number, id: string): void {
    const bytes = parseMessageId(id);
    if (this.message.identified[message] === 0) {
      this.message.id.set(bytes, message * ID_BYTES);
      this.message.identified[message] = 1;
    } else if (!this.#sameId(message, bytes)) {
      this.found('doubled', `message number ${message} exists under two ids: ${this.idOf(message)} and ${id}`);
    }
  }

  #sameId(message: number, bytes: Buffer): boolean {
    return bytes.equals(this.message.id.subarray(message * ID_BYTES, (message + 1) * ID_BYTES));
  }
}
