import { Database, openDataSource, poolOf } from '@rowmq/store';
import type { DataSource } from 'typeorm';
import { beforeEach, expect, test } from 'vitest';
import { DatabaseProxy } from '../support/database-proxy.js';
import { testServer } from '../support/servers.js';
import { openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

const DEADLINE_MS = 1000;

let store: TestStore;
let proxy: DatabaseProxy;
let source: DataSource;
let database: Database;

beforeEach(async () => {
  store = await openStore();
  proxy = await DatabaseProxy.start(store.url);
  source = await openDataSource({ url: proxy.url, poolSize: 1 });
  database = new Database(source, DEADLINE_MS);
  return async () => {
    await source.destroy();
    await proxy.close();
    await store.close();
  };
});

test('a connection whose settings get no answer fails its requests in time, and leaves its place in the pool', async () => {
  (await poolOf(source).promise().getConnection()).connection.destroy();
  proxy.swallowed = 'SET SESSION autocommit';
  await expect(database.read('SELECT 1 AS one')).rejects.toMatchObject({
    code: expect.stringMatching(/^(database-unavailable|overloaded)$/),
  });
  proxy.heal();
  expect(
    await eventually('the place is free', async () => database.read('SELECT 1 AS one').catch(() => false)),
  ).toEqual([{ one: 1 }]);
}, 60_000);

test.runIf(testServer().kind === 'mysql')(
  'the server soon ends a SELECT whose caller has given up',
  async () => {
    const slow =
      'SELECT COUNT(*) FROM information_schema.COLUMNS a, information_schema.COLUMNS b, information_schema.COLUMNS c';
    await expect(database.read(slow)).rejects.toMatchObject({ code: 'database-unavailable' });
    const running = `SELECT 1 FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT COUNT(*) FROM information_schema.COLUMNS%'`;
    await eventually('no such SELECT runs', async () => (await store.database.read(running)).length === 0);
  },
  60_000,
);
