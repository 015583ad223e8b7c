import { setTimeout as sleep } from 'node:timers/promises';
import { LEASE_GRACE_MS, MessageRepository, type Queue } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { owedMessages } from '../support/deliveries.js';
import { losingAnswers } from '../support/lost-answer.js';
import { bodies, createQueue, numbered, openStore, SingleMessages, type TestStore } from '../support/store.js';
import { claimFrom } from '../support/claim-from.js';

const LEASE_SECONDS = 1;

let store: TestStore;

beforeAll(async () => {
  store = await openStore();
});

afterAll(async () => {
  await store.close();
});

async function receiveCounts(queue: Queue): Promise<number[]> {
  return (await owedMessages(store, queue)).map(({ receiveCount }) => receiveCount);
}

describe('a claim that retries because its COMMIT got no answer', () => {
  test('finds its own leases again and counts one receive for each message', async () => {
    const queue = await createQueue(store);
    await store.messages.enqueue(queue.name, numbered(3));
    const messages = new SingleMessages(new MessageRepository(losingAnswers(store.database)));
    const leased = await messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 60 });
    expect(leased.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1]);
    expect(bodies(leased)).toEqual(['0', '1', '2']);
    expect(await receiveCounts(queue)).toEqual([1, 1, 1]);
    expect(await store.messages.ack(queue.id, leased)).toEqual([null, null, null]);
  });

  test('finds its part of a delivery again, and the rest of it stays ready', async () => {
    const queue = await createQueue(store);
    await store.messages.enqueue(queue.name, numbered(5));
    const messages = new SingleMessages(new MessageRepository(losingAnswers(store.database)));
    const leased = await messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 });
    expect(bodies(leased)).toEqual(['0', '1']);
    const rest = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 });
    expect(bodies(rest)).toEqual(['2', '3', '4']);
    expect(await store.messages.ack(queue.id, [...leased, ...rest])).toEqual([null, null, null, null, null]);
  });

  test('hands out nothing when its leases have run out, and the next claim gets the messages', async () => {
    const queue = await createQueue(store);
    await store.messages.enqueue(queue.name, numbered(3));
    const pause = (): Promise<void> => sleep(LEASE_SECONDS * 1000 + LEASE_GRACE_MS + 100);
    const messages = new MessageRepository(losingAnswers(store.database, pause));
    const { leased: lost } = await claimFrom(messages, queue, [{ maxMessages: 3, leaseSeconds: LEASE_SECONDS }]);
    expect(lost).toEqual([[]]);
    const leased = await store.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 60 });
    expect(leased.map(({ receiveCount }) => receiveCount)).toEqual([2, 2, 2]);
    expect(await store.messages.ack(queue.id, leased)).toEqual([null, null, null]);
  });

  test('leaves the messages to another consumer that claimed them after its leases ran out', async () => {
    const queue = await createQueue(store);
    await store.messages.enqueue(queue.name, numbered(3));
    const takenByAnother = async (): Promise<void> => {
      await sleep(LEASE_SECONDS * 1000 + LEASE_GRACE_MS + 100);
      const taken = await store.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 60 });
      expect(taken.map(({ receiveCount }) => receiveCount)).toEqual([2, 2, 2]);
    };
    const messages = new SingleMessages(new MessageRepository(losingAnswers(store.database, takenByAnother)));
    expect(await messages.dequeue(queue, { maxMessages: 3, leaseSeconds: LEASE_SECONDS })).toEqual([]);
    expect(await receiveCounts(queue)).toEqual([2, 2, 2]);
  });
});
