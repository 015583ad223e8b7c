import { Inject, Injectable } from '@nestjs/common';
import { RowmqError } from '@rowmq/contract';
import { type Queue, QueueRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { Pressure } from '../metrics/pressure.js';
import { KeyLimits } from './key-limits.js';
import { Rates } from './rates.js';

/** The name of the key that makes a call; null: the broker asks for no keys. */
export type CallerName = string | null;

/** Messages that a request has for a queue. */
export interface Arrival {
  queue: Pick<Queue, 'name' | 'maxMessagesPerSecond'> | undefined;
  messages: number;
}

/**
 * Limits on what comes in: messages a second, and dequeues that wait, by queue and by key. Each
 * broker counts for itself, and its workers share a limit. Without a limit, a check is a look-up.
 */
@Injectable()
export class RequestLimits {
  private readonly ofQueues = new Rates();
  private readonly ofKeys = new Rates();
  private readonly pollsOfQueues = new Map<string, number>();
  private readonly pollsOfKeys = new Map<string, number>();

  constructor(
    private readonly queues: QueueRepository,
    private readonly keys: KeyLimits,
    private readonly pressure: Pressure,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'workers'>,
  ) {}

  /**
   * Throws `rate-limited` if a queue or the caller has got too many messages lately, and
   * `overloaded` while the database is slow.
   */
  admitEnqueue(caller: CallerName, queueName: string, messages: number): void {
    this.pressure.shed('enqueues');
    const queue = this.queues.peek(queueName);
    if ((queue?.maxMessagesPerSecond ?? null) === null && this.keys.messagesPerSecond(caller) === undefined) return;
    this.admit(caller, messages, [{ queue, messages }]);
  }

  /** {@link admitEnqueue} for messages of a topic. All queues admit them, or none. */
  admitPublish(caller: CallerName, messages: number, arrivals: readonly Arrival[]): void {
    this.pressure.shed('enqueues');
    this.admit(caller, messages, arrivals);
  }

  private admit(caller: CallerName, messages: number, arrivals: readonly Arrival[]): void {
    const { workers } = this.config;
    const ofKey = this.keys.messagesPerSecond(caller);
    const limited = arrivals.flatMap(({ queue, messages: count }) => {
      const limit = queue?.maxMessagesPerSecond ?? null;
      return queue === undefined || limit === null || count === 0 ? [] : { name: queue.name, limit, count };
    });
    for (const { name, limit } of limited) {
      refuseFor(this.ofQueues.waitMs(name), `Queue '${name}' takes ${limit} messages a second (maxMessagesPerSecond)`);
    }
    if (caller !== null && ofKey !== undefined) {
      const what = `The key '${caller}' may send ${ofKey.limit} messages a second (${ofKey.from})`;
      refuseFor(this.ofKeys.waitMs(caller), what);
      this.ofKeys.use(caller, messages, ofKey.limit / workers);
    }
    for (const { name, limit, count } of limited) this.ofQueues.use(name, count, limit / workers);
  }

  /** Throws `overloaded` while the database is so slow that only acks are let through. */
  admitDequeue(): void {
    this.pressure.shed('dequeues');
  }

  /**
   * A dequeue begins that may wait. The caller calls the result when it has ended. Throws
   * `rate-limited` if too many of its queue or key wait.
   */
  beginPoll(caller: CallerName, queueName: string): () => void {
    const { workers } = this.config;
    const ofKey = this.keys.longPolls(caller);
    const ofQueue = this.queues.peek(queueName)?.maxLongPolls ?? null;
    if (ofQueue !== null && (this.pollsOfQueues.get(queueName) ?? 0) >= Math.ceil(ofQueue / workers))
      throw tooManyPolls(`${ofQueue} dequeues of queue '${queueName}' wait already (maxLongPolls)`);
    if (ofKey !== undefined && (this.pollsOfKeys.get(caller as string) ?? 0) >= Math.ceil(ofKey.limit / workers))
      throw tooManyPolls(`${ofKey.limit} dequeues of the key '${caller}' wait already (${ofKey.from})`);
    add(this.pollsOfQueues, queueName, 1);
    // Also without a limit, because the key may get one while the dequeue waits.
    if (caller !== null) add(this.pollsOfKeys, caller, 1);
    return () => {
      add(this.pollsOfQueues, queueName, -1);
      if (caller !== null) add(this.pollsOfKeys, caller, -1);
    };
  }

  /**
   * The queue with the most dequeues that wait, unless this one has its share of them. For a broker
   * that has no room for more.
   */
  queueToGiveWay(queueName: string): string | undefined {
    let [largest, most, all]: [string | undefined, number, number] = [undefined, 0, 0];
    for (const [name, polls] of this.pollsOfQueues) {
      all += polls;
      if (polls > most) [largest, most] = [name, polls];
    }
    return (this.pollsOfQueues.get(queueName) ?? 0) * this.pollsOfQueues.size >= all ? undefined : largest;
  }
}

function refuseFor(waitMs: number, what: string): void {
  if (waitMs === 0) return;
  const seconds = Math.ceil(waitMs / 1000);
  throw new RowmqError(
    'rate-limited',
    `${what}, and has used them up on this broker. Nothing was stored; try again in ${seconds} s.`,
    { retryAfterSeconds: seconds },
  );
}

function tooManyPolls(what: string): RowmqError {
  return new RowmqError('rate-limited', `${what} on this broker; try again later, or wait less often.`, {
    retryAfterSeconds: 1,
  });
}

function add(counts: Map<string, number>, name: string, change: number): void {
  const count = (counts.get(name) ?? 0) + change;
  if (count === 0) counts.delete(name);
  else counts.set(name, count);
}
