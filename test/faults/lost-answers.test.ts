import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type CuttingProxy, startCuttingProxy } from '../support/cutting-proxy.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

/*
 * The connection is cut while a COMMIT is under way: before the server sees it, after it has carried it out, or while it is still on its way. The broker cannot tell which; the outcome must be the same.
 */

let direct: TestStore;
let store: TestStore;
let proxy: CuttingProxy;

beforeAll(async () => {
  direct = await openStore();
  proxy = await startCuttingProxy(direct.url);
  store = await openStore({ on: proxy.url });
});
afterAll(async () => {
  await store.close();
  await proxy.close();
  await direct.close();
});

describe.each(['before', 'late', 'after'] as const)('a connection cut around its COMMIT (%s)', (when) => {
  async function cutOnce<T>(work: () => Promise<T>): Promise<T> {
    const before = proxy.cuts();
    proxy.cutAt('COMMIT', when);
    const result = await work();
    expect(proxy.cuts()).toBe(before + 1);
    return result;
  }

  it('an enqueue is stored exactly once', async () => {
    const queue = await createQueue(direct);
    await cutOnce(() => store.messages.enqueue(queue.name, numbered(10)));
    expect(bodies(await direct.messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 60 }))).toEqual(
      Array.from({ length: 10 }, (_, index) => String(index)),
    );
  });

  it('an enqueue into the last places of a bounded queue is not refused for its own messages', async () => {
    const queue = await createQueue(direct, { maxDepth: 10 });
    await store.messages.enqueue(queue.name, [message()]);
    await cutOnce(() => store.messages.enqueue(queue.name, numbered(9)));
    expect(await direct.browse.stats(queue.id)).toMatchObject({ ready: 10 });
    await expect(store.messages.enqueue(queue.name, [message()])).rejects.toMatchObject({ code: 'queue-full' });
  });

  it('a dequeue strands nothing and counts one hand-out', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(10));
    const leased = await cutOnce(() => store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 600 }));
    expect(leased.map(({ receiveCount }) => receiveCount)).toEqual(Array.from({ length: 10 }, () => 1));
    expect(new Set(bodies(leased)).size).toBe(10);
    expect(await direct.messages.ack(queue.id, leased)).toEqual(Array.from({ length: 10 }, () => null));
  });

  it('an ack is answered as done', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(3));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
    const never = { ...(leased[0] as (typeof leased)[0]), messageId: message().id };
    expect(await cutOnce(() => store.messages.ack(queue.id, [...leased, never]))).toEqual([
      null,
      null,
      null,
      'delivery-not-found',
    ]);
    expect(await direct.sweep.lastId(queue.id)).toBeNull();
  });

  it('a nack is answered as done, and done once', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(3));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
    expect(await cutOnce(() => store.messages.nack(queue.id, leased, { delaySeconds: 0 }))).toEqual([null, null, null]);
    expect(await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 })).toMatchObject([
      { receiveCount: 2 },
      { receiveCount: 2 },
      { receiveCount: 2 },
    ]);
  });

  it('an extend is answered as done', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(1));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 600 });
    const { outcomes } = await cutOnce(() => store.messages.extend(queue.id, leased, { leaseSeconds: 900 }));
    expect(outcomes).toEqual([null]);
    expect(await direct.messages.ack(queue.id, leased)).toEqual([null]);
  });

  it('a queue is created once', async () => {
    const { queue } = await cutOnce(() => store.queues.put(`cut-${when}`, { leaseSeconds: 77 }));
    expect(queue.leaseSeconds).toBe(77);
    expect((await direct.queues.list()).filter(({ name }) => name === `cut-${when}`)).toHaveLength(1);
  });
});

it('a connection cut in the middle of a transaction leaves nothing half-done', async () => {
  const queue = await createQueue(direct);
  proxy.cutAt('INSERT INTO delivery', 'after');
  await store.messages.enqueue(queue.name, numbered(5));
  expect(await direct.browse.stats(queue.id)).toMatchObject({ ready: 5 });
});
