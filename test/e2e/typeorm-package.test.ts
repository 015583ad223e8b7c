import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type Connection, createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useBroker } from '../support/api.js';
import { FORMATS, NEST_MAJORS, PackedProject } from '../support/packed-project.js';
import { createDatabase, type TestDatabase } from '../support/servers.js';

/* The tarball of the transactional enqueue, in a service with a database beside RowMQ's. */

const shared = useBroker();
let own: TestDatabase;
let connection: Connection;

beforeAll(async () => {
  own = await createDatabase();
  connection = await createConnection({ uri: own.url });
  await connection.query('CREATE TABLE orders (article VARCHAR(20) PRIMARY KEY)');
});
afterAll(async () => {
  await connection.end();
  await own.drop();
});

const SERVICE = `
import 'reflect-metadata';
import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { enqueue, RowmqError } from '@rowmq/typeorm';
import { DataSource, type EntityManager } from 'typeorm';

const { SERVICE_URL: url = '', ROWMQ_DATABASE: database = '', QUEUE: queue = '' } = process.env;

@Injectable()
class Shop {
  constructor(readonly dataSource: DataSource) {}

  async place(manager: EntityManager, article: string, to = queue): Promise<void> {
    await manager.query('INSERT INTO orders (article) VALUES (?)', [article]);
    await enqueue(manager, to, [{ body: article }], { database });
  }
}

@Module({ imports: [TypeOrmModule.forRoot({ type: 'mysql', url })], providers: [Shop] })
class AppModule {}

async function main(): Promise<void> {
  const app = await NestFactory.createApplicationContext(AppModule, { logger: ['error', 'warn'] });
  const shop = app.get(Shop);
  await shop.dataSource.transaction((manager) => shop.place(manager, 'committed'));
  const rolledBack = await shop.dataSource
    .transaction(async (manager) => {
      await shop.place(manager, 'rolled back');
      throw new Error('changed my mind');
    })
    .catch((error: Error) => error.message);
  const refused = await shop.dataSource
    .transaction((manager) => shop.place(manager, 'refused', 'no-such-queue'))
    .catch((error: unknown) => (error instanceof RowmqError ? error.code : String(error)));
  console.log(JSON.stringify([rolledBack, refused]));
  await app.close();
}
void main();
`;

describe.each(NEST_MAJORS)('@rowmq/typeorm packed and installed beside Nest %i and its TypeORM', (nest) => {
  let project: PackedProject;
  beforeAll(async () => {
    const names = [
      '@nestjs/common',
      '@nestjs/core',
      '@nestjs/typeorm',
      'typeorm',
      'mysql2',
      'reflect-metadata',
      'rxjs',
    ];
    project = await PackedProject.make('@rowmq/typeorm', nest, names);
  }, 300_000);
  afterAll(() => project.remove());

  it.each(FORMATS)(
    'compiles under strict in a service of type %s, and stores messages if and only if the service commits',
    async (format) => {
      await connection.query('DELETE FROM orders');
      const queue = await shared.newQueue();
      await project.write(format, 'service.ts', SERVICE);
      expect(await project.takeReadmeSamples(format, '@rowmq/typeorm')).toBe(1);
      await project.compile(format);
      const env = { SERVICE_URL: own.url, ROWMQ_DATABASE: shared.broker.database.name, QUEUE: queue.name };
      expect(await project.run(format, 'service.js', env)).toEqual({
        stdout: '["changed my mind","queue-not-found"]\n',
        stderr: '',
      });
      const [orders] = await connection.query('SELECT article FROM orders');
      expect(orders).toEqual([{ article: 'committed' }]);
      const messages = await queue.dequeue({ maxMessages: 10, waitSeconds: 1 });
      expect(messages.map(({ body }) => body)).toEqual(['committed']);
    },
    180_000,
  );

  it('carries the enqueue inside one file, which needs nothing but the contract, and types that need TypeORM', async () => {
    const folder = join(project.folder, 'node_modules', '@rowmq', 'typeorm');
    expect((await readdir(folder)).toSorted()).toEqual(['LICENSE', 'README.md', 'dist', 'package.json']);
    expect((await readdir(join(folder, 'dist'))).toSorted()).toEqual(['index.d.ts', 'index.js']);
    const importsOf = async (file: string): Promise<string[]> => {
      const text = await project.read(join('node_modules/@rowmq/typeorm/dist', file));
      return [...new Set([...text.matchAll(/\bfrom ['"](.*?)['"]/g)].map(([, name]) => name as string))].toSorted();
    };
    expect(await importsOf('index.js')).toEqual(['@rowmq/contract']);
    expect(await importsOf('index.d.ts')).toEqual(['@rowmq/contract', 'typeorm']);
    expect(await readdir(join(folder, '..'))).toEqual(['contract', 'typeorm']);
    const { exports, peerDependencies } = JSON.parse(await project.read('node_modules/@rowmq/typeorm/package.json'));
    expect(exports['.']).toEqual({ types: './dist/index.d.ts', default: './dist/index.js' });
    expect(peerDependencies).toEqual({ typeorm: '^0.3.0 || ^1.0.0' });
  });
});
