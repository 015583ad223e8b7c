import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RowmqHttpClient } from '@rowmq/client/core';
import { findProcessesByArgument, freePort, isRunning } from '@rowmq/mysql-server';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '../support/wait.js';
import { DEADLINE_MS } from './rig.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const ROUNDS = Number(process.env['HA_ROUNDS'] ?? '0');
const TEST_MS = 400_000;

let dataDir: string;
let port: number;
let client: RowmqHttpClient;
let launcher: ChildProcess | undefined;
let output = '';

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'rowmq-ha-up-'));
  port = await freePort(2);
  // Retries are on, as they are for services.
  client = new RowmqHttpClient({ url: [0, 1].map((offset) => `http://127.0.0.1:${port + offset}`) });
});

afterEach(async () => {
  if (launcher === undefined) return;
  launcher.kill('SIGKILL');
  for (const { pid } of [...(await apps()), ...(await servers())]) process.kill(pid, 'SIGKILL');
});

afterAll(async () => {
  await client?.close();
  await rm(dataDir, { recursive: true, force: true });
});

/** Starts what `npm run ha:up` runs, and waits until it says that all is running. */
async function up(): Promise<ChildProcess> {
  const { ROWMQ_SERVERS_DIR: serversDir = join(ROOT, '.rowmq-test', 'servers') } = process.env;
  output = '';
  const child = spawn(process.execPath, ['scripts/run.mjs', 'tools/launcher/dist/ha/main.js'], {
    cwd: ROOT,
    env: {
      PATH: process.env['PATH'],
      ROWMQ_SERVERS_DIR: serversDir,
      ROWMQ_DATA_DIR: dataDir,
      ROWMQ_PORT: String(port),
      ROWMQ_BUFFER_POOL_MB: '128',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  launcher = child;
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  await eventually(
    () => `it runs: ${output}`,
    () => {
      if (child.exitCode !== null) throw new Error(`ha:up ended:\n${output}`);
      return output.includes('RowMQ is running, highly available.');
    },
    2 * DEADLINE_MS,
  );
  return child;
}

async function down(child: ChildProcess): Promise<void> {
  child.kill('SIGTERM');
  const [code] = await once(child, 'exit');
  expect(code, output).toBe(0);
  expect([...(await servers()), ...(await apps())]).toEqual([]);
}

async function servers() {
  const found = [1, 2, 3].map((number) =>
    findProcessesByArgument(`--datadir=${join(dataDir, 'ha', `server-${number}`, 'mysql', 'data')}`),
  );
  return (await Promise.all(found)).flat();
}

async function apps(): Promise<{ name: string; pid: number; startedAt: string }[]> {
  const text = await readFile(join(dataDir, 'ha', 'children.json'), 'utf8').catch(() => '[]');
  const entries: { name: string; pid: number; startedAt: string }[] = JSON.parse(text);
  const alive = await Promise.all(entries.map((entry) => isRunning(entry)));
  return entries.filter((_, index) => alive[index]);
}

async function bodies(): Promise<string[]> {
  const { messages } = await client.dequeue('demo', { maxMessages: 100, leaseSeconds: 1, waitSeconds: 5 });
  return messages.map(({ body }) => body).toSorted();
}

describe.runIf(ROUNDS > 0)('npm run ha:up', () => {
  test(
    'runs three servers, two brokers and two reapers, starts what dies again, and finds everything the next time, also after all was killed',
    { timeout: TEST_MS },
    async () => {
      const first = await up();
      expect(await servers()).toHaveLength(3);
      expect((await apps()).map(({ name }) => name).toSorted()).toEqual([
        'broker 1',
        'broker 2',
        'reaper 1',
        'reaper 2',
      ]);
      await client.enqueue('demo', { messages: [{ body: 'before' }] });

      const primary = Number(/The primary is server (\d)/.exec(output)?.[1]);
      const [server] = await findProcessesByArgument(
        `--datadir=${join(dataDir, 'ha', `server-${primary}`, 'mysql', 'data')}`,
      );
      process.kill(server?.pid as number, 'SIGKILL');
      for (const { name, pid } of await apps()) if (name.endsWith('2')) process.kill(pid, 'SIGKILL');
      await eventually(
        'a message can be enqueued',
        () =>
          client.enqueue('demo', { messages: [{ body: 'after a failover' }] }).then(
            () => true,
            () => false,
          ),
        DEADLINE_MS,
      );
      await eventually(
        () => `it is whole again: ${output}`,
        async () =>
          output.includes(`server ${primary} (port`) && (await servers()).length === 3 && (await apps()).length === 4,
        DEADLINE_MS,
      );
      await eventually(
        'it has joined',
        () => new RegExp(`primary is[^]*server ${primary} .*has joined`).test(output),
        DEADLINE_MS,
      );
      await down(first);

      const second = await up();
      // A retry of an enqueue without an answer may store the message twice.
      expect([...new Set(await bodies())]).toEqual(['after a failover', 'before']);
      second.kill('SIGKILL');
      for (const { pid } of await servers()) process.kill(pid, 'SIGKILL');
      await eventually('brokers and reapers have ended', async () => (await apps()).length === 0, DEADLINE_MS);

      const third = await up();
      await eventually('the leases have run out', async () => new Set(await bodies()).size === 2, DEADLINE_MS);
      await down(third);
    },
  );
});
