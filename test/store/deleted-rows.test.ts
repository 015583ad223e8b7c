import { type Connection, createConnection } from 'mysql2/promise';
import { FIRST_ID, type LeasedMessage, type Queue } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { recordStatements } from '../support/statements.js';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';

/*
 * Rule 6 of docs/locking.md, "Why there is no deadlock": a transaction with stale receipts keeps no
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

const ack = (queue: Queue, receipts: LeasedMessage[]) => store.messages.ack(queue.id, receipts);
/** Acks one of the two messages of each pack. */
const ackHalf = (queue: Queue, receipts: LeasedMessage[]) =>
  ack(
    queue,
    receipts.filter((__, index) => index % 2 === 0),
  );
const nack = (queue: Queue, receipts: LeasedMessage[]) => store.messages.nack(queue.id, receipts, { delaySeconds: 0 });

describe.each([
  ['one claim', 1],
  ['so many claims that the statements join a list', 51],
])('stale receipts of %s', (_, claims) => {
  test.each([
    ['an ack that locks deliveries', ack, /^SELECT[^]*lease_token[^]*FOR UPDATE/],
    ['an ack that deletes deliveries', ack, /^DELETE d FROM/],
    ['an ack that clears members', ackHalf, /^UPDATE /],
    ['a nack', nack, /^SELECT[^]*lease_token[^]*FOR UPDATE/],
  ] as const)('in %s do not block a redrive that moves the deliveries back', async (__, verb, pattern) => {
    const graveyard = await createQueue(store);
    const queue = await createQueue(store, { deadLetterQueue: graveyard.name });
    // Each enqueue makes a pack of its own.
    const packs = Math.max(3, claims);
    for (let pack = 0; pack < packs; pack += 1) await store.messages.enqueue(queue.name, [message(), message()]);
    const receipts: LeasedMessage[] = [];
    const maxMessages = (packs * 2) / claims;
    while (receipts.length < packs * 2) {
      receipts.push(...(await store.messages.dequeue(queue, { maxMessages, leaseSeconds: 600 })));
    }
    const rejected = await store.messages.batches.reject({ queueId: queue.id, receipts });
    expect(rejected).toEqual(receipts.map(() => null));

    statements.length = 0;
    expect(new Set(await verb(queue, receipts))).toEqual(new Set(['delivery-not-found']));
    const sent = statements.map((sql) => sql.trim());
    const statement = sent.findIndex((sql) => pattern.test(sql));
    expect(statement).toBeGreaterThan(-1);
    expect(sent[statement]?.includes('JSON_TABLE')).toBe(claims > 1);

    await stale.query('START TRANSACTION');
    try {
      await stale.query(sent[statement] as string);
      // The other transaction stays open, so a wait would end with database-unavailable.
      const { moved, left } = await store.unleased.redrive(graveyard.id, FIRST_ID, 1000);
      expect({ moved, left }).toEqual({ moved: new Map([[queue.id, packs * 2]]), left: 0 });
    } finally {
      await stale.query('ROLLBACK');
    }
  });
});
