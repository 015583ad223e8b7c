import { setTimeout as sleep } from 'node:timers/promises';
import { Database, DatabaseReport, openDataSource, PartitionRepository } from '@rowmq/store';
import { type Connection, createConnection } from 'mysql2/promise';
import type { DataSource } from 'typeorm';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { testServer } from '../support/servers.js';
import { recordStatements } from '../support/statements.js';
import { createQueue, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * The state of the server as the dashboard shows it. The server belongs to all tests of this
 * project, so other databases have locks and transactions, too.
 */

type ServerState = Awaited<ReturnType<DatabaseReport['read']>>;

const USER = `report_${process.pid}`;
/** Longer than InnoDB takes to count a table again that has grown. */
const COUNTED_MS = 60_000;

let store: TestStore;
let report: DatabaseReport;
let admin: Connection;

beforeAll(async () => {
  store = await openStore();
  report = new DatabaseReport(store.database);
  admin = await createConnection({ uri: store.url });
});
afterAll(async () => {
  await admin.end();
  await store.close();
});

const numberOf = async (sql: string): Promise<number> => {
  const [[row]] = (await admin.query(sql)) as unknown as [[{ Value?: string; n?: number }]];
  return Number(row.Value ?? row.n);
};

const sizeOf = ({ tables }: ServerState, name: string): ServerState['tables'][number] => {
  const found = tables.find((table) => table.name === name);
  if (found === undefined) throw new Error(`the report has no table ${name}`);
  return found;
};

test('the report names the server, its age, its connections and every table, the largest first', async () => {
  const before = await numberOf(`SHOW GLOBAL STATUS LIKE 'Uptime'`);
  const state = await report.read();
  const { kind, version } = testServer();
  expect(state.server).toBe(`${kind === 'mysql' ? 'MySQL' : 'MariaDB'} ${version}`);
  expect(state.upSeconds).toBeGreaterThanOrEqual(before);
  expect(state.upSeconds).toBeLessThanOrEqual(await numberOf(`SHOW GLOBAL STATUS LIKE 'Uptime'`));
  expect(state.maxConnections).toBe(await numberOf('SELECT @@max_connections AS n'));
  expect(state.connections).toBeGreaterThanOrEqual(2);
  expect(state.connections).toBeLessThanOrEqual(state.maxConnections);
  const [tables] = (await admin.query('SHOW TABLES')) as unknown as [Record<string, string>[]];
  expect(state.tables.map(({ name }) => name).toSorted()).toEqual(
    tables.flatMap((row) => Object.values(row)).toSorted(),
  );
  const sizes = state.tables.map(({ bytes }) => bytes);
  expect(sizes).toEqual(sizes.toSorted((one, other) => other - one));
  expect(Math.min(...sizes)).toBeGreaterThan(0);
});

test('the sizes of tables and partitions follow their growth', { timeout: 2 * COUNTED_MS }, async () => {
  const partitions = new PartitionRepository(store.database);
  const small = sizeOf(await report.read(), 'audit');
  expect(small.rows).toBeLessThan(100);
  const path = 'x'.repeat(900);
  const rows = Array.from({ length: 5000 }, () => [1, 'putQueue', path, 200, '127.0.0.1', 'id']);
  await store.database.write('INSERT INTO audit (at, action, path, status, address, request_id) VALUES ?', [rows]);
  const packs = Array.from({ length: 5000 }, (_, index) => {
    const id = Buffer.alloc(16);
    id.writeUInt32BE(index, 6);
    return [id, 1, 1, 1, Buffer.from('x')];
  });
  await store.database.write('INSERT INTO pack (id, queue_id, count, expires_at, payload) VALUES ?', [packs]);
  await eventually(
    'the report shows that the table has grown',
    async () => {
      const { rows: counted, bytes } = sizeOf(await report.read(), 'audit');
      return counted > 4000 && counted < 6000 && bytes > small.bytes + 5000 * 900;
    },
    COUNTED_MS,
  );
  await eventually(
    'the list of partitions shows that one has grown',
    async () => (await partitions.list()).some((partition) => partition.rows > 4000),
    COUNTED_MS,
  );
});

test('a transaction that stays open and a lock that somebody waits for are in the report', async () => {
  const queue = await createQueue(store);
  const [holder, waiter] = [await createConnection({ uri: store.url }), await createConnection({ uri: store.url })];
  try {
    await holder.query('START TRANSACTION');
    await holder.query('SELECT id FROM queue WHERE id = ? FOR UPDATE', [queue.id]);
    const waiting = waiter.query('SELECT id FROM queue WHERE id = ? FOR UPDATE', [queue.id]);
    const [{ rowLockWaits, longestTransactionSeconds, upSeconds }] = await eventually(
      'the report shows a wait, and a transaction that has been open for two seconds',
      async () => {
        // InnoDB renews the list of transactions only if nobody has read it for 100 ms.
        await sleep(120);
        const state = await report.read();
        return state.rowLockWaits >= 1 && (state.longestTransactionSeconds ?? 0) >= 2 && [state];
      },
    );
    expect(rowLockWaits).toBeGreaterThanOrEqual(1);
    // A time of another zone would be hours.
    expect(longestTransactionSeconds).toBeLessThanOrEqual(upSeconds);
    await holder.query('ROLLBACK');
    await waiting;
  } finally {
    holder.destroy();
    waiter.destroy();
  }
});

test('a deadlock is counted, and the list of old row versions has a length', async () => {
  const [one, other] = [await createQueue(store), await createQueue(store)];
  const before = await report.read();
  expect(before.historyLength).toBeGreaterThanOrEqual(0);
  const [first, second] = [await createConnection({ uri: store.url }), await createConnection({ uri: store.url })];
  const lock = async (connection: Connection, id: number): Promise<unknown> =>
    connection.query('SELECT id FROM queue WHERE id = ? FOR UPDATE', [id]);
  try {
    for (const connection of [first, second]) await connection.query('START TRANSACTION');
    await lock(first, one.id);
    await lock(second, other.id);
    const outcomes = await Promise.allSettled([lock(first, other.id), lock(second, one.id)]);
    expect(outcomes.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected']);
  } finally {
    first.destroy();
    second.destroy();
  }
  expect((await report.read()).deadlocks).toBeGreaterThan(before.deadlocks as number);
});

test('a user without the privilege PROCESS gets the rest of the report', async () => {
  const url = new URL(store.url);
  [url.username, url.password] = [USER, 'a-password-of-the-report'];
  await admin.query(`CREATE USER ${USER}@'127.0.0.1' IDENTIFIED BY '${url.password}'`);
  await admin.query(`GRANT SELECT, INSERT, UPDATE, DELETE ON ${url.pathname.slice(1)}.* TO ${USER}@'127.0.0.1'`);
  let source: DataSource | undefined;
  try {
    source = await openDataSource({ url: url.href, poolSize: 2 });
    const state = await new DatabaseReport(new Database(source)).read();
    expect(state.longestTransactionSeconds).toBeNull();
    const hidden = testServer().kind === 'mysql' ? null : expect.any(Number);
    expect(state).toMatchObject({ historyLength: hidden, deadlocks: hidden, connections: expect.any(Number) });
    expect(sizeOf(state, 'delivery').bytes).toBeGreaterThan(0);
  } finally {
    await source?.destroy();
    await admin.query(`DROP USER ${USER}@'127.0.0.1'`);
  }
});

test('the report reads no table of RowMQ', async () => {
  const statements = recordStatements(store.database);
  await report.read();
  const [tables] = (await admin.query('SHOW TABLES')) as unknown as [Record<string, string>[]];
  const names = tables.flatMap((row) => Object.values(row));
  const reading = statements.filter((sql) =>
    names.some((name) => new RegExp(`(FROM|JOIN) \`?${name}\\b`, 'i').test(sql)),
  );
  expect(reading).toEqual([]);
  expect(statements.filter((sql) => /information_schema\.TABLES/.test(sql))).toHaveLength(1);
});
