import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isRunning } from '@rowmq/mysql-server';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { freePort } from '../support/processes.js';
import { testServer } from '../support/servers.js';
import { StartedRowmq } from '../support/start.js';

const run = promisify(execFile);
const SLOW = 600_000;

let dataDir: string;
let port: number;
const started: StartedRowmq[] = [];

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'rowmq-start-'));
  port = await freePort();
});

afterEach(async () => {
  await Promise.all(started.splice(0).map((rowmq) => rowmq.killAll()));
});

afterAll(async () => {
  await rm(dataDir, { recursive: true, force: true });
});

function launch(): StartedRowmq {
  const rowmq = new StartedRowmq(testServer().kind, dataDir, port);
  started.push(rowmq);
  return rowmq;
}

async function enqueue(rowmq: StartedRowmq, body: string): Promise<string> {
  const answer = await post(rowmq, 'messages', { messages: [{ body }] });
  return answer.messages[0]!.id;
}

/** Ids of all messages that are waiting. They are leased for a second only, so that they are there again for the next look. */
async function waiting(rowmq: StartedRowmq): Promise<string[]> {
  const answer = await post(rowmq, 'messages/dequeue', { maxMessages: 100, leaseSeconds: 1, waitSeconds: 5 });
  return answer.messages.map((message) => message.id);
}

async function post(rowmq: StartedRowmq, path: string, body: unknown): Promise<{ messages: { id: string }[] }> {
  const answer = await fetch(`${rowmq.address}/v1/queues/demo/${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(15_000),
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  const json: { messages: { id: string }[] } = JSON.parse(await answer.text());
  return json;
}

async function isReady(rowmq: StartedRowmq): Promise<boolean> {
  const answer = await fetch(`${rowmq.address}/health/ready`, { signal: AbortSignal.timeout(5_000) }).catch(
    () => undefined,
  );
  return answer?.ok === true;
}

describe('npm start', { timeout: SLOW }, () => {
  test('runs everything, prints commands that work, and leaves no process behind when asked to stop', async () => {
    const rowmq = await launch().ready();
    expect(rowmq.output).toContain(`${rowmq.address}/docs`);
    const commands = rowmq.output.match(/^ {2}(?:curl|answer=).*$/gm) ?? [];
    expect(commands).toHaveLength(3);
    const { stdout } = await run('bash', ['-euc', commands.join('\n')], { timeout: 30_000 });
    expect(stdout).toMatch(/"body":"hello"[^]*"acked":\["[^"]+"\],"failed":\[\]/);

    const processes = await rowmq.processes();
    expect(processes).toHaveLength(4);
    rowmq.signal('SIGTERM');
    expect(await rowmq.exited).toEqual({ code: 0, signal: null });
    expect(await Promise.all(processes.map((one) => isRunning(one)))).toEqual([false, false, false, false]);
    expect(await rowmq.servers()).toEqual([]);
  });

  test('finds what was enqueued before it was stopped, and initialises nothing again', async () => {
    const first = await launch().ready();
    const id = await enqueue(first, 'before the stop');
    first.signal('SIGTERM');
    await first.exited;

    const second = await launch().ready();
    expect(second.output).not.toContain('Initialising');
    expect(await waiting(second)).toContain(id);
  });

  test('recovers from a SIGKILL of the launcher, on one database server', async () => {
    const first = await launch().ready();
    const id = await enqueue(first, 'before the kill');
    const processes = await first.processes();
    first.signal('SIGKILL');

    const second = await launch().ready();
    expect(await second.servers()).toHaveLength(1);
    expect(await Promise.all(processes.map((one) => isRunning(one)))).toEqual([false, false, false, false]);
    expect(await waiting(second)).toContain(id);
  });

  test('starts a killed database and a killed broker again', async () => {
    const rowmq = await launch().ready();
    const id = await enqueue(rowmq, 'before the kills');

    const [server] = await rowmq.servers();
    process.kill(server!.pid, 'SIGKILL');
    await expect.poll(async () => isRunning(server!), { timeout: 10_000 }).toBe(false);
    await expect.poll(async () => (await rowmq.servers()).length, { timeout: 60_000 }).toBe(1);
    await expect.poll(() => isReady(rowmq), { timeout: 60_000 }).toBe(true);
    expect(await waiting(rowmq)).toContain(id);

    const { broker } = await rowmq.apps();
    process.kill(broker!.pid, 'SIGKILL');
    const replacement = async () => (await rowmq.apps())['broker']?.pid ?? broker!.pid;
    await expect.poll(replacement, { timeout: 60_000 }).not.toBe(broker!.pid);
    await expect.poll(() => isReady(rowmq), { timeout: 60_000 }).toBe(true);
    expect(await waiting(rowmq)).toContain(id);
  });

  test('stops once and in order on Ctrl-C, the database last', async () => {
    const rowmq = await launch().ready();
    // The terminal signals the whole group, and npm passes the same signal on to its child.
    rowmq.signalGroup('SIGINT');
    rowmq.signal('SIGINT');
    expect(await rowmq.exited).toEqual({ code: 0, signal: null });
    expect(rowmq.output).toMatch(/Stopping broker and reaper[^]*Stopping the database/);
    expect(rowmq.output).not.toMatch(/ended unexpectedly|killing/);
    expect(await rowmq.servers()).toEqual([]);
  });

  test('says what to do when the port is taken, and leaves nothing running', async () => {
    const squatter = createServer().listen(port, '127.0.0.1');
    try {
      const rowmq = launch();
      expect(await rowmq.exited).toEqual({ code: 1, signal: null });
      expect(rowmq.output).toMatch(new RegExp(`Port ${port} .* is taken[^]*ROWMQ_PORT`));
      expect(await rowmq.servers()).toEqual([]);
      expect(await rowmq.apps()).toEqual({});
    } finally {
      await new Promise((done) => squatter.close(done));
    }
  });
});
