import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Api, type QueueApi } from '../support/api.js';
import { type Broker, createMigratedDatabase, startBroker } from '../support/processes.js';
import { openSocket, postBytes } from '../support/raw-http.js';
import type { TestDatabase } from '../support/servers.js';
import { eventually } from '../support/wait.js';

vi.setConfig({ maxConcurrency: 4 });

let database: TestDatabase;
let survivor: Broker;

beforeAll(async () => {
  database = await createMigratedDatabase();
  survivor = await startBroker({ database });
});
afterAll(async () => {
  await survivor.stop();
});

async function startOn(name: string): Promise<{ broker: Broker; queue: QueueApi; afterwards: QueueApi }> {
  const afterwards = new Api(survivor.url).queue(name);
  await afterwards.put();
  const broker = await startBroker({ database });
  return { broker, queue: new Api(broker.url).queue(name), afterwards };
}

/**
 * `stop()` of a broker sends SIGTERM, and fails unless the process then ends by itself with exit
 * code 0.
 */
describe.concurrent('a broker that is told to stop', () => {
  test('answers every waiting consumer with an empty list', async () => {
    const { broker, queue, afterwards } = await startOn('waiters');
    const consumers = Array.from({ length: 50 }, async () => queue.request('dequeue', { waitSeconds: 20 }));
    await eventually('they wait', async () => (await queue.api.metric('rowmq_waiting_consumers')) === 50);
    const from = performance.now();
    const [answers] = await Promise.all([Promise.all(consumers), broker.stop()]);
    for (const { status, json } of answers) expect({ status, json }).toEqual({ status: 200, json: { messages: [] } });
    expect(performance.now() - from).toBeLessThan(15_000);
    await afterwards.enqueue('for somebody else');
    expect(await afterwards.dequeue({ waitSeconds: 5 })).toMatchObject([{ receiveCount: 1 }]);
  });

  test('stops even if clients keep connections open, used or unused', async () => {
    const { broker, queue } = await startOn('idle');
    await Promise.all(Array.from({ length: 10 }, async () => queue.dequeue()));
    const silent = await openSocket(broker.url);
    silent.resume();
    const closed = once(silent, 'close');
    await broker.stop();
    await closed;
    await expect(queue.dequeue()).rejects.toThrow('fetch failed');
  });

  test('answers every request that it has begun, and stores an enqueue if and only if it answers it', async () => {
    const { broker, queue, afterwards } = await startOn('load');
    const answered: string[] = [];
    const unanswered: string[] = [];
    let sent = 0;
    const producers = Array.from({ length: 8 }, async () => {
      for (;;) {
        const body = String((sent += 1));
        const answer = await queue.request('enqueue', { messages: [{ body }] }).catch(() => undefined);
        if (answer?.status === 201) answered.push(body);
        else {
          unanswered.push(body);
          return answer?.status;
        }
      }
    });
    await eventually('the load runs', () => answered.length > 100);
    const stopped = broker.stop();
    const ends = await Promise.all(producers);
    await stopped;
    for (const status of ends) expect(status).toBeOneOf([undefined, 503]);

    const stored: string[] = [];
    for (let messages = await afterwards.dequeue({ maxMessages: 100, leaseSeconds: 600 }); messages.length > 0;) {
      stored.push(...messages.map(({ body }) => body));
      messages = await afterwards.dequeue({ maxMessages: 100, leaseSeconds: 600 });
    }
    expect(stored.toSorted()).toEqual([...new Set(stored)].toSorted());
    expect(answered.filter((body) => !stored.includes(body))).toEqual([]);
    expect(unanswered.filter((body) => stored.includes(body))).toEqual([]);
  });

  test('cuts off no request that was sent, whatever its client knows of the stop', async () => {
    const { broker, queue, afterwards } = await startOn('cut-off');
    const answered: string[] = [];
    const outcomes = new Map<unknown, number>();
    let sent = 0;
    const producers = Array.from({ length: 40 }, async () => {
      for (;;) {
        const body = String((sent += 1));
        const outcome = await queue.request('enqueue', { messages: [{ body }] }).then(
          ({ status }) => status,
          (error: Error) => (error.cause as NodeJS.ErrnoException | undefined)?.code ?? error.message,
        );
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
        // A busy machine left the connection idle for a second, and the request came too late.
        if (outcome === 408) continue;
        if (outcome !== 201) return;
        answered.push(body);
        // Connections are idle, between requests, when the stop comes.
        await sleep(Math.random() * 40);
      }
    });
    await eventually('the load runs', () => answered.length > 400);
    await Promise.all([broker.stop(), ...producers]);
    // Nothing is sent on a connection that is refused.
    expect([...outcomes.keys()].filter((outcome) => outcome !== 408)).toEqual([201, 'ECONNREFUSED']);
    const stored: string[] = [];
    for (let messages = await afterwards.dequeue({ maxMessages: 100 }); messages.length > 0;) {
      stored.push(...messages.map(({ body }) => body));
      messages = await afterwards.dequeue({ maxMessages: 100 });
    }
    expect(stored.toSorted()).toEqual(answered.toSorted());
  });

  test('does not wait for the consumers of a paused queue', async () => {
    const { broker, queue } = await startOn('paused');
    await queue.admin('pause');
    const consumers = Array.from({ length: 5 }, async () => queue.dequeue({ waitSeconds: 20 }));
    await eventually('they wait', async () => (await queue.api.metric('rowmq_waiting_consumers')) === 5);
    await broker.stop();
    expect((await Promise.all(consumers)).flat()).toEqual([]);
  });

  test('does not wait for pipelined requests whose connection broke', async () => {
    const { broker, queue } = await startOn('in-a-row');
    const waiting = async (): Promise<number> => queue.api.metric('rowmq_waiting_consumers');
    const socket = await openSocket(broker.url);
    socket.write(postBytes(`${queue.messagesPath}/dequeue`, { waitSeconds: 20 }).repeat(3));
    await eventually('they wait', async () => (await waiting()) === 3);
    socket.destroy();
    await eventually('they are gone', async () => (await waiting()) === 0);
    const silent = await openSocket(broker.url);
    await broker.stop();
    silent.destroy();
  });
});

describe('a broker that is told to stop while it claims for a consumer who is gone', () => {
  test('releases the claimed messages before it ends', async () => {
    const { broker, queue, afterwards } = await startOn('gone');
    const [id] = await afterwards.enqueue('for somebody else');
    const lock = await createConnection({ uri: database.url });
    const watcher = await createConnection({ uri: database.url });
    // A claim reads packs last, just before its COMMIT.
    await lock.query('LOCK TABLES pack WRITE');
    const socket = await openSocket(broker.url);
    socket.write(postBytes(`${queue.messagesPath}/dequeue`, { leaseSeconds: 43_200 }));
    await eventually('the claim waits', async () => {
      const [rows] = await watcher.query<RowDataPacket[]>(
        "SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND STATE LIKE 'Waiting for%metadata lock'",
      );
      return rows.length > 0;
    });
    socket.destroy();
    const stopped = broker.stop();
    await eventually('it stops', () => broker.output().includes('stopping: SIGTERM'));
    // The server would notice the end of the connection only later.
    await lock.query('UNLOCK TABLES');
    await lock.end();
    await stopped;
    await watcher.end();
    expect(broker.output()).not.toContain('could not release');
    expect(await afterwards.dequeue({ waitSeconds: 5 })).toMatchObject([{ id, receiveCount: 1 }]);
  });
});
