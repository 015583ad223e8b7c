import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { useBroker } from '../support/api.js';

/* The tarball that users install, in a project of theirs: strict, and with nothing of this repository around it. */

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const shared = useBroker();
let project: string;

beforeAll(async () => {
  project = await mkdtemp(join(tmpdir(), 'rowmq-user-'));
  const { stdout } = await run('node', ['scripts/pack-client.mjs', project], { cwd: ROOT });
  const tarball = stdout.trim().split('\n').at(-1) as string;
  const { dependencies, devDependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
  const versions: Record<string, string> = { ...dependencies, ...devDependencies };
  const needed = [
    '@nestjs/common',
    '@nestjs/core',
    '@nestjs/microservices',
    '@nestjs/testing',
    '@types/node',
    'reflect-metadata',
    'rxjs',
    'typescript',
  ];
  await writeFile(join(project, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }));
  const packages = needed.map((name) => `${name}@${versions[name]}`);
  await run(
    'npm',
    ['install', '--no-audit', '--no-fund', '--loglevel=error', tarball, ...packages, `zod@${versions['zod']}`],
    { cwd: project },
  );
  const compilerOptions = {
    target: 'es2023',
    module: 'nodenext',
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    experimentalDecorators: true,
    emitDecoratorMetadata: true,
    outDir: 'dist',
    types: ['node'],
  };
  await writeFile(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['*.ts'] }));
}, 300_000);
afterAll(() => rm(project, { recursive: true, force: true }));

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

const app = await NestFactory.createApplicationContext(AppModule, { logger: ['error', 'warn'] });
await app.get(Shop).orders.enqueue({ article: 'tea', count: 2 });
console.log(JSON.stringify(await mailed));
await app.close();
`;

const TRANSPORT = `
import 'reflect-metadata';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { Ctx, EventPattern, Payload } from '@nestjs/microservices';
import { RowmqHttpClient } from '@rowmq/client/core';
import { RowmqClient, type RowmqContext, RowmqServer } from '@rowmq/client/microservices';
import { firstValueFrom } from 'rxjs';

const url = process.env['ROWMQ_URL'] ?? '';
let done: (text: string) => void = () => undefined;
const handled = new Promise<string>((resolve) => (done = resolve));

@Controller()
class Orders {
  @EventPattern<string>('packed.created')
  created(@Payload() payload: { article: string }, @Ctx() context: RowmqContext): void {
    done(payload.article + ' ' + context.getMessage().priority);
  }
}

@Module({ controllers: [Orders] })
class AppModule {}

const admin = new RowmqHttpClient({ url });
await admin.putQueue('packed.created');
await admin.close();
const app = await NestFactory.createMicroservice(AppModule, { strategy: new RowmqServer({ url }), logger: ['error', 'warn'] });
await app.listen();
const client = new RowmqClient({ url });
await firstValueFrom(client.emit('packed.created', { article: 'jam' }));
console.log(await handled);
await app.close();
await client.close();
`;

it('compiles under strict and passes a round trip, as a module and as a transport', async () => {
  await writeFile(join(project, 'module.ts'), MODULE);
  await writeFile(join(project, 'transport.ts'), TRANSPORT);
  await run('npx', ['tsc', '-p', '.'], { cwd: project }).catch((error: { stdout: string }) => {
    throw new Error(error.stdout);
  });
  const env = { ...process.env, ROWMQ_URL: shared.broker.url };
  const module = await run('node', ['dist/module.js'], { cwd: project, env, timeout: 60_000 });
  expect(module).toEqual({ stdout: '{"article":"tea","count":2}\n', stderr: '' });
  const transport = await run('node', ['dist/transport.js'], { cwd: project, env, timeout: 60_000 });
  expect(transport).toEqual({ stdout: 'jam 4\n', stderr: '' });
}, 180_000);

it('has a README whose samples compile', async () => {
  const readme = await readFile(join(project, 'node_modules/@rowmq/client/README.md'), 'utf8');
  const samples = [...readme.matchAll(/```ts\n([^]*?)```/g)].map(([, sample]) => sample as string);
  expect(samples.length).toBeGreaterThanOrEqual(5);
  for (const [index, sample] of samples.entries()) await writeFile(join(project, `readme-${index}.ts`), sample);
  await run('npx', ['tsc', '-p', '.', '--noEmit'], { cwd: project }).catch((error: { stdout: string }) => {
    throw new Error(error.stdout);
  });
}, 120_000);

it('brings no database driver, no ORM, and nothing else of RowMQ’s', async () => {
  const installed = await readdir(join(project, 'node_modules'));
  expect(installed).toContain('@rowmq');
  for (const name of ['typeorm', 'mysql2']) expect(installed).not.toContain(name);
  expect(await readdir(join(project, 'node_modules', '@rowmq'))).toEqual(['client']);
  const { peerDependencies, dependencies, version } = JSON.parse(
    await readFile(join(project, 'node_modules/@rowmq/client/package.json'), 'utf8'),
  );
  expect(version).toMatch(/^\d+\.\d+\.\d+$/);
  expect(Object.keys(peerDependencies).filter((name) => !name.startsWith('@nestjs/'))).toEqual([
    '@opentelemetry/api',
    'reflect-metadata',
    'rxjs',
  ]);
  for (const range of Object.values(dependencies)) expect(range).toMatch(/^\^\d/);
});
