import 'reflect-metadata';
import { Inject, Injectable, Module } from '@nestjs/common';
import { HealthCheckService, TerminusModule } from '@nestjs/terminus';
import { Test, type TestingModule } from '@nestjs/testing';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { BrokerClient } from '../broker-client.js';
import { RowmqHttpClient } from '../http/rowmq-http-client.js';
import type { Queue } from '../queue/queue.js';
import type { Topic } from '../topic/topic.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { RowmqTestingModule } from '../testing/rowmq-testing.module.js';
import { ConsumersService } from './consumers.service.js';
import { Consumer, InjectQueue, InjectRowmq, InjectTopic, OnConsumerEvent, OnMessage } from './decorators.js';
import { RowmqHealthIndicator } from './health-indicator.js';
import { RowmqModule } from './rowmq.module.js';
import { getClientToken, getQueueToken } from './tokens.js';

const apps: TestingModule[] = [];
afterEach(async () => {
  await Promise.all(apps.splice(0).map((app) => app.close()));
});

type Metadata = Parameters<typeof Test.createTestingModule>[0];

async function start(metadata: Metadata): Promise<TestingModule> {
  const app = await Test.createTestingModule(metadata).compile();
  apps.push(app);
  app.useLogger(false);
  return app.init();
}

describe('connections with names', () => {
  it('have queues, consumers and clients of their own', async () => {
    const handled: string[] = [];
    @Consumer('orders', { waitSeconds: 1 })
    class Mailer {
      @OnMessage()
      mail(payload: string): void {
        handled.push(`default ${payload}`);
      }
    }
    @Consumer('orders', { connection: 'billing', waitSeconds: 1 })
    class Biller {
      @OnMessage()
      bill(payload: string): void {
        handled.push(`billing ${payload}`);
      }
    }
    @Injectable()
    class Shop {
      constructor(
        @InjectQueue('orders') readonly orders: Queue<string>,
        @InjectQueue('orders', 'billing') readonly bills: Queue<string>,
        @InjectRowmq('billing') readonly billing: BrokerClient,
        @Inject(BrokerClient) readonly unnamed: BrokerClient,
      ) {}
    }
    const app = await start({
      imports: [
        RowmqTestingModule.forRoot(),
        RowmqTestingModule.forRoot({ name: 'billing' }),
        RowmqModule.registerQueue({ name: 'orders' }, { name: 'orders', connection: 'billing' }),
      ],
      providers: [Mailer, Biller, Shop],
    });
    const shop = app.get(Shop);
    expect(shop.billing).not.toBe(shop.unnamed);
    await Promise.all([shop.orders.enqueue('tea'), shop.bills.enqueue('bill')]);
    await vi.waitUntil(() => handled.length === 2);
    expect(handled.toSorted()).toEqual(['billing bill', 'default tea']);
    expect(app.get(ConsumersService).all()).toHaveLength(2);
    expect(app.get(ConsumersService).get('orders', 'billing').isStarted).toBe(true);
  });

  it('are made by forRoot and forRootAsync, and closed when the application is', async () => {
    @Injectable()
    class Service {
      constructor(
        @Inject(RowmqHttpClient) readonly one: RowmqHttpClient,
        @InjectRowmq('billing') readonly other: RowmqHttpClient,
      ) {}
    }
    const app = await start({
      imports: [
        RowmqModule.forRoot({ url: 'http://127.0.0.1:1', retries: 0 }),
        RowmqModule.forRootAsync({ name: 'billing', useFactory: () => ({ url: 'http://127.0.0.1:2', retries: 0 }) }),
      ],
      providers: [Service],
    });
    const { one, other } = app.get(Service);
    expect([one.url, other.url]).toEqual(['http://127.0.0.1:1', 'http://127.0.0.1:2']);
    await app.close();
    for (const client of [one, other]) await expect(client.ready()).rejects.toThrow(/closed/);
  });
});

describe('registerTopic', () => {
  it('injects topics, which publish the payloads of one turn in one request and check them', async () => {
    @Injectable()
    class Shop {
      constructor(
        @InjectTopic('events') readonly events: Topic<{ order: number }>,
        @InjectTopic('events', 'billing') readonly bills: Topic,
      ) {}
    }
    const app = await start({
      imports: [
        RowmqTestingModule.forRoot(),
        RowmqTestingModule.forRoot({ name: 'billing' }),
        RowmqModule.registerTopic(
          { name: 'events', schema: z.object({ order: z.int() }) },
          { name: 'events', connection: 'billing' },
        ),
      ],
      providers: [Shop],
    });
    const { events, bills } = app.get(Shop);
    const broker = app.get(InMemoryBroker);
    await broker.putSubscription('events', 'mails', { filter: { kind: ['created'] } });
    await broker.putSubscription('events', 'audit');
    const publish = vi.spyOn(broker, 'publish');
    const published = await Promise.all([
      events.publish({ order: 1 }, { headers: { kind: 'created' } }),
      events.publishMany([{ order: 2 }, { order: 3 }], ({ order }) => ({ headers: { kind: `of ${order}` } })),
    ]);
    expect(published.flat().map(({ subscriptions }) => subscriptions)).toEqual([2, 1, 1]);
    expect(publish).toHaveBeenCalledTimes(1);
    expect(broker.messages('mails').map(({ body }) => body)).toEqual(['{"order":1}']);
    expect(broker.messages('audit')).toHaveLength(3);
    // Nobody subscribes there.
    expect(await bills.publish('bill')).toMatchObject({ subscriptions: 0 });
    await expect(events.publish({ order: 1.5 })).rejects.toThrow("does not fit the schema of topic 'events'");
    await expect(events.publishMany([])).rejects.toThrow('publishMany takes 1 to 100 messages');
  });

  it('creates topics and subscriptions at the start, if a module says so', async () => {
    const app = await start({
      imports: [
        RowmqTestingModule.forRoot(),
        RowmqModule.registerTopic({ name: 'events', create: { deduplicationSeconds: 60 } }),
        RowmqModule.registerTopic({ name: 'events' }),
        RowmqModule.registerQueue({ name: 'mails', create: true, subscribeTo: [{ topic: 'events' }] }),
        RowmqModule.registerQueue({ name: 'mails' }),
      ],
    });
    expect(await app.get(InMemoryBroker).getTopic('events')).toMatchObject({
      deduplicationSeconds: 60,
      subscriptions: [{ queue: 'mails', filter: null }],
    });
  });

  it('says what is missing without a connection', async () => {
    await expect(start({ imports: [RowmqModule.registerTopic({ name: 'events' })] })).rejects.toThrow(
      "Topic 'events' is registered, but there is no connection",
    );
  });
});

describe('registerQueueAsync', () => {
  it('takes the name and the settings of a queue from the configuration', async () => {
    class Config {
      readonly queue = 'orders-of-tenant-7';
    }
    @Module({ providers: [Config], exports: [Config] })
    class ConfigModule {}
    const handled: unknown[] = [];
    @Consumer('orders', { waitSeconds: 1 })
    class Mailer {
      @OnMessage()
      mail(payload: unknown): void {
        handled.push(payload);
      }
    }
    const app = await start({
      imports: [
        RowmqTestingModule.forRoot(),
        RowmqModule.registerQueueAsync({
          name: 'orders',
          imports: [ConfigModule],
          inject: [Config],
          useFactory: async ({ queue }: Config) => ({ name: queue, create: { leaseSeconds: 77 } }),
        }),
      ],
      providers: [Mailer],
    });
    await app.get<Queue>(getQueueToken('orders')).enqueue(1);
    await vi.waitUntil(() => handled.length === 1);
    expect(await app.get(InMemoryBroker).getQueue('orders-of-tenant-7')).toMatchObject({ leaseSeconds: 77 });
    expect(app.get(ConsumersService).get('orders').queue).toBe('orders-of-tenant-7');
  });
});

describe('a queue that several modules register', () => {
  it.each([
    ['first', 0],
    ['in the middle', 1],
    ['last', 2],
  ])('has the schema that one of them names %s, for producers and the consumer', async (_, place) => {
    const schema = z.string().transform((text) => text.length);
    const handled: unknown[] = [];
    @Consumer('orders', { waitSeconds: 1 })
    class Mailer {
      @OnMessage()
      mail(payload: number): void {
        handled.push(payload);
      }
    }
    const modules = [0, 1, 2].map((index) => {
      @Injectable()
      class Shop {
        constructor(@InjectQueue('orders') readonly orders: Queue) {}
      }
      const registration = index === place ? { name: 'orders', schema } : { name: 'orders' };
      @Module({ imports: [RowmqModule.registerQueue(registration)], providers: [Shop] })
      class ShopModule {}
      return { Shop, ShopModule };
    });
    const app = await start({
      imports: [RowmqTestingModule.forRoot(), ...modules.map(({ ShopModule }) => ShopModule)],
      providers: [Mailer],
    });
    for (const { Shop } of modules) {
      await expect(app.get(Shop, { strict: false }).orders.enqueue(7)).rejects.toThrow(/does not fit the schema/);
      await app.get(Shop, { strict: false }).orders.enqueue('tea');
    }
    await vi.waitUntil(() => handled.length === modules.length);
    expect(handled).toEqual([3, 3, 3]);
  });
});

describe('@OnConsumerEvent', () => {
  it('hears the events of its consumer, with the instance as this', async () => {
    @Consumer('orders', { waitSeconds: 1 })
    class Mailer {
      readonly heard: unknown[] = [];
      @OnMessage()
      mail(): void {
        throw new Error('no mail');
      }
      @OnConsumerEvent('handlerFailed')
      failed({ body }: { body: string }, error: Error): void {
        this.heard.push([body, error.message]);
      }
    }
    const app = await start({
      imports: [RowmqTestingModule.forRoot(), RowmqModule.registerQueue({ name: 'orders' })],
      providers: [Mailer],
    });
    await app.get<Queue>(getQueueToken('orders')).enqueue('tea');
    await vi.waitUntil(() => app.get(Mailer).heard.length > 0);
    expect(app.get(Mailer).heard).toEqual([['"tea"', 'no mail']]);
  });
});

describe('RowmqHttpClient', () => {
  it('can be injected under RowmqTestingModule, and covers the whole API there', async () => {
    @Injectable()
    class Ops {
      constructor(@Inject(RowmqHttpClient) readonly rowmq: RowmqHttpClient) {}
    }
    const app = await start({ imports: [RowmqTestingModule.forRoot()], providers: [Ops] });
    const { rowmq } = app.get(Ops);
    expect(rowmq).toBe(app.get(InMemoryBroker));
    await rowmq.putQueue('orders');
    expect(await rowmq.pauseQueue('orders')).toEqual({ name: 'orders', paused: true, producersPaused: false });
    expect((await rowmq.listQueues()).queues.map(({ name }) => name)).toEqual(['orders']);
    for (const name of Object.getOwnPropertyNames(RowmqHttpClient.prototype)) {
      if (name === 'constructor' || name === 'url') continue;
      expect(InMemoryBroker.prototype, name).toHaveProperty(name);
    }
  });
});

describe('the health indicator', () => {
  class AwayBroker extends InMemoryBroker {
    isAway = false;

    override async ready(): Promise<void> {
      if (this.isAway) throw new Error('The broker is away.');
    }
  }

  it('is down if the broker of one connection is away, and names the connection', async () => {
    const broker = new AwayBroker();
    const module = await Test.createTestingModule({
      imports: [RowmqTestingModule.forRoot(), RowmqTestingModule.forRoot({ name: 'billing' })],
    })
      .overrideProvider(getClientToken('billing'))
      .useValue(broker)
      .compile();
    apps.push(module);
    module.useLogger(false);
    const app = await module.init();
    const rowmq = app.get(RowmqHealthIndicator);
    expect(await rowmq.check()).toEqual({ rowmq: { status: 'up' } });
    broker.isAway = true;
    expect(await rowmq.check()).toEqual({
      rowmq: { status: 'down', message: "Connection 'billing': The broker is away." },
    });
  });

  it('is there without an unnamed connection, too', async () => {
    const app = await start({ imports: [RowmqTestingModule.forRoot({ name: 'billing' })] });
    expect(await app.get(RowmqHealthIndicator).check()).toEqual({ rowmq: { status: 'up' } });
  });

  it('works in a health check of @nestjs/terminus', async () => {
    @Consumer('orders', { waitSeconds: 1 })
    class Mailer {
      @OnMessage()
      mail(): void {}
    }
    const broker = new AwayBroker();
    const module = await Test.createTestingModule({
      imports: [
        TerminusModule.forRoot({ logger: false }),
        RowmqTestingModule.forRoot(),
        RowmqModule.registerQueue({ name: 'orders' }),
      ],
      providers: [Mailer],
    })
      .overrideProvider(InMemoryBroker)
      .useValue(broker)
      .compile();
    apps.push(module);
    module.useLogger(false);
    const app = await module.init();
    const rowmq = app.get(RowmqHealthIndicator);
    const health = await app.resolve(HealthCheckService);
    const check = async () => health.check([async () => rowmq.check()]);
    expect(await check()).toMatchObject({ status: 'ok', info: { rowmq: { status: 'up' } } });
    const consumer = app.get(ConsumersService).get('orders');
    consumer.pause();
    expect(await check()).toMatchObject({ status: 'ok', info: { rowmq: { status: 'up', paused: ['orders'] } } });
    broker.isAway = true;
    await expect(check()).rejects.toMatchObject({
      response: { status: 'error', error: { rowmq: { status: 'down', message: 'The broker is away.' } } },
    });
    broker.isAway = false;
    await consumer.stop();
    expect(await rowmq.check('queues')).toEqual({
      queues: { status: 'down', paused: ['orders'], stopped: ['orders'] },
    });
  });
});
