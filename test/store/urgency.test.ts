import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

/** docs/protocol.md promises it. */
const BOUND_MS = 250;

let store: TestStore;
let elsewhere: TestStore;

beforeEach(async () => {
  store = await openStore();
  elsewhere = await openStore({ on: store.url });
});
afterEach(async () => {
  await elsewhere.close();
  await store.close();
});

it('an urgent message of another broker is not overtaken once it has been ready for 250 ms, in a deep queue and without hints', async () => {
  const queue = await createQueue(store);
  const demand = { maxMessages: 1, leaseSeconds: 60 };
  await store.messages.enqueue(queue.name, numbered(100, { priority: 2 }));
  for (const priority of [9, 5, 3]) {
    // The claims of this broker see only low priorities.
    for (let claims = 0; claims < 10; claims += 1) await store.messages.dequeue(queue, demand);
    await elsewhere.messages.enqueue(queue.name, [message({ priority, body: Buffer.from('urgent') })]);
    await sleep(BOUND_MS);
    expect(bodies(await store.messages.dequeue(queue, demand))).toEqual(['urgent']);
  }
});
