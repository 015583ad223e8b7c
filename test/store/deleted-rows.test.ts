import { type Connection, createConnection } from 'mysql2/promise';
import { FIRST_ID } from '@rowmq/store';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { recordStatements } from '../support/statements.js';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';

/*
 * Rule 6 of docs/DESIGN.md, "Why there is no deadlock": a transaction with stale receipts keeps no
 * lock on the index position of a deleted row. A move back to that position therefore does not wait
 * for it. This rests on READ COMMITTED.
 *
 * A snapshot stops purge from removing the deleted rows. Without it there would be nothing to lock.
 */

let store: TestStore;
let snapshot: Connection;
let stale: Connection;
let statements: string[];

beforeAll(async () => {
  store = await openStore();
  statements = recordStatements(store.database);
  snapshot = await createConnection({ uri: store.url });
  stale = await createConnection({ uri: store.url });
  await snapshot.query('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ');
  await snapshot.query('START TRANSACTION WITH CONSISTENT SNAPSHOT');
  await snapshot.query('SELECT COUNT(*) FROM queue');
  await stale.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
});
afterAll(async () => {
  await stale.end();
  await snapshot.end();
  await store.close();
});

test.each([
  ['an ack', /^DELETE d\s+FROM delivery d FORCE INDEX/],
  ['an ack, nack or extend that checks receipts one by one', /ORDER BY message_id\s+FOR UPDATE$/],
])('%s with stale receipts does not block a redrive that moves the deliveries back', async (_, pattern) => {
  const graveyard = await createQueue(store);
  const queue = await createQueue(store, { deadLetterQueue: graveyard.name });
  await store.messages.enqueue(queue.name, [message(), message(), message()]);
  const receipts = await store.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
  expect(receipts).toHaveLength(3);
  const rejected = await store.messages.batches.reject({ queueId: queue.id, receipts });
  expect(rejected).toEqual([null, null, null]);

  statements.length = 0;
  const outcomes = await store.messages.ack(queue.id, receipts);
  expect(new Set(outcomes)).toEqual(new Set(['delivery-not-found']));
  const statement = statements.find((sql) => pattern.test(sql.trim()));
  expect(statement).toBeDefined();

  await stale.query('START TRANSACTION');
  try {
    await stale.query(statement as string);
    // The other transaction stays open, so a wait would end with database-unavailable.
    const { moved, left } = await store.unleased.redrive(graveyard.id, FIRST_ID, 10);
    expect({ moved, left }).toEqual({ moved: new Map([[queue.id, 3]]), left: 0 });
  } finally {
    await stale.query('ROLLBACK');
  }
});
