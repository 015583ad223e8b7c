import { type Connection, createConnection } from 'mysql2/promise';
import { newMessageId } from '@rowmq/contract';
import type { Queue } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testServer } from '../support/servers.js';
import { recordStatements } from '../support/statements.js';
import { createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

/*
 * The plans of the hot statements, as the server makes them for the very text that the repository sends, on empty, small and large tables. A plan that changes with the
 * size of the table, or that reads more than it must, meets rows that others hold.
 */

const T0 = 1_800_000_000_000;
const HOUR = 3_600_000;

let store: TestStore;
let connection: Connection;
let queue: Queue;
let statements: string[];

beforeAll(async () => {
  store = await openStore();
  await store.partitions.createAhead({ widthMinutes: 60, aheadMinutes: 600, now: T0 });
  queue = await createQueue(store);
  await store.database.write('UPDATE queue SET id = 1 WHERE id = ?', [queue.id]);
  queue = await store.queues.getFresh(queue.name);
  statements = recordStatements(store.database);
  connection = await createConnection({ uri: store.url });
});
afterAll(async () => {
  await connection.end();
  await store.close();
});

/** One of each verb, on messages of the third hour. Returns the statements by what they do. */
async function live(): Promise<Map<string, string>> {
  statements.length = 0;
  const now = T0 + 3 * HOUR;
  const sent = Array.from({ length: 20 }, () => message({ id: newMessageId(now), priority: 9 }));
  await store.messages.enqueue(queue.name, sent, { now });
  const leased = await store.messages.dequeue(queue, { maxMessages: 20, leaseSeconds: 30, now });
  await store.messages.extend(queue.id, leased, { leaseSeconds: 60, now });
  await store.messages.nack(queue.id, leased.slice(0, 5), { delaySeconds: 60, now });
  await store.messages.release(queue.id, leased.slice(5, 10), { now });
  await store.messages.ack(queue.id, leased.slice(10), { now });
  const positions = sent.map(({ id }) => ({ messageId: id, priorityRank: 0, availableAt: now }));
  await store.messages.expire(queue.id, positions, { now });
  const verbs: [string, RegExp][] = [
    ['enqueue: lock queue', /FROM queue WHERE name/],
    ['claim: find', /LIMIT \d+\s+FOR UPDATE SKIP LOCKED$/],
    ['claim: lease', /SET available_at = \d+,\s+lease_token = x'\w+',\s+receive/i],
    ['claim: bodies', /FROM message FORCE/],
    ['ack, nack, extend: lock', /ORDER BY message_id\s+FOR UPDATE$/],
    ['extend', /SET available_at = \d+\s+WHERE/],
    ['nack', /nack_reason = NULL\s+WHERE/],
    ['release', /receive_count - 1/],
    ['ack: delete', /^\s*DELETE d/],
    [
      'expire, dead-letter, redrive, purge: lock',
      /^SELECT message_id AS messageId\s+FROM delivery FORCE INDEX \(delivery_next\)/,
    ],
  ];
  return new Map(
    verbs.map(([verb, pattern]) => {
      const statement = statements.find((sql) => pattern.test(sql.trim()));
      if (statement === undefined) throw new Error(`no statement for ${verb}`);
      return [verb, statement];
    }),
  );
}

async function fill(rows: number): Promise<void> {
  await connection.query('DELETE FROM delivery');
  await connection.query('DELETE FROM message');
  for (let done = 0; done < rows; done += 1000) {
    const some = numbered(Math.min(1000, rows - done), { priority: 4 }).map((one, index) => ({
      ...one,
      id: newMessageId(T0 + ((done + index) % 6) * HOUR),
    }));
    await store.messages.enqueue(queue.name, some, { now: T0 });
  }
  await connection.query('ANALYZE TABLE delivery, message');
}

interface Plan {
  table: string;
  partitions: string | null;
  type: string;
  key: string | null;
  Extra: string;
}

async function explain(statement: string): Promise<Plan[]> {
  const form = testServer().kind === 'mysql' ? 'EXPLAIN FORMAT=TRADITIONAL' : 'EXPLAIN PARTITIONS';
  const [plans] = await connection.query(`${form} ${statement}`);
  return plans as Plan[];
}

/** What must not change: how each table is reached, through which index, in how many partitions, and whether anything is sorted. */
function essence(plans: Plan[]): string[] {
  return plans
    .filter(({ table }) => table !== null && table !== 'ids' && table !== 'seen')
    .map(({ table, partitions, type, key, Extra }) => {
      const sorted = /filesort|temporary/i.exec(Extra ?? '');
      return `${table}: ${type} on ${key}, ${partitions?.split(',').length ?? 'all'} partition(s)${sorted ? `, ${sorted[0]}` : ''}`;
    });
}

describe.each([0, 3, 200, 20_000])('with %i messages in the queue', (rows) => {
  it('every hot statement reads by the intended index, in one partition, without sorting', async () => {
    await fill(rows);
    const plans: Record<string, string[]> = {};
    for (const [verb, statement] of await live()) plans[verb] = essence(await explain(statement));
    expect(plans).toEqual({
      'enqueue: lock queue': ['queue: const on queue_by_name, all partition(s)'],
      'claim: find': ['delivery: range on delivery_next, 1 partition(s)'],
      'claim: lease': ['delivery: range on PRIMARY, 1 partition(s)'],
      'claim: bodies': ['message: range on PRIMARY, 1 partition(s)'],
      'ack, nack, extend: lock': ['delivery: range on PRIMARY, 1 partition(s)'],
      extend: ['delivery: range on PRIMARY, 1 partition(s)'],
      nack: ['delivery: range on PRIMARY, 1 partition(s)'],
      release: ['delivery: range on PRIMARY, 1 partition(s)'],
      'ack: delete': ['d: eq_ref on PRIMARY, 1 partition(s)'],
      'expire, dead-letter, redrive, purge: lock': [
        expect.stringMatching(/^delivery: (range|ref) on delivery_next, 1 partition\(s\)$/),
      ],
    });
  });
});

describe('locks', () => {
  async function lockedRows(work: () => Promise<unknown>): Promise<number> {
    await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
    await connection.beginTransaction();
    try {
      await work();
      const [rows] = await connection.query(
        'SELECT trx_rows_locked AS n FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = CONNECTION_ID()',
      );
      return Number((rows as { n: number }[])[0]?.n ?? 0);
    } finally {
      await connection.rollback();
    }
  }

  it('of a claim are as many as the claim is large, not as the backlog is deep', async () => {
    await fill(20_000);
    const claim = (await live()).get('claim: find') as string;
    for (const size of [1, 10, 100]) {
      const statement = claim.replace(/LIMIT \d+/, `LIMIT ${size}`);
      // An index entry and a row each, and at the end of a range the entry after it.
      expect(await lockedRows(() => connection.query(statement))).toBeLessThanOrEqual(2 * size + 2);
    }
  });

  it('of an ack are its own rows, in a small queue as in a large one', async () => {
    for (const rows of [3, 200]) {
      await fill(rows);
      const verbs = await live();
      const [lock, remove] = [verbs.get('ack, nack, extend: lock') as string, verbs.get('ack: delete') as string];
      expect(await lockedRows(() => connection.query(lock))).toBeLessThanOrEqual(2 * 20 + 2);
      expect(await lockedRows(() => connection.query(remove))).toBeLessThanOrEqual(2 * 10 + 2);
    }
  });

  it('of a claim are skipped by other claims and do not block acks of other deliveries', async () => {
    await fill(50);
    const now = T0 + HOUR;
    const held = await store.messages.dequeue(queue, { maxMessages: 5, leaseSeconds: 30, now });
    const claim = (await live()).get('claim: find') as string;
    await lockedRows(async () => {
      const [locked] = await connection.query(claim.replace(/LIMIT \d+/, 'LIMIT 20'));
      expect(locked).toHaveLength(20);
      const others = await store.messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 30, now });
      const lockedIds = new Set((locked as { messageId: Buffer }[]).map(({ messageId }) => messageId.toString('hex')));
      expect(others.filter(({ messageId }) => lockedIds.has(messageId.toString('hex')))).toEqual([]);
      expect(others.length).toBeGreaterThan(0);
      expect(await store.messages.ack(queue.id, held, { now })).toEqual([null, null, null, null, null]);
    });
  });
});
