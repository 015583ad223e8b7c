import type { Delivery, LeaseProtocol } from '@rowmq/client/testing';

/*
 * What a dequeue may hand out. The protocol leaves it to the store to some degree, as several
 * brokers hand out from the same queues and each remembers for a while what it saw: the model is
 * told what was handed out, and says whether that is allowed.
 */

/** What a dequeue says of a delivery. */
export type Lease = Pick<Delivery, 'id' | 'body' | 'priority' | 'receiveCount' | 'expiresAt'> & {
  token: string;
  leaseExpiresAt: number;
};

/**
 * A dequeue from one queue: what its consumers want, in the order in which they came, and what each
 * got.
 */
export interface Dequeue {
  broker: number;
  queue: string;
  demands: readonly { maxMessages: number; leaseSeconds: number }[];
  leased: readonly (readonly Lease[])[];
  /** The store says that there may be more for those who got less than they wanted. */
  mayBeMore: boolean;
  /** Other queues were dequeued from in the same flight. */
  isShared: boolean;
  /** Its COMMIT got no answer: what it had leased, it gave back, and tried again. */
  isRepeated: boolean;
}

/** How long a broker may overlook what became ready without its doing. */
const OVERLOOKED_MS = 250;
/** How long a broker may not have heard of a pause or resume on another. */
const NOT_HEARD_MS = 1000;

export class HandOut {
  private readonly receipts = new Set<string>();
  private readonly pauses = new Map<string, { isPaused: boolean; broker: number; at: number }>();
  /**
   * By broker and queue: when it first dequeued, and when it last did so in a flight that was not
   * shared.
   */
  private readonly dequeues = new Map<string, { first: number; last: number }>();

  constructor(private readonly protocol: LeaseProtocol) {}

  setPaused(broker: number, queue: string, isPaused: boolean): void {
    this.pauses.set(queue, { isPaused, broker, at: this.protocol.now });
  }

  paused(): string[] {
    return [...this.pauses].flatMap(([queue, { isPaused }]) => (isPaused ? [queue] : []));
  }

  /** A broker was started again: it remembers nothing. */
  restart(broker: number): void {
    for (const key of this.dequeues.keys()) if (key.startsWith(`${broker} `)) this.dequeues.delete(key);
    for (const one of this.protocol.all()) if (one.enqueuedOn === broker) one.enqueuedOn = null;
  }

  /**
   * Whether a broker will not overlook what is enqueued on it at this instant: not before it has
   * dequeued from the queue.
   */
  watches(broker: number, queue: string): boolean {
    return (this.dequeues.get(`${broker} ${queue}`)?.first ?? Infinity) < Infinity;
  }

  /**
   * Leases what was handed out. Throws unless it may be:
   * - only what is ready, and nothing while the queue is paused;
   * - to the consumer who came first as much as it wants, then to the next;
   * - the most urgent first, within a priority the longest available first;
   * - all that is ready, if that is less than they want; if nothing was handed out, nothing is ready.
   *
   * A delivery may be overlooked for a while, see {@link mayOverlook}; but no queue is called empty
   * while there is one, unless the dequeue was shared. One that was repeated hands out in any
   * order.
   */
  dequeue(dequeue: Dequeue): void {
    const { broker, queue, demands, leased, isShared, isRepeated } = dequeue;
    const mayHandOut = this.mayHandOut(broker, queue);
    if (mayHandOut !== true && leased.flat().length === 0) {
      // Whether it looked at all, nobody knows.
      if (mayHandOut === undefined) this.remember(broker, queue, { first: Infinity, last: -Infinity });
      return;
    }
    check(mayHandOut !== false, `paused queue ${queue} handed out`);
    const ready = this.protocol.in(queue).filter((one) => this.protocol.isReady(one));
    const taken: Delivery[] = [];
    for (const [consumer, leases] of leased.entries()) {
      const { maxMessages, leaseSeconds } = demands[consumer]!;
      check(leases.length <= maxMessages, `${leases.length} were handed out to who wanted ${maxMessages}`);
      const isLast = leased.slice(consumer + 1).every(({ length }) => length === 0);
      check(isLast || leases.length === maxMessages, 'a consumer was served before another who had come first');
      for (const lease of leases) taken.push(this.lease(lease, ready, leaseSeconds));
    }
    if (taken.length === 0 && !isShared) check(ready.length === 0, `${queue} was called empty, with ${list(ready)}`);
    if (!isRepeated) this.checkOrder(dequeue, ready, taken);
    this.remember(broker, queue, { first: this.protocol.now, last: isShared ? -Infinity : this.protocol.now });
  }

  /**
   * What a dequeue may have removed or dead-lettered as it met it; to be told of before what it
   * handed out.
   */
  inTheWay({ queue }: Dequeue): Delivery[] {
    const isInTheWay = (one: Delivery): boolean =>
      one.expiresAt <= this.protocol.now || this.protocol.isOverReceived(one);
    return this.available(queue).filter(isInTheWay);
  }

  /** What one that was repeated may have given back; to be told of after what it handed out. */
  mayBeGivenBack({ queue, isRepeated }: Dequeue): Delivery[] {
    return isRepeated ? this.available(queue) : [];
  }

  /**
   * Where such a delivery is found afterwards; undefined: nowhere. Throws unless it may be there.
   */
  foundAt(
    delivery: Delivery,
    seen: Pick<Delivery, 'queue' | 'availableAt'> | undefined,
    { isRepeated }: Dequeue,
  ): void {
    const { now, owed, queues } = this.protocol;
    if (seen === undefined) {
      check(delivery.expiresAt <= now, `${list([delivery])} was lost`);
      owed.delete(delivery.id);
    } else if (seen.queue !== delivery.queue) {
      const mayMove = delivery.expiresAt > now && this.protocol.isOverReceived(delivery);
      check(mayMove && seen.queue === queues.get(delivery.queue)?.deadLetterQueue, `${list([delivery])} was moved`);
      this.protocol.move(delivery, seen.queue);
    } else if (seen.availableAt !== delivery.availableAt) {
      check(isRepeated && seen.availableAt === now, `${list([delivery])} is available at ${seen.availableAt}`);
      this.protocol.offer(delivery, now);
    }
  }

  private available(queue: string): Delivery[] {
    return this.protocol.in(queue).filter(({ availableAt }) => availableAt <= this.protocol.now);
  }

  private checkOrder({ demands, mayBeMore, ...how }: Dequeue, ready: Delivery[], taken: Delivery[]): void {
    for (const [index, one] of taken.entries()) {
      check(index === 0 || !isBefore(one, taken[index - 1]!), `${list([one])} was handed out too late`);
    }
    const wanted = demands.reduce((sum, { maxMessages }) => sum + maxMessages, 0);
    const mustBeAll = taken.length < wanted && (!mayBeMore || taken.length === 0);
    for (const one of ready.filter(({ id }) => !taken.some((other) => other.id === id))) {
      const isPassedOver = mustBeAll || (taken.length > 0 && isBefore(one, taken.at(-1)!));
      check(!isPassedOver || this.mayOverlook(one, how), `${list([one])} was passed over`);
    }
  }

  /**
   * With its first dequeue from a queue a broker sees all that is there, and from then on what is
   * enqueued on it. What became ready otherwise it may overlook, but with a dequeue that comes 250
   * ms after it, or after the first, it looks for it: from the next on it must see it. What another
   * queue of the same flight dead-lettered came too late for it.
   */
  private mayOverlook(
    { enqueuedOn, visibleFrom }: Delivery,
    { broker, queue, isShared }: Pick<Dequeue, 'broker' | 'queue' | 'isShared'>,
  ): boolean {
    if (isShared && visibleFrom === this.protocol.now && enqueuedOn === null) return true;
    const before = this.dequeues.get(`${broker} ${queue}`);
    if (before === undefined || enqueuedOn === broker) return false;
    return before.last < Math.max(visibleFrom, before.first) + OVERLOOKED_MS;
  }

  private remember(broker: number, queue: string, { first, last }: { first: number; last: number }): void {
    const key = `${broker} ${queue}`;
    const before = this.dequeues.get(key) ?? { first, last };
    this.dequeues.set(key, { first: Math.min(before.first, first), last: Math.max(before.last, last) });
  }

  /** Undefined: it depends on what the broker has heard. */
  private mayHandOut(broker: number, queue: string): boolean | undefined {
    const pause = this.pauses.get(queue);
    if (pause === undefined) return true;
    const hasHeard = pause.broker === broker || this.protocol.now >= pause.at + NOT_HEARD_MS;
    return hasHeard ? !pause.isPaused : undefined;
  }

  /** Returns the delivery as it was before. */
  private lease({ token, leaseExpiresAt, ...lease }: Lease, ready: readonly Delivery[], seconds: number): Delivery {
    const delivery = ready.find(({ id }) => id === lease.id);
    if (delivery === undefined) throw new Error(`${list([this.protocol.owed.get(lease.id)])} was handed out`);
    check(!this.protocol.isLeased(delivery), `${lease.id} was handed out twice`);
    const before = { ...delivery };
    const { id, body, priority, expiresAt, receiveCount } = before;
    const expected = { id, body, priority, receiveCount: receiveCount + 1, expiresAt };
    const isAsExpected = Object.entries(expected).every(([key, value]) => lease[key as keyof typeof lease] === value);
    check(isAsExpected, `${JSON.stringify(lease)} was handed out, not ${JSON.stringify(expected)}`);
    check(leaseExpiresAt === this.protocol.now + seconds * 1000, `a lease of ${seconds} s ends at ${leaseExpiresAt}`);
    check(!this.receipts.has(`${id} ${token}`), `${id} was handed out with the receipt of an earlier lease`);
    this.receipts.add(`${id} ${token}`);
    this.protocol.lease(delivery, token, leaseExpiresAt);
    return before;
  }
}

type Place = Pick<Delivery, 'priority' | 'availableAt'>;

/** In hand-out order. */
function isBefore(one: Place, other: Place): boolean {
  return one.priority > other.priority || (one.priority === other.priority && one.availableAt < other.availableAt);
}

function list(deliveries: readonly (Delivery | undefined)[]): string {
  return deliveries.map((one) => (one === undefined ? 'a settled delivery' : JSON.stringify(one))).join(', ');
}

function check(isAllowed: boolean, otherwise: string): void {
  if (!isAllowed) throw new Error(otherwise);
}
