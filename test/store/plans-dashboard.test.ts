import { newPackId } from '@rowmq/contract';
import { digestOf, type Queue, SessionRepository } from '@rowmq/store';
import type { Connection } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SessionClock } from '../support/clock.js';
import { insertQueues } from '../support/many-queues.js';
import { storeLonely } from '../support/packs.js';
import { openPlanner, planOf, readsOf } from '../support/plans.js';
import { recordStatements } from '../support/statements.js';
import { createQueue, openStore, type TestStore } from '../support/store.js';

/*
 * The plans of the statements that every open page of the dashboard repeats. Like plans.test.ts, it
 * explains the text that the store sends, on empty, small and large tables.
 */

const T0 = 1_800_000_000_000;
const MINUTE = 60_000;
const BATCH = 1000;
/** The queues that a broker counts together. */
const TOGETHER = 200;

let store: TestStore;
let connection: Connection;
let deep: Queue;
let empty: Queue;
let others: number[];
let statements: string[];

beforeAll(async () => {
  store = await openStore();
  store.at(T0);
  connection = await openPlanner(store);
  await connection.query(new SessionClock(() => T0).statement);
  await insertQueues(
    connection,
    Array.from({ length: TOGETHER }, (_, index) => `plans-${index}`),
  );
  others = (await store.queues.list()).map(({ id }) => id);
  [deep, empty] = [await createQueue(store), await createQueue(store)];
  statements = recordStatements(store.database);
});
afterAll(async () => {
  await connection.end();
  await store.close();
});

async function inBatches(count: number, insert: (from: number, to: number) => Promise<unknown>): Promise<void> {
  for (let from = 0; from < count; from += BATCH) await insert(from, Math.min(count, from + BATCH));
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, index) => from + index);

/** One queue has half of the messages. */
async function fillDeliveries(rows: number): Promise<void> {
  for (const table of ['delivery', 'pack']) await connection.query(`DELETE FROM ${table}`);
  await inBatches(rows, async (from, to) => {
    const some = range(from, to).map((index) => ({
      packId: newPackId(T0),
      queueId: index % 2 === 0 ? deep.id : (others[index % others.length] as number),
      body: 'one',
      availableAt: T0,
      expiresAt: T0 + MINUTE,
    }));
    for (const { sql, values } of storeLonely(some)) await connection.query(sql, values);
  });
  await connection.query('ANALYZE TABLE delivery, pack');
}

/** A day of minutes, of which the last hour is a twenty-fourth. */
async function fillMinutes(rows: number): Promise<void> {
  await connection.query('DELETE FROM queue_minute');
  const now = T0 / MINUTE;
  await inBatches(rows, async (from, to) =>
    connection.query('INSERT INTO queue_minute (minute, queue_id, enqueued) VALUES ?', [
      range(from, to).map((index) => [now - (index % 1440), others[Math.floor(index / 1440)], 1]),
    ]),
  );
  await connection.query('ANALYZE TABLE queue_minute');
}

async function fillSessions(rows: number): Promise<void> {
  await connection.query('DELETE FROM dashboard_session');
  await inBatches(rows, async (from, to) =>
    connection.query('INSERT INTO dashboard_session (digest, key_id, key_digest, expires_at) VALUES ?', [
      range(from, to).map((index) => [`cookie ${index}`, 'key', `key ${index % 100}`, T0 + MINUTE + index]),
    ]),
  );
  await connection.query('ANALYZE TABLE dashboard_session');
}

/** The recorded statement that matches. */
function sent(pattern: RegExp): string {
  const statement = statements.map((sql) => sql.trim()).find((sql) => pattern.test(sql));
  if (statement === undefined) throw new Error(`no statement like ${pattern}`);
  return statement;
}

async function countOf(ids: readonly number[]): Promise<string> {
  statements.length = 0;
  await store.browse.statsOfSeveral(ids);
  return sent(/GROUP BY queue_id$/);
}

describe.each([0, 3, 200, 20_000])('with %i rows', (rows) => {
  it('the counts of one queue and of many read the deliveries of these queues by their key', async () => {
    await fillDeliveries(rows);
    const [one, many] = [await countOf([empty.id]), await countOf([...others, empty.id])];
    expect({ one: await planOf(connection, one), many: await planOf(connection, many) }).toEqual({
      one: 'ref on PRIMARY (4)',
      many: 'range on PRIMARY (4)',
    });
    // A neighbour has half of the rows.
    expect(await readsOf(connection, one)).toBeLessThan(10);
    expect(await readsOf(connection, many)).toBeLessThan(rows / 2 + 5 * TOGETHER);
  });

  it('the last hour of all queues reads the minutes of one hour', async () => {
    await fillMinutes(rows);
    statements.length = 0;
    await store.minutes.stretches();
    const sql = sent(/FROM queue_minute/);
    // GROUP BY collects the sums of each queue.
    expect(await planOf(connection, sql)).toMatch(/^range on PRIMARY \(4\), (temporary|filesort)$/);
  });

  it('a session is found by its cookie, and a login touches those of its key and those that expired', async () => {
    await fillSessions(rows);
    const sessions = new SessionRepository(store.database);
    const login = { digest: digestOf(`login ${rows}`).toString(), keyId: 'key', keyDigest: 'key 1' };
    for (let index = 0; index < 101; index += 1)
      await sessions.add({ ...login, digest: `${login.digest.slice(0, 60)}${index}` }, 60 + index);
    statements.length = 0;
    await sessions.add(login, 3600);
    await sessions.find(login.digest);
    // The server plans no key that names no row.
    const find = await planOf(connection, sent(/^SELECT .*`digest` = '/s));
    await sessions.remove(login.digest);
    const plans = {
      expired: await planOf(connection, sent(/^DELETE FROM dashboard_session WHERE expires_at/)),
      oldest: await planOf(connection, sent(/^SELECT .* LIMIT 1 OFFSET 100$/s)),
      surplus: await planOf(connection, sent(/^DELETE FROM dashboard_session WHERE key_digest/)),
      find,
      logout: await planOf(connection, sent(/^DELETE FROM `dashboard_session` WHERE/)),
    };
    expect(plans).toEqual({
      expired: 'range on session_by_expiry (8)',
      oldest: 'ref on session_by_key (66)',
      // In a small table that has little but sessions of one key, either index will do.
      surplus: expect.stringMatching(
        rows < 200 ? /^range on session_by_(key \(74\)|expiry \(8\))$/ : /^range on session_by_key \(74\)$/,
      ),
      find: 'const on PRIMARY (66)',
      logout: 'range on PRIMARY (66)',
    });
  });
});
