import { RowmqError } from '@rowmq/contract';
import {
  type Database,
  type EnqueuedMessage,
  type EnqueueOutcome,
  type EnqueueRequest,
  MessageRepository,
  poolOf,
} from '@rowmq/store';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Batcher } from '../../apps/broker/src/messages/batcher.js';
import { enqueue as enqueueIn } from '../../libs/typeorm/src/index.js';
import { bodies, createQueue, message, NO_PRIORITY, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * An enqueue to a queue with a maximum depth reads the depth without locks, and locks the queue's
 * row as every enqueue does: shared. So enqueues never wait for each other.
 */

const POOL = 8;

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

/** The enqueues of a broker that has just started, in batches. */
function newBatcher(): Batcher<EnqueueRequest, EnqueuedMessage[]> {
  const messages = new MessageRepository(store.database);
  return new Batcher<EnqueueRequest, EnqueuedMessage[]>({
    commit: (requests) => messages.enqueue(requests),
    weigh: (request) => ({ rows: request.messages.length, bytes: 0 }),
    limits: { requests: 100, rows: 1000, bytes: 1e6, batches: 2, waitingRequests: 1000, waitingBytes: 1e6 },
  });
}

test('a repeat is answered, however full the queue is', async () => {
  const queue = await createQueue(store);
  const newBroker = (): MessageRepository => new MessageRepository(store.database);
  const request = { queueName: queue.name, messages: numbered(5), idempotencyKey: 'once' };
  const first = await newBroker().enqueue([request]);
  await store.queues.put(queue.name, { maxDepth: 2 });
  expect(await newBroker().enqueue([request])).toEqual(first);
  const [more] = await newBroker().enqueue([{ queueName: queue.name, messages: numbered(1) }]);
  expect(more).toMatchObject({ code: 'queue-full' });
});

test('a count that stopped at the maximum depth is not reused once the maximum is higher', async () => {
  const queue = await createQueue(store);
  // Deliveries of their own, by another broker.
  for (let index = 0; index < 30; index += 1)
    await new MessageRepository(store.database).enqueue([{ queueName: queue.name, messages: numbered(1) }]);
  const put = (maxDepth: number) => store.queues.put(queue.name, { maxDepth });
  await put(10);
  await expect(store.messages.enqueue(queue.name, numbered(1))).rejects.toMatchObject({ code: 'queue-full' });
  await put(32);
  await expect(store.messages.enqueue(queue.name, numbered(3))).rejects.toMatchObject({ code: 'queue-full' });
  await store.messages.enqueue(queue.name, numbered(2));
  expect(await store.browse.stats(queue.id)).toMatchObject({ ready: 32 });
});

test('an enqueue in an open transaction of a service holds up no other enqueue to the same bounded queue', async () => {
  const queue = await createQueue(store, { maxDepth: 4 });
  const shop = await new DataSource({ type: 'mysql', url: store.url }).initialize();
  const other = await openStore({ on: store.url });
  try {
    await shop.transaction(async (manager) => {
      await enqueueIn(manager, queue.name, [{ body: 'of the open transaction' }]);
      await store.messages.enqueue(queue.name, [message({ body: Buffer.from('of a broker') })]);
      await shop.transaction((second) => enqueueIn(second, queue.name, [{ body: 'of another service' }]));
    });
    expect(await store.browse.stats(queue.id)).toMatchObject({ ready: 3 });
    // A broker that has not counted yet.
    await expect(other.messages.enqueue(queue.name, numbered(2))).rejects.toMatchObject({ code: 'queue-full' });
    await other.messages.enqueue(queue.name, numbered(1));
  } finally {
    await other.close();
    await shop.destroy();
  }
});

test('an enqueue batch for many bounded queues uses one connection', async () => {
  const queues = await Promise.all(Array.from({ length: POOL }, () => createQueue(store, { maxDepth: 10 })));
  used.most = used.now;
  const requests = queues.map(({ name }) => ({ queueName: name, messages: [message()] }));
  const outcomes = await store.messages.batches.enqueue(requests);
  expect(outcomes).toEqual(queues.map(() => [expect.objectContaining({ duplicate: false })]));
  expect(used.most).toBe(1);
});

test('a broker that refuses requests of a batch counts each full queue once', async () => {
  const full = await createQueue(store, { maxDepth: 1 });
  await store.messages.enqueue(full.name, [message()]);
  const other = await openStore({ on: store.url });
  let counts = 0;
  const read = other.database.read.bind(other.database);
  other.database.read = async <T>(sql: string, values?: readonly unknown[]) => {
    if (sql.includes('BIT_COUNT')) counts += 1;
    return read<T>(sql, values);
  };
  const requests = Array.from({ length: 50 }, () => ({ queueName: full.name, messages: [message()] }));
  const outcomes = await other.messages.batches.enqueue(requests);
  await other.close();
  expect(outcomes).toEqual(requests.map(() => expect.objectContaining({ code: 'queue-full' })));
  expect(counts).toBe(1);
});

describe('the enqueues of one broker to a bounded queue', () => {
  /**
   * A broker whose counts of a queue stay without an answer until `answer` is called, from the
   * `nth` on. `isHeld` tells that the database has made such a count.
   */
  function withHeldCounts(nth: number): { messages: MessageRepository; isHeld: () => boolean; answer: () => void } {
    let counts = 0;
    let answer = (): void => undefined;
    const answered = new Promise<void>((resolve) => (answer = resolve));
    const database = Object.create(store.database) as Database;
    database.read = async <T>(sql: string, values?: readonly unknown[]) => {
      const rows = await store.database.read<T>(sql, values);
      if (sql.includes('BIT_COUNT')) {
        counts += 1;
        if (counts >= nth) await answered;
      }
      return rows;
    };
    return { messages: new MessageRepository(database), isHeld: () => counts >= nth, answer };
  }

  const sizeOrCode = ([outcome]: readonly EnqueueOutcome[]): unknown =>
    outcome instanceof RowmqError ? outcome.code : (outcome as EnqueuedMessage[]).length;

  test('do not exceed it together when they count at the same time', async () => {
    const queue = await createQueue(store, { maxDepth: 5 });
    const { messages, isHeld, answer } = withHeldCounts(1);
    const enqueue = async () => sizeOrCode(await messages.enqueue([{ queueName: queue.name, messages: numbered(3) }]));
    const both = [enqueue(), enqueue()];
    await eventually('the database has counted', isHeld);
    answer();
    expect(new Set(await Promise.all(both))).toEqual(new Set([3, 'queue-full']));
    expect(await store.browse.stats(queue.id)).toMatchObject({ ready: 3 });
  });

  test('count what another of them stored while the database counted', async () => {
    const queue = await createQueue(store, { maxDepth: 5 });
    const { messages, isHeld, answer } = withHeldCounts(2);
    const enqueue = async (count: number) =>
      sizeOrCode(await messages.enqueue([{ queueName: queue.name, messages: numbered(count) }]));
    expect(await enqueue(1)).toBe(1);
    // Too many by the first count, so the broker counts again.
    const refused = enqueue(5);
    await eventually('the database has counted again', isHeld);
    expect(await enqueue(2)).toBe(2);
    answer();
    expect(await refused).toBe('queue-full');
    expect(await enqueue(3)).toBe('queue-full');
    expect(await enqueue(2)).toBe(2);
    expect(await store.browse.stats(queue.id)).toMatchObject({ ready: 5 });
  });
});

test('an enqueue notices at once that another broker gave its queue a maximum depth, or took it away', async () => {
  const queue = await createQueue(store);
  const other = await openStore({ on: store.url });
  const enqueue = () => other.messages.enqueue(queue.name, [message()]);
  try {
    expect(await enqueue()).toHaveLength(1);
    await store.queues.put(queue.name, { maxDepth: 2 });
    expect(await enqueue()).toHaveLength(1);
    await expect(enqueue()).rejects.toMatchObject({ code: 'queue-full' });
    // A refusal rests on settings that are at most a second old.
    await store.queues.put(queue.name, { maxDepth: null });
    await expect.poll(() => enqueue().catch(() => [])).toHaveLength(1);
    await store.queues.delete(queue.name);
    await expect(enqueue()).rejects.toMatchObject({ code: 'queue-not-found' });
  } finally {
    await other.close();
  }
});

test.each([null, 100])(
  'a request that the database cannot store fails alone, and the rest of its batch is stored (maximum depth: %s)',
  async (maxDepth) => {
    const queue = await createQueue(store, { maxDepth });
    const batcher = newBatcher();
    const enqueue = (queueName: string, body: string, priority?: number): Promise<EnqueuedMessage[]> =>
      batcher.submit(queueName, {
        queueName,
        messages: [message({ body: Buffer.from(body), ...(priority !== undefined && { priority }) })],
      });
    const sent = ['1', '2', 'refused', '3', '4'].map((body) =>
      enqueue(queue.name, body, body === 'refused' ? NO_PRIORITY : undefined),
    );
    const outcomes = await Promise.allSettled([...sent, enqueue('nowhere', 'lost')]);
    const refusals = outcomes.map((outcome) => (outcome.status === 'rejected' ? String(outcome.reason) : null));
    const [outOfRange, unknown] = [
      expect.stringMatching(/out of range/i),
      expect.stringContaining("'nowhere' does not exist"),
    ];
    expect(refusals).toEqual([null, null, outOfRange, null, null, unknown]);
    const leased = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 600 });
    expect(bodies(leased).toSorted()).toEqual(['1', '2', '3', '4']);
  },
);
