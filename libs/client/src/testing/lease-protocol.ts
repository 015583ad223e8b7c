import { LEASE_GRACE_MS, LIMITS, type MoveCause } from '@rowmq/contract';
import { groupOf, isBehind } from './group-order.js';

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

export type Code =
  'queue-not-found' | 'queue-full' | 'invalid-request' | 'delivery-not-found' | 'lease-lost' | 'message-leased';

export interface Settings {
  delaySeconds: number;
  messageTtlSeconds: number;
  maxReceives: number | null;
  deadLetterQueue: string | null;
  deadLetterExpired?: boolean;
  maxDepth: number | null;
  ordering?: 'group' | null;
}

export interface Message {
  id: string;
  body: string;
  priority: number;
  delaySeconds?: number | undefined;
  /** In place of a delay: ms since 1970. */
  availableAt?: number | undefined;
  expiresInSeconds?: number | undefined;
  groupId?: string | undefined;
}

/** The obligation to hand out one message. */
export interface Delivery extends Pick<Message, 'id' | 'body' | 'priority'> {
  queue: string;
  /** Tells apart the deliveries of one published message. 0 for an enqueued one. */
  readonly copy: number;
  /** The queue in which the delivery began. */
  readonly origin: string;
  /** Its group in an ordered queue, else null. */
  readonly groupId: string | null;
  expiresAt: number;
  /** The expiry that its producer gave. It binds in every queue, until it has passed. */
  producerExpiresAt: number | null;
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

/** Names a delivery: its message, and its copy if that is not the first. */
export function keyOf({ id, copy }: Pick<Delivery, 'id' | 'copy'>): string {
  return copy === 0 ? id : `${id}.${copy}`;
}

export class LeaseProtocol {
  /** Deliveries that are not settled, by {@link keyOf}. */
  readonly owed = new Map<string, Delivery>();
  /** By message, the numbers of its copies that are not the first. */
  readonly #copies = new Map<string, Set<number>>();

  /**
   * @param queues their settings, which the caller may change
   * @param now ms since 1970; the caller may move it on
   * @param onMove hears of a move to another queue before it is made
   */
  constructor(
    readonly queues: ReadonlyMap<string, Settings>,
    public now: number,
    private readonly onMove: (delivery: Readonly<Delivery>, cause: MoveCause) => void = () => undefined,
  ) {}

  /**
   * Enqueue, until its commit: the request's deliveries, or why the request stores nothing. A
   * broker may know the queue's settings or depth of a moment ago.
   */
  draft(
    name: string,
    messages: readonly Message[],
    { queue = this.queues.get(name), depth = this.depth(name), copy = 0 } = {},
  ): Delivery[] | Code {
    if (queue === undefined) return 'queue-not-found';
    const drafts = messages.map(({ id, body, priority, expiresInSeconds, groupId = null, ...when }): Delivery => {
      const delayEndsAt = this.now + (when.delaySeconds ?? queue.delaySeconds) * 1000;
      const availableAt = Math.max(this.now, when.availableAt ?? delayEndsAt);
      const producerExpiresAt = expiresInSeconds === undefined ? null : this.now + expiresInSeconds * 1000;
      const expiresAt = Math.min(producerExpiresAt ?? Infinity, availableAt + queue.messageTtlSeconds * 1000);
      const life = { producerExpiresAt, expiresAt, arrivedAt: this.now };
      const fresh = { receiveCount: 0, token: null, visibleFrom: availableAt, enqueuedOn: null };
      const ordered = { groupId: queue.ordering === 'group' ? groupId : null };
      return { id, copy, body, priority, ...ordered, queue: name, origin: name, availableAt, ...life, ...fresh };
    });
    const latest = this.now + LIMITS.aheadSeconds * 1000;
    if (drafts.some(({ availableAt: at, expiresAt }) => at >= expiresAt || at > latest)) return 'invalid-request';
    // A repeat stores nothing, so it needs no room.
    return drafts.length > 0 && depth + drafts.length > (queue.maxDepth ?? Infinity) ? 'queue-full' : drafts;
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
      this.put({ ...draft, visibleFrom, enqueuedOn: isDelayed ? null : broker });
    }
  }

  /** The delivery is owed from now on, in this state. */
  put(delivery: Delivery): void {
    const { id, copy } = delivery;
    if (copy > 0) this.#copies.set(id, (this.#copies.get(id) ?? new Set()).add(copy));
    this.owed.set(keyOf(delivery), delivery);
  }

  /** Dequeue hands out nothing else. */
  isReady(one: Delivery): boolean {
    return one.availableAt <= this.now && one.expiresAt > this.now && !this.isOverReceived(one) && !this.isBehind(one);
  }

  /** In an ordered queue: whether an earlier message of its group keeps it back. */
  isBehind(one: Delivery): boolean {
    return isBehind(this.owed.values(), one, this.now);
  }

  /** Dequeue, for one delivery. */
  lease(delivery: Delivery, token: string, leaseExpiresAt: number): void {
    const receiveCount = delivery.receiveCount + 1;
    this.offer(delivery, leaseExpiresAt + LEASE_GRACE_MS, { token, receiveCount });
  }

  ack(receipt: Receipt): Code | null {
    return this.#withLease(receipt, (one) => this.drop(one));
  }

  nack(receipt: Receipt, delaySeconds: number): Code | null {
    return this.#withLease(receipt, (one) => {
      this.offer(one, this.now + delaySeconds * 1000);
      this.#undoLater(one);
    });
  }

  /** Nack with `deadLetter`. */
  reject(receipt: Receipt): Code | null {
    const to = this.queues.get(receipt.queue)?.deadLetterQueue ?? null;
    return to === null ? 'invalid-request' : this.#withLease(receipt, (one) => this.move(one, to, 'rejected'));
  }

  extend(receipt: Receipt, leaseSeconds: number): Code | null {
    const availableAt = this.now + leaseSeconds * 1000 + LEASE_GRACE_MS;
    return this.#withLease(receipt, (one) => {
      for (const sharer of this.#sharers(one)) this.offer(sharer, availableAt, { token: sharer.token });
    });
  }

  /** No consumer began to handle the message: the receive does not count. */
  release(receipt: Receipt, delaySeconds = 0): Code | null {
    return this.#withLease(receipt, (one) => {
      this.offer(one, this.now + delaySeconds * 1000, { receiveCount: one.receiveCount - 1 });
      this.#undoLater(one);
    });
  }

  /** The leased messages of a group, which one dequeue has handed out. */
  #sharers(delivery: Delivery): Delivery[] {
    return groupOf(this.owed.values(), delivery).filter((one) => this.isLeased(one));
  }

  /** After a nack or a release in an ordered queue, nobody may handle the later messages first. */
  #undoLater(delivery: Delivery): void {
    for (const later of this.#sharers(delivery).filter(({ id }) => id > delivery.id))
      this.offer(later, this.now, { receiveCount: later.receiveCount - 1 });
  }

  /** Settles a message that is ready or delayed wherever it is owed, without a receipt. */
  cancel(id: string): Code | null {
    const owing = this.copies(id).filter((one) => one.expiresAt > this.now || this.isLeased(one));
    if (owing.some((one) => this.isLeased(one))) return 'message-leased';
    if (owing.length === 0) return 'delivery-not-found';
    for (const one of owing) this.drop(one);
    return null;
  }

  /** Ends the life of every expired delivery that is under no lease. Returns their number. */
  expire(): number {
    const expired = this.all().filter((one) => one.expiresAt <= this.now && !this.isLeased(one));
    for (const one of expired) this.endLife(one);
    return expired.length;
  }

  /** An expired delivery is dead-lettered if its queue keeps expired messages, else removed. */
  endLife(delivery: Delivery): void {
    const { deadLetterQueue, deadLetterExpired } = this.queues.get(delivery.queue)!;
    if (deadLetterExpired !== true || deadLetterQueue === null) {
      this.drop(delivery);
      return;
    }
    // Its time has passed, and no longer counts.
    delivery.producerExpiresAt = null;
    this.move(delivery, deadLetterQueue, 'expired');
  }

  /** Dead-letters available deliveries that were received too often. Returns their number. */
  deadLetter(): number {
    const spent = this.all().filter(
      (one) =>
        one.availableAt <= this.now && one.expiresAt > this.now && this.isOverReceived(one) && !this.isBehind(one),
    );
    for (const one of spent) this.move(one, this.queues.get(one.queue)!.deadLetterQueue!, 'max-receives');
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
      this.move(one, one.origin, 'redriven');
    }
    return { moved, skipped: found.length - movable.length, left: movable.length - moving.length };
  }

  /** Drops every delivery of a queue, leased or not. */
  purge(queue: string): { purged: number; left: number } {
    const all = this.in(queue);
    const dropped = all.filter((one) => this.mayPurge(one));
    for (const one of dropped) this.drop(one);
    return { purged: dropped.length, left: all.length - dropped.length };
  }

  /** A lease that is about to end is left alone. */
  mayPurge(one: Delivery): boolean {
    return !this.isLeased(one) || one.availableAt > this.now + PURGE_MARGIN_MS;
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
  move(delivery: Delivery, queue: string, cause: MoveCause): void {
    this.onMove(delivery, cause);
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
    if (this.held({ queue, id, token }) !== undefined) return null;
    return this.copies(id).some((one) => one.queue === queue) ? 'lease-lost' : 'delivery-not-found';
  }

  /** The deliveries of a message. An enqueued one has one at most. */
  copies(id: string): Delivery[] {
    const numbers = [0, ...(this.#copies.get(id) ?? [])];
    return numbers.flatMap((copy) => this.owed.get(keyOf({ id, copy })) ?? []);
  }

  /** Settles a delivery. */
  drop(delivery: Delivery): void {
    this.owed.delete(keyOf(delivery));
    const others = this.#copies.get(delivery.id);
    others?.delete(delivery.copy);
    if (others?.size === 0) this.#copies.delete(delivery.id);
  }

  /** The delivery that a receipt's lease holds, if it still does. */
  held({ queue, id, token }: Receipt): Delivery | undefined {
    return this.copies(id).find((one) => one.queue === queue && this.#isHeld(one, token));
  }

  #isHeld({ token, availableAt }: Delivery, wanted: string): boolean {
    return token === wanted && availableAt - LEASE_GRACE_MS > this.now;
  }

  #withLease(receipt: Receipt, change: (delivery: Delivery) => void): Code | null {
    const delivery = this.held(receipt);
    if (delivery === undefined) return this.refusal(receipt);
    change(delivery);
    return null;
  }
}
