import { setTimeout as sleep } from 'node:timers/promises';
import { type Database, LEASE_GRACE_MS, MessageRepository, type Queue, type Transaction } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createQueue, numbered, openStore, SingleMessages, type TestStore } from '../support/store.js';

const LEASE_SECONDS = 1;

let store: TestStore;

beforeAll(async () => {
  store = await openStore();
});

afterAll(async () => {
  await store.close();
});

/**
 * A database that carries a transaction out, does not say so, and is not there for a while: what a
 * failover may do to a COMMIT. `meanwhile` happens before the next try.
 */
function forgetting(database: Database, meanwhile: () => Promise<void>): Database {
  const forgetful = Object.create(database) as Database;
  forgetful.transaction = async <T>(work: (tx: Transaction) => Promise<T>): Promise<T> => {
    await database.transaction(work);
    await meanwhile();
    return database.transaction((tx) => work(Object.assign(Object.create(tx) as Transaction, { commitUnknown: true })));
  };
  return forgetful;
}

async function receiveCounts(queue: Queue): Promise<number[]> {
  const rows = await store.database.read<{ count: number }>(
    'SELECT receive_count AS count FROM delivery WHERE queue_id = ? ORDER BY message_id',
    [queue.id],
  );
  return rows.map(({ count }) => Number(count));
}

describe('a claim whose COMMIT got no answer, and which is tried again', () => {
  test.each([
    ['at once', 0],
    ['when its leases have run out', LEASE_SECONDS * 1000 + LEASE_GRACE_MS + 100],
  ])('%s: counts one hand-out each', async (_, pauseMs) => {
    const queue = await createQueue(store);
    await store.messages.enqueue(queue.name, numbered(3));
    const messages = new SingleMessages(new MessageRepository(forgetting(store.database, () => sleep(pauseMs))));
    const leased = await messages.dequeue(queue, { maxMessages: 3, leaseSeconds: LEASE_SECONDS });
    expect(leased.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1]);
    expect(await receiveCounts(queue)).toEqual([1, 1, 1]);
  });

  test('when its leases have run out and another has taken the messages: leaves those to that one', async () => {
    const queue = await createQueue(store);
    await store.messages.enqueue(queue.name, numbered(3));
    const takenByAnother = async (): Promise<void> => {
      await sleep(LEASE_SECONDS * 1000 + LEASE_GRACE_MS + 100);
      const taken = await store.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 60 });
      expect(taken.map(({ receiveCount }) => receiveCount)).toEqual([2, 2, 2]);
    };
    const messages = new SingleMessages(new MessageRepository(forgetting(store.database, takenByAnother)));
    expect(await messages.dequeue(queue, { maxMessages: 3, leaseSeconds: LEASE_SECONDS })).toEqual([]);
    expect(await receiveCounts(queue)).toEqual([2, 2, 2]);
  });
});
