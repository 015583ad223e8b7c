import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { QueueConsumer } from '../consumer/queue-consumer.js';
import { Queue } from '../queue/queue.js';
import { InMemoryBroker } from './in-memory-broker.js';

/* A service's tests may stop every timer. Delays, back-off and leases pass when they say so. */

const consumers: QueueConsumer[] = [];
beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(async () => {
  const stopped = consumers.splice(0).map((consumer) => consumer.stop());
  await vi.advanceTimersByTimeAsync(60_000);
  await Promise.all(stopped);
  vi.useRealTimers();
});

function consume(broker: InMemoryBroker, handle: (payload: number) => unknown): void {
  const consumer = new QueueConsumer<number>(broker, 'orders', { message: handle }, { concurrency: 2 });
  consumers.push(consumer as QueueConsumer);
  consumer.start();
}

describe('under fake timers that stop everything', () => {
  it('enqueue returns, also if the client is loaded after the timers were installed', async () => {
    vi.resetModules();
    const later = await import('../queue/queue.js');
    await expect(new later.Queue<number>(new InMemoryBroker(), 'orders').enqueue(1)).resolves.toBeTypeOf('string');
  });

  it('enqueue returns, and a consumer that waits gets the message at once', async () => {
    const broker = new InMemoryBroker();
    const handled: number[] = [];
    consume(broker, (payload) => handled.push(payload));
    await new Queue<number>(broker, 'orders').enqueue(1);
    await vi.advanceTimersByTimeAsync(0);
    await vi.waitUntil(() => handled.length === 1);
    expect(handled).toEqual([1]);
  });

  it('delays and back-off pass with the fake clock', async () => {
    const broker = new InMemoryBroker();
    let times = 0;
    consume(broker, () => {
      times += 1;
      if (times < 3) throw new Error('no');
    });
    await new Queue<number>(broker, 'orders').enqueue(1, { delaySeconds: 3600 });
    await vi.advanceTimersByTimeAsync(3_599_000);
    expect(times).toBe(0);
    await vi.advanceTimersByTimeAsync(1000);
    await vi.waitUntil(() => times === 1);
    await vi.advanceTimersByTimeAsync(10_000);
    await vi.waitUntil(() => times === 3);
    expect(broker.messages('orders')).toEqual([]);
  });

  it('a lease is extended while its handler works for minutes of fake time', async () => {
    const broker = new InMemoryBroker();
    const handled: number[] = [];
    consume(broker, async (payload) => {
      await new Promise((resolve) => setTimeout(resolve, 300_000));
      handled.push(payload);
    });
    await new Queue<number>(broker, 'orders').enqueue(1);
    await vi.advanceTimersByTimeAsync(310_000);
    await vi.waitUntil(() => broker.messages('orders').length === 0);
    expect(handled).toEqual([1]);
  });

  it('a dequeue that waits for dead letters gets a message in the instant in which it expires', async () => {
    const broker = new InMemoryBroker();
    await broker.putQueue('dead');
    await broker.putQueue('orders', { deadLetterQueue: 'dead', deadLetterExpired: true });
    const { messages: sent } = await broker.enqueue('orders', { messages: [{ body: 'late', expiresInSeconds: 5 }] });
    const got: string[] = [];
    const waiting = broker.dequeue('dead', { waitSeconds: 20 });
    void waiting.then(({ messages }) => got.push(...messages.map(({ body }) => body)));
    await vi.advanceTimersByTimeAsync(4999);
    expect(got).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(got).toEqual(['late']);
    const { deliveries } = await broker.getMessage(sent[0]!.id);
    expect(deliveries).toMatchObject([
      { queue: 'dead', source: 'orders', moves: [{ from: 'orders', cause: 'expired' }] },
    ]);
  });

  it('a dequeue that waits hears of a message that moved one queue nearer, and gets it when it expires there', async () => {
    const broker = new InMemoryBroker();
    await broker.putQueue('last');
    await broker.putQueue('dead', { deadLetterQueue: 'last', deadLetterExpired: true, messageTtlSeconds: 5 });
    await broker.putQueue('orders', { deadLetterQueue: 'dead', deadLetterExpired: true });
    await broker.enqueue('orders', { messages: [{ body: 'late', expiresInSeconds: 2 }] });
    const got: string[] = [];
    const waiting = broker.dequeue('last', { waitSeconds: 20 });
    void waiting.then(({ messages }) => got.push(...messages.map(({ body }) => body)));
    await vi.advanceTimersByTimeAsync(3000);
    // Its life as a dead letter begins now.
    await broker.dequeue('orders');
    await vi.advanceTimersByTimeAsync(4999);
    expect(got).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(got).toEqual(['late']);
  });
});
