import { type BeforeApplicationShutdown, Inject, Injectable, Optional } from '@nestjs/common';
import { RowmqError } from '@rowmq/contract';
import { type LeasedDelivery, MessageRepository, type Queue, QueueRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { Metrics } from '../metrics/metrics.js';
import { Batcher } from './batcher.js';
import { type EmptyQueue, EmptyQueueWatch, SHORTEST_PAUSE_MS } from './empty-queue-watch.js';
import { FLIGHT_ROWS, flightLimits, type FlightConfig } from './flights.js';
import { NO_PEERS, PEERS, type Peers } from './peers.js';

/** What a consumer asks for. */
export interface ConsumerDemand {
  maxMessages: number;
  /** The queue's when absent. */
  leaseSeconds: number | undefined;
  /** 0: answer at once, with what there is. */
  waitMs: number;
}

interface Consumer extends ConsumerDemand {
  /** Answers it: with messages, with none, or with an error. Only the first call counts. */
  settle: (outcome: LeasedDelivery[] | Error) => void;
  /** Its time is up, or it hung up, while a claim for it was under way. */
  isOver: boolean;
}

/** Those who want messages of one queue, in the order in which they came. */
interface DemandList extends EmptyQueue {
  consumers: Consumer[];
  /** How many of the first a claim is under way for. */
  served: number;
  state: 'idle' | 'claiming' | 'parked';
  /** Something became available since the claim that is under way began. */
  isWoken: boolean;
  /** Something became available here, and it is not yet known whether those who wait take it all. */
  isFresh: boolean;
  /** Claims in a row that had to look again. */
  looksAgain: number;
}

/** After so many claims in a row that only removed what stood in the way, whoever does not wait is told that there is nothing. */
const LOOKS_AGAIN = 5;

/**
 * Dequeue by combined demand: all consumers of a queue share one claim, which takes as much as they want together and serves them in the order in which they came. Claims of several queues share a
 * transaction.
 *
 * Who waits costs the database nothing: an enqueue, nack or give-back on this broker wakes its queue at once. What
 * happens on other brokers, delays that end and leases that run out, {@link EmptyQueueWatch} finds, with one look for all queues.
 */
@Injectable()
export class CombinedDemand implements BeforeApplicationShutdown {
  private readonly lists = new Map<string, DemandList>();
  private readonly claims: Batcher<DemandList, void>;
  private readonly watch: EmptyQueueWatch<DemandList>;
  private waiting = 0;
  private isClosed = false;

  constructor(
    private readonly messages: MessageRepository,
    private readonly queues: QueueRepository,
    metrics: Metrics,
    @Inject(BROKER_CONFIG) private readonly config: FlightConfig & Pick<BrokerConfig, 'maxLongPolls'>,
    @Optional() @Inject(PEERS) private readonly peers: Peers = NO_PEERS,
  ) {
    this.claims = new Batcher({
      fly: (lists) => this.claim(lists),
      weigh: (list) => ({ rows: Math.min(FLIGHT_ROWS, demandOf(list.consumers)), bytes: 0 }),
      limits: { ...flightLimits(config), requests: FLIGHT_ROWS },
      onFlight: (flight) => metrics.observeFlight('dequeue', flight),
    });
    metrics.watchFlights('dequeue', this.claims);
    metrics.gauge('rowmq_waiting_consumers', 'Consumers that wait for messages on this broker', () => this.waiting);
    this.watch = new EmptyQueueWatch(messages, queues, {
      onReady: (list) => this.claimFor(list),
      onGone: (list, error) => this.dismiss(list, error),
    });
  }

  /** Consumers that wait now. */
  get size(): number {
    return this.waiting;
  }

  /**
   * Leases messages, at once or as soon as there are some within `waitMs`; none when the time is up, the consumer hangs up or the broker stops. The answer for a consumer who has hung up is
   * to be given back.
   *
   * Throws `queue-not-found`, `database-unavailable`, and `overloaded` when too many wait.
   */
  async take(queueName: string, demand: ConsumerDemand, hungUp: AbortSignal): Promise<LeasedDelivery[]> {
    if (this.isClosed || hungUp.aborted) return [];
    const mayWait = demand.waitMs > 0;
    if (
      this.waiting >= (mayWait ? this.config.maxLongPolls : this.config.maxLongPolls + this.config.maxWaitingRequests)
    ) {
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
        // Where others wait already there is nothing: the newcomer waits with them.
        if (!mayWait || list.state !== 'parked') this.claimFor(list);
      });
    } finally {
      this.waiting -= 1;
    }
  }

  /** Something in this queue became available. */
  wake(queueName: string): void {
    const list = this.wakeHere(queueName);
    if (list === undefined) this.peers.wake(queueName);
    else list.isFresh = true;
  }

  /** Something in this queue became available elsewhere. */
  wakeHere(queueName: string): DemandList | undefined {
    const list = this.lists.get(queueName);
    if (list === undefined) return undefined;
    list.pauseMs = SHORTEST_PAUSE_MS;
    this.claimFor(list);
    return list;
  }

  /** Lets everybody go for whom no claim is under way, so that the server can close: part of a stop, after which nobody may wait. */
  beforeApplicationShutdown(): void {
    this.isClosed = true;
    this.watch.close();
    for (const list of this.lists.values()) {
      for (const consumer of list.consumers.slice()) this.giveUp(list, consumer);
    }
  }

  private listOf(queueName: string): DemandList {
    const known = this.lists.get(queueName);
    if (known !== undefined) return known;
    const list: DemandList = {
      queueName,
      pauseMs: SHORTEST_PAUSE_MS,
      consumers: [],
      served: 0,
      state: 'idle',
      isWoken: false,
      isFresh: false,
      looksAgain: 0,
    };
    this.lists.set(queueName, list);
    return list;
  }

  /** A claim for it that is under way is awaited: what it brings must not be lost sight of. */
  private giveUp(list: DemandList, consumer: Consumer): void {
    const place = list.consumers.indexOf(consumer);
    consumer.isOver = true;
    if (place < list.served) return;
    list.consumers.splice(place, 1);
    consumer.settle([]);
    if (list.consumers.length === 0 && list.state === 'parked') this.forget(list);
  }

  private dismiss(list: DemandList, error: Error): void {
    for (const consumer of list.consumers.splice(list.served)) consumer.settle(error);
    if (list.state === 'parked') this.forget(list);
  }

  private forget(list: DemandList): void {
    this.watch.remove(list);
    this.lists.delete(list.queueName);
  }

  /** Has a claim made for those on a list; if one is under way already, another after it. */
  private claimFor(list: DemandList): void {
    if (list.state === 'claiming') {
      list.isWoken = true;
      return;
    }
    if (list.state === 'parked') this.watch.remove(list);
    list.state = 'claiming';
    this.claims.submit(list.queueName, list).catch((error: unknown) => this.failed(list, error as Error));
  }

  /** The claim never took off, or failed. */
  private failed(list: DemandList, error: Error): void {
    // Nobody was served yet if it never took off: then it is those who would have been.
    const count = list.served > 0 ? list.served : list.consumers.length;
    for (const consumer of list.consumers.splice(0, count)) consumer.settle(error);
    this.landed(list, false);
  }

  /** Claims for lists of several queues in one flight, and answers their consumers. */
  private async claim(lists: readonly DemandList[]): Promise<(void | Error)[]> {
    const queues = await Promise.all(lists.map(({ queueName }) => this.queues.get(queueName).catch(asError)));
    const open: { list: DemandList; queue: Queue }[] = [];
    for (const [index, list] of lists.entries()) {
      list.isWoken = false;
      list.served = this.countServed(list, FLIGHT_ROWS / lists.length);
      const queue = queues[index] as Queue | Error;
      if (!(queue instanceof Error) && !queue.paused && list.served > 0) open.push({ list, queue });
    }
    const outcomes = await this.messages.dequeue(
      open.map(({ list, queue }) => ({
        queue,
        demands: list.consumers.slice(0, list.served).map(({ maxMessages, leaseSeconds }) => ({
          maxMessages,
          leaseSeconds: leaseSeconds ?? queue.leaseSeconds,
        })),
      })),
    );
    const claimed = new Map(open.map(({ list }, index) => [list, outcomes[index]]));
    return lists.map((list, index) => {
      const queue = queues[index];
      if (queue instanceof Error) return queue;
      const { leased, lookAgain } = claimed.get(list) ?? { leased: [], lookAgain: Promise.resolve(false) };
      // Each list by itself: what one queue still waits for must not hold up what another's consumers are owed.
      void lookAgain.then((mayFindMore) => this.serve(list, leased, mayFindMore));
      return undefined;
    });
  }

  /** How many consumers, from the first, one claim of at most so many rows is made for: one at least. */
  private countServed({ consumers }: DemandList, mostRows: number): number {
    let rows = 0;
    const most = Math.min(consumers.length, this.config.flightRequests);
    for (let count = 0; count < most; count += 1) {
      rows += (consumers[count] as Consumer).maxMessages;
      if (rows > mostRows) return Math.max(count, 1);
    }
    return most;
  }

  /** Hands out what was claimed. Who gets nothing goes on waiting, if it waits. */
  private serve(list: DemandList, leased: readonly LeasedDelivery[][], lookAgain: boolean): void {
    const served = list.consumers.slice(0, list.served);
    list.looksAgain = lookAgain ? list.looksAgain + 1 : 0;
    const isEmpty = !lookAgain || list.looksAgain >= LOOKS_AGAIN;
    const left = served.filter((consumer, index) => {
      const deliveries = leased[index] ?? [];
      if (deliveries.length === 0 && !consumer.isOver && (consumer.waitMs > 0 || !isEmpty)) return true;
      if (deliveries.length > 0) list.pauseMs = SHORTEST_PAUSE_MS;
      consumer.settle(deliveries);
      return false;
    });
    const others = list.consumers.slice(list.served);
    list.consumers = [...left, ...others];
    // Others come next, unless those before them got too little already.
    this.landed(list, (lookAgain && !isEmpty) || (others.length > 0 && left.length === 0));
  }

  private landed(list: DemandList, mayFindMore: boolean): void {
    list.served = 0;
    list.state = 'idle';
    if (list.consumers.length === 0) {
      this.lists.delete(list.queueName);
      if (list.isFresh) this.peers.wake(list.queueName);
    } else if (list.isWoken || mayFindMore || list.consumers.some(({ waitMs }) => waitMs === 0)) {
      this.claimFor(list);
    } else {
      list.state = 'parked';
      list.isFresh = false;
      this.watch.add(list);
    }
  }
}

function demandOf(consumers: readonly Consumer[]): number {
  return consumers.reduce((sum, { maxMessages }) => sum + maxMessages, 0);
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
