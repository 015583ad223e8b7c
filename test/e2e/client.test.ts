import 'reflect-metadata';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { EventPattern, Payload } from '@nestjs/microservices';
import { Test } from '@nestjs/testing';
import { type ConsumerOptions, getQueueToken, Queue, QueueConsumer, RowmqHttpClient, RowmqModule } from '@rowmq/client';
import { RowmqServer } from '@rowmq/client/microservices';
import { afterEach, describe, expect, it } from 'vitest';
import { useOwnBroker } from '../support/api.js';
import { freePort, startBroker } from '../support/processes.js';
import { eventually } from '../support/wait.js';

/* The client against real brokers, while services and brokers come and go. */

const shared = useOwnBroker();
const opened: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).toReversed()) await close();
});

function clientOf(url: string | string[]): RowmqHttpClient {
  const client = new RowmqHttpClient({ url, timeoutMs: 5000 });
  opened.push(() => client.close());
  return client;
}

interface ServiceProcess {
  child: ChildProcess;
  began: number[];
  finished: number[];
}

/** A service with a consumer, in a process of its own. */
async function startService(queue: string, handlerMs: number, options: ConsumerOptions): Promise<ServiceProcess> {
  const script = fileURLToPath(new URL('../support/consumer-process.mjs', import.meta.url));
  const settings = JSON.stringify({ url: shared.broker.url, queue, handlerMs, options });
  // Without vitest's own arguments, whose source condition plain Node.js cannot follow.
  const child = fork(script, [settings], { execArgv: [] });
  opened.push(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  const service: ServiceProcess = { child, began: [], finished: [] };
  const ready = new Promise<void>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the service ended with ${String(code)}`)));
    child.on('message', (message: 'ready' | { began?: number; finished?: number }) => {
      if (message === 'ready') resolve();
      else if (message.began !== undefined) service.began.push(message.began);
      else if (message.finished !== undefined) service.finished.push(message.finished);
    });
  });
  await ready;
  return service;
}

async function signal(service: ServiceProcess, name: NodeJS.Signals): Promise<void> {
  // `exit` can come before the last of its messages.
  const ended = once(service.child, 'close');
  service.child.kill(name);
  await ended;
}

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index);
const sorted = (numbers: readonly number[]) => numbers.toSorted((one, other) => one - other);

describe('a service', () => {
  it('that is killed at work loses nothing: its messages are handed out again when their leases end', async () => {
    const queue = await shared.newQueue();
    const enqueued = new Queue<number>(clientOf(shared.broker.url), queue.name);
    await enqueued.enqueueMany(upTo(6));
    const first = await startService(queue.name, 60_000, {
      concurrency: 4,
      prefetch: 2,
      batchSize: 6,
      leaseSeconds: 2,
    });
    await eventually('handlers at work', () => first.began.length === 4);
    await signal(first, 'SIGKILL');
    const second = await startService(queue.name, 0, { concurrency: 4 });
    await eventually('all handled', () => second.finished.length === 6);
    expect(sorted(second.finished)).toEqual(upTo(6));
    await eventually('all acked', async () => (await queue.get()).stats.leased === 0);
  });

  it('that is told to stop finishes the messages that it has begun, and others get the rest at once', async () => {
    const queue = await shared.newQueue();
    await new Queue<number>(clientOf(shared.broker.url), queue.name).enqueueMany(upTo(10));
    const first = await startService(queue.name, 5000, {
      concurrency: 2,
      prefetch: 4,
      batchSize: 6,
      leaseSeconds: 600,
    });
    await eventually('handlers at work', () => first.began.length === 2);
    const stopped = signal(first, 'SIGTERM');
    const second = await startService(queue.name, 0, { concurrency: 10 });
    // Long before any lease ends.
    await eventually('the rest', () => second.finished.length === 8);
    await stopped;
    expect(sorted(first.finished)).toEqual([0, 1]);
    expect(sorted(second.finished)).toEqual([2, 3, 4, 5, 6, 7, 8, 9]);
    // The second acks in the background.
    await eventually('all acked', async () => {
      const { ready, leased } = (await queue.get()).stats;
      return ready + leased === 0;
    });
  });

  it('whose handler outlives its lease four times over gets its message once', async () => {
    const queue = await shared.newQueue();
    const client = clientOf(shared.broker.url);
    // It is extended after a third. A busy machine may be late by the rest.
    const leaseSeconds = 5;
    const received: number[] = [];
    const leaseEnd = async (): Promise<number> => {
      const [leased] = await queue.browse('leased');
      return leased === undefined ? Number.NaN : Date.parse(leased.availableAt);
    };
    const handler = {
      message: async (_: unknown, { receiveCount }: { receiveCount: number }) => {
        received.push(receiveCount);
        const first = await leaseEnd();
        await eventually('four leases', async () => (await leaseEnd()) >= first + 4000 * leaseSeconds, 60_000);
      },
    };
    const consumers = upTo(2).map(() => new QueueConsumer(client, queue.name, handler, { leaseSeconds }));
    opened.push(() => Promise.all(consumers.map((consumer) => consumer.stop())));
    for (const consumer of consumers) consumer.start();
    await queue.enqueue('1');
    await eventually(
      'it to be acked',
      async () => received.length > 0 && (await queue.get()).stats.leased === 0,
      90_000,
    );
    expect(received).toEqual([1]);
  });

  it.each([
    ['one message at a time', { prefetch: 0, batchSize: 1 }, 1],
    ['ten messages at a time', { concurrency: 10, batchSize: 10 }, 10],
  ])('that takes %s acks with its dequeues', async (_, options, perRequest) => {
    const queue = await shared.newQueue();
    await queue.enqueue(...upTo(100).map(String));
    const calls = (call: string) =>
      shared.api.metric(`rowmq_request_duration_seconds_count{call="${call}",status="200"}`);
    const [acks, dequeues] = [await calls('ack'), await calls('dequeue')];
    const consumer = new QueueConsumer(clientOf(shared.broker.url), queue.name, { message: () => undefined }, options);
    opened.push(() => consumer.stop());
    consumer.start();
    // The last dequeue carries acks, and waits on.
    await eventually('all acked', async () => {
      const { ready, leased } = (await queue.get()).stats;
      return ready + leased === 0;
    });
    expect(await calls('ack')).toBe(acks);
    // A dequeue may get fewer messages than there are.
    expect((await calls('dequeue')) - dequeues).toBeLessThanOrEqual(120 / perRequest);
    await consumer.stop();
    // The stop gave up the last dequeue, and the consumer sent its acks again.
    expect(await calls('ack')).toBeLessThanOrEqual(acks + 1);
    expect((await queue.get()).stats).toMatchObject({ ready: 0, leased: 0 });
  });

  it('does not start without its queue, unless it may create it', async () => {
    const boot = async (create: boolean) => {
      @Module({
        imports: [
          RowmqModule.forRoot({ url: shared.broker.url }),
          RowmqModule.registerQueue({ name: `boot-${process.pid}`, create }),
        ],
      })
      class ServiceModule {}
      const app = await Test.createTestingModule({ imports: [ServiceModule] }).compile();
      opened.push(() => app.close());
      app.useLogger(false);
      return app.init();
    };
    await expect(boot(false)).rejects.toThrow(/Queue 'boot-\d+' does not exist: create it with PUT .*create: true/);
    const app = await boot(true);
    await expect(app.get<Queue>(getQueueToken(`boot-${process.pid}`)).enqueue({ a: 1 })).resolves.toBeTypeOf('string');
  });

  it('does not listen as a transport without its queue, unless it may create it', async () => {
    const pattern = `listen-${process.pid}`;
    const handled: unknown[] = [];
    @Controller()
    class Orders {
      @EventPattern(pattern)
      handle(@Payload() payload: unknown): void {
        handled.push(payload);
      }
    }
    @Module({ controllers: [Orders] })
    class ServiceModule {}
    const listen = async (create: boolean) => {
      const strategy = new RowmqServer({ url: shared.broker.url, create });
      const app = await NestFactory.createMicroservice(ServiceModule, { strategy, logger: false });
      opened.push(() => app.close());
      await app.listen();
    };
    await expect(listen(false)).rejects.toThrow(/Queue 'listen-\d+' does not exist: create it with PUT .*create: true/);
    await listen(true);
    await new Queue(clientOf(shared.broker.url), pattern).enqueue({ a: 1 });
    await eventually('it is handled', () => handled.length === 1);
    expect(handled).toEqual([{ a: 1 }]);
  });
});

/**
 * Listens on a broker's port, breaks every connection, and counts the dequeues. It goes on until
 * there is one and `isOver`.
 */
async function countDequeues(port: number, isOver: () => boolean): Promise<number> {
  let asked = 0;
  const server = createServer(({ url, socket }) => {
    if (url?.endsWith('/dequeue') === true) asked += 1;
    socket.destroy();
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  await eventually('a dequeue, and its end', () => asked > 0 && isOver());
  server.close();
  server.closeAllConnections();
  await once(server, 'close');
  return asked;
}

describe('while brokers come and go', () => {
  /**
   * Runs producers and consumers until `work` is done. `work` sees the payloads that were enqueued
   * so far. In the end all of them must be handled.
   */
  async function underLoad(
    client: RowmqHttpClient,
    queueName: string,
    work: (consumer: QueueConsumer, enqueued: readonly number[]) => Promise<void>,
  ): Promise<void> {
    const rejections: unknown[] = [];
    const onRejection = (error: unknown): void => void rejections.push(error);
    process.on('unhandledRejection', onRejection);
    const handled = new Set<number>();
    const consumer = new QueueConsumer<number>(
      client,
      queueName,
      { message: (payload) => void handled.add(payload) },
      { concurrency: 20, leaseSeconds: 5 },
    );
    consumer.start();
    const queue = new Queue<number>(client, queueName);
    const enqueued: number[] = [];
    let isOver = false;
    let next = 0;
    const producing = upTo(4).map(async () => {
      while (!isOver) {
        const payload = (next += 1);
        await queue.enqueue(payload).then(
          () => enqueued.push(payload),
          // The outcome is unknown, and the payload is not counted.
          () => sleep(20),
        );
      }
    });
    try {
      await eventually('some messages', () => handled.size > 20);
      await work(consumer as QueueConsumer, enqueued);
    } finally {
      isOver = true;
      await Promise.all(producing);
    }
    await eventually('every message that was stored', () => enqueued.every((payload) => handled.has(payload)), 30_000);
    await consumer.stop();
    process.off('unhandledRejection', onRejection);
    expect(rejections).toEqual([]);
  }

  it('producers and consumers continue after a restart of their broker, and send few requests until then', async () => {
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const env = { ROWMQ_PORT: String(port) };
    let broker = await startBroker({ env });
    const { database } = broker;
    opened.push(async () => {
      await broker.stop();
      await database.drop();
    });
    const client = clientOf(url);
    await client.putQueue('orders');
    let failures = 0;
    await underLoad(client, 'orders', async (consumer, enqueued) => {
      consumer.on('dequeueFailed', () => (failures += 1));
      await broker.kill();
      const before = failures;
      const from = performance.now();
      const asked = await countDequeues(port, () => failures >= before + 4);
      // The pauses double from 50 ms or more.
      expect(performance.now() - from).toBeGreaterThanOrEqual(50 + 100 + 200);
      expect(asked).toBeLessThanOrEqual(failures - before + 1);
      const stored = enqueued.length;
      broker = await startBroker({ database, env });
      await eventually('producers go on', () => enqueued.length > stored + 20, 30_000);
    });
  });

  it('a client with several brokers uses another when one is killed', async () => {
    const [one, other] = await Promise.all([
      startBroker({ database: shared.broker.database }),
      startBroker({ database: shared.broker.database }),
    ]);
    opened.push(() => other.stop());
    const queue = await shared.newQueue();
    const client = clientOf([one.url, other.url]);
    await underLoad(client, queue.name, async (_, enqueued) => {
      await one.kill();
      const before = enqueued.length;
      await client.getQueue(queue.name);
      await eventually('producers go on', () => enqueued.length > before + 20, 30_000);
    });
  });
});
