import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { afterEach, describe, expect, it } from 'vitest';
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
  const client = new RowmqHttpClient(options);
  opened.push(() => client.close());
  return client;
}

const json = (response: ServerResponse, status: number, answer: unknown, headers = {}) =>
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(answer));

describe('RowmqHttpClient', () => {
  it('sends one request per call, with the key, and answers what the broker answers', async () => {
    const seen: unknown[] = [];
    const { url } = await listen((request, body, response) => {
      seen.push([request.method, request.url, request.headers.authorization, JSON.parse(body)]);
      json(response, 200, { acked: ['r1'], failed: [{ receipt: 'r2', code: 'lease-lost' }] });
    });
    const client = clientOf({ url: `${url}/`, apiKey: 'secret' });
    await expect(client.ack('orders', { receipts: ['r1', 'r2'] })).resolves.toEqual({
      acked: ['r1'],
      failed: [{ receipt: 'r2', code: 'lease-lost' }],
    });
    expect(seen).toEqual([['POST', '/v1/queues/orders/messages/ack', 'Bearer secret', { receipts: ['r1', 'r2'] }]]);
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

  it('says that nothing was sent when nobody listens', async () => {
    const { server, url } = await listen(() => undefined);
    await new Promise((resolve) => server.close(resolve));
    await expect(clientOf({ url }).dequeue('orders')).rejects.toMatchObject({
      name: 'BrokerUnreachableError',
      outcome: 'not-sent',
      url,
      message: `No broker can be reached at ${url} (ECONNREFUSED); start one with npm start, or correct the URL.`,
    });
  });

  it('says that the outcome is unknown when the deadline passes', async () => {
    const { url } = await listen(() => undefined);
    await expect(clientOf({ url, timeoutMs: 50 }).ack('orders', { receipts: ['r'] })).rejects.toMatchObject({
      name: 'BrokerUnreachableError',
      outcome: 'unknown',
      message: expect.stringContaining('no answer within 50 ms'),
    });
  });

  it('gives a dequeue the time it waits for on top of its deadline', async () => {
    const { url } = await listen((_request, _body, response) => {
      setTimeout(() => json(response, 200, { messages: [] }), 150);
    });
    const client = clientOf({ url, timeoutMs: 50 });
    await expect(client.dequeue('orders', { waitSeconds: 5 })).resolves.toEqual({ messages: [] });
  });

  it('says that the outcome is unknown when the connection breaks', async () => {
    const { url } = await listen((request) => request.socket.destroy());
    await expect(clientOf({ url }).ack('orders', { receipts: ['r'] })).rejects.toMatchObject({
      name: 'BrokerUnreachableError',
      outcome: 'unknown',
    });
  });

  it("does not take a stranger's answer for that of a broker", async () => {
    const { url } = await listen((_request, _body, response) => response.writeHead(200).end('<html>hello</html>'));
    await expect(clientOf({ url }).dequeue('orders')).rejects.toThrow(/not RowMQ's answer/);
  });

  it('drops the connection when its signal gives a call up, and throws the reason', async () => {
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

  it('refuses a URL that is none', () => {
    expect(() => new RowmqHttpClient({ url: 'localhost:8080' })).toThrow(/not a broker's URL/);
  });
});
