import type { DequeueAnswer, DequeueRequest } from '@rowmq/contract';
import { describe, expect, test } from 'vitest';
import { Api, expectProblem, type QueueApi, useOwnBroker } from '../support/api.js';
import { startBroker } from '../support/processes.js';
import { openSocket, postBytes } from '../support/raw-http.js';
import { eventually } from '../support/wait.js';

/* The acks that a dequeue carries. */

const shared = useOwnBroker();
const LONG = 600;

async function dequeue(queue: QueueApi, request: DequeueRequest): Promise<DequeueAnswer> {
  const answer = await queue.request<DequeueAnswer>('dequeue', { leaseSeconds: LONG, ...request });
  expect(answer.status, answer.text).toBe(200);
  return answer.json;
}

/** Enqueues these bodies and leases them. Returns their receipts. */
async function lease(queue: QueueApi, ...bodies: string[]): Promise<string[]> {
  await queue.enqueue(...bodies);
  const receipts: string[] = [];
  while (receipts.length < bodies.length) receipts.push((await queue.dequeueOne({ leaseSeconds: LONG })).receipt);
  return receipts;
}

/** The queue's stats would not do: the broker reuses counts for a while. */
async function isSettled(queue: QueueApi): Promise<boolean> {
  return (await queue.browse('leased')).length === 0;
}

async function waiting(api: Api, consumers: number): Promise<void> {
  await eventually(
    `${consumers} consumers wait`,
    async () => (await api.metric('rowmq_waiting_consumers')) === consumers,
  );
}

describe('a dequeue with acks', () => {
  test('settles them, leases the next messages, and answers for both', async () => {
    const queue = await shared.newQueue();
    const [first, second] = await lease(queue, 'first', 'second');
    await queue.enqueue('third');
    const { messages, ...acks } = await dequeue(queue, { maxMessages: 10, waitSeconds: 5, ack: [first!, second!] });
    expect(messages.map(({ body }) => body)).toEqual(['third']);
    expect(acks).toEqual({ acked: [first, second], failed: [] });
    const last = await dequeue(queue, { ack: [messages[0]!.receipt] });
    expect(last).toEqual({ messages: [], acked: [messages[0]!.receipt], failed: [] });
    expect((await queue.get()).stats).toMatchObject({ ready: 0, leased: 0 });
  });

  test('settles a hundred, and counts them as acked', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue(...Array.from({ length: 100 }, (_, index) => String(index)));
    const ack = (await queue.dequeue({ maxMessages: 100, leaseSeconds: LONG })).map(({ receipt }) => receipt);
    expect(ack).toHaveLength(100);
    expect(await dequeue(queue, { ack })).toEqual({ messages: [], acked: ack, failed: [] });
    expect(await shared.api.metric(`rowmq_messages_total{event="acked",queue="${queue.name}"}`)).toBe(100);
    expect(await isSettled(queue)).toBe(true);
  });

  test('answers for an empty list, and not at all for an absent one', async () => {
    const queue = await shared.newQueue();
    expect(await dequeue(queue, { ack: [] })).toEqual({ messages: [], acked: [], failed: [] });
    expect(await dequeue(queue, {})).toEqual({ messages: [] });
  });

  test('answers for each receipt by itself: stale, settled, foreign, repeated and malformed ones', async () => {
    const queue = await shared.newQueue();
    const other = await shared.newQueue();
    const [foreign] = await lease(other, 'elsewhere');
    const [stale, settled, held] = await lease(queue, 'stale', 'settled', 'held');
    await queue.nack([stale!], { delaySeconds: LONG });
    await queue.ack(settled!);
    const answer = await dequeue(queue, { ack: ['x', stale!, held!, settled!, foreign!, held!, stale!] });
    expect(answer.messages).toEqual([]);
    expect(answer.acked).toEqual([held]);
    const codes = Object.fromEntries((answer.failed ?? []).map(({ receipt, code }) => [receipt, code]));
    expect(answer.failed).toHaveLength(4);
    expect(codes).toEqual({
      x: 'invalid-request',
      [stale!]: 'lease-lost',
      [settled!]: 'delivery-not-found',
      [foreign!]: 'delivery-not-found',
    });
    expect((await other.get()).stats.leased).toBe(1);
    expect(await queue.browse('delayed')).toMatchObject([{ body: 'stale' }]);
  });

  test('that waits has settled them at once', async () => {
    const queue = await shared.newQueue();
    const [receipt] = await lease(queue, 'done');
    let isAnswered = false;
    const consumer = dequeue(queue, { waitSeconds: 20, ack: [receipt!] }).finally(() => (isAnswered = true));
    await eventually('it is settled', async () => isSettled(queue));
    expect(isAnswered).toBe(false);
    await queue.enqueue('next');
    expect(await consumer).toMatchObject({ messages: [{ body: 'next' }], acked: [receipt], failed: [] });
  });

  test('settles them while the queue is paused, and hands out nothing', async () => {
    const queue = await shared.newQueue();
    const [receipt] = await lease(queue, 'done');
    await queue.enqueue('kept');
    await queue.admin('pause');
    expect(await dequeue(queue, { ack: [receipt!] })).toEqual({ messages: [], acked: [receipt], failed: [] });
    expect((await queue.get()).stats).toMatchObject({ ready: 1, leased: 0 });
  });

  test('is refused as a whole for a queue that does not exist, and with more than a hundred acks', async () => {
    const queue = await shared.newQueue();
    const [receipt] = await lease(queue, 'held');
    const nowhere = await shared.api.queue('nowhere').request('dequeue', { ack: [receipt] });
    expectProblem(nowhere, 404, 'queue-not-found');
    const tooMany = await queue.request('dequeue', { ack: Array.from({ length: 101 }, () => receipt) });
    expect(expectProblem(tooMany, 400, 'invalid-request').faults).toMatchObject([{ path: 'ack' }]);
    expect((await queue.get()).stats.leased).toBe(1);
  });

  test('answers for them although the broker has no room for another consumer, and the next dequeue is refused', async () => {
    const small = await startBroker({ database: shared.broker.database, env: { ROWMQ_MAX_LONG_POLLS: '1' } });
    try {
      const queue = new Api(small.url).queue((await shared.newQueue()).name);
      const [receipt] = await lease(queue, 'done');
      const patient = dequeue(queue, { waitSeconds: 20 });
      await waiting(queue.api, 1);
      const answer = await dequeue(queue, { waitSeconds: 20, ack: [receipt!] });
      expect(answer).toEqual({ messages: [], acked: [receipt], failed: [] });
      expectProblem(await queue.request('dequeue', { waitSeconds: 20 }), 503, 'overloaded');
      // Nothing was settled by this one, so it may say that nothing was done.
      expectProblem(await queue.request('dequeue', { waitSeconds: 20, ack: [receipt] }), 503, 'overloaded');
      await queue.enqueue('for the patient one');
      expect(await patient).toMatchObject({ messages: [{ body: 'for the patient one' }] });
    } finally {
      await small.stop();
    }
  });

  test('has settled them although its consumer hangs up, and a repeat does no harm', async () => {
    const queue = await shared.newQueue();
    const [receipt] = await lease(queue, 'done');
    const request = { waitSeconds: 20, leaseSeconds: 43_200, ack: [receipt!] };
    const socket = await openSocket(queue.api.url);
    socket.write(postBytes(`${queue.messagesPath}/dequeue`, request));
    await eventually('it is settled', async () => isSettled(queue));
    await waiting(shared.api, 1);
    socket.destroy();
    await waiting(shared.api, 0);
    const [id] = await queue.enqueue('next');
    const answer = await dequeue(queue, request);
    expect(answer).toMatchObject({
      messages: [{ id, receiveCount: 1 }],
      acked: [],
      failed: [{ receipt, code: 'delivery-not-found' }],
    });
  });

  test('has settled them although its broker is killed during the wait, and a repeat on another does no harm', async () => {
    const doomed = await startBroker({ database: shared.broker.database });
    const queue = await shared.newQueue();
    const [receipt] = await lease(queue, 'done');
    const there = new Api(doomed.url).queue(queue.name);
    const lost = dequeue(there, { waitSeconds: 20, ack: [receipt!] }).catch((error: unknown) => error);
    await eventually('it is settled', async () => isSettled(queue));
    await doomed.kill();
    expect(await lost).toBeInstanceOf(Error);
    expect(await dequeue(queue, { ack: [receipt!] })).toEqual({
      messages: [],
      acked: [],
      failed: [{ receipt, code: 'delivery-not-found' }],
    });
  });

  test('settles a message once when many consumers try at the same time', async () => {
    const queue = await shared.newQueue();
    const [receipt] = await lease(queue, 'contested');
    const answers = await Promise.all(Array.from({ length: 20 }, async () => dequeue(queue, { ack: [receipt!] })));
    expect(answers.filter(({ acked }) => acked?.length === 1)).toHaveLength(1);
    expect(answers.filter(({ failed }) => failed?.[0]?.code === 'delivery-not-found')).toHaveLength(19);
  });

  test('takes every message of a backlog once, with one request for each', async () => {
    const queue = await shared.newQueue();
    const ids = [];
    for (let batch = 0; batch < 3; batch += 1) {
      ids.push(...(await queue.enqueue(...Array.from({ length: 100 }, (_, index) => String(index)))));
    }
    const consume = async (): Promise<string[]> => {
      const taken: string[] = [];
      const settled: string[] = [];
      for (let ack: string[] = []; ;) {
        const { messages, acked } = await dequeue(queue, { waitSeconds: 1, ack });
        settled.push(...(acked ?? []));
        expect(acked).toEqual(ack);
        if (messages.length === 0) break;
        taken.push(...messages.map(({ id }) => id));
        ack = messages.map(({ receipt }) => receipt);
      }
      expect(settled).toHaveLength(taken.length);
      return taken;
    };
    const taken = (await Promise.all(Array.from({ length: 10 }, consume))).flat();
    expect(taken.toSorted()).toEqual(ids.toSorted());
    expect((await queue.get()).stats).toMatchObject({ ready: 0, leased: 0 });
  });
});
