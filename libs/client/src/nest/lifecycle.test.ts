import 'reflect-metadata';
import {
  Global,
  Inject,
  Injectable,
  Module,
  type OnApplicationBootstrap,
  type OnModuleDestroy,
  type OnModuleInit,
} from '@nestjs/common';
import { Test, type TestingModule } from '@nestjs/testing';
import { RowmqError } from '@rowmq/contract';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BrokerUnreachableError } from '../http/broker-unreachable.error.js';
import type { Queue } from '../queue/queue.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import { RowmqTestingModule } from '../testing/rowmq-testing.module.js';
import { ConsumersService } from './consumers.service.js';
import { Consumer, InjectQueue, OnMessage } from './decorators.js';
import { RowmqModule } from './rowmq.module.js';
import { getClientToken } from './tokens.js';

const apps: TestingModule[] = [];
afterEach(async () => {
  await Promise.all(apps.splice(0).map((app) => app.close()));
});

async function compile(...imports: NonNullable<Parameters<typeof Test.createTestingModule>[0]['imports']>) {
  const app = await Test.createTestingModule({ imports }).compile();
  apps.push(app);
  app.useLogger(false);
  return app;
}

const turns = async (count = 20): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

describe('consumers', () => {
  const steps: string[] = [];
  let finish: () => void = () => undefined;
  beforeEach(() => void steps.splice(0));

  @Consumer('orders', { waitSeconds: 1 })
  class Mailer {
    @OnMessage()
    async mail(): Promise<void> {
      steps.push('handler begins');
      await new Promise<void>((resolve) => (finish = resolve));
      steps.push('handler ends');
    }
  }

  /** Opens slowly when the application starts, and closes when its modules are destroyed. */
  abstract class Resource implements OnApplicationBootstrap, OnModuleDestroy {
    constructor(readonly name: string) {}

    async onApplicationBootstrap(): Promise<void> {
      await turns();
      steps.push(`${this.name} is open`);
    }

    async onModuleDestroy(): Promise<void> {
      steps.push(`${this.name} closes`);
    }
  }
  @Injectable()
  class Near extends Resource {
    constructor() {
      super('near');
    }
  }
  @Injectable()
  class Far extends Resource {
    constructor() {
      super('far');
    }
  }
  @Injectable()
  class Everywhere extends Resource {
    constructor() {
      super('everywhere');
    }
  }

  it('start after every hook of the start, and stop before every hook of the stop, wherever these are', async () => {
    @Module({ providers: [Far] })
    class FarModule {}
    @Global()
    @Module({ providers: [Everywhere] })
    class GlobalModule {}
    @Module({ imports: [FarModule, RowmqModule.registerQueue({ name: 'orders' })], providers: [Mailer] })
    class MailModule {}
    @Module({ imports: [RowmqTestingModule.forRoot(), GlobalModule, MailModule], providers: [Near] })
    class AppModule implements OnApplicationBootstrap, OnModuleDestroy {
      async onApplicationBootstrap(): Promise<void> {
        await turns();
        steps.push('root is open');
      }
      onModuleDestroy(): void {
        steps.push('root closes');
      }
    }
    const app = await compile(AppModule);
    await app.get(InMemoryBroker).enqueue('orders', { messages: [{ body: '1' }] });
    await app.init();
    await vi.waitUntil(() => steps.includes('handler begins'));
    expect(steps.slice(0, -1).toSorted()).toEqual([
      'everywhere is open',
      'far is open',
      'near is open',
      'root is open',
    ]);
    expect(steps.at(-1)).toBe('handler begins');
    steps.splice(0);
    const closed = app.close();
    await turns();
    finish();
    await closed;
    expect(steps[0]).toBe('handler ends');
    expect(steps.slice(1).toSorted()).toEqual(['everywhere closes', 'far closes', 'near closes', 'root closes']);
  });

  it('can be had, paused and listened to before they start', async () => {
    @Injectable()
    class Ops implements OnModuleInit {
      constructor(@Inject(ConsumersService) readonly consumers: ConsumersService) {}
      onModuleInit(): void {
        this.consumers.get('orders').pause();
      }
    }
    @Module({
      imports: [RowmqTestingModule.forRoot(), RowmqModule.registerQueue({ name: 'orders' })],
      providers: [Mailer, Ops],
    })
    class AppModule {}
    const app = await compile(AppModule);
    await app.get(InMemoryBroker).enqueue('orders', { messages: [{ body: '1' }] });
    await app.init();
    await turns(50);
    expect(steps).toEqual([]);
    app.get(ConsumersService).get('orders').resume();
    await vi.waitUntil(() => steps.includes('handler begins'));
    finish();
  });
});

describe('a queue that is created at boot', () => {
  /** Enqueues in the first hook of the start. */
  @Injectable()
  class Seeder implements OnModuleInit {
    constructor(@InjectQueue('orders') readonly orders: Queue<number>) {}
    async onModuleInit(): Promise<void> {
      await this.orders.enqueue(1);
    }
  }

  it('exists with its settings when any onModuleInit runs, also that of a global module', async () => {
    const registration = RowmqModule.registerQueue({ name: 'orders', create: { messageTtlSeconds: 60 } });
    @Global()
    @Module({ imports: [registration], providers: [Seeder] })
    class EarlyModule {}
    const app = await compile(EarlyModule, RowmqTestingModule.forRoot());
    await app.init();
    const broker = app.get(InMemoryBroker);
    expect(broker.messages('orders')).toHaveLength(1);
    expect(await broker.getQueue('orders')).toMatchObject({ messageTtlSeconds: 60 });
  });

  it('may name a dead-letter queue that is registered later, in any order of modules', async () => {
    @Module({
      imports: [
        RowmqModule.registerQueue({ name: 'a', create: { deadLetterQueue: 'b', maxReceives: 3 } }),
        RowmqModule.registerQueue({ name: 'b', create: { deadLetterQueue: 'c', maxReceives: 3 } }),
      ],
    })
    class FirstModule {}
    const app = await compile(
      RowmqTestingModule.forRoot(),
      FirstModule,
      RowmqModule.registerQueue({ name: 'c', create: true }),
    );
    await app.init();
    expect(await app.get(InMemoryBroker).getQueue('a')).toMatchObject({ deadLetterQueue: 'b' });
  });

  it('is not checked later for one connection if the start fails at another', async () => {
    let askedTwice = (): void => undefined;
    const asked = new Promise<void>((resolve) => (askedTwice = resolve));
    let tries = 0;
    class Away extends InMemoryBroker {
      override async createQueue(): Promise<void> {
        tries += 1;
        if (tries === 2) askedTwice();
        throw new BrokerUnreachableError('away', 'http://nowhere', 'not-sent');
      }
    }
    class Missing extends InMemoryBroker {
      override async ack(queue: string): Promise<never> {
        await asked;
        throw new RowmqError('queue-not-found', `no queue '${queue}'`);
      }
    }
    const app = await Test.createTestingModule({
      imports: [
        RowmqTestingModule.forRoot(),
        RowmqTestingModule.forRoot({ name: 'away' }),
        RowmqModule.registerQueue({ name: 'orders' }, { name: 'orders', connection: 'away', create: true }),
      ],
    })
      .overrideProvider(InMemoryBroker)
      .useValue(new Missing())
      .overrideProvider(getClientToken('away'))
      .useValue(new Away())
      .compile();
    app.useLogger(false);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      await expect(app.init()).rejects.toThrow(/Queue 'orders' does not exist/);
      await turns();
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it('keeps what an operator has changed, unless update says otherwise', async () => {
    const boot = async (update: boolean | undefined) => {
      const registration = RowmqModule.registerQueue({ name: 'orders', create: { leaseSeconds: 60 }, update });
      const module = await Test.createTestingModule({
        imports: [RowmqTestingModule.forRoot(), registration],
      }).compile();
      apps.push(module);
      module.useLogger(false);
      const broker = module.get(InMemoryBroker);
      await broker.putQueue('orders', { leaseSeconds: 7, delaySeconds: 3 });
      await module.init();
      const { leaseSeconds, delaySeconds } = await broker.getQueue('orders');
      return { leaseSeconds, delaySeconds };
    };
    expect(await boot(undefined)).toEqual({ leaseSeconds: 7, delaySeconds: 3 });
    expect(await boot(false)).toEqual({ leaseSeconds: 7, delaySeconds: 3 });
    expect(await boot(true)).toEqual({ leaseSeconds: 60, delaySeconds: 3 });
  });
});
