import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { useBroker } from '../support/api.js';
import { FORMATS, NEST_MAJORS, PackedProject } from '../support/packed-project.js';

/* The tarballs that users install, in projects of theirs. */

const shared = useBroker();

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

async function main(): Promise<void> {
  const app = await NestFactory.createApplicationContext(AppModule, { logger: ['error', 'warn'] });
  await app.get(Shop).orders.enqueue({ article: 'tea', count: 2 });
  console.log(JSON.stringify(await mailed));
  await app.close();
}
void main();
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

async function main(): Promise<void> {
  const broker = new RowmqHttpClient({ url });
  await broker.putQueue('packed.dead');
  await broker.putQueue('packed.created', { deadLetterQueue: 'packed.dead' });
  const strategy = new RowmqServer({ url, consumer: { waitSeconds: 1 } });
  const app = await NestFactory.createMicroservice(AppModule, { strategy, logger: ['error'] });
  await app.listen();
  const client = new RowmqClient({ url });
  await firstValueFrom(client.emit('packed.created', { article: 'jam' }));
  await firstValueFrom(client.emit('packed.created', { article: 'wax' }));
  console.log(await handled);
  const { messages } = await broker.dequeue('packed.dead', { waitSeconds: 20 });
  console.log(messages.map(({ body }) => body));
  await app.close();
  await client.close();
  await broker.purge('packed.dead');
  await broker.close();
}
void main();
`;

const CORE = `
import { RowmqHttpClient } from '@rowmq/client/core';

async function main(): Promise<void> {
  const client = new RowmqHttpClient({ url: process.env['ROWMQ_URL'] ?? '' });
  await client.putQueue('core');
  await client.enqueue('core', { messages: [{ body: 'honey' }] });
  const { messages } = await client.dequeue('core');
  console.log(messages.map(({ body }) => body));
  await client.purge('core');
  await client.close();
}
void main();
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

async function main(): Promise<void> {
  const tested = await Test.createTestingModule({ imports: [RowmqTestingModule.forRoot(), ShopModule] }).compile();
  await tested.init();
  await tested.get(Shop, { strict: false }).orders.enqueue('salt');
  console.log(tested.get(InMemoryBroker).messages('tested').map(({ body }) => body));
  await tested.close();
}
void main();
`;

describe.each(NEST_MAJORS)('@rowmq/client packed and installed beside Nest %i', (nest) => {
  let project: PackedProject;
  beforeAll(async () => {
    project = await PackedProject.make('@rowmq/client', nest, [
      '@nestjs/common',
      '@nestjs/core',
      '@nestjs/microservices',
      '@nestjs/testing',
      'reflect-metadata',
      'rxjs',
      'zod',
    ]);
  }, 300_000);
  afterAll(() => project.remove());

  it.each(FORMATS)(
    'compiles under strict and works in a service of type %s: as a module, a transport, without Nest and in unit tests',
    async (format) => {
      await project.write(format, 'module.ts', MODULE);
      await project.write(format, 'transport.ts', TRANSPORT);
      await project.write(format, 'core.ts', CORE);
      await project.write(format, 'tested.ts', TESTED);
      const samples = await project.takeReadmeSamples(format, '@rowmq/client');
      expect(samples).toBeGreaterThanOrEqual(5);
      await project.compile(format);
      const env = { ROWMQ_URL: shared.broker.url };
      expect(await project.run(format, 'module.js', env)).toEqual({
        stdout: '{"article":"tea","count":2}\n',
        stderr: '',
      });
      expect(await project.run(format, 'transport.js', env)).toEqual({
        stdout: `jam 4 2\n[ '{"article":"wax"}' ]\n`,
        stderr: '',
      });
      expect((await project.run(format, 'core.js', env)).stdout).toBe("[ 'honey' ]\n");
      expect((await project.run(format, 'tested.js', {})).stdout).toMatch(/\[ '"salt"' \]\n$/);
    },
    180_000,
  );

  it('brings no database driver, no ORM, and of RowMQ only itself and the contract', async () => {
    const installed = await readdir(join(project.folder, 'node_modules'));
    expect(installed).toContain('@rowmq');
    for (const name of ['typeorm', 'mysql2']) expect(installed).not.toContain(name);
    expect(await readdir(join(project.folder, 'node_modules', '@rowmq'))).toEqual(['client', 'contract']);
    await expectNoStrayFiles(project, '@rowmq/client');
    await expectNoStrayFiles(project, '@rowmq/contract');
  });

  it('has the ranges of its peers, and asks for no other framework', async () => {
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
