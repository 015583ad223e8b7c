import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { useBroker } from '../support/api.js';
import { PackedProject } from '../support/packed-project.js';

/* The tarball that users install, in a project of theirs. */

const shared = useBroker();
let project: PackedProject;

beforeAll(async () => {
  project = await PackedProject.make('client', [
    '@nestjs/common',
    '@nestjs/core',
    '@nestjs/microservices',
    '@nestjs/testing',
    'reflect-metadata',
    'rxjs',
    'zod',
  ]);
}, 300_000);
afterAll(() => rm(project.folder, { recursive: true, force: true }));

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

const REQUIRED = `
import type { RowmqHttpClient } from '@rowmq/client/core';
const { RowmqHttpClient: Client } = require('@rowmq/client/core') as { RowmqHttpClient: typeof RowmqHttpClient };

async function main(): Promise<void> {
  const client = new Client({ url: process.env['ROWMQ_URL'] ?? '' });
  await client.putQueue('required');
  await client.enqueue('required', { messages: [{ body: 'honey' }] });
  const { messages } = await client.dequeue('required');
  console.log(messages.map(({ body }) => body));
  await client.close();
}
void main();
`;

it('compiles under strict and passes a round trip, as a module, as a transport, and required by CommonJS', async () => {
  await project.write('module.ts', MODULE);
  await project.write('transport.ts', TRANSPORT);
  await project.write('required.cts', REQUIRED);
  await project.compile();
  const env = { ROWMQ_URL: shared.broker.url };
  expect(await project.run('module.js', env)).toEqual({ stdout: '{"article":"tea","count":2}\n', stderr: '' });
  expect(await project.run('transport.js', env)).toEqual({ stdout: 'jam 4\n', stderr: '' });
  expect((await project.run('required.cjs', env)).stdout).toBe("[ 'honey' ]\n");
}, 180_000);

it('has a README whose samples compile', async () => {
  expect(await project.takeReadmeSamples('client')).toBeGreaterThanOrEqual(5);
  await project.compile('--noEmit');
}, 120_000);

it('brings no database driver, no ORM, and nothing else of RowMQ’s', async () => {
  const installed = await readdir(join(project.folder, 'node_modules'));
  expect(installed).toContain('@rowmq');
  for (const name of ['typeorm', 'mysql2']) expect(installed).not.toContain(name);
  expect(await readdir(join(project.folder, 'node_modules', '@rowmq'))).toEqual(['client']);
  const { peerDependencies, dependencies, version } = JSON.parse(
    await project.read('node_modules/@rowmq/client/package.json'),
  );
  expect(version).toMatch(/^\d+\.\d+\.\d+$/);
  expect(Object.keys(peerDependencies).filter((name) => !name.startsWith('@nestjs/'))).toEqual([
    '@opentelemetry/api',
    'reflect-metadata',
    'rxjs',
  ]);
  for (const range of Object.values(dependencies)) expect(range).toMatch(/^\^\d/);
});
