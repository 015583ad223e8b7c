import type { Demand, LeasedMessage, Queue, Reservation } from '@rowmq/store';
import { type IdleQueue, SHORTEST_PAUSE_MS } from './idle-poll.js';

/** A consumer's request that has no answer yet. */
export interface Consumer {
  readonly maxMessages: number;
  /** The queue's when absent. */
  readonly leaseSeconds: number | undefined;
  /** False: the next claim that need not be repeated answers it, even without a message. */
  readonly mayWait: boolean;
  /** Consumers are served in the order of this number. */
  readonly arrival: number;
  /** Its time ran out, or it hung up, while a claim or a reservation could still bring messages. */
  isOver: boolean;
  /** A claim or an enqueue that may lease messages to it begins. */
  readonly onLeasing?: (() => void) | undefined;
  readonly settle: (outcome: LeasedMessage[] | Error) => void;
}

/** The most that one claim may be for. */
export interface ClaimLimits {
  consumers: number;
  messages: number;
}

/** The part of the broker that the consumers of one queue need. */
export interface QueueConsumersHost {
  /** Starts a claim soon: `beginClaim`, then one of the methods that end it. */
  requestClaim(consumers: QueueConsumers): void;
  /** No consumer waits, and nothing is known of the queue any more. */
  forget(consumers: QueueConsumers): void;
  /**
   * This number of messages became ready, and no consumer waits here. Infinity: the number is
   * unknown.
   */
  announce(queueName: string, messages: number): void;
  /** Consumers are parked. Called again for each one that comes. */
  parked(queueName: string): void;
  handedOff(queueName: string, messages: number): void;
}

export type State =
  /** No consumer waits. Messages may be ready. */
  | 'idle'
  /** A claim is requested or in flight. */
  | 'claiming'
  /** The last claim left nothing that another one could lease now. Consumers that come wait. */
  | 'parked';

export type ConsumersEvent =
  /**
   * Messages became ready: enqueued and not handed off, nacked, released, found by a poll. Or a
   * consumer came while messages may be ready.
   */
  | 'ready'
  /** The enqueue that had reserved a consumer leased nothing to it. */
  | 'cancelled'
  /** The claim ended, and another one now would lease nothing. */
  | 'drained'
  /** The claim ended or failed, and more messages are or may be ready. */
  | 'more'
  /** The poll is due, but no consumer is parked. */
  | 'due'
  /** The poll did not find the queue. */
  | 'gone';

type Step =
  /** → claiming; → idle if no consumer waits. */
  | 'claim'
  /** → parked. */
  | 'park'
  /** The number of ready messages becomes unknown. */
  | 'doubt'
  /** → idle, with an unknown number of ready messages. */
  | 'forget';

/** The state machine. An event without a step changes nothing. */
const STEPS: Record<ConsumersEvent, Partial<Record<State, Step>>> = {
  ready: { idle: 'claim', parked: 'claim' },
  cancelled: { idle: 'claim' },
  drained: { claiming: 'park' },
  more: { claiming: 'claim' },
  due: { idle: 'forget', claiming: 'doubt', parked: 'forget' },
  gone: { idle: 'forget', parked: 'forget' },
};

/**
 * A claim that got too little although more may be ready is repeated. After this many in a row that
 * got nothing, a consumer that does not wait is told that there is no message. The others wait for
 * the next consumer, hint or poll.
 */
const MOST_REPEATS = 5;

/**
 * The consumers of one queue, first come first served, and all that this broker knows of the
 * queue's ready messages.
 *
 * A consumer gets messages from a claim or by a hand-off. A hand-off is cheaper, but must not pass
 * over messages that the broker knows to be ready. So this object counts them (`ready`):
 *
 * - At first the number is unknown, which is Infinity. A claim that got less than it wanted, and
 *   need not be repeated, took all there was. The number is then what became ready since it began.
 * - An enqueue, nack or release adds its messages. An enqueue adds only those that it did not hand
 *   off.
 * - A claim is for just enough consumers to take the known messages, and subtracts what they want.
 * - An enqueue may reserve waiting consumers while the number is 0, even if a claim is in flight:
 *   that claim covers all known messages.
 *
 * That a claim is for no more consumers keeps a busy queue out of a trap. A claim for all would
 * leave nobody to reserve. The next enqueue would then store its messages ready, which needs a
 * claim again.
 *
 * - Low load: the number stays 0. A consumer that comes back is parked without a claim, and the
 *   next enqueue hands off to it.
 * - Middle load: an enqueue with more messages than parked consumers leaves some ready. One claim
 *   takes them for as many consumers; the next enqueue hands off to the others.
 * - More messages than consumers can take: the number grows, and claims serve all consumers. When
 *   they have caught up, the number is 0 again.
 *
 * The number may be too high after other brokers claimed messages. A claim then gets less than it
 * wanted and corrects it. It may be too low after other brokers enqueued, a delay ended or a lease
 * ran out. A hint of a peer adds its number. The poll makes the number unknown, at most one pause
 * later. If the poll is due while no consumer is parked, the number becomes unknown without a poll.
 */
export class QueueConsumers implements IdleQueue {
  pauseMs = SHORTEST_PAUSE_MS;
  private current: State = 'idle';
  private waiting: Consumer[] = [];
  /** The consumers of the claim in flight, and the number of messages that they want. */
  private claimants: Consumer[] = [];
  private wanted = 0;
  private readonly reserved = new Set<Consumer>();
  /** Ready messages that no claim in flight is for. Infinity: unknown. */
  private ready = Infinity;
  /** Messages that became ready since the claim in flight began, which it may not have seen. */
  private readyMeanwhile = 0;
  /** Messages that became ready and were not passed on to a further peer. Infinity: unknown. */
  private fresh = 0;
  /** A peer's hint came, and no claim has begun since. */
  private isHinted = false;
  /** Claims in a row that got nothing and have to be repeated. */
  private repeats = 0;

  constructor(
    readonly queueName: string,
    private readonly host: QueueConsumersHost,
  ) {}

  get state(): State {
    return this.current;
  }

  /** Consumers wait for a hand-off, a hint or a poll. */
  get isParked(): boolean {
    return this.current === 'parked' && this.waiting.length > 0;
  }

  add(consumer: Consumer): void {
    this.waiting.push(consumer);
    // A consumer that does not wait hears that the queue is empty only from a claim that began
    // after it came.
    if (!consumer.mayWait) this.ready = Infinity;
    if (this.ready > 0) this.on('ready');
    else this.reportParked();
  }

  /**
   * Lets a consumer go. In a claim or a reservation it is answered with the outcome, because its
   * messages would be lost otherwise.
   */
  giveUp(consumer: Consumer): void {
    consumer.isOver = true;
    const index = this.waiting.indexOf(consumer);
    if (index < 0) return;
    this.waiting.splice(index, 1);
    consumer.settle([]);
  }

  /** Gives the last consumer that waits an empty answer. Returns whether there was one. */
  letLastGo(): boolean {
    const last = this.waiting.findLast(({ mayWait }) => mayWait);
    if (last !== undefined) this.giveUp(last);
    return last !== undefined;
  }

  /**
   * Messages became ready.
   * @param messages their number; Infinity: unknown
   * @param isFresh this broker made them ready, so peers may want them
   */
  becameReady(messages: number, isFresh: boolean): void {
    this.ready += messages;
    this.readyMeanwhile += messages;
    if (isFresh) this.fresh += messages;
    // The number is unknown, so there may be more: poll often.
    if (messages === Infinity) this.pauseMs = SHORTEST_PAUSE_MS;
    this.on('ready');
  }

  /** A peer says that so many messages became ready. Another one hears of those that are left. */
  wasHinted(messages: number): void {
    this.isHinted = true;
    this.becameReady(messages, true);
  }

  /** Whether a hint came for the claim that begins now. */
  takeHint(): boolean {
    const { isHinted } = this;
    this.isHinted = false;
    return isHinted;
  }

  /**
   * Reserves parked consumers for an enqueue that is about to store this many messages. The last
   * may want more than is left for it.
   */
  reserve(queue: Queue, messages: number): Reservation[] {
    if (this.ready > 0) return [];
    let wanted = 0;
    const hasEnough = this.waiting.findIndex(({ maxMessages }) => (wanted += maxMessages) >= messages);
    const consumers = this.waiting.splice(0, hasEnough < 0 ? this.waiting.length : hasEnough + 1);
    return consumers.map((consumer) => {
      this.reserved.add(consumer);
      return {
        ...demandOf(consumer, queue),
        handOff: (leased) => this.handOff(consumer, leased),
        cancel: () => this.cancel(consumer),
      };
    });
  }

  /** The claim begins now. Returns the demands that it is for; none if no consumer waits. */
  beginClaim(queue: Queue, limits: ClaimLimits): Demand[] {
    let [count, wanted] = [0, 0];
    for (const { maxMessages } of this.waiting) {
      const isFull = count === limits.consumers || wanted + maxMessages > limits.messages;
      if (wanted >= this.ready || (isFull && count > 0)) break;
      count += 1;
      wanted += maxMessages;
    }
    this.claimants = this.waiting.splice(0, count);
    this.wanted = wanted;
    this.ready = Math.max(0, this.ready - wanted);
    this.readyMeanwhile = 0;
    return this.claimants.map((consumer) => demandOf(consumer, queue));
  }

  /**
   * Hands out the messages of a claim. A consumer without one goes on waiting, if it may.
   * @param leased one list for each demand
   * @param claimAgain the claim got too little although more may be ready
   */
  endClaim(leased: readonly LeasedMessage[][], claimAgain: boolean): void {
    const found = leased.reduce((sum, { length }) => sum + length, 0);
    // A claim of large messages gets less than was wanted, again and again, and none is in vain.
    this.repeats = claimAgain && found === 0 ? this.repeats + 1 : 0;
    const isInVain = this.repeats === MOST_REPEATS;
    if (isInVain) this.repeats = 0;
    const isRepeated = claimAgain && !isInVain;
    // These are leased now, and peers would look for them in vain.
    this.fresh = Math.max(0, this.fresh - found);
    const left = this.claimants.filter((consumer, index) => {
      const messages = leased[index] ?? [];
      if (messages.length === 0 && !consumer.isOver && (consumer.mayWait || isRepeated)) return true;
      consumer.settle(messages);
      return false;
    });
    this.claimants = [];
    this.putBack(left);
    const isAsked = this.waiting.some(({ mayWait }) => !mayWait);
    if (claimAgain || isAsked) this.ready = Infinity;
    else if (found < this.wanted) this.ready = this.readyMeanwhile;
    // Too many claims in vain: park, although more may be ready.
    const isStuck = isInVain && !isAsked && this.readyMeanwhile === 0;
    this.on(this.ready > 0 && !isStuck ? 'more' : 'drained');
  }

  /** The queue is paused, so there is no claim. Messages may be ready, so there is no hand-off. */
  pauseClaim(): void {
    for (const consumer of this.waiting) if (!consumer.mayWait) consumer.settle([]);
    this.waiting = this.waiting.filter(({ mayWait }) => mayWait);
    this.on('drained');
  }

  /** The claim failed. If it could not even begin, all consumers that wait get the error. */
  failClaim(error: Error): void {
    const consumers = this.claimants.length > 0 ? this.claimants : this.waiting.splice(0);
    this.claimants = [];
    for (const consumer of consumers) consumer.settle(error);
    this.ready = Infinity;
    this.on('more');
  }

  pollIsDue(): boolean {
    if (this.isParked) return true;
    this.on('due');
    return false;
  }

  /** The poll did not find the queue. */
  dismiss(error: Error): void {
    for (const consumer of this.waiting.splice(0)) consumer.settle(error);
    this.on('gone');
  }

  /** Lets all consumers go. The outcome of claims and reservations settles theirs. */
  close(): void {
    for (const consumer of this.waiting.splice(0)) consumer.settle([]);
    for (const consumer of [...this.claimants, ...this.reserved]) consumer.isOver = true;
  }

  private handOff(consumer: Consumer, leased: LeasedMessage[]): void {
    if (!this.reserved.delete(consumer)) return;
    this.host.handedOff(this.queueName, leased.length);
    consumer.settle(leased);
  }

  private cancel(consumer: Consumer): void {
    if (!this.reserved.delete(consumer)) return;
    if (consumer.isOver) {
      consumer.settle([]);
      return;
    }
    this.putBack([consumer]);
    this.on('cancelled');
  }

  /** Lets consumers wait again, in their order of arrival. */
  private putBack(consumers: readonly Consumer[]): void {
    if (consumers.length === 0) return;
    this.waiting = [...consumers, ...this.waiting].toSorted((one, other) => one.arrival - other.arrival);
  }

  private on(event: ConsumersEvent): void {
    this.step(event);
    this.reportParked();
  }

  private reportParked(): void {
    if (this.isParked) this.host.parked(this.queueName);
  }

  private step(event: ConsumersEvent): void {
    switch (STEPS[event][this.current]) {
      case undefined:
        return;
      case 'claim':
        if (this.waiting.length === 0) {
          this.becomeIdle();
          return;
        }
        this.current = 'claiming';
        this.host.requestClaim(this);
        return;
      case 'park':
        this.current = 'parked';
        this.fresh = 0;
        return;
      case 'doubt':
        this.ready = Infinity;
        return;
      case 'forget':
        this.ready = Infinity;
        this.becomeIdle();
        return;
    }
  }

  private becomeIdle(): void {
    this.current = 'idle';
    const left = Math.min(this.fresh, this.ready);
    this.fresh = 0;
    if (left > 0) this.host.announce(this.queueName, left);
    // A cancelled reservation returns its consumer to this object, which must still be known then.
    if (this.ready === Infinity && this.reserved.size === 0) this.host.forget(this);
  }
}

/** The demand with which a claim or an enqueue begins. */
function demandOf({ maxMessages, leaseSeconds, onLeasing }: Consumer, queue: Queue): Demand {
  onLeasing?.();
  return { maxMessages, leaseSeconds: leaseSeconds ?? queue.leaseSeconds };
}
