import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { isRunning } from '@rowmq/mysql-server';
import { describe, expect, test } from 'vitest';
import { cheapestKind } from '../support/servers.js';
import { useStart } from '../support/start.js';

const SLOW = 600_000;
// start.test.ts initialises a data folder, and runs `npm start` itself, which builds RowMQ first.
const { launch, running } = useStart('launcher', { kind: cheapestKind(), isInitialised: true });

describe('the launcher of npm start', { timeout: SLOW }, () => {
  test('recovers from a SIGKILL of the launcher, on one database server', async () => {
    const first = await running();
    const id = await first.enqueue('before the kill');
    const processes = await first.processes();
    first.signal('SIGKILL');

    const second = await launch().ready();
    expect(await second.servers()).toHaveLength(1);
    expect(await Promise.all(processes.map((one) => isRunning(one)))).toEqual([false, false, false, false]);
    expect(await second.waiting()).toContain(id);
  });

  test('starts a killed database and a killed broker again', async () => {
    const rowmq = await running();
    const id = await rowmq.enqueue('before the kills');

    const [server] = await rowmq.servers();
    process.kill(server!.pid, 'SIGKILL');
    await expect.poll(async () => isRunning(server!), { timeout: 60_000 }).toBe(false);
    await expect.poll(async () => (await rowmq.servers()).length, { timeout: 60_000 }).toBe(1);
    await expect.poll(() => rowmq.isReady(), { timeout: 60_000 }).toBe(true);
    expect(await rowmq.waiting()).toContain(id);

    const { broker } = await rowmq.apps();
    process.kill(broker!.pid, 'SIGKILL');
    const replacement = async () => (await rowmq.apps())['broker']?.pid ?? broker!.pid;
    await expect.poll(replacement, { timeout: 60_000 }).not.toBe(broker!.pid);
    await expect.poll(() => rowmq.isReady(), { timeout: 60_000 }).toBe(true);
    expect(await rowmq.waiting()).toContain(id);
  });

  test('stops once and in order on Ctrl-C, the database last', async () => {
    const rowmq = await running();
    const before = rowmq.output.length;
    // The terminal signals the whole group, and npm passes the same signal on to its child.
    rowmq.signalGroup('SIGINT');
    rowmq.signal('SIGINT');
    expect(await rowmq.exited).toEqual({ code: 0, signal: null });
    expect(rowmq.output).toMatch(/Stopping broker and reaper[^]*Stopping the database/);
    expect(rowmq.output.slice(before)).not.toMatch(/ended unexpectedly|killing/);
    expect(await rowmq.servers()).toEqual([]);
  });

  test('says what to do when the port is in use, and leaves nothing running', async () => {
    const squatter = createServer().listen(0, '127.0.0.1');
    await once(squatter, 'listening');
    const { port } = squatter.address() as AddressInfo;
    try {
      const rowmq = launch(port);
      expect(await rowmq.exited).toEqual({ code: 1, signal: null });
      expect(rowmq.output).toMatch(new RegExp(`Port ${port} .* is taken[^]*ROWMQ_PORT`));
      expect(await rowmq.servers()).toEqual([]);
      expect(await rowmq.apps()).toEqual({});
    } finally {
      await new Promise((done) => squatter.close(done));
    }
  });
});
