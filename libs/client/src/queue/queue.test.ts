import { type EnqueueRequest, RowmqError } from '@rowmq/contract';
import { describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { turn } from '../timers.js';
import { PayloadError } from '@rowmq/contract/producer';
import { Queue } from './queue.js';

/** Keeps the requests that were made of it. */
class RecordingBroker extends InMemoryBroker {
  readonly requests: EnqueueRequest[] = [];

  override async enqueue(queue: string, request: EnqueueRequest) {
    this.requests.push(request);
    return super.enqueue(queue, request);
  }

  get sizes(): number[] {
    return this.requests.map(({ messages }) => messages.length);
  }
}

const order = z.object({ article: z.string(), placedAt: z.string().transform((text) => new Date(text)) });
const tea = { article: 'tea', placedAt: '2026-01-02T03:04:05.000Z' };

describe('enqueue', () => {
  it('sends the enqueues of one turn in one request, and returns each caller its own ids', async () => {
    const broker = new RecordingBroker();
    const queue = new Queue<number>(broker, 'orders');
    const [one, many, last] = await Promise.all([queue.enqueue(1), queue.enqueueMany([2, 3]), queue.enqueue(4)]);
    expect(broker.sizes).toEqual([4]);
    const stored = broker.messages('orders');
    expect(stored.map(({ body }) => body)).toEqual(['1', '2', '3', '4']);
    expect([one, ...many, last]).toEqual(stored.map(({ id }) => id));
    await queue.enqueue(5);
    expect(broker.sizes).toEqual([4, 1]);
  });

  it('splits more than 100 messages into several requests, and never splits one call', async () => {
    const broker = new RecordingBroker();
    const queue = new Queue<number>(broker, 'orders');
    const batch = Array.from({ length: 60 }, (_, index) => index);
    await Promise.all([queue.enqueueMany(batch), queue.enqueueMany(batch), queue.enqueue(1)]);
    expect(broker.sizes).toEqual([60, 61]);
  });

  it('refuses only the callers at fault when a shared request fails', async () => {
    const broker = new RecordingBroker();
    await broker.putQueue('orders', { maxDepth: 3 });
    const queue = new Queue<number>(broker, 'orders');
    const outcomes = await Promise.allSettled([
      queue.enqueue(1),
      queue.enqueue(2, { priority: 99 }),
      queue.enqueueMany([3, 4, 5, 6]),
      queue.enqueue(7),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected', 'fulfilled']);
    const codes = outcomes.map((outcome) =>
      outcome.status === 'rejected' ? (outcome.reason as RowmqError).code : null,
    );
    expect(codes).toEqual([null, 'invalid-request', 'queue-full', null]);
    expect(broker.messages('orders').map(({ body }) => body)).toEqual(['1', '7']);
  });

  it('takes options for all of many, or for each', async () => {
    const broker = new InMemoryBroker();
    const queue = new Queue<number>(broker, 'orders');
    await queue.enqueueMany([1, 2], { priority: 7 });
    await queue.enqueueMany([3, 4], (payload, index) => ({ priority: payload, headers: { place: String(index) } }));
    const stored = broker.messages('orders').map(({ priority, headers }) => [priority, headers]);
    expect(stored).toEqual([
      [7, {}],
      [7, {}],
      [3, { place: '0' }],
      [4, { place: '1' }],
    ]);
  });

  describe('while a request is in flight', () => {
    /** Answers its first enqueue when it is let go. */
    class HoldingBroker extends RecordingBroker {
      letGo: () => void = () => undefined;
      private readonly held = new Promise<void>((resolve) => (this.letGo = resolve));

      override async enqueue(name: string, request: EnqueueRequest) {
        const isFirst = this.requests.length === 0;
        const stored = super.enqueue(name, request);
        if (isFirst) await this.held;
        return stored;
      }
    }

    it('collects the messages of several turns', async () => {
      const broker = new HoldingBroker();
      const queue = new Queue<number>(broker, 'orders');
      const calls: Promise<string>[] = [];
      for (const payload of [1, 2, 3]) {
        calls.push(queue.enqueue(payload));
        await turn();
        await turn();
      }
      expect(broker.sizes).toEqual([1]);
      broker.letGo();
      await Promise.all(calls);
      expect(broker.sizes).toEqual([1, 2]);
    });

    it('sends a full request at once', async () => {
      const broker = new HoldingBroker();
      const queue = new Queue<number>(broker, 'orders');
      const first = queue.enqueue(0);
      await turn();
      const partial = Array.from({ length: 99 }, async (_, payload) => queue.enqueue(payload));
      await turn();
      const last = queue.enqueue(99);
      await turn();
      await turn();
      expect(broker.sizes).toEqual([1, 100]);
      broker.letGo();
      await Promise.all([first, ...partial, last]);
    });

    it('does not wait for long', async () => {
      const broker = new HoldingBroker();
      const queue = new Queue<number>(broker, 'orders');
      const first = queue.enqueue(1);
      await turn();
      await queue.enqueue(2);
      expect(broker.sizes).toEqual([1, 1]);
      broker.letGo();
      await first;
    });
  });

  it('keeps 10,000 messages in flight at most, and lets further calls wait in their order', async () => {
    /** Answers no enqueue before it is let go. */
    class SlowBroker extends InMemoryBroker {
      asked = 0;
      letGo: () => void = () => undefined;
      private readonly held = new Promise<void>((resolve) => (this.letGo = resolve));

      override async enqueue(name: string, request: EnqueueRequest) {
        this.asked += request.messages.length;
        await this.held;
        return super.enqueue(name, request);
      }
    }
    const broker = new SlowBroker();
    const queue = new Queue<number>(broker, 'orders');
    const batch = Array.from({ length: 100 }, (_, index) => index);
    const calls = Array.from({ length: 150 }, async () => queue.enqueueMany(batch));
    const last = [queue.enqueue(1000), queue.enqueue(1001)];
    await vi.waitUntil(() => broker.asked >= 10_000);
    await new Promise((resolve) => setImmediate(resolve));
    expect(broker.asked).toBe(10_000);
    broker.letGo();
    await Promise.all([...calls, ...last]);
    expect(broker.messages('orders')).toHaveLength(15_002);
    expect(broker.messages('orders').slice(-2)).toMatchObject([{ body: '1000' }, { body: '1001' }]);
  });

  it('sends large messages in several requests, none of which a broker refuses for its size', async () => {
    const requests: number[] = [];
    class CountingBroker extends InMemoryBroker {
      override async enqueue(name: string, request: EnqueueRequest) {
        requests.push(request.messages.length);
        return super.enqueue(name, request);
      }
    }
    const broker = new CountingBroker({ maxBodyBytes: 262_144 });
    const queue = new Queue<Uint8Array>(broker, 'blobs', { format: 'bytes' });
    await Promise.all(Array.from({ length: 40 }, async () => queue.enqueue(Buffer.alloc(200_000, 1))));
    await Promise.all(Array.from({ length: 100 }, async () => queue.enqueue(Buffer.alloc(4096, 1))));
    expect(requests).toEqual([...Array<number>(20).fill(2), 100]);
    const { messages } = await broker.dequeue('blobs', { maxMessages: 100 });
    // An answer ends before its bodies are more than 4 MiB; these are base64 only on their way in.
    expect(messages).toHaveLength(20);
  });

  it('goes on after a failure of the messages that filled it', async () => {
    class FailingBroker extends InMemoryBroker {
      failures = 100;

      override async enqueue(name: string, request: EnqueueRequest) {
        this.failures -= 1;
        if (this.failures >= 0) throw new RowmqError('database-unavailable', 'It is away.');
        return super.enqueue(name, request);
      }
    }
    const queue = new Queue<number>(new FailingBroker(), 'orders');
    const batch = Array.from({ length: 100 }, (_, index) => index);
    const outcomes = await Promise.allSettled(Array.from({ length: 101 }, async () => queue.enqueueMany(batch)));
    expect(outcomes.map(({ status }) => status)).toEqual([...Array<string>(100).fill('rejected'), 'fulfilled']);
  });

  it.each([0, 101])('refuses %i at once', async (count) => {
    const queue = new Queue<number>(new InMemoryBroker(), 'orders');
    await expect(queue.enqueueMany(Array.from({ length: count }, () => 1))).rejects.toThrow(RangeError);
  });
});

describe('a queue’s payload', () => {
  it('is not enqueued if it does not fit the schema, and the error names the field', async () => {
    const broker = new InMemoryBroker();
    const queue = new Queue(broker, 'orders', { schema: order });
    const wrong = queue.enqueue({ article: 17, placedAt: '' } as never);
    await expect(wrong).rejects.toThrow(PayloadError);
    await expect(wrong).rejects.toThrow(/schema of queue 'orders': article: /);
    expect(broker.messages('orders')).toEqual([]);
  });

  it('is stored as it was given, and decoded with the output of the schema', async () => {
    const broker = new InMemoryBroker();
    const queue = new Queue(broker, 'orders', { schema: order });
    await queue.enqueue(tea);
    const [message] = (await broker.dequeue('orders')).messages;
    expect(JSON.parse(message?.body ?? '')).toEqual(tea);
    expect(queue.codec.decode(message as never)).toEqual({ article: 'tea', placedAt: new Date(tea.placedAt) });
  });

  it('is checked in the form that JSON gives it', async () => {
    const schema = z.object({ at: z.date() });
    const queue = new Queue(new InMemoryBroker(), 'orders', { schema });
    await expect(queue.enqueue({ at: new Date() })).rejects.toThrow(/at: /);
  });

  it('is checked by asynchronous schemas, too', async () => {
    const broker = new InMemoryBroker();
    const schema = z.number().refine(async (value) => Promise.resolve(value > 0), 'must be positive');
    const queue = new Queue(broker, 'numbers', { schema });
    await queue.enqueueMany([1, 2]);
    await expect(queue.enqueue(-1)).rejects.toThrow(/must be positive/);
    const { messages } = await broker.dequeue('numbers', { maxMessages: 9 });
    expect(await Promise.all(messages.map(async (message) => queue.codec.decode(message)))).toEqual([1, 2]);
  });

  it('is stored as it is if its format is bytes', async () => {
    const broker = new InMemoryBroker();
    const queue = new Queue<Uint8Array>(broker, 'blobs', { format: 'bytes' });
    const bytes = Uint8Array.from([0, 255, 128, 10]);
    await queue.enqueue(new Uint8Array(bytes.buffer, 1, 2));
    const [message] = (await broker.dequeue('blobs')).messages;
    expect([...(queue.codec.decode(message as never) as Uint8Array)]).toEqual([255, 128]);
    await expect(queue.enqueue('text' as never)).rejects.toThrow(/not a Uint8Array/);
  });

  it('is refused above 262,144 bytes by the client, and above its own limit by the broker', async () => {
    const queue = new Queue<string>(new InMemoryBroker(), 'orders');
    await expect(queue.enqueue('ü'.repeat(2047))).resolves.toBeTypeOf('string');
    await expect(queue.enqueue('ü'.repeat(2048))).rejects.toMatchObject({
      code: 'message-too-large',
      message: expect.stringContaining('4098 bytes, more than 4096'),
    });
    const large = new Queue<string>(new InMemoryBroker({ maxBodyBytes: 262_144 }), 'orders');
    await expect(large.enqueue('ü'.repeat(131_071))).resolves.toBeTypeOf('string');
    await expect(large.enqueue('ü'.repeat(131_072))).rejects.toMatchObject({
      code: 'message-too-large',
      message: expect.stringContaining('the 262144 that any broker takes'),
    });
    await expect(queue.enqueue(undefined as never)).rejects.toThrow(/undefined, which JSON cannot represent/);
    await expect(queue.enqueue(7n as never)).rejects.toThrow(PayloadError);
    await expect(queue.enqueue(7n as never)).rejects.toThrow(/queue 'orders' cannot be represented as JSON: .*BigInt/);
  });
});
