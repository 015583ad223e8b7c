import type { Content } from './payload.js';

/*
 * Two clocks appear here. Times named `…At` or `…Until` are milliseconds on the simulator's own
 * steady clock. Times named `…OnDatabase` are milliseconds since 1970 on the database's clock, as
 * the broker's answers give them. The two are never compared with each other.
 */

/**
 * The answer to an enqueue. `unknown`: none came, so all messages of the batch may be stored, or
 * none.
 */
type EnqueueState = 'planned' | 'confirmed' | 'refused' | 'unknown';

/** The broker's answer to a settlement. */
export type Outcome = 'none' | 'confirmed' | 'leaseLost' | 'notFound' | 'unknown';

export interface Message {
  /** From 1. */
  readonly number: number;
  /** The first message of the enqueue or publish request that this one travelled in. */
  readonly batch: number;
  /** A published message is one message of the ledger for each queue. */
  readonly queue: number;
  /** From 1; 0 in a queue without ordering. */
  group: number;
  state: EnqueueState;
  /** Undefined until an answer names it. */
  id: string | undefined;
  bodyCrc: number;
  headersCrc: number;
  sentAt: number;
  answeredAt: number;
  /** 0 when none was asked for. */
  expiresInSeconds: number;
  /** 0 until a delivery names it. */
  expiresOnDatabase: number;
  acked: boolean;
  /** In the order in which they were received. */
  readonly leases: Lease[];
}

export interface Lease {
  /** From 1. */
  readonly number: number;
  readonly message: Message;
  readonly consumer: number;
  readonly receiveCount: number;
  readonly handedOutOnDatabase: number;
  /** The least that is certain: a later, unanswered extend may have moved it further out. */
  endsOnDatabase: number;
  /** When the last confirmed extend was carried out; 0 without one. */
  extendedOnDatabase: number;
  readonly askedAt: number;
  readonly receivedAt: number;
  /** The lease certainly holds until then. */
  heldUntil: number;
  /** The lease has certainly run out from then on; Infinity when an extend got no answer. */
  overAt: number;
  /** Time from {@link overAt} to the sending of an extend that was accepted; 0 without one. */
  extendedLateMs: number;
  /**
   * The consumer's last call. `extend` only stands here when it failed: a successful one moves the
   * lease.
   */
  settle: 'none' | 'ack' | 'nack' | 'extend';
  outcome: Outcome;
  settleSentAt: number;
  settleAnsweredAt: number;
  nackDelaySeconds: number;
  readonly bodyAltered: boolean;
  readonly headersAltered: boolean;
}

/**
 * Thrown when a run has more to remember than it was allowed to. The message names the option to
 * change.
 */
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

/** A message as a dequeue's answer delivers it. */
export interface Handout {
  message: Message;
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

const LEASES_PER_MESSAGE = 3;
const FINDINGS_KEPT = 20;

/**
 * Everything that a run knows: each message with its enqueue, and each lease with what its consumer
 * did under it. Producers and consumers fill it; the verdict reads it. It judges nothing but what
 * one answer shows by itself.
 *
 * It remembers every message until the verdict, unlike the tally of the benchmarks: only then can
 * the verdict find a delivery after its ack.
 */
export class Ledger {
  readonly #messages: Message[] = [];
  #leaseCount = 0;

  readonly doubtful: DoubtfulDequeue[] = [];
  readonly findings: Finding[] = [];
  /** Findings of each kind. {@link findings} keeps only the first few. */
  readonly findingCounts: Record<Finding['kind'], number> = {
    stranger: 0,
    doubled: 0,
    'wrong-queue': 0,
    'expiry-changed': 0,
  };
  /** The last of the short-lived messages that are surely stored has surely expired then. */
  lastExpiryAt = 0;
  /** The shortest of the leases that consumers asked for. */
  shortestLeaseMs = Number.POSITIVE_INFINITY;

  /** Keeps up to `maxMessages` messages and three times as many leases. */
  constructor(private readonly maxMessages: number) {}

  /** In the order of their numbers. */
  get messages(): readonly Message[] {
    return this.#messages;
  }

  get leaseCount(): number {
    return this.#leaseCount;
  }

  /** The message with this number, or undefined. */
  messageOf(number: number): Message | undefined {
    return this.#messages[number - 1];
  }

  /**
   * The queue's message with this id, or undefined. It compares every message, for the few that
   * turn out to be odd.
   */
  findById(id: string, queue: number): Message | undefined {
    return this.#messages.find((message) => message.id === id && message.queue === queue);
  }

  /**
   * Adds the messages of one request, with consecutive numbers for the queues of each. Throws
   * {@link LedgerFullError}.
   */
  planBatch(count: number, queues: readonly number[]): Message[] {
    const before = this.#messages.length;
    const total = count * queues.length;
    if (before + total > this.maxMessages) {
      throw new LedgerFullError(
        `The ledger is full after ${before} messages: it remembers each of them until the verdict. ` +
          'Shorten the run with --seconds, slow it with --rate, or raise --max-messages.',
      );
    }
    const batch = Array.from({ length: total }, (_, index): Message =>
      newMessage(before + 1 + index, before + 1, queues[index % queues.length] as number),
    );
    this.#messages.push(...batch);
    return batch;
  }

  /** Call before the request leaves: a delivery may arrive before the enqueue's own answer. */
  enqueueSent(batch: readonly Message[], at: number): void {
    for (const message of batch) {
      message.sentAt = at;
      message.state = 'unknown';
    }
  }

  enqueueConfirmed(batch: readonly Message[], ids: readonly string[], at: number): void {
    for (const [index, message] of batch.entries()) {
      message.state = 'confirmed';
      message.answeredAt = at;
      this.#expiresAfter(message, at);
      this.#identify(message, ids[index] ?? '');
    }
  }

  enqueueRefused(batch: readonly Message[]): void {
    for (const message of batch) message.state = 'refused';
  }

  /** Records a delivery and returns its lease. Throws {@link LedgerFullError}. */
  handedOut(handout: Handout): Lease {
    const { message } = handout;
    if (this.#leaseCount >= this.maxMessages * LEASES_PER_MESSAGE) {
      throw new LedgerFullError(
        `The ledger is full after ${this.#leaseCount} leases of ${this.#messages.length} messages. ` +
          'Lower the rates of faults, lengthen --lease-seconds, or raise --max-messages.',
      );
    }
    this.#leaseCount += 1;
    const lease = newLease(this.#leaseCount, handout);
    message.leases.push(lease);
    this.shortestLeaseMs = Math.min(this.shortestLeaseMs, handout.leaseMs);
    this.#compareWithEnqueue(handout);
    if (message.state !== 'confirmed') this.#expiresAfter(message, handout.receivedAt);
    return lease;
  }

  /** A confirmed extend replaces the lease's deadline. */
  extended(lease: Lease, leaseMs: number, expiresOnDatabase: number, sentAt: number, answeredAt: number): void {
    lease.extendedOnDatabase = expiresOnDatabase - leaseMs;
    lease.endsOnDatabase = expiresOnDatabase;
    lease.heldUntil = sentAt + leaseMs;
    lease.extendedLateMs = Math.max(lease.extendedLateMs, sentAt - lease.overAt);
    // The broker may still carry out an earlier extend, whose answer was lost, after this one.
    lease.overAt = Math.max(lease.overAt, answeredAt + leaseMs);
  }

  /**
   * An extend without an answer may have moved the deadline either way. The earlier of the two is
   * certain.
   */
  extendUnanswered(lease: Lease, leaseMs: number, sentAt: number): void {
    lease.heldUntil = Math.min(lease.heldUntil, sentAt + leaseMs);
    lease.endsOnDatabase = Math.min(lease.endsOnDatabase, lease.handedOutOnDatabase + leaseMs);
    lease.overAt = Number.POSITIVE_INFINITY;
  }

  settling(lease: Lease, settle: Lease['settle'], sentAt: number, nackDelaySeconds = 0): void {
    lease.settle = settle;
    lease.outcome = 'unknown';
    lease.settleSentAt = sentAt;
    lease.settleAnsweredAt = Number.POSITIVE_INFINITY;
    lease.nackDelaySeconds = nackDelaySeconds;
  }

  /** The call was surely not carried out: the lease goes on as if nobody had ever sent it. */
  notSettled(lease: Lease): void {
    lease.settle = 'none';
    lease.outcome = 'none';
  }

  settled(lease: Lease, outcome: Outcome, answeredAt: number): void {
    lease.outcome = outcome;
    lease.settleAnsweredAt = answeredAt;
    if (lease.settle === 'ack' && outcome === 'confirmed') lease.message.acked = true;
  }

  /** No answer reached the consumer, so nobody has what the broker leased for it. */
  dequeueUnanswered(dequeue: DoubtfulDequeue): void {
    this.doubtful.push(dequeue);
  }

  /**
   * A dequeue was answered, with or without messages.
   *
   * If it took longer than a lease, the broker may have claimed twice. The database did not answer
   * the first claim. Before the broker could undo that claim, its leases ran out and others had the
   * messages.
   */
  dequeueAnswered(dequeue: DoubtfulDequeue, leaseMs: number): void {
    if (dequeue.endedAt - dequeue.askedAt >= leaseMs) this.doubtful.push(dequeue);
  }

  found(kind: Finding['kind'], text: string): void {
    this.findingCounts[kind]++;
    if (this.findings.length < FINDINGS_KEPT) this.findings.push({ kind, text });
  }

  /** @param storedBy the latest moment at which its life can have begun */
  #expiresAfter({ expiresInSeconds }: Message, storedBy: number): void {
    if (expiresInSeconds > 0) this.lastExpiryAt = Math.max(this.lastExpiryAt, storedBy + expiresInSeconds * 1000);
  }

  #compareWithEnqueue({ message, queue, id, expiresOnDatabase }: Handout): void {
    this.#identify(message, id);
    if (queue !== message.queue) {
      this.found('wrong-queue', `message ${id} was enqueued to queue ${message.queue}, came from ${queue}`);
    }
    const before = message.expiresOnDatabase;
    if (before === 0) message.expiresOnDatabase = expiresOnDatabase;
    else if (before !== expiresOnDatabase) {
      const [was, is] = [before, expiresOnDatabase].map((time) => new Date(time).toISOString());
      this.found('expiry-changed', `message ${id}: expiresAt was ${was} at first, then ${is}`);
    }
  }

  #identify(message: Message, id: string): void {
    if (message.id === undefined) message.id = id;
    else if (message.id !== id) {
      this.found('doubled', `message number ${message.number} exists under two ids: ${message.id} and ${id}`);
    }
  }
}

/** The message's leases in the order in which the database handed them out. */
export function leasesInOrder({ leases }: Message): Lease[] {
  if (leases.length < 2) return leases;
  return leases.toSorted(
    (a, b) => a.handedOutOnDatabase - b.handedOutOnDatabase || a.receiveCount - b.receiveCount || a.number - b.number,
  );
}

function newMessage(number: number, batch: number, queue: number): Message {
  return {
    number,
    batch,
    queue,
    group: 0,
    state: 'planned',
    id: undefined,
    bodyCrc: 0,
    headersCrc: 0,
    sentAt: 0,
    answeredAt: 0,
    expiresInSeconds: 0,
    expiresOnDatabase: 0,
    acked: false,
    leases: [],
  };
}

function newLease(number: number, handout: Handout): Lease {
  const { message, content, leaseMs, leaseExpiresOnDatabase, askedAt, receivedAt } = handout;
  return {
    number,
    message,
    consumer: handout.consumer,
    receiveCount: handout.receiveCount,
    handedOutOnDatabase: leaseExpiresOnDatabase - leaseMs,
    endsOnDatabase: leaseExpiresOnDatabase,
    extendedOnDatabase: 0,
    askedAt,
    receivedAt,
    heldUntil: askedAt + leaseMs,
    overAt: receivedAt + leaseMs,
    extendedLateMs: 0,
    settle: 'none',
    outcome: 'none',
    settleSentAt: 0,
    settleAnsweredAt: 0,
    nackDelaySeconds: 0,
    bodyAltered: content.bodyCrc !== message.bodyCrc,
    headersAltered: content.headersCrc !== message.headersCrc,
  };
}
