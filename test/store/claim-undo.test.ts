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
 * A database that commits a transaction, loses the answer, and is unreachable for a while. A
 * failover may do this to a COMMIT. `meanwhile` runs before the retry.
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

describe('a claim that retries because its COMMIT got no answer', () => {
  test.each([
    ['at once', 0],
    ['when its leases have run out', LEASE_SECONDS * 1000 + LEASE_GRACE_MS + 100],
  ])('counts one receive for each message when it retries %s', async (_, pauseMs) => {
    const queue = await createQueue(store);
    await store.messages.enqueue(queue.name, numbered(3));
    const messages = new SingleMessages(new MessageRepository(forgetting(store.database, () => sleep(pauseMs))));
    const leased = await messages.dequeue(queue, { maxMessages: 3, leaseSeconds: LEASE_SECONDS });
    expect(leased.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1]);
    expect(await receiveCounts(queue)).toEqual([1, 1, 1]);
  });

  test('leaves the messages to another consumer that claimed them after its leases ran out', async () => {
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
