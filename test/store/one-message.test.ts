import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { BrowseRepository, FIRST_ID, MessageRepository, type Queue, type Wish } from '@rowmq/store';
import { owedIds } from '../support/deliveries.js';
import { losingAnswers } from '../support/lost-answer.js';
import { hex, MINUTE, openSession, START } from '../support/partitions.js';
import { createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

const reaches = (): boolean => true;

let store: TestStore;
let dead: Queue;
let queue: Queue;
let other: Queue;

beforeAll(async () => {
  store = await openStore();
  return () => store.close();
});

beforeEach(async () => {
  await newQueues(null);
});

async function newQueues(ordering: 'group' | null): Promise<void> {
  dead = await createQueue(store, { ordering });
  other = await createQueue(store, { ordering });
  queue = await createQueue(store, { ordering, deadLetterQueue: dead.name });
}

async function enqueue(count: number, overrides: Parameters<typeof message>[0] = {}): Promise<Buffer[]> {
  return store.at(START).messages.enqueue(queue.name, numbered(count, overrides));
}

const lease = (leaseSeconds: number, maxMessages = 1) => store.messages.dequeue(queue, { maxMessages, leaseSeconds });

async function fulfil(id: Buffer, wish: Omit<Wish, 'reaches'>) {
  return store.messages.batches.fulfil(id, [queue.id, dead.id, other.id], { reaches, ...wish });
}

const idsIn = (one: Queue): Promise<string[]> => owedIds(store, one);

describe('an operator', () => {
  test('acks a ready message and a leased one, whose receipt has no effect any more', async () => {
    const ids = await enqueue(3);
    const [held] = await lease(60);
    expect(await fulfil(ids[0]!, { does: 'ack' })).toEqual([{ queueId: queue.id, targetId: null }]);
    await fulfil(ids[2]!, { does: 'ack' });
    expect(await idsIn(queue)).toEqual(hex([ids[1]!]));
    expect(await store.messages.ack(queue.id, [held!])).toEqual(['delivery-not-found']);
    await expect(fulfil(ids[0]!, { does: 'ack' })).rejects.toMatchObject({ code: 'delivery-not-found' });
    expect((await lease(60, 10)).map(({ messageId }) => messageId)).toEqual([ids[1]]);
  });

  test('releases a leased message, as if it had not been received, and a delayed one', async () => {
    const [first] = await enqueue(2);
    const held = await lease(60, 2);
    await fulfil(first!, { does: 'release' });
    expect(await store.messages.nack(queue.id, held, { delaySeconds: 600 })).toEqual(['lease-lost', null]);
    expect(await lease(60, 10)).toMatchObject([{ messageId: first, receiveCount: 1 }]);
    const delayed = held[1]!.messageId;
    await fulfil(delayed, { does: 'release' });
    expect(await lease(60, 10)).toMatchObject([{ messageId: delayed, receiveCount: 2 }]);
  });

  test('redrives a dead letter, alone out of its pack, and moves it to another queue with its history', async () => {
    const ids = await enqueue(3);
    const held = await lease(60, 3);
    await store.messages.batches.reject({ queueId: queue.id, receipts: held, reason: 'poison' });
    store.at(START + MINUTE);
    expect(await fulfil(ids[1]!, { does: 'redrive' })).toEqual([{ queueId: dead.id, targetId: queue.id }]);
    expect([await idsIn(dead), await idsIn(queue)]).toEqual([hex([ids[0]!, ids[2]!]), hex([ids[1]!])]);
    // Also while a consumer holds it.
    const [taken] = await store.messages.dequeue(dead, { maxMessages: 1, leaseSeconds: 60 });
    expect(await fulfil(ids[0]!, { does: 'move', target: other })).toEqual([{ queueId: dead.id, targetId: other.id }]);
    expect(await store.messages.ack(dead.id, [taken!])).toEqual(['delivery-not-found']);
    const [moved] = await new BrowseRepository(store.database).deliveries(ids[0]!, [other.id]);
    expect(moved).toMatchObject({
      sourceQueueId: queue.id,
      receiveCount: 0,
      moves: [
        { from: queue.id, cause: 'rejected', receives: 1, reason: 'poison' },
        { from: dead.id, cause: 'moved', receives: 1, at: START + MINUTE },
      ],
    });
  });

  test('moves both copies of a message that two subscribers have given up', async () => {
    const second = await createQueue(store, { deadLetterQueue: dead.name });
    await store.at(START).topics.put('copies');
    for (const { name } of [queue, second]) await store.topics.putSubscription('copies', name, null);
    const [published] = await store.messages.publish('copies', [message()]);
    for (const one of [queue, second]) {
      const receipts = await store.messages.dequeue(one, { maxMessages: 1, leaseSeconds: 60 });
      await store.messages.batches.reject({ queueId: one.id, receipts });
    }
    const moved = { queueId: dead.id, targetId: other.id };
    expect(await fulfil(published!.id, { does: 'move', target: other })).toEqual([moved, moved]);
    expect([await idsIn(dead), await idsIn(other)]).toEqual([[], hex([published!.id, published!.id])]);
  });

  test('is told why nothing can be done', async () => {
    const [id] = await enqueue(1);
    const refused = { code: 'invalid-request' };
    await expect(fulfil(id!, { does: 'redrive' })).rejects.toMatchObject(refused);
    await expect(fulfil(id!, { does: 'move', target: queue })).rejects.toMatchObject(refused);
    const ordered = await createQueue(store, { ordering: 'group' });
    await expect(fulfil(id!, { does: 'move', target: ordered })).rejects.toMatchObject(refused);
    const unreachable = { does: 'move', target: other, reaches: () => false } as const;
    await expect(store.messages.batches.fulfil(id!, [queue.id], unreachable)).rejects.toMatchObject(refused);
    await expect(fulfil(Buffer.alloc(16, 1), { does: 'ack' })).rejects.toMatchObject({ code: 'delivery-not-found' });
    expect(await idsIn(queue)).toEqual(hex([id!]));
  });

  test('waits for the transaction that has locked the message', async () => {
    const [id] = await enqueue(1);
    const session = await openSession(store);
    await session.write('START TRANSACTION');
    await session.read('SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? FOR UPDATE', [queue.id]);
    const acked = fulfil(id!, { does: 'ack' });
    const first = await Promise.race([
      acked.then(() => 'acked'),
      session.read('SELECT SLEEP(0.2)').then(() => 'waits'),
    ]);
    expect(first).toBe('waits');
    await session.end();
    await acked;
    expect(await idsIn(queue)).toEqual([]);
  });

  test('learns that the outcome is unknown if the COMMIT gets no answer', async () => {
    const [id] = await enqueue(1);
    const losing = new MessageRepository(losingAnswers(store.database));
    await expect(losing.fulfil(id!, [queue.id], { does: 'ack', reaches })).rejects.toMatchObject({
      code: 'database-unavailable',
    });
    expect(await idsIn(queue)).toEqual([]);
  });
});

describe('in an ordered queue', () => {
  beforeEach(() => newQueues('group'));

  test('the next message follows one that an operator acks, and later ones wait behind one that he releases', async () => {
    const ids = await enqueue(4, { groupId: 'g' });
    const held = await lease(60, 2);
    expect(held.map(({ messageId }) => messageId)).toEqual(ids.slice(0, 2));
    await fulfil(ids[0]!, { does: 'release' });
    // Both leases have ended: the second must not be handled before the first.
    expect(await store.messages.ackInOrder(queue.id, held)).toEqual(['lease-lost', 'lease-lost']);
    await fulfil(ids[0]!, { does: 'ack' });
    await fulfil(ids[2]!, { does: 'move', target: other });
    for (const index of [1, 3]) {
      const next = await lease(60, 10);
      expect(next.map(({ messageId }) => messageId)).toEqual([ids[index]]);
      await store.messages.ackInOrder(queue.id, next);
    }
    const [first, second] = await enqueue(2, { groupId: 'g' });
    await lease(60);
    await expect(fulfil(second!, { does: 'release' })).rejects.toMatchObject({ code: 'invalid-request' });
    await fulfil(first!, { does: 'release' });
    const there = await store.messages.dequeue(other, { maxMessages: 10, leaseSeconds: 60 });
    expect(there.map(({ messageId }) => messageId)).toEqual([ids[2]]);
  });
});

test('a message that was withdrawn says how it ended', async () => {
  const ids = await enqueue(4);
  await store.messages.batches.cancel(ids[0]!, [queue.id]);
  const [held] = await lease(60);
  await store.messages.ack(queue.id, [held!]);
  await store.unleased.purge(queue.id, FIRST_ID, Buffer.alloc(16, 255), 100);
  const endings = await Promise.all(ids.map((id) => store.browse.endings(id)));
  expect(endings).toEqual([
    [{ queueId: queue.id, how: 'cancelled' }],
    [],
    [{ queueId: queue.id, how: 'purged' }],
    [{ queueId: queue.id, how: 'purged' }],
  ]);
});
