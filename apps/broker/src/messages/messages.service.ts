import { Inject, Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import {
  type AckAnswer,
  decodeReceipt,
  type DequeueAnswer,
  type dequeueRequest,
  type EnqueueAnswer,
  type EnqueueMessage,
  type ExtendAnswer,
  type FailedReceipt,
  type NackAnswer,
  type nackRequest,
  type Receipt,
  type ReleaseAnswer,
  type releaseRequest,
  RowmqError,
} from '@rowmq/contract';
import {
  type EnqueuedMessage,
  type LateWish,
  type LeasedMessage,
  MessageRepository,
  type NewMessage,
  type Queue,
  QueueRepository,
  type ReceiptOutcomes,
} from '@rowmq/store';
import type { z } from 'zod';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { Metrics } from '../metrics/metrics.js';
import { Commits } from './commits.js';
import { formatTime, toEnqueuedMessage, toLeasedMessage, toNewMessage } from './message.codec.js';
import { type CallerName, RequestLimits } from './request-limits.js';
import { type ConsumerDemand, WaitingConsumers } from './waiting-consumers.js';

/** A dequeue without what REST adds to it. */
export type Demand = Omit<z.output<typeof dequeueRequest>, 'ack' | 'withSettings'> &
  Pick<ConsumerDemand, 'onLeasing' | 'caller'>;

/** The verbs of the REST contract. */
@Injectable()
export class MessagesService implements OnApplicationShutdown {
  private readonly logger = new Logger(MessagesService.name);
  /** Dequeues and releases in flight, also those whose consumers are gone. */
  private readonly inFlight = new Set<Promise<unknown>>();

  constructor(
    private readonly queues: QueueRepository,
    private readonly commits: Commits,
    private readonly consumers: WaitingConsumers,
    private readonly metrics: Metrics,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'sizes'>,
    private readonly limits: RequestLimits,
    private readonly repository: MessageRepository,
  ) {}

  /**
   * Stores messages, all or none, and answers after COMMIT. A repeat with the same key stores
   * nothing, and gets the first answer. Throws `queue-not-found`, `message-too-large`,
   * `queue-full`, `queue-paused`, `rate-limited`, `invalid-request`, `idempotency-key-reused`,
   * `enqueue-in-progress`.
   */
  async enqueue(
    queueName: string,
    messages: EnqueueMessage[],
    idempotencyKey: string | undefined,
    caller: CallerName = null,
  ): Promise<EnqueueAnswer> {
    this.limits.admitEnqueue(caller, queueName, messages.length);
    const made = messages.map((message, index) => toNewMessage(message, index, this.config.sizes));
    const stored = await this.commits.enqueue({ queueName, messages: made, idempotencyKey }, caller ?? undefined);
    return { messages: stored.map(toEnqueuedMessage) };
  }

  /** {@link enqueue} of messages that another protocol brought. */
  async store(queueName: string, messages: NewMessage[], caller: CallerName): Promise<EnqueuedMessage[]> {
    this.limits.admitEnqueue(caller, queueName, messages.length);
    return this.commits.enqueue({ queueName, messages }, caller ?? undefined);
  }

  /**
   * {@link dequeue} for SQS: without acks, and messages as the store has them. In an ordered queue,
   * the next messages of the same groups fill the answer up.
   */
  async receive(queueName: string, demand: Demand, hungUp: AbortSignal): Promise<LeasedMessage[]> {
    return this.track(
      this.leaseStored(queueName, demand, hungUp, async (leased) =>
        this.follow(queueName, leased, demand.maxMessages - leased.length),
      ),
    );
  }

  /**
   * Leases messages, and waits for them if asked to. A paused queue hands out none. If the consumer
   * hangs up before its answer is written, the broker releases its messages.
   *
   * The acks that it carries stand whatever happens to the rest.
   * Throws `queue-not-found`, `rate-limited`, `overloaded`, but not after it has settled an ack.
   */
  async dequeue(
    queueName: string,
    request: z.output<typeof dequeueRequest>,
    hungUp: AbortSignal,
    caller: CallerName = null,
  ): Promise<DequeueAnswer> {
    const arrivedAt = performance.now();
    let leasingAt = arrivedAt;
    const { ack, withSettings, ...rest } = request;
    const demand = { ...rest, caller, onLeasing: () => void (leasingAt = performance.now()) };
    const before = withSettings === true ? await this.queues.get(queueName) : undefined;
    const answer = await this.track(
      ack === undefined ? this.lease(queueName, demand, hungUp) : this.ackAndLease(queueName, ack, demand, hungUp),
    );
    if (before === undefined) return answer;
    const waitedMs = Math.floor(leasingAt - arrivedAt);
    return { ...answer, waitedMs, settings: await this.settingsOf(before, demand) };
  }

  /** Settles deliveries. Each receipt has its own answer. Throws `queue-not-found`. */
  async ack(queueName: string, receipts: string[]): Promise<AckAnswer> {
    let isOrdered = false;
    const { done, failed } = await this.perReceipt(queueName, receipts, ({ id: queueId, ordering }, decoded) => {
      isOrdered = ordering !== null;
      const request = { queueId, receipts: decoded };
      return isOrdered ? this.commits.ackInOrder(request) : this.commits.ack(request);
    });
    // The next messages of the groups may be ready.
    if (isOrdered && done.length > 0) this.consumers.wake(queueName, done.length);
    this.metrics.count('acked', queueName, done.length);
    return { acked: done, failed };
  }

  /**
   * Settles one delivery. Throws `lease-lost`, `delivery-not-found`, `queue-not-found`,
   * `invalid-request`.
   */
  async ackOne(queueName: string, receipt: string): Promise<void> {
    const { failed } = await this.ack(queueName, [receipt]);
    switch (failed[0]?.code) {
      case undefined:
        return;
      case 'invalid-request':
        decodeReceipt(receipt);
        return;
      case 'lease-lost':
        throw new RowmqError(
          'lease-lost',
          'The lease ran out, or a nack ended it. The message has been or will be handed out again. Do not act on it any further.',
        );
      default:
        throw new RowmqError(
          'delivery-not-found',
          'The queue has no such delivery: it was acked, has expired, or was purged or moved to another queue.',
        );
    }
  }

  /**
   * Ends leases: the deliveries are ready again, at once or after a delay, or are dead-lettered.
   * Throws `queue-not-found`, and `invalid-request` if the queue has no dead-letter queue.
   * @param request.keepsReceipts for SQS, as {@link expose} leaves the messages
   */
  async nack(
    queueName: string,
    {
      receipts,
      delaySeconds,
      deadLetter,
      reason,
      keepsReceipts,
    }: z.output<typeof nackRequest> & { keepsReceipts?: boolean },
  ): Promise<NackAnswer> {
    const { done, failed } = await this.perReceipt(queueName, receipts, ({ id: queueId }, decoded) =>
      deadLetter
        ? this.commits.reject({ queueId, receipts: decoded, reason })
        : this.commits.nack({ queueId, receipts: decoded, delaySeconds, reason, keepsReceipts }),
    );
    if (done.length > 0 && !deadLetter && delaySeconds === 0) this.consumers.wake(queueName, done.length);
    this.metrics.count(deadLetter ? 'dead-lettered' : 'nacked', queueName, done.length);
    return { nacked: done, failed };
  }

  /**
   * Undoes leases: the deliveries are ready again, at once or after a delay, and the receive does
   * not count. Throws `queue-not-found`.
   */
  async release(
    queueName: string,
    { receipts, delaySeconds, reason }: z.output<typeof releaseRequest>,
  ): Promise<ReleaseAnswer> {
    const { done, failed } = await this.perReceipt(queueName, receipts, ({ id: queueId }, decoded) =>
      this.commits.release({ queueId, receipts: decoded, delaySeconds, reason }),
    );
    this.released(queueName, done.length, delaySeconds);
    return { released: done, failed };
  }

  /** Moves leases' deadlines. Throws `queue-not-found`. */
  async extend(queueName: string, receipts: string[], leaseSeconds: number): Promise<ExtendAnswer> {
    let leaseExpiresAt = 0;
    const { done, failed } = await this.perReceipt(queueName, receipts, async ({ id: queueId }, decoded) => {
      const result = await this.commits.extend({ queueId, receipts: decoded, leaseSeconds });
      leaseExpiresAt = result.leaseExpiresAt;
      return result.outcomes;
    });
    this.metrics.count('extended', queueName, done.length);
    return { extended: done.map((receipt) => ({ receipt, leaseExpiresAt: formatTime(leaseExpiresAt) })), failed };
  }

  /**
   * Acks or extends, for SQS, with receipts whose lease has run out. Returns those whose messages
   * nobody else had received. Throws `queue-not-found`.
   */
  async late(queueName: string, receipts: string[], wish: LateWish): Promise<Set<string>> {
    const { id } = await this.queues.get(queueName);
    const decoded = receipts.map(decodeReceipt);
    const outcomes = await this.repository.late(id, decoded, wish);
    const done = receipts.filter((_, index) => outcomes[index]);
    this.metrics.count(wish === 'settle' ? 'acked' : 'extended', queueName, done.length);
    return new Set(done);
  }

  /** Ends leases at once, for SQS, and leaves the messages their receipts. */
  async expose(queueName: string, receipts: readonly Receipt[]): Promise<void> {
    const { id } = await this.queues.get(queueName);
    await this.commits.nack({ queueId: id, receipts, delaySeconds: 0, keepsReceipts: true });
    this.consumers.wake(queueName, receipts.length);
  }

  /**
   * Waits for claims and hand-offs whose consumers are gone, and for the release of their messages.
   * Nest calls this at the end of a stop, before the connections to the database close.
   */
  async onApplicationShutdown(): Promise<void> {
    while (this.inFlight.size > 0) await Promise.allSettled(this.inFlight);
  }

  /**
   * Settles receipts and leases. A consumer that waits is in line while its acks are settled: the
   * two transactions share a flush, and it misses no hand-off. If the acks then fail, what it got
   * is released. Without a wait, the acks come first, because in an ordered queue they let the next
   * messages of their groups go.
   *
   * If an ack was settled and nothing could be leased, the consumer must still learn of the ack. It
   * gets an empty answer, and its next dequeue fails if the trouble lasts.
   */
  private async ackAndLease(
    queueName: string,
    receipts: string[],
    demand: Demand,
    hungUp: AbortSignal,
  ): Promise<DequeueAnswer> {
    const gone = new AbortController();
    const leave = (): void => gone.abort();
    let early: Promise<DequeueAnswer> | undefined;
    if (demand.waitSeconds > 0 && !hungUp.aborted) {
      hungUp.addEventListener('abort', leave, { once: true });
      early = this.track(this.lease(queueName, demand, gone.signal));
      // Its failure counts once the acks are settled.
      early.catch(() => undefined);
    }
    let acks: AckAnswer;
    try {
      acks = await this.ack(queueName, receipts);
    } catch (error) {
      leave();
      throw error;
    }
    try {
      return { ...(await (early ?? this.lease(queueName, demand, hungUp))), ...acks };
    } catch (error) {
      if (acks.acked.length === 0) throw error;
      // A refusal is no news for the log: the next dequeue gets it.
      if (!(error instanceof RowmqError)) this.logger.error(error);
      return { messages: [], ...acks };
    }
  }

  private async lease(queueName: string, demand: Demand, hungUp: AbortSignal): Promise<DequeueAnswer> {
    return { messages: (await this.leaseStored(queueName, demand, hungUp)).map(toLeasedMessage) };
  }

  private async leaseStored(
    queueName: string,
    { maxMessages, waitSeconds, leaseSeconds, caller, onLeasing }: Demand,
    hungUp: AbortSignal,
    findMore: (leased: readonly LeasedMessage[]) => Promise<LeasedMessage[]> = async () => [],
  ): Promise<LeasedMessage[]> {
    const first = await this.consumers.dequeue(
      queueName,
      { maxMessages, leaseSeconds, waitMs: waitSeconds * 1000, caller, onLeasing },
      hungUp,
    );
    if (first.length === 0) return first;
    const leased = hungUp.aborted ? first : [...first, ...(await findMore(first))];
    const release = (): void => void this.track(this.giveBack(queueName, leased));
    if (hungUp.aborted) {
      release();
      return [];
    }
    hungUp.addEventListener('abort', release, { once: true });
    this.metrics.count('dequeued', queueName, leased.length);
    this.metrics.count('redelivered', queueName, leased.filter(({ receiveCount }) => receiveCount > 1).length);
    return leased;
  }

  /** If it fails, the consumer still gets its first messages. The others come later. */
  private async follow(queueName: string, leased: readonly LeasedMessage[], room: number): Promise<LeasedMessage[]> {
    try {
      const queue = await this.queues.get(queueName);
      return queue.ordering === null ? [] : await this.repository.follow(queue, leased, room);
    } catch (error) {
      this.logger.warn(`could not lease the next messages of ${leased.length} in queue ${queueName}: ${String(error)}`);
      return [];
    }
  }

  /** Decodes receipts and sorts them by outcome. A receipt that was sent twice counts once. */
  private async perReceipt(
    queueName: string,
    receipts: string[],
    verb: (queue: Queue, receipts: Receipt[]) => Promise<ReceiptOutcomes>,
  ): Promise<{ done: string[]; failed: FailedReceipt[] }> {
    const queue = await this.queues.get(queueName);
    const failed: FailedReceipt[] = [];
    const decoded = new Map<string, Receipt>();
    for (const receipt of new Set(receipts)) {
      try {
        decoded.set(receipt, decodeReceipt(receipt));
      } catch {
        failed.push({ receipt, code: 'invalid-request' });
      }
    }
    const done: string[] = [];
    const outcomes = decoded.size === 0 ? [] : await verb(queue, [...decoded.values()]);
    for (const [index, receipt] of [...decoded.keys()].entries()) {
      const code = outcomes[index] ?? null;
      if (code === null) done.push(receipt);
      else failed.push({ receipt, code });
    }
    return { done, failed };
  }

  private async giveBack(queueName: string, leased: LeasedMessage[]): Promise<void> {
    try {
      const queue = await this.queues.get(queueName);
      await this.commits.release({ queueId: queue.id, receipts: leased });
      this.released(queueName, leased.length, 0);
    } catch (error) {
      // Their lease runs out by itself: they are late, not lost.
      this.logger.warn(`could not release ${leased.length} deliveries of a consumer that hung up: ${String(error)}`);
    }
  }

  private released(queueName: string, count: number, delaySeconds: number): void {
    if (count > 0 && delaySeconds === 0) this.consumers.wake(queueName, count);
    this.metrics.count('released', queueName, count);
  }

  /**
   * The settings by which a consumer works. A setting may change while a dequeue waits. The shorter
   * lease is safe: a consumer that takes it for the true one extends early, not late.
   */
  private async settingsOf(before: Queue, { leaseSeconds }: Demand): Promise<DequeueAnswer['settings']> {
    const now = await this.queues.get(before.name).catch(() => before);
    return {
      leaseSeconds: leaseSeconds ?? Math.min(before.leaseSeconds, now.leaseSeconds),
      maxReceives: now.deadLetterQueueId === null ? null : now.maxReceives,
      ordering: now.ordering,
    };
  }

  private async track<T>(work: Promise<T>): Promise<T> {
    this.inFlight.add(work);
    try {
      return await work;
    } finally {
      this.inFlight.delete(work);
    }
  }
}
