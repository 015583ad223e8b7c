import { get } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Api, expectProblem, useOwnBroker } from '../support/api.js';
import { type Gateway, openGateway } from '../support/gateway.js';
import { type Broker, freePort, startBroker } from '../support/processes.js';
import { eventually } from '../support/wait.js';

vi.setConfig({ maxConcurrency: 10 });

const shared = useOwnBroker();
/** A second broker on the same database, which it reaches through a gateway. */
let other: Broker;
let gateway: Gateway;

beforeAll(async () => {
  gateway = await openGateway(shared.broker.database.url);
  other = await startBroker({ database: { ...shared.broker.database, url: gateway.url } });
});
afterAll(async () => {
  await other?.stop();
  await gateway.shut();
});
const run = promisify(execFile);

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const LABEL = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
const SAMPLE = new RegExp(
  `^(${NAME})(?:\\{(${LABEL}(?:,${LABEL})*)?\\})? ([Nn]a[Nn]|[+-]Inf|-?[0-9.]+(?:e[+-]?\\d+)?)$`,
);

describe.concurrent('/metrics', () => {
  test('is Prometheus text: each sample well-formed, named once and declared before', async () => {
    await shared.newQueue().then(async (queue) => queue.enqueue('b'));
    const { status, headers, text } = await shared.api.get('/metrics');
    expect(status).toBe(200);
    expect(headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(text.endsWith('\n')).toBe(true);
    const types = new Map<string, string>();
    const seen = new Set<string>();
    for (const line of text.split('\n').filter((candidate) => candidate !== '')) {
      const declared = /^# TYPE (\S+) (counter|gauge|histogram|summary)$/.exec(line);
      if (declared) {
        expect(types.has(declared[1]!), `${declared[1]} is declared twice`).toBe(false);
        types.set(declared[1]!, declared[2]!);
        continue;
      }
      if (/^# HELP \S+ \S/.test(line)) continue;
      const sample = SAMPLE.exec(line);
      expect(sample, line).not.toBeNull();
      const name = sample![1]!;
      expect(types.has(name) || types.has(name.replace(/_(bucket|sum|count)$/, '')), `${name} is not declared`).toBe(
        true,
      );
      const series = `${name}{${sample![2] ?? ''}}`;
      expect(seen.has(series), `${series} twice`).toBe(false);
      seen.add(series);
    }
    expect(types.get('rowmq_messages_total')).toBe('counter');
    expect(types.get('rowmq_request_duration_seconds')).toBe('histogram');
    expect(types.get('rowmq_waiting_consumers')).toBe('gauge');
    expect(types.get('rowmq_queue_deliveries')).toBe('gauge');
  });

  test('counts the events of messages', async () => {
    const queue = await shared.newQueue();
    const counted = async (event: string): Promise<number> =>
      shared.api.metric(`rowmq_messages_total{event="${event}",queue="${queue.name}"}`);
    await queue.enqueue('a', 'b', 'c');
    const [a, b] = await queue.dequeue({ maxMessages: 3 });
    await queue.extend([a!.receipt, b!.receipt], 60);
    await queue.ack(a!.receipt, 'malformed');
    await queue.nack([b!.receipt]);
    await queue.dequeueOne();
    await queue.job('purge');
    await eventually('the broker has counted the last batch', async () => (await counted('purged')) === 2);
    const events = ['enqueued', 'dequeued', 'redelivered', 'extended', 'acked', 'nacked', 'purged'];
    const counts = await Promise.all(events.map(async (event) => [event, await counted(event)]));
    expect(Object.fromEntries(counts)).toEqual({
      enqueued: 3,
      dequeued: 4,
      redelivered: 1,
      extended: 2,
      acked: 1,
      nacked: 1,
      purged: 2,
    });
  });

  test('shows how deep queues are', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('ready', 'leased', { body: 'delayed', delaySeconds: 600 });
    await queue.dequeueOne();
    for (const state of ['ready', 'leased', 'delayed'])
      await eventually(
        `one is ${state}`,
        async () => (await shared.api.metric(`rowmq_queue_deliveries{queue="${queue.name}",state="${state}"}`)) === 1,
      );
  });

  test('counts dead letters by the queue that they left first', async () => {
    const dead = await shared.newQueue();
    const queues = [
      await shared.newQueue({ deadLetterQueue: dead.name }),
      await shared.newQueue({ deadLetterQueue: dead.name }),
    ];
    for (const [index, queue] of queues.entries()) {
      await queue.enqueue(...Array.from({ length: index + 1 }, () => 'b'));
      for (let died = 0; died <= index; died += 1) {
        const { receipt } = await queue.dequeueOne();
        await queue.request('nack', { receipts: [receipt], deadLetter: true });
      }
    }
    await dead.enqueue('no dead letter');
    const lines = async (): Promise<string[]> =>
      (await shared.api.get('/metrics')).text
        .split('\n')
        .filter((line) => line.startsWith(`rowmq_dead_letters{queue="${dead.name}"`));
    const expected = queues.map(
      ({ name }, index) => `rowmq_dead_letters{queue="${dead.name}",source="${name}"} ${index + 1}`,
    );
    await vi.waitFor(async () => expect((await lines()).toSorted()).toEqual(expected.toSorted()), { timeout: 40_000 });
    expect((await shared.api.delete(`${queues[1]!.adminPath}?force=true`)).status).toBe(204);
    await vi.waitFor(async () => expect((await lines()).join()).toContain('source="(deleted)"} 2'), {
      timeout: 40_000,
    });
  });

  test('is compressed for a client that takes gzip', async () => {
    const { port } = new URL(shared.broker.url);
    const answer = async (encoding: string) =>
      new Promise<{ encoding: string | undefined; body: Buffer }>((resolve, reject) => {
        get({ port, path: '/metrics', headers: { 'accept-encoding': encoding } }, (response) => {
          void buffer(response).then(
            (body) => resolve({ encoding: response.headers['content-encoding'], body }),
            reject,
          );
        }).on('error', reject);
      });
    const zipped = await answer('deflate, gzip;q=0.5');
    expect(zipped.encoding).toBe('gzip');
    expect(gunzipSync(zipped.body).toString()).toContain('\nrowmq_database_up 1\n');
    for (const none of ['identity', 'gzip;q=0', '']) {
      const plain = await answer(none);
      expect([plain.encoding, plain.body.toString().includes('\nrowmq_database_up 1\n')]).toEqual([undefined, true]);
    }
  });

  test('counts refusals by their codes, and the consumers of each queue', async () => {
    const queue = await shared.newQueue({ maxDepth: 1 });
    await queue.enqueue('b');
    const before = await shared.api.metric('rowmq_refused_total{code="queue-full"}');
    expectProblem(await queue.request('enqueue', { messages: [{ body: 'b' }] }), 429, 'queue-full');
    expect(await shared.api.metric('rowmq_refused_total{code="queue-full"}')).toBe(before + 1);
    await queue.dequeueOne({ consumer: 'one' });
    await queue.dequeue({ consumer: 'two' });
    expect(await shared.api.metric(`rowmq_queue_consumers{queue="${queue.name}"}`)).toBe(2);
  });

  test('shows which queues are paused', async () => {
    const queue = await shared.newQueue();
    const isPaused = async (): Promise<number> => shared.api.metric(`rowmq_queue_paused{queue="${queue.name}"}`);
    expect(await isPaused()).toBe(0);
    await queue.admin('pause');
    // A broker that gets a request during another one may still answer with the older state.
    await eventually('it is paused', async () => (await isPaused()) === 1);
    await queue.admin('resume');
    await eventually('it is not', async () => (await isPaused()) === 0);
  });

  test('drops the series of a queue that was deleted through this or another broker', async () => {
    const queue = await shared.newQueue();
    const api = new Api(other.url);
    await api.queue(queue.name).enqueue('b');
    expect(await api.metric(`rowmq_messages_total{event="enqueued",queue="${queue.name}"}`)).toBe(1);
    expect((await shared.api.delete(`${queue.adminPath}?force=true`)).status).toBe(204);
    // The other broker notices the deletion.
    await api.get('/metrics');
    expect((await api.get('/metrics')).text).not.toContain(`"${queue.name}"`);
  });

  test('counts calls by their answers', async () => {
    const refused = 'rowmq_request_duration_seconds_count{call="dequeue",status="404"}';
    const before = await shared.api.metric(refused);
    expectProblem(await shared.api.post('/v1/queues/nowhere/messages/dequeue'), 404, 'queue-not-found');
    expect(await shared.api.metric(refused)).toBe(before + 1);
  });
});

/**
 * Runs the command of the image's HEALTHCHECK against the broker at this address, as Docker does.
 */
async function imageIsHealthy(url: string): Promise<boolean> {
  const dockerfile = await readFile(new URL('../../Dockerfile', import.meta.url), 'utf8');
  const command = /^HEALTHCHECK [^]*?\n  CMD (\[.*\])$/m.exec(dockerfile)?.[1] as string;
  const [program, ...args] = JSON.parse(command) as [string, ...string[]];
  const env = { ...process.env, ROWMQ_PORT: new URL(url).port };
  return run(program, args, { env, timeout: 60_000 }).then(
    () => true,
    () => false,
  );
}

describe('/metrics of a broker with more queues than it may show', () => {
  const few = useOwnBroker({ ROWMQ_METRICS_QUEUES: '2' });

  test('has series for some of them, and one for all others together', async () => {
    const queues = await Promise.all(Array.from({ length: 5 }, async () => few.newQueue()));
    for (const queue of queues) {
      await queue.enqueue('a', 'b');
      await queue.dequeueOne({ consumer: 'one' });
    }
    const { text } = await few.api.get('/metrics');
    const others = '(others)';
    for (const [series, each] of [
      ['rowmq_messages_total{event="enqueued",queue="', 2],
      ['rowmq_messages_total{event="dequeued",queue="', 1],
      ['rowmq_queue_consumers{queue="', 1],
      ['rowmq_queue_expired_last_hour{queue="', 0],
    ] as const) {
      const samples = text.split('\n').filter((line) => line.startsWith(series));
      expect(samples, series).toHaveLength(3);
      expect(samples).toContain(`${series}${others}"} ${3 * each}`);
    }
    // Counts may be a moment old.
    const leased = `rowmq_queue_deliveries{queue="${others}",state="leased"}`;
    await eventually('three of the others are leased', async () => (await few.api.metric(leased)) === 3);
  });
});

describe('/health', () => {
  test('says that the broker lives and is ready', async () => {
    expect((await shared.api.get('/health/live')).json).toEqual({ status: 'ok' });
    const ready = await shared.api.get('/health/ready');
    expect(ready.status).toBe(200);
    expect(ready.json).toMatchObject({ status: 'ok', details: { database: { status: 'up' } } });
  });

  test('says 503 while the database is away, stays alive, and recovers by itself', async () => {
    const api = new Api(other.url);
    await eventually('ready', async () => (await api.get('/health/ready')).status === 200);
    await gateway.shut();
    const unready = await eventually('not ready', async () => {
      const answer = await api.get('/health/ready');
      return answer.status !== 200 && answer;
    });
    const { detail } = expectProblem(unready, 503, 'database-unavailable');
    expect(detail).toContain('database');
    expect(unready.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
    expect((await api.get('/health/live')).status).toBe(200);
    expect(await imageIsHealthy(other.url)).toBe(true);
    const refused = await api.post('/v1/queues/nowhere/messages', { messages: [{ body: 'b' }] });
    expectProblem(refused, 503, 'database-unavailable');
    expect(refused.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);

    await gateway.open();
    await eventually('ready again', async () => (await api.get('/health/ready')).status === 200);
    expectProblem(await api.get('/v1/admin/queues/nowhere'), 404, 'queue-not-found');
  });

  test('fails if nobody listens, also for the image’s health check', async () => {
    expect(await imageIsHealthy(shared.broker.url)).toBe(true);
    expect(await imageIsHealthy(`http://127.0.0.1:${await freePort()}`)).toBe(false);
  });
});
