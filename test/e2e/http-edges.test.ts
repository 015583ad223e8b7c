import { readFileSync } from 'node:fs';
import { once } from 'node:events';
import { text as textOf } from 'node:stream/consumers';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import { describe, expect, test, vi } from 'vitest';
import { expectProblem, newQueueName, useOwnBroker } from '../support/api.js';
import { callRaw, openSocket, postBytes } from '../support/raw-http.js';

vi.setConfig({ maxConcurrency: 10 });

const shared = useOwnBroker();
const KEY = 'a-key-of-sixteen-or-more';
const keyed = useOwnBroker({ ROWMQ_ADMIN_KEY: KEY });
const { version: VERSION } = JSON.parse(
  readFileSync(new URL('../../apps/broker/package.json', import.meta.url), 'utf8'),
) as { version: string };
const ENQUEUE = '{"messages":[{"body":"b"}]}';
/** An error may quote a request, but is never much longer than its own words. */
const LONGEST_ECHO = 600;

/** Sends these bytes on a connection of their own, and returns everything that comes back. */
async function send(bytes: string): Promise<string> {
  const socket = await openSocket(shared.broker.url);
  socket.write(bytes);
  return textOf(socket);
}

const statusOf = (answer: string): number => Number(answer.slice('HTTP/1.1 '.length, 'HTTP/1.1 200'.length));

describe.concurrent('an empty body counts as none, however a proxy frames it', () => {
  const chunked = async (method: string, path: string, headers = ''): Promise<number> =>
    statusOf(
      await send(
        `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n${headers}\r\n0\r\n\r\n`,
      ),
    );

  test.each(['', 'Content-Type: application/json\r\n', 'Content-Type: text/plain\r\n'])(
    'as an empty chunked one, with the header "%s"',
    async (headers) => {
      const queue = await shared.newQueue();
      const dead = await shared.newQueue();
      for (const action of ['pause', 'resume'])
        expect(await chunked('POST', `${queue.adminPath}/${action}`, headers), action).toBe(200);
      for (const action of ['purge', 'redrive', 'drop'])
        expect(await chunked('POST', `${queue.adminPath}/${action}`, headers), action).toBe(202);
      expect(await chunked('POST', `${queue.messagesPath}/dequeue`, headers)).toBe(200);
      expect(await chunked('PUT', `/v1/admin/queues/${newQueueName()}`, headers)).toBe(201);
      expect(await chunked('DELETE', dead.adminPath, headers)).toBe(204);
      expect(await chunked('POST', queue.messagesPath, headers)).toBe(400);
      expect(await chunked('POST', '/v1/no-such-call', headers)).toBe(404);
    },
  );

  test('as one of length 0, whatever its type', async () => {
    const queue = await shared.newQueue();
    for (const type of ['application/json', 'text/plain', 'application/x-www-form-urlencoded']) {
      const answer = await shared.api.call('POST', `${queue.adminPath}/purge`, '', { 'content-type': type });
      expect(answer.status, answer.text).toBe(202);
    }
  });
});

describe.concurrent('a body that the broker does not read is refused by its name', () => {
  test.each([
    ['gzip', gzipSync(ENQUEUE)],
    ['deflate', deflateSync(ENQUEUE)],
    ['br', brotliCompressSync(ENQUEUE)],
    ['GZIP', gzipSync(ENQUEUE)],
    ['gzip, identity', gzipSync(ENQUEUE)],
    ['zstd', Buffer.from(ENQUEUE)],
  ])('the content encoding %s', async (encoding, body) => {
    const queue = await shared.newQueue();
    const answer = await shared.api.call('POST', queue.messagesPath, body, { 'content-encoding': encoding });
    const { detail } = expectProblem(answer, 415, 'invalid-request');
    expect(detail).toContain(`Content-Encoding is ${encoding}.`);
    expect(await queue.browse('ready')).toEqual([]);
  });

  test.each(['iso-8859-1', 'UTF-16', '"windows-1252"'])('the charset %s', async (charset) => {
    const queue = await shared.newQueue();
    const answer = await shared.api.call('POST', queue.messagesPath, ENQUEUE, {
      'content-type': `application/json; charset=${charset}`,
    });
    const { detail } = expectProblem(answer, 415, 'invalid-request');
    expect(detail).toContain(`charset is ${charset.replaceAll('"', '')}.`);
    expect(await queue.browse('ready')).toEqual([]);
  });

  test.each(['text/plain', 'application/xml', 'multipart/form-data; boundary=x'])('the type %s', async (type) => {
    const queue = await shared.newQueue();
    const answer = await shared.api.call('POST', queue.messagesPath, ENQUEUE, { 'content-type': type });
    expect(expectProblem(answer, 415, 'invalid-request').detail).toContain(`Content-Type is ${type}.`);
  });

  test('a missing type', async () => {
    const queue = await shared.newQueue();
    const answer = await shared.api.call('POST', queue.messagesPath, Buffer.from(ENQUEUE), { 'content-type': '' });
    expectProblem(answer, 415, 'invalid-request');
  });

  test('but not other ways to write UTF-8', async () => {
    const queue = await shared.newQueue();
    for (const type of ['application/json;charset=UTF-8', 'application/json; charset="utf8"', 'application/json; v=1'])
      expect((await shared.api.call('POST', queue.messagesPath, ENQUEUE, { 'content-type': type })).status).toBe(201);
    const headers = { 'content-encoding': 'identity' };
    expect((await shared.api.call('POST', queue.messagesPath, ENQUEUE, headers)).status).toBe(201);
  });
});

describe.concurrent('an error quotes at most some hundred bytes of a request', () => {
  const long = 'x'.repeat(100_000);
  const short = 'y'.repeat(8000);

  test.each<
    [string, (path: string) => [method: string, path: string, body?: unknown, headers?: Record<string, string>]]
  >([
    ['an unknown field with a long name', (path) => ['POST', path, { messages: [{ body: 'b' }], [long]: 1 }]],
    [
      'many unknown fields',
      (path) => [
        'POST',
        path,
        { messages: [Object.fromEntries(Array.from({ length: 5000 }, (_, index) => [`f${index}`, index]))] },
      ],
    ],
    [
      'unknown fields in many messages',
      (path) => ['POST', path, { messages: Array.from({ length: 100 }, () => ({ body: 'b', [short]: 1 })) }],
    ],
    [
      'a header with a long name and no text',
      (path) => ['POST', path, { messages: [{ body: 'b', headers: { [long]: 1 } }] }],
    ],
    [
      'a long text where a word of a list is needed',
      (path) => ['POST', path, { messages: [{ body: 'b', bodyEncoding: long }] }],
    ],
    ['text that is not JSON', (path) => ['POST', path, long]],
    ['JSON that breaks off', (path) => ['POST', path, `{"messages":"${long}`]],
    ['a long path', () => ['GET', `/${short}`]],
    ['a long path that cannot be decoded', () => ['GET', `/v1/admin/queues/%ZZ${short}`]],
    ['a long query', (path) => ['GET', `${path.replace('/v1', '/v1/admin')}?${short}=1`]],
    ['a long value in a query', (path) => ['GET', `${path.replace('/v1', '/v1/admin')}?state=${short}`]],
    ['a long type', (path) => ['POST', path, 'x', { 'content-type': `text/${short}` }]],
    ['a long encoding', (path) => ['POST', path, ENQUEUE, { 'content-encoding': short }]],
    ['a long charset', (path) => ['POST', path, ENQUEUE, { 'content-type': `application/json; charset=${short}` }]],
    ['long receipts that are none', (path) => ['DELETE', `${path}/${'z'.repeat(299)}`]],
  ])('%s', async (_, request) => {
    const queue = await shared.newQueue();
    const [method, path, body, headers] = request(queue.messagesPath);
    const answer = await shared.api.call(method, path, body, headers);
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
    expect([...answer.text.matchAll(/[xyz]{10,}/g)].join('').length).toBeLessThan(LONGEST_ECHO);
    expect(answer.text.length).toBeLessThan(3000);
  });
});

describe.concurrent('a request that is no call gets a documented answer', () => {
  test.each(['/v1/admin/queues/', '/v1/queues/q/messages/', '/health/live/', '/metrics/'])(
    'a slash at the end: %s',
    async (path) => {
      const { detail } = expectProblem(await shared.api.get(path), 404, 'invalid-request');
      expect(detail).toContain('No path ends with a slash.');
    },
  );

  test.each([
    ['POST', '/v1/admin/queues/{queue}/pause?side=producers'],
    ['POST', '/v1/admin/queues/{queue}/purge?source=orders'],
    ['PUT', '/v1/admin/queues/{queue}?delaySeconds=5'],
    ['POST', '/v1/queues/{queue}/messages/dequeue?maxMessages=10'],
    ['GET', '/v1/admin/queues?limit=10'],
    ['GET', '/v1/admin/topics?__proto__=1'],
  ])('a parameter in a query that the call does not have: %s %s', async (method, template) => {
    const queue = await shared.newQueue();
    await queue.enqueue('stays');
    const answer = await shared.api.call(method, template.replace('{queue}', queue.name));
    const { detail } = expectProblem(answer, 400, 'invalid-request');
    expect(detail).toContain(`'${/\?(\w+)=/.exec(template)?.[1]}'`);
    expect(await queue.get()).toMatchObject({ paused: false, delaySeconds: 0, stats: { ready: 1, leased: 0 } });
  });

  test('but an empty query is none', async () => {
    expect((await shared.api.get('/v1/admin/queues?')).status).toBe(200);
  });

  test('a query with a parameter, at a broker with a key: the key is checked first', async () => {
    expectProblem(await keyed.api.get('/v1/admin/queues?limit=10'), 401, 'unauthorized');
  });

  test('but no word on slashes for `/` itself', async () => {
    const { detail } = expectProblem(await shared.api.post('/', {}), 404, 'invalid-request');
    expect(detail).not.toContain('slash');
  });

  test('HEAD is answered like GET, without a body', async () => {
    const queue = await shared.newQueue();
    for (const path of ['/', '/health/live', '/metrics', queue.adminPath, '/v1/admin/queues', '/openapi.json']) {
      const [head, get] = [await shared.api.call('HEAD', path), await shared.api.get(path)];
      expect(head.status, path).toBe(200);
      expect(head.text).toBe('');
      expect(head.headers.get('content-type')).toBe(get.headers.get('content-type'));
    }
    expect((await shared.api.call('HEAD', `${queue.messagesPath}/dequeue`)).status).toBe(404);
  });

  test.each(['/v1/admin/queues', '/v1/queues/q/messages', '/', '/nowhere', '*'])('OPTIONS %s', async (path) => {
    const { status, headers, text } = await callRaw(shared.broker.url, 'OPTIONS', path);
    expect(status).toBe(404);
    expect(JSON.parse(text)).toMatchObject({ status: 404, code: 'invalid-request' });
    expect(headers['access-control-allow-origin']).toBeUndefined();
  });

  test.each([
    ['OPTIONS', '/v1/admin/queues', 401],
    ['OPTIONS', '/', 401],
    ['POST', '/nowhere', 401],
    ['PUT', '/', 401],
    ['GET', '/nowhere', 404],
    ['GET', '/v1/admin/queues/', 401],
  ])('%s %s, at a broker with a key: without the key %d', async (method, path, without) => {
    const { status } = await callRaw(keyed.broker.url, method, path);
    expect(status).toBe(without);
    const headers = { authorization: `Bearer ${KEY}` };
    const { status: withKey, text } = await callRaw(keyed.broker.url, method, path, undefined, headers);
    expect(withKey).toBe(404);
    expect(JSON.parse(text)).toMatchObject({ status: 404, code: 'invalid-request' });
  });

  test('`/docs/` and `/` are paths, although they end with a slash', async () => {
    for (const path of ['/', '/docs/']) expect((await keyed.api.get(path)).status, path).toBe(200);
  });

  test.each([
    ['a request without Host', 'GET / HTTP/1.1\r\n\r\n', 400],
    ['an unknown Expect', 'GET / HTTP/1.1\r\nHost: localhost\r\nExpect: more\r\nConnection: close\r\n\r\n', 417],
  ])('%s, by a bare status', async (_, bytes, status) => {
    const answer = await send(bytes);
    expect(statusOf(answer)).toBe(status);
    expect(answer).not.toContain('RowMQ-Version');
    expect(answer).toMatch(/\r\n\r\n(0\r\n\r\n)?$/);
  });

  test('bytes that are not HTTP are no answer to an earlier request', async () => {
    const queue = await shared.newQueue();
    const answer = await send(`${postBytes(`${queue.messagesPath}/dequeue`, { waitSeconds: 20 })}hello\r\n\r\n`);
    expect(answer).toBe('');
  });

  test('a request that is too large, on a connection that is to end, gets an answer that says so', async () => {
    const body = 'x'.repeat(5 * 1024 * 1024);
    const head = `POST /v1/queues/q/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
    const answer = await send(head + body);
    expect(statusOf(answer)).toBe(413);
    expect(answer).toMatch(/\r\nConnection: close\r\n/i);
  });

  test.each([
    ['bytes that are not HTTP', 'hello\r\n\r\n', 400],
    ['a head that is too large', `GET / HTTP/1.1\r\nHost: localhost\r\nA: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
    ['an unknown method', 'FLY / HTTP/1.1\r\nHost: localhost\r\n\r\n', 400],
  ])('%s', async (_, bytes, status) => {
    const answer = await send(bytes);
    expect(statusOf(answer)).toBe(status);
    expect(answer).toContain('Content-Type: application/problem+json');
    expect(answer).toContain('"code":"invalid-request"');
    expect(answer.length).toBeLessThan(1000);
  });
});

describe.concurrent('every answer carries the version of the broker', () => {
  test.each<[string, string, unknown?, Record<string, string>?]>([
    ['GET', '/'],
    ['GET', '/health/live'],
    ['GET', '/health/ready'],
    ['GET', '/metrics'],
    ['GET', '/openapi.json'],
    ['GET', '/docs'],
    ['GET', '/docs/swagger-ui.css'],
    ['GET', '/nowhere'],
    ['OPTIONS', '/v1/admin/queues'],
    ['GET', '/v1/admin/queues'],
    ['GET', '/v1/admin/queues/%ZZ'],
    ['POST', '/v1/queues/nowhere/messages', { messages: [{ body: 'b' }] }],
    ['POST', '/v1/queues/nowhere/messages', 'x', { 'content-type': 'text/plain' }],
    ['POST', '/v1/queues/nowhere/messages', '{', { origin: 'http://elsewhere.example' }],
  ])('%s %s', async (method, path, body, headers) => {
    const answer = await shared.api.call(method, path, body, headers);
    expect(answer.headers.get('rowmq-version'), answer.text).toBe(VERSION);
  });

  test('also one to bytes that are not HTTP', async () => {
    expect(await send('hello\r\n\r\n')).toContain(`RowMQ-Version: ${VERSION}`);
  });
});

describe.concurrent('the address of a broker', () => {
  const BROWSER = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8';

  test('sends people to the dashboard', async () => {
    const answer = await callRaw(shared.broker.url, 'GET', '/', undefined, { accept: BROWSER });
    expect(answer.status).toBe(302);
    expect(answer.headers['location']).toBe('dashboard');
    const { status, headers, text } = await shared.api.call('GET', '/', undefined, { accept: BROWSER });
    expect(status).toBe(200);
    expect(headers.get('content-type')).toBe('text/html; charset=utf-8');
    const files = [...text.matchAll(/(?:href|src)="([^"]+)"/g)].map(([, file]) => file as string);
    expect(files).toHaveLength(3);
    for (const file of files) expect((await fetch(new URL(file, `${shared.broker.url}/`))).status, file).toBe(200);
  });

  test.each([undefined, '*/*', 'application/json', 'application/json, text/html', 'text/plain'])(
    'answers programs with JSON: Accept %s',
    async (accept) => {
      const answer = await callRaw(shared.broker.url, 'GET', '/', undefined, accept === undefined ? {} : { accept });
      expect(answer.status).toBe(200);
      expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
      expect(answer.headers['vary']).toBe('accept');
      expect(JSON.parse(answer.text)).toMatchObject({
        name: 'RowMQ',
        version: VERSION,
        links: { docs: '/docs', openapi: '/openapi.json', metrics: '/metrics' },
      });
    },
  );
});

test('/metrics tells the versions of the broker and of Node, and the kind of the server', async () => {
  const { text } = await shared.api.get('/metrics');
  expect(text).toMatch(
    new RegExp(
      `^rowmq_build_info\\{version="${VERSION}",node="\\d+\\.\\d+\\.\\d+",server="(MySQL|MariaDB)"\\} 1$`,
      'm',
    ),
  );
});

test('a stopping broker is not ready, on connections that are open', async () => {
  const socket = await openSocket(shared.broker.url);
  socket.write('GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n');
  const [ready] = (await once(socket, 'data')) as [Buffer];
  expect(ready.toString()).toMatch(/^HTTP\/1\.1 200 /);
  const stopped = shared.broker.stop();
  const answer = textOf(socket);
  await vi.waitUntil(() => shared.broker.output().includes('stopping'), { timeout: 40_000 });
  socket.write('GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n');
  expect(await answer).toMatch(/^HTTP\/1\.1 503 [^]*is stopping/);
  await stopped;
});
