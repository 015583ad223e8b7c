import { Inject, Injectable, type BeforeApplicationShutdown } from '@nestjs/common';
import { RowmqError } from '@rowmq/contract';
import { type LeasedDelivery, MessageRepository, QueueRepository } from '@rowmq/store';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';

/** What a waiting consumer asks for. */
export interface Demand {
  maxMessages: number;
  /** The queue's when absent. */
  leaseSeconds: number | undefined;
}

interface Waiter {
  demand: Demand;
  /** Ends the wait: with messages, with none, or with an error. Only the first call counts. */
  settle: (outcome: LeasedDelivery[] | Error) => void;
  settled: boolean;
  /** Its time is up, or its consumer hung up, while a claim for it was under way. */
  over: boolean;
}

interface WaitList {
  queueName: string;
  waiters: Waiter[];
  /** The waiter a claim is under way for. */
  serving: Waiter | undefined;
  /** Something was made available since the last look. */
  woken: boolean;
  /** Ends the pause between two looks. */
  wake: () => void;
}

/** Pauses between looks at an idle queue: from this, half as long again each time, up to that. The longest bounds how late an enqueue on another broker is noticed. */
const SHORTEST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 250;

/**
 * Consumers that wait for messages. All that wait for one queue share one loop, which claims for them in the order in which they came, so that waiting costs the database the
 * same for one consumer as for a thousand. An enqueue, nack or release on this broker wakes the loop at once; what happens elsewhere, and delays and leases that end, it finds by looking.
 */
@Injectable()
export class LongPoll implements BeforeApplicationShutdown {
  private readonly lists = new Map<string, WaitList>();
  private waiting = 0;
  private closed = false;

  constructor(
    private readonly messages: MessageRepository,
    private readonly queues: QueueRepository,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'maxLongPolls'>,
  ) {}

  /** Consumers that wait now. */
  get size(): number {
    return this.waiting;
  }

  /** True if somebody already waits for this queue: whoever comes now stands behind them. */
  hasWaiters(queueName: string): boolean {
    return this.lists.has(queueName);
  }

  /**
   * Waits for messages, at most `waitMs`; resolves with none when the time is up, the consumer hangs up or the broker stops. Messages claimed for a consumer who has hung up are given back.
   * Throws `overloaded` when too many wait already, and what the claim throws.
   */
  async wait(queueName: string, demand: Demand, waitMs: number, hungUp: AbortSignal): Promise<LeasedDelivery[]> {
    if (this.closed || hungUp.aborted) return [];
    if (this.waiting >= this.config.maxLongPolls) {
      throw new RowmqError(
        'overloaded',
        `${this.waiting} consumers wait on this broker already; try again later or on another.`,
        { retryAfterSeconds: 1 },
      );
    }
    this.waiting += 1;
    try {
      return await new Promise<LeasedDelivery[]>((resolve, reject) => {
        const list = this.lists.get(queueName) ?? this.open(queueName);
        const waiter: Waiter = {
          demand,
          settled: false,
          over: false,
          settle: (outcome) => {
            waiter.settled = true;
            clearTimeout(timer);
            hungUp.removeEventListener('abort', giveUp);
            if (outcome instanceof Error) reject(outcome);
            else resolve(outcome);
          },
        };
        const giveUp = (): void => {
          waiter.over = true;
          // A claim for it under way is awaited: what it brings must not be lost sight of.
          if (list.serving !== waiter) this.dismiss(list, waiter, []);
        };
        const timer = setTimeout(giveUp, waitMs);
        hungUp.addEventListener('abort', giveUp, { once: true });
        list.waiters.push(waiter);
      });
    } finally {
      this.waiting -= 1;
    }
  }

  /** Something in this queue has become available: look now. */
  wake(queueName: string): void {
    const list = this.lists.get(queueName);
    if (list === undefined) return;
    list.woken = true;
    list.wake();
  }

  /** Lets everybody go, so that the server can close: part of a stop, after which nobody may wait. */
  beforeApplicationShutdown(): void {
    this.closed = true;
    for (const list of this.lists.values()) {
      for (const waiter of list.waiters) {
        waiter.over = true;
        if (list.serving !== waiter) this.dismiss(list, waiter, []);
      }
      list.wake();
    }
  }

  private open(queueName: string): WaitList {
    const list: WaitList = { queueName, waiters: [], serving: undefined, woken: false, wake: () => undefined };
    this.lists.set(queueName, list);
    // After the caller has put the first waiter on the list.
    queueMicrotask(() => void this.serve(list));
    return list;
  }

  private dismiss(list: WaitList, waiter: Waiter, outcome: LeasedDelivery[] | Error): void {
    list.waiters = list.waiters.filter((other) => other !== waiter);
    waiter.settle(outcome);
    if (list.waiters.length === 0) list.wake();
  }

  private async serve(list: WaitList): Promise<void> {
    let pause = SHORTEST_PAUSE_MS;
    for (let waiter = list.waiters[0]; waiter !== undefined; waiter = list.waiters[0]) {
      list.woken = false;
      list.serving = waiter;
      const outcome = await this.claim(list.queueName, waiter.demand).catch((error: unknown) => error as Error);
      list.serving = undefined;
      if (outcome instanceof Error || outcome.length > 0 || waiter.over) {
        this.dismiss(list, waiter, outcome);
        pause = SHORTEST_PAUSE_MS;
      } else if (!list.woken) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, pause);
          list.wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        pause = list.woken ? SHORTEST_PAUSE_MS : Math.min(pause * 1.5, LONGEST_PAUSE_MS);
      }
    }
    this.lists.delete(list.queueName);
  }

  private async claim(queueName: string, demand: Demand): Promise<LeasedDelivery[]> {
    const queue = await this.queues.get(queueName);
    if (queue.paused) return [];
    return this.messages.dequeue(queue, {
      maxMessages: demand.maxMessages,
      leaseSeconds: demand.leaseSeconds ?? queue.leaseSeconds,
    });
  }
}
