import type { AuditAnswer, AuditEntry } from '@rowmq/contract';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { beforeAll, describe, expect, test } from 'vitest';
import { type Answer, type Api, useOwnBroker } from '../support/api.js';
import { apiWith, newKey } from '../support/keys.js';
import { openSocket } from '../support/raw-http.js';
import { eventually } from '../support/wait.js';

const ADMIN_KEY = 'the-key-of-the-settings';
const shared = useOwnBroker({ ROWMQ_ADMIN_KEY: ADMIN_KEY, ROWMQ_MAX_FAILED_ATTEMPTS: '1000' });
let admin: Api;
beforeAll(() => {
  admin = apiWith(shared.broker.url, ADMIN_KEY);
});

let requests = 0;
/** Makes a call with an id of its own, and returns the reply and its entry in the audit. */
async function audited(
  api: Api,
  method: string,
  path: string,
  body?: unknown,
): Promise<{ answer: Answer; entry: AuditEntry }> {
  requests += 1;
  const requestId = `audit-test-${requests}`;
  const answer = await api.call(method, path, body, { 'x-request-id': requestId });
  expect(answer.headers.get('x-request-id')).toBe(requestId);
  const entry = await eventually(`${method} ${path} is in the audit`, async () => entryOf(requestId));
  return { answer, entry };
}

async function entryOf(requestId: string): Promise<AuditEntry | undefined> {
  const { entries } = (await admin.get<AuditAnswer>('/v1/admin/audit?limit=20')).json;
  return entries.find((entry) => entry.requestId === requestId);
}

describe('the audit', () => {
  test('says who changed which setting from what to what', async () => {
    const { api, name } = await newKey(admin, { scopes: ['admin'] });
    const { entry: created } = await audited(api, 'PUT', '/v1/admin/queues/orders', { leaseSeconds: 30 });
    expect(created.changes).toMatchObject({ leaseSeconds: { to: 30 }, paused: { to: false } });
    // Counts change by themselves.
    for (const count of ['stats', 'rates']) expect(created.changes).not.toHaveProperty(count);
    const { entry } = await audited(api, 'PUT', '/v1/admin/queues/orders', { leaseSeconds: 60 });
    expect(entry).toEqual({
      at: expect.stringMatching(/^20.*Z$/) as string,
      action: 'putQueue',
      path: '/v1/admin/queues/orders',
      status: 200,
      problem: null,
      key: name,
      address: '127.0.0.1',
      requestId: entry.requestId,
      changes: { leaseSeconds: { from: 30, to: 60 } },
    });
    const line = shared.broker
      .output()
      .split('\n')
      .find((one) => one.includes(entry.requestId));
    const { at: _, ...rest } = entry;
    expect(JSON.parse(line ?? '')).toMatchObject({ level: 'log', context: 'audit', message: rest });
  });

  test('has the refused actions, and why they were refused', async () => {
    const { api, name } = await newKey(admin, { scopes: ['admin'], patterns: ['mine.*'] });
    const path = '/v1/admin/queues/theirs';
    expect((await audited(api, 'PUT', path, {})).entry).toMatchObject({ status: 403, problem: 'forbidden', key: name });
    expect((await audited(shared.api, 'PUT', path, {})).entry).toMatchObject({ problem: 'unauthorized', key: null });
    expect((await audited(admin, 'PUT', path, { leaseSeconds: -1 })).entry).toMatchObject({
      status: 400,
      problem: 'invalid-request',
      key: 'ROWMQ_ADMIN_KEY',
      changes: null,
    });
    expect((await audited(admin, 'DELETE', path)).entry).toMatchObject({ status: 404, problem: 'queue-not-found' });
  });

  test('has the changes of each kind of thing', async () => {
    await admin.put('/v1/admin/queues/q', {});
    await admin.queue('q').enqueue('b');
    const changes = async (method: string, path: string, body?: unknown): Promise<AuditEntry['changes']> => {
      const { answer, entry } = await audited(admin, method, `/v1/admin/${path}`, body);
      expect(answer.status, answer.text).toBeLessThan(300);
      return entry.changes;
    };
    expect(await changes('POST', 'queues/q/purge')).toEqual({
      job: { to: expect.any(String) as string },
      filter: { to: {} },
    });
    expect(await changes('PUT', 'topics/t', {})).toMatchObject({ deduplicationSeconds: { to: 300 } });
    expect(await changes('PUT', 'topics/t/subscriptions/q', { filter: { a: ['b'] } })).toMatchObject({
      filter: { to: { a: ['b'] } },
    });
    expect(await changes('DELETE', 'topics/t/subscriptions/q')).toMatchObject({ filter: { from: { a: ['b'] } } });
    expect(await changes('DELETE', 'topics/t')).toMatchObject({ deduplicationSeconds: { from: 300 } });
    const schedule = { everySeconds: 3600, queue: 'q', message: { body: 'top-secret' } };
    expect(await changes('PUT', 'schedules/s', schedule)).toMatchObject({ everySeconds: { to: 3600 } });
    expect(await changes('PUT', 'schedules/s', { ...schedule, message: { body: 'other-secret' } })).toEqual({
      message: { to: 'changed' },
    });
    expect(await changes('POST', 'schedules/s/run')).toMatchObject({ messageId: { to: expect.any(String) as string } });
    expect(await changes('DELETE', 'schedules/s')).toMatchObject({ everySeconds: { from: 3600 } });
    expect(await changes('POST', 'keys', { name: 'audited', scopes: ['enqueue'] })).toMatchObject({
      scopes: { to: ['enqueue'] },
    });
    expect(await changes('POST', 'keys/audited/rotate', {})).toMatchObject({ oldSecretUntil: { from: null } });
    expect(await changes('DELETE', 'keys/audited')).toMatchObject({ scopes: { from: ['enqueue'] } });
    expect(await changes('DELETE', 'queues/q?force=true')).toMatchObject({ leaseSeconds: { from: 30 } });
  });

  test('has no secret and no body, and neither has its log', async () => {
    const { answer } = await audited(admin, 'POST', '/v1/admin/keys', { name: 'silent', scopes: ['enqueue'] });
    const { secret } = answer.json as { secret: string };
    const { text } = await admin.get('/v1/admin/audit?limit=100');
    for (const place of [text, shared.broker.output()]) {
      expect(place).not.toContain(secret.slice(-43));
      expect(place).not.toContain(ADMIN_KEY);
      expect(place).not.toMatch(/top-secret|other-secret/);
    }
  });

  test('covers every call of an administrator that is no GET', async () => {
    const { paths } = (await admin.get<{ paths: Record<string, object> }>('/openapi.json')).json;
    const calls = Object.entries(paths)
      .filter(([path]) => path.startsWith('/v1/admin/'))
      .flatMap(([path, methods]) => Object.keys(methods).map((method) => [method.toUpperCase(), path] as const))
      .filter(([method]) => method !== 'GET');
    expect(calls.length).toBeGreaterThan(15);
    for (const [method, path] of calls) {
      const { entry } = await audited(shared.api, method, path.replaceAll(/\{\w+\}/g, 'x'), {});
      expect(entry, `${method} ${path}`).toMatchObject({ problem: 'unauthorized', status: 401 });
      expect(entry.action).toMatch(/^[a-z][A-Za-z]+$/);
    }
  });

  test('is read page by page, the latest first', async () => {
    for (const name of ['page-a', 'page-b', 'page-c']) await audited(admin, 'PUT', `/v1/admin/topics/${name}`, {});
    const path = '/v1/admin/audit?limit=2&action=putTopic&path=/v1/admin/topics/page-';
    const first = (await admin.get<AuditAnswer>(path)).json;
    expect(first.entries.map((entry) => entry.path.at(-1))).toEqual(['c', 'b']);
    const second = (await admin.get<AuditAnswer>(`${path}&after=${first.nextAfter}`)).json;
    expect(second.entries.map((entry) => entry.path.at(-1))).toEqual(['a']);
    expect(second.nextAfter).toBeNull();
  });

  test.each(['%E7%8E%87', '%00', 'put%20Queue', ''])('refuses the action %s, which no call has', async (action) => {
    const { status, json } = await admin.get<{ detail: string }>(`/v1/admin/audit?action=${action}`);
    expect([status, json.detail]).toEqual([400, expect.stringContaining('must be the operationId of a call')]);
  });

  test('has an action whose client hung up before the reply', async () => {
    await admin.put('/v1/admin/queues/hung-up', {});
    const session = await createConnection(shared.broker.database.url);
    await session.query('START TRANSACTION');
    await session.query("SELECT id FROM queue WHERE name = 'hung-up' FOR UPDATE");
    const socket = await openSocket(shared.broker.url);
    socket.write(
      `POST /v1/admin/queues/hung-up/pause HTTP/1.1\r\nHost: b\r\nX-Request-Id: hung-up\r\nAuthorization: Bearer ${ADMIN_KEY}\r\nContent-Length: 0\r\n\r\n`,
    );
    await eventually('the broker waits for the row', async () => {
      // The server reads the table anew only if nobody has asked for a tenth of a second.
      await session.query('DO SLEEP(0.13)');
      const [rows] = await session.query<RowDataPacket[]>(
        "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
      );
      return rows.length > 0;
    });
    socket.destroy();
    await session.query('ROLLBACK');
    await session.end();
    const entry = await eventually('it is in the audit', async () => entryOf('hung-up'));
    expect(entry).toMatchObject({ action: 'pauseQueue', key: 'ROWMQ_ADMIN_KEY' });
    await audited(admin, 'DELETE', '/v1/admin/queues/hung-up');
  });

  test('has nothing of ordinary calls', async () => {
    await admin.put('/v1/admin/queues/ordinary', {});
    await admin.call('POST', '/v1/queues/ordinary/messages', { messages: [{ body: 'b' }] }, { 'x-request-id': 'enq' });
    await audited(admin, 'DELETE', '/v1/admin/queues/ordinary?force=true');
    expect(await entryOf('enq')).toBeUndefined();
  });
});

describe('a request id', () => {
  test.each(['with spaces', 'x'.repeat(65), 'a\tb', '<script>', 'a"b'])(
    'that has another form is replaced: %j',
    async (id) => {
      const answer = await admin.call('GET', '/v1/admin/queues/none', undefined, { 'x-request-id': id });
      expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f]{10}-[0-9a-z]+$/);
    },
  );

  test('is in every reply, and no two replies have the same one', async () => {
    const ids = new Set<string | null>();
    const paths = ['/', '/health/live', '/metrics', '/v1/admin/queues', '/v1/admin/queues/none', '/nothing', '/%zz'];
    for (const path of paths) ids.add((await admin.get(path)).headers.get('x-request-id'));
    expect(ids).not.toContain(null);
    expect(ids.size).toBe(paths.length);
  });
});
