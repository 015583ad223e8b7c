import type { Queue } from '@rowmq/store';
import { createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';

const NOW = 1_800_000_000_000;
const DAY = 86_400;
/** Longer than all of this takes. */
const LEASE_SECONDS = 3600;

let store: TestStore;
let queue: Queue;
beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());
beforeEach(async () => {
  queue = await createQueue(store);
});

/** Leases a message. The clock of the broker that leased it said `NOW` less this age. */
async function leaseOfAge(seconds: number): Promise<void> {
  await store.at(NOW).messages.enqueue(queue.name, [message()]);
  const [leased] = await store.at(NOW).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: LEASE_SECONDS });
  const token = Buffer.alloc(8, 1);
  token.writeUIntBE((NOW / 1000 - seconds) % 2 ** 24, 0, 3);
  const connection = await createConnection({ uri: store.url });
  await connection.query('UPDATE delivery SET lease_token = ? WHERE queue_id = ? AND lease_token = ?', [
    token,
    queue.id,
    leased?.leaseToken,
  ]);
  await connection.end();
}

/** The age of the queue's oldest lease, and since when the oldest message is leased. */
async function ages(): Promise<{ inSeconds: number | null; since: number | null | undefined }> {
  const { browse } = store.at(NOW);
  const { oldestLeaseAgeSeconds } = await browse.stats(queue.id);
  const { deliveries } = await browse.browse(queue.id, 'leased', 10, undefined);
  return { inSeconds: oldestLeaseAgeSeconds, since: deliveries[0]?.lease?.since };
}

test.each([
  [0, 0],
  [90, 90],
  [14 * DAY, 14 * DAY],
  [-3600, 0],
])('a lease of the age %d s is told to be %d s old', async (age, told) => {
  await leaseOfAge(age);
  expect(await ages()).toEqual({ inSeconds: told, since: NOW - told * 1000 });
});

test.each([-3601, -2 * 3600, -30 * DAY, 14 * DAY + 1])('a lease of the age %d s is of unknown age', async (age) => {
  await leaseOfAge(age);
  expect(await ages()).toEqual({ inSeconds: null, since: null });
});

test('a lease of unknown age does not hide the age of another', async () => {
  await leaseOfAge(-2 * 3600);
  await leaseOfAge(90);
  expect((await ages()).inSeconds).toBe(90);
});
