import type { LeasedMessage, Queue } from '@rowmq/store';
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { recordRoundTrips, stopClock } from '../support/statements.js';
import { createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { claimFrom } from '../support/claim-from.js';

/*
 * A round trip costs each side tens of microseconds, about as much as a short statement. Every
 * transaction is one commit.
 */

let store: TestStore;
let queue: Queue;
let trips: string[];

beforeAll(async () => {
  store = await openStore({ poolSize: 1 });
  trips = recordRoundTrips(store.database);
  return () => store.close();
});
beforeEach(async () => {
  stopClock();
  queue = await createQueue(store);
});

/** A rescan runs beside a claim when it is due. */
const RESCAN = /^SELECT priority_rank AS priorityRank/;

/** The round trips of a verb, and how many of them commit. */
async function cost<T>(verb: () => Promise<T>): Promise<{ result: T; trips: number; commits: number }> {
  trips.length = 0;
  const result = await verb();
  const sent = trips.filter((sql) => !RESCAN.test(sql));
  return { result, trips: sent.length, commits: sent.filter((sql) => sql.endsWith('COMMIT')).length };
}

async function lease(count: number): Promise<LeasedMessage[]> {
  await store.messages.enqueue(queue.name, numbered(count));
  const { leased } = await claimFrom(store.messages.batches, queue, [{ maxMessages: count, leaseSeconds: 60 }]);
  expect(leased.flat()).toHaveLength(count);
  return leased.flat();
}

const request = (receipts: readonly LeasedMessage[]) => ({ queueId: queue.id, receipts });

test('an enqueue is one round trip and one commit, for many requests and queues', async () => {
  const others = await Promise.all([1, 2, 3].map(() => createQueue(store)));
  const queues = [queue, ...others];
  const requests = queues.flatMap(({ name }) => [
    { queueName: name, messages: numbered(50) },
    { queueName: name, messages: [message({ priority: 9, delaySeconds: 5 })] },
  ]);
  const enqueue = await cost(() => store.messages.batches.enqueue(requests));
  expect(enqueue).toMatchObject({ trips: 1, commits: 1 });
  expect(enqueue.result.every((outcome) => !(outcome instanceof Error))).toBe(true);
  expect(await store.browse.stats(queue.id)).toMatchObject({ ready: 50, delayed: 1 });
});

test('an enqueue to a bounded queue counts its messages at most once a second', async () => {
  const bounded = await createQueue(store, { maxDepth: 1000 });
  const first = await cost(() => store.messages.enqueue(bounded.name, numbered(1)));
  expect(first).toMatchObject({ trips: 2, commits: 1 });
  const second = await cost(() => store.messages.enqueue(bounded.name, numbered(1)));
  expect(second).toMatchObject({ trips: 1, commits: 1 });
});

test('an ack is one round trip and one commit, whether it deletes deliveries or clears members', async () => {
  const leased = await lease(40);
  const clearing = await cost(() =>
    store.messages.batches.ack([request(leased.slice(0, 3)), request(leased.slice(5, 9))]),
  );
  expect(clearing).toMatchObject({ trips: 1, commits: 1 });
  const rest = [...leased.slice(3, 5), ...leased.slice(9)];
  const deleting = await cost(() => store.messages.batches.ack([request(rest)]));
  expect(deleting).toMatchObject({ trips: 1, commits: 1, result: [rest.map(() => null)] });
  // It rolls back, settles those that are held, and reads why the others fail.
  const stale = await cost(() => store.messages.batches.ack([request(rest)]));
  expect(stale).toMatchObject({ trips: 5, commits: 2, result: [rest.map(() => 'delivery-not-found')] });
});

test('a claim is at most three round trips and one commit, and one round trip if nothing is ready', async () => {
  const claim = (maxMessages: number) =>
    cost(async () =>
      (await claimFrom(store.messages.batches, queue, [{ maxMessages, leaseSeconds: 60 }])).leased.flat(),
    );
  expect(await claim(1)).toMatchObject({ trips: 1, commits: 0, result: [] });
  await store.messages.enqueue(queue.name, numbered(100));
  for (const count of [1, 40, 40]) {
    const taken = await claim(count);
    expect(taken.result).toHaveLength(count);
    expect(taken).toMatchObject({ trips: 3, commits: 1 });
  }
});

test('a claim in several queues costs no more round trips and commits than in one', async () => {
  const queues = [queue, ...(await Promise.all([1, 2, 3].map(() => createQueue(store))))];
  const requests = queues.map((one) => ({ queue: one, demands: [{ maxMessages: 5, leaseSeconds: 60 }] }));
  expect(await cost(() => store.messages.batches.claim(requests))).toMatchObject({ trips: 1, commits: 0 });
  for (const { name } of queues.slice(0, 3)) await store.messages.enqueue(name, numbered(10));
  const claim = await cost(() => store.messages.batches.claim(requests));
  expect(claim).toMatchObject({ trips: 3, commits: 1 });
  expect(claim.result.map(({ leased }) => leased.flat().length)).toEqual([5, 5, 5, 0]);
});

test('nack, extend and release are two round trips and one commit, whether they split deliveries or not', async () => {
  const leased = await lease(40);
  const { batches } = store.messages;
  const verbs: ((receipts: LeasedMessage[]) => Promise<unknown>)[] = [
    (receipts: LeasedMessage[]) => batches.extend([{ ...request(receipts), leaseSeconds: 90 }]),
    (receipts: LeasedMessage[]) => batches.nack([{ ...request(receipts), delaySeconds: 90 }]),
    (receipts: LeasedMessage[]) => batches.release([request(receipts)]),
  ];
  for (const [index, verb] of verbs.entries()) {
    const some = leased.slice(index * 5, index * 5 + 5);
    expect(await cost(() => verb(some))).toMatchObject({ trips: 2, commits: 1 });
  }
  expect(await cost(() => verbs[0]!(leased.slice(15)))).toMatchObject({ trips: 2, commits: 1 });
  expect(await cost(() => verbs[1]!(leased.slice(15)))).toMatchObject({ trips: 2, commits: 1 });
});

test('requests of one batch cost no more round trips than one', async () => {
  const leased = await lease(30);
  const requests = leased.map((one) => ({ ...request([one]), delaySeconds: 0 }));
  expect(await cost(() => store.messages.batches.nack(requests))).toMatchObject({ trips: 2, commits: 1 });
  expect(await store.browse.stats(queue.id)).toMatchObject({ ready: 30, leased: 0 });
});
