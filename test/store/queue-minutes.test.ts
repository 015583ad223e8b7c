import { afterAll, beforeAll, expect, test } from 'vitest';
import { DeadLetterDeliveries } from '../../apps/reaper/src/duties/dead-letter-deliveries.js';
import { ExpireDeliveries } from '../../apps/reaper/src/duties/expire-deliveries.js';
import { KeepHistory } from '../../apps/reaper/src/duties/keep-history.js';
import { numbered, createQueue, openStore, type TestStore } from '../support/store.js';

/** The beginning of a minute. */
const T0 = 1_800_000_000_000;
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const NONE = { enqueued: 0, dequeued: 0, acked: 0, nacked: 0, deadLettered: 0, expired: 0, purged: 0, redriven: 0 };
const UNCOUNTED = { ready: null, delayed: null, leased: null, waiting: null, oldestReadyAgeSeconds: null };

let store: TestStore;
/** Another broker on the same database. */
let other: TestStore;

beforeAll(async () => {
  store = await openStore();
  other = await openStore({ on: store.url });
});
afterAll(async () => {
  await other.close();
  await store.close();
});

test('a minute is the sum of what all brokers report, also at the same time', async () => {
  const [one, two] = [await createQueue(store), await createQueue(store)];
  const report = (of: TestStore) =>
    of.at(T0).minutes.add(
      new Map([
        [two.id, { acked: 1 }],
        [one.id, { enqueued: 2, redriven: 3 }],
      ]),
    );
  await Promise.all(Array.from({ length: 20 }, (_, index) => report(index % 2 === 0 ? store : other)));
  expect(await store.minutes.history(one.id, 1)).toEqual([
    { at: T0, ...NONE, enqueued: 40, redriven: 60, ...UNCOUNTED },
  ]);
  expect(await store.minutes.history(two.id, 1440)).toMatchObject([{ acked: 20 }]);
});

test('rates are those of the last 1, 5 and 60 minutes, whenever a minute begins', async () => {
  const [queue, idle] = [await createQueue(store), await createQueue(store)];
  // Six messages a second for an hour, twelve in its last two minutes.
  for (let minute = 0; minute < 62; minute += 1) {
    const twice = minute >= 60 ? 2 : 1;
    const counts = { enqueued: 360 * twice, acked: 180 * twice, nacked: 60, deadLettered: 60 };
    await store.at(T0 + minute * MINUTE).minutes.add(new Map([[queue.id, counts]]));
  }
  const at = T0 + 62 * MINUTE;
  const rates = async (now: number) => (await store.at(now).minutes.rates(queue.id)).get(queue.id);
  expect(await rates(at)).toEqual([
    { minutes: 1, in: 12, out: 6, failed: 2, expired: 0 },
    { minutes: 5, in: 8.4, out: 4.2, failed: 2, expired: 0 },
    { minutes: 60, in: 6.2, out: 3.1, failed: 2, expired: 0 },
  ]);
  // Nothing has happened for half a minute.
  expect((await rates(at + 30 * SECOND))?.map((rate) => rate.in)).toEqual([6, 7.8, 6.15]);
  expect(await rates(at + 62 * MINUTE)).toBeUndefined();
  const all = await store.at(at).minutes.rates();
  expect(all.get(queue.id)).toEqual(await rates(at));
  expect(all.has(idle.id)).toBe(false);
  expect((await store.minutes.lastHour()).get(queue.id)).toMatchObject({ enqueued: 57 * 360 + 2 * 720, expired: 0 });
});

test('changes since a count include the whole minute of the count and the one before', async () => {
  const queue = await createQueue(store);
  for (const [minute, enqueued] of [1, 10, 100, 1000].entries())
    await store.at(T0 + minute * MINUTE).minutes.add(new Map([[queue.id, { enqueued, acked: enqueued }]]));
  store.at(T0 + 3 * MINUTE + 30 * SECOND);
  expect(await store.minutes.changes(queue.id, SECOND)).toBe(2200);
  expect(await store.minutes.changes(queue.id, 31 * SECOND)).toBe(2200);
  expect(await store.minutes.changes(queue.id, 61 * SECOND)).toBe(2220);
});

test('a queue whose count fails keeps back neither the depths of others nor the removal of old minutes', async () => {
  const [deep, next] = [await createQueue(store), await createQueue(store)];
  const browse = Object.create(store.browse) as TestStore['browse'];
  browse.stats = async (id) => {
    if (id === deep.id) throw new Error('the count exceeded its deadline');
    return store.browse.stats(id);
  };
  const keep = new KeepHistory(store.queues, browse, store.minutes);
  const run = () => keep.run({ signal: new AbortController().signal });
  await store.at(T0).minutes.add(new Map([[next.id, { enqueued: 1 }]]));
  store.at(T0 + 1441 * MINUTE);
  for (let runs = 0; runs < 2; runs += 1) await expect(run()).rejects.toThrow('deadline');
  expect(await store.minutes.history(next.id, 1)).toMatchObject([{ ready: 0 }]);
  const [{ old }] = (await store.database.read<{ old: number }>(
    'SELECT COUNT(*) AS old FROM queue_minute WHERE minute <= ?',
    [T0 / MINUTE],
  )) as [{ old: number }];
  expect(old).toBe(0);
});

test('a reaper adds its expirations, notes depths and forgets minutes that are older than a day', async () => {
  const [queue, empty] = [await createQueue(store, { messageTtlSeconds: 100 }), await createQueue(store)];
  const round = { signal: new AbortController().signal };
  const keep = new KeepHistory(store.queues, store.browse, store.minutes);
  await store.at(T0).messages.enqueue(queue.name, numbered(30));
  await store.at(T0 + 30 * SECOND).messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 600 });
  await keep.run(round);
  store.at(T0 + 2 * MINUTE);
  const expire = new ExpireDeliveries(store.queues, store.unleased, store.messages.batches, store.minutes);
  expect(await expire.run(round)).toBe(20);
  const counted = { ready: 20, delayed: 0, leased: 10, waiting: 0, oldestReadyAgeSeconds: 30 };
  const minutes = [
    { at: T0, ...NONE, ...counted },
    { at: T0 + 2 * MINUTE, ...NONE, expired: 20, ...UNCOUNTED },
  ];
  expect(await store.minutes.history(queue.id, 60)).toEqual(minutes);
  expect(await store.minutes.history(empty.id, 60)).toMatchObject([{ ready: 0, oldestReadyAgeSeconds: 0 }]);
  const left = async () =>
    store.database.read<{ minute: number }>('SELECT minute FROM queue_minute WHERE queue_id = ?', [queue.id]);
  store.at(T0 + 1441 * MINUTE);
  await keep.run(round);
  expect((await left()).map(({ minute }) => minute * MINUTE)).toEqual([T0 + 2 * MINUTE, T0 + 1441 * MINUTE]);
});

test('a reaper adds the messages that it dead-letters, also because they have expired', async () => {
  const dead = await createQueue(store);
  const settings = { messageTtlSeconds: 100, deadLetterQueue: dead.name, deadLetterExpired: true, maxReceives: 1 };
  const queue = await createQueue(store, settings);
  const round = { signal: new AbortController().signal };
  const { queues, unleased, minutes } = store;
  await store.at(T0).messages.enqueue(queue.name, numbered(40));
  await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 10 });
  store.at(T0 + MINUTE);
  expect(await new DeadLetterDeliveries(queues, unleased, store.messages.batches, minutes).run(round)).toBe(10);
  store.at(T0 + 2 * MINUTE);
  expect(await new ExpireDeliveries(queues, unleased, store.messages.batches, minutes).run(round)).toBe(30);
  expect(await minutes.history(queue.id, 60)).toEqual([
    { at: T0 + MINUTE, ...NONE, deadLettered: 10, ...UNCOUNTED },
    { at: T0 + 2 * MINUTE, ...NONE, deadLettered: 30, ...UNCOUNTED },
  ]);
});
