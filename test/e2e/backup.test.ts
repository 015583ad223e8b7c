import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { RowmqError, RowmqHttpClient } from '@rowmq/client';
import { EmbeddedServer } from '@rowmq/mysql-server';
import { migrateDatabase } from '@rowmq/store';
import { createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DataFolder } from '../../tools/mysql-server/src/data-folder.js';
import { type AppProcess, freePort, startApp } from '../support/processes.js';
import { serverProgram, startServer, testServer } from '../support/servers.js';
import { eventually } from '../support/wait.js';

/*
 * A physical backup under load, the loss of the server, and a restore. The backup is MySQL's own
 * CLONE. MariaDB's comes with a program that the tests do not unpack.
 */

const QUEUE = 'orders';
const LEASE_SECONDS = 5;
const PRODUCERS = 4;
const CONSUMERS = 3;
const SOME = 300;

let folder: string;
let lost: EmbeddedServer;
const running: { stop(): Promise<unknown> }[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-backup-'));
});
afterAll(async () => {
  for (const one of running.toReversed()) await one.stop();
  await rm(folder, { recursive: true, force: true });
});

/** Calls by the message's body. One that has begun may be carried out before it is confirmed. */
class Ledger {
  readonly enqueuing = new Set<string>();
  readonly enqueued = new Set<string>();
  readonly acking = new Set<string>();
  readonly acked = new Set<string>();

  copy(): Ledger {
    return Object.assign(new Ledger(), {
      enqueuing: new Set(this.enqueuing),
      enqueued: new Set(this.enqueued),
      acking: new Set(this.acking),
      acked: new Set(this.acked),
    });
  }
}

async function startBroker(databaseUrl: string): Promise<AppProcess & { client: RowmqHttpClient }> {
  const port = await freePort();
  const broker = await startApp('broker', { ROWMQ_DATABASE_URL: databaseUrl, ROWMQ_PORT: String(port) });
  running.push(broker);
  const client = new RowmqHttpClient({ url: `http://127.0.0.1:${port}` });
  running.push({ stop: async () => client.close() });
  return { ...broker, client };
}

/** Takes messages and acks them, until it is stopped. Rests while it may take none. */
async function consume(
  client: RowmqHttpClient,
  signal: AbortSignal,
  onAcked: (body: string) => void,
  onAcking: (body: string) => void = () => undefined,
  mayTake: () => boolean = () => true,
): Promise<void> {
  while (!signal.aborted) {
    if (!mayTake()) {
      await setTimeout(20);
      continue;
    }
    const { messages } = await client.dequeue(QUEUE, { maxMessages: 10, waitSeconds: 1 });
    if (messages.length === 0) continue;
    for (const { body } of messages) onAcking(body);
    const { acked } = await client.ack(QUEUE, { receipts: messages.map(({ receipt }) => receipt) });
    for (const { receipt, body } of messages) if (acked.includes(receipt)) onAcked(body);
  }
}

async function produce(client: RowmqHttpClient, name: string, signal: AbortSignal, ledger: Ledger): Promise<void> {
  for (let number = 0; !signal.aborted; number += 1) {
    const bodies = Array.from({ length: 5 }, (_, index) => `${name}/${number}/${index}`);
    for (const body of bodies) ledger.enqueuing.add(body);
    try {
      await client.enqueue(QUEUE, { messages: bodies.map((body) => ({ body })) });
    } catch (error) {
      // Nothing was stored.
      if (error instanceof RowmqError && error.code === 'overloaded') continue;
      throw error;
    }
    for (const body of bodies) ledger.enqueued.add(body);
  }
}

test.runIf(testServer().kind === 'mysql')(
  'after a restore, each message is as it was at the time of the backup: none is lost, none is doubled',
  { timeout: 240_000 },
  async () => {
    lost = await startServer({ dataDir: join(folder, 'lost') });
    running.push(lost);
    await migrateDatabase(lost.url);
    const broker = await startBroker(lost.url);
    const { client } = broker;
    await client.createQueue(QUEUE, { leaseSeconds: LEASE_SECONDS });

    const stopping = new AbortController();
    const ledger = new Ledger();
    /** The consumers rest at so many acks. The backup then finds messages however long it takes. */
    let mostAcks = Infinity;
    const load = Promise.all([
      ...Array.from({ length: PRODUCERS }, async (_, index) => produce(client, `p${index}`, stopping.signal, ledger)),
      consume(
        client,
        stopping.signal,
        (body) => ledger.acked.add(body),
        (body) => ledger.acking.add(body),
        () => ledger.acking.size < mostAcks && ledger.enqueued.size > ledger.acking.size + SOME,
      ),
    ]);
    const isBeyond = (before: Ledger) => (): boolean =>
      ledger.enqueued.size > before.enqueued.size + SOME && ledger.acked.size > before.acked.size + SOME / 10;
    await eventually('there is load', isBeyond(new Ledger()), 30_000);

    const admin = await createConnection(lost.url);
    await admin.query("INSTALL PLUGIN clone SONAME 'mysql_clone.so'");
    const restored = new DataFolder(join(folder, 'restored'), 'mysql');
    await restored.create();
    mostAcks = ledger.acking.size + SOME / 2;
    const before = ledger.copy();
    await admin.query(`CLONE LOCAL DATA DIRECTORY = '${restored.data}'`);
    const after = ledger.copy();
    mostAcks = Infinity;
    admin.destroy();
    await eventually('there is load after the backup', isBeyond(after), 30_000);
    stopping.abort();
    await load;
    await broker.kill();
    await lost.kill();

    const server = await EmbeddedServer.start({
      program: await serverProgram(),
      dataDir: join(folder, 'restored'),
      bufferPoolMegabytes: 128,
    });
    running.push(server);
    const { client: next } = await startBroker(server.url);
    const received = new Map<string, number>();
    const drained = new AbortController();
    const consumers = Promise.all(
      Array.from({ length: CONSUMERS }, async () =>
        consume(next, drained.signal, (body) => received.set(body, (received.get(body) ?? 0) + 1)),
      ),
    );
    await eventually(
      'the queue is empty',
      async () => {
        const { ready, delayed, leased } = (await next.getQueue(QUEUE)).stats;
        return received.size > 0 && ready + delayed + leased === 0;
      },
      60_000,
    );
    drained.abort();
    await consumers;

    const owed = [...before.enqueued].filter((body) => !after.acking.has(body));
    const late = [...ledger.enqueued].filter((body) => !after.enqueuing.has(body));
    expect(owed.length).toBeGreaterThan(SOME / 3);
    expect(owed.some((body) => ledger.acked.has(body))).toBe(true);
    expect({
      lost: owed.filter((body) => !received.has(body)),
      settledBefore: [...before.acked].filter((body) => received.has(body)),
      enqueuedAfter: late.filter((body) => received.has(body)),
      doubled: [...received].filter(([, times]) => times > 1),
    }).toEqual({ lost: [], settledBefore: [], enqueuedAfter: [], doubled: [] });
  },
);
