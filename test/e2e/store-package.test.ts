import { rm } from 'node:fs/promises';
import { createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { useBroker } from '../support/api.js';
import { PackedProject } from '../support/packed-project.js';
import { createDatabase, type TestDatabase } from '../support/servers.js';

/* The tarball of the transactional enqueue, in a service with a database of its own beside RowMQ's. */

const shared = useBroker();
let project: PackedProject;
let own: TestDatabase;

beforeAll(async () => {
  project = await PackedProject.make('store', ['typeorm', 'mysql2', 'reflect-metadata']);
  own = await createDatabase();
}, 300_000);
afterAll(async () => {
  await own.drop();
  await rm(project.folder, { recursive: true, force: true });
});

const SERVICE = `
import 'reflect-metadata';
import { enqueue, RowmqError } from '@rowmq/store';
import { DataSource, type EntityManager } from 'typeorm';

const { SERVICE_URL: url = '', ROWMQ_DATABASE: database = '', QUEUE: queue = '' } = process.env;
const dataSource = await new DataSource({ type: 'mysql', url }).initialize();
const place = async (manager: EntityManager, article: string, to = queue): Promise<void> => {
  await manager.query('INSERT INTO orders (article) VALUES (?)', [article]);
  await enqueue(manager, to, [{ body: article }], { database });
};
await dataSource.transaction((manager) => place(manager, 'committed'));
const rolledBack = await dataSource
  .transaction(async (manager) => {
    await place(manager, 'rolled back');
    throw new Error('changed my mind');
  })
  .catch((error: Error) => error.message);
const refused = await dataSource
  .transaction((manager) => place(manager, 'refused', 'no-such-queue'))
  .catch((error: unknown) => (error instanceof RowmqError ? error.code : String(error)));
console.log(JSON.stringify([rolledBack, refused]));
await dataSource.destroy();
`;

it('compiles under strict, and stores messages if and only if the service commits', async () => {
  const connection = await createConnection({ uri: own.url });
  await connection.query('CREATE TABLE orders (article VARCHAR(20) PRIMARY KEY)');
  const queue = await shared.newQueue();
  await project.write('service.ts', SERVICE);
  await project.compile();
  const env = { SERVICE_URL: own.url, ROWMQ_DATABASE: shared.broker.database.name, QUEUE: queue.name };
  expect(await project.run('service.js', env)).toEqual({
    stdout: '["changed my mind","queue-not-found"]\n',
    stderr: '',
  });
  const [orders] = await connection.query('SELECT article FROM orders');
  await connection.end();
  expect(orders).toEqual([{ article: 'committed' }]);
  const messages = await queue.dequeue({ maxMessages: 10, waitSeconds: 1 });
  expect(messages.map(({ body }) => body)).toEqual(['committed']);
}, 180_000);

it('has a README whose sample compiles', async () => {
  expect(await project.takeReadmeSamples('store')).toBe(1);
  await project.compile('--noEmit');
}, 120_000);
