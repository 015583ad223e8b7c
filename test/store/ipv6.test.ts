import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';
import { Database, migrateDatabase, openDataSource, pendingMigrations } from '@rowmq/store';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/servers.js';

const hasIPv6 = Object.values(networkInterfaces()).some((addresses) =>
  addresses?.some(({ address }) => address === '::1'),
);

let server: Server;
let database: TestDatabase;
let url: string;

beforeEach(async () => {
  if (!hasIPv6) return;
  database = await createDatabase();
  const { hostname, port, host } = new URL(database.url);
  server = createServer((client) => {
    const upstream = connect(Number(port), hostname);
    client.pipe(upstream).pipe(client);
    for (const socket of [client, upstream]) {
      socket.on('error', () => {
        client.destroy();
        upstream.destroy();
      });
    }
  }).listen(0, '::1');
  await once(server, 'listening');
  url = database.url.replace(host, `[::1]:${(server.address() as AddressInfo).port}`);
});
afterEach(async () => {
  if (!hasIPv6) return;
  server.close();
  await database.drop();
});

test.skipIf(!hasIPv6)('a database with an IPv6 address can be used alone and in a list of hosts', async () => {
  expect(url).toContain('@[::1]:');
  await migrateDatabase(url);
  expect(await pendingMigrations(url)).toEqual([]);
  const { host } = new URL(url);
  for (const each of [url, url.replace(host, `[::1]:1,${host}`)]) {
    const dataSource = await openDataSource({ url: each, poolSize: 1 });
    const [row] = await new Database(dataSource).read<{ name: string }>('SELECT DATABASE() AS name');
    expect(row?.name).toBe(database.name);
    await dataSource.destroy();
  }
});
