import { afterAll, beforeAll, expect, it } from 'vitest';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';
import { isLong } from './length.js';

const ROUNDS = isLong ? 50 : 4;

let store: TestStore;

beforeAll(async () => {
  store = await openStore({ poolSize: 40 });
});
afterAll(() => store.close());

it('a claim of an empty queue does not hide the messages of its neighbours in the index', async () => {
  const queues = [];
  for (let index = 0; index < 32; index += 1) queues.push(await createQueue(store));
  const [polled, filled] = [queues.filter(({ id }) => id % 2 === 0), queues.filter(({ id }) => id % 2 === 1)];
  let going = true;
  const polling = polled.map(async (queue) => {
    while (going) expect(await store.messages.dequeue(queue, { maxMessages: 5, leaseSeconds: 60 })).toEqual([]);
  });
  let empty = 0;
  let found = 0;
  try {
    await Promise.all(
      filled.map(async (queue) => {
        for (let round = 0; round < ROUNDS; round += 1) {
          await store.messages.enqueue(queue.name, [message()]);
          const leased = await store.messages.dequeue(queue, { maxMessages: 5, leaseSeconds: 60 });
          if (leased.length === 0) empty += 1;
          else found += 1;
          await store.messages.ack(queue.id, leased);
        }
      }),
    );
  } finally {
    going = false;
    await Promise.all(polling);
  }
  expect({ empty, found }).toEqual({ empty: 0, found: filled.length * ROUNDS });
}, 300_000);
