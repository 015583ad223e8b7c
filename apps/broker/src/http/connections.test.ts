import { once } from 'node:events';
import type { RequestListener, ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { Connections } from './connections.js';

const GET = 'GET / HTTP/1.1\r\nHost: broker\r\n\r\n';
const POST_HALF = 'POST / HTTP/1.1\r\nHost: broker\r\nContent-Length: 10\r\n\r\n12345';
const MIB = 1024 * 1024;
/** More than the system's buffers take. */
const LARGE = 16 * MIB;
const POST_LARGE = `POST / HTTP/1.1\r\nHost: broker\r\nContent-Length: ${LARGE}\r\n\r\n${'x'.repeat(LARGE)}`;
const STOP_MS = 2000;
const WORDS = 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n';

// A clock that goes on by 20 ms in each turn that Node gives a real timer of 20 ms. While a busy
// machine stops the process it stands still, and the time of a stop does not pass.
beforeAll(() => {
  vi.useFakeTimers({
    shouldAdvanceTime: true,
    toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'],
  });
});
afterAll(() => void vi.useRealTimers());

const cleanUp: (() => void)[] = [];
afterEach(() => {
  for (const undo of cleanUp.splice(0)) undo();
});

/** A server under these rules. It keeps the answers of requests that `handle` leaves open. */
async function serve(
  handle: RequestListener,
  limits: { keepAliveMs?: number; stopMs?: number } = {},
  leavePort?: () => Promise<void>,
) {
  const connections = new Connections(
    {
      keepAliveMs: 60_000,
      requestMs: 60_000,
      standstillMs: 60_000,
      stopMs: STOP_MS,
      ...limits,
    },
    leavePort,
  );
  const server = connections.createServer(handle);
  server.on('clientError', (_error, socket) => connections.refuse(socket as Socket, WORDS));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  cleanUp.push(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  let arrived = 0;
  server.on('request', () => (arrived += 1));
  return {
    connections,
    arrived: () => arrived,
    /** A client that collects everything that it is sent, and its errors, until the end. */
    client: async (): Promise<{ socket: Socket; text: () => string; errors: Error[]; ended: Promise<void> }> => {
      const errors: Error[] = [];
      const socket = connect(port, '127.0.0.1').on('error', (error) => errors.push(error));
      let text = '';
      socket.on('data', (bytes: Buffer) => (text += bytes.toString()));
      const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()));
      await once(socket, 'connect');
      return { socket, text: () => text, errors, ended };
    },
  };
}

const answer: RequestListener = (_request, response) => void response.end('done');
const until = async (condition: () => boolean): Promise<unknown> => vi.waitUntil(condition);
const statuses = (text: string): string[] => [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status!);

describe('a stop', () => {
  test('ends each connection with an answer that says so', async () => {
    const open: ServerResponse[] = [];
    const { connections, client } = await serve((_request, response) => void open.push(response));
    const [waiting, used] = [await client(), await client()];
    waiting.socket.write(GET);
    used.socket.write(GET);
    await until(() => open.length === 2);
    open[1]?.end('before the stop');
    await until(() => used.text().includes('before the stop'));
    const drained = connections.drained();
    for (let turns = 0; turns < 10; turns += 1) await turn();
    open[0]?.end('waited');
    used.socket.write(GET);
    await until(() => open.length === 3);
    open[2]?.end('after the stop');
    await Promise.all([drained, waiting.ended, used.ended]);
    expect(waiting.text()).toMatch(/Connection: close[^]*waited/);
    expect(used.text()).toMatch(/Connection: keep-alive[^]*before the stop[^]*Connection: close[^]*after the stop/);
  });

  test('tells nobody to leave before new connections are refused', async () => {
    const open: ServerResponse[] = [];
    const { connections, client } = await serve((_request, response) => void open.push(response));
    const { socket, text } = await client();
    socket.write(GET);
    await until(() => open.length === 1);
    const drained = connections.drained();
    // The broker still listens: a client that left now would connect again.
    open[0]?.end('before the broker stopped listening');
    await until(() => text().includes('stopped listening'));
    expect(text()).toContain('Connection: keep-alive');
    await drained;
  });

  test('begins no request before new connections are refused, so that waiting clients open no more', async () => {
    const open: ServerResponse[] = [];
    let leave = (): void => undefined;
    const left = new Promise<void>((resolve) => (leave = resolve));
    const { connections, client, arrived } = await serve(
      (_request, response) => void open.push(response),
      {},
      async () => left,
    );
    const { socket, text } = await client();
    const drained = connections.drained();
    socket.write(GET);
    await until(() => arrived() === 1);
    expect(open).toEqual([]);
    leave();
    await until(() => open.length === 1);
    open[0]?.end('done');
    await drained;
    expect(text()).toMatch(/Connection: close[^]*done/);
  });

  test('answers requests on connections that nobody had accepted yet', async () => {
    const { connections, client } = await serve(answer);
    // The system sets them up at once, and Node accepts one in each turn of its event loop.
    const clients = Promise.all(
      Array.from({ length: 30 }, async () => {
        const one = await client();
        one.socket.write(GET);
        await one.ended;
        return statuses(one.text())[0];
      }),
    );
    const [answers] = await Promise.all([clients, connections.drained()]);
    expect(answers).toEqual(Array.from({ length: 30 }, () => '200'));
  });

  test('refuses new connections at once, although others are open', async () => {
    const { connections, client } = await serve(() => undefined);
    const { socket } = await client();
    socket.write(GET);
    void connections.drained();
    for (let turns = 0; turns < 10; turns += 1) await turn();
    await expect(client()).rejects.toThrow('ECONNREFUSED');
  });

  test('answers all requests that came at once on a connection, and closes with the last', async () => {
    const open: ServerResponse[] = [];
    const { connections, client } = await serve((_request, response) => void open.push(response));
    const { socket, text, ended } = await client();
    socket.write(GET.repeat(2));
    await until(() => open.length === 2);
    const drained = connections.drained();
    socket.write(GET);
    await until(() => open.length === 3);
    for (const response of open.toReversed()) response.end('done');
    await Promise.all([drained, ended]);
    expect(text().match(/done/g)).toHaveLength(3);
    expect(text().match(/Connection: close/g)).toHaveLength(1);
  });

  test('does not carry out a request that follows the last answer', async () => {
    let carriedOut = 0;
    const open: ServerResponse[] = [];
    const { connections, client } = await serve((_request, response) => {
      carriedOut += 1;
      open.push(response);
    });
    const { socket, text, ended } = await client();
    socket.write(GET);
    await until(() => open.length === 1);
    const drained = connections.drained();
    for (let turns = 0; turns < 10; turns += 1) await turn();
    open[0]?.writeHead(200, { 'content-length': 4 }).write('do');
    await until(() => text().includes('Connection: close'));
    socket.write(GET);
    await until(() => open[0]?.socket?.bytesRead === 2 * GET.length);
    open[0]?.end('ne');
    await Promise.all([drained, ended]);
    expect(carriedOut).toBe(1);
    expect(statuses(text())).toEqual(['200']);
  });

  test('tells an idle connection that a request which crossed with its end was not carried out', async () => {
    let carriedOut = 0;
    const { connections, client } = await serve((request, response) => {
      carriedOut += 1;
      answer(request, response);
    });
    const [idle, unused] = [await client(), await client()];
    idle.socket.write(GET);
    await until(() => idle.text().includes('done'));
    const drained = connections.drained();
    // The client cannot know yet: it sends as soon as it sees the first byte of the last words.
    idle.socket.on('data', () => idle.socket.write(GET));
    await Promise.all([drained, idle.ended, unused.ended]);
    expect(carriedOut).toBe(1);
    for (const text of [idle.text(), unused.text()]) {
      expect(text).toMatch(/HTTP\/1\.1 408 [^]*Connection: close[^]*"code":"overloaded"/);
      expect(text).toContain('nothing was done');
    }
  });

  test('answers a request that arrived while the process stood still, although its connection was idle for too long', async () => {
    const { connections, client } = await serve(answer);
    const { socket, text, ended } = await client();
    socket.write(GET);
    await until(() => text() !== '');
    const drained = connections.drained();
    for (let turns = 0; turns < 10; turns += 1) await turn();
    socket.write(GET);
    vi.advanceTimersByTime(STOP_MS * 0.3);
    await Promise.all([drained, ended]);
    expect(statuses(text())).toEqual(['200', '200']);
  });

  test('reads a large request that crossed with the end of an idle connection, so that its client gets the words', async () => {
    const { connections, client } = await serve(answer);
    const { socket, text, errors, ended } = await client();
    const drained = connections.drained();
    socket.once('data', () => socket.write(POST_LARGE));
    await Promise.all([drained, ended]);
    expect(errors).toEqual([]);
    expect(statuses(text())).toEqual(['408']);
    expect(socket.bytesWritten).toBe(POST_LARGE.length);
  });

  test('reads the rest of a large request that the broker has answered early', async () => {
    const open: ServerResponse[] = [];
    const { connections, client } = await serve((_request, response) => void open.push(response));
    const { socket, text, errors, ended } = await client();
    socket.write(POST_LARGE.slice(0, 1000));
    await until(() => open.length === 1);
    const drained = connections.drained();
    for (let turns = 0; turns < 10; turns += 1) await turn();
    socket.once('data', () => socket.write(POST_LARGE.slice(1000)));
    open[0]?.end('refused');
    await Promise.all([drained, ended]);
    expect(errors).toEqual([]);
    expect(text()).toMatch(/Connection: close[^]*refused/);
    expect(socket.bytesWritten).toBe(POST_LARGE.length);
  });

  test('leaves a client that reads its answer slowly most of the time of the stop', async () => {
    const stopMs = 8000;
    const large = Buffer.alloc(24 * MIB);
    const open: ServerResponse[] = [];
    const { connections, client } = await serve((_request, response) => void open.push(response), { stopMs });
    const { socket, text, ended } = await client();
    socket.write(GET);
    await until(() => open.length === 1);
    const from = performance.now();
    const drained = connections.drained();
    for (let turns = 0; turns < 10; turns += 1) await turn();
    socket.pause();
    open[0]?.end(large);
    // 64 KiB at a time, and then the rest.
    const reading = setInterval(() => {
      if (performance.now() - from < stopMs * 0.65) socket.once('data', () => socket.pause()).resume();
      else {
        clearInterval(reading);
        socket.resume();
      }
    }, 100);
    cleanUp.push(() => clearInterval(reading));
    await Promise.all([drained, ended]);
    expect(text().length).toBeGreaterThan(large.length);
  });

  test('waits for the answer to a request, although the next one on its connection does not arrive', async () => {
    const open: ServerResponse[] = [];
    const { connections, client } = await serve((_request, response) => void open.push(response), { stopMs: 400 });
    const [both, half] = [await client(), await client()];
    both.socket.write(GET + POST_HALF);
    half.socket.write(POST_HALF);
    await until(() => open.length === 3);
    const drained = connections.drained();
    await half.ended;
    expect(both.socket.closed).toBe(false);
    open[0]?.end('done');
    await Promise.all([drained, both.ended]);
    expect(both.text()).toContain('done');
  });

  test('does not wait for a client that does not finish its request, or does not read its answer', async () => {
    const large = Buffer.alloc(64 * 1024 * 1024);
    let written: ServerResponse | undefined;
    const { connections, client } = await serve((request, response) => {
      if (request.method === 'GET') written = response.end(large);
      else request.once('end', () => response.end('done')).resume();
    });
    const [slow, deaf] = [await client(), await client()];
    slow.socket.write(POST_HALF);
    deaf.socket.pause();
    deaf.socket.write(GET);
    await until(() => (written?.socket?.writableLength ?? 0) > 0);
    await expect(connections.drained()).resolves.toBeUndefined();
    deaf.socket.destroy();
  });
});

describe('a client that sends many requests without a wait for answers', () => {
  test('gets all answers in order, from a few requests under way at a time', async () => {
    const open: ServerResponse[] = [];
    let most = 0;
    const { client, arrived } = await serve((_request, response) => {
      open.push(response);
      most = Math.max(most, open.length);
    });
    const { socket, text } = await client();
    socket.write(GET.repeat(100));
    await until(() => arrived() === 100);
    expect(open).toHaveLength(8);
    for (let number = 0; number < 100; number += 1) {
      await until(() => open.length > 0);
      // The newest first: the answers come in the order of the requests even so.
      open.pop()?.end(`<${number}>`);
    }
    await until(() => (text().match(/<\d+>/g) ?? []).length === 100);
    expect(most).toBe(8);
    expect(statuses(text())).toHaveLength(100);
  });

  test('has them carried out in their order, also those that had to wait', async () => {
    const open: ServerResponse[] = [];
    const { client, arrived } = await serve((_request, response) => void open.push(response));
    const { socket } = await client();
    const urls = Array.from({ length: 30 }, (_, number) => `/${number}`);
    socket.write(urls.map((url) => GET.replace('/', url)).join(''));
    await until(() => arrived() === urls.length);
    for (const number of urls.keys()) {
      await until(() => open.length > number);
      open[number]?.end('done');
    }
    expect(open.map(({ req }) => req.url)).toEqual(urls);
  });

  test('and reads no answer makes the broker keep a few, and carry out nothing more once it is gone', async () => {
    const large = Buffer.alloc(LARGE);
    let carriedOut = 0;
    const { client, arrived } = await serve((_request, response) => {
      carriedOut += 1;
      response.end(large);
    });
    const { socket } = await client();
    socket.pause();
    socket.write(GET.repeat(100));
    await until(() => arrived() === 100);
    expect(carriedOut).toBe(8);
    socket.destroy();
    for (let turns = 0; turns < 100; turns += 1) await turn();
    expect(carriedOut).toBeLessThanOrEqual(9);
  });

  test('does not hold up a stop by reading no answer', async () => {
    const large = Buffer.alloc(LARGE);
    const { connections, client, arrived } = await serve((_request, response) => response.end(large));
    const { socket } = await client();
    socket.pause();
    socket.write(GET.repeat(100));
    await until(() => arrived() === 100);
    const from = performance.now();
    await connections.drained();
    expect(performance.now() - from).toBeLessThan(STOP_MS);
    socket.destroy();
  });
});

describe('outside of a stop', () => {
  test('a connection that was idle for too long ends with the same words', async () => {
    const { client } = await serve(answer, { keepAliveMs: 50 });
    const { socket, text, ended } = await client();
    socket.write(GET);
    await ended;
    expect(statuses(text())).toEqual(['200', '408']);
  });

  test('bytes that are no request get words, although the client still sends', async () => {
    const { client } = await serve(answer);
    const { socket, text, errors, ended } = await client();
    socket.once('data', () => socket.write('x'.repeat(MIB)));
    socket.write('no request\r\n\r\n');
    await ended;
    expect(text()).toBe(WORDS);
    expect(errors).toEqual([]);
    expect(socket.bytesWritten).toBeGreaterThan(MIB);
  });

  test('bytes that are no request get no words while an earlier request has no answer', async () => {
    const { client } = await serve(() => undefined);
    const { socket, text, ended } = await client();
    socket.write(`${GET}no request\r\n\r\n`);
    await ended;
    expect(text()).toBe('');
  });

  test('a request that the broker refused because it came slowly is not carried out when it is complete', async () => {
    let isCarriedOut = false;
    const open: ServerResponse[] = [];
    const { connections, client } = await serve((request, response) => {
      open.push(response);
      request.once('end', () => (isCarriedOut = true)).resume();
    });
    const { socket, text, ended } = await client();
    socket.write(POST_HALF);
    await until(() => open.length === 1);
    socket.once('data', () => socket.write('67890'));
    connections.refuse(open[0]?.socket as Socket, WORDS);
    await ended;
    expect(text()).toBe(WORDS);
    expect(isCarriedOut).toBe(false);
  });
});
