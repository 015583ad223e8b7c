import type { LeasedMessage, Queue } from '@rowmq/store';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { recordStatements } from '../support/statements.js';
import { bodies, createQueue, message, openStore, type TestStore } from '../support/store.js';

/* Queues without ordering: a group that floods the queue does not make the others wait. */

const T0 = 1_800_000_000_000;
const DEQUEUE = { maxMessages: 10, leaseSeconds: 600 };

let store: TestStore;
let elsewhere: TestStore;

beforeAll(async () => {
  store = await openStore();
  elsewhere = await openStore({ on: store.url });
});
afterAll(async () => {
  await elsewhere.close();
  await store.close();
});

/** The number of dequeues until one has this body. */
async function dequeuesUntil(body: string, queue: Queue, on: TestStore): Promise<number> {
  for (let dequeues = 1; dequeues <= 100; dequeues += 1)
    if (bodies(await on.messages.dequeue(queue, DEQUEUE)).includes(body)) return dequeues;
  return Infinity;
}

const one = (body: string, groupId = body) => [message({ body: Buffer.from(body), groupId })];

it('behind 100,000 messages of one group, the message of another one is among the next four dequeues', async () => {
  const queue = await createQueue(store);
  const flood = Array.from({ length: 1000 }, () => message({ groupId: 'flood' }));
  for (let second = 0; second < 100; second += 1)
    await store.at(T0 + second * 1000).messages.enqueue(queue.name, flood);
  const now = T0 + 200_000;
  expect((await store.at(now).browse.stats(queue.id)).ready).toBe(100_000);
  await store.messages.enqueue(queue.name, one('first'));
  expect(await dequeuesUntil('first', queue, store)).toBeLessThanOrEqual(4);
  // The line has moved on. The other broker has never read it.
  await elsewhere.at(now).messages.enqueue(queue.name, one('second'));
  expect(await dequeuesUntil('second', queue, elsewhere)).toBeLessThanOrEqual(4);
  // The flood goes on, and gets no further turn.
  await store.messages.enqueue(queue.name, [...flood, ...one('third')]);
  expect(await dequeuesUntil('third', queue, store)).toBeLessThanOrEqual(4);
  const leased = await store.messages.dequeue(queue, DEQUEUE);
  expect(leased.map(({ groupId }: LeasedMessage) => groupId)).toEqual(Array<string>(10).fill('flood'));
  // Within a priority only: urgent messages come first.
  const urgent = [message({ body: Buffer.from('urgent'), priority: 9, groupId: 'flood' })];
  await store.messages.enqueue(queue.name, [...one('fourth'), ...urgent]);
  expect(bodies(await store.messages.dequeue(queue, { ...DEQUEUE, maxMessages: 2 }))).toEqual(['urgent', 'fourth']);
});

it('a message without a group costs no further statement beside those that have one', async () => {
  const queue = await createQueue(store);
  const statements = recordStatements(store.database);
  const sentFor = async (groupId: string | undefined): Promise<string[]> => {
    statements.length = 0;
    await store.messages.batches.enqueue([{ queueName: queue.name, messages: [message({ groupId })] }]);
    // A connection may be checked, now and then.
    const sent = statements.filter((sql) => !sql.includes('@@GLOBAL'));
    return sent.map((sql) => sql.trim().slice(0, 40));
  };
  await sentFor(undefined);
  const plain = await sentFor(undefined);
  const grouped = await sentFor('a');
  expect(grouped.slice(-plain.length)).toEqual(plain);
  expect(grouped.slice(0, -plain.length)).toEqual([
    expect.stringContaining('UNIX_TIMESTAMP'),
    expect.stringContaining('SELECT d.priority_rank'),
  ]);
});
