import { MessageRepository, poolOf, type Queue, QueueRepository } from '@rowmq/store';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Commits } from '../../apps/broker/src/messages/commits.js';
import { Metrics } from '../../apps/broker/src/metrics/metrics.js';
import { openSession } from '../support/partitions.js';
import { bodies, createQueue, message, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * An enqueue to a queue with a maximum depth locks the queue's row, and waits for other holders of
 * it. No other request may wait because of that.
 */

const POOL = 8;
/** A quarter of the pool. */
const BATCHES = 2;

let store: TestStore;
/** The connections of the pool in use now, and their maximum. */
const used = { now: 0, most: 0 };

beforeAll(async () => {
  store = await openStore({ poolSize: POOL });
  const pool = poolOf(store.database.dataSource);
  pool.on('acquire', () => {
    used.now += 1;
    used.most = Math.max(used.most, used.now);
  });
  pool.on('release', () => (used.now -= 1));
});
afterAll(() => store.close());

/** A broker that has just started, so it does not know yet which queues are bounded. */
function newBroker(): { commits: Commits; enqueue: (queueName: string, body: string | Buffer) => Promise<Buffer[]> } {
  const config = { poolSize: POOL, batchRequests: 1000, maxWaitingRequests: 1000 };
  const queues = new QueueRepository(store.database);
  const commits = new Commits(new MessageRepository(store.database, undefined, queues), queues, new Metrics(), config);
  const enqueue = (queueName: string, body: string | Buffer): Promise<Buffer[]> =>
    commits.enqueue({ queueName, messages: [{ ...message({ body: Buffer.from(body) }), id: undefined }] });
  return { commits, enqueue };
}

/** Locks the rows of queues, as services do that enqueue in transactions of their own. */
async function hold(queues: readonly Queue[]): Promise<{ release(): Promise<void> }> {
  const session = await openSession(store);
  await session.write('START TRANSACTION');
  await session.read('SELECT 1 FROM queue FORCE INDEX (PRIMARY) WHERE id IN (?) FOR UPDATE', [
    queues.map(({ id }) => id),
  ]);
  return { release: () => session.write('COMMIT').then(() => session.end()) };
}

test('enqueues that wait for locked rows of bounded queues use their share of the pool, and other requests go on', async () => {
  const free = await createQueue(store);
  const held = await Promise.all(Array.from({ length: POOL }, () => createQueue(store, { maxDepth: 10 })));
  await store.messages.enqueue(free.name, [message()]);
  const leased = await store.messages.dequeue(free, { maxMessages: 1, leaseSeconds: 600 });
  const { commits, enqueue } = newBroker();
  const holder = await hold(held);
  used.most = used.now;
  const enqueues = held.map(({ name }) => enqueue(name, 'held up'));
  await eventually('as many wait as may', () => used.now === BATCHES);
  expect(await commits.ack({ queueId: free.id, receipts: leased })).toEqual([null]);
  expect(await enqueue(free.name, 'not held up')).toHaveLength(1);
  expect(bodies(await store.messages.dequeue(free, { maxMessages: 1, leaseSeconds: 600 }))).toEqual(['not held up']);
  // Besides them, one request at a time and a rescan use connections.
  expect(used.most).toBeLessThanOrEqual(BATCHES + 2);
  await holder.release();
  expect((await Promise.all(enqueues)).map((ids) => ids.length)).toEqual(held.map(() => 1));
  for (const { id } of held) expect(await store.browse.stats(id)).toMatchObject({ ready: 1 });
});

test('a bounded queue whose row is locked does not block another bounded queue', async () => {
  const [held, free] = [await createQueue(store, { maxDepth: 10 }), await createQueue(store, { maxDepth: 10 })];
  const { enqueue } = newBroker();
  for (const { name } of [held, free]) await enqueue(name, 'it is bounded');
  const holder = await hold([held]);
  let isStored = false;
  const heldUp = enqueue(held.name, 'held up').finally(() => (isStored = true));
  expect(await enqueue(free.name, 'not held up')).toHaveLength(1);
  expect(isStored).toBe(false);
  await holder.release();
  expect(await heldUp).toHaveLength(1);
});

test('an enqueue batch for many bounded queues uses one connection', async () => {
  const queues = await Promise.all(Array.from({ length: POOL }, () => createQueue(store, { maxDepth: 10 })));
  used.most = used.now;
  const requests = queues.map(({ name }) => ({ queueName: name, messages: [message()] }));
  expect(await store.messages.batches.enqueue(requests)).toEqual(queues.map(() => null));
  expect(used.most).toBe(1);
});

test('an enqueue succeeds after its queue gained or lost a maximum depth', async () => {
  const queue = await createQueue(store);
  const broker = newBroker();
  const enqueue = () => broker.enqueue(queue.name, 'x');
  expect(await enqueue()).toHaveLength(1);
  await store.queues.put(queue.name, { maxDepth: 2 });
  expect(await enqueue()).toHaveLength(1);
  await expect(enqueue()).rejects.toMatchObject({ code: 'queue-full' });
  await store.queues.put(queue.name, { maxDepth: null });
  expect(await enqueue()).toHaveLength(1);
  await store.queues.delete(queue.name);
  await expect(enqueue()).rejects.toMatchObject({ code: 'queue-not-found' });
});

test.each([null, 100])(
  'a request that the database cannot store fails alone, and the rest of its batch is stored (maximum depth: %s)',
  async (maxDepth) => {
    const queue = await createQueue(store, { maxDepth });
    const { enqueue } = newBroker();
    const sent = ['1', '2', Buffer.alloc(4097), '3', '4'].map((body) => enqueue(queue.name, body));
    const outcomes = await Promise.allSettled([...sent, enqueue('nowhere', 'lost')]);
    const refusals = outcomes.map((outcome) => (outcome.status === 'rejected' ? String(outcome.reason) : null));
    const [tooLong, unknown] = [
      expect.stringMatching(/too long/i),
      expect.stringContaining("'nowhere' does not exist"),
    ];
    expect(refusals).toEqual([null, null, tooLong, null, null, unknown]);
    const leased = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 600 });
    expect(bodies(leased).toSorted()).toEqual(['1', '2', '3', '4']);
  },
);
