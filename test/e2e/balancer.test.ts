import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { QueueConsumer, RowmqHttpClient } from '@rowmq/client/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AppProcess, createMigratedDatabase, freePort, startApp } from '../support/processes.js';
import type { TestDatabase } from '../support/servers.js';
import { eventually } from '../support/wait.js';

const HAPROXY = [process.env['HAPROXY'] ?? '', '/usr/sbin/haproxy'].find((path) => path !== '' && existsSync(path));
const QUEUE = 'orders';
const ADMIN_KEY = 'the-key-of-the-settings';
const MOST_FAILURES = 3;
/** Messages while one broker is away, and again while it is back. */
const SOME = 300;

describe.runIf(HAPROXY !== undefined)('behind the balancer of docker-compose.yml', () => {
  let folder: string;
  let database: TestDatabase;
  let balancer: ChildProcess;
  let ports: number[];
  let client: RowmqHttpClient;
  let url: string;
  const brokers: AppProcess[] = [];

  const start = async (index: number): Promise<void> => {
    const port = String(ports[index]);
    brokers[index] = await startApp('broker', {
      ROWMQ_DATABASE_URL: database.url,
      ROWMQ_PORT: port,
      ROWMQ_ADMIN_KEY: ADMIN_KEY,
      ROWMQ_MAX_FAILED_ATTEMPTS: String(MOST_FAILURES),
      // The balancer's address here.
      ROWMQ_TRUSTED_PROXIES: '127.0.0.1',
    });
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'rowmq-balancer-'));
    database = await createMigratedDatabase();
    ports = [await freePort(), await freePort()];
    await Promise.all([start(0), start(1)]);
    const port = await freePort();
    const configuration = (await readFile('deploy/haproxy/haproxy.cfg', 'utf8'))
      .replace('bind :8080', `bind 127.0.0.1:${port}`)
      .replace(/broker-(\d):8080/g, (_, number: string) => `127.0.0.1:${ports[Number(number) - 1]}`)
      // The container's own name server.
      .replace(/resolvers docker\n.*\n/, '')
      .replace(' resolvers docker', '');
    await writeFile(join(folder, 'haproxy.cfg'), configuration);
    balancer = spawn(HAPROXY as string, ['-f', join(folder, 'haproxy.cfg')], { stdio: 'ignore' });
    url = `http://127.0.0.1:${port}`;
    client = new RowmqHttpClient({ url, apiKey: ADMIN_KEY });
    await eventually('the balancer answers', async () => (await statusOf('/health/ready')) === 200);
    await client.createQueue(QUEUE, {});
  });
  afterAll(async () => {
    await client.close();
    balancer.kill();
    if (balancer.exitCode === null && balancer.signalCode === null) await once(balancer, 'exit');
    await Promise.all(brokers.map((broker) => broker.stop()));
    await database.drop();
    await rm(folder, { recursive: true, force: true });
  });

  const statusOf = async (path: string): Promise<number> =>
    fetch(url + path, { headers: { authorization: `Bearer ${ADMIN_KEY}` } }).then(
      ({ status }) => status,
      () => 0,
    );

  test('callers reach the calls, and not what shows one broker', async () => {
    expect(await statusOf(`/v1/admin/queues/${QUEUE}`)).toBe(200);
    for (const path of ['/metrics', '/docs', '/openapi.json']) expect(await statusOf(path)).toBe(404);
  });

  /** Calls from an address of this machine, which may claim another one. Returns the status. */
  const callFrom = async (
    localAddress: string,
    path: string,
    { key = ADMIN_KEY, claimed, body, to = url }: { key?: string; claimed?: string; body?: unknown; to?: string } = {},
  ): Promise<number | undefined> => {
    const headers = {
      authorization: `Bearer ${key}`,
      'content-type': 'application/json',
      ...(claimed !== undefined && { 'x-forwarded-for': claimed }),
    };
    const call = request(to + path, { method: 'POST', localAddress, headers, agent: false });
    call.end(JSON.stringify(body ?? {}));
    const [answer] = (await once(call, 'response')) as [IncomingMessage];
    answer.resume();
    return answer.statusCode;
  };

  test('the audit and the list of consumers have the address of the client, and no address that it claims', async () => {
    const consumers = `/v1/queues/${QUEUE}/messages/dequeue`;
    expect(await callFrom('127.0.0.2', consumers, { body: { consumer: 'worker' } })).toBe(200);
    expect(await callFrom('127.0.0.3', consumers, { body: { consumer: 'liar' }, claimed: '10.1.1.1' })).toBe(200);
    const { consumers: known } = await client.getConsumers(QUEUE);
    const addresses = Object.fromEntries(known.map(({ name, address }) => [name, address]));
    expect(addresses).toEqual({ worker: '127.0.0.2', liar: '127.0.0.3' });
    const pauses = [
      ['127.0.0.4', {}],
      ['127.0.0.5', { claimed: '10.1.1.1' }],
      // Past the balancer: a peer that the broker does not trust.
      ['127.0.0.6', { claimed: '10.1.1.1', to: `http://127.0.0.1:${ports[0]}` }],
    ] as const;
    for (const [address, options] of pauses)
      expect(await callFrom(address, `/v1/admin/queues/${QUEUE}/resume`, options)).toBe(200);
    const entries = await eventually('the audit has them', async () => {
      const found = (await client.listAudit({ action: 'resumeQueue' })).entries;
      return found.length === pauses.length && found;
    });
    expect(entries.map(({ address }) => address).toSorted()).toEqual(pauses.map(([address]) => address));
  });

  test('guesses of one client do not lock out another behind the same balancer', async () => {
    const path = `/v1/admin/queues/${QUEUE}/resume`;
    const guess = async (): Promise<number | undefined> =>
      callFrom('127.0.0.7', path, { key: 'x', claimed: '10.1.1.1' });
    await eventually('each broker has refused enough', async () => {
      const statuses = await Promise.all([guess(), guess(), guess(), guess()]);
      return statuses.every((status) => status === 429);
    });
    // The key of the settings is what an address with too many failures may not use.
    expect(await callFrom('127.0.0.7', path)).toBe(429);
    expect(await callFrom('127.0.0.8', path)).toBe(200);
  });

  test('a restart of each broker under load loses and doubles no message', { timeout: 120_000 }, async () => {
    const received = new Map<string, number>();
    const confirmed = new Set<string>();
    const handle = ({ number }: { number: string }): void => {
      received.set(number, (received.get(number) ?? 0) + 1);
    };
    const consumer = new QueueConsumer<{ number: string }>(client, QUEUE, { message: handle }, { concurrency: 10 });
    consumer.start();
    const stopping = new AbortController();
    let made = 0;
    const producers = Array.from({ length: 4 }, async () => {
      while (!stopping.signal.aborted) {
        const number = String((made += 1));
        await client.enqueue(QUEUE, { messages: [{ body: JSON.stringify({ number }) }] });
        confirmed.add(number);
      }
    });
    const more = async (): Promise<void> => {
      const before = confirmed.size;
      await eventually('there is load', () => confirmed.size > before + SOME, 30_000);
    };
    await more();
    for (const index of [0, 1]) {
      await brokers[index]?.stop();
      await more();
      await start(index);
      await more();
    }
    stopping.abort();
    await Promise.all(producers);
    await eventually('all are received', () => received.size >= confirmed.size, 30_000);
    await consumer.stop();
    expect([...confirmed].filter((number) => !received.has(number))).toEqual([]);
    expect([...received].filter(([, times]) => times > 1)).toEqual([]);
  });
});
