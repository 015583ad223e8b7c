import type { DequeueRequest, ReleaseRequest } from '@rowmq/contract';
import { afterAll, describe, expect, it, vi } from 'vitest';
import type { CallOptions } from '../broker-client.js';
import { Queue } from '../queue/queue.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { QueueConsumer } from './queue-consumer.js';
import { sleep, StartedConsumers, useUnstalledClock } from './started-consumers.test-support.js';

/* Messages that a consumer holds before a handler begins with them. */

useUnstalledClock();
const { consume, stop } = new StartedConsumers();
afterAll(stop);

/** Records releases, and the leases that were extended. */
class RecordingBroker extends InMemoryBroker {
  readonly released: number[] = [];
  readonly extended: string[] = [];
  readonly asked: DequeueRequest[] = [];

  override async dequeue(queue: string, request: DequeueRequest = {}, options: CallOptions = {}) {
    this.asked.push(request);
    return super.dequeue(queue, request, options);
  }

  override async release(queue: string, request: ReleaseRequest) {
    this.released.push(request.receipts.length);
    return super.release(queue, request);
  }

  override async extend(queue: string, request: Parameters<InMemoryBroker['extend']>[1]) {
    this.extended.push(...request.receipts);
    return super.extend(queue, request);
  }
}

async function filled(count: number, expiresInSeconds?: number): Promise<RecordingBroker> {
  const broker = new RecordingBroker();
  const payloads = Array.from({ length: count }, (_, index) => index);
  await new Queue<number>(broker, 'orders').enqueueMany(payloads, { expiresInSeconds });
  return broker;
}

const hanging = { message: async () => new Promise(() => undefined) };

describe('messages that no handler has begun', () => {
  it('are released at a stop, and use up no attempt', async () => {
    const broker = await filled(6);
    const consumer = consume(broker, hanging, { prefetch: 5, batchSize: 6 });
    const told: number[] = [];
    consumer.on('released', (messages) => told.push(messages.length));
    await vi.waitUntil(() => consumer.inHand === 6);
    await consumer.stop();
    expect(broker.messages('orders').map(({ receiveCount }) => receiveCount)).toEqual([1, 0, 0, 0, 0, 0]);
    expect(broker.released).toEqual([5]);
    expect(told).toEqual([5]);
  });

  it('are released when no handler becomes free in time, their leases are not extended, and no more are taken', async () => {
    const broker = await filled(6);
    const consumer = consume(broker, hanging, { prefetch: 5, batchSize: 6, leaseSeconds: 1 });
    await vi.waitUntil(() => broker.released.length > 0);
    expect(consumer.inHand).toBe(1);
    // The one that is handled keeps its lease; the others are free for other consumers.
    await vi.waitUntil(() => broker.extended.length >= 3);
    expect(new Set(broker.extended).size).toBe(1);
    expect(broker.released).toEqual([5]);
    const { messages } = await broker.dequeue('orders', { maxMessages: 10 });
    expect(messages.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1, 1, 1]);
  });

  it('are prefetched again once a handler becomes free', async () => {
    const broker = await filled(6);
    let finish = (): void => undefined;
    const seen: number[] = [];
    consume(
      broker,
      {
        message: async (payload) => {
          seen.push(payload);
          if (seen.length === 1) await new Promise<void>((resolve) => (finish = resolve));
        },
      },
      { prefetch: 5, batchSize: 6, leaseSeconds: 1 },
    );
    await vi.waitUntil(() => broker.released.length > 0);
    finish();
    await broker.drained('orders');
    expect(seen.toSorted((one, other) => one - other)).toEqual([0, 1, 2, 3, 4, 5]);
    expect(broker.asked.at(-1)?.maxMessages).toBeGreaterThan(1);
  });

  it('are not handled once they have expired, and are not acked either', async () => {
    const broker = await filled(3, 1);
    const seen: number[] = [];
    const expired: string[] = [];
    const consumer = consume(
      broker,
      { message: async (payload) => (seen.push(payload), sleep(1200)) },
      { prefetch: 2, batchSize: 3, leaseSeconds: 30 },
    );
    consumer.on('expired', ({ body }) => expired.push(body));
    await vi.waitUntil(() => expired.length === 2);
    expect(seen).toEqual([0]);
    await vi.waitUntil(() => broker.released.length > 0);
  });
});

describe('a consumer that is paused', () => {
  it('releases what no handler has begun, takes nothing, and goes on when it is resumed', async () => {
    const broker = await filled(6);
    const seen: number[] = [];
    let finish = (): void => undefined;
    const consumer = consume(
      broker,
      {
        message: async (payload) => {
          seen.push(payload);
          if (seen.length === 1) await new Promise<void>((resolve) => (finish = resolve));
        },
      },
      { prefetch: 2, batchSize: 3 },
    );
    await vi.waitUntil(() => consumer.inHand === 3);
    consumer.pause();
    consumer.pause();
    expect(consumer.isPaused).toBe(true);
    expect(consumer.inHand).toBe(1);
    const asked = broker.asked.length;
    finish();
    await vi.waitUntil(() => broker.messages('orders').length === 5);
    await sleep(50);
    expect(seen).toEqual([0]);
    expect(broker.asked).toHaveLength(asked);
    expect(broker.messages('orders').every(({ receiveCount }) => receiveCount === 0)).toBe(true);
    consumer.resume();
    await broker.drained('orders');
    expect(seen.toSorted((one, other) => one - other)).toEqual([0, 1, 2, 3, 4, 5]);
  });

  it('gives up the dequeue that waits, tells no failure, and releases what comes with it', async () => {
    const broker = new RecordingBroker();
    const seen: number[] = [];
    const failures: unknown[] = [];
    const consumer = consume(broker, { message: (payload) => void seen.push(payload) }, { waitSeconds: 20 });
    consumer.on('dequeueFailed', (error) => failures.push(error));
    await vi.waitUntil(() => broker.asked.length === 1);
    consumer.pause();
    await new Queue<number>(broker, 'orders').enqueue(1);
    await vi.waitUntil(() => broker.released.length === 1);
    consumer.resume();
    await broker.drained('orders');
    consumer.pause();
    // Longer than a paused consumer waits for the answer.
    await sleep(600);
    await new Queue<number>(broker, 'orders').enqueue(2);
    await sleep(20);
    expect(broker.messages('orders')).toMatchObject([{ receiveCount: 0 }]);
    expect({ seen, failures }).toEqual({ seen: [1], failures: [] });
  });

  it('stays so when it is stopped and started', async () => {
    const broker = await filled(1);
    const consumer = consume(broker, { message: () => undefined }, {});
    await broker.drained('orders');
    consumer.pause();
    await consumer.stop();
    consumer.start();
    await new Queue<number>(broker, 'orders').enqueue(1);
    await sleep(50);
    expect(broker.messages('orders')).toHaveLength(1);
    consumer.resume();
    await broker.drained('orders');
  });
});

describe('a consumer that is started after a stop', () => {
  it('consumes again, as often as it is started', async () => {
    const broker = await filled(1);
    const seen: number[] = [];
    const consumer = consume(broker, { message: (payload) => void seen.push(payload) }, {});
    await broker.drained('orders');
    for (const payload of [1, 2]) {
      await consumer.stop();
      expect(consumer.isStarted).toBe(false);
      consumer.start();
      expect(consumer.isStarted).toBe(true);
      await new Queue<number>(broker, 'orders').enqueue(payload);
      await broker.drained('orders');
    }
    expect(seen).toEqual([0, 1, 2]);
  });

  it('waits for the handlers that the stop waits for, and runs no more handlers than it may', async () => {
    const broker = await filled(4);
    let working = 0;
    let most = 0;
    const handler = {
      message: async () => {
        working += 1;
        most = Math.max(most, working);
        await sleep(30);
        working -= 1;
      },
    };
    const consumer = consume(broker, handler, { shutdownSeconds: 10 });
    await vi.waitUntil(() => most === 1);
    const stopped = consumer.stop();
    consumer.start();
    consumer.start();
    await broker.drained('orders');
    await stopped;
    expect(most).toBe(1);
  });

  it('can be stopped before it has begun, and stop without a start does nothing', async () => {
    const broker = await filled(1);
    const consumer = new QueueConsumer<number>(broker, 'orders', hanging);
    await consumer.stop();
    consumer.start();
    void consumer.stop();
    consumer.start();
    await consumer.stop();
    expect(consumer.inHand).toBe(0);
  });
});

/** The answers of its dequeues are on their way for this long. */
class SlowAnswers extends InMemoryBroker {
  constructor(private readonly delayMs: number) {
    super();
  }

  override async dequeue(queue: string, request?: DequeueRequest, options?: CallOptions) {
    const answer = await super.dequeue(queue, request, options);
    await sleep(answer.messages.length > 0 ? this.delayMs : 0);
    return answer;
  }
}

describe('the lease of a consumer', () => {
  it('counts while its answer is on the way: a message that comes after the end is not handled', async () => {
    const broker = new SlowAnswers(1100);
    await new Queue<number>(broker, 'orders').enqueue(1);
    const seen: number[] = [];
    const lost: string[] = [];
    const consumer = consume(broker, { message: (payload) => void seen.push(payload) }, { leaseSeconds: 1 });
    consumer.on('leaseLost', ({ body }) => lost.push(body));
    await vi.waitUntil(() => lost.length > 0);
    expect(seen).toEqual([]);
  });

  it('does not count while the dequeue waits for a message', async () => {
    const broker = new InMemoryBroker();
    const seen: number[] = [];
    const lost: string[] = [];
    const handler = { message: (payload: number) => void seen.push(payload) };
    const consumer = consume(broker, handler, { leaseSeconds: 1, waitSeconds: 20 });
    consumer.on('leaseLost', ({ body }) => lost.push(body));
    await sleep(1200);
    await new Queue<number>(broker, 'orders').enqueue(1);
    await broker.drained('orders');
    expect({ seen, lost }).toEqual({ seen: [1], lost: [] });
  });

  it('is the queue’s unless the consumer has its own', async () => {
    const broker = new RecordingBroker();
    await broker.putQueue('orders', { leaseSeconds: 2 });
    const queue = new Queue<number>(broker, 'orders');
    await queue.enqueue(1);
    const consumer = consume(broker, hanging, {});
    const leaseMs = (): number => {
      const [message] = broker.messages('orders');
      return (message?.availableAt.getTime() ?? 0) - Date.now();
    };
    await vi.waitUntil(() => consumer.inHand === 1);
    expect(leaseMs()).toBeLessThanOrEqual(2000);
    // Extended in time, and by the length of the lease.
    await vi.waitUntil(() => broker.extended.length >= 2);
    expect(leaseMs()).toBeGreaterThan(1000);
    expect(leaseMs()).toBeLessThanOrEqual(2000);
    await consumer.stop();
    await queue.enqueue(2);
    const own = consume(broker, hanging, { leaseSeconds: 600 });
    await vi.waitUntil(() => own.inHand === 1);
    expect(broker.asked.at(-1)?.leaseSeconds).toBe(600);
  });
});
