import { packIdOf } from '@rowmq/contract';
import { type Delivery, keyOf, type LeaseProtocol } from '@rowmq/client/testing';

/*
 * Decides which dequeues the protocol allows. Several brokers hand out from the same queues, and
 * each remembers for a while what it saw. The protocol therefore leaves some choices to the store.
 * The model learns what the store handed out and checks that it was allowed.
 */

/** A leased delivery as a dequeue returns it. */
export type Lease = Pick<Delivery, 'id' | 'copy' | 'body' | 'priority' | 'receiveCount' | 'expiresAt'> & {
  token: string;
  leaseExpiresAt: number;
};

/** A dequeue from one queue: the consumers' demands in order of arrival, and what each received. */
export interface Dequeue {
  broker: number;
  queue: string;
  demands: readonly { maxMessages: number; leaseSeconds: number }[];
  leased: readonly (readonly Lease[])[];
  /** The store reports that more may be ready for consumers who received less than they wanted. */
  mayBeMore: boolean;
}

/** A broker may overlook a delivery for this long if something else made it ready. */
const OVERLOOKED_MS = 250;
/** A broker may miss another broker's pause or resume for this long. */
const NOT_HEARD_MS = 1000;

export class DequeueRules {
  private readonly receipts = new Set<string>();
  private readonly pauses = new Map<string, { isPaused: boolean; broker: number; at: number }>();
  /**
   * By broker and queue: the time of its first dequeue, and of its last.
   */
  private readonly dequeues = new Map<string, { first: number; last: number }>();

  constructor(private readonly protocol: LeaseProtocol) {}

  setPaused(broker: number, queue: string, isPaused: boolean): void {
    this.pauses.set(queue, { isPaused, broker, at: this.protocol.now });
  }

  paused(): string[] {
    return [...this.pauses].flatMap(([queue, { isPaused }]) => (isPaused ? [queue] : []));
  }

  /** A restarted broker remembers nothing. */
  restart(broker: number): void {
    for (const key of this.dequeues.keys()) if (key.startsWith(`${broker} `)) this.dequeues.delete(key);
    for (const one of this.protocol.all()) if (one.enqueuedOn === broker) one.enqueuedOn = null;
  }

  /**
   * True once a broker has dequeued from the queue. From then on it never overlooks a message that
   * was enqueued on it.
   */
  knowsEnqueuesOf(broker: number, queue: string): boolean {
    return (this.dequeues.get(`${broker} ${queue}`)?.first ?? Infinity) < Infinity;
  }

  /** Leases a delivery that an enqueue handed off. It was ready, and nobody else could see it. */
  handOff(lease: Lease, delivery: Delivery, leaseSeconds: number): void {
    this.lease(lease, [delivery], leaseSeconds);
  }

  /**
   * Leases the deliveries that the store handed out. Throws unless all of this holds:
   * - Each was ready, and the queue was not paused.
   * - The first consumer received all that it wanted, then the next.
   * - They are in order of priority, then of availability.
   * - If the consumers received less than they wanted, nothing else is ready.
   *
   * The store may overlook a delivery for a while, see {@link mayOverlook}. It may report an empty
   * queue only if nothing is ready.
   */
  dequeue(dequeue: Dequeue): void {
    const { broker, queue, demands, leased } = dequeue;
    const mayHandOut = this.mayHandOut(broker, queue);
    if (mayHandOut !== true && leased.flat().length === 0) {
      // The broker may not have read the queue at all.
      if (mayHandOut === undefined) this.remember(broker, queue, { first: Infinity, last: -Infinity });
      return;
    }
    check(mayHandOut !== false, `paused queue ${queue} handed out messages`);
    const ready = this.protocol.in(queue).filter((one) => this.protocol.isReady(one));
    const taken: Delivery[] = [];
    for (const [consumer, leases] of leased.entries()) {
      const { maxMessages, leaseSeconds } = demands[consumer]!;
      check(leases.length <= maxMessages, `${leases.length} were handed out to a consumer that wanted ${maxMessages}`);
      const isLast = leased.slice(consumer + 1).every(({ length }) => length === 0);
      check(isLast || leases.length === maxMessages, 'a consumer received messages before an earlier one had enough');
      for (const lease of leases) taken.push(this.lease(lease, ready, leaseSeconds));
    }
    if (taken.length === 0) check(ready.length === 0, `${queue} was reported empty, but ${list(ready)} was ready`);
    this.checkOrder(dequeue, ready, taken);
    this.remember(broker, queue, { first: this.protocol.now, last: this.protocol.now });
  }

  /**
   * The deliveries that a dequeue may have removed or dead-lettered on its way. Pass them to {@link
   * foundAt} before {@link dequeue}.
   */
  inTheWay({ queue }: Dequeue): Delivery[] {
    const { now } = this.protocol;
    return this.protocol
      .in(queue)
      .filter((one) => one.availableAt <= now && (one.expiresAt <= now || this.protocol.isOverReceived(one)));
  }

  /**
   * Applies the state in which the database holds a delivery after the dequeue. Undefined means
   * that it is gone. Throws unless the protocol allows the change.
   */
  foundAt(delivery: Delivery, seen: Pick<Delivery, 'queue'> | undefined): void {
    if (seen?.queue === delivery.queue) return;
    const { deadLetterQueue, deadLetterExpired } = this.protocol.queues.get(delivery.queue)!;
    const isExpired = delivery.expiresAt <= this.protocol.now;
    const isKept = isExpired && deadLetterExpired === true && deadLetterQueue !== null;
    if (seen === undefined) {
      check(isExpired && !isKept, `${list([delivery])} was lost`);
      this.protocol.drop(delivery);
      return;
    }
    const mayMove = isKept || (!isExpired && this.protocol.isOverReceived(delivery));
    check(mayMove && seen.queue === deadLetterQueue, `${list([delivery])} was moved`);
    if (isKept) this.protocol.endLife(delivery);
    else this.protocol.move(delivery, seen.queue, 'max-receives');
  }

  private checkOrder({ demands, mayBeMore, ...how }: Dequeue, ready: Delivery[], taken: Delivery[]): void {
    for (const [index, one] of taken.entries()) {
      check(index === 0 || !isBefore(one, taken[index - 1]!), `${list([one])} was handed out too late`);
    }
    const wanted = demands.reduce((sum, { maxMessages }) => sum + maxMessages, 0);
    const mustBeAll = taken.length < wanted && (!mayBeMore || taken.length === 0);
    for (const one of ready.filter((all) => !taken.some((other) => keyOf(other) === keyOf(all)))) {
      const isPassedOver = mustBeAll || (taken.length > 0 && isBefore(one, taken.at(-1)!));
      check(!isPassedOver || this.mayOverlook(one, how) || isOtherCopy(one, taken), `${list([one])} was passed over`);
    }
  }

  /**
   * A broker's first dequeue from a queue sees all deliveries. Afterwards the broker knows what it
   * enqueues itself. It may overlook a delivery that became ready in another way. A dequeue at
   * least 250 ms later, and 250 ms after the first, finds it. From the next one on, the broker must
   * see it.
   */
  private mayOverlook(
    { enqueuedOn, visibleFrom }: Delivery,
    { broker, queue }: Pick<Dequeue, 'broker' | 'queue'>,
  ): boolean {
    const before = this.dequeues.get(`${broker} ${queue}`);
    if (before === undefined || enqueuedOn === broker) return false;
    return before.last < Math.max(visibleFrom, before.first) + OVERLOOKED_MS;
  }

  private remember(broker: number, queue: string, { first, last }: { first: number; last: number }): void {
    const key = `${broker} ${queue}`;
    const before = this.dequeues.get(key) ?? { first, last };
    this.dequeues.set(key, { first: Math.min(before.first, first), last: Math.max(before.last, last) });
  }

  /** Undefined: it depends on whether the broker knows of the pause. */
  private mayHandOut(broker: number, queue: string): boolean | undefined {
    const pause = this.pauses.get(queue);
    if (pause === undefined) return true;
    const hasHeard = pause.broker === broker || this.protocol.now >= pause.at + NOT_HEARD_MS;
    return hasHeard ? !pause.isPaused : undefined;
  }

  /** Returns the delivery's state before the lease. */
  private lease({ token, leaseExpiresAt, ...lease }: Lease, ready: readonly Delivery[], seconds: number): Delivery {
    const delivery = ready.find((one) => keyOf(one) === keyOf(lease));
    if (delivery === undefined) throw new Error(`${list([this.protocol.owed.get(keyOf(lease))])} was handed out`);
    check(!this.protocol.isLeased(delivery), `${lease.id} was handed out twice`);
    const before = { ...delivery };
    const { id, copy, body, priority, expiresAt, receiveCount } = before;
    const expected = { id, copy, body, priority, receiveCount: receiveCount + 1, expiresAt };
    const isAsExpected = Object.entries(expected).every(([key, value]) => lease[key as keyof typeof lease] === value);
    check(isAsExpected, `${JSON.stringify(lease)} was handed out, not ${JSON.stringify(expected)}`);
    check(leaseExpiresAt === this.protocol.now + seconds * 1000, `a lease of ${seconds} s ends at ${leaseExpiresAt}`);
    check(!this.receipts.has(`${id} ${token}`), `${id} was handed out with the receipt of an earlier lease`);
    this.receipts.add(`${id} ${token}`);
    this.protocol.lease(delivery, token, leaseExpiresAt);
    return before;
  }
}

/**
 * A dequeue leases one copy of a pack only, because all its leases share a token. Another copy of
 * the same pack waits for the next dequeue.
 */
function isOtherCopy({ id, copy }: Delivery, taken: readonly Delivery[]): boolean {
  const pack = packOf(id);
  return taken.some((other) => other.copy !== copy && packOf(other.id) === pack);
}

/** The id of a message's pack, in hex. */
export function packOf(id: string): string {
  return packIdOf(Buffer.from(id, 'hex')).toString('hex');
}

type Order = Pick<Delivery, 'priority' | 'availableAt'>;

/** True if `one` precedes `other` in hand-out order. */
function isBefore(one: Order, other: Order): boolean {
  return one.priority > other.priority || (one.priority === other.priority && one.availableAt < other.availableAt);
}

function list(deliveries: readonly (Delivery | undefined)[]): string {
  return deliveries.map((one) => (one === undefined ? 'a settled delivery' : JSON.stringify(one))).join(', ');
}

function check(isAllowed: boolean, otherwise: string): void {
  if (!isAllowed) throw new Error(otherwise);
}
