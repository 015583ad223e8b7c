import { LEASE_GRACE_MS } from '@rowmq/contract';

/*
 * The lease protocol: the effect of each verb on the deliveries of some queues, and its answer.
 * `docs/protocol.md` describes the same for people. If the two differ, one of them is wrong.
 * `InMemoryBroker` runs it, and `test/model` compares the store with it.
 *
 * It knows nothing of tables, transactions, batches or brokers. Requests run one after the other,
 * each at the instant `now`. A dequeue that carries acks is an ack and then a dequeue, at the same
 * instant. Their effects and answers follow from that, with one exception: the
 * protocol leaves some freedom in which deliveries a dequeue hands out. Its limits are in
 * `test/model/dequeue-rules.ts`.
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
  /** The queue to which the message was enqueued. */
  readonly origin: string;
  expiresAt: number;
  /** The expiry that its producer gave. It binds in every queue. */
  readonly producerExpiresAt: number | null;
  receiveCount: number;
  /** From then on it can be handed out (again). Under a lease: `LEASE_GRACE_MS` after its end. */
  availableAt: number;
  /** Names the last lease. Null if that lease was released, or there was none. */
  token: string | null;
  /** Since when it has been in its queue. */
  arrivedAt: number;
  /** Since when every broker could see that it is available. A late COMMIT makes it later. */
  visibleFrom: number;
  /**
   * The broker that enqueued it, and so cannot overlook it. Null after a hand-out or a move, and
   * for a delayed message.
   */
  enqueuedOn: number | null;
}

/** A receipt, and the queue to which it is sent. */
export interface Receipt {
  queue: string;
  id: string;
  token: string;
}

/** A purge leaves a lease that ends within this time to end by itself. */
const PURGE_MARGIN_MS = 500;

export class LeaseProtocol {
  /** Deliveries that are not settled, by message id. */
  readonly owed = new Map<string, Delivery>();

  /**
   * @param queues their settings, which the caller may change
   * @param now ms since 1970; the caller may move it on
   */
  constructor(
    readonly queues: ReadonlyMap<string, Settings>,
    public now: number,
  ) {}

  /**
   * Enqueue, until its commit: the request's deliveries, or why the request stores nothing. A
   * broker may know the queue's settings or depth of a moment ago.
   */
  draft(
    name: string,
    messages: readonly Message[],
    { queue = this.queues.get(name), depth = this.depth(name) } = {},
  ): Delivery[] | Code {
    if (queue === undefined) return 'queue-not-found';
    const drafts = messages.map(({ id, body, priority, delaySeconds, expiresInSeconds }): Delivery => {
      const availableAt = this.now + (delaySeconds ?? queue.delaySeconds) * 1000;
      const producerExpiresAt = expiresInSeconds === undefined ? null : this.now + expiresInSeconds * 1000;
      const expiresAt = Math.min(producerExpiresAt ?? Infinity, this.now + queue.messageTtlSeconds * 1000);
      const life = { producerExpiresAt, expiresAt, arrivedAt: this.now };
      const fresh = { receiveCount: 0, token: null, visibleFrom: availableAt, enqueuedOn: null };
      return { id, body, priority, queue: name, origin: name, availableAt, ...life, ...fresh };
    });
    if (drafts.some(({ availableAt, expiresAt }) => availableAt >= expiresAt)) return 'invalid-request';
    return depth + drafts.length > (queue.maxDepth ?? Infinity) ? 'queue-full' : drafts;
  }

  /** The messages that count towards the maximum depth: expired ones count only under a lease. */
  depth(name: string): number {
    return this.in(name).filter((one) => one.expiresAt > this.now || this.isLeased(one)).length;
  }

  /** The commit of an enqueue. `broker`: the one that cannot overlook it. */
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
    this.offer(delivery, leaseExpiresAt + LEASE_GRACE_MS, { token, receiveCount });
  }

  ack(receipt: Receipt): Code | null {
    return this.#withLease(receipt, ({ id }) => this.owed.delete(id));
  }

  nack(receipt: Receipt, delaySeconds: number): Code | null {
    return this.#withLease(receipt, (one) => this.offer(one, this.now + delaySeconds * 1000));
  }

  /** Nack with `deadLetter`. */
  reject(receipt: Receipt): Code | null {
    const to = this.queues.get(receipt.queue)?.deadLetterQueue ?? null;
    return to === null ? 'invalid-request' : this.#withLease(receipt, (one) => this.move(one, to));
  }

  extend(receipt: Receipt, leaseSeconds: number): Code | null {
    const availableAt = this.now + leaseSeconds * 1000 + LEASE_GRACE_MS;
    return this.#withLease(receipt, (one) => this.offer(one, availableAt, { token: one.token }));
  }

  /** No consumer began to handle the message: the receive does not count. */
  release(receipt: Receipt, delaySeconds = 0): Code | null {
    return this.#withLease(receipt, (one) =>
      this.offer(one, this.now + delaySeconds * 1000, { receiveCount: one.receiveCount - 1 }),
    );
  }

  /** Removes expired deliveries that are under no lease. Returns their number. */
  expire(): number {
    const expired = this.all().filter((one) => one.expiresAt <= this.now && !this.isLeased(one));
    for (const { id } of expired) this.owed.delete(id);
    return expired.length;
  }

  /** Dead-letters available deliveries that were received too often. Returns their number. */
  deadLetter(): number {
    const spent = this.all().filter(
      (one) => one.availableAt <= this.now && one.expiresAt > this.now && this.isOverReceived(one),
    );
    for (const one of spent) this.move(one, this.queues.get(one.queue)!.deadLetterQueue!);
    return spent.length;
  }

  /**
   * Moves deliveries that are neither leased nor expired back to their origins: all, or those that
   * the store chose. Skips deliveries whose origin is this queue.
   */
  redrive(
    queue: string,
    isChosen: (delivery: Delivery) => boolean = () => true,
  ): { moved: Map<string, number>; skipped: number; left: number } {
    const found = this.in(queue).filter((one) => one.expiresAt > this.now && !this.isLeased(one));
    const movable = found.filter(({ origin }) => origin !== queue);
    const moving = movable.filter(isChosen);
    const moved = new Map<string, number>();
    for (const one of moving) {
      moved.set(one.origin, (moved.get(one.origin) ?? 0) + 1);
      this.move(one, one.origin);
    }
    return { moved, skipped: found.length - movable.length, left: movable.length - moving.length };
  }

  /** Drops every delivery of a queue, leased or not. */
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

  /** Under a lease, or in the grace period after it. */
  isLeased({ token, availableAt }: Delivery): boolean {
    return token !== null && availableAt > this.now;
  }

  isOverReceived({ queue, receiveCount }: Delivery): boolean {
    const { maxReceives, deadLetterQueue } = this.queues.get(queue)!;
    return maxReceives !== null && deadLetterQueue !== null && receiveCount >= maxReceives;
  }

  /** The delivery is as new in the other queue. It keeps only the expiry that its producer gave. */
  move(delivery: Delivery, queue: string): void {
    const ttlEndsAt = this.now + this.queues.get(queue)!.messageTtlSeconds * 1000;
    const expiresAt = Math.min(delivery.producerExpiresAt ?? Infinity, ttlEndsAt);
    this.offer(delivery, this.now, { queue, receiveCount: 0, expiresAt, arrivedAt: this.now });
  }

  /** Makes a delivery available at an instant, under no lease unless `change` has one. */
  offer(delivery: Delivery, availableAt: number, change: Partial<Delivery> = {}): void {
    Object.assign(delivery, { availableAt, visibleFrom: availableAt, token: null, enqueuedOn: null, ...change });
  }

  /** Why a receipt holds no lease. Null: it holds one. */
  refusal({ queue, id, token }: Receipt): Code | null {
    const delivery = this.owed.get(id);
    if (delivery?.queue !== queue) return 'delivery-not-found';
    const isHeld = delivery.token === token && delivery.availableAt - LEASE_GRACE_MS > this.now;
    return isHeld ? null : 'lease-lost';
  }

  #withLease(receipt: Receipt, change: (delivery: Delivery) => void): Code | null {
    const refusal = this.refusal(receipt);
    if (refusal === null) change(this.owed.get(receipt.id)!);
    return refusal;
  }
}
