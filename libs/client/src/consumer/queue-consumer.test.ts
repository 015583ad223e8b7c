import { type DequeueRequest, type ExtendRequest, RowmqError } from '@rowmq/contract';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import type { CallOptions } from '../broker-client.js';
import { BrokerUnreachableError } from '../http/broker-unreachable.error.js';
import { Queue } from '../queue/queue.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import type { Message } from './message.js';
import { ConsumerStoppedError, exponentialBackoff, LeaseLostError, Reject, Retry } from './outcomes.js';
import { QueueConsumer } from './queue-consumer.js';
import { sleep, StartedConsumers, useUnstalledClock } from './started-consumers.test-support.js';

/** A timer may fire so much early. */
const TIMER_MS = 2;

/** Counts calls, and fails them on demand. */
class CountingBroker extends InMemoryBroker {
  readonly asked: number[] = [];
  /** By `performance.now()`. */
  readonly askedAt: number[] = [];
  readonly acks: number[] = [];
  /** The acks that each dequeue carried. */
  readonly carried: number[] = [];
  waiting = 0;
  /** Also of those that fail. */
  ackTries = 0;
  extended = 0;
  isAway = false;
  /** Every ack fails with an error that nobody expected. */
  isBroken = false;
  forgetsLeases = false;

  override async dequeue(queue: string, request: DequeueRequest = {}, options: CallOptions = {}) {
    this.asked.push(request.maxMessages ?? 1);
    this.carried.push(request.ack?.length ?? 0);
    this.askedAt.push(performance.now());
    if (this.isAway) throw new BrokerUnreachableError('away', 'http://nowhere', 'not-sent');
    if (this.isBroken && request.ack !== undefined) throw new RowmqError('internal-error', 'a defect');
    this.waiting += 1;
    return super.dequeue(queue, request, options).finally(() => (this.waiting -= 1));
  }

  override async ack(queue: string, request: { receipts: string[] }) {
    this.ackTries += 1;
    if (this.isAway) throw new BrokerUnreachableError('away', 'http://nowhere', 'unknown');
    if (this.isBroken) throw new RowmqError('internal-error', 'a defect');
    this.acks.push(request.receipts.length);
    return super.ack(queue, request);
  }

  override async extend(queue: string, request: ExtendRequest) {
    if (this.isAway) throw new BrokerUnreachableError('away', 'http://nowhere', 'not-sent');
    this.extended += request.receipts.length;
    if (!this.forgetsLeases) return super.extend(queue, request);
    return { extended: [], failed: request.receipts.map((receipt) => ({ receipt, code: 'lease-lost' as const })) };
  }
}

useUnstalledClock();
const { consume, stop } = new StartedConsumers();
// All at once: each waits for its last dequeue, for up to a second.
afterAll(stop);

async function filled(count: number): Promise<CountingBroker> {
  const broker = new CountingBroker();
  const queue = new Queue<number>(broker, 'orders');
  for (let first = 0; first < count; first += 100) {
    await queue.enqueueMany(Array.from({ length: Math.min(100, count - first) }, (_, index) => first + index));
  }
  return broker;
}

describe('a message handler', () => {
  it('acks its message when it returns', async () => {
    const broker = await filled(3);
    const seen: number[] = [];
    consume(broker, { message: (payload) => void seen.push(payload) });
    await broker.drained('orders');
    expect(seen).toEqual([0, 1, 2]);
  });

  it('nacks its message with the back-off and the reason when it throws', async () => {
    const broker = await filled(1);
    const attempts: number[] = [];
    const backoff = vi.fn<(attempt: number, error: unknown) => number>((attempt) => attempt * 10);
    const error = new Error('the mail server is down');
    consume(
      broker,
      { message: (_, { receiveCount }) => (attempts.push(receiveCount), Promise.reject(error)) },
      { backoff },
    );
    await vi.waitUntil(() => broker.messages('orders')[0]?.nackReason !== undefined);
    expect(backoff).toHaveBeenCalledWith(1, error);
    const [message] = broker.messages('orders');
    expect(message).toMatchObject({ receiveCount: 1, nackReason: 'the mail server is down' });
    const delay = (message?.availableAt.getTime() ?? 0) - Date.now();
    expect(delay).toBeGreaterThan(0);
    expect(delay).toBeLessThanOrEqual(1000);
  });

  it('dead-letters its message at once when it throws Reject', async () => {
    const broker = await filled(1);
    await broker.putQueue('orders-dead');
    await broker.putQueue('orders', { deadLetterQueue: 'orders-dead' });
    consume(broker, { message: () => Promise.reject(new Reject('no such customer')) });
    await broker.drained('orders');
    expect(broker.messages('orders-dead')).toMatchObject([
      { body: '0', receiveCount: 0, nackReason: 'no such customer' },
    ]);
  });

  it('nacks its message when it throws Reject without a dead-letter queue, and the consumer reports that', async () => {
    const broker = await filled(1);
    const consumer = consume(broker, { message: () => Promise.reject(new Reject('no such customer')) });
    const failed = vi.fn<(error: unknown, messages: unknown[]) => void>();
    consumer.on('settleFailed', failed);
    await vi.waitUntil(
      () =>
        (broker.messages('orders')[0]?.availableAt.getTime() ?? Infinity) < Date.now() + 2000 &&
        failed.mock.calls.length > 0,
    );
    expect(failed).toHaveBeenCalledWith(expect.objectContaining({ code: 'invalid-request' }), []);
  });

  it('nacks its message with the delay of Retry', async () => {
    const broker = await filled(1);
    consume(broker, { message: () => Promise.reject(Retry.after(59_001, 'later')) });
    await vi.waitUntil(() => broker.messages('orders')[0]?.nackReason === 'later');
    const delay = (broker.messages('orders')[0]?.availableAt.getTime() ?? 0) - Date.now();
    expect(delay).toBeGreaterThan(58_000);
    expect(delay).toBeLessThanOrEqual(60_000);
  });

  it('never sees a payload that does not fit, which is dead-lettered', async () => {
    const broker = new CountingBroker();
    await broker.putQueue('orders-dead');
    await broker.putQueue('orders', { deadLetterQueue: 'orders-dead' });
    await broker.enqueue('orders', { messages: [{ body: 'no json' }, { body: '"text"' }, { body: '7' }] });
    const seen: number[] = [];
    consume(broker, { message: (payload) => void seen.push(payload) }, { schema: z.number() });
    await broker.drained('orders');
    expect(seen).toEqual([7]);
    expect(broker.messages('orders-dead').map(({ nackReason }) => nackReason)).toEqual([
      expect.stringMatching(/is not JSON/),
      expect.stringMatching(/does not fit the schema/),
    ]);
  });
});

describe('a batch handler', () => {
  it('gets all messages up to its batch size, and acks them when it returns', async () => {
    const broker = await filled(25);
    const sizes: number[] = [];
    consume(broker, { batch: (messages) => void sizes.push(messages.length) }, { batchSize: 10, prefetch: 0 });
    await broker.drained('orders');
    expect(sizes).toEqual([10, 10, 5]);
  });

  it('settles single messages by itself, and the rest share its outcome', async () => {
    const broker = await filled(4);
    await broker.putQueue('orders-dead');
    await broker.putQueue('orders', { deadLetterQueue: 'orders-dead' });
    consume(
      broker,
      {
        batch: ([first, second, third]) => {
          first?.ack();
          first?.nack();
          second?.nack({ delayMs: 100_000, reason: 'by itself' });
          third?.reject('never');
          throw new Error('the rest');
        },
      },
      { batchSize: 10, backoff: () => 200_000 },
    );
    await vi.waitUntil(
      () => broker.messages('orders').length === 2 && broker.messages('orders').every(({ nackReason }) => nackReason),
    );
    const left = broker
      .messages('orders')
      .map(({ body, nackReason, availableAt }) => [
        body,
        nackReason,
        Math.round((availableAt.getTime() - Date.now()) / 100_000),
      ]);
    expect(left).toEqual([
      ['1', 'by itself', 1],
      ['3', 'the rest', 2],
    ]);
    expect(broker.messages('orders-dead')).toMatchObject([{ body: '2', nackReason: 'never' }]);
  });
});

describe('a consumer', () => {
  it('runs no more handlers and holds no more messages than its options allow', async () => {
    const broker = await filled(200);
    let working = 0;
    let most = 0;
    let mostInHand = 0;
    const consumer: QueueConsumer<number> = consume(
      broker,
      {
        message: async () => {
          working += 1;
          most = Math.max(most, working);
          mostInHand = Math.max(mostInHand, consumer.inHand);
          await sleep(1);
          working -= 1;
        },
      },
      { concurrency: 8, prefetch: 4, batchSize: 100 },
    );
    await broker.drained('orders');
    expect(most).toBe(8);
    expect(mostInHand).toBeLessThanOrEqual(12);
    expect(Math.max(...broker.asked)).toBeLessThanOrEqual(12);
  });

  it('acks many messages with one request while its handlers go on', async () => {
    const broker = await filled(100);
    consume(broker, { message: () => undefined }, { concurrency: 100, batchSize: 100 });
    await broker.drained('orders');
    expect([...broker.acks, ...broker.carried].reduce((sum, size) => sum + size, 0)).toBe(100);
    expect(broker.acks.length).toBeLessThan(10);
  });

  it.each([
    ['one message at a time', { concurrency: 1, prefetch: 0 }],
    ['ten messages at a time', { concurrency: 10, prefetch: 5, batchSize: 10 }],
  ])('acks with its next dequeue, and with no request more, when it takes %s', async (_, options) => {
    /** Answers in a later turn of the event loop, as every broker over HTTP. */
    class DistantBroker extends CountingBroker {
      override async dequeue(queue: string, request?: DequeueRequest, callOptions?: CallOptions) {
        await sleep(1);
        return super.dequeue(queue, request, callOptions);
      }
    }
    const broker = new DistantBroker();
    await new Queue<number>(broker, 'orders').enqueueMany(Array.from({ length: 30 }, (__, index) => index));
    // The last ack is settled although its dequeue waits for longer than the test.
    consume(broker, { message: () => undefined }, { ...options, waitSeconds: 20 });
    await broker.drained('orders');
    expect(broker.carried.reduce((sum, size) => sum + size, 0)).toBe(30);
    expect(broker.ackTries).toBe(0);
  });

  it('acks at once, by itself, while its next dequeue waits', async () => {
    const broker = await filled(1);
    const handler = async () => vi.waitUntil(() => broker.asked.length === 2 && broker.waiting === 1);
    consume(broker, { message: handler }, { concurrency: 2, waitSeconds: 20 });
    await broker.drained('orders');
    expect(broker.acks).toEqual([1]);
    expect(broker.carried).toEqual([0, 0]);
    expect(broker.waiting).toBe(1);
  });

  it('extends the lease of a message for as long as its handler works', async () => {
    const broker = await filled(1);
    const seen: number[] = [];
    const untilExtended = async (times: number) => vi.waitUntil(() => broker.extended >= times);
    consume(
      broker,
      // A lease is extended after a third of it: six times is twice its length.
      { message: async (_, { receiveCount }) => (seen.push(receiveCount), untilExtended(6)) },
      { leaseSeconds: 1, concurrency: 2 },
    );
    await broker.drained('orders', 30_000);
    expect(seen).toEqual([1]);
  });

  it('fires the signal when a lease is lost, and does not ack when the handler then returns', async () => {
    const broker = await filled(1);
    broker.forgetsLeases = true;
    const reasons: unknown[] = [];
    const consumer = consume(
      broker,
      {
        message: async (_, { signal }) => {
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
          reasons.push(signal.reason);
        },
      },
      { leaseSeconds: 1 },
    );
    const lost = vi.fn<() => void>();
    consumer.on('leaseLost', lost);
    await vi.waitUntil(() => reasons.length > 0);
    await consumer.stop();
    expect(reasons[0]).toBeInstanceOf(LeaseLostError);
    expect(lost).toHaveBeenCalled();
    expect(broker.acks).toEqual([]);
    expect(broker.messages('orders')).toHaveLength(1);
  });

  it('treats a lease as lost when no broker answers until it has ended', async () => {
    const broker = await filled(1);
    let reason: unknown;
    consume(
      broker,
      {
        message: async (_, { signal }) => {
          broker.isAway = true;
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
          reason ??= signal.reason;
        },
      },
      { leaseSeconds: 1 },
    );
    await vi.waitUntil(() => reason !== undefined);
    expect(reason).toBeInstanceOf(LeaseLostError);
  });

  it('pauses longer after each failed dequeue, and goes on by itself when the broker is back', async () => {
    const broker = await filled(5);
    broker.isAway = true;
    const consumer = consume(broker, { message: () => undefined });
    const pauses: number[] = [];
    consumer.on('dequeueFailed', (_, pause) => pauses.push(pause));
    await vi.waitUntil(() => pauses.length === 5);
    for (const [failures, pause] of pauses.entries()) {
      expect(pause).toBeGreaterThanOrEqual(50 * 2 ** failures);
      expect(pause).toBeLessThanOrEqual(100 * 2 ** failures);
    }
    for (const [index, pause] of pauses.slice(0, -1).entries()) {
      const waited = (broker.askedAt[index + 1] as number) - (broker.askedAt[index] as number);
      expect(waited).toBeGreaterThanOrEqual(pause - TIMER_MS);
    }
    broker.isAway = false;
    await broker.drained('orders', 10_000);
  });

  it('acks messages that were handled during an outage once the broker is back, under the same lease', async () => {
    const broker = await filled(3);
    const seen: number[] = [];
    consume(
      broker,
      {
        message: (payload) => {
          seen.push(payload);
          broker.isAway = true;
        },
      },
      { batchSize: 3, prefetch: 2, leaseSeconds: 30 },
    );
    await vi.waitUntil(() => broker.ackTries >= 2);
    expect(broker.messages('orders')).toHaveLength(3);
    broker.isAway = false;
    await vi.waitUntil(() => broker.messages('orders').length === 0);
    expect(seen).toEqual([0, 1, 2]);
  });

  it('repeats acks that failed with an internal error while their leases last', async () => {
    const broker = await filled(3);
    const seen: number[] = [];
    broker.isBroken = true;
    consume(
      broker,
      { message: (payload) => void seen.push(payload) },
      { batchSize: 3, concurrency: 3, prefetch: 0, leaseSeconds: 30 },
    );
    await vi.waitUntil(() => broker.ackTries >= 2);
    broker.isBroken = false;
    await vi.waitUntil(() => broker.messages('orders').length === 0);
    expect(seen).toEqual([0, 1, 2]);
  });

  it('does not handle a message whose lease was lost while its schema looked at it', async () => {
    const broker = await filled(1);
    const handled: number[] = [];
    const lost: unknown[] = [];
    let looks = 0;
    let letGo = (): void => undefined;
    const looked = new Promise<void>((resolve) => (letGo = resolve));
    const validate = async (value: unknown) => {
      looks += 1;
      if (looks === 1) await looked;
      return { value: value as number };
    };
    const schema = { '~standard': { version: 1 as const, vendor: 'test', validate } };
    broker.forgetsLeases = true;
    const consumer = consume(broker, { message: (payload) => void handled.push(payload) }, { schema, leaseSeconds: 1 });
    consumer.on('leaseLost', ({ receiveCount }) => {
      lost.push(receiveCount);
      broker.forgetsLeases = false;
      letGo();
    });
    await broker.drained('orders', 10_000);
    expect(lost).toEqual([1]);
    expect(handled).toEqual([0]);
  });

  it('pauses for a second after an empty answer that came at once', async () => {
    const broker = new CountingBroker();
    consume(broker, { message: () => undefined }, { waitSeconds: 0 });
    await vi.waitUntil(() => broker.asked.length >= 2);
    const [first, second] = broker.askedAt as [number, number];
    expect(second - first).toBeGreaterThanOrEqual(1000 - TIMER_MS);
  });

  it('refuses invalid options, and names all of them', () => {
    expect(
      () =>
        new QueueConsumer(
          new InMemoryBroker(),
          'orders',
          { message: () => undefined },
          { concurrency: 0, waitSeconds: 99, backoff: 3 as never },
        ),
    ).toThrow(/consumer of queue 'orders'.*concurrency: .*waitSeconds: .*backoff: must be a function/);
    expect(
      () => new QueueConsumer(new InMemoryBroker(), 'orders', { message: () => undefined }, { batchsize: 5 } as never),
    ).toThrow(/batchsize/);
  });
});

describe.concurrent('a consumer that is stopped', () => {
  it('lets handlers finish and acks their messages, and releases the messages that none has begun', async () => {
    const broker = await filled(10);
    const finished: number[] = [];
    let letGo = (): void => undefined;
    const held = new Promise<void>((resolve) => (letGo = resolve));
    const consumer = consume(
      broker,
      { message: async (payload) => (await held, void finished.push(payload)) },
      { concurrency: 2, prefetch: 6, batchSize: 8, shutdownSeconds: 10 },
    );
    await vi.waitUntil(() => consumer.inHand === 8);
    const asked = broker.asked.length;
    const stopped = [consumer.stop(), consumer.stop()];
    letGo();
    await Promise.all(stopped);
    expect(finished).toEqual([0, 1]);
    const left = broker.messages('orders');
    expect(left.map(({ body }) => body)).toEqual(['2', '3', '4', '5', '6', '7', '8', '9']);
    expect(left.every(({ availableAt }) => availableAt.getTime() <= Date.now())).toBe(true);
    expect(left.every(({ receiveCount }) => receiveCount === 0)).toBe(true);
    expect(broker.asked).toHaveLength(asked);
  });

  it('acks by itself what it gave a dequeue that no broker answers', async () => {
    /** Loses every dequeue that carries acks. */
    class LosingBroker extends CountingBroker {
      override async dequeue(queue: string, request: DequeueRequest = {}, options: CallOptions = {}) {
        if (request.ack === undefined) return super.dequeue(queue, request, options);
        this.carried.push(request.ack.length);
        return new Promise<never>((_, reject) => {
          options.signal?.addEventListener('abort', () => reject(options.signal?.reason as Error));
        });
      }
    }
    const broker = new LosingBroker();
    await new Queue<number>(broker, 'orders').enqueue(1);
    const consumer = consume(broker, { message: () => undefined }, { prefetch: 0, waitSeconds: 20 });
    await vi.waitUntil(() => broker.carried.includes(1));
    expect(broker.messages('orders')).toHaveLength(1);
    await consumer.stop();
    expect(broker.messages('orders')).toEqual([]);
    expect(broker.acks).toEqual([1]);
  });

  it('sends no more settlements once the broker has not answered for ten seconds, however long its leases are', async () => {
    const broker = await filled(1);
    const consumer = consume(broker, { message: () => void (broker.isAway = true) }, { leaseSeconds: 43_200 });
    const failed = vi.fn<(error: unknown, messages: unknown[]) => void>();
    consumer.on('settleFailed', failed);
    await vi.waitUntil(() => broker.ackTries > 0);
    await consumer.stop();
    await vi.waitUntil(() => failed.mock.calls.length > 0);
    const tries = broker.ackTries;
    // Longer than the longest pause before another try.
    await sleep(500);
    expect(broker.ackTries).toBe(tries);
    expect(failed).toHaveBeenCalledExactlyOnceWith(expect.any(BrokerUnreachableError), [
      expect.objectContaining({ body: '0' }),
    ]);
  });

  it('nacks the messages of handlers that miss the deadline', async () => {
    const broker = await filled(1);
    let message: Message<number> | undefined;
    const consumer = consume(
      broker,
      { message: async (_, given) => ((message = given), new Promise(() => undefined)) },
      { shutdownSeconds: 1 },
    );
    await vi.waitUntil(() => message !== undefined);
    const began = performance.now();
    await consumer.stop();
    expect(performance.now() - began).toBeGreaterThanOrEqual(990);
    expect(message?.signal.reason).toBeInstanceOf(ConsumerStoppedError);
    expect(broker.messages('orders')).toMatchObject([{ nackReason: 'the consumer was stopped' }]);
    expect(broker.messages('orders')[0]?.availableAt.getTime()).toBeLessThanOrEqual(Date.now());
  });
});

describe('back-off', () => {
  it('doubles up to a quarter of an hour, with jitter of up to a half', () => {
    for (const [attempt, longest] of [
      [1, 1000],
      [2, 2000],
      [5, 16_000],
      [60, 900_000],
    ] as const) {
      const delays = Array.from({ length: 100 }, () => exponentialBackoff(attempt, undefined));
      expect(Math.max(...delays)).toBeLessThanOrEqual(longest);
      expect(Math.min(...delays)).toBeGreaterThanOrEqual(longest / 2);
      expect(new Set(delays).size).toBeGreaterThan(50);
    }
  });

  it('by Retry takes delays from 0 on only', () => {
    expect(() => Retry.after(-1)).toThrow(RangeError);
    expect(() => Retry.after(Number.NaN)).toThrow(RangeError);
    expect(new RowmqError('queue-full', 'x')).toBeInstanceOf(Error);
  });
});
