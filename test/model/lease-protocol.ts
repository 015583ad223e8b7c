import { LEASE_GRACE_MS } from '@rowmq/store';

/*
 * The lease protocol: what each verb does to the deliveries of some queues, and what it answers.
 * `docs/protocol.md` tells people the same; where the two differ, one of them is wrong.
 *
 * It knows nothing of tables, transactions, flights or brokers: requests are carried out one after
 * the other, each at the instant `now`. What they do and answer follows from that but for one
 * thing: which deliveries a dequeue hands out, the protocol leaves open to some degree.
 * `hand-out.ts` says to which.
 */

export type Code = 'queue-not-found' | 'queue-full' | 'invalid-request' | 'delivery-not-found' | 'lease-lost';

export interface Settings {
  delaySeconds: number;
  messageTtlSeconds: number;
  maxReceives: number | null;
  deadLetterQueue: string | null;
  maxDepth: number | null;
}

export interface Message {
  id: string;
  body: string;
  priority: number;
  delaySeconds?: number | undefined;
  expiresInSeconds?: number | undefined;
}

/** The obligation to hand out one message. */
export interface Delivery extends Pick<Message, 'id' | 'body' | 'priority'> {
  queue: string;
  /** Where it was enqueued. */
  readonly origin: string;
  readonly expiresAt: number;
  receiveCount: number;
  /** From then on it can be handed out (again). Under a lease: `LEASE_GRACE_MS` after that ends. */
  availableAt: number;
  /** Of the last lease; null if it was given back, or there was none. */
  token: string | null;
  /**
   * Since when everybody could see that it is available. Later than that only for what was
   * committed late.
   */
  visibleFrom: number;
  /**
   * The broker on which it was enqueued, and which cannot overlook it; null once it was handed out
   * or moved, and if it was delayed.
   */
  enqueuedOn: number | null;
}

/** A receipt, and the queue that it is sent to. */
export interface Receipt {
  queue: string;
  id: string;
  token: string;
}

/** A lease that ends within this is not purged, but left to end. */
const PURGE_MARGIN_MS = 500;

export class LeaseProtocol {
  /** Deliveries that are not settled, by message id. */
  readonly owed = new Map<string, Delivery>();

  /**
   * @param queues their settings, which may be changed
   * @param now ms since 1970; may be moved on
   */
  constructor(
    readonly queues: ReadonlyMap<string, Settings>,
    public now: number,
  ) {}

  /**
   * Enqueue, until its commit: the deliveries of a request's messages, or why nothing of it is
   * stored.
   */
  draft(name: string, messages: readonly Message[]): Delivery[] | Code {
    const queue = this.queues.get(name);
    if (queue === undefined) return 'queue-not-found';
    const drafts = messages.map(({ id, body, priority, delaySeconds, expiresInSeconds = Infinity }): Delivery => {
      const availableAt = this.now + (delaySeconds ?? queue.delaySeconds) * 1000;
      const expiresAt = this.now + Math.min(expiresInSeconds, queue.messageTtlSeconds) * 1000;
      const fresh = { receiveCount: 0, token: null, visibleFrom: availableAt, enqueuedOn: null };
      return { id, body, priority, queue: name, origin: name, expiresAt, availableAt, ...fresh };
    });
    if (drafts.some(({ availableAt, expiresAt }) => availableAt >= expiresAt)) return 'invalid-request';
    return this.in(name).length + drafts.length > (queue.maxDepth ?? Infinity) ? 'queue-full' : drafts;
  }

  /** The commit of an enqueue. `broker`: which cannot overlook it. */
  store(drafts: readonly Delivery[], broker: number | null): void {
    for (const draft of drafts) {
      const isDelayed = draft.availableAt > this.now;
      const visibleFrom = Math.max(draft.availableAt, this.now);
      this.owed.set(draft.id, { ...draft, visibleFrom, enqueuedOn: isDelayed ? null : broker });
    }
  }

  /** Dequeue hands out nothing else. */
  isReady(one: Delivery): boolean {
    return one.availableAt <= this.now && one.expiresAt > this.now && !this.isOverReceived(one);
  }

  /** Dequeue, for one delivery. */
  lease(delivery: Delivery, token: string, leaseExpiresAt: number): void {
    const receiveCount = delivery.receiveCount + 1;
    this.place(delivery, leaseExpiresAt + LEASE_GRACE_MS, { token, receiveCount });
  }

  ack(receipt: Receipt): Code | null {
    return this.withLease(receipt, ({ id }) => this.owed.delete(id));
  }

  nack(receipt: Receipt, delaySeconds: number): Code | null {
    return this.withLease(receipt, (one) => this.place(one, this.now + delaySeconds * 1000));
  }

  /** Nack with `deadLetter`. */
  reject(receipt: Receipt): Code | null {
    const to = this.queues.get(receipt.queue)?.deadLetterQueue ?? null;
    return to === null ? 'invalid-request' : this.withLease(receipt, (one) => this.move(one, to));
  }

  extend(receipt: Receipt, leaseSeconds: number): Code | null {
    const availableAt = this.now + leaseSeconds * 1000 + LEASE_GRACE_MS;
    return this.withLease(receipt, (one) => this.place(one, availableAt, { token: one.token }));
  }

  /** The consumer had hung up before it got it: the receive is not counted. */
  release(receipt: Receipt): Code | null {
    return this.withLease(receipt, (one) => this.place(one, this.now, { receiveCount: one.receiveCount - 1 }));
  }

  /** Removes what is expired and under no lease. Returns how many. */
  expire(): number {
    const expired = this.all().filter((one) => one.expiresAt <= this.now && !this.isLeased(one));
    for (const { id } of expired) this.owed.delete(id);
    return expired.length;
  }

  /** Dead-letters what was received too often and is available again. Returns how many. */
  deadLetter(): number {
    const spent = this.all().filter(
      (one) => one.availableAt <= this.now && one.expiresAt > this.now && this.isOverReceived(one),
    );
    for (const one of spent) this.move(one, this.queues.get(one.queue)!.deadLetterQueue!);
    return spent.length;
  }

  /**
   * Sends back where they were enqueued the first so many, by id, that are neither leased nor
   * expired; those that were enqueued here are skipped.
   */
  redrive(queue: string, rows: number): { moved: Map<string, number>; skipped: number } {
    const found = this.in(queue).filter((one) => one.expiresAt > this.now && !this.isLeased(one));
    const batch = found.toSorted((one, other) => (one.id < other.id ? -1 : 1)).slice(0, rows);
    const moving = batch.filter(({ origin }) => origin !== queue);
    const moved = new Map<string, number>();
    for (const one of moving) {
      moved.set(one.origin, (moved.get(one.origin) ?? 0) + 1);
      this.move(one, one.origin);
    }
    return { moved, skipped: batch.length - moving.length };
  }

  /** Drops whatever is in a queue, leased or not. */
  purge(queue: string): { purged: number; left: number } {
    const all = this.in(queue);
    const dropped = all.filter((one) => !this.isLeased(one) || one.availableAt > this.now + PURGE_MARGIN_MS);
    for (const { id } of dropped) this.owed.delete(id);
    return { purged: dropped.length, left: all.length - dropped.length };
  }

  all(): Delivery[] {
    return [...this.owed.values()];
  }

  in(queue: string): Delivery[] {
    return this.all().filter((one) => one.queue === queue);
  }

  /** Under a lease, or in the moment after it. */
  isLeased({ token, availableAt }: Delivery): boolean {
    return token !== null && availableAt > this.now;
  }

  isOverReceived({ queue, receiveCount }: Delivery): boolean {
    const { maxReceives, deadLetterQueue } = this.queues.get(queue)!;
    return maxReceives !== null && deadLetterQueue !== null && receiveCount >= maxReceives;
  }

  /** As if it was new there, but for its expiry. */
  move(delivery: Delivery, queue: string): void {
    this.place(delivery, this.now, { queue, receiveCount: 0 });
  }

  /** Available at an instant, and under no lease unless one is given. */
  place(delivery: Delivery, availableAt: number, change: Partial<Delivery> = {}): void {
    Object.assign(delivery, { availableAt, visibleFrom: availableAt, token: null, enqueuedOn: null, ...change });
  }

  private withLease({ queue, id, token }: Receipt, change: (delivery: Delivery) => void): Code | null {
    const delivery = this.owed.get(id);
    if (delivery?.queue !== queue) return 'delivery-not-found';
    if (delivery.token !== token || delivery.availableAt - LEASE_GRACE_MS <= this.now) return 'lease-lost';
    change(delivery);
    return null;
  }
}
