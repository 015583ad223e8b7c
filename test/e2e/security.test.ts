import { encodeReceipt } from '@rowmq/contract';
import { once } from 'node:events';
import { describe, expect, test, vi } from 'vitest';
import { Api, expectProblem, useBroker, useOwnBroker } from '../support/api.js';
import { brokerRefusal } from '../support/commands.js';
import { freePort, startApp } from '../support/processes.js';
import { openSocket } from '../support/raw-http.js';

vi.setConfig({ maxConcurrency: 10 });

const KEY = 'a key of sixteen+'.replaceAll(' ', '-');
const shared = useOwnBroker({ ROWMQ_ADMIN_KEY: KEY, ROWMQ_MAX_FAILED_ATTEMPTS: '10000' });
const RECEIPT = encodeReceipt({ messageId: Buffer.alloc(16), leaseToken: Buffer.alloc(8), part: 0, members: 1 });
const ELSEWHERE = 'http://elsewhere.example';
/** Several brokers start at a time: on a busy machine that takes long. */
const SLOW = { timeout: 180_000 };

const V1_CALLS: [string, string, unknown?][] = [
  ['POST', '/v1/queues/q/messages', { messages: [{ body: 'b' }] }],
  ['POST', '/v1/queues/q/messages/dequeue', {}],
  ['POST', '/v1/queues/q/messages/ack', { receipts: [RECEIPT] }],
  ['POST', '/v1/queues/q/messages/nack', { receipts: [RECEIPT] }],
  ['POST', '/v1/queues/q/messages/extend', { receipts: [RECEIPT], leaseSeconds: 1 }],
  ['DELETE', `/v1/queues/q/messages/${RECEIPT}`],
  ['PUT', '/v1/admin/queues/q', {}],
  ['GET', '/v1/admin/queues'],
  ['GET', '/v1/admin/queues/q'],
  ['DELETE', '/v1/admin/queues/q'],
  ['POST', '/v1/admin/queues/q/purge'],
  ['POST', '/v1/admin/queues/q/pause'],
  ['POST', '/v1/admin/queues/q/resume'],
  ['POST', '/v1/admin/queues/q/redrive', {}],
  ['POST', '/v1/admin/queues/q/drop', {}],
  ['GET', '/v1/admin/jobs'],
  ['DELETE', '/v1/admin/jobs/019a0b5d-ac96-774b-8cce-b302099a8057'],
  ['GET', '/v1/admin/queues/q/messages'],
  ['GET', '/v1/admin/messages/019a0b5d-ac96-774b-8cce-b302099a8057'],
  ['GET', '/v1/admin/reaper'],
];

describe.concurrent('a broker with an API key', () => {
  test.each(V1_CALLS)('refuses %s %s without the right key', async (method, path, body) => {
    const keys: Record<string, string>[] = [
      {},
      { authorization: '' },
      { authorization: KEY },
      { authorization: 'Bearer' },
      { authorization: `Basic ${KEY}` },
      { authorization: `Bearer ${KEY}x` },
      { authorization: `Bearer ${KEY.slice(0, -1)}` },
      { authorization: `Bearer ${KEY.toUpperCase()}` },
      { authorization: `Bearer ${KEY} ${KEY}` },
      { 'x-api-key': KEY },
    ];
    for (const headers of keys) {
      const answer = await shared.api.call(method, path, body, headers);
      expectProblem(answer, 401, 'unauthorized');
      expect(answer.headers.get('www-authenticate')).toBe('Bearer');
      expect(answer.text).not.toContain(KEY);
    }
  });

  test.each([
    '/V1/admin/queues',
    '//v1/admin/queues',
    '/v1//admin/queues',
    '/%761/admin/queues',
    '/v1/admin/queues/',
    '/v1/admin/queues?key=1',
    '/health/../v1/admin/queues',
    '/v1;/admin/queues',
    '/v1/%61dmin/queues',
  ])('admits nobody without the key who writes the path as %s', async (path) => {
    const { status, text } = await shared.api.get(path);
    expect(status, text).toBeOneOf([400, 401, 404]);
  });

  test('asks for the key before it reads the body', async () => {
    const socket = await openSocket(shared.broker.url);
    socket.write(
      'POST /v1/queues/q/messages HTTP/1.1\r\nHost: q\r\nContent-Type: application/json\r\nContent-Length: 4194304\r\n\r\n{',
    );
    const [answer] = (await once(socket, 'data', { signal: AbortSignal.timeout(15_000) })) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 401 /);
    socket.destroy();
  });

  test.each([
    ['/v1/queues/q/messages', '{', 'application/json'],
    ['/v1/queues/q/messages', '{}', 'text/plain'],
    ['/v1/no-such-call', '{', 'application/json'],
    ['/metrics', '{', 'application/json'],
  ])('reports no fault of the body without the key: POST %s with %s as %s', async (path, body, type) => {
    expectProblem(await shared.api.call('POST', path, body, { 'content-type': type }), 401, 'unauthorized');
  });

  test('changes nothing when it refuses', async () => {
    const authorized = new Api(shared.broker.url, { authorization: `Bearer ${KEY}` });
    await shared.api.put('/v1/admin/queues/never-created');
    expectProblem(await authorized.get('/v1/admin/queues/never-created'), 404, 'queue-not-found');
  });

  test('accepts requests with the key, in any case of the scheme', async () => {
    for (const scheme of ['Bearer', 'bearer', 'BEARER']) {
      const queue = new Api(shared.broker.url, { authorization: `${scheme} ${KEY}` }).queue(`with-${scheme}`);
      await queue.put();
      const [id] = await queue.enqueue('b');
      expect((await queue.dequeueOne()).id).toBe(id);
    }
  });

  test.each(['/', '/health/live', '/health/ready', '/metrics', '/docs', '/docs/swagger-ui-bundle.js', '/openapi.json'])(
    'leaves %s open',
    async (path) => {
      for (const method of ['GET', 'HEAD'])
        expect((await fetch(`${shared.broker.url}${path}`, { method })).status, method).toBe(200);
    },
  );

  test('accepts requests with the key from web pages of any origin', async () => {
    const page = { authorization: `Bearer ${KEY}`, origin: ELSEWHERE, 'sec-fetch-site': 'cross-site' };
    expect((await shared.api.call('PUT', '/v1/admin/queues/of-a-page', {}, page)).status).toBe(201);
  });

  test('writes the key neither to its log nor to its answers', async () => {
    expect(shared.broker.output()).not.toContain(KEY);
    expect((await shared.api.get('/openapi.json')).text).not.toContain(KEY);
  });
});

describe.concurrent('a broker without an API key', () => {
  const open = useBroker();

  test('says that it listens for its own machine only', () => {
    expect(open.broker.output()).toContain(
      `listening on ${open.broker.url} (no TLS; no API key, so this machine only)`,
    );
  });

  test.each(V1_CALLS.filter(([method]) => method !== 'GET'))(
    'refuses %s %s to web pages of other origins',
    async (method, path, body) => {
      const { origin } = new URL(open.broker.url);
      const pages: Record<string, string>[] = [
        { origin: ELSEWHERE },
        { origin: 'null' },
        { origin: `${origin}0` },
        { origin: origin.replace('127.0.0.1', 'localhost') },
        { 'sec-fetch-site': 'cross-site' },
        { 'sec-fetch-site': 'same-site', origin },
        { 'sec-fetch-site': 'none of these', origin },
      ];
      for (const headers of pages) {
        const problem = expectProblem(await open.api.call(method, path, body, headers), 403, 'forbidden');
        expect(problem.detail).toContain('web page of another origin');
      }
    },
  );

  test('does nothing for the requests that it refuses', async () => {
    const queue = await open.newQueue();
    const [id] = await queue.enqueue('b');
    for (const path of [`${queue.adminPath}/purge`, `${queue.adminPath}/pause`, `${queue.messagesPath}/dequeue`])
      expectProblem(await open.api.call('POST', path, undefined, { origin: ELSEWHERE }), 403, 'forbidden');
    expect(await queue.browse('ready')).toMatchObject([{ id, receiveCount: 0 }]);
    expect((await queue.get()).paused).toBe(false);
  });

  test('answers programs and its own pages, behind any proxy', async () => {
    const queue = await open.newQueue();
    const { origin } = new URL(open.broker.url);
    const served: Record<string, string>[] = [
      {},
      { origin },
      { 'sec-fetch-site': 'same-origin' },
      { 'sec-fetch-site': 'same-origin', origin: ELSEWHERE },
      { 'sec-fetch-site': 'none' },
      { 'sec-fetch-mode': 'cors', referer: ELSEWHERE },
    ];
    for (const headers of served)
      expect((await open.api.call('POST', `${queue.adminPath}/purge`, undefined, headers)).status).toBe(202);
  });

  test('lets pages of other origins read nothing', async () => {
    for (const path of ['/v1/admin/queues', '/health/live']) {
      const answer = await open.api.call('GET', path, undefined, { origin: ELSEWHERE, 'sec-fetch-site': 'cross-site' });
      // The browser keeps the answer from the page.
      expect(answer.headers.has('access-control-allow-origin')).toBe(false);
    }
    expectProblem(
      await open.api.call('OPTIONS', '/v1/admin/queues/q', undefined, {
        origin: ELSEWHERE,
        'access-control-request-method': 'PUT',
      }),
      404,
      'invalid-request',
    );
  });
});

describe.concurrent('a broker does not start', SLOW, () => {
  test.each(['0.0.0.0', '::', '192.168.0.1', 'broker.example.org'])(
    'on %s without a key, and says what to do',
    async (host) => {
      const { url } = shared.broker.database;
      const output = await brokerRefusal({ ROWMQ_DATABASE_URL: url, ROWMQ_HOST: host });
      expect(output).toContain(`ROWMQ_HOST is ${host}`);
      expect(output).toContain('Set ROWMQ_ADMIN_KEY, or listen on 127.0.0.1.');
    },
  );

  test('with a key that is too short, and says how to make one', async () => {
    const { url } = shared.broker.database;
    const output = await brokerRefusal({ ROWMQ_DATABASE_URL: url, ROWMQ_ADMIN_KEY: 'fifteen letters' });
    expect(output).toContain('ROWMQ_ADMIN_KEY must have at least 16 characters; make one with `openssl rand -hex 24`');
    expect(output).not.toContain('fifteen letters');
  });

  test('with faulty settings, and lists all of them at once', async () => {
    const output = await brokerRefusal({
      ROWMQ_DATABASE_URL: 'postgres://x@y/z',
      ROWMQ_PORT: '65536',
      ROWMQ_ADMIN_KEY: 'short',
      ROWMQ_DATABASE_POOL_SIZE: 'many',
      ROWMQ_MAX_LONG_POLLS: '0',
      ROWMQ_MAX_WAITING_REQUESTS: '-1',
      ROWMQ_STOP_SECONDS: '1.5',
    });
    for (const name of [
      'ROWMQ_DATABASE_URL must look like mysql://',
      'ROWMQ_PORT must be a whole number from 0 to 65535',
      'ROWMQ_ADMIN_KEY must have at least 16',
      'ROWMQ_DATABASE_POOL_SIZE must be a whole number',
      'ROWMQ_MAX_LONG_POLLS must be',
      'ROWMQ_MAX_WAITING_REQUESTS must be',
      'ROWMQ_STOP_SECONDS must be',
    ])
      expect(output).toContain(name);
  });

  test('without a database setting, and says what one looks like', async () => {
    expect(await brokerRefusal({})).toContain('ROWMQ_DATABASE_URL is needed: mysql://user:password@host:port/database');
  });

  test('on a port that is in use, and says which', async () => {
    const { url } = shared.broker.database;
    const { port } = new URL(shared.broker.url);
    const output = await brokerRefusal({ ROWMQ_DATABASE_URL: url, ROWMQ_PORT: port });
    expect(output).toMatch(new RegExp(`rowmq broker: Cannot listen: .*127.0.0.1:${port}.*ROWMQ_PORT`));
  });
});

test(
  'a broker starts on every address once it has a key, and warns of a setting that it does not know',
  SLOW,
  async () => {
    const port = await freePort();
    const app = await startApp('broker', {
      ROWMQ_DATABASE_URL: shared.broker.database.url,
      ROWMQ_PORT: String(port),
      ROWMQ_HOST: '0.0.0.0',
      ROWMQ_ADMIN_KEY: KEY,
      ROWMQ_ADMINKEY: 'misspelt',
    });
    expectProblem(await new Api(`http://127.0.0.1:${port}`).get('/v1/admin/queues'), 401, 'unauthorized');
    await app.stop();
    expect(app.output()).toContain(
      `listening on http://0.0.0.0:${port} (every IPv4 address; no TLS; calls need an API key)`,
    );
    expect(app.output()).toContain('ROWMQ_ADMINKEY is not a setting of RowMQ. docs/operations.md lists the settings.');
  },
);
