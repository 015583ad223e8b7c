import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { FIRST_ID, type Queue } from '@rowmq/store';
import { owedIds } from '../support/deliveries.js';
import { hex, MINUTE, START } from '../support/partitions.js';
import { createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

const removed: [event: string, queue: string, count: number][] = [];
let store: TestStore;
let dead: Queue;
let queue: Queue;

beforeAll(async () => {
  store = await openStore({
    observer: { removedInClaim: (...event) => void removed.push(event), rescanned: () => undefined },
  });
  return () => store.close();
});

async function newPair(settings: Parameters<typeof createQueue>[1] = {}): Promise<void> {
  const { ordering = null } = settings;
  dead = await createQueue(store, { messageTtlSeconds: 3600, ordering });
  const lifetime = { messageTtlSeconds: 120, deadLetterQueue: dead.name, deadLetterExpired: true };
  queue = await createQueue(store, { ...lifetime, ...settings });
}

beforeEach(async () => {
  await newPair();
  removed.length = 0;
});

/** As the reaper's duty does. */
async function expire(): Promise<number> {
  const { found } = await store.unleased.findExpired(queue.id, FIRST_ID, 500);
  return store.messages.batches.deadLetterExpired(queue, found);
}

async function origin(id: Buffer) {
  const [delivery] = await store.browse.deliveries(id, [dead.id]);
  return { ...delivery?.moves[0], source: delivery?.sourceQueueId, expiresAt: delivery?.expiresAt };
}

describe('in a queue that keeps expired messages', () => {
  test('the reaper moves them to the dead-letter queue, where they live by its TTL', async () => {
    const own = message({ expiresInSeconds: 60 });
    const ids = await store.at(START).messages.enqueue(queue.name, [...numbered(40), own]);
    // Their producer's time has passed for one, and the queue's for all.
    store.at(START + 3 * MINUTE);
    expect(await expire()).toBe(41);
    expect(await owedIds(store, queue)).toEqual([]);
    for (const id of [ids[0]!, ids.at(-1)!])
      expect(await origin(id)).toEqual({
        from: queue.id,
        at: START + 3 * MINUTE,
        cause: 'expired',
        receives: 0,
        reason: null,
        source: queue.id,
        expiresAt: START + 63 * MINUTE,
      });
    store.at(START + 62 * MINUTE);
    expect(await store.messages.dequeue(dead, { maxMessages: 100, leaseSeconds: 30 })).toHaveLength(41);
    // Dead letters expire for good: their queue keeps none.
    store.at(START + 64 * MINUTE);
    const { found } = await store.unleased.findExpired(dead.id, FIRST_ID, 500);
    expect(await store.messages.expire(dead.id, found)).toBe(41);
  });

  test('a claim hands none out, and moves those that it meets', async () => {
    const [first, ...others] = await store
      .at(START)
      .messages.enqueue(queue.name, [
        message({ expiresInSeconds: 60 }),
        message({ expiresInSeconds: 60, priority: 9 }),
      ]);
    const [living] = await store.messages.enqueue(queue.name, [message({ body: Buffer.from('lives') })]);
    store.at(START + MINUTE);
    const [taken] = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 30 });
    expect(taken?.messageId).toEqual(living);
    await expect.poll(() => owedIds(store, dead)).toEqual(hex([first!, ...others]));
    expect(removed.reduce((sum, [, , count]) => sum + count, 0)).toBe(2);
    expect(new Set(removed.map(([event]) => event))).toEqual(new Set(['dead-lettered']));
  });

  test('a message that expires under its lease can still be acked, and moves if it is not', async () => {
    const ids = await store.at(START).messages.enqueue(queue.name, numbered(2));
    const [acked] = await store.at(START + MINUTE).messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 120 });
    store.at(START + 150_000);
    expect(await expire()).toBe(0);
    expect(await store.messages.ack(queue.id, [acked!])).toEqual([null]);
    store.at(START + 4 * MINUTE);
    expect(await expire()).toBe(1);
    expect(await owedIds(store, dead)).toEqual(hex([ids[1]!]));
    expect(await origin(ids[1]!)).toMatchObject({ cause: 'expired', receives: 1 });
  });

  test('a group keeps its order, and its next message follows', async () => {
    await newPair({ ordering: 'group' });
    const ids = await store.at(START).messages.enqueue(
      queue.name,
      [60, 60, undefined].map((expiresInSeconds) =>
        message({ groupId: 'g', ...(expiresInSeconds && { expiresInSeconds }) }),
      ),
    );
    store.at(START + MINUTE);
    expect(await expire()).toBe(2);
    const alive = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 30 });
    expect(hex(alive.map(({ messageId }) => messageId))).toEqual(hex([ids[2]!]));
    const kept = await store.messages.dequeue(dead, { maxMessages: 10, leaseSeconds: 30 });
    expect(hex(kept.map(({ messageId }) => messageId))).toEqual(hex(ids.slice(0, 2)));
  });

  test('a reaper that found messages before the setting was on settles none of them', async () => {
    await newPair({ deadLetterExpired: false });
    const ids = await store.at(START).messages.enqueue(queue.name, numbered(2));
    store.at(START + 3 * MINUTE);
    const { found } = await store.unleased.findExpired(queue.id, FIRST_ID, 500);
    await store.queues.put(queue.name, { deadLetterExpired: true });
    expect(await store.messages.expire(queue.id, found)).toBe(0);
    expect(await expire()).toBe(2);
    expect(await owedIds(store, dead)).toEqual(hex(ids));
  });

  test('nothing moves any more once the setting is off, and a claim settles them', async () => {
    await store.at(START).messages.enqueue(queue.name, numbered(2));
    await store.queues.put(queue.name, { deadLetterExpired: false });
    store.at(START + 3 * MINUTE);
    expect(await expire()).toBe(0);
    expect(await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 30 })).toEqual([]);
    expect([await owedIds(store, queue), await owedIds(store, dead)]).toEqual([[], []]);
    expect(removed).toEqual([['expired', queue.name, 2]]);
  });
});

test('deadLetterExpired needs a dead-letter queue, and keeps it', async () => {
  const refused = { code: 'invalid-request', faults: [expect.objectContaining({ path: 'deadLetterExpired' })] };
  await expect(store.queues.put('lonely', { deadLetterExpired: true })).rejects.toMatchObject(refused);
  await expect(store.queues.put(queue.name, { deadLetterQueue: null })).rejects.toMatchObject(refused);
  await store.queues.put(queue.name, { deadLetterQueue: null, deadLetterExpired: false });
  await expect(store.queues.put(queue.name, { deadLetterExpired: true })).rejects.toMatchObject(refused);
});
