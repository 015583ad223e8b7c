import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net';
import type { RowmqError } from '@rowmq/contract';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { QueueConsumer } from '../consumer/queue-consumer.js';
import { isOutcomeUnknown } from './broker-unreachable.error.js';
import { RowmqHttpClient, type RowmqClientOptions } from './rowmq-http-client.js';

type Handler = (request: IncomingMessage, body: string, response: ServerResponse) => void;

const opened: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0).toReversed()) await close();
});

async function listen(handler: Handler): Promise<{ server: Server; url: string }> {
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => handler(request, body, response));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  opened.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { server, url: `http://127.0.0.1:${address.port}` };
}

function clientOf(options: RowmqClientOptions): RowmqHttpClient {
  const client = new RowmqHttpClient({ retries: 0, ...options });
  opened.push(() => client.close());
  return client;
}

const json = (response: ServerResponse, status: number, answer: unknown, headers = {}) =>
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(answer));

/** Takes connections and says nothing on them, so that none over TLS comes about. */
async function listenInSilence(): Promise<{ url: string; sockets: readonly Socket[] }> {
  const sockets: Socket[] = [];
  const server = createTcpServer((socket) => sockets.push(socket.on('error', () => undefined)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  opened.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return { url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, sockets };
}

/** The client's ends of connections, as requests are sent on them. */
function openSockets(): readonly Socket[] {
  const sockets: Socket[] = [];
  const onSend = (sent: unknown): void => void sockets.push((sent as { socket: Socket }).socket);
  subscribe('undici:client:sendHeaders', onSend);
  opened.push(async () => unsubscribe('undici:client:sendHeaders', onSend));
  return sockets;
}

/**
 * Runs a test by a clock that goes on by 20 ms in each turn that Node gives a real timer of 20 ms.
 * While a busy machine stops the process it stands still, and no deadline passes.
 */
async function byUnstalledClock(run: () => Promise<void>): Promise<void> {
  vi.useFakeTimers({ shouldAdvanceTime: true, toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  try {
    await run();
  } finally {
    vi.useRealTimers();
  }
}

/**
 * Makes a call and advances the clock in steps while no request is under way. So an answer takes no
 * time, however late it is.
 */
async function inStepsOf<T>(stepMs: number, call: () => Promise<T>): Promise<T> {
  let underWay = 0;
  let isOver = false;
  const begin = (): void => void (underWay += 1);
  const end = (): void => void (underWay -= 1);
  const listeners = [
    ['undici:request:create', begin],
    ['undici:request:trailers', end],
    ['undici:request:error', end],
  ] as const;
  for (const [name, listener] of listeners) subscribe(name, listener);
  try {
    const outcome = call().finally(() => (isOver = true));
    while (!isOver) {
      await new Promise((resolve) => setImmediate(resolve));
      if (underWay === 0) await vi.advanceTimersByTimeAsync(stepMs);
    }
    return await outcome;
  } finally {
    for (const [name, listener] of listeners) unsubscribe(name, listener);
  }
}

describe('RowmqHttpClient', () => {
  it('sends one request per call, with the API key, and returns the answer of the broker', async () => {
    const seen: unknown[] = [];
    const agents: unknown[] = [];
    const { url } = await listen((request, body, response) => {
      seen.push([request.method, request.url, request.headers.authorization, JSON.parse(body)]);
      agents.push(request.headers['user-agent']);
      json(response, 200, { acked: ['r1'], failed: [{ receipt: 'r2', code: 'lease-lost' }] });
    });
    const client = clientOf({ url: `${url}/`, apiKey: 'secret' });
    await expect(client.ack('orders', { receipts: ['r1', 'r2'] })).resolves.toEqual({
      acked: ['r1'],
      failed: [{ receipt: 'r2', code: 'lease-lost' }],
    });
    expect(agents).toEqual([expect.stringMatching(new RegExp(`^rowmq-client \\(\\S+; ${process.pid}\\)$`))]);
    expect(seen).toEqual([['POST', '/v1/queues/orders/messages/ack', 'Bearer secret', { receipts: ['r1', 'r2'] }]]);
  });

  it('sends the acks of a dequeue with it, and returns the answer for each', async () => {
    const seen: unknown[] = [];
    const { url } = await listen((request, body, response) => {
      seen.push([request.url, JSON.parse(body)]);
      json(response, 200, { messages: [], acked: ['r1'], failed: [{ receipt: 'r2', code: 'lease-lost' }] });
    });
    const request = { waitSeconds: 1, ack: ['r1', 'r2'] };
    await expect(clientOf({ url }).dequeue('orders', request)).resolves.toEqual({
      messages: [],
      acked: ['r1'],
      failed: [{ receipt: 'r2', code: 'lease-lost' }],
    });
    expect(seen).toEqual([['/v1/queues/orders/messages/dequeue', request]]);
  });

  it('keeps its connections for the next call', async () => {
    const { server, url } = await listen((_request, _body, response) => json(response, 200, { messages: [] }));
    let connections = 0;
    server.on('connection', () => connections++);
    const client = clientOf({ url });
    for (let call = 0; call < 20; call++) await client.dequeue('orders');
    // A second one where a call follows so closely that the first is not free again.
    expect(connections).toBeLessThanOrEqual(2);
  });

  it('keeps the path of a broker behind a prefix', async () => {
    const paths: (string | undefined)[] = [];
    const { url } = await listen((request, _body, response) => {
      paths.push(request.url);
      response.writeHead(204).end();
    });
    await clientOf({ url: `${url}/mq/` }).deleteQueue('a.b');
    expect(paths).toEqual(['/mq/v1/admin/queues/a.b']);
  });

  it('rebuilds a refusal from its problem details', async () => {
    const problem = { type: 'urn:x', title: 'x', status: 503, detail: 'Try later.', code: 'overloaded' };
    const { url } = await listen((_request, _body, response) => json(response, 503, problem, { 'retry-after': '2' }));
    await expect(clientOf({ url }).enqueue('orders', { messages: [{ body: 'x' }] })).rejects.toMatchObject({
      name: 'RowmqError',
      code: 'overloaded',
      message: 'Try later.',
      retryAfterSeconds: 2,
    });
  });

  it('reports that nothing was sent when nobody listens', async () => {
    const { server, url } = await listen(() => undefined);
    await new Promise((resolve) => server.close(resolve));
    await expect(clientOf({ url }).dequeue('orders')).rejects.toMatchObject({
      name: 'BrokerUnreachableError',
      outcome: 'not-sent',
      url,
      message: `No broker can be reached at ${url} (ECONNREFUSED); start one with npm start, or correct the URL.`,
    });
  });

  it('reports that nothing was sent when no connection was free in time, and does not send it later', async () => {
    const paths: (string | undefined)[] = [];
    let answer = (): void => undefined;
    const { url } = await listen((request, _body, response) => {
      paths.push(request.url);
      answer = () => void json(response, 200, { messages: [] });
    });
    const client = clientOf({ url, maxConnections: 1, timeoutMs: 500 });
    for (const count of [1, 2]) {
      const waiting = client.dequeue('orders', { waitSeconds: 20 });
      await vi.waitUntil(() => paths.length === count);
      await expect(client.enqueue('orders', { messages: [{ body: 'x' }] })).rejects.toMatchObject({
        name: 'BrokerUnreachableError',
        outcome: 'not-sent',
        message: expect.stringMatching(/no connection for it within 500 ms, nothing was sent; .*maxConnections/),
      });
      answer();
      await waiting;
    }
    expect(paths).toEqual(['/v1/queues/orders/messages/dequeue', '/v1/queues/orders/messages/dequeue']);
  });

  it('reports an unknown outcome when the deadline passes', async () => {
    const { url } = await listen(({ url: path }, _body, response) => {
      if (path?.endsWith('/dequeue') === true) json(response, 200, { messages: [] });
    });
    const client = clientOf({ url, timeoutMs: 500 });
    // It keeps the connection. To connect under load may take longer than the deadline of the ack.
    await vi.waitFor(() => client.dequeue('orders', { waitSeconds: 5 }));
    await expect(client.ack('orders', { receipts: ['r'] })).rejects.toMatchObject({
      name: 'BrokerUnreachableError',
      outcome: 'unknown',
      message: expect.stringContaining('no answer within 500 ms'),
    });
  });

  it('waits for a delete ten seconds beyond its deadline', async () => {
    const calls: unknown[] = [];
    const { url } = await listen(({ method }, _body, response) => {
      calls.push(method);
      setTimeout(() => {
        response.writeHead(204).end();
      }, 1500);
    });
    const client = clientOf({ url, timeoutMs: 500, retries: 4 });
    await expect(client.deleteQueue('orders')).resolves.toBeUndefined();
    expect(calls).toEqual(['DELETE']);
  });

  it('waits for a dequeue its waitSeconds beyond its deadline', async () => {
    const { url } = await listen((_request, _body, response) => {
      setTimeout(() => json(response, 200, { messages: [] }), 1500);
    });
    const client = clientOf({ url, timeoutMs: 500, retries: 4 });
    await expect(client.dequeue('orders', { waitSeconds: 5 })).resolves.toEqual({ messages: [] });
  });

  it('reports an unknown outcome when the connection breaks', async () => {
    const { url } = await listen((request) => request.socket.destroy());
    await expect(clientOf({ url }).ack('orders', { receipts: ['r'] })).rejects.toMatchObject({
      name: 'BrokerUnreachableError',
      outcome: 'unknown',
    });
  });

  it('reports an unknown outcome, and does not enqueue again, when the host becomes unreachable during a call', async () => {
    const sockets = openSockets();
    let calls = 0;
    const { url } = await listen(() => {
      calls += 1;
      sockets.at(-1)?.destroy(Object.assign(new Error('read EHOSTUNREACH'), { code: 'EHOSTUNREACH' }));
    });
    const call = clientOf({ url, retries: 4, idempotencyKeys: false }).enqueue('orders', { messages: [{ body: 'x' }] });
    await expect(call).rejects.toMatchObject({
      outcome: 'unknown',
      message: expect.stringContaining('the connection broke (read EHOSTUNREACH)'),
    });
    expect(calls).toBe(1);
  });

  it('refuses an answer that no broker gives', async () => {
    const { url } = await listen((_request, _body, response) => response.writeHead(200).end('<html>hello</html>'));
    await expect(clientOf({ url }).dequeue('orders')).rejects.toThrow(/not RowMQ's answer/);
  });

  it('drops the connection when its signal cancels a call, and throws the reason', async () => {
    const giveUp = new AbortController();
    let dropped: Promise<void> | undefined;
    const { url } = await listen((request) => {
      dropped = new Promise((resolve) => request.socket.once('close', () => resolve()));
      giveUp.abort(new Error('enough'));
    });
    const call = clientOf({ url }).dequeue('orders', { waitSeconds: 20 }, { signal: giveUp.signal });
    await expect(call).rejects.toThrow('enough');
    expect(dropped).toBeDefined();
    await dropped;
  });

  it('refuses an invalid URL, and an empty list of URLs', () => {
    expect(() => new RowmqHttpClient({ url: 'localhost:8080' })).toThrow(/not a broker's URL/);
    expect(() => new RowmqHttpClient({ url: [] })).toThrow(/names no broker/);
  });

  it('refuses a URL with a password, which no request would carry, and does not repeat it', () => {
    for (const user of ['shop:secret', 'secret', ':secret']) {
      const make = () => new RowmqHttpClient({ url: `http://${user}@127.0.0.1:8080` });
      expect(make).toThrow(/the broker at 127\.0\.0\.1:8080 has a user or a password[^]*apiKey/);
      expect(make).not.toThrow(/secret/);
    }
    expect(() => new RowmqHttpClient({ url: 'shop:secret@127.0.0.1:8080' })).not.toThrow(/secret/);
  });

  it('refuses other invalid options, and names all of them', () => {
    const wrong = { url: 'http://127.0.0.1:1', apiKey: 'secret\n', retries: -1, timeoutMs: Number.NaN };
    expect(() => new RowmqHttpClient(wrong)).toThrow(
      /not an API key: it has spaces, line ends[^]*timeoutMs[^]*retries/,
    );
  });
});

describe('a failed call', () => {
  const overloaded = { type: 'urn:x', title: 'x', status: 503, detail: 'Try later.', code: 'overloaded' };
  const stored = { messages: [{ id: '019a0b5d-ac96-774b-8cce-b302099a8057' }] };

  /** A broker that fails so many times before it answers. */
  async function failing(times: number, fail: Handler, answer: unknown): Promise<{ url: string; calls: () => number }> {
    let calls = 0;
    const { url } = await listen((request, body, response) => {
      calls += 1;
      if (calls <= times) fail(request, body, response);
      else json(response, 200, answer);
    });
    return { url, calls: () => calls };
  }

  const refuse: Handler = (_request, _body, response) => json(response, 503, overloaded);
  const breakOff: Handler = (request) => request.socket.destroy();
  const inProgress: Handler = (_request, _body, response) =>
    json(response, 409, { ...overloaded, status: 409, code: 'enqueue-in-progress' });
  const databaseAway: Handler = (_request, _body, response) =>
    json(response, 503, { ...overloaded, code: 'database-unavailable' });

  it('is repeated a few times if the failure may pass', async () => {
    const twice = await failing(2, refuse, { acked: ['r'], failed: [] });
    await expect(clientOf({ url: twice.url, retries: 4 }).ack('orders', { receipts: ['r'] })).resolves.toMatchObject({
      acked: ['r'],
    });
    expect(twice.calls()).toBe(3);
    const always = await failing(99, refuse, undefined);
    await expect(clientOf({ url: always.url, retries: 2 }).ack('orders', { receipts: ['r'] })).rejects.toMatchObject({
      code: 'overloaded',
    });
    expect(always.calls()).toBe(3);
  });

  it('is repeated at the same broker if a transaction keeps the queue locked', async () => {
    const lockedQueue: Handler = (_request, _body, response) =>
      json(response, 503, { ...overloaded, code: 'queue-locked' }, { 'retry-after': '0' });
    const paused = { name: 'orders', paused: true, producersPaused: false };
    const brokers = await Promise.all([failing(2, lockedQueue, paused), failing(2, lockedQueue, paused)]);
    const client = clientOf({ url: brokers.map(({ url }) => url), retries: 4 });
    await expect(client.pauseQueue('orders')).resolves.toEqual(paused);
    expect(new Set(brokers.map(({ calls }) => calls()))).toEqual(new Set([0, 3]));
  });

  it('is repeated for 30 seconds by default, for as long as retrySeconds says, or not at all', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    try {
      const seconds = async (options: Partial<RowmqClientOptions>, perCall = {}) => {
        const always = await failing(9999, refuse, undefined);
        const client = new RowmqHttpClient({ url: always.url, ...options });
        opened.push(() => client.close());
        const began = performance.now();
        await inStepsOf(20, async () => client.ack('orders', { receipts: ['r'] }, perCall).catch(() => undefined));
        return { seconds: (performance.now() - began) / 1000, calls: always.calls() };
      };
      const byDefault = await seconds({ timeoutMs: 600_000 });
      expect(byDefault.seconds).toBeGreaterThan(27);
      expect(byDefault.seconds).toBeLessThan(33);
      expect(byDefault.calls).toBeGreaterThan(15);
      expect(byDefault.calls).toBeLessThan(40);
      expect((await seconds({ timeoutMs: 600_000, retrySeconds: 5 })).seconds).toBeLessThan(6);
      expect(await seconds({ retrySeconds: 0 })).toMatchObject({ calls: 1 });
      expect(await seconds({}, { retrySeconds: 0 })).toMatchObject({ calls: 1 });
      expect(await seconds({ retries: 0 })).toMatchObject({ calls: 1 });
    } finally {
      vi.useRealTimers();
    }
  }, 60_000);

  it('creates a queue only if it is missing, also if the answer of an earlier try was lost', async () => {
    const asked: unknown[] = [];
    const exists = { ...overloaded, code: 'queue-exists', status: 412 };
    const { url } = await listen((request, body, response) => {
      asked.push([request.method, request.url, request.headers['if-none-match'], JSON.parse(body)]);
      if (asked.length === 1) request.socket.destroy();
      else json(response, 412, exists);
    });
    await expect(clientOf({ url, retries: 4 }).createQueue('orders', { leaseSeconds: 9 })).resolves.toBeUndefined();
    const put = ['PUT', '/v1/admin/queues/orders', '*', { leaseSeconds: 9 }];
    expect(asked).toEqual([put, put]);
    asked.length = 0;
    await expect(clientOf({ url, retries: 4 }).createNewQueue('orders', { leaseSeconds: 9 })).resolves.toBe(true);
    expect(asked).toHaveLength(2);
    await expect(clientOf({ url, retries: 4 }).createNewQueue('orders')).resolves.toBe(false);
    const refuses = await listen((_request, _body, response) =>
      json(response, 400, { ...exists, code: 'invalid-request' }),
    );
    await expect(clientOf({ url: refuses.url }).createQueue('orders')).rejects.toMatchObject({
      code: 'invalid-request',
    });
  });

  it('is repeated for an enqueue without a key only if nothing can have been stored', async () => {
    const enqueue = { messages: [{ body: 'x' }] };
    const keyless = (url: string) => clientOf({ url, retries: 4, idempotencyKeys: false });
    const refused = await failing(1, refuse, stored);
    await expect(keyless(refused.url).enqueue('orders', enqueue)).resolves.toEqual(stored);
    const broken = await failing(1, breakOff, stored);
    await expect(keyless(broken.url).enqueue('orders', enqueue)).rejects.toMatchObject({ outcome: 'unknown' });
    expect(broken.calls()).toBe(1);
    const acked = await failing(1, breakOff, { acked: ['r'], failed: [] });
    await expect(clientOf({ url: acked.url, retries: 4 }).ack('orders', { receipts: ['r'] })).resolves.toMatchObject({
      acked: ['r'],
    });
  });

  it('is repeated for an enqueue with the key of its first try, whatever became of that', async () => {
    const keys: unknown[] = [];
    const fails = [breakOff, databaseAway, inProgress, refuse];
    const { url } = await listen((request, body, response) => {
      keys.push(request.headers['idempotency-key']);
      const fail = fails[keys.length - 1];
      if (fail === undefined) json(response, 201, stored);
      else fail(request, body, response);
    });
    const client = clientOf({ url, retries: 4 });
    await expect(client.enqueue('orders', { messages: [{ body: 'x' }] })).resolves.toEqual(stored);
    expect(keys).toEqual(Array<unknown>(5).fill(expect.stringMatching(/^"[0-9a-f-]{36}"$/)));
    expect(new Set(keys).size).toBe(1);
    await client.enqueue('orders', { messages: [{ body: 'x' }] });
    expect(new Set(keys).size).toBe(2);
    await client.enqueue('orders', { messages: [{ body: 'x' }] }, { idempotencyKey: 'mine' });
    expect(keys.at(-1)).toBe('"mine"');
  });

  it('leaves an enqueue in doubt if no later try tells what became of the first', async () => {
    let calls = 0;
    const { url } = await listen((request, body, response) => {
      calls += 1;
      (calls === 1 ? breakOff : refuse)(request, body, response);
    });
    const failed = clientOf({ url, retries: 2 }).enqueue('orders', { messages: [{ body: 'x' }] });
    await expect(failed).rejects.toSatisfy(isOutcomeUnknown);
    expect(calls).toBe(3);
  });

  it.each([
    ['unauthorized', 401, true],
    ['message-too-large', 413, true],
    ['invalid-request', 400, true],
    ['queue-paused', 409, true],
    ['queue-full', 429, false],
    ['idempotency-key-reused', 422, false],
  ])('in doubt that is then refused as %s (%i) stays in doubt: %s', async (code, status, isUnknown) => {
    let calls = 0;
    const { url } = await listen((request, body, response) => {
      calls += 1;
      if (calls === 1) breakOff(request, body, response);
      else json(response, status, { ...overloaded, status, code });
    });
    const failed = clientOf({ url, retries: 2 }).enqueue('orders', { messages: [{ body: 'x' }] });
    const error: unknown = await failed.catch((thrown: unknown) => thrown);
    expect(isOutcomeUnknown(error)).toBe(isUnknown);
    if (isUnknown) expect((error as Error).cause).toMatchObject({ code });
    else expect(error).toMatchObject({ code });
    expect(calls).toBe(2);
  });

  it('is not repeated for an enqueue in doubt when the broker may soon forget its key', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    try {
      const { url } = await listen(breakOff);
      const begunAt = performance.now();
      const client = clientOf({ url, retries: 10_000, retrySeconds: 3600 });
      const enqueue = client.enqueue.bind(client, 'orders', { messages: [{ body: 'x' }] });
      const failed = await inStepsOf(100, async () => enqueue().catch((error: unknown) => error));
      expect(failed).toSatisfy(isOutcomeUnknown);
      expect(performance.now() - begunAt).toBeLessThanOrEqual(241_000);
      expect(performance.now() - begunAt).toBeGreaterThan(200_000);
    } finally {
      vi.useRealTimers();
    }
  });

  it('never leaves for an enqueue in doubt once the broker may have forgotten its key', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    try {
      const begunAt = performance.now();
      const arrivedAt: number[] = [];
      let asked = 0;
      const { url } = await listen(({ url: path }, _body, response) => {
        asked += 1;
        if (path?.includes('orders') === true) arrivedAt.push(performance.now() - begunAt);
        // Others get no answer.
        if (path === '/health/live') json(response, 200, {});
        else if (arrivedAt.length === 1 && asked === 1) response.destroy();
      });
      let isOver = false;
      const client = clientOf({ url, retries: 10_000, retrySeconds: 3600, timeoutMs: 600_000, maxConnections: 1 });
      const failed = client
        .enqueue('orders', { messages: [{ body: 'x' }] })
        .catch((error: unknown) => error)
        .finally(() => (isOver = true));
      while (arrivedAt.length === 0) await new Promise((resolve) => setImmediate(resolve));
      // The repeat waits behind this call for the only connection.
      const holder = client.ack('silent', { receipts: ['r'] }, { retrySeconds: 0 }).catch(() => undefined);
      while (asked === 1) await new Promise((resolve) => setImmediate(resolve));
      while (!isOver) {
        await new Promise((resolve) => setImmediate(resolve));
        await vi.advanceTimersByTimeAsync(1000);
      }
      expect(await failed).toSatisfy(isOutcomeUnknown);
      await vi.advanceTimersByTimeAsync(600_000);
      await holder;
      // Whatever waited for the connection leaves before this call.
      await client.live();
      expect(arrivedAt.filter((ms) => ms > 300_000)).toEqual([]);
    } finally {
      vi.useRealTimers();
    }
  });

  it('is repeated for a dequeue together with its acks, and an ack that an earlier try settled is not found', async () => {
    const answer = { messages: [], acked: [], failed: [{ receipt: 'r', code: 'delivery-not-found' }] };
    const bodies: unknown[] = [];
    const { url } = await listen((request, body, response) => {
      bodies.push(JSON.parse(body));
      if (bodies.length === 1) request.socket.destroy();
      else json(response, 200, answer);
    });
    await expect(clientOf({ url, retries: 4 }).dequeue('orders', { ack: ['r'] })).resolves.toEqual(answer);
    expect(bodies).toEqual([{ ack: ['r'] }, { ack: ['r'] }]);
  });

  it('is not repeated if the broker refused the call itself', async () => {
    const wrong = await failing(
      1,
      (_request, _body, response) => json(response, 404, { ...overloaded, status: 404, code: 'queue-not-found' }),
      {},
    );
    await expect(clientOf({ url: wrong.url, retries: 4 }).ack('orders', { receipts: ['r'] })).rejects.toMatchObject({
      code: 'queue-not-found',
    });
    expect(wrong.calls()).toBe(1);
  });

  it('is repeated on the next broker, and the failed one rests for a while', async () => {
    const { server, url: gone } = await listen(() => undefined);
    await new Promise((resolve) => server.close(resolve));
    const good = await failing(0, refuse, stored);
    // By chance, a client begins at one of the two. Here they take turns.
    let began = 0;
    const random = vi.spyOn(Math, 'random').mockImplementation(() => (began++ % 2) / 2);
    const clients = Array.from({ length: 10 }, () => clientOf({ url: [gone, good.url], retries: 4 }));
    random.mockRestore();
    const enqueue = (client: RowmqHttpClient) => client.enqueue('orders', { messages: [{ body: 'x' }] });
    const connects: string[] = [];
    const onConnect = (message: unknown): void => {
      const { connectParams } = message as { connectParams: { port: string } };
      connects.push(connectParams.port);
    };
    subscribe('undici:client:beforeConnect', onConnect);
    try {
      await Promise.all(clients.map(enqueue));
      expect(connects).toContain(new URL(gone).port);
      connects.length = 0;
      for (let call = 0; call < 3; call += 1) await Promise.all(clients.map(enqueue));
      expect(connects).not.toContain(new URL(gone).port);
    } finally {
      unsubscribe('undici:client:beforeConnect', onConnect);
    }
    expect(good.calls()).toBe(40);
  });

  it('does not rest a broker for one short deadline, but for a second one without an answer meanwhile', async () =>
    byUnstalledClock(async () => {
      const asked: string[] = [];
      const brokers = await Promise.all(
        ['one', 'two'].map(async (name) =>
          listen((request, _body, response) => {
            asked.push(name);
            // The others get no answer.
            if (request.url?.includes('orders') === true) json(response, 200, { acked: [], failed: [] });
          }),
        ),
      );
      const client = clientOf({ url: brokers.map(({ url }) => url) });
      const healthy = async () => client.ack('orders', { receipts: ['r'] });
      const impatient = async () =>
        expect(client.ack('silent', { receipts: ['r'] }, { timeoutMs: 500 })).rejects.toMatchObject({
          outcome: 'unknown',
        });
      for (let turn = 0; turn < 3; turn += 1) {
        await healthy();
        await Promise.all([impatient(), impatient()]);
      }
      await healthy();
      expect(new Set(asked).size).toBe(1);
      await impatient();
      await impatient();
      await healthy();
      expect(new Set(asked).size).toBe(2);
    }));

  it('is repeated on the next broker if one accepts no connection', async () =>
    byUnstalledClock(async () => {
      const silent = await listenInSilence();
      const good = await failing(0, refuse, stored);
      // Begins at the first.
      const random = vi.spyOn(Math, 'random').mockReturnValueOnce(0);
      const client = clientOf({ url: [silent.url, good.url], timeoutMs: 1000, retries: 4 });
      random.mockRestore();
      await expect(client.enqueue('orders', { messages: [{ body: 'x' }] })).resolves.toEqual(stored);
      expect(silent.sockets).toHaveLength(1);
      expect(good.calls()).toBe(1);
    }));

  it('has an unknown outcome after a try that may have been carried out, although the next was not sent', async () => {
    const { server, url } = await listen((request) => {
      server.close();
      request.socket.destroy();
    });
    await expect(clientOf({ url, retries: 1 }).ack('orders', { receipts: ['r'] })).rejects.toMatchObject({
      outcome: 'unknown',
      message: expect.stringMatching(/ECONNREFUSED.*An earlier try may have been carried out\./),
    });
  });

  it.each([
    ['the answer was lost', breakOff, undefined],
    ['the database went away', databaseAway, undefined],
    ['it was refused', refuse, 'queue-not-found'],
  ])(
    'that deletes a queue succeeds when the repeated call does not find it, unless a broker refused it first: %s',
    async (_, fail, code) => {
      let calls = 0;
      const { url } = await listen((request, body, response) => {
        calls += 1;
        if (calls === 1) fail(request, body, response);
        else json(response, 404, { ...overloaded, status: 404, code: 'queue-not-found' });
      });
      const outcome = clientOf({ url, retries: 4 })
        .deleteQueue('orders')
        .catch((error: unknown) => (error as RowmqError).code);
      await expect(outcome).resolves.toBe(code);
      expect(calls).toBe(2);
      // The code of its first try.
      await expect(clientOf({ url, retries: 4 }).deleteQueue('orders')).rejects.toMatchObject({
        code: 'queue-not-found',
      });
    },
  );

  it('is not repeated once the client is closed', async () => {
    const { server, url } = await listen(() => undefined);
    await new Promise((resolve) => server.close(resolve));
    const client = clientOf({ url, retries: 30 });
    const call = client.ack('orders', { receipts: ['r'] });
    setTimeout(() => void client.close(), 50);
    await expect(call).rejects.toMatchObject({ outcome: 'not-sent', message: 'The client is closed.' });
  });

  it.each([
    ['of its own', {}],
    ['that the broker asked for', { 'retry-after': '1' }],
  ])('ends with its signal, even in a pause %s', async (_, headers) => {
    const refuseFor: Handler = (_request, _body, response) => json(response, 503, overloaded, headers);
    const always = await failing(99, refuseFor, undefined);
    const giveUp = new AbortController();
    const call = clientOf({ url: always.url, retries: 30 }).ack(
      'orders',
      { receipts: ['r'] },
      { signal: giveUp.signal },
    );
    setTimeout(() => giveUp.abort(new Error('enough')), 150);
    await expect(call).rejects.toThrow('enough');
  });
});

describe('connections that went silent', () => {
  /** Passes connections on to a server, until it drops every byte of those that are open. */
  async function silenceable(target: string) {
    const sockets = new Set<Socket>();
    const silent = new WeakSet<Socket>();
    const proxy = createTcpServer((near) => {
      const far = connect(Number(new URL(target).port), '127.0.0.1');
      const pass = (from: Socket, to: Socket): void => {
        sockets.add(from.on('error', () => undefined));
        from.on('data', (bytes: Buffer) => void (silent.has(near) || to.write(bytes)));
        from.on('close', () => void (silent.has(near) || to.destroy()));
      };
      pass(near, far);
      pass(far, near);
    }).listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    opened.push(async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => proxy.close(resolve));
    });
    const { port } = proxy.address() as AddressInfo;
    return {
      url: `http://127.0.0.1:${port}`,
      silence: () => {
        for (const socket of sockets) silent.add(socket);
      },
    };
  }

  it('cost one deadline, however many there are, and later calls get new ones', async () =>
    byUnstalledClock(async () => {
      const { url: target } = await listen((_request, _body, response) => {
        setTimeout(() => json(response, 200, { messages: [] }), 20);
      });
      const { url, silence } = await silenceable(target);
      const client = clientOf({ url, timeoutMs: 2000 });
      const dequeue = async () =>
        client.dequeue('orders').then(
          () => 'answered',
          () => 'lost',
        );
      expect(await Promise.all([1, 2, 3, 4].map(dequeue))).toEqual(Array(4).fill('answered'));
      // A connection is free again a turn after its answer.
      await new Promise((resolve) => setImmediate(resolve));
      silence();
      expect(await dequeue()).toBe('lost');
      for (let call = 0; call < 6; call += 1) expect(await dequeue()).toBe('answered');
    }));

  it.each([
    ['are replaced', 'no call was answered meanwhile', 1],
    ['stay', 'another call was answered meanwhile', 0],
  ])('%s when a call with a short deadline of its own gets no answer, and %s', async (_, answered, newOnes) => {
    const { server, url } = await listen((request, _body, response) => {
      if (request.url?.includes('silent') === false) json(response, 200, { acked: [], failed: [] });
    });
    let connections = 0;
    server.on('connection', () => (connections += 1));
    const client = clientOf({ url });
    const ack = async (queue: string, timeoutMs?: number) => client.ack(queue, { receipts: ['r'] }, { timeoutMs });
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    try {
      await Promise.all([ack('orders'), ack('orders')]);
      // A connection is free again a turn after its answer.
      await new Promise((resolve) => setImmediate(resolve));
      vi.advanceTimersByTime(1000);
      const isAsked = once(server, 'request');
      const late = ack('silent', 500).catch((error: unknown) => error);
      await isAsked;
      if (answered.startsWith('another')) await ack('orders');
      await vi.advanceTimersByTimeAsync(500);
      expect(await late).toSatisfy(isOutcomeUnknown);
      const before = connections;
      await ack('orders');
      expect(connections - before).toBe(newOnes);
    } finally {
      vi.useRealTimers();
    }
  });

  it('cost a consumer one deadline, and it tells so at the first', async () =>
    byUnstalledClock(async () => {
      let isOver = false;
      const { url: target } = await listen(({ url: path }, _body, response) => {
        if (path?.endsWith('/dequeue') === true)
          setTimeout(() => json(response, 200, { messages: [] }), isOver ? 0 : 50);
        else json(response, 200, {});
      });
      const { url, silence } = await silenceable(target);
      const client = new RowmqHttpClient({ url, timeoutMs: 2000 });
      opened.push(() => client.close());
      const consumer = new QueueConsumer(client, 'orders', { message: () => undefined }, { waitSeconds: 0 });
      let failures = 0;
      let dequeued = 0;
      consumer.on('dequeueFailed', () => (failures += 1));
      consumer.on('dequeued', () => (dequeued += 1));
      consumer.start();
      await vi.waitUntil(() => dequeued > 0);
      await Promise.allSettled([1, 2, 3].map(async () => client.dequeue('orders')));
      silence();
      const before = dequeued;
      await vi.waitUntil(() => dequeued > before && failures > 0);
      expect(failures).toBe(1);
      isOver = true;
      await consumer.stop();
    }));
});
