import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const END_MS = 30_000;

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** Runs a module against the compiled client. Returns its exit code and output at its own end. */
async function run(code: string): Promise<{ exitCode: unknown; output: string }> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  try {
    const [exitCode] = (await once(child, 'close', { signal: AbortSignal.timeout(END_MS) })) as unknown[];
    return { exitCode, output };
  } catch {
    return { exitCode: 'it does not end', output };
  }
}

describe('a process', () => {
  it('ends after the stop of a consumer whose handler hangs', async () => {
    const ended = await run(`
      import { Queue, QueueConsumer } from '@rowmq/client/core';
      import { InMemoryBroker } from '@rowmq/client/testing';
      const broker = new InMemoryBroker();
      await new Queue(broker, 'orders').enqueue('tea');
      let begin;
      const begun = new Promise((resolve) => (begin = resolve));
      const hang = async () => {
        begin();
        await new Promise(() => undefined);
      };
      const options = { shutdownSeconds: 0, waitSeconds: 0 };
      const consumer = new QueueConsumer(broker, 'orders', { message: hang }, options);
      consumer.start();
      await begun;
      await consumer.stop();
      console.log('stopped with', consumer.inHand, 'in hand');
    `);
    expect(ended).toEqual({ exitCode: 0, output: 'stopped with 0 in hand\n' });
  });

  it('ends if its start fails elsewhere while no broker can be reached', async () => {
    const ended = await run(`
      import 'reflect-metadata';
      import { Module } from '@nestjs/common';
      import { NestFactory } from '@nestjs/core';
      import { RowmqModule } from '@rowmq/client';
      class Elsewhere {
        onModuleInit() {
          throw new Error('a fault elsewhere');
        }
      }
      const root = (name) => RowmqModule.forRoot({ name, url: 'http://127.0.0.1:1' });
      const queue = (connection) => RowmqModule.registerQueue({ name: 'orders', connection, create: true });
      class AppModule {}
      Module({
        imports: [root('one'), root('other'), queue('one'), queue('other')],
        providers: [Elsewhere],
      })(AppModule);
      NestFactory.createApplicationContext(AppModule, { logger: false, abortOnError: false }).catch((error) => {
        console.log(error.message);
        process.exitCode = 3;
      });
    `);
    expect(ended).toEqual({ exitCode: 3, output: 'a fault elsewhere\n' });
  });
});
