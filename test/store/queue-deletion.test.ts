import { afterAll, beforeAll, expect, test } from 'vitest';
import { createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

let store: TestStore;
let other: TestStore;

beforeAll(async () => {
  store = await openStore();
  other = await openStore({ on: store.url });
});
afterAll(async () => {
  await other.close();
  await store.close();
});

const deleteEmpty = (name: string): Promise<number> => store.queues.delete(name, { onlyEmpty: true });

test('a queue with messages is kept, whatever their state, and the refusal says how many', async () => {
  const queue = await createQueue(store);
  await store.messages.enqueue(queue.name, [message(), message({ delaySeconds: 600 })]);
  await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 60 });
  await expect(deleteEmpty(queue.name)).rejects.toMatchObject({
    code: 'queue-not-empty',
    message: expect.stringContaining('has 2 messages'),
  });
  await store.messages.enqueue(queue.name, numbered(1200, { priority: 1 }).slice(0, 100));
  expect(await store.queues.getFresh(queue.name)).toMatchObject({ id: queue.id });
  expect(await store.queues.delete(queue.name)).toBe(queue.id);
});

test('a queue is empty if its messages have expired', async () => {
  const queue = await createQueue(store, { messageTtlSeconds: 1 });
  await store.at(Date.now() - 10_000).messages.enqueue(queue.name, numbered(3));
  store.at(undefined);
  expect(await deleteEmpty(queue.name)).toBe(queue.id);
});

test('either an enqueue or a deletion at the same time is refused', async () => {
  let [stored, deleted] = [0, 0];
  for (let round = 0; round < 40; round += 1) {
    const queue = await createQueue(store);
    await other.queues.get(queue.name);
    const [enqueue, deletion] = await Promise.allSettled([
      other.messages.enqueue(queue.name, [message()]),
      deleteEmpty(queue.name),
    ]);
    expect([enqueue.status, deletion.status].toSorted()).toEqual(['fulfilled', 'rejected']);
    if (enqueue.status === 'rejected') expect(enqueue.reason).toMatchObject({ code: 'queue-not-found' });
    if (deletion.status === 'rejected') expect(deletion.reason).toMatchObject({ code: 'queue-not-empty' });
    if (enqueue.status === 'fulfilled') stored += 1;
    else deleted += 1;
  }
  expect(stored + deleted).toBe(40);
});

test('after a pause of producers, no broker stores a message, and a repeat gets its first answer', async () => {
  const queue = await createQueue(store);
  const request = { queueName: queue.name, messages: numbered(2), idempotencyKey: 'before the pause' };
  const [first] = await other.messages.batches.enqueue([request]);
  await store.queues.setPaused(queue.name, { producersPaused: true });
  // The other broker has the settings of before in its cache.
  await expect(other.messages.enqueue(queue.name, [message()])).rejects.toMatchObject({
    code: 'queue-paused',
    retryAfterSeconds: 5,
  });
  const [again] = await other.messages.batches.enqueue([request]);
  expect((again as { id: Buffer }[]).map(({ id }) => id)).toEqual((first as { id: Buffer }[]).map(({ id }) => id));
  expect(await other.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 })).toHaveLength(2);
  await other.queues.setPaused(queue.name, { producersPaused: false });
  expect(await other.messages.enqueue(queue.name, [message()])).toHaveLength(1);
});
