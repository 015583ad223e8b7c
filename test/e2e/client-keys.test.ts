import 'reflect-metadata';
import { type DynamicModule, Module, type Provider } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import {
  Consumer,
  getQueueToken,
  getTopicToken,
  OnMessage,
  type Queue,
  RowmqHealthIndicator,
  RowmqModule,
  type Topic,
} from '@rowmq/client';
import type { CreateKeyRequest } from '@rowmq/contract';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Api, useOwnBroker } from '../support/api.js';
import { apiWith, newKey } from '../support/keys.js';
import { eventually } from '../support/wait.js';

/* Services with API keys that have only the rights that they need. */

const ADMIN_KEY = 'the-key-of-the-settings';
const shared = useOwnBroker({ ROWMQ_ADMIN_KEY: ADMIN_KEY });
let admin: Api;
const opened: (() => Promise<unknown>)[] = [];
beforeAll(async () => {
  admin = apiWith(shared.broker.url, ADMIN_KEY);
  for (const queue of ['orders', 'mails', 'audit']) await admin.put(`/v1/admin/queues/${queue}`);
  for (const topic of ['events', 'unheard']) await admin.put(`/v1/admin/topics/${topic}`);
  await admin.put('/v1/admin/topics/events/subscriptions/audit');
});
afterEach(async () => {
  for (const close of opened.splice(0).toReversed()) await close();
});

const handled: unknown[] = [];
@Consumer('orders')
class Clerk {
  @OnMessage()
  take(payload: unknown): void {
    handled.push(payload);
  }
}

/** Starts a service that has a fresh key. */
async function start(key: Omit<CreateKeyRequest, 'name'>, registrations: DynamicModule[], providers: Provider[] = []) {
  const { secret } = await newKey(admin, key);
  @Module({
    imports: [RowmqModule.forRoot({ url: shared.broker.url, apiKey: secret }), ...registrations],
    providers,
  })
  class ServiceModule {}
  const app = await Test.createTestingModule({ imports: [ServiceModule] }).compile();
  opened.push(() => app.close());
  app.useLogger(false);
  return app.init();
}

const orders = () => RowmqModule.registerQueue({ name: 'orders' });
const topics = (...names: string[]) => names.map((name) => RowmqModule.registerTopic({ name }));
/** The number of messages that a queue owes. */
const owed = async (queue: string) => {
  const { ready, delayed, leased } = (await admin.queue(queue).get()).stats;
  return ready + delayed + leased;
};

describe('a service', () => {
  test('that may only enqueue starts, and the check of its queue stores nothing', async () => {
    const app = await start({ scopes: ['enqueue'], patterns: ['orders'] }, [orders()]);
    expect(await owed('orders')).toBe(0);
    expect(await app.get(RowmqHealthIndicator).check()).toEqual({ rowmq: { status: 'up' } });
    await app.get<Queue>(getQueueToken('orders')).enqueue({ article: 'tea' });
    expect(await owed('orders')).toBe(1);
  });

  test('that may only dequeue starts, and its consumer handles messages', async () => {
    await admin.queue('orders').enqueue('{"article":"coffee"}');
    await start({ scopes: ['dequeue'] }, [orders()], [Clerk]);
    await eventually('the message', () => JSON.stringify(handled).includes('coffee'));
  });

  test('that may only dequeue starts without a consumer, because it may dequeue by hand', async () => {
    await expect(start({ scopes: ['dequeue'] }, [orders()])).resolves.toBeDefined();
  });

  test('that may only enqueue starts with a queue that takes no messages now', async () => {
    const boot = () => start({ scopes: ['enqueue'] }, [RowmqModule.registerQueue({ name: 'mails' })]);
    await admin.put('/v1/admin/queues/mails', { maxDepth: 1 });
    await admin.queue('mails').enqueue('full');
    await expect(boot()).resolves.toBeDefined();
    await admin.post('/v1/admin/queues/mails/pause', { side: 'producers' });
    await expect(boot()).resolves.toBeDefined();
    expect(await owed('mails')).toBe(1);
  });

  test('that may only enqueue starts with its topics, and the check of them stores nothing', async () => {
    const app = await start({ scopes: ['enqueue'] }, topics('events', 'unheard'));
    expect(await owed('audit')).toBe(0);
    await app.get<Topic>(getTopicToken('events')).publish({ paid: true });
    expect(await owed('audit')).toBe(1);
  });

  test('does not start if its key may not use its queue as it does', async () => {
    await expect(start({ scopes: ['enqueue'] }, [orders()], [Clerk])).rejects.toThrow(
      /Queue 'orders' cannot be used: .* lacks the scope dequeue/,
    );
    await expect(start({ scopes: ['read'] }, [orders()])).rejects.toThrow(/lacks the scope enqueue/);
    await expect(start({ scopes: ['enqueue'], patterns: ['mails'] }, [orders()])).rejects.toThrow(
      /does not reach the queue or topic 'orders'/,
    );
    await expect(start({ scopes: ['dequeue'] }, topics('events'))).rejects.toThrow(
      /Topic 'events' cannot be used: .* lacks the scope enqueue/,
    );
  });

  test('does not start without its queue or its topic, whatever its key may do', async () => {
    for (const scope of ['enqueue', 'dequeue'] as const)
      await expect(start({ scopes: [scope] }, [RowmqModule.registerQueue({ name: 'missing' })])).rejects.toThrow(
        /Queue 'missing' does not exist: create it with PUT/,
      );
    for (const scope of ['enqueue', 'read'] as const)
      await expect(start({ scopes: [scope] }, topics('missing'))).rejects.toThrow(
        /Topic 'missing' does not exist: create it with PUT/,
      );
    await expect(start({ scopes: ['enqueue'] }, [RowmqModule.registerQueue({ name: 'no name' })])).rejects.toThrow(
      /Queue 'no name' cannot be used/,
    );
  });
});
