import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { type LeasedMessage, LIMITS, type QueueStats } from '@rowmq/contract';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Api, newQueueName, type QueueApi } from '../support/api.js';
import { commits, type CuttingProxy, startCuttingProxy } from '../support/cutting-proxy.js';
import { type Broker, createMigratedDatabase, startBroker } from '../support/processes.js';
import { openSocket, postBytes } from '../support/raw-http.js';
import type { TestDatabase } from '../support/servers.js';
import { eventually } from '../support/wait.js';

/*
 * A consumer that waits gets a message by the transaction that stores it. The tests park consumers,
 * enqueue, and count hand-offs by the broker's metrics.
 */

/** Longer than anything that a test waits for. */
const WAIT_SECONDS = LIMITS.waitSeconds;

let database: TestDatabase;
/** A broker with an undisturbed connection to the database. */
let survivor: Broker;

beforeAll(async () => {
  database = await createMigratedDatabase();
  survivor = await startBroker({ database });
});
afterAll(async () => {
  await survivor.stop();
  await database.drop();
});

const bodies = (messages: { body: string }[]): string[] => messages.map(({ body }) => body);

const CLAIMS = 'rowmq_batch_duration_seconds_count{verb="dequeue"}';
/** The broker's claims when the queue was new. */
const claimsBefore = new Map<QueueApi, number>();

async function newQueue(broker: Broker = survivor): Promise<QueueApi> {
  const queue = new Api(broker.url).queue(newQueueName());
  await queue.put();
  claimsBefore.set(queue, await queue.api.metric(CLAIMS));
  return queue;
}

/** The messages of this queue that this broker has handed off. */
async function handedOff({ api, name }: QueueApi): Promise<number> {
  return api.metric(`rowmq_messages_total{event="handed-off",queue="${name}"}`);
}

/** Waits until so many consumers wait on the broker, and a claim has found their queue empty. */
async function parked(queue: QueueApi, consumers: number): Promise<void> {
  const { api } = queue;
  await eventually(`${consumers} consumers are parked`, async () => {
    const isWaiting = (await api.metric('rowmq_waiting_consumers')) === consumers;
    return isWaiting && (await api.metric(CLAIMS)) > (claimsBefore.get(queue) ?? 0);
  });
}

/** Waits until the queue has these counts. A broker reuses a count for a while. */
async function counts(queue: QueueApi, expected: Partial<QueueStats>): Promise<void> {
  const names = Object.keys(expected) as (keyof QueueStats)[];
  await eventually(`the counts are ${JSON.stringify(expected)}`, async () => {
    const { stats } = await queue.get();
    return names.every((name) => stats[name] === expected[name]);
  });
}

describe('a message that finds a consumer waiting', () => {
  test('is handed off to it without a claim, under a lease that holds', async () => {
    const queue = await newQueue();
    const consumers = [1, 2, 3].map(async () => queue.dequeueOne({ waitSeconds: WAIT_SECONDS, leaseSeconds: 60 }));
    await parked(queue, 3);
    const claims = await queue.api.metric(CLAIMS);
    const ids = await queue.enqueue('a', 'b', 'c');
    const messages = await Promise.all(consumers);
    expect(bodies(messages).toSorted()).toEqual(['a', 'b', 'c']);
    expect(new Set(messages.map(({ id }) => id))).toEqual(new Set(ids));
    expect(messages.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1]);
    expect(await handedOff(queue)).toBe(3);
    expect(await queue.api.metric(CLAIMS)).toBe(claims);
    await counts(queue, { ready: 0, leased: 3 });
    const receipts = messages.map(({ receipt }) => receipt);
    const { extended } = await queue.extend(receipts, 30);
    expect(extended).toHaveLength(3);
    expect((await queue.ack(...receipts)).failed).toEqual([]);
    await counts(queue, { ready: 0, leased: 0 });
  });

  test('is handed off again to a consumer that came back, which needs no claim either', async () => {
    const queue = await newQueue();
    const consume = async (): Promise<string> => {
      const { body, receipt } = await queue.dequeueOne({ waitSeconds: WAIT_SECONDS });
      await queue.ack(receipt);
      return body;
    };
    for (let round = 0; round < 20; round += 1) {
      const consumer = consume();
      if (round === 0) await parked(queue, 1);
      await queue.enqueue(String(round));
      expect(await consumer).toBe(String(round));
    }
    // Some rounds may store the message before the consumer is back.
    expect(await handedOff(queue)).toBeGreaterThan(0);
  });

  test('is leased for as long as its consumer asked for, within one batch', async () => {
    const queue = await newQueue();
    const lengths = [5, 600];
    const consumers = lengths.map(async (leaseSeconds) =>
      queue.dequeueOne({ waitSeconds: WAIT_SECONDS, leaseSeconds }),
    );
    await parked(queue, 2);
    await queue.enqueue('a', 'b');
    const [short, long] = await Promise.all(consumers);
    expect(await handedOff(queue)).toBe(2);
    const [from, to] = [short, long].map((message) => Date.parse(message?.leaseExpiresAt ?? ''));
    expect((to as number) - (from as number)).toBe(595_000);
  });

  test('is not handed off beyond what the consumer asked for: the most urgent go, the rest is ready', async () => {
    const queue = await newQueue();
    const consumer = queue.dequeue({ maxMessages: 2, waitSeconds: WAIT_SECONDS });
    await parked(queue, 1);
    await queue.enqueue(
      ...[4, 9, 0, 7, 4].map((priority, index) => ({ body: `${index} of priority ${priority}`, priority })),
    );
    expect(bodies(await consumer)).toEqual(['1 of priority 9', '3 of priority 7']);
    expect(await handedOff(queue)).toBe(2);
    await counts(queue, { ready: 3, leased: 2 });
    expect(bodies(await queue.dequeue({ maxMessages: 10, waitSeconds: 5 }))).toEqual([
      '0 of priority 4',
      '4 of priority 4',
      '2 of priority 0',
    ]);
  });

  test('is ready again when the lease of its hand-off runs out, and the receipt is void', async () => {
    const queue = await newQueue();
    const consumer = queue.dequeueOne({ waitSeconds: WAIT_SECONDS, leaseSeconds: 1 });
    await parked(queue, 1);
    await queue.enqueue('twice');
    const first = await consumer;
    expect(await handedOff(queue)).toBe(1);
    expect(await queue.dequeueOne({ waitSeconds: WAIT_SECONDS })).toMatchObject({ body: 'twice', receiveCount: 2 });
    expect(await queue.ack(first.receipt)).toMatchObject({ acked: [], failed: [{ code: 'lease-lost' }] });
  });

  test('is not handed off before its delay is over', async () => {
    const queue = await newQueue();
    const consumer = queue.dequeueOne({ waitSeconds: WAIT_SECONDS });
    await parked(queue, 1);
    const from = performance.now();
    await queue.enqueue({ body: 'later', delaySeconds: 1 });
    expect(await consumer).toMatchObject({ body: 'later', receiveCount: 1 });
    expect(performance.now() - from).toBeGreaterThan(1000);
    expect(await handedOff(queue)).toBe(0);
  });

  test('is not handed off while the queue is paused, on whichever broker that was done', async () => {
    const other = await startBroker({ database });
    try {
      for (const admin of [survivor, other]) {
        const queue = await newQueue();
        const consumer = queue.dequeueOne({ waitSeconds: WAIT_SECONDS });
        await parked(queue, 1);
        const elsewhere = new Api(admin.url).queue(queue.name);
        await elsewhere.admin('pause');
        await queue.enqueue('held back');
        await counts(queue, { ready: 1, leased: 0 });
        await elsewhere.admin('resume');
        expect(await consumer).toMatchObject({ body: 'held back', receiveCount: 1 });
        expect(await handedOff(queue)).toBe(0);
      }
    } finally {
      await other.stop();
    }
  });
});

describe('a consumer that waits at a broker while another broker deletes and creates its queue', () => {
  let other: Broker;

  beforeAll(async () => {
    other = await startBroker({ database });
  });
  afterAll(async () => other.stop());

  test.each([
    ['its own broker', () => survivor],
    ['the other broker', () => other],
  ])(
    'gets a message of the new queue that %s stores, unless it is told that its queue is gone',
    async (_, producer) => {
      const queue = await newQueue();
      await queue.enqueue('of the old queue');
      await queue.dequeueOne();
      const consumer = queue.request<{ messages: LeasedMessage[] }>('dequeue', { waitSeconds: WAIT_SECONDS });
      await parked(queue, 1);
      const elsewhere = new Api(other.url).queue(queue.name);
      expect((await elsewhere.api.delete(`${elsewhere.adminPath}?force=true`)).status).toBe(204);
      await elsewhere.put();
      const [id] = await new Api(producer().url).queue(queue.name).enqueue('of the new queue');
      const { status, json } = await consumer;
      expect(status).toBeOneOf([200, 404]);
      const messages = status === 200 ? json.messages : [await queue.dequeueOne({ waitSeconds: WAIT_SECONDS })];
      expect(messages).toMatchObject([{ id, body: 'of the new queue', receiveCount: 1 }]);
      expect(await queue.ack(messages[0]?.receipt ?? '')).toMatchObject({ failed: [] });
      await counts(queue, { ready: 0, leased: 0, delayed: 0 });
    },
  );
});

describe('a hand-off whose COMMIT gets no answer', () => {
  let proxy: CuttingProxy;
  let broker: Broker;

  beforeAll(async () => {
    proxy = await startCuttingProxy(database.url);
    broker = await startBroker({ database: { ...database, url: proxy.url } });
  });
  afterAll(async () => {
    await broker.stop();
    await proxy.close();
  });

  test.each(['before', 'late', 'after'] as const)(
    'delivers each message once, whether the server has executed it or not (%s)',
    async (when) => {
      const queue = await newQueue(broker);
      const consumers = [1, 2].map(async () => queue.dequeueOne({ waitSeconds: WAIT_SECONDS, leaseSeconds: 60 }));
      await parked(queue, 2);
      const cuts = proxy.cuts();
      proxy.cutAt(commits, when);
      await queue.enqueue('a', 'b', 'c');
      expect(proxy.cuts()).toBe(cuts + 1);
      const messages = await Promise.all(consumers);
      messages.push(await queue.dequeueOne({ leaseSeconds: 60 }));
      expect(bodies(messages).toSorted()).toEqual(['a', 'b', 'c']);
      expect(messages.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1]);
      expect((await queue.ack(...messages.map(({ receipt }) => receipt))).failed).toEqual([]);
      await counts(queue, { ready: 0, leased: 0, delayed: 0 });
    },
  );

  test('that never succeeds hands nothing off; the consumers are parked again in their order', async () => {
    const queue = await newQueue(broker);
    const served: string[] = [];
    const consume = async (name: string): Promise<void> => {
      const { body } = await queue.dequeueOne({ waitSeconds: WAIT_SECONDS });
      served.push(`${name}: ${body}`);
    };
    const consumers = [consume('first')];
    await parked(queue, 1);
    consumers.push(consume('second'));
    await parked(queue, 2);
    const claims = await queue.api.metric(CLAIMS);
    proxy.cutAt(commits, 'before', 1000);
    expect(await queue.request('enqueue', { messages: [{ body: 'lost' }, { body: 'lost' }] })).toMatchObject({
      status: 503,
    });
    proxy.cutAt(commits, 'before', 0);
    expect(served).toEqual([]);
    expect(await queue.api.metric('rowmq_waiting_consumers')).toBe(2);
    // The poll was due while nobody was parked, so a claim looks before the next hand-off.
    await eventually('the queue is known to be empty', async () => (await queue.api.metric(CLAIMS)) > claims);
    await queue.enqueue('1');
    await consumers[0];
    await queue.enqueue('2');
    await consumers[1];
    expect(served).toEqual(['first: 1', 'second: 2']);
    expect(await handedOff(queue)).toBe(2);
  });

  test('because the broker was killed after it loses nothing: the lease runs out', async () => {
    const doomed = await startBroker({ database: { ...database, url: proxy.url } });
    const queue = await newQueue(doomed);
    const outcomes = [
      queue.request('dequeue', { waitSeconds: WAIT_SECONDS, leaseSeconds: 1 }).catch(() => 'no answer'),
    ];
    await parked(queue, 1);
    proxy.cutAt(commits, 'held');
    outcomes.push(queue.request('enqueue', { messages: [{ body: 'survives' }] }).catch(() => 'no answer'));
    const afterwards = new Api(survivor.url).queue(queue.name);
    await eventually('it is stored', async () => {
      const { leased, ready } = (await afterwards.get()).stats;
      // The lease may have run out.
      return leased + ready === 1;
    });
    await doomed.kill();
    expect(await Promise.all(outcomes)).toEqual(['no answer', 'no answer']);
    expect(await afterwards.dequeueOne({ waitSeconds: WAIT_SECONDS })).toMatchObject({
      body: 'survives',
      receiveCount: 2,
    });
  });
});

describe('a hand-off whose COMMIT takes its time', () => {
  let proxy: CuttingProxy;
  let broker: Broker;

  beforeAll(async () => {
    proxy = await startCuttingProxy(database.url);
    broker = await startBroker({ database: { ...database, url: proxy.url } });
  });
  afterAll(async () => {
    await broker.stop();
    await proxy.close();
  });

  test('to a consumer that has hung up meanwhile is released, as if never received', async () => {
    const queue = await newQueue(broker);
    const vanishing = await openSocket(broker.url);
    vanishing.write(postBytes(`${queue.messagesPath}/dequeue`, { waitSeconds: WAIT_SECONDS, leaseSeconds: 600 }));
    await parked(queue, 1);
    proxy.cutAt(commits, 'held');
    const stored = queue.enqueue('for somebody else');
    const afterwards = new Api(survivor.url).queue(queue.name);
    await eventually('it is stored under a lease', async () => (await afterwards.get()).stats.leased === 1);
    vanishing.destroy();
    await once(vanishing, 'close');
    // Nothing shows that the broker has heard of it.
    await sleep(500);
    proxy.letGo();
    await stored;
    expect(await afterwards.dequeueOne({ waitSeconds: WAIT_SECONDS })).toMatchObject({
      body: 'for somebody else',
      receiveCount: 1,
    });
    const released = `rowmq_messages_total{event="released",queue="${queue.name}"}`;
    await eventually('the release is counted', async () => (await queue.api.metric(released)) === 1);
  });

  // The last test: it stops the broker.
  test('is answered by a broker that is told to stop meanwhile, to producer and consumer', async () => {
    const queue = await newQueue(broker);
    const consumers = [1, 2].map(async () => queue.dequeue({ waitSeconds: WAIT_SECONDS, leaseSeconds: 600 }));
    await parked(queue, 2);
    proxy.cutAt(commits, 'held');
    const stored = queue.enqueue('the last');
    const afterwards = new Api(survivor.url).queue(queue.name);
    await eventually('it is stored under a lease', async () => (await afterwards.get()).stats.leased === 1);
    const stopped = broker.stop();
    await eventually('it stops', () => broker.output().includes('stopping: SIGTERM'));
    proxy.letGo();
    const [served, idle] = (await Promise.all(consumers)).toSorted((one, other) => other.length - one.length);
    expect(idle).toEqual([]);
    expect(bodies(served ?? [])).toEqual(['the last']);
    expect(await stored).toHaveLength(1);
    await stopped;
    expect((await afterwards.ack(served?.[0]?.receipt ?? '')).failed).toEqual([]);
  });
});
