import { beforeEach, describe, expect, test } from 'vitest';
import { FIRST_ID, type Queue, UnleasedRepository } from '@rowmq/store';
import { owedIds } from '../support/deliveries.js';
import { losingAnswers } from '../support/lost-answer.js';
import { deadLetterAll, hex, MINUTE, openSession, START, claimAll } from '../support/partitions.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

const LATER = START + 5 * MINUTE;

let store: TestStore;
let graveyard: Queue;
let origin: Queue;

beforeEach(async () => {
  store = await openStore();
  graveyard = await createQueue(store, { messageTtlSeconds: 3600 });
  origin = await createOrigin();
  return () => store.close();
});

function createOrigin(): Promise<Queue> {
  return createQueue(store, { messageTtlSeconds: 3600, maxReceives: 1, deadLetterQueue: graveyard.name });
}

async function bury(
  queue: Queue,
  count: number,
  overrides: Partial<Parameters<typeof message>[0]> = {},
): Promise<Buffer[]> {
  // One by one, so that each message has a pack and a delivery of its own.
  const ids: Buffer[] = [];
  for (let sent = 0; sent < count; sent += 1) {
    ids.push(...(await store.at(START).messages.enqueue(queue.name, [message(overrides)])));
  }
  await claimAll(store, queue, START);
  expect(await deadLetterAll(store, queue, START + 2 * MINUTE)).toBe(count);
  return ids;
}

const idsIn = (queue: Queue): Promise<string[]> => owedIds(store, queue);

describe('redrive', () => {
  test('returns each delivery as new to the queue of its enqueue, a bounded number at a time', async () => {
    const second = await createOrigin();
    const ours = await bury(origin, 5);
    const theirs = await bury(second, 3);
    const moved = new Map<number, number>();
    let batches = 0;
    for (let after: Buffer | null = FIRST_ID; after !== null; batches += 1) {
      const batch: Awaited<ReturnType<typeof store.unleased.redrive>> = await store
        .at(LATER)
        .unleased.redrive(graveyard.id, after, 3);
      for (const [to, count] of batch.moved) moved.set(to, (moved.get(to) ?? 0) + count);
      expect(batch.skipped).toBe(0);
      after = batch.next;
    }
    expect(batches).toBe(3);
    expect(moved).toEqual(
      new Map([
        [origin.id, 5],
        [second.id, 3],
      ]),
    );
    expect(await idsIn(origin)).toEqual(hex(ours));
    expect(await idsIn(second)).toEqual(hex(theirs));
    expect(await idsIn(graveyard)).toEqual([]);
    const again = await claimAll(store, origin, LATER);
    expect(again.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1, 1, 1]);
  });

  test('never moves more than asked if its COMMIT gets no answer', async () => {
    await bury(origin, 4);
    const losing = new UnleasedRepository(losingAnswers(store.at(LATER).database));
    // The repeat does not move others in place of those that the first try has moved.
    expect(await losing.redrive(graveyard.id, FIRST_ID, 100, 3)).toMatchObject({ moved: new Map(), left: 4 });
    expect(await idsIn(origin)).toHaveLength(3);
    // All that is left may move, so a repeat is harmless. It counts only what it moved itself.
    const { moved, left, next } = await losing.redrive(graveyard.id, FIRST_ID, 100, 3);
    expect({ moved, left, next }).toEqual({ moved: new Map(), left: 1, next: null });
    expect(await idsIn(origin)).toHaveLength(4);
  });

  test('skips orphaned, native, leased, expired and locked deliveries', async () => {
    const lost = await createOrigin();
    const [orphan] = await bury(lost, 1);
    await store.queues.delete(lost.name);
    const expired = await bury(origin, 1, { expiresInSeconds: 240 });
    const [leased] = await bury(origin, 1, { priority: 9 });
    const [taken] = await store
      .at(START + 3 * MINUTE)
      .messages.dequeue(graveyard, { maxMessages: 1, leaseSeconds: 3000 });
    expect(taken?.messageId).toEqual(leased);
    const [native] = await store.at(START).messages.enqueue(graveyard.name, [message()]);
    const [held] = await bury(origin, 1);
    const other = await openSession(store);
    await other.write('START TRANSACTION');
    await other.read('SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? AND pack_id = ? FOR UPDATE', [
      graveyard.id,
      held,
    ]);
    const goes = await bury(origin, 2);

    const batch = await store.at(LATER).unleased.redrive(graveyard.id, FIRST_ID, 100);
    expect(batch).toEqual({ moved: new Map([[origin.id, 2]]), skipped: 2, left: 1, next: null });
    expect(await idsIn(origin)).toEqual(hex(goes));
    expect(await idsIn(graveyard)).toEqual(hex([orphan!, ...expired, leased!, native!, held!]));
    await other.end();
    // The lease is still valid.
    expect(await store.at(LATER).messages.ack(graveyard.id, [taken!])).toEqual([null]);
    expect(await store.at(LATER).unleased.redrive(graveyard.id, FIRST_ID, 100)).toMatchObject({
      moved: new Map([[origin.id, 1]]),
    });
  });

  test('takes a delivery in part if it may move only so many messages, and leaves the rest where it was', async () => {
    const ids = await store.at(START).messages.enqueue(origin.name, numbered(10));
    await claimAll(store, origin, START);
    expect(await deadLetterAll(store, origin, START + 2 * MINUTE)).toBe(10);
    expect(await store.at(LATER).unleased.redrive(graveyard.id, FIRST_ID, 100, 4)).toEqual({
      moved: new Map([[origin.id, 4]]),
      skipped: 0,
      left: 6,
      next: FIRST_ID,
    });
    expect(await idsIn(origin)).toEqual(hex(ids.slice(0, 4)));
    expect(await idsIn(graveyard)).toEqual(hex(ids.slice(4)));
    const dead = await claimAll(store, graveyard, LATER);
    expect(hex(dead.map(({ messageId }) => messageId))).toEqual(hex(ids.slice(4)));
    expect(bodies(await claimAll(store, origin, LATER))).toEqual(['0', '1', '2', '3']);
  });

  test('splits a pack whose messages came back in parts, and no message is owed twice', async () => {
    const ids = await store.at(START).messages.enqueue(origin.name, numbered(6));
    const taken = await claimAll(store, origin, START);
    await store.at(START).messages.batches.reject({ queueId: origin.id, receipts: taken.slice(0, 4) });
    for (const [most, there] of [
      [1, 1],
      [2, 3],
      [5, 4],
    ] as const) {
      await store.at(START).unleased.redrive(graveyard.id, FIRST_ID, 100, most);
      expect(await idsIn(graveyard)).toEqual(hex(ids.slice(there, 4)));
    }
    // The two messages under their lease stay so, beside the ready ones of the same pack.
    expect(await idsIn(origin)).toEqual(hex(ids));
    expect(await store.at(START).messages.ack(origin.id, taken)).toEqual([
      ...taken.slice(0, 4).map(() => 'lease-lost'),
      null,
      null,
    ]);
    const again = await claimAll(store, origin, START);
    expect(again.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1, 1]);
    expect(bodies(again).toSorted()).toEqual(['0', '1', '2', '3']);
  });
});
