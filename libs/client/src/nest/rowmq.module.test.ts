import 'reflect-metadata';
import { Inject, Injectable, Module, Scope, type Type } from '@nestjs/common';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { Test, type TestingModule } from '@nestjs/testing';
import type { AckRequest, DequeueRequest } from '@rowmq/contract';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import type { CallOptions } from '../broker-client.js';
import { Queue } from '../queue/queue.js';
import { RowmqHttpClient } from '../http/rowmq-http-client.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { RowmqTestingModule } from '../testing/rowmq-testing.module.js';
import { ConsumersService } from './consumers.service.js';
import { Consumer, InjectQueue, OnBatch, OnMessage } from './decorators.js';
import { RowmqModule } from './rowmq.module.js';

const apps: TestingModule[] = [];
afterEach(async () => {
  await Promise.all(apps.splice(0).map((app) => app.close()));
});

const order = z.object({ article: z.string() });
type Order = z.output<typeof order>;

@Injectable()
class Shop {
  constructor(@InjectQueue('orders') readonly orders: Queue<Order>) {}
}

async function start(
  providers: Type[],
  ...queues: Parameters<typeof RowmqModule.registerQueue>
): Promise<TestingModule> {
  @Module({ imports: [RowmqModule.registerQueue(...queues)], providers })
  class ServiceModule {}
  const app = await Test.createTestingModule({ imports: [RowmqTestingModule.forRoot(), ServiceModule] }).compile();
  apps.push(app);
  app.useLogger(false);
  return app.init();
}

/** Answers whether there is such a queue only when it is let go. */
class HeldBroker extends InMemoryBroker {
  dequeues = 0;
  isAsked = false;
  letGo: () => void = () => undefined;
  private readonly held = new Promise<void>((resolve) => (this.letGo = resolve));

  override async ack(queue: string, request: AckRequest) {
    this.isAsked = true;
    await this.held;
    return super.ack(queue, request);
  }

  override async dequeue(queue: string, request?: DequeueRequest, options?: CallOptions) {
    this.dequeues += 1;
    return super.dequeue(queue, request, options);
  }
}

describe('an application', () => {
  it('enqueues to an injected queue, and its consumer handles the messages', async () => {
    const handled: unknown[] = [];
    @Consumer('orders', { concurrency: 2, waitSeconds: 1 })
    class Mailer {
      @OnMessage()
      mail(payload: Order, { id }: { id: string }): void {
        handled.push([payload, id]);
      }
    }
    const app = await start([Shop, Mailer], { name: 'orders', schema: order });
    const id = await app.get(Shop).orders.enqueue({ article: 'tea' });
    await app.get(InMemoryBroker).drained('orders');
    expect(handled).toEqual([[{ article: 'tea' }, id]]);
    await expect(app.get(Shop).orders.enqueue({ article: 7 } as never)).rejects.toThrow(/schema of queue 'orders'/);
    expect(app.get(ConsumersService).get('orders').settings.concurrency).toBe(2);
  });

  it('stops its consumers before it is closed', async () => {
    const steps: string[] = [];
    let finish = (): void => undefined;
    @Consumer('orders')
    class Slow {
      @OnBatch()
      async work(): Promise<void> {
        await new Promise<void>((resolve) => (finish = resolve));
        steps.push('finished');
      }
    }
    const app = await start([Shop, Slow], { name: 'orders' });
    await app.get(Shop).orders.enqueue({ article: 'tea' });
    const consumer = app.get(ConsumersService).get('orders');
    await vi.waitUntil(() => consumer.inHand === 1);
    const stop = vi.spyOn(consumer, 'stop');
    const closed = app.close().then(() => steps.push('closed'));
    await vi.waitUntil(() => stop.mock.calls.length > 0);
    finish();
    await closed;
    expect(steps).toEqual(['finished', 'closed']);
    expect(app.get(InMemoryBroker).messages('orders')).toEqual([]);
  });

  it('starts no consumers if it is closed while its queues are checked', async () => {
    @Consumer('orders')
    class Mailer {
      @OnMessage()
      mail(): void {}
    }
    @Module({ imports: [RowmqModule.registerQueue({ name: 'orders' })], providers: [Mailer] })
    class ServiceModule {}
    const broker = new HeldBroker();
    const module = await Test.createTestingModule({ imports: [RowmqTestingModule.forRoot(), ServiceModule] })
      .overrideProvider(InMemoryBroker)
      .useValue(broker)
      .compile();
    const app = module.createNestApplication(new FastifyAdapter(), { logger: false });
    const started = app.init();
    await vi.waitUntil(() => broker.isAsked);
    await app.close();
    broker.letGo();
    // Nest cannot finish the start of an application that is closed.
    await started.catch(() => undefined);
    expect(app.get(ConsumersService).get('orders').isStarted).toBe(false);
    expect(() => app.get(ConsumersService).get('others')).toThrow(/no consumer of queue 'others'/);
    expect(broker.dequeues).toBe(0);
  });

  it('looks a handler up at each call, so that tests can spy on it', async () => {
    @Consumer('orders')
    class Mailer {
      @OnMessage()
      mail(): void {
        throw new Error('not this one');
      }
    }
    const app = await start([Shop, Mailer], { name: 'orders' });
    const spy = vi.spyOn(app.get(Mailer), 'mail').mockImplementation(() => undefined);
    await app.get(Shop).orders.enqueue({ article: 'tea' });
    await app.get(InMemoryBroker).drained('orders');
    expect(spy).toHaveBeenCalledOnce();
  });

  it('gets its client from forRoot or forRootAsync, and closes it last', async () => {
    @Injectable()
    class Service {
      constructor(@Inject(RowmqHttpClient) readonly client: RowmqHttpClient) {}
    }
    for (const root of [
      RowmqModule.forRoot({ url: 'http://127.0.0.1:1', retries: 0 }),
      RowmqModule.forRootAsync({ useFactory: () => ({ url: ['http://127.0.0.1:1'], retries: 0 }) }),
    ]) {
      const app = await Test.createTestingModule({ imports: [root], providers: [Service] }).compile();
      await app.init();
      const { client } = app.get(Service);
      expect(client.url).toBe('http://127.0.0.1:1');
      await app.close();
      await expect(client.dequeue('orders')).rejects.toThrow(/closed/);
    }
  });
});

describe('an application does not start', () => {
  @Consumer('orders')
  class One {
    @OnMessage()
    handle(): void {}
  }

  it('with two consumers of one queue', async () => {
    @Consumer('orders')
    class Two {
      @OnMessage()
      handle(): void {}
    }
    await expect(start([One, Two], { name: 'orders' })).rejects.toThrow(
      /One and Two both consume queue 'orders'.*Keep one consumer/,
    );
  });

  it('with a consumer that has no handler, or several', async () => {
    @Consumer('orders')
    class None {}
    await expect(start([None], { name: 'orders' })).rejects.toThrow(/None has @Consumer but no handler.*@OnMessage/);
    @Consumer('orders')
    class Several {
      @OnMessage()
      one(): void {}
      @OnBatch()
      other(): void {}
    }
    await expect(start([Several], { name: 'orders' })).rejects.toThrow(/Several has several handlers \(one, other\)/);
  });

  it('with a consumer of a queue that no module registers', async () => {
    await expect(start([One], { name: 'other' })).rejects.toThrow(
      /One consumes queue 'orders'.*registerQueue\({ name: 'orders' }\)/,
    );
  });

  it('with a request-scoped consumer', async () => {
    @Injectable({ scope: Scope.REQUEST })
    class OfRequest {}
    @Consumer('orders')
    class Scoped {
      constructor(@Inject(OfRequest) readonly request: OfRequest) {}
      @OnMessage()
      handle(): void {}
    }
    await expect(start([OfRequest, Scoped], { name: 'orders' })).rejects.toThrow(
      /Scoped consumes queue 'orders' but it, or a dependency of it, is request-scoped/,
    );
  });

  it('with invalid options', async () => {
    @Consumer('orders', { concurrency: -1 })
    class Wrong {
      @OnMessage()
      handle(): void {}
    }
    await expect(start([Wrong], { name: 'orders' })).rejects.toThrow(
      /consumer of queue 'orders' has invalid options: concurrency/,
    );
  });

  it('with one queue registered in two ways', async () => {
    @Module({ imports: [RowmqModule.registerQueue({ name: 'orders', format: 'bytes' })] })
    class OtherModule {}
    @Module({
      imports: [
        RowmqTestingModule.forRoot(),
        RowmqModule.registerQueue({ name: 'orders', format: 'json' }),
        OtherModule,
      ],
    })
    class AppModule {}
    const app = await Test.createTestingModule({ imports: [AppModule] }).compile();
    app.useLogger(false);
    await expect(app.init()).rejects.toThrow(/registered with different schemas or formats/);
  });
});
