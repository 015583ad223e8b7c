import { type BeforeApplicationShutdown, Inject, Injectable, Optional } from '@nestjs/common';
import { RowmqError } from '@rowmq/contract';
import { type LeasedDelivery, MessageRepository, type Queue, QueueRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { Metrics } from '../metrics/metrics.js';
import { Batcher } from './batcher.js';
import { BATCH_ROWS, batchLimits, type BatchConfig } from './commits.js';
import { type IdleQueue, IdlePoll, SHORTEST_PAUSE_MS } from './idle-poll.js';
import { NO_PEERS, PEERS, type Peers } from './peers.js';

/** A consumer's request. */
export interface ConsumerDemand {
  maxMessages: number;
  /** The queue's when absent. */
  leaseSeconds: number | undefined;
  /** 0: answer at once, even with no message. */
  waitMs: number;
}

interface Consumer extends ConsumerDemand {
  /** Answers it with messages, with none, or with an error. Only the first call counts. */
  settle: (outcome: LeasedDelivery[] | Error) => void;
  /** Its time ran out, or it hung up, while its claim was in flight. */
  isOver: boolean;
}

/** The consumers of one queue, first come first. */
interface ConsumerList extends IdleQueue {
  consumers: Consumer[];
  /** The claim in flight is for this many, from the first. */
  inClaim: number;
  state: 'idle' | 'claiming' | 'parked';
  /** A message became ready since the claim in flight began. */
  isWoken: boolean;
  /**
   * Messages of which this broker heard and that no consumer has got. Infinity: nobody knows how
   * many.
   */
  fresh: number;
  /** Claims in a row that have to be repeated. */
  repeats: number;
}

/**
 * A claim that only removed deliveries is repeated. After this many in a row, a consumer that does
 * not wait is told that there is no message.
 */
const MOST_REPEATS = 5;

/**
 * Dequeue: all consumers of a queue share one claim. It leases as much as they want together, and
 * the first to come gets messages first. Claims of several queues share a transaction.
 *
 * A parked consumer costs the database nothing. An enqueue, nack or release on this broker wakes
 * its queue at once, and a hint of a peer does so for other brokers. {@link IdlePoll} finds delays
 * that ended, leases that ran out and messages whose hint was lost, with one poll for all queues.
 */
@Injectable()
export class WaitingConsumers implements BeforeApplicationShutdown {
  private readonly lists = new Map<string, ConsumerList>();
  private readonly claims: Batcher<ConsumerList, void>;
  private readonly poll: IdlePoll<ConsumerList>;
  private waiting = 0;
  private isClosed = false;

  constructor(
    private readonly messages: MessageRepository,
    private readonly queues: QueueRepository,
    metrics: Metrics,
    @Inject(BROKER_CONFIG) private readonly config: BatchConfig & Pick<BrokerConfig, 'maxLongPolls'>,
    @Optional() @Inject(PEERS) private readonly peers: Peers = NO_PEERS,
  ) {
    this.claims = new Batcher({
      commit: (lists) => this.claim(lists),
      weigh: (list) => ({ rows: Math.min(BATCH_ROWS, wantedBy(list.consumers)), bytes: 0 }),
      limits: { ...batchLimits(config), requests: BATCH_ROWS },
      onBatch: (batch) => metrics.observeBatch('dequeue', batch),
    });
    metrics.addBatcher('dequeue', this.claims);
    metrics.gauge('rowmq_waiting_consumers', 'Consumers that wait for messages on this broker', () => this.waiting);
    this.poll = new IdlePoll(messages, queues, {
      onReady: (list) => this.claimFor(list),
      onGone: (list, error) => this.dismiss(list, error),
    });
  }

  /** Consumers that wait now. */
  get size(): number {
    return this.waiting;
  }

  /**
   * Leases messages, at once or as soon as there are some within `waitMs`. Returns none when the
   * time is up, the consumer hangs up or the broker stops. The caller releases messages of a
   * consumer that has hung up. Throws `queue-not-found`, `database-unavailable`, and `overloaded`
   * when too many wait.
   */
  async dequeue(queueName: string, demand: ConsumerDemand, hungUp: AbortSignal): Promise<LeasedDelivery[]> {
    if (this.isClosed || hungUp.aborted) return [];
    const mayWait = demand.waitMs > 0;
    const { maxLongPolls, maxWaitingRequests } = this.config;
    if (this.waiting >= (mayWait ? maxLongPolls : maxLongPolls + maxWaitingRequests)) {
      throw new RowmqError(
        'overloaded',
        `${this.waiting} consumers wait on this broker already; try again later or on another.`,
        { retryAfterSeconds: 1 },
      );
    }
    this.waiting += 1;
    try {
      return await new Promise<LeasedDelivery[]>((resolve, reject) => {
        const list = this.listOf(queueName);
        const consumer: Consumer = {
          ...demand,
          isOver: false,
          settle: (outcome) => {
            clearTimeout(timer);
            hungUp.removeEventListener('abort', giveUp);
            if (outcome instanceof Error) reject(outcome);
            else resolve(outcome);
          },
        };
        const giveUp = (): void => this.giveUp(list, consumer);
        const timer = mayWait ? setTimeout(giveUp, demand.waitMs) : undefined;
        hungUp.addEventListener('abort', giveUp, { once: true });
        list.consumers.push(consumer);
        // While others are parked the queue is empty: the newcomer waits with them.
        if (!mayWait || list.state !== 'parked') this.claimFor(list);
      });
    } finally {
      this.waiting -= 1;
    }
  }

  /** So many messages in this queue became ready on this broker. Infinity: nobody knows how many. */
  wake(queueName: string, messages: number): void {
    const list = this.lists.get(queueName);
    if (list === undefined) {
      this.peers.wake(queueName, messages);
      return;
    }
    list.fresh += messages;
    this.wakeList(list);
  }

  /**
   * A peer says that so many messages in this queue are ready. The next peer hears of those that
   * these consumers do not want.
   */
  wakeFromPeer(queueName: string, messages: number): void {
    this.wake(queueName, messages);
  }

  /** Queues whose consumers are parked. */
  parkedQueues(): string[] {
    return [...this.lists.values()].filter(({ state }) => state === 'parked').map(({ queueName }) => queueName);
  }

  /**
   * Lets all consumers go for whom no claim is in flight, so that the server can close. From then
   * on none may wait.
   */
  beforeApplicationShutdown(): void {
    this.isClosed = true;
    this.poll.close();
    for (const list of this.lists.values()) {
      for (const consumer of list.consumers.slice()) this.giveUp(list, consumer);
    }
  }

  private listOf(queueName: string): ConsumerList {
    const known = this.lists.get(queueName);
    if (known !== undefined) return known;
    const list: ConsumerList = {
      queueName,
      pauseMs: SHORTEST_PAUSE_MS,
      consumers: [],
      inClaim: 0,
      state: 'idle',
      isWoken: false,
      fresh: 0,
      repeats: 0,
    };
    this.lists.set(queueName, list);
    return list;
  }

  private wakeList(list: ConsumerList): void {
    list.pauseMs = SHORTEST_PAUSE_MS;
    this.claimFor(list);
  }

  /**
   * A consumer whose claim is in flight waits for it: the messages that it brings must not be lost.
   */
  private giveUp(list: ConsumerList, consumer: Consumer): void {
    const index = list.consumers.indexOf(consumer);
    consumer.isOver = true;
    if (index < list.inClaim) return;
    list.consumers.splice(index, 1);
    consumer.settle([]);
    if (list.consumers.length === 0 && list.state === 'parked') this.forget(list);
  }

  private dismiss(list: ConsumerList, error: Error): void {
    for (const consumer of list.consumers.splice(list.inClaim)) consumer.settle(error);
    if (list.state === 'parked') this.forget(list);
  }

  private forget(list: ConsumerList): void {
    this.poll.remove(list);
    this.lists.delete(list.queueName);
  }

  /** Requests a claim for the consumers on a list; if one is in flight, another after it. */
  private claimFor(list: ConsumerList): void {
    if (list.state === 'claiming') {
      list.isWoken = true;
      return;
    }
    if (list.state === 'parked') this.poll.remove(list);
    list.state = 'claiming';
    this.claims.submit(list.queueName, list).catch((error: unknown) => this.failed(list, error as Error));
  }

  /** The claim failed, or never started. */
  private failed(list: ConsumerList, error: Error): void {
    // A claim that never started was for all of them.
    const count = list.inClaim > 0 ? list.inClaim : list.consumers.length;
    for (const consumer of list.consumers.splice(0, count)) consumer.settle(error);
    this.claimEnded(list, false);
  }

  /** Claims for lists of several queues in one batch, and answers their consumers. */
  private async claim(lists: readonly ConsumerList[]): Promise<(void | Error)[]> {
    const queues = await Promise.all(lists.map(({ queueName }) => this.queues.get(queueName).catch(asError)));
    const open: { list: ConsumerList; queue: Queue }[] = [];
    for (const [index, list] of lists.entries()) {
      list.isWoken = false;
      list.inClaim = this.countForClaim(list, BATCH_ROWS / lists.length);
      const queue = queues[index] as Queue | Error;
      if (!(queue instanceof Error) && !queue.paused && list.inClaim > 0) open.push({ list, queue });
    }
    const outcomes = await this.messages.dequeue(
      open.map(({ list, queue }) => ({
        queue,
        demands: list.consumers.slice(0, list.inClaim).map(({ maxMessages, leaseSeconds }) => ({
          maxMessages,
          leaseSeconds: leaseSeconds ?? queue.leaseSeconds,
        })),
      })),
    );
    const claimed = new Map(open.map(({ list }, index) => [list, outcomes[index]]));
    return lists.map((list, index) => {
      const queue = queues[index];
      if (queue instanceof Error) return queue;
      const { leased, claimAgain: again } = claimed.get(list) ?? { leased: [], claimAgain: Promise.resolve(false) };
      // Each list by itself: a queue that still waits must not delay the consumers of another.
      void again.then((claimAgain) => this.handOut(list, leased, claimAgain));
      return undefined;
    });
  }

  /** The number of consumers, from the first, that fit one claim of so many rows; at least one. */
  private countForClaim({ consumers }: ConsumerList, mostRows: number): number {
    let rows = 0;
    const most = Math.min(consumers.length, this.config.batchRequests);
    for (let count = 0; count < most; count += 1) {
      rows += (consumers[count] as Consumer).maxMessages;
      if (rows > mostRows) return Math.max(count, 1);
    }
    return most;
  }

  /** Hands out the claimed messages. A consumer without one goes on waiting, if it may. */
  private handOut(list: ConsumerList, leased: readonly LeasedDelivery[][], claimAgain: boolean): void {
    const claimedFor = list.consumers.slice(0, list.inClaim);
    list.repeats = claimAgain ? list.repeats + 1 : 0;
    const isEmpty = !claimAgain || list.repeats >= MOST_REPEATS;
    const left = claimedFor.filter((consumer, index) => {
      const deliveries = leased[index] ?? [];
      if (deliveries.length === 0 && !consumer.isOver && (consumer.waitMs > 0 || !isEmpty)) return true;
      if (deliveries.length > 0) list.pauseMs = SHORTEST_PAUSE_MS;
      consumer.settle(deliveries);
      return false;
    });
    const handedOut = leased.reduce((sum, { length }) => sum + length, 0);
    list.fresh = Math.max(0, list.fresh - handedOut);
    const others = list.consumers.slice(list.inClaim);
    list.consumers = [...left, ...others];
    // If the first consumers got too little, there is nothing for the others.
    this.claimEnded(list, (claimAgain && !isEmpty) || (others.length > 0 && left.length === 0));
  }

  private claimEnded(list: ConsumerList, claimAgain: boolean): void {
    list.inClaim = 0;
    list.state = 'idle';
    if (list.consumers.length === 0) {
      this.lists.delete(list.queueName);
      if (list.fresh > 0) this.peers.wake(list.queueName, list.fresh);
    } else if (list.isWoken || claimAgain || list.consumers.some(({ waitMs }) => waitMs === 0)) {
      this.claimFor(list);
    } else {
      list.state = 'parked';
      list.fresh = 0;
      this.poll.add(list);
      this.peers.parked(list.queueName);
    }
  }
}

function wantedBy(consumers: readonly Consumer[]): number {
  return consumers.reduce((sum, { maxMessages }) => sum + maxMessages, 0);
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
