import { once } from 'node:events';
import { expect, test } from 'vitest';
import { Api, useBroker } from '../support/api.js';
import { freePort, startApp } from '../support/processes.js';
import { openSocket, postBytes } from '../support/raw-http.js';
import { eventually } from '../support/wait.js';

/** Divides the two minutes after which a broker closes a connection without traffic. */
const HASTE = 24;
const IN_HASTE = `data:text/javascript,${encodeURIComponent(`
  import { Server } from 'node:http';
  const { setTimeout } = Server.prototype;
  Server.prototype.setTimeout = function (ms) { return setTimeout.call(this, ms / ${HASTE}); };
`)}`;

const shared = useBroker();

test('the broker hangs up on a consumer that does not read its answers, and releases their leases', async () => {
  const queue = await shared.newQueue();
  // As JSON it is six times as large. All answers together are more than a socket's buffers hold.
  const body = '\u0001'.repeat(4096);
  for (let batch = 0; batch < 10; batch += 1) await queue.enqueue(...Array.from({ length: 100 }, () => body));

  const port = await freePort();
  const env = { ROWMQ_DATABASE_URL: shared.broker.database.url, ROWMQ_PORT: String(port) };
  const hasty = await startApp('broker', env, { preload: IN_HASTE });
  const api = new Api(`http://127.0.0.1:${port}`);
  const socket = await openSocket(api.url);
  socket.pause();
  socket.write(postBytes(`${queue.messagesPath}/dequeue`, { maxMessages: 100, leaseSeconds: 43_200 }).repeat(10));
  await eventually(
    'it is given back',
    async () => (await api.metric(`rowmq_messages_total{event="released",queue="${queue.name}"}`)) >= 100,
    30_000,
  );
  const closed = once(socket, 'close');
  socket.resume();
  await closed;
  expect(await queue.dequeueOne()).toMatchObject({ body, receiveCount: 1 });
  await hasty.stop();
});
