import type { JobAnswer, JobsAnswer, QueuesAnswer, SchedulesAnswer, TopicsAnswer } from '@rowmq/contract';
import { beforeAll, describe, expect, test } from 'vitest';
import { type Answer, type Api, expectProblem, useOwnBroker } from '../support/api.js';
import { apiWith, newKey } from '../support/keys.js';
import { startBroker } from '../support/processes.js';
import { eventually } from '../support/wait.js';

const ADMIN_KEY = 'the-key-of-the-settings';
/** A revocation takes effect within this time on every broker: docs/operations.md. */
const REVOKED_MS = 3000;
const shared = useOwnBroker({
  ROWMQ_ADMIN_KEY: ADMIN_KEY,
  ROWMQ_OPERATIONS: 'key',
  ROWMQ_MAX_FAILED_ATTEMPTS: '10000',
});
let admin: Api;

beforeAll(async () => {
  admin = apiWith(shared.broker.url, ADMIN_KEY);
  for (const name of ['orders.new', 'orders.dead', 'orders', 'mail'])
    expect((await admin.put(`/v1/admin/queues/${name}`)).status).toBe(201);
  await admin.put('/v1/admin/queues/orders.new', { maxReceives: 1, deadLetterQueue: 'orders.dead' });
});

const MESSAGES = { messages: [{ body: 'b' }] };

function detailOf(answer: Answer): string {
  return expectProblem(answer, 403, 'forbidden').detail;
}

describe('an API key', () => {
  test('is shown with its secret once, and never again', async () => {
    const { secret, name, id } = await newKey(admin, { scopes: ['enqueue'] });
    expect(secret).toMatch(new RegExp(`^rowmq_${id}_[A-Za-z0-9_-]{43}$`));
    const random = secret.slice(-43);
    for (const path of [`/v1/admin/keys/${name}`, '/v1/admin/keys']) {
      const { text } = await admin.get(path);
      expect(text).toContain(name);
      expect(text).not.toContain(random);
    }
    expect(shared.broker.output()).not.toContain(random);
    expectProblem(await admin.post('/v1/admin/keys', { name, scopes: ['enqueue'] }), 409, 'key-exists');
  });

  test('opens the calls of its scopes and no others', async () => {
    const [producer, consumer, scraper] = [
      await newKey(admin, { scopes: ['enqueue'] }),
      await newKey(admin, { scopes: ['dequeue'] }),
      await newKey(admin, { scopes: ['metrics'] }),
    ];
    const dequeue = '/v1/queues/mail/messages/dequeue';
    expect((await producer.api.post('/v1/queues/mail/messages', MESSAGES)).status).toBe(201);
    expect((await consumer.api.post(dequeue)).status).toBe(200);
    expect((await scraper.api.get('/metrics')).status).toBe(200);
    expect(detailOf(await consumer.api.post('/v1/queues/mail/messages', MESSAGES))).toBe(
      `The API key '${consumer.name}' lacks the scope enqueue, and has only dequeue. Use a key that has it. Nothing was done.`,
    );
    expect(detailOf(await producer.api.post(dequeue))).toContain('lacks the scope dequeue');
    expect(detailOf(await producer.api.get('/v1/admin/queues/mail'))).toContain('lacks the scope read');
    expect(detailOf(await producer.api.get('/metrics'))).toContain('lacks the scope metrics');
    for (const path of ['/docs', '/openapi.json']) {
      expectProblem(await shared.api.get(path), 401, 'unauthorized');
      expect((await scraper.api.get(path)).status).toBe(200);
    }
    expectProblem(await shared.api.get('/metrics'), 401, 'unauthorized');
  });

  test('reaches the queues of its patterns and no others', async () => {
    const { api, name } = await newKey(admin, { scopes: ['enqueue', 'dequeue'], patterns: ['orders.*', 'mail'] });
    for (const queue of ['orders.new', 'mail'])
      expect((await api.post(`/v1/queues/${queue}/messages`, MESSAGES)).status).toBe(201);
    for (const queue of ['orders', 'mail2', 'xorders.new', 'Mail'])
      for (const verb of ['', '/dequeue', '/ack', '/nack', '/extend', '/release']) {
        const { status } = await api.post(`/v1/queues/${queue}/messages${verb}`, MESSAGES);
        expect(status, queue + verb).toBeOneOf([403, 404]);
      }
    expect(detailOf(await api.post('/v1/queues/orders/messages', MESSAGES))).toBe(
      `The API key '${name}' does not reach the queue or topic 'orders', but only orders.*, mail. Use a key whose patterns reach it. Nothing was done.`,
    );
  });

  test('acks, nacks and extends nothing of another queue, whose receipt it holds', async () => {
    const { api } = await newKey(admin, { scopes: ['dequeue'], patterns: ['mail'] });
    const orders = admin.queue('orders');
    await orders.enqueue('b');
    const { receipt } = await orders.dequeueOne();
    for (const verb of ['ack', 'nack', 'release'])
      expect((await api.post(`/v1/queues/mail/messages/${verb}`, { receipts: [receipt] })).json).toMatchObject({
        failed: [{ receipt }],
      });
    await orders.ack(receipt);
  });

  test('cannot be made or seen by a key that has patterns', async () => {
    const { api } = await newKey(admin, { scopes: ['admin', 'enqueue'], patterns: ['o*'] });
    const attempts = [
      api.get('/v1/admin/keys'),
      api.get('/v1/admin/keys/key-1'),
      api.post('/v1/admin/keys', { name: 'more', scopes: ['admin'] }),
      api.post('/v1/admin/keys/key-1/rotate', {}),
      api.delete('/v1/admin/keys/key-1'),
      api.get('/v1/admin/reaper'),
    ];
    for (const attempt of attempts) expect(detailOf(await attempt)).toContain('Use a key without patterns');
    expectProblem(await admin.get('/v1/admin/keys/more'), 404, 'key-not-found');
  });

  test.each([
    { name: 'x', scopes: [] },
    { name: 'x', scopes: ['all'] },
    { name: 'x', scopes: ['admin', 'admin'] },
    { name: 'x y', scopes: ['admin'] },
    { name: 'x', scopes: ['admin'], patterns: ['a*b'] },
    { name: 'x', scopes: ['admin'], patterns: ['a,b'] },
    { name: 'x', scopes: ['admin'], patterns: [''] },
    { name: 'x', scopes: ['admin'], expiresAt: 'soon' },
    { name: 'x', scopes: ['admin'], expiresAt: '2020-01-01T00:00:00Z' },
    { name: 'x', scopes: ['admin'], secret: 'mine' },
  ])('is not made by %j', async (request) => {
    expectProblem(await admin.post('/v1/admin/keys', request), 400, 'invalid-request');
  });

  test('ends when it expires, and says so to who holds it', async () => {
    const expiresAt = new Date(Date.now() + 2000).toISOString();
    const { api, secret } = await newKey(admin, { scopes: ['enqueue'], expiresAt });
    const answer = await eventually('the key is refused', async () => {
      const tried = await api.post('/v1/queues/mail/messages', MESSAGES);
      return tried.status === 401 && tried;
    });
    expect(expectProblem(answer, 401, 'unauthorized').detail).toContain('has expired');
    const forged = apiWith(shared.broker.url, `${secret.slice(0, -1)}${secret.endsWith('A') ? 'B' : 'A'}`);
    const { detail } = expectProblem(await forged.get('/v1/admin/queues'), 401, 'unauthorized');
    expect(detail).not.toContain('expired');
  });
});

describe('a key with patterns reaches nothing else', () => {
  let team: Api;
  beforeAll(async () => {
    team = (await newKey(admin, { scopes: ['enqueue', 'dequeue', 'admin'], patterns: ['orders.*'] })).api;
  });

  test('as a dead-letter queue', async () => {
    expect(detailOf(await team.put('/v1/admin/queues/orders.new', { deadLetterQueue: 'mail' }))).toContain("'mail'");
    expect((await team.put('/v1/admin/queues/orders.new', { deadLetterQueue: 'orders.dead' })).status).toBe(200);
  });

  test('by a redrive to the source of a dead letter', async () => {
    await admin.put('/v1/admin/queues/foreign', { maxReceives: 1, deadLetterQueue: 'orders.dead' });
    const foreign = admin.queue('foreign');
    await foreign.enqueue('not yours');
    const { receipt } = await foreign.dequeueOne();
    await admin.post('/v1/queues/foreign/messages/nack', { receipts: [receipt], deadLetter: true });
    const redrive = '/v1/admin/queues/orders.dead/redrive';
    for (const [api, done, skipped] of [
      [team, 0, 1],
      [admin, 1, 0],
    ] as const) {
      const { id } = (await api.post<JobAnswer>(redrive, {})).json;
      expect(await api.job(id, 20)).toMatchObject({ state: 'done', done, skipped });
    }
    expectProblem(await team.post(redrive, { toQueue: 'invoices' }), 403, 'forbidden');
    const job = (await admin.post<JobAnswer>('/v1/admin/queues/foreign/redrive')).json;
    for (const attempt of [team.get(`/v1/admin/jobs/${job.id}`), team.delete(`/v1/admin/jobs/${job.id}`)])
      expectProblem(await attempt, 403, 'forbidden');
    const { jobs } = (await team.get<JobsAnswer>('/v1/admin/jobs')).json;
    expect(new Set(jobs.map(({ queue }) => queue))).toEqual(new Set(['orders.dead']));
    await admin.delete('/v1/admin/queues/foreign');
  });

  test('by a replay to another queue', async () => {
    const range = { from: '2026-01-01T00:00:00Z', to: '2100-01-01T00:00:00Z' };
    expect(detailOf(await team.post('/v1/admin/queues/orders.new/replay', { ...range, toQueue: 'mail' }))).toContain(
      "'mail'",
    );
  });

  test('by a schedule', async () => {
    const tick = { everySeconds: 3600, message: { body: 'tick' } };
    const path = '/v1/admin/schedules/orders.nightly';
    expect(detailOf(await team.put(path, { ...tick, queue: 'mail' }))).toContain("'mail'");
    expect(detailOf(await team.put('/v1/admin/schedules/nightly', { ...tick, queue: 'orders.new' }))).toContain(
      "'nightly'",
    );
    expect((await team.put(path, { ...tick, queue: 'orders.new' })).status).toBe(201);
    // An administrator changes where it goes. From now on it is not the team's.
    expect((await admin.put(path, { ...tick, queue: 'mail' })).status).toBe(200);
    expect((await admin.put('/v1/admin/schedules/orders_x', { ...tick, queue: 'orders.new' })).status).toBe(201);
    for (const attempt of [
      team.get(path),
      team.put(path, { ...tick, queue: 'orders.new' }),
      team.post(`${path}/run`),
      team.delete(path),
    ])
      expect(detailOf(await attempt)).toContain("'mail'");
    expect((await team.get<SchedulesAnswer>('/v1/admin/schedules')).json.schedules).toEqual([]);
    expect((await admin.get<SchedulesAnswer>('/v1/admin/schedules')).json.schedules).toHaveLength(2);
  });

  test('by a topic or a subscription', async () => {
    await admin.put('/v1/admin/topics/mail-events');
    expect((await team.put('/v1/admin/topics/orders.events')).status).toBe(201);
    for (const path of ['orders.events/subscriptions/mail', 'mail-events/subscriptions/orders.new', 'mail-events'])
      detailOf(await team.put(`/v1/admin/topics/${path}`));
    expect((await team.put('/v1/admin/topics/orders.events/subscriptions/orders.new')).status).toBe(201);
    detailOf(await team.post('/v1/topics/mail-events/messages', MESSAGES));
    expect((await team.post('/v1/topics/orders.events/messages', MESSAGES)).status).toBe(201);
    const { topics } = (await team.get<TopicsAnswer>('/v1/admin/topics')).json;
    expect(topics.map(({ name }) => name)).toEqual(['orders.events']);
  });

  test('in the list of queues', async () => {
    const { queues } = (await team.get<QueuesAnswer>('/v1/admin/queues')).json;
    expect(queues.map(({ name }) => name)).toEqual(['orders.dead', 'orders.new']);
  });

  test('by the id of a message', async () => {
    const [id] = await admin.queue('mail').enqueue('private');
    detailOf(await team.get(`/v1/admin/messages/${id}`));
    expectProblem(await team.delete(`/v1/admin/messages/${id}`), 404, 'delivery-not-found');
    expect((await admin.message(id!)).settled).toBe(false);
    const [own] = await team.queue('orders.new').enqueue('public');
    expect((await team.message(own!)).queue).toBe('orders.new');
    expect((await team.delete(`/v1/admin/messages/${own}`)).status).toBe(204);
  });
});

describe('every call', () => {
  interface Described {
    parameters?: { in: string; name: string }[];
  }
  let calls: { method: string; path: string; hasName: boolean }[];
  /** They need no key, or a key without a scope. */
  const OPEN = new Set(['/', '/health/live', '/health/ready']);
  /** Their handlers keep to the patterns of the key, and other tests see it. */
  const ON_A_MESSAGE = ['ack', 'release', 'redrive', 'move'].map((action) => `messages/x/${action}`);
  const NARROWED = new Set(
    ['overview', 'queues', 'topics', 'schedules', 'jobs', 'jobs/x', 'messages/x', ...ON_A_MESSAGE].map(
      (path) => `/v1/admin/${path}`,
    ),
  );

  beforeAll(async () => {
    const { paths } = (await admin.get<{ paths: Record<string, Record<string, Described>> }>('/openapi.json')).json;
    calls = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => ({
        method: method.toUpperCase(),
        path: path.replaceAll(/\{\w+\}/g, 'x'),
        hasName: path.includes('{'),
      })),
    );
    expect(calls.length).toBeGreaterThan(35);
  });

  test('needs a key, its scope, and a key that reaches what it names', async () => {
    const scopeless = await newKey(admin, { scopes: ['metrics'] });
    const elsewhere = await newKey(admin, { scopes: ['enqueue', 'dequeue', 'admin'], patterns: ['elsewhere'] });
    for (const { method, path } of calls.filter((call) => !OPEN.has(call.path))) {
      const where = `${method} ${path}`;
      const body = method === 'GET' ? undefined : {};
      expect((await shared.api.call(method, path, body)).status, where).toBe(401);
      if (path === '/metrics') continue;
      expect((await scopeless.api.call(method, path, body)).status, where).toBe(403);
      if (NARROWED.has(path)) continue;
      expect((await elsewhere.api.call(method, path, body)).status, where).toBe(403);
    }
  });
});

describe('a key is refused', () => {
  test.each([
    ['of another form', (secret: string) => secret.slice(0, -1)],
    ['with more behind it', (secret: string) => `${secret}A`],
    ['in other letters', (secret: string) => secret.toUpperCase()],
    ['with the random part of another', (secret: string) => `${secret.slice(0, 23)}${'A'.repeat(43)}`],
    ['with a forged id', (secret: string) => `rowmq_0123456789abcdef_${secret.slice(-43)}`],
    ['with SQL in it', () => "rowmq_'OR'1'='1_x"],
    ['by its name', () => 'key-1'],
  ])('%s', async (_, forge) => {
    const { secret } = await newKey(admin, { scopes: ['admin'] });
    const answer = await apiWith(shared.broker.url, forge(secret)).get('/v1/admin/queues');
    expect(expectProblem(answer, 401, 'unauthorized').detail).toContain('it is wrong, or it was revoked');
    expect(answer.headers.get('www-authenticate')).toBe('Bearer');
  });

  test('within three seconds of its revocation on every broker, and at once where it was revoked', async () => {
    const other = await startBroker({ database: shared.broker.database, env: { ROWMQ_ADMIN_KEY: ADMIN_KEY } });
    const { secret, name, api } = await newKey(admin, { scopes: ['admin'] });
    const elsewhere = apiWith(other.url, secret);
    expect((await elsewhere.get('/v1/admin/queues')).status).toBe(200);
    expect((await admin.delete(`/v1/admin/keys/${name}`)).status).toBe(204);
    const revokedAt = performance.now();
    expectProblem(await api.get('/v1/admin/queues'), 401, 'unauthorized');
    let lastAdmitted = revokedAt;
    await eventually('the other broker refuses it', async () => {
      const began = performance.now();
      const { status } = await elsewhere.get('/v1/admin/queues');
      if (status === 200) lastAdmitted = began;
      return status === 401;
    });
    expect(lastAdmitted - revokedAt).toBeLessThan(REVOKED_MS);
    await other.stop();
  });
});
