import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Api, newQueueName } from '../support/api.js';
import { createMigratedDatabase, freePort, startApp, type AppProcess } from '../support/processes.js';
import type { TestDatabase } from '../support/servers.js';
import { eventually } from '../support/wait.js';

const NO_POLL = new URL('../support/no-poll.mjs', import.meta.url).href;
/** A killed broker is known for ten seconds, and the others look every three. */
const GONE_MS = 40_000;

/** A broker, and what it says of its hints. */
class PeerBroker extends Api {
  /** The address for hints. */
  readonly hintUrl: string;

  constructor(
    url: string,
    readonly app: AppProcess,
  ) {
    super(url);
    this.hintUrl = /takes hints of other brokers at (http:[^"]+)/.exec(app.output())?.[1] as string;
  }

  async hints(event: 'sent' | 'failed' | 'received' | 'refused'): Promise<number> {
    return this.metric(`rowmq_hints_total{event="${event}"}`);
  }

  async claims(): Promise<number> {
    return this.metric('rowmq_batch_duration_seconds_count{verb="dequeue"}');
  }

  async waiting(): Promise<number> {
    return this.metric('rowmq_waiting_consumers');
  }

  async peers(): Promise<number> {
    return this.metric('rowmq_peers');
  }
}

let database: TestDatabase;
const started: PeerBroker[] = [];

/** Without a poll, a broker hears of messages by hints alone. */
async function startPeer({ hasPoll = false } = {}): Promise<PeerBroker> {
  const port = await freePort();
  const app = await startApp(
    'broker',
    { ROWMQ_DATABASE_URL: database.url, ROWMQ_PORT: String(port) },
    hasPoll ? {} : { preload: NO_POLL },
  );
  const broker = new PeerBroker(`http://127.0.0.1:${port}`, app);
  started.push(broker);
  return broker;
}

async function query<T>(sql: string, values: unknown[] = []): Promise<T[]> {
  const connection = await createConnection({ uri: database.url });
  try {
    const [rows] = await connection.query<RowDataPacket[]>(sql, values);
    return rows as T[];
  } finally {
    await connection.end();
  }
}

async function knowEachOther(...brokers: PeerBroker[]): Promise<void> {
  await eventually('they know each other', async () =>
    (await Promise.all(brokers.map((broker) => broker.peers()))).every((peers) => peers === brokers.length - 1),
  );
}

/**
 * Consumers that wait at a broker. The others have heard that they are parked, unless brokers have
 * just met: the hint that they have heard may be another one.
 */
async function parkAt(broker: PeerBroker, queueName: string, consumers = 1) {
  const others = started.filter((other) => other !== broker);
  const heard = await Promise.all(others.map((other) => other.hints('received')));
  const waits = Array.from({ length: consumers }, async () => broker.queue(queueName).dequeue({ waitSeconds: 20 }));
  for (const [index, other] of others.entries())
    await eventually('the others hear of it', async () => (await other.hints('received')) > (heard[index] as number));
  return waits;
}

beforeAll(async () => {
  database = await createMigratedDatabase();
});
afterAll(async () => {
  await Promise.all(started.map(({ app }) => app.kill()));
});

describe('three brokers without polls', () => {
  let producer: PeerBroker;
  let one: PeerBroker;
  let two: PeerBroker;
  let queueName: string;

  beforeAll(async () => {
    [producer, one, two] = await Promise.all([startPeer(), startPeer(), startPeer()]);
    await knowEachOther(producer, one, two);
  });
  beforeEach(async () => {
    queueName = newQueueName();
    await producer.queue(queueName).put();
  });

  test('hand out a message that another broker stored while the consumer waited', async () => {
    const [wait] = await parkAt(one, queueName);
    const [id] = await producer.queue(queueName).enqueue('from afar');
    expect(await wait).toMatchObject([{ id, body: 'from afar' }]);
  });

  test('make one claim for one message, although consumers wait at two of them', async () => {
    const claims = async (): Promise<number> => (await one.claims()) + (await two.claims());
    const before = await claims();
    const waits = [...(await parkAt(one, queueName)), ...(await parkAt(two, queueName))];
    await eventually('each has found the queue empty', async () => (await claims()) === before + 2);
    await producer.queue(queueName).enqueue('first');
    await Promise.race(waits);
    // A claim in vain for the first message would have come before the claim for the second.
    await producer.queue(queueName).enqueue('second');
    const bodies = (await Promise.all(waits)).map(([message]) => String(message?.body));
    expect(bodies.toSorted()).toEqual(['first', 'second']);
    expect(await claims()).toBe(before + 4);
  });

  test('pass on the messages of one enqueue that the first woken consumers do not want', async () => {
    const waits = [...(await parkAt(one, queueName, 2)), ...(await parkAt(two, queueName))];
    await producer.queue(queueName).enqueue('a', 'b', 'c');
    const bodies = (await Promise.all(waits)).map(([message]) => String(message?.body));
    expect(bodies.toSorted()).toEqual(['a', 'b', 'c']);
  });

  test('wake each other when a message is nacked or released', async () => {
    await producer.queue(queueName).enqueue('again');
    const { id, receipt } = await producer.queue(queueName).dequeueOne();
    const [wait] = await parkAt(one, queueName);
    await producer.queue(queueName).nack([receipt]);
    expect(await wait).toMatchObject([{ id, receiveCount: 2 }]);
  });

  test('wake each other when a paused queue is resumed', async () => {
    await producer.queue(queueName).admin('pause');
    await producer.queue(queueName).enqueue('paused');
    // By then no broker has the settings of before the pause.
    await eventually('it is paused for both', async () => {
      const answers = await Promise.all([one, two].map((broker) => broker.queue(queueName).dequeue()));
      return answers.flat().length === 0;
    });
    const [wait] = await parkAt(one, queueName);
    await producer.queue(queueName).admin('resume');
    expect(await wait).toMatchObject([{ body: 'paused' }]);
  });

  test('refuse a forged hint with 401, and it wakes nobody', async () => {
    const [wait] = await parkAt(one, queueName);
    const send = async (token?: string) =>
      fetch(`${one.hintUrl}/hints`, {
        method: 'POST',
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        body: JSON.stringify({ from: 'forger', ready: [{ queue: queueName, messages: 1 }], parked: [] }),
      });
    const [row] = await query<{ token: string }>('SELECT token FROM broker WHERE url = ?', [one.hintUrl]);
    const token = row?.token as string;
    const [claims, refused] = [await one.claims(), await one.hints('refused')];
    expect((await send()).status).toBe(401);
    expect((await send(`${token.slice(0, -1)}${token.endsWith('x') ? 'y' : 'x'}`)).status).toBe(401);
    expect(await one.hints('refused')).toBe(refused + 2);
    // Hints are worked off in order. One with the right token makes the first and only claim.
    expect((await send(token)).status).toBe(204);
    await eventually('it claims', async () => (await one.claims()) > claims);
    expect(await one.claims()).toBe(claims + 1);
    // A hint is advice: there was no message, so the consumer still waits.
    expect(await one.waiting()).toBe(1);
    await producer.queue(queueName).enqueue('real');
    expect(await wait).toMatchObject([{ body: 'real' }]);
  });

  test('know a broker no longer that was killed, and its consumers’ messages go to others', async () => {
    const killed = await startPeer();
    await knowEachOther(producer, one, two, killed);
    const lost = Promise.allSettled(await parkAt(killed, queueName));
    const [wait] = await parkAt(one, queueName);
    await killed.app.kill();
    started.splice(started.indexOf(killed), 1);
    await lost;
    await producer.queue(queueName).enqueue('found');
    expect(await wait).toMatchObject([{ body: 'found' }]);
    const urls = async () => (await query<{ url: string }>('SELECT url FROM broker')).map(({ url }) => url);
    await eventually('its row is removed', async () => !(await urls()).includes(killed.hintUrl), GONE_MS);
    await eventually('nobody knows it', async () => (await producer.peers()) === 2, GONE_MS);
    const failed = await producer.hints('failed');
    const [next] = await parkAt(two, queueName);
    await producer.queue(queueName).enqueue('next');
    expect(await next).toMatchObject([{ body: 'next' }]);
    expect(await producer.hints('failed')).toBe(failed);
  });

  test('register again when their rows were lost', async () => {
    await query('DELETE FROM broker');
    const urls = async () => (await query<{ url: string }>('SELECT url FROM broker')).map(({ url }) => url);
    await eventually('all are there', async () => (await urls()).length === 3);
    expect((await urls()).toSorted()).toEqual([producer, one, two].map(({ hintUrl }) => hintUrl).toSorted());
  });

  test('unregister when they stop', async () => {
    await two.app.stop();
    started.splice(started.indexOf(two), 1);
    const urls = (await query<{ url: string }>('SELECT url FROM broker')).map(({ url }) => url);
    expect(urls.toSorted()).toEqual([producer, one].map(({ hintUrl }) => hintUrl).toSorted());
  });
});

test('a message whose hint is lost is found by the poll', async () => {
  await Promise.all(started.splice(0).map(({ app }) => app.stop()));
  const consumer = await startPeer({ hasPoll: true });
  // Nobody listens there. The broker itself never reads its own row.
  await query("UPDATE broker SET url = 'http://127.0.0.1:1' WHERE url = ?", [consumer.hintUrl]);
  const producer = await startPeer();
  await knowEachOther(consumer, producer);
  const queue = producer.queue(newQueueName());
  await queue.put();
  const [wait] = await parkAt(consumer, queue.name);
  const failed = await producer.hints('failed');
  await queue.enqueue('found');
  expect(await wait).toMatchObject([{ body: 'found' }]);
  expect(await producer.hints('failed')).toBeGreaterThan(failed);
  expect(await consumer.hints('received')).toBe(0);
});
