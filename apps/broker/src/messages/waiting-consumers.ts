import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import { RowmqError } from '@rowmq/contract';
import {
  type ClaimOutcome,
  type ClaimRequest,
  type LeasedMessage,
  MessageRepository,
  type Queue,
  QueueRepository,
  type Reservation,
} from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { Metrics } from '../metrics/metrics.js';
import { Pressure } from '../metrics/pressure.js';
import { batchLimits, type BatchConfig } from './batch-limits.js';
import { Batcher } from './batcher.js';
import { IdlePoll } from './idle-poll.js';
import { PEERS, type Peers } from './peers.js';
import { type CallerName, RequestLimits } from './request-limits.js';
import { type ClaimLimits, type Consumer, QueueConsumers, type QueueConsumersHost } from './queue-consumers.js';

/** A consumer's request. */
export interface ConsumerDemand {
  maxMessages: number;
  /** The queue's when absent. */
  leaseSeconds: number | undefined;
  /** 0: answer at once, even with no message. */
  waitMs: number;
  caller?: CallerName;
  /** A claim or an enqueue that may lease messages to it begins. The last call counts. */
  onLeasing?: (() => void) | undefined;
}

/** A queue whose consumers need a claim. */
interface Turn {
  list: QueueConsumers;
  /**
   * Set when the claim has begun; null if it needs none. A batch that failed as a whole is repeated
   * in parts.
   */
  request?: ClaimRequest | null;
}

/** The most queues that one claim is for. */
const QUEUES_OF_A_CLAIM = 50;

/**
 * Dequeue: the consumers of every queue. {@link QueueConsumers} decides for one queue whether they
 * need a claim or wait for a hand-off.
 *
 * Consumers of a queue share a claim, and a queue has one claim in flight at a time: two would wait
 * for each other. Queues whose consumers need a claim at the same time share one transaction.
 *
 * A parked consumer costs the database nothing. Hints of peers tell what other brokers enqueued.
 * {@link IdlePoll} finds delays that ended, leases that ran out and messages whose hint was lost,
 * with one poll for all queues.
 */
@Injectable()
export class WaitingConsumers implements BeforeApplicationShutdown {
  private readonly lists = new Map<string, QueueConsumers>();
  private readonly poll: IdlePoll<QueueConsumers>;
  private readonly claims: Batcher<Turn, ClaimOutcome | undefined>;
  private readonly claimLimits: ClaimLimits;
  private arrivals = 0;
  private waiting = 0;
  private isClosed = false;
  private readonly host: QueueConsumersHost = {
    requestClaim: (list) => void this.claim(list),
    forget: (list) => {
      this.poll.remove(list);
      // A poll may still tell a list that was forgotten, when another has its name already.
      if (this.lists.get(list.queueName) === list) this.lists.delete(list.queueName);
    },
    announce: (queueName, messages) => this.peers.wake(queueName, messages),
    parked: (queueName) => this.peers.parked(queueName),
    handedOff: (queueName, messages) => this.metrics.count('handed-off', queueName, messages),
  };

  constructor(
    private readonly messages: MessageRepository,
    private readonly queues: QueueRepository,
    private readonly metrics: Metrics,
    @Inject(BROKER_CONFIG) private readonly config: BatchConfig & Pick<BrokerConfig, 'maxLongPolls'>,
    @Inject(PEERS) private readonly peers: Peers,
    private readonly limits: RequestLimits,
    private readonly pressure: Pressure,
  ) {
    const ofBatch = batchLimits(config);
    this.claimLimits = { consumers: ofBatch.requests, messages: ofBatch.rows };
    this.claims = new Batcher<Turn, ClaimOutcome | undefined>({
      commit: (turns) => this.commit(turns),
      weigh: () => ({ rows: 1, bytes: 0 }),
      limits: { ...ofBatch, requests: Math.min(ofBatch.requests, QUEUES_OF_A_CLAIM), waitingRequests: Infinity },
      onBegin: () => this.pressure.begin(),
    });
    metrics.addBatcher('dequeue', this.claims);
    metrics.gauge('rowmq_waiting_consumers', 'Consumers that wait for messages on this broker', () => this.waiting);
    this.poll = new IdlePoll(messages, queues, {
      onReady: (list) => list.becameReady(Infinity, false),
      onGone: (list, error) => list.dismiss(error),
    });
  }

  /** Consumers that wait now. */
  get size(): number {
    return this.waiting;
  }

  /**
   * Leases messages, at once or as soon as there are some within `waitMs`. Returns none when the
   * time is up, the consumer hangs up or the broker stops. The caller releases messages of a
   * consumer that has hung up. Throws `queue-not-found`, `database-unavailable`, `rate-limited`
   * when too many of its queue or key wait, and `overloaded` when too many wait in all.
   */
  async dequeue(queueName: string, demand: ConsumerDemand, hungUp: AbortSignal): Promise<LeasedMessage[]> {
    if (this.isClosed || hungUp.aborted) return [];
    const mayWait = demand.waitMs > 0;
    this.limits.admitDequeue();
    this.makeRoom(queueName, mayWait);
    const endPoll = mayWait ? this.limits.beginPoll(demand.caller ?? null, queueName) : undefined;
    this.waiting += 1;
    try {
      return await new Promise<LeasedMessage[]>((resolve, reject) => {
        const list = this.listOf(queueName);
        const consumer: Consumer = {
          maxMessages: demand.maxMessages,
          leaseSeconds: demand.leaseSeconds,
          mayWait,
          arrival: (this.arrivals += 1),
          isOver: false,
          onLeasing: demand.onLeasing,
          settle: (outcome) => {
            clearTimeout(timer);
            hungUp.removeEventListener('abort', giveUp);
            if (outcome instanceof Error) reject(outcome);
            else resolve(outcome);
          },
        };
        const giveUp = (): void => list.giveUp(consumer);
        const timer = mayWait ? setTimeout(giveUp, demand.waitMs) : undefined;
        hungUp.addEventListener('abort', giveUp, { once: true });
        list.add(consumer);
      });
    } finally {
      this.waiting -= 1;
      endPoll?.();
    }
  }

  /**
   * Throws `overloaded` if nobody else may wait. If the consumer's queue has less than its share,
   * the last consumer of the queue with the most gets an empty answer instead.
   */
  private makeRoom(queueName: string, mayWait: boolean): void {
    const { maxLongPolls, maxWaitingRequests } = this.config;
    const most = mayWait ? maxLongPolls : maxLongPolls + maxWaitingRequests;
    if (this.waiting < most) return;
    const largest = mayWait ? this.limits.queueToGiveWay(queueName) : undefined;
    if (largest !== undefined && this.lists.get(largest)?.letLastGo() === true) return;
    throw new RowmqError(
      'overloaded',
      `${this.waiting} consumers wait on this broker already; try again later or on another.`,
      { retryAfterSeconds: 1 },
    );
  }

  /**
   * Reserves parked consumers of this queue for an enqueue that is about to commit this many
   * messages.
   */
  reserve(queue: Queue, messages: number): Reservation[] {
    return this.lists.get(queue.name)?.reserve(queue, messages) ?? [];
  }

  /** Messages became ready on this broker: this many, or Infinity if the number is unknown. */
  wake(queueName: string, messages: number): void {
    const list = this.lists.get(queueName);
    if (list === undefined) this.peers.wake(queueName, messages);
    else list.becameReady(messages, true);
  }

  /**
   * A peer says that so many messages in this queue are ready; Infinity: it does not know how many.
   * It is advice, so a claim looks. The next peer hears of messages that are not wanted here.
   */
  wakeFromPeer(queueName: string, messages: number): void {
    const list = this.lists.get(queueName);
    if (list === undefined) this.peers.wake(queueName, messages);
    else list.wasHinted(messages);
  }

  /** This broker ended a pause. A claim that reads the queue's settings now may get older ones. */
  resumed(queueName: string): void {
    this.wakeFromPeer(queueName, Infinity);
  }

  /** Queues whose consumers are parked. */
  parkedQueues(): string[] {
    return [...this.lists.values()].filter(({ isParked }) => isParked).map(({ queueName }) => queueName);
  }

  /**
   * Lets all consumers go for whom neither a claim nor a reservation is in flight, so that the
   * server can close. From then on none may wait.
   */
  beforeApplicationShutdown(): void {
    this.isClosed = true;
    this.poll.close();
    for (const list of this.lists.values()) list.close();
  }

  private listOf(queueName: string): QueueConsumers {
    const known = this.lists.get(queueName);
    if (known !== undefined) return known;
    const list = new QueueConsumers(queueName, this.host);
    this.lists.set(queueName, list);
    this.poll.add(list);
    return list;
  }

  private async claim(list: QueueConsumers): Promise<void> {
    try {
      const outcome = await this.claims.submit(list.queueName, { list });
      if (outcome !== undefined) list.endClaim(outcome.leased, await outcome.claimAgain);
    } catch (error) {
      list.failClaim(error as Error);
    }
  }

  /** Claims for the consumers of several queues. Undefined: the queue needs no claim after all. */
  private async commit(turns: readonly Turn[]): Promise<(ClaimOutcome | Error | undefined)[]> {
    const started = performance.now();
    const { consumers, messages } = this.claimLimits;
    const limits = { consumers, messages: Math.ceil(messages / turns.length) };
    const refused = await Promise.all(turns.map(async (turn) => this.begin(turn, limits)));
    const requests = turns.flatMap(({ request }) => request ?? []);
    if (requests.length === 0) return refused;
    const outcomes = await this.messages.claim(requests);
    const rows = requests.flatMap(({ demands }) => demands).reduce((sum, { maxMessages }) => sum + maxMessages, 0);
    this.metrics.observeBatch('dequeue', { rows, ms: performance.now() - started });
    return turns.map(({ request }, index) => (request ? outcomes[requests.indexOf(request)] : refused[index]));
  }

  /** Begins the claim of a queue, unless the queue is paused or nobody waits. */
  private async begin(turn: Turn, limits: ClaimLimits): Promise<Error | undefined> {
    const { list } = turn;
    if (turn.request !== undefined) return undefined;
    try {
      let queue = await this.queues.get(list.queueName);
      if (list.takeHint()) {
        // The hint may follow the end of a pause, and these settings may be a second old.
        if (queue.paused) queue = await this.queues.getFresh(list.queueName);
        this.messages.expectMore(queue.id);
      }
      const demands = queue.paused ? [] : list.beginClaim(queue, limits);
      turn.request = demands.length > 0 ? { queue, demands } : null;
      if (queue.paused) list.pauseClaim();
      else if (demands.length === 0) list.endClaim([], false);
      return undefined;
    } catch (error) {
      return error as Error;
    }
  }
}
