import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { AuditAnswer, NewKeyAnswer } from '@rowmq/contract';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Api, expectProblem, useBroker, useOwnBroker } from '../support/api.js';
import { brokerRefusal, runEntry } from '../support/commands.js';
import { openGateway } from '../support/gateway.js';
import { apiWith, newKey } from '../support/keys.js';
import { type Broker, freePort, startBroker } from '../support/processes.js';
import { openSocket } from '../support/raw-http.js';
import { eventually } from '../support/wait.js';

const ADMIN_KEY = 'the-key-of-the-settings';
/** A revocation takes effect within this time on every broker: docs/operations.md. */
const REVOKED_MS = 3000;
const ENV = { ROWMQ_ADMIN_KEY: ADMIN_KEY, ROWMQ_OPERATIONS: 'key', ROWMQ_MAX_FAILED_ATTEMPTS: '20' };
const shared = useOwnBroker(ENV);
const started: Broker[] = [];
let folder: string;
let admin: Api;

beforeAll(async () => {
  admin = apiWith(shared.broker.url, ADMIN_KEY);
  folder = await mkdtemp(join(tmpdir(), 'rowmq-keys-'));
  expect((await admin.put('/v1/admin/queues/q')).status).toBe(201);
});
afterAll(async () => {
  await Promise.all(started.map((broker) => broker.stop()));
  await rm(folder, { recursive: true, force: true });
});

/** A further broker on the same database. */
async function another(env: Record<string, string> = {}, url = shared.broker.database.url): Promise<Broker> {
  const broker = await startBroker({ database: { ...shared.broker.database, url }, env: { ...ENV, ...env } });
  started.push(broker);
  return broker;
}

test('a rotation refuses no request, under load and on two brokers', async () => {
  const other = await another();
  const { name, secret } = await newKey(admin, { scopes: ['enqueue'] });
  const secrets = [secret];
  /** Half of the clients still use the secret before the last rotation. */
  let isHalfOld = false;
  let isDone = false;
  const calls = Array.from({ length: 8 }, () => 0);
  const load = calls.map(async (_, client) => {
    const url = client % 2 === 0 ? shared.broker.url : other.url;
    while (!isDone) {
      const mine = secrets.at(isHalfOld && client % 4 < 2 ? -2 : -1) as string;
      const { status, text: reply } = await apiWith(url, mine).post('/v1/queues/q/messages', {
        messages: [{ body: 'b' }],
      });
      expect(status, reply).toBe(201);
      calls[client]! += 1;
    }
  });
  const eachCallsAgain = async (): Promise<void> => {
    const before = [...calls];
    await eventually('every client has called again', () =>
      calls.every((count, client) => count > before[client]! + 1),
    );
  };
  const rotate = async (): Promise<void> => {
    for (let rotation = 1; rotation <= 5; rotation += 1) {
      const answer = await admin.post<NewKeyAnswer>(`/v1/admin/keys/${name}/rotate`, { oldSecretSeconds: 60 });
      isHalfOld = true;
      secrets.push(answer.json.secret);
      await eachCallsAgain();
      isHalfOld = false;
      await eachCallsAgain();
    }
  };
  await Promise.race([rotate(), Promise.all(load)]).finally(() => (isDone = true));
  await Promise.all(load);
  const oldest = await apiWith(shared.broker.url, secrets[0] as string).get('/v1/admin/queues');
  expectProblem(oldest, 401, 'unauthorized');
  const { detail } = expectProblem(await endOld(name, secrets), 401, 'unauthorized');
  expect(detail).toContain('it is wrong, or it was revoked');
});

/** Ends the old secret, and calls with it. */
async function endOld(name: string, secrets: string[]): ReturnType<Api['get']> {
  await admin.post(`/v1/admin/keys/${name}/rotate`, { oldSecretSeconds: 0 });
  return apiWith(shared.broker.url, secrets.at(-1) as string).get('/openapi.json');
}

test('an old secret ends by itself, and its holder learns why', async () => {
  const { name, api } = await newKey(admin, { scopes: ['metrics'] });
  await admin.post(`/v1/admin/keys/${name}/rotate`, { oldSecretSeconds: 1 });
  const refused = await eventually('the old secret ends', async () => {
    const answer = await api.get('/metrics');
    return answer.status === 401 && answer;
  });
  expect(expectProblem(refused, 401, 'unauthorized').detail).toContain('its old secret has ended');
});

test('every worker of a broker refuses a revoked key in time', async () => {
  const broker = await another({ ROWMQ_WORKERS: '2' });
  const { name, secret } = await newKey(admin, { scopes: ['metrics'] });
  const api = apiWith(broker.url, secret);
  // Twelve connections at a time: each worker has some.
  const statuses = async (): Promise<number[]> =>
    Promise.all(Array.from({ length: 12 }, async () => (await api.get('/openapi.json')).status));
  expect(new Set(await statuses())).toEqual(new Set([200]));
  await admin.delete(`/v1/admin/keys/${name}`);
  const revokedAt = performance.now();
  let lastAdmitted = revokedAt;
  await eventually('all workers refuse it', async () => {
    const began = performance.now();
    const all = await statuses();
    if (all.includes(200)) lastAdmitted = began;
    return all.every((status) => status === 401 || status === 429);
  });
  expect(lastAdmitted - revokedAt).toBeLessThan(REVOKED_MS);
});

test('while the database is away, known keys stay valid, and unknown ones are not called wrong', async () => {
  const gateway = await openGateway(shared.broker.database.url);
  const broker = await another({}, gateway.url);
  const { secret } = await newKey(admin, { scopes: ['metrics', 'enqueue'] });
  const known = apiWith(broker.url, secret);
  expect((await known.get('/openapi.json')).status).toBe(200);
  await gateway.shut();
  const stranger = await apiWith(broker.url, `rowmq_${'0'.repeat(16)}_${'A'.repeat(43)}`).get('/openapi.json');
  expectProblem(stranger, 503, 'database-unavailable');
  // By now the keys are older than a broker uses them otherwise.
  expect((await known.get('/openapi.json')).status).toBe(200);
  const enqueue = await known.post('/v1/queues/q/messages', { messages: [{ body: 'b' }] });
  expectProblem(enqueue, 503, 'database-unavailable');
  await gateway.open();
  await eventually('it works again', async () => {
    const { status } = await known.post('/v1/queues/q/messages', { messages: [{ body: 'b' }] });
    expect(status).toBeOneOf([201, 503]);
    return status === 201;
  });
  await broker.stop();
  await gateway.shut();
});

describe('too many failures from one address', () => {
  test('get 429, also for a right ROWMQ_ADMIN_KEY, but not for other keys', async () => {
    const broker = await another();
    const { api, secret } = await newKey(admin, { scopes: ['metrics'] });
    const valid = apiWith(broker.url, secret);
    const wrong = apiWith(broker.url, 'a-guess-of-the-admin-key');
    const path = '/v1/admin/queues';
    for (let failure = 1; failure <= 20; failure += 1) expectProblem(await wrong.get(path), 401, 'unauthorized');
    const refused = await wrong.get(path);
    expectProblem(refused, 429, 'too-many-attempts');
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    expectProblem(await apiWith(broker.url, ADMIN_KEY).get(path), 429, 'too-many-attempts');
    expect((await valid.get('/openapi.json')).status).toBe(200);
    // Other brokers count for themselves.
    expect((await api.get('/openapi.json')).status).toBe(200);
    for (let failure = 1; failure <= 100; failure += 1) await wrong.get(path);
    const lines = broker
      .output()
      .split('\n')
      .filter((line) => line.includes('"context":"keys"'));
    expect(lines).toHaveLength(2);
    expect(lines.join()).not.toContain('a-guess');
  });

  test.each(['GET', 'DELETE'])('get 429 for a guessed session, too: %s', async (method) => {
    const broker = await another();
    const call = async (how: string, cookie: string, body?: object) =>
      fetch(`${broker.url}/dashboard/session`, {
        method: how,
        headers: {
          cookie: `rowmq_session=${cookie}`,
          origin: broker.url,
          'x-rowmq-dashboard': '1',
          ...(body && { 'content-type': 'application/json' }),
        },
        ...(body && { body: JSON.stringify(body) }),
      });
    const login = await call('POST', '', { key: ADMIN_KEY });
    const own = /rowmq_session=([^;]+)/.exec(login.headers.get('set-cookie') ?? '')?.[1] as string;
    expect(await (await call('GET', own)).json()).toMatchObject({ rights: { scopes: expect.anything() } });
    const statuses: number[] = [];
    for (let guess = 100; guess < 125; guess += 1)
      statuses.push((await call(method, `${'g'.repeat(40)}${guess}`)).status);
    expect(statuses.slice(0, 20)).not.toContain(429);
    expect(statuses.at(-1)).toBe(429);
    // A person whose session the broker knows can leave it all the same.
    expect((await call('DELETE', own)).status).toBe(204);
    expect(
      (
        await fetch(`${shared.broker.url}/v1/admin/queues`, {
          headers: { cookie: `rowmq_session=${own}`, 'x-rowmq-dashboard': '1' },
        })
      ).status,
    ).toBe(401);
  });

  test('fill neither the audit nor its log', async () => {
    const broker = await another();
    const wrong = apiWith(broker.url, 'another-guess');
    const path = '/v1/admin/queues/guessed';
    for (let failure = 1; failure <= 20; failure += 1) expectProblem(await wrong.put(path), 401, 'unauthorized');
    for (let failure = 1; failure <= 20; failure += 1) expectProblem(await wrong.put(path), 429, 'too-many-attempts');
    const entries = async () => (await admin.get<AuditAnswer>(`/v1/admin/audit?limit=100&path=${path}`)).json.entries;
    await eventually('the first ones are there', async () => (await entries()).length >= 20);
    expect((await entries()).map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 401));
    expect(broker.output().match(/"context":"audit"/g)).toHaveLength(20);
  });
});

describe('a broker that asks for no keys', () => {
  const open = useBroker();

  async function statusFor(
    host: string,
    path = '/v1/admin/queues',
    url = open.broker.url,
  ): Promise<number | undefined> {
    return new Promise((resolve, reject) => {
      request(`${url}${path}`, { headers: { host } }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      })
        .on('error', reject)
        .end();
    });
  }

  test.each(['localhost', 'LOCALHOST:80', '127.0.0.1', '127.0.0.1:8080', '127.1.2.3:1', '[::1]', '[::1]:8080'])(
    'answers those who call it %s',
    async (host) => {
      expect(await statusFor(host)).toBe(200);
    },
  );

  test.each([
    'rebound.example',
    'rebound.example:8080',
    'localhost.example',
    '127.0.0.1.example',
    'localhost.',
    '127.0.0.1@evil',
    '[::2]',
    '192.168.0.1',
    '0.0.0.0',
    '2130706433',
  ])('refuses those who call it %s, on every path', async (host) => {
    for (const path of ['/v1/admin/queues', '/metrics', '/docs', '/openapi.json', '/', '/health/live'])
      expect(await statusFor(host, path), path).toBe(403);
  });

  test('answers further hosts that its settings name', async () => {
    const broker = await startBroker({
      database: shared.broker.database,
      env: { ROWMQ_ALLOWED_HOSTS: 'mq.internal,[fd00::1]' },
    });
    started.push(broker);
    for (const host of ['mq.internal:8080', 'MQ.internal', '[fd00::1]:1', 'localhost'])
      expect(await statusFor(host, '/', broker.url), host).toBe(200);
    expect(await statusFor('other.internal', '/', broker.url)).toBe(403);
  });
});

describe('with a port of their own', () => {
  test.each(['1', '2'])('metrics and docs are there and nowhere else, with %s workers', async (workers) => {
    const port = String(await freePort());
    const env = { ROWMQ_OPERATIONS_PORT: port, ROWMQ_OPERATIONS: 'open', ROWMQ_WORKERS: workers };
    const broker = await another(env);
    const operations = apiWith(`http://127.0.0.1:${port}`, ADMIN_KEY);
    const nobody = new Api(operations.url);
    for (const path of ['/metrics', '/docs', '/docs/swagger-ui-bundle.js', '/openapi.json']) {
      expect((await nobody.get(path)).status, path).toBe(200);
      expectProblem(await apiWith(broker.url, ADMIN_KEY).get(path), 404, 'invalid-request');
    }
    for (const { url } of [broker, operations]) expect((await new Api(url).get('/health/ready')).status).toBe(200);
    expectProblem(await operations.get('/v1/admin/queues'), 404, 'invalid-request');
    expectProblem(
      await operations.post('/v1/queues/q/messages', { messages: [{ body: 'b' }] }),
      404,
      'invalid-request',
    );
    expect((await apiWith(broker.url, ADMIN_KEY).get('/v1/admin/queues')).status).toBe(200);
    await broker.stop();
    await expect(nobody.get('/metrics')).rejects.toThrow('fetch failed');
  });
});

test('headers that carry other headers get nothing in', async () => {
  const send = async (header: string): Promise<string> => {
    const socket = await openSocket(shared.broker.url);
    socket.write(`GET /v1/admin/queues HTTP/1.1\r\nHost: q\r\n${header}\r\nConnection: close\r\n\r\n`);
    return text(socket);
  };
  for (const value of [`x\r\nAuthorization: Bearer ${ADMIN_KEY}`, `\0${ADMIN_KEY}`, `x, Bearer ${ADMIN_KEY}`])
    expect(await send(`Authorization: Bearer ${value}`), value).toMatch(/^HTTP\/1\.1 40[01] /);
  expect(await send('X-Request-Id: a%0d%0aSet-Cookie: b')).not.toMatch(/set-cookie/i);
});

describe('secrets in files', () => {
  test('are read by the broker, without the line end', async () => {
    const key = join(folder, 'key');
    const url = join(folder, 'url');
    await writeFile(key, `${ADMIN_KEY}\n`);
    await writeFile(url, `${shared.broker.database.url}\n`);
    const broker = await another({
      ROWMQ_ADMIN_KEY: '',
      ROWMQ_ADMIN_KEY_FILE: key,
      ROWMQ_DATABASE_URL: '',
      ROWMQ_DATABASE_URL_FILE: url,
    });
    expect((await apiWith(broker.url, ADMIN_KEY).get('/v1/admin/queues')).status).toBe(200);
  });

  test('prevent a start if they are missing, empty or given twice', async () => {
    const empty = join(folder, 'empty');
    await writeFile(empty, '\n');
    const output = await brokerRefusal({
      ROWMQ_ADMIN_KEY_FILE: empty,
      ROWMQ_DATABASE_URL_FILE: join(folder, 'missing'),
    });
    expect(output).toContain(`ROWMQ_ADMIN_KEY_FILE names ${empty}, which is empty`);
    expect(output).toMatch(/ROWMQ_DATABASE_URL_FILE names .*missing, which cannot be read/);
    expect(output).not.toContain('ROWMQ_DATABASE_URL is needed');
  });
});

test('the command line creates the first key, for a broker whose settings have none', async () => {
  const env = { ROWMQ_DATABASE_URL: shared.broker.database.url };
  const made = await runEntry('key', env, ['first', '--scope', 'admin', '--scope', 'enqueue', '--pattern', 'o*']);
  expect(made).toMatchObject({ code: 0, stderr: '' });
  const broker = await another({ ROWMQ_ADMIN_KEY: '', ROWMQ_API_KEYS: 'required' });
  expect((await apiWith(broker.url, made.stdout.trim()).get('/v1/admin/queues')).status).toBe(200);
  const again = await runEntry('key', env, ['first', '--scope', 'admin']);
  expect(again.code).toBe(1);
  expect(again.stderr).toContain("The API key 'first' exists already");
  expect((await runEntry('key', env, ['x', '--scope', 'everything'])).stderr).toContain('scopes.0');
  expect((await admin.get('/v1/admin/audit?action=createKey')).text).toContain('command-line');
});
