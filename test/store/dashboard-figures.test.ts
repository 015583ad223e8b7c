import { newPackId } from '@rowmq/contract';
import { type DeliveryStats, LEASE_GRACE_MS, type Queue, type QueueHour } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { insertQueues } from '../support/many-queues.js';
import { storeLonely } from '../support/packs.js';
import { recordStatements } from '../support/statements.js';
import { createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

/* The figures of the dashboard's overview: the counts of many queues at a time, and their hour. */

/** The beginning of a minute, and of five minutes. */
const T0 = 1_800_000_000_000;
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const STRETCH = 5 * MINUTE;

let store: TestStore;
beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());

/** A thousand queues with names that begin alike, by their numbers. */
async function thousandQueues(prefix: string): Promise<Queue[]> {
  const names = Array.from({ length: 1000 }, (_, index) => `${prefix}-${String(index).padStart(4, '0')}`);
  await insertQueues({ query: async (sql: string, values: unknown[]) => store.database.write(sql, values) }, names);
  return (await store.queues.list()).filter(({ name }) => name.startsWith(`${prefix}-`));
}

describe('the counts of several queues', () => {
  test('are empty for no queue, and need no statement', async () => {
    const statements = recordStatements(store.database);
    expect(await store.browse.statsOfSeveral([])).toEqual(new Map());
    expect(statements).toEqual([]);
  });

  test('are those of each queue by itself, in every state that a message can have', async () => {
    const dead = await createQueue(store, { ordering: 'group' });
    const ordered = await createQueue(store, { ordering: 'group', deadLetterQueue: dead.name });
    const plain = await createQueue(store);
    const empty = await createQueue(store);
    store.at(T0);
    for (const count of [1, 3]) await store.messages.enqueue(ordered.name, numbered(count, { groupId: 'a' }));
    await store.messages.enqueue(plain.name, numbered(2, { expiresInSeconds: 30 }));
    await store.messages.dequeue(plain, { maxMessages: 1, leaseSeconds: 120 });
    store.at(T0 + 10 * SECOND);
    await store.messages.enqueue(plain.name, numbered(3));
    await store.messages.enqueue(plain.name, numbered(5, { delaySeconds: 600 }));

    // One of the two that expire is leased, and counts until its lease ends.
    store.at(T0 + 30 * SECOND);
    const ids = [empty.id, plain.id, ordered.id];
    const counts = await store.browse.statsOfSeveral(ids);
    expect([...counts.keys()].toSorted((one, other) => one - other)).toEqual(
      [plain.id, ordered.id].toSorted((one, other) => one - other),
    );
    expect(counts.get(plain.id)).toMatchObject({
      ready: 3,
      delayed: 5,
      leased: 1,
      waiting: 0,
      oldestReadyAgeSeconds: 20,
    });
    expect(counts.get(ordered.id)).toMatchObject({ ready: 1, delayed: 0, leased: 0, waiting: 3 });
    for (const id of [plain.id, ordered.id]) expect(counts.get(id)).toEqual(await store.browse.stats(id));

    store.at(T0 + 120 * SECOND + LEASE_GRACE_MS);
    expect((await store.browse.statsOfSeveral(ids)).get(plain.id)).toMatchObject({ ready: 3, leased: 0 });
    store.at(T0 + 610 * SECOND);
    expect((await store.browse.statsOfSeveral(ids)).get(plain.id)).toMatchObject({ ready: 8, delayed: 0 });
  });

  test('are right for each of a thousand queues, whether it has messages or none', async () => {
    const queues = await thousandQueues('counted');
    expect(queues).toHaveLength(1000);
    const depthOf = (index: number): number => (index % 10 === 0 ? 1 + index / 100 : 0);
    const rows = queues.flatMap(({ id }, index) =>
      Array.from({ length: Math.floor(depthOf(index)) }, () => ({
        packId: newPackId(T0),
        queueId: id,
        body: 'one',
        availableAt: T0 - index * SECOND,
        expiresAt: T0 + MINUTE,
      })),
    );
    for (const { sql, values } of storeLonely(rows)) await store.database.write(sql, values);
    const counts = await store.at(T0).browse.statsOfSeveral(queues.map(({ id }) => id));
    const found = queues.map(({ id }, index) => ({ index, stats: counts.get(id) }));
    const expected = queues.map((_, index) => {
      const ready = Math.floor(depthOf(index));
      const stats: DeliveryStats = {
        ready,
        delayed: 0,
        leased: 0,
        waiting: 0,
        oldestReadyAgeSeconds: index,
        oldestLeaseAgeSeconds: null,
        deliveries: ready,
      };
      return { index, stats: ready === 0 ? undefined : stats };
    });
    expect(found).toEqual(expected);
  });

  test('leave out a deleted queue, whose messages the reaper has yet to remove, once nobody asks for it', async () => {
    const [gone, stays] = [await createQueue(store), await createQueue(store)];
    for (const { name } of [gone, stays]) await store.at(T0).messages.enqueue(name, [message()]);
    await store.queues.delete(gone.name);
    const named = (await store.queues.list()).map(({ id }) => id);
    expect(named).not.toContain(gone.id);
    const counts = await store.browse.statsOfSeveral(named);
    expect(counts.has(gone.id)).toBe(false);
    expect(counts.get(stays.id)).toMatchObject({ ready: 1 });
    // A new queue of this name has none of its messages.
    const { queue: successor } = await store.queues.put(gone.name, {});
    expect((await store.browse.statsOfSeveral([successor.id])).size).toBe(0);
  });
});

describe('the last hour of every queue', () => {
  const hourOf = async (queue: Queue, now: number): Promise<QueueHour | undefined> => {
    const hours = await store.at(now).minutes.stretches();
    expect(hours.now).toBe(now);
    return hours.queues.get(queue.id);
  };

  test('has no queue in which nothing happened', async () => {
    const queue = await createQueue(store);
    expect(await hourOf(queue, T0)).toBeUndefined();
    await store.minutes.addDepths(new Map([[queue.id, await store.browse.stats(queue.id)]]));
    expect(await hourOf(queue, T0)).toMatchObject({ failed: 0, dequeued: 0, lastDequeueAt: null, inPerSecond: 0 });
  });

  test.each([0, 1, 2, 3, 4])(
    'ends with a stretch that this minute belongs to, %d minutes after the stretch began',
    async (minute) => {
      const queue = await createQueue(store);
      const now = T0 + minute * MINUTE + 30 * SECOND;
      await store.at(now).minutes.add(new Map([[queue.id, { enqueued: 7, acked: 5, nacked: 2, deadLettered: 1 }]]));
      const stretches = (await hourOf(queue, now))?.stretches ?? [];
      expect(stretches).toHaveLength(12);
      expect(stretches.at(-1)).toEqual({ in: 7, out: 5, failed: 3 });
      expect(stretches.slice(0, -1).every((one) => one.in === 0 && one.out === 0 && one.failed === 0)).toBe(true);
    },
  );

  test('has each event in its five minutes of the clock, and nothing older than an hour', async () => {
    const queue = await createQueue(store);
    const report = async (at: number, enqueued: number) =>
      store.at(at).minutes.add(new Map([[queue.id, { enqueued, expired: enqueued }]]));
    const first = T0 - 11 * STRETCH;
    await report(first - MINUTE, 1000);
    await report(first, 1);
    await report(first + STRETCH - MINUTE, 2);
    await report(first + STRETCH, 4);
    await report(T0 - MINUTE, 8);
    await report(T0, 16);
    const hour = await hourOf(queue, T0 + 10 * SECOND);
    expect(hour?.stretches.map((one) => one.in)).toEqual([3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 8, 16]);
    expect(hour).toMatchObject({ expired: 31, failed: 0 });
  });

  test('tells the rate of the last 60 seconds, across the turn of a minute', async () => {
    const queue = await createQueue(store);
    const counts = { enqueued: 600, acked: 60, dequeued: 60 };
    await store.at(T0).minutes.add(new Map([[queue.id, counts]]));
    await store.at(T0 + MINUTE).minutes.add(new Map([[queue.id, { enqueued: 300 }]]));
    const rate = async (seconds: number): Promise<number> =>
      (await hourOf(queue, T0 + MINUTE + seconds * SECOND))?.inPerSecond ?? NaN;
    expect(await rate(0)).toBeCloseTo(15, 3);
    expect(await rate(30)).toBeCloseTo(10, 3);
    expect(await rate(59.9)).toBeCloseTo(5, 1);
    expect(await rate(60)).toBeCloseTo(5, 3);
    expect(await rate(120)).toBe(0);
    const hour = await hourOf(queue, T0 + MINUTE + 30 * SECOND);
    expect(hour?.outPerSecond).toBeCloseTo(0.5, 3);
    // The end of the minute in which a consumer last got something.
    expect(hour?.lastDequeueAt).toBe(T0 + MINUTE);
  });

  test('tells a thousand queues apart, also one that was deleted and made again', async () => {
    const queues = await thousandQueues('busy');
    const reports = new Map(queues.map(({ id }, index) => [id, { enqueued: index, dequeued: 1 }]));
    await store.at(T0).minutes.add(reports);
    await store.at(T0 - STRETCH).minutes.add(reports);
    const gone = queues[7] as Queue;
    await store.queues.delete(gone.name);
    const { queue: successor } = await store.queues.put(gone.name, {});
    const hours = (await store.at(T0).minutes.stretches()).queues;
    const ins = queues.map(({ id }) =>
      hours
        .get(id)
        ?.stretches.slice(-2)
        .map((one) => one.in),
    );
    expect(ins).toEqual(queues.map((_, index) => [index, index]));
    expect(hours.has(successor.id)).toBe(false);
  });
});
