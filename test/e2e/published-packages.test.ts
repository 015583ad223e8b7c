import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Connection, createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useBroker } from '../support/api.js';
import { FORMATS, NEST_MAJORS, pack, PackedProject } from '../support/packed-project.js';
import { createDatabase, type TestDatabase } from '../support/servers.js';

/* The tarballs that users install, in projects of theirs. */

const PACKAGES = ['@rowmq/contract', '@rowmq/client', '@rowmq/typeorm'];
/** The command line, and the packages of RowMQ that it needs. */
const CLI_PACKAGES = ['@rowmq/contract', '@rowmq/client', '@rowmq/cli'];

const run = promisify(execFile);
const shared = useBroker();
let tarballFolder: string;
let tarballs: string[];
/** The database of a service, beside RowMQ's. */
let own: TestDatabase;
let connection: Connection;

beforeAll(async () => {
  tarballFolder = await mkdtemp(join(tmpdir(), 'rowmq-packed-'));
  tarballs = await pack(PACKAGES, tarballFolder);
  own = await createDatabase();
  connection = await createConnection({ uri: own.url });
  await connection.query('CREATE TABLE orders (article VARCHAR(20) PRIMARY KEY)');
}, 300_000);
afterAll(async () => {
  await connection.end();
  await own.drop();
  await rm(tarballFolder, { recursive: true, force: true });
});

const MODULE = `
import 'reflect-metadata';
import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Consumer, InjectQueue, type Message, OnMessage, type Queue, RowmqModule } from '@rowmq/client';
import { z } from 'zod';

const order = z.object({ article: z.string(), count: z.int() });
type Order = z.output<typeof order>;
let done: (order: Order) => void = () => undefined;
const mailed = new Promise<Order>((resolve) => (done = resolve));

@Consumer('packed', { concurrency: 2 })
class Mailer {
  @OnMessage()
  mail(placed: Order, message: Message<Order>): void {
    if (message.receiveCount === 1) done(placed);
  }
}

@Injectable()
class Shop {
  constructor(@InjectQueue('packed') readonly orders: Queue<Order>) {}
}

@Module({
  imports: [RowmqModule.forRoot({ url: process.env['ROWMQ_URL'] ?? '' }), RowmqModule.registerQueue({ name: 'packed', schema: order, create: true })],
  providers: [Mailer, Shop],
})
class AppModule {}

export async function main(): Promise<unknown> {
  const app = await NestFactory.createApplicationContext(AppModule, { logger: ['error', 'warn'] });
  await app.get(Shop).orders.enqueue({ article: 'tea', count: 2 });
  const order = await mailed;
  await app.close();
  return order;
}
`;

/*
 * Nest 11 and Nest 12 treat errors of event handlers differently. With both, a failed message must
 * come again.
 */
const TRANSPORT = `
import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Ctx, EventPattern, Payload } from '@nestjs/microservices';
import { RowmqHttpClient } from '@rowmq/client/core';
import { RejectException, RetryException, RowmqClient, type RowmqContext, RowmqServer } from '@rowmq/client/microservices';
import { firstValueFrom } from 'rxjs';

const url = process.env['ROWMQ_URL'] ?? '';
let done: (text: string) => void = () => undefined;
const handled = new Promise<string>((resolve) => (done = resolve));

@Controller()
class Orders {
  @EventPattern<string>('packed.created')
  created(@Payload() payload: { article: string }, @Ctx() context: RowmqContext): void {
    const { priority, receiveCount } = context.getMessage();
    if (payload.article === 'wax') throw new RejectException('not to be eaten');
    if (receiveCount === 1) throw new RetryException(1);
    done(payload.article + ' ' + priority + ' ' + receiveCount);
  }
}

@Module({ controllers: [Orders] })
class AppModule {}

export async function main(): Promise<unknown> {
  const broker = new RowmqHttpClient({ url });
  await broker.putQueue('packed.dead');
  await broker.putQueue('packed.created', { deadLetterQueue: 'packed.dead' });
  const strategy = new RowmqServer({ url, consumer: { waitSeconds: 1 } });
  const app = await NestFactory.createMicroservice(AppModule, { strategy, logger: ['error'] });
  await app.listen();
  const client = new RowmqClient({ url });
  await firstValueFrom(client.emit('packed.created', { article: 'jam' }));
  await firstValueFrom(client.emit('packed.created', { article: 'wax' }));
  const results = [await handled];
  const { messages } = await broker.dequeue('packed.dead', { waitSeconds: 20 });
  results.push(...messages.map(({ body }) => body));
  await app.close();
  await client.close();
  await broker.purge('packed.dead');
  await broker.close();
  return results;
}
`;

const CORE = `
import { RowmqHttpClient } from '@rowmq/client/core';

export async function main(): Promise<unknown> {
  const client = new RowmqHttpClient({ url: process.env['ROWMQ_URL'] ?? '' });
  await client.putQueue('core');
  await client.enqueue('core', { messages: [{ body: 'honey' }] });
  const { messages } = await client.dequeue('core');
  await client.purge('core');
  await client.close();
  return messages.map(({ body }) => body);
}
`;

const TESTED = `
import 'reflect-metadata';
import { Injectable, Module } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { InjectQueue, type Queue, RowmqModule } from '@rowmq/client';
import { InMemoryBroker, RowmqTestingModule } from '@rowmq/client/testing';

@Injectable()
class Shop {
  constructor(@InjectQueue('tested') readonly orders: Queue<string>) {}
}

@Module({ imports: [RowmqModule.registerQueue({ name: 'tested', create: true })], providers: [Shop] })
class ShopModule {}

export async function main(): Promise<unknown> {
  const tested = await Test.createTestingModule({ imports: [RowmqTestingModule.forRoot(), ShopModule] }).compile();
  await tested.init();
  await tested.get(Shop, { strict: false }).orders.enqueue('salt');
  const bodies = tested.get(InMemoryBroker).messages('tested').map(({ body }) => body);
  await tested.close();
  return bodies;
}
`;

/* The transactional enqueue. */
const TRANSACTIONAL = `
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

export async function main(): Promise<unknown> {
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
  await app.close();
  return [rolledBack, refused];
}
`;

/*
 * One process runs all programs: each process loads Nest and its packages for about 2 s of CPU.
 * The program without Nest comes first, while nothing has loaded Nest. The one with an in-memory
 * broker comes last, because Nest's testing module prints lines of its own.
 */
const MAIN = `
async function run(name: string): Promise<unknown> {
  const { main } = await import('./' + name + '.js');
  return main();
}

async function main(): Promise<void> {
  const results: Record<string, unknown> = {};
  for (const name of ['core', 'module', 'transport', 'transactional']) results[name] = await run(name);
  console.log(JSON.stringify(results));
  console.log(JSON.stringify(await run('tested')));
}
void main();
`;

const PROGRAMS = {
  core: CORE,
  module: MODULE,
  transport: TRANSPORT,
  transactional: TRANSACTIONAL,
  tested: TESTED,
  main: MAIN,
};

describe.each(NEST_MAJORS)('the public packages, packed and installed beside Nest %i and its TypeORM,', (nest) => {
  let project: PackedProject;
  beforeAll(async () => {
    project = await PackedProject.make(tarballs, nest, [
      '@nestjs/common',
      '@nestjs/core',
      '@nestjs/microservices',
      '@nestjs/testing',
      '@nestjs/typeorm',
      'mysql2',
      'reflect-metadata',
      'rxjs',
      'typeorm',
      'zod',
    ]);
    for (const format of FORMATS) {
      for (const [name, text] of Object.entries(PROGRAMS)) await project.write(`${format}/${name}.ts`, text);
      expect(await project.takeReadmeSamples(format, '@rowmq/client')).toBeGreaterThanOrEqual(5);
      // transactional-adapters.test.ts runs the others.
      const without = ['drizzle-orm', 'knex', './generated'];
      expect(await project.takeReadmeSamples(format, '@rowmq/typeorm', without)).toBe(2);
    }
    await project.compile();
  }, 300_000);
  afterAll(() => project.remove());

  it.each(FORMATS)(
    'compile under strict and work in a service of type %s: as a module, a transport, without Nest, in unit tests, and in its transactions',
    async (format) => {
      await connection.query('DELETE FROM orders');
      const queue = await shared.newQueue();
      const { stdout, stderr } = await project.run(format, 'main.js', {
        ROWMQ_URL: shared.broker.url,
        SERVICE_URL: own.url,
        ROWMQ_DATABASE: shared.broker.database.name,
        QUEUE: queue.name,
      });
      expect(stderr).toBe('');
      const [results = '', ...lines] = stdout.split('\n');
      expect(JSON.parse(results)).toEqual({
        core: ['honey'],
        module: { article: 'tea', count: 2 },
        transport: ['jam 4 2', '{"article":"wax"}'],
        transactional: ['changed my mind', 'queue-not-found'],
      });
      expect(lines.slice(-2)).toEqual([JSON.stringify(['"salt"']), '']);
      // The service commits one of its three transactions. Only that one has stored a message.
      const [orders] = await connection.query('SELECT article FROM orders');
      expect(orders).toEqual([{ article: 'committed' }]);
      const messages = await queue.dequeue({ maxMessages: 10, waitSeconds: 1 });
      expect(messages.map(({ body }) => body)).toEqual(['committed']);
    },
    180_000,
  );

  it('@rowmq/client brings no database driver, no ORM, and of RowMQ only itself and the contract', async () => {
    const installed = await project.installedFor('@rowmq/client');
    expect(installed).toContain('undici');
    for (const name of ['typeorm', '@nestjs/typeorm', 'mysql2']) expect(installed).not.toContain(name);
    expect(installed.filter((name) => name.startsWith('@rowmq/'))).toEqual(['@rowmq/client', '@rowmq/contract']);
    await expectNoStrayFiles(project, '@rowmq/client');
    await expectNoStrayFiles(project, '@rowmq/contract');
  });

  it('@rowmq/contract has declarations that need nothing but its dependencies', async () => {
    const { dependencies } = JSON.parse(await project.read('node_modules/@rowmq/contract/package.json'));
    const folder = 'node_modules/@rowmq/contract/dist';
    for (const file of await readdir(join(project.folder, folder))) {
      if (!file.endsWith('.d.ts')) continue;
      const named = [...(await project.read(join(folder, file))).matchAll(/\b(?:from |import\()['"]([^.'"].*?)['"]/g)];
      for (const [, name] of named) expect(Object.keys(dependencies), file).toContain(name);
    }
  });

  it('@rowmq/client has the ranges of its peers, and asks for no other framework', async () => {
    const { peerDependencies, dependencies, version } = JSON.parse(
      await project.read('node_modules/@rowmq/client/package.json'),
    );
    expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(peerDependencies).toMatchObject({ '@nestjs/common': '^11.0.0 || ^12.0.0' });
    expect(Object.keys(peerDependencies).filter((name) => !name.startsWith('@nestjs/'))).toEqual([
      '@opentelemetry/api',
      'reflect-metadata',
      'rxjs',
    ]);
    const { '@rowmq/contract': contract, ...others } = dependencies;
    expect(contract).toBe(version);
    for (const range of Object.values(others)) expect(range).toMatch(/^\^\d/);
  });

  it('@rowmq/typeorm carries the enqueue inside, needs nothing but the contract, and TypeORM only for its types', async () => {
    const folder = join(project.folder, 'node_modules', '@rowmq', 'typeorm');
    expect((await readdir(folder)).toSorted()).toEqual(['LICENSE', 'README.md', 'dist', 'package.json']);
    const files = await readdir(join(folder, 'dist'));
    const entries = ['adapter.d.ts', 'adapter.js', 'index.d.ts', 'index.js'];
    const inner = [
      'enqueue.js',
      'payload-queue.d.ts',
      'payload-sender.d.ts',
      'payload-topic.d.ts',
      'sql-transaction.d.ts',
    ];
    expect(files.toSorted()).toEqual([...entries, ...inner].toSorted());
    const importsOf = async (file: string): Promise<string[]> => {
      const text = await project.read(join('node_modules/@rowmq/typeorm/dist', file));
      return [...new Set([...text.matchAll(/\b(?:from|import) ['"](.*?)['"]/g)].map(([, name]) => name as string))];
    };
    const imports = new Map<string, string[]>();
    for (const file of files) {
      const found = await importsOf(file);
      imports.set(file, found.filter((name) => !name.startsWith('./')).toSorted());
      for (const name of found.filter((one) => one.startsWith('./')))
        expect(files, file).toContain(name.slice(2).replace(/\.js$/, file.endsWith('.d.ts') ? '.d.ts' : '.js'));
    }
    expect(imports.get('index.d.ts')).toContain('typeorm');
    imports.set('index.d.ts', imports.get('index.d.ts')?.filter((name) => name !== 'typeorm') ?? []);
    for (const name of [...imports.values()].flat())
      expect(['@rowmq/contract', '@rowmq/contract/producer', 'node:crypto']).toContain(name);
    const ours = (await project.installedFor('@rowmq/typeorm')).filter((name) => name.startsWith('@rowmq/'));
    expect(ours).toEqual(['@rowmq/contract', '@rowmq/typeorm']);
    const { peerDependencies } = JSON.parse(await project.read('node_modules/@rowmq/typeorm/package.json'));
    expect(peerDependencies).toEqual({ '@opentelemetry/api': '^1.9.0', typeorm: '^0.3.0 || ^1.0.0' });
  });
});

describe('@rowmq/cli, packed and installed by itself,', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'rowmq-cli-'));
    const packed = await pack(CLI_PACKAGES, folder);
    await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'user', private: true }));
    await run('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error', '--prefer-offline', ...packed], {
      cwd: folder,
    });
  }, 300_000);
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const npx = async (...args: string[]): Promise<string> => {
    const { stdout } = await run('npx', ['--no-install', 'rowmq', ...args], {
      cwd: folder,
      env: {
        ...process.env,
        ROWMQ_URL: shared.broker.url,
        ROWMQ_DATABASE_URL: shared.broker.database.url,
        ROWMQ_CONFIG: '/nonexistent',
      },
      timeout: 120_000,
    });
    return stdout;
  };

  it('runs with npx, sends and receives, and examines a database without any private package', async () => {
    const queue = await shared.newQueue();
    expect(await npx('--version')).toBe(
      `${(JSON.parse(await readFile('package.json', 'utf8')) as { version: string }).version}\n`,
    );
    await npx('send', queue.name, 'hello');
    expect(await npx('receive', queue.name, '--ack', '--body')).toBe('hello\n');
    expect(await npx('bench', '--seconds', '0.5', '--json')).toContain('"sentPerSecond"');
    // The shared broker has no reaper, so the doctor finds a fault.
    const { stdout } = (await npx('doctor', '--database').catch((error: unknown) => error)) as { stdout: string };
    expect(stdout).toMatch(/✓ ok +migrations/);
    expect(stdout).toMatch(/✗ fault +reaper/);
    const ours = await readdir(join(folder, 'node_modules', '@rowmq'));
    expect(ours.toSorted()).toEqual(['cli', 'client', 'contract']);
    const files = await readdir(join(folder, 'node_modules', '@rowmq', 'cli'));
    expect(files.toSorted()).toEqual(['LICENSE', 'README.md', 'bin', 'bundle', 'package.json']);
  }, 300_000);
});

/** A tarball has outputs of sources that exist, no test, and a licence and a README for people. */
async function expectNoStrayFiles(project: PackedProject, name: string): Promise<void> {
  const folder = join(project.folder, 'node_modules', name);
  const top = await readdir(folder);
  for (const file of ['LICENSE', 'README.md', 'package.json', 'dist', 'src']) expect(top).toContain(file);
  const sources = await readdir(join(folder, 'src'), { recursive: true });
  expect(sources.filter((file) => file.endsWith('.test.ts'))).toEqual([]);
  const outputs = await readdir(join(folder, 'dist'), { recursive: true });
  const modules = outputs.filter((file) => file.endsWith('.js'));
  expect(modules.toSorted()).toEqual(
    sources
      .filter((file) => file.endsWith('.ts'))
      .map((file) => file.replace(/\.ts$/, '.js'))
      .toSorted(),
  );
  expect(outputs.filter((file) => file.endsWith('.tsbuildinfo'))).toEqual([]);
}
