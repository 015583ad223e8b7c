import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { readLauncherConfig } from './launcher.config.js';
import { createDemoQueue } from './welcome.js';

const KEY = 'a-key-of-sixteen-characters';

let server: Server;
let answer: { status: number; body: string };
let seen: string[];

beforeEach(async () => {
  seen = [];
  server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url} ${request.headers.authorization}`);
    request.resume();
    response.writeHead(answer.status, { 'content-type': 'application/json' }).end(answer.body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});

afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
});

function create(): Promise<void> {
  const { port } = server.address() as AddressInfo;
  return createDemoQueue(readLauncherConfig({ ROWMQ_PORT: String(port), ROWMQ_ADMIN_KEY: KEY }));
}

test.each([200, 201])('the demo queue is there after one call that is answered with %i', async (status) => {
  answer = { status, body: '{}' };
  await create();
  expect(seen).toEqual([`PUT /v1/admin/queues/demo Bearer ${KEY}`]);
});

test.each([401, 503])('a broker that answers %i instead of creating the demo queue is told of', async (status) => {
  answer = { status, body: '{"detail":"why not"}' };
  await expect(create()).rejects.toThrow(`Could not create the queue demo: ${status} {"detail":"why not"}`);
});
