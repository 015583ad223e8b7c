import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commits, type CuttingProxy, startCuttingProxy } from '../support/cutting-proxy.js';
import { bodies, createQueue, numbered, openStore, type TestStore } from '../support/store.js';

/*
 * An enqueue uses cached settings of its queue. If the queue has changed since, its statements
 * store nothing. The broker then reads the settings again, also if a connection breaks meanwhile.
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
  it('an enqueue in a queue that another broker has changed is stored once, by the new settings', async () => {
    const queue = await createQueue(direct);
    await store.queues.get(queue.name);
    await direct.queues.put(queue.name, { delaySeconds: 100 });
    const before = proxy.cuts();
    proxy.cutAt(commits, when);
    const ids = await store.messages.enqueue(queue.name, numbered(3));
    expect(proxy.cuts()).toBe(before + 1);
    expect(await direct.browse.stats(queue.id)).toMatchObject({ ready: 0, delayed: 3 });
    await direct.queues.put(queue.name, { delaySeconds: 0 });
    await store.messages.enqueue(queue.name, numbered(1));
    expect(bodies(await direct.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 }))).toEqual(['0']);
    expect(ids).toHaveLength(3);
  });
});
