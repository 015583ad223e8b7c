import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Api, type QueueApi } from '../support/api.js';
import { HonestService } from '../support/honest-service.js';
import { type Broker, startBroker } from '../support/processes.js';
import { memoryOf, socketsOf } from '../support/process-facts.js';
import { openSocket, postBytes } from '../support/raw-http.js';
import { eventually } from '../support/wait.js';

/*
 * Clients who mean harm to one broker, while a service works with another queue of it. The service
 * must lose nothing, get nothing twice, and get its answers. Afterwards nothing may be left of the
 * others: no memory, no socket, no consumer that waits, no lease. Other tests look at each answer
 * to bad bytes (http-edges.test.ts), and at large bodies that nobody reads (large-bodies.test.ts).
 */

const MIB = 1024 * 1024;
const LARGE = 10 * MIB;
/** Hundreds of megabytes would be left if the broker kept what hostile clients send or ask for. */
const MOST_MIB = 700;
/** The system drops connections if too many wait for their acceptance. */
const AT_ONCE = 50;
const SLOW = { timeout: 240_000 };

let broker: Broker;
let api: Api;
let service: HonestService;
/** The queue of the hostile clients. */
let victim: QueueApi;
const enqueued: string[] = [];
const open = new Set<Socket>();
const samples: number[] = [];
let sampling: NodeJS.Timeout;
let socketsBefore: number;

beforeAll(async () => {
  broker = await startBroker();
  api = new Api(broker.url);
  victim = api.queue('victim');
  await victim.put({ leaseSeconds: 2 });
  await api.queue('honest').put();
  service = new HonestService(broker.url, 'honest');
  await service.goesOn();
  socketsBefore = await socketsOf(broker.pid);
  sampling = setInterval(() => void memoryOf(broker.pid).then((mib) => samples.push(mib)), 250);
});
afterAll(async () => {
  clearInterval(sampling);
  for (const socket of open) socket.destroy();
  await broker.stop();
});

/** A connection of a hostile client, who does not read unless the test does. */
async function attack(...bytes: string[]): Promise<Socket> {
  const socket = await openSocket(broker.url);
  open.add(socket);
  socket.once('close', () => open.delete(socket));
  socket.pause();
  for (const part of bytes) socket.write(part);
  return socket;
}

/** Reads, and returns what has come so far. */
function reading(socket: Socket): () => string {
  let answer = '';
  socket.on('data', (bytes: Buffer) => (answer += bytes.toString('latin1')));
  socket.resume();
  return () => answer;
}

/** Connects all of them, and then sends. */
async function attackAll(count: number, bytesOf: (index: number) => string): Promise<Socket[]> {
  const sockets: Socket[] = [];
  while (sockets.length < count) {
    const next = Math.min(AT_ONCE, count - sockets.length);
    sockets.push(...(await Promise.all(Array.from({ length: next }, async () => attack()))));
  }
  for (const [index, socket] of sockets.entries()) socket.write(bytesOf(index));
  return sockets;
}

async function feedVictim(count: number): Promise<void> {
  for (let sent = 0; sent < count; sent += 100)
    enqueued.push(...(await victim.enqueue(...Array.from({ length: 100 }, () => 'x'.repeat(1000)))));
}

const restPoll = () => postBytes(`${victim.messagesPath}/dequeue`, { waitSeconds: 20, maxMessages: 1 });

function form(path: string, members: Record<string, string>): string {
  const body = new URLSearchParams(members).toString();
  return `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}

const sqsPoll = () =>
  form('/000000000000/victim', { Action: 'ReceiveMessage', WaitTimeSeconds: '20', VisibilityTimeout: '2' });

const waiting = async (): Promise<number> => api.metric('rowmq_waiting_consumers');

/** Every path that takes a body, of REST and of SQS, with the types of its body. */
async function postPaths(): Promise<[method: string, path: string, type: string][]> {
  const { json } = await api.get<{ paths: Record<string, Record<string, unknown>> }>('/openapi.json');
  const rest = Object.entries(json.paths).flatMap(([path, calls]) =>
    Object.keys(calls)
      .filter((method) => method === 'post' || method === 'put')
      .map((method): [string, string, string] => [
        method.toUpperCase(),
        path.replaceAll('{queue}', 'victim').replaceAll(/\{\w+\}/g, 'x'),
        'application/json',
      ]),
  );
  const types = ['application/x-amz-json-1.0', 'application/x-www-form-urlencoded'];
  const sqs = types.flatMap((type) =>
    ['/', '/000000000000/victim', '/queue/victim'].map((path): [string, string, string] => ['POST', path, type]),
  );
  return [...rest, ...sqs];
}

/** Sends a body of 10 MB, and returns the status, or 0 if the broker hung up. */
async function sendLarge(method: string, path: string, type: string, isChunked: boolean): Promise<number> {
  const framing = isChunked ? 'Transfer-Encoding: chunked' : `Content-Length: ${LARGE}`;
  const socket = await attack(
    `${method} ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: ${type}\r\n${framing}\r\n\r\n`,
  );
  const answer = reading(socket);
  const piece = Buffer.alloc(64 * 1024, 'x');
  const part = isChunked ? Buffer.concat([Buffer.from('10000\r\n'), piece, Buffer.from('\r\n')]) : piece;
  for (let sent = 0; sent < LARGE && !socket.destroyed; sent += piece.length)
    if (!socket.write(part)) await Promise.race([once(socket, 'drain'), once(socket, 'close')]);
  if (isChunked) socket.write('0\r\n\r\n');
  await eventually('it is answered', () => answer().includes('\r\n\r\n') || socket.destroyed, 60_000);
  socket.destroy();
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer())?.[1] ?? 0);
}

describe.sequential('while a service works with the broker', () => {
  /** They send a byte a second of a head or of a body, or nothing at all. */
  let slow: Socket[];
  let dripping: NodeJS.Timeout;

  test('300 clients begin to send as slowly as they can', SLOW, async () => {
    const head = `POST ${victim.messagesPath} HTTP/1.1\r\nHost: 127.0.0.1\r\nX: `;
    const body = `POST ${victim.messagesPath} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{`;
    slow = await attackAll(300, (index) => [head, body, ''][index % 3] as string);
    dripping = setInterval(() => {
      for (const [index, socket] of slow.entries()) if (index % 3 < 2 && !socket.destroyed) socket.write(' ');
    }, 1000);
    await service.goesOn();
    await eventually('they are accepted', async () => (await socketsOf(broker.pid)) >= socketsBefore + 300);
    expect(open.size).toBe(300);
  });

  test('no path takes a body of 10 MB, with or without its length', SLOW, async () => {
    const paths = await postPaths();
    expect(paths.length).toBeGreaterThan(30);
    for (const isChunked of [false, true]) {
      for (let first = 0; first < paths.length; first += 6) {
        const some = paths.slice(first, first + 6);
        const statuses = await Promise.all(
          some.map(async ([method, path, type]) => sendLarge(method, path, type, isChunked)),
        );
        const wrong = some.filter((_, index) => statuses[index] !== 0 && !String(statuses[index]).startsWith('4'));
        expect(wrong, `${statuses.join(' ')} ${isChunked}`).toEqual([]);
      }
      await service.goesOn();
    }
  });

  test.each<[string, string]>([
    ['a length that is no number', 'Content-Length: abc\r\n\r\nhello'],
    ['a negative length', 'Content-Length: -5\r\n\r\nhello'],
    ['a length beyond any number', `Content-Length: ${'9'.repeat(40)}\r\n\r\nhello`],
    ['two lengths', 'Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello'],
    ['a length and chunks', 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['chunks and something else', 'Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n'],
    ['a chunk of a size that is no number', 'Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n'],
    ['a chunk beyond any size', `Transfer-Encoding: chunked\r\n\r\n${'F'.repeat(30)}\r\nhello`],
    ['a chunk that is longer than it says', 'Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n'],
    ['an endless extension of a chunk', `Transfer-Encoding: chunked\r\n\r\n5;${'x'.repeat(100_000)}`],
    ['an endless trailer', `Transfer-Encoding: chunked\r\n\r\n0\r\nx: ${'x'.repeat(100_000)}`],
    ['a NUL in a header', 'X: a\0b\r\nContent-Length: 0\r\n\r\n'],
    ['a header that is folded', 'X: a\r\n b\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\nhello'],
    ['a space before the colon', 'Content-Length : 5\r\n\r\nhello'],
  ])('a body with %s is refused, and nothing behind it is carried out', SLOW, async (_, rest) => {
    const next = `POST ${victim.adminPath}/pause HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n`;
    for (const [path, type] of [
      [victim.messagesPath, 'application/json'],
      ['/', 'application/x-www-form-urlencoded'],
    ]) {
      const socket = await attack(
        `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: ${type}\r\n${rest}`,
        next.repeat(3),
      );
      const answer = reading(socket);
      await eventually('the broker hangs up', () => socket.destroyed || socket.readableEnded, 60_000);
      socket.destroy();
      expect(answer()).not.toMatch(/^HTTP\/1\.1 [25]/m);
    }
    expect((await victim.get()).paused).toBe(false);
  });

  test('5,000 long polls of one client, who reads half of the answers, hold up nobody else', SLOW, async () => {
    const polls = await attackAll(5000, (index) => (index % 4 < 2 ? restPoll() : sqsPoll()));
    for (const [index, socket] of polls.entries()) if (index % 2 === 0) socket.resume();
    // On a busy machine, the first ones have their empty answers before the last ones wait.
    await eventually('most wait', async () => (await waiting()) >= 2500, 60_000);
    await service.goesOn();
    await feedVictim(1000);
    await service.goesOn();
    for (const socket of polls) socket.destroy();
    await eventually('nobody waits but the service', async () => (await waiting()) <= 2, 60_000);
  });

  test('clients who ask on and on, and never read, cost neither memory nor the service', SLOW, async () => {
    await feedVictim(500);
    const get = 'GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n';
    const dequeue = postBytes(`${victim.messagesPath}/dequeue`, { maxMessages: 100, leaseSeconds: 2 });
    const list = form('/', { Action: 'NoSuchAction' });
    const sockets = await attackAll(120, (index) => ([get, dequeue, list][index % 3] as string).repeat(300));
    await service.goesOn(3 * 40);
    expect(await memoryOf(broker.pid)).toBeLessThan(MOST_MIB);
    for (const socket of sockets) socket.destroy();
    await service.goesOn();
  });

  test(
    'a thousand polls at once on each of a few connections wait a few at a time, and end with these',
    SLOW,
    async () => {
      const sockets = await attackAll(4, () => restPoll().repeat(1000));
      await eventually('some wait', async () => (await waiting()) >= 32, 60_000);
      await service.goesOn();
      // The service has two consumers.
      expect(await waiting()).toBeLessThanOrEqual(34);
      for (const socket of sockets) socket.destroy();
      await eventually('nobody waits but the service', async () => (await waiting()) <= 2, 60_000);
    },
  );

  test('clients who close their half of a connection keep no message', SLOW, async () => {
    const sockets = await attackAll(300, (index) => (index % 2 === 0 ? restPoll() : sqsPoll()));
    for (const socket of sockets) socket.end();
    await feedVictim(100);
    await service.goesOn();
    await eventually('nobody waits but the service', async () => (await waiting()) <= 2, 60_000);
    for (const socket of sockets) socket.destroy();
  });

  test('the broker has hung up on the slow ones', SLOW, async () => {
    for (const socket of slow) socket.resume();
    await eventually('it hangs up', () => slow.every((socket) => socket.destroyed), 150_000);
    clearInterval(dripping);
    await service.goesOn();
  });
});

describe.sequential('afterwards', () => {
  test('the service has lost nothing, and got nothing twice', SLOW, async () => {
    expect(await service.end()).toBeGreaterThan(1000);
  });

  test('the broker has the memory of a broker, and neither sockets nor consumers of theirs', SLOW, async () => {
    clearInterval(sampling);
    expect(Math.max(...samples)).toBeLessThan(MOST_MIB);
    await eventually('nobody waits', async () => (await waiting()) === 0, 60_000);
    await eventually('the sockets are closed', async () => (await socketsOf(broker.pid)) <= socketsBefore + 5, 60_000);
  });

  test('the queue of the hostile clients has no lease, and each of its messages', SLOW, async () => {
    await eventually('all leases are over', async () => (await victim.get()).stats.leased === 0, 60_000);
    const got: string[] = [];
    while (got.length < enqueued.length) {
      const messages = await victim.dequeue({ maxMessages: 100, waitSeconds: 20, leaseSeconds: 600 });
      expect(messages.length, 'none is missing').toBeGreaterThan(0);
      got.push(...messages.map(({ id }) => id));
      await victim.ack(...messages.map(({ receipt }) => receipt));
    }
    expect(got.toSorted()).toEqual(enqueued.toSorted());
  });

  test('the broker stops in its time, although clients neither finish nor read', SLOW, async () => {
    await attackAll(100, (index) =>
      index % 2 === 0 ? restPoll() : 'POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n',
    );
    await sleep(100);
    await broker.stop();
    expect(broker.isAlive()).toBe(false);
  });
});
