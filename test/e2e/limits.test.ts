import { RowmqHttpClient } from '@rowmq/client';
import { describe, expect, test } from 'vitest';
import { Api, expectProblem, newQueueName, type QueueApi, useBroker, useOwnBroker } from '../support/api.js';
import { apiWith, newKey } from '../support/keys.js';
import { startBroker } from '../support/processes.js';
import { eventually } from '../support/wait.js';

const shared = useBroker();

const send = (queue: QueueApi, count = 1) =>
  queue.request('enqueue', { messages: Array.from({ length: count }, () => ({ body: 'b' })) });

describe.concurrent('maxMessagesPerSecond', () => {
  test('refuses what comes too soon, says when to come again, and leaves other queues alone', async () => {
    const [queue, other] = [await shared.newQueue({ maxMessagesPerSecond: 10 }), await shared.newQueue()];
    const from = performance.now();
    // Larger than the limit, and admitted as a whole.
    expect((await send(queue, 100)).status).toBe(201);
    const refused = await send(queue);
    const seconds = (performance.now() - from) / 1000;
    expect(expectProblem(refused, 429, 'rate-limited').detail).toContain(`Queue '${queue.name}' takes 10 messages`);
    const retryAfter = Number(refused.headers.get('retry-after'));
    expect(retryAfter).toBeGreaterThanOrEqual(8 - seconds);
    expect(retryAfter).toBeLessThanOrEqual(9);
    expect((await send(other, 100)).status).toBe(201);
    expect((await queue.get()).stats.ready).toBe(100);
    await queue.put({ maxMessagesPerSecond: null });
    expect((await send(queue)).status).toBe(201);
  });

  test('holds for publishes: no queue of the topic gets a message, or all do', async () => {
    const [queue, other] = [await shared.newQueue({ maxMessagesPerSecond: 1 }), await shared.newQueue()];
    const topic = newQueueName();
    await shared.api.put(`/v1/admin/topics/${topic}`);
    await shared.api.put(`/v1/admin/topics/${topic}/subscriptions/${other.name}`);
    const filter = { kind: ['wanted'] };
    await shared.api.put(`/v1/admin/topics/${topic}/subscriptions/${queue.name}`, { filter });
    const publish = async (kind: string) =>
      shared.api.post(`/v1/topics/${topic}/messages`, { messages: [{ body: 'b', headers: { kind } }] });
    expect((await send(queue, 20)).status).toBe(201);
    expectProblem(await publish('wanted'), 429, 'rate-limited');
    expect((await publish('other')).status).toBe(201);
    expect([(await queue.get()).stats.ready, (await other.get()).stats.ready]).toEqual([20, 1]);
  });

  test('is obeyed by the client, which waits for as long as it is told', async () => {
    const queue = await shared.newQueue({ maxMessagesPerSecond: 1 });
    const client = new RowmqHttpClient({ url: shared.broker.url });
    for (const count of [4, 1]) {
      const messages = Array.from({ length: count }, () => ({ body: 'b' }));
      expect((await client.enqueue(queue.name, { messages })).messages).toHaveLength(count);
    }
    await client.close();
  });
});

describe('a client that ignores Retry-After is refused a hundred times a second', () => {
  const REFUSALS = 300;
  const CONNECTIONS = 20;

  test.each(['REST', 'SQS'])('by %s', async (protocol) => {
    const queue = await shared.newQueue({ maxMessagesPerSecond: 1 });
    expect((await send(queue, 100)).status).toBe(201);
    const QueueUrl = `${shared.broker.url}/000000000000/${queue.name}`;
    const sqs = {
      method: 'POST',
      headers: { 'content-type': 'application/x-amz-json-1.0', 'x-amz-target': 'AmazonSQS.SendMessage' },
      body: JSON.stringify({ QueueUrl, MessageBody: 'b' }),
    };
    const isRefused = async (): Promise<boolean> => {
      if (protocol === 'REST') return (await send(queue)).status === 429;
      return (await (await fetch(shared.broker.url, sqs)).text()).includes('maxMessagesPerSecond');
    };
    const from = performance.now();
    let refused = 0;
    const flood = async (): Promise<void> => {
      while (refused < REFUSALS && (await isRefused())) refused += 1;
    };
    await Promise.all(Array.from({ length: CONNECTIONS }, flood));
    expect(refused).toBeGreaterThanOrEqual(REFUSALS);
    // A hundred came at once. A slow machine only makes it longer.
    expect(performance.now() - from).toBeGreaterThan(((REFUSALS - 100) / 100) * 1000 - 100);
  });
});

test('maxLongPolls bounds the dequeues that wait, and settles the acks of a refused one', async () => {
  const queue = await shared.newQueue({ maxLongPolls: 1 });
  await queue.enqueue('b');
  const { receipt } = await queue.dequeueOne();
  const waits = queue.dequeue({ waitSeconds: 20 });
  const refused = await eventually('one waits', async () => {
    const answer = await queue.request('dequeue', { waitSeconds: 1 });
    return answer.status !== 200 && answer;
  });
  expectProblem(refused, 429, 'rate-limited');
  expect(refused.headers.get('retry-after')).toBe('1');
  expect(await queue.dequeue()).toEqual([]);
  const answer = await queue.request('dequeue', { waitSeconds: 1, ack: [receipt] });
  expect(answer.json).toEqual({ messages: [], acked: [receipt], failed: [] });
  await queue.enqueue('c');
  expect(await waits).toHaveLength(1);
  expect(await queue.dequeue({ waitSeconds: 1 })).toEqual([]);
});

describe('limits of a key', () => {
  const ADMIN = 'an-admin-key-for-tests';
  const own = useOwnBroker({
    ROWMQ_ADMIN_KEY: ADMIN,
    ROWMQ_KEY_MESSAGES_PER_SECOND: '10',
    ROWMQ_KEY_LONG_POLLS: '1',
  });

  test('hold for each key by itself, over all queues', async () => {
    const admin = new Api(own.broker.url, { authorization: `Bearer ${ADMIN}` });
    const withKey = async (name: string): Promise<Api> => {
      const { status, text, json } = await admin.post<{ secret: string }>('/v1/admin/keys', {
        name,
        scopes: ['enqueue', 'dequeue'],
      });
      expect(status, text).toBe(201);
      return new Api(own.broker.url, { authorization: `Bearer ${json.secret}` });
    };
    const [one, two] = [await withKey('one'), await withKey('two')];
    for (const name of ['a', 'b']) await admin.put(`/v1/admin/queues/${name}`);
    expect((await send(one.queue('a'), 100)).status).toBe(201);
    const refused = expectProblem(await send(one.queue('b')), 429, 'rate-limited');
    expect(refused.detail).toContain("The key 'one' may send 10 messages a second");
    expect((await send(two.queue('b'), 50)).status).toBe(201);
    await admin.post('/v1/admin/queues/a/purge');
    const waits = one.queue('a').dequeue({ waitSeconds: 20 });
    const tooMany = await eventually('one waits', async () => {
      const answer = await one.queue('b').request('dequeue', { waitSeconds: 1 });
      return answer.status !== 200 && answer;
    });
    expect(expectProblem(tooMany, 429, 'rate-limited').detail).toContain('ROWMQ_KEY_LONG_POLLS');
    expect((await two.queue('b').request('dequeue', { waitSeconds: 1 })).status).toBe(200);
    await eventually('the debt is paid', async () => (await send(two.queue('a'))).status === 201);
    expect(await waits).toHaveLength(1);
  });
});

describe('limits of a key of its own', () => {
  const ADMIN = 'an-admin-key-for-tests';
  const own = useOwnBroker({ ROWMQ_ADMIN_KEY: ADMIN, ROWMQ_KEY_LONG_POLLS: '1' });

  test('go before the settings, and a change reaches the other broker', async () => {
    const admin = apiWith(own.broker.url, ADMIN);
    const { api, name, secret } = await newKey(admin, {
      scopes: ['enqueue', 'dequeue'],
      messagesPerSecond: 1,
      longPolls: 2,
    });
    expect((await admin.get(`/v1/admin/keys/${name}`)).json).toMatchObject({ messagesPerSecond: 1, longPolls: 2 });
    await admin.put('/v1/admin/queues/a');
    const waits = [1, 2].map(async () => api.queue('a').dequeue({ waitSeconds: 20 }));
    await eventually('two wait', async () => (await admin.metric('rowmq_waiting_consumers')) === 2);
    const third = expectProblem(await api.queue('a').request('dequeue', { waitSeconds: 1 }), 429, 'rate-limited');
    expect(third.detail).toContain(`2 dequeues of the key '${name}' wait already (longPolls)`);
    expect((await send(api.queue('a'), 50)).status).toBe(201);
    const refused = expectProblem(await send(api.queue('a')), 429, 'rate-limited');
    expect(refused.detail).toContain(`The key '${name}' may send 1 messages a second (messagesPerSecond)`);
    expect((await Promise.all(waits)).flat().length).toBeGreaterThan(0);

    const other = await startBroker({ database: own.broker.database, env: { ROWMQ_ADMIN_KEY: ADMIN } });
    try {
      const there = apiWith(other.url, secret);
      // A debt of more than a minute.
      expect((await send(there.queue('a'), 100)).status).toBe(201);
      expectProblem(await send(there.queue('a')), 429, 'rate-limited');
      const path = `/v1/admin/keys/${name}/limits`;
      expect((await admin.put(path, { messagesPerSecond: null })).json).toMatchObject({
        messagesPerSecond: null,
        longPolls: 2,
      });
      await eventually('the other broker knows', async () => (await send(there.queue('a'))).status === 201);
      expect((await send(api.queue('a'))).status).toBe(201);
    } finally {
      await other.stop();
    }
  });
});

describe('a flood of one queue', () => {
  const own = useOwnBroker({ ROWMQ_MAX_WAITING_REQUESTS: '20', ROWMQ_BATCH_REQUESTS: '2' });

  test('turns itself away, loses nothing that was accepted, and never refuses another queue', async () => {
    const [flooded, calm] = [await own.newQueue(), await own.newQueue()];
    let isOver = false;
    let [accepted, refused] = [0, 0];
    const flood = Array.from({ length: 60 }, async () => {
      while (!isOver) {
        const answer = await send(flooded);
        if (answer.status === 201) accepted += 1;
        else {
          expectProblem(answer, 503, 'overloaded');
          expect(answer.headers.get('retry-after')).toBe('1');
          refused += 1;
        }
      }
    });
    await eventually('requests are refused', () => refused >= 20);
    for (let sent = 0; sent < 50; sent += 1) expect((await send(calm)).status).toBe(201);
    isOver = true;
    await Promise.all(flood);
    expect(await own.api.metric('rowmq_waiting_requests{verb="enqueue"}')).toBe(0);
    await eventually('all are counted', async () => (await flooded.get()).stats.ready === accepted);
    expect((await calm.get()).stats.ready).toBe(50);
  });
});
