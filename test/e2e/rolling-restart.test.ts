import { setTimeout as sleep } from 'node:timers/promises';
import { BrokerUnreachableError, RowmqError, RowmqHttpClient } from '@rowmq/client';
import { expect, test } from 'vitest';
import { Api } from '../support/api.js';
import { type AppProcess, createMigratedDatabase, freePort, startApp } from '../support/processes.js';

const ROUNDS = Number(process.env['ROWMQ_DEPLOYMENT_ROUNDS'] ?? '2');
const QUEUE = 'orders';
const QUIET_MS = 500;

/** A call that may be made again, because its outcome is known: it was not carried out. */
function wasNotDone(error: unknown): boolean {
  if (error instanceof BrokerUnreachableError) return error.outcome === 'not-sent';
  return error instanceof RowmqError && error.code === 'overloaded';
}

test(
  'rolling restarts of two brokers leave no call with an unknown outcome, and lose and double no message',
  { timeout: 120_000 + ROUNDS * 60_000 },
  async () => {
    const database = await createMigratedDatabase();
    const ports = [await freePort(), await freePort()];
    const urls = ports.map((port) => `http://127.0.0.1:${port}`);
    const start = async (index: number): Promise<AppProcess> =>
      startApp('broker', { ROWMQ_DATABASE_URL: database.url, ROWMQ_PORT: String(ports[index]) });
    const brokers = [await start(0), await start(1)];
    await new Api(urls[0] as string).queue(QUEUE).put({ leaseSeconds: 600 });

    const clients: RowmqHttpClient[] = [];
    // Each call is sent once, so that no repeat hides its outcome.
    const newClient = (): RowmqHttpClient => {
      const client = new RowmqHttpClient({ url: urls, retries: 0 });
      clients.push(client);
      return client;
    };
    const unknown: unknown[] = [];
    const confirmed = new Set<string>();
    const received = new Map<string, number>();
    let repeated = 0;
    let isProducing = true;
    let isConsuming = true;

    /** Makes a call until it is carried out. An unknown outcome is recorded, and ends it. */
    const carryOut = async <T>(call: () => Promise<T>): Promise<T | undefined> => {
      for (;;) {
        try {
          return await call();
        } catch (error) {
          if (!wasNotDone(error)) {
            unknown.push(error);
            return undefined;
          }
          repeated += 1;
          await sleep(20 + Math.random() * 30);
        }
      }
    };
    let made = 0;
    const producers = Array.from({ length: 8 }, async () => {
      const client = newClient();
      while (isProducing) {
        const body = String((made += 1));
        if (await carryOut(() => client.enqueue(QUEUE, { messages: [{ body }] }))) confirmed.add(body);
        await sleep(Math.random() * 80);
      }
    });
    const consumers = Array.from({ length: 6 }, async () => {
      const client = newClient();
      let ack: string[] = [];
      while (isConsuming || ack.length > 0) {
        const carried = ack;
        const answer = await carryOut(() =>
          client.dequeue(QUEUE, { maxMessages: 10, waitSeconds: isConsuming ? 1 : 0, ack: carried }),
        );
        for (const { body } of answer?.messages ?? []) received.set(body, (received.get(body) ?? 0) + 1);
        for (const failed of answer?.failed ?? []) unknown.push(failed);
        ack = answer?.messages.map(({ receipt }) => receipt) ?? [];
      }
    });

    for (let round = 0; round < ROUNDS; round += 1)
      for (const index of [0, 1]) {
        await brokers[index]!.stop();
        brokers[index] = await start(index);
        // The other broker stops when clients have come back to this one.
        await sleep(QUIET_MS);
      }
    isProducing = false;
    await Promise.all(producers);
    const queue = new Api(urls[0] as string).queue(QUEUE);
    for (let depth = 1; depth > 0; await sleep(50)) depth = (await queue.get()).stats.ready;
    isConsuming = false;
    await Promise.all(consumers);
    for (const client of clients) await client.close();
    for (const broker of brokers) await broker.stop();

    const lost = [...confirmed].filter((body) => !received.has(body));
    const doubled = [...received].filter(([, times]) => times > 1);
    console.log(
      `Rolling restarts: ${ROUNDS}. Messages confirmed: ${confirmed.size}, received: ${received.size}, calls refused and made again: ${repeated}. ` +
        `Lost: ${lost.length}, unknown outcomes: ${unknown.length}, received twice: ${doubled.length}.`,
    );
    expect(unknown).toEqual([]);
    expect(repeated).toBeGreaterThan(0);
    expect(confirmed.size).toBeGreaterThan(100 * ROUNDS);
    expect(lost).toEqual([]);
    expect(doubled).toEqual([]);
  },
);
