import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EmbeddedServer } from '@rowmq/mysql-server';
import { migrateDatabase } from '@rowmq/store';
import { type Connection, createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Api, expectProblem, newQueueName, type QueueApi } from '../support/api.js';
import { type Broker, startBroker } from '../support/processes.js';
import { startServer, testServer } from '../support/servers.js';
import { eventually } from '../support/wait.js';

/* Back-pressure by what the whole server has to bear. Batches themselves are never slow here. */

const HISTORY = 1000;
const LOCK_WAITS = 4;
/** A broker looks every three seconds, and believes in lock waits after two looks. */
const LOOKS_MS = 60_000;

const SLOW_NEVER = {
  ROWMQ_SLOW_YIELD_MS: '600000',
  ROWMQ_SLOW_SHED_ENQUEUES_MS: '600000',
  ROWMQ_SLOW_SHED_DEQUEUES_MS: '600000',
};
let folder: string;
let server: EmbeddedServer;
let url: string;
let broker: Broker;
let api: Api;
const sessions: Connection[] = [];

async function open(): Promise<Connection> {
  const session = await createConnection({ uri: url, multipleStatements: true });
  sessions.push(session);
  return session;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-strain-'));
  // The figures are those of the whole server, so the test has its own. Nothing has to be durable.
  const relaxed = ['--innodb-flush-log-at-trx-commit=0', '--sync-binlog=0'];
  server = await startServer({ dataDir: folder, extraArguments: relaxed });
  const admin = await createConnection({ uri: server.url });
  await admin.query('CREATE DATABASE strain CHARACTER SET utf8mb4');
  await admin.end();
  url = Object.assign(new URL(server.url), { pathname: '/strain' }).href;
  await migrateDatabase(url);
  await (await open()).query('CREATE TABLE held (id INT PRIMARY KEY, n INT); INSERT INTO held VALUES (1, 0)');
  broker = await startBroker({
    database: { name: 'strain', url, drop: async () => undefined },
    env: {
      ...SLOW_NEVER,
      ROWMQ_SLOW_HISTORY_LENGTH: String(HISTORY),
      ROWMQ_SLOW_LOCK_WAITS: String(LOCK_WAITS),
    },
  });
  api = new Api(broker.url);
}, 120_000);
afterAll(async () => {
  await broker.stop();
  for (const session of sessions) session.destroy();
  await server.kill();
  await rm(folder, { recursive: true, force: true });
});

async function newQueue(settings = {}): Promise<QueueApi> {
  const queue = api.queue(newQueueName());
  await queue.put(settings);
  return queue;
}

const send = async (queue: QueueApi) => queue.request('enqueue', { messages: [{ body: 'b' }] });
const metric = async (name: string): Promise<number> => api.metric(`rowmq_database_${name}`);

/** Keeps the broker at work until the condition holds: an idle one does not look. */
async function whileWorking(queue: QueueApi, what: string, condition: () => Promise<boolean>): Promise<void> {
  await eventually(
    what,
    async () => {
      await send(queue);
      return condition();
    },
    LOOKS_MS,
  );
}

test(
  'sessions that wait for locks make the reaper yield, then enqueues and dequeues wait, and acks never',
  { timeout: 200_000 },
  async () => {
    const queue = await newQueue({ leaseSeconds: 600 });
    await queue.enqueue('a', 'b');
    const leased = [await queue.dequeueOne(), await queue.dequeueOne()];
    const holder = await open();
    await holder.query('START TRANSACTION; SELECT n FROM held WHERE id = 1 FOR UPDATE');
    const waits: Promise<unknown>[] = [];
    const wait = async (count: number): Promise<void> => {
      for (let index = 0; index < count; index += 1) {
        const session = await open();
        await session.query('SET SESSION innodb_lock_wait_timeout = 600');
        waits.push(session.query('UPDATE held SET n = n + 1 WHERE id = 1'));
      }
    };
    await wait(LOCK_WAITS);
    await whileWorking(queue, 'the reaper yields', async () => (await metric('pressure')) === 1);
    expect(await metric('lock_waits')).toBeGreaterThanOrEqual(LOCK_WAITS);
    await wait(3 * LOCK_WAITS);
    await whileWorking(queue, 'enqueues are refused', async () => (await metric('pressure')) === 2);
    expect(expectProblem(await send(queue), 503, 'overloaded').detail).toContain('takes no enqueues');
    expect((await queue.request('dequeue')).status).toBe(200);
    await wait(6 * LOCK_WAITS);
    await whileWorking(queue, 'dequeues are refused', async () => (await metric('pressure')) === 3);
    expectProblem(await queue.request('dequeue'), 503, 'overloaded');
    expect(await queue.ack(...leased.map(({ receipt }) => receipt))).toMatchObject({ failed: [] });
    await holder.query('ROLLBACK');
    await Promise.all(waits);
    await whileWorking(queue, 'everything is accepted again', async () => (await send(queue)).status === 201);
    await whileWorking(queue, 'the pressure is gone', async () => (await metric('pressure')) === 0);
  },
);

test(
  'a long history list makes the reaper yield, then enqueues wait, and dequeues never',
  { timeout: 200_000 },
  async () => {
    const queue = await newQueue();
    const reader = await open();
    await reader.query(
      'SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT; SELECT n FROM held',
    );
    const writer = await open();
    const commits = 'UPDATE held SET n = n + 1 WHERE id = 1;'.repeat(100);
    const grow = async (): Promise<boolean> => {
      await writer.query(commits);
      return true;
    };
    await whileWorking(queue, 'the reaper yields', async () => (await grow()) && (await metric('pressure')) >= 1);
    expect(await metric('history_length')).toBeGreaterThanOrEqual(HISTORY);
    await whileWorking(queue, 'enqueues are refused', async () => (await grow()) && (await metric('pressure')) === 2);
    expect(await metric('history_length')).toBeGreaterThanOrEqual(10 * HISTORY);
    expectProblem(await send(queue), 503, 'overloaded');
    expect((await queue.dequeue({ maxMessages: 10 })).length).toBeGreaterThan(0);
    await reader.query('ROLLBACK');
    await whileWorking(queue, 'everything is accepted again', async () => (await metric('pressure')) === 0);
  },
);

describe.runIf(testServer().kind === 'mysql')('a user without the privilege PROCESS', () => {
  let poor: Broker;
  beforeAll(async () => {
    const admin = await open();
    const grants = 'SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, LOCK TABLES';
    await admin.query(`CREATE USER poor@'%' IDENTIFIED BY 'without-process'; GRANT ${grants} ON strain.* TO poor@'%'`);
    const poorUrl = Object.assign(new URL(url), { username: 'poor', password: 'without-process' }).href;
    poor = await startBroker({ database: { name: 'strain', url: poorUrl, drop: async () => undefined } });
  });
  afterAll(() => poor.stop());

  test('has a broker that works, sees lock waits, and says once that it cannot see the history list', async () => {
    const queue = new Api(poor.url).queue(newQueueName());
    await queue.put();
    await eventually(
      'the broker looks',
      async () => {
        expect((await send(queue)).status).toBe(201);
        return (await queue.api.metric('rowmq_database_lock_waits')) >= 0;
      },
      LOOKS_MS,
    );
    expect(await queue.api.metric('rowmq_database_history_length')).toBe(-1);
    const lines = (): number => poor.output().match(/privilege PROCESS/g)?.length ?? 0;
    await eventually('the log says so', () => lines() > 0);
    expect(lines()).toBe(1);
  });
});
