import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { ConsumersAnswer, HistoryAnswer, LeasedMessage, QueueAnswer, QueuesAnswer } from '@rowmq/contract';
import { Api, expectProblem, newQueueName, type QueueApi, untilUnlocked, useOwnBroker } from '../support/api.js';
import { type Broker, startBroker } from '../support/processes.js';
import { eventually } from '../support/wait.js';

vi.setConfig({ maxConcurrency: 20 });

const shared = useOwnBroker();
/** Another broker on the same database. */
let other: Broker;

beforeAll(async () => {
  other = await startBroker({ database: shared.broker.database });
});
afterAll(async () => {
  await other.stop();
});

const bodies = (messages: { body: string }[]): string[] => messages.map(({ body }) => body);
const onOther = (queue: QueueApi): QueueApi => new Api(other.url).queue(queue.name);

describe.concurrent('PUT', () => {
  test('changes the given settings, keeps absent ones and resets those that are null', async () => {
    const dead = await shared.newQueue();
    const all = {
      leaseSeconds: 11,
      messageTtlSeconds: 12_000,
      delaySeconds: 13,
      maxReceives: 14,
      deadLetterQueue: dead.name,
      maxDepth: 15,
    };
    const queue = await shared.newQueue(all);
    expect(await queue.put({})).toMatchObject(all);
    expect(await queue.put({ leaseSeconds: 21 })).toMatchObject({ ...all, leaseSeconds: 21 });
    expect(await queue.put({ maxReceives: null })).toMatchObject({ ...all, leaseSeconds: 21, maxReceives: null });
    const reset = { maxReceives: null, deadLetterQueue: null, maxDepth: null };
    expect(await queue.put({ deadLetterQueue: null, maxDepth: null })).toMatchObject({ ...reset, delaySeconds: 13 });
    expect(await queue.get()).toMatchObject({ ...reset, leaseSeconds: 21, messageTtlSeconds: 12_000 });
  });

  test('does not resume a paused queue and keeps its messages', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('kept');
    await queue.admin('pause');
    expect(await queue.put({ leaseSeconds: 77 })).toMatchObject({ paused: true });
    expect(await queue.browse('ready')).toHaveLength(1);
  });

  test('creates a queue once when many clients create it at the same time', async () => {
    const name = newQueueName();
    const calls = Array.from({ length: 20 }, async (_, index) => {
      const api = new Api(index % 2 === 0 ? shared.broker.url : other.url);
      return untilUnlocked(async () => api.put(`/v1/admin/queues/${name}`, { leaseSeconds: 9 }));
    });
    const statuses = (await Promise.all(calls)).map(({ status }) => status);
    expect(statuses.toSorted((a, b) => a - b)).toEqual([...Array.from({ length: 19 }, () => 200), 201]);
    const { json } = await shared.api.get<{ queues: { name: string }[] }>('/v1/admin/queues');
    expect(json.queues.filter((queue) => queue.name === name)).toHaveLength(1);
  });

  test('with If-None-Match: * creates once, and never changes a queue', async () => {
    const name = newQueueName();
    const path = `/v1/admin/queues/${name}`;
    const create = async (leaseSeconds: number, ifNoneMatch = '*') =>
      new Api(leaseSeconds % 2 === 0 ? shared.broker.url : other.url).put<QueueAnswer>(
        path,
        { leaseSeconds },
        { 'if-none-match': ifNoneMatch },
      );
    const calls = Array.from({ length: 20 }, async (_, index) => untilUnlocked(async () => create(index + 1)));
    const all = await Promise.all(calls);
    const [first, ...others] = all.toSorted((a, b) => a.status - b.status);
    expect(first?.status).toBe(201);
    for (const answer of others) expectProblem(answer, 412, 'queue-exists');
    // A queue that refers to a missing one would be refused, if this one were new.
    expectProblem(
      await shared.api.put(path, { deadLetterQueue: 'nowhere' }, { 'if-none-match': '*' }),
      412,
      'queue-exists',
    );
    expect(await shared.api.queue(name).get()).toMatchObject({ leaseSeconds: first?.json.leaseSeconds });
    for (const foreign of ['"*"', '"v1"', '*, "v1"']) expectProblem(await create(9, foreign), 400, 'invalid-request');
    expectProblem(await create(0), 400, 'invalid-request');
    const missing = `/v1/admin/queues/${newQueueName()}`;
    const circle = { deadLetterQueue: 'nowhere' };
    expectProblem(await shared.api.put(missing, circle, { 'if-none-match': '*' }), 400, 'invalid-request');
  });

  test('reaches every broker within about a second', async () => {
    const queue = await shared.newQueue({ leaseSeconds: 30 });
    await onOther(queue).dequeue();
    await queue.put({ leaseSeconds: 3000 });
    await eventually(
      'the other broker leases for longer',
      async () => {
        await queue.enqueue('b');
        const [message] = await onOther(queue).dequeue();
        return message !== undefined && Date.parse(message.leaseExpiresAt) - Date.now() > 1_000_000;
      },
      5000,
    );
  });
});

describe.concurrent('stats', () => {
  test('count messages by state and show how long the oldest one has been ready', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('a', 'b', 'c', { body: 'd', delaySeconds: 600 });
    await queue.dequeueOne();
    const stats = await eventually('the counts are those of now', async () => {
      const now = (await queue.get()).stats;
      return now.leased === 1 && now;
    });
    expect(stats).toEqual({
      ready: 2,
      delayed: 1,
      leased: 1,
      waiting: 0,
      oldestReadyAgeSeconds: expect.any(Number),
      ageSeconds: 0,
      errorBound: 0,
    });
    expect(stats.oldestReadyAgeSeconds).toBeGreaterThanOrEqual(0);
    expect(stats.oldestReadyAgeSeconds).toBeLessThan(30);
  });
});

describe.concurrent('pause', () => {
  test('stops hand-out but not enqueue, and resume hands everything out', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('before');
    await queue.admin('pause');
    expect((await queue.get()).paused).toBe(true);
    await queue.enqueue('while paused');
    expect(await queue.dequeue({ maxMessages: 10 })).toEqual([]);
    expect(await queue.dequeue({ maxMessages: 10, waitSeconds: 1 })).toEqual([]);
    await queue.admin('resume');
    expect(bodies(await queue.dequeue({ maxMessages: 10 }))).toEqual(['before', 'while paused']);
  });

  test('lets holders of a lease ack, nack and extend', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('a', 'b', 'c');
    const receipts = (await queue.dequeue({ maxMessages: 3 })).map(({ receipt }) => receipt);
    await queue.admin('pause');
    expect((await queue.ack(receipts[0]!)).failed).toEqual([]);
    expect((await queue.nack([receipts[1]!])).failed).toEqual([]);
    expect((await queue.extend([receipts[2]!], 60)).failed).toEqual([]);
  });

  test('keeps a long poll waiting until a resume answers it with messages', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('patience');
    await queue.admin('pause');
    const started = performance.now();
    const waiting = queue.dequeue({ waitSeconds: 20 });
    await eventually('some time has passed', () => performance.now() - started > 500);
    await queue.admin('resume');
    expect(bodies(await waiting)).toEqual(['patience']);
    expect(performance.now() - started).toBeLessThan(15_000);
  });

  test('reaches every broker within about a second', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('b');
    const elsewhere = onOther(queue);
    const { receipt } = await elsewhere.dequeueOne();
    await queue.nack([receipt]);
    await queue.admin('pause');
    await eventually(
      'the other broker hands out nothing',
      async () => {
        const messages = await elsewhere.dequeue();
        await queue.nack(messages.map((message) => message.receipt).concat(receipt));
        return messages.length === 0;
      },
      5000,
    );
    await queue.admin('resume');
    expect(await elsewhere.dequeue({ waitSeconds: 10 })).toHaveLength(1);
  });

  test('for producers refuses every enqueue at once and hands out what is stored', async () => {
    const dead = await shared.newQueue();
    const queue = await shared.newQueue({ maxReceives: 1, deadLetterQueue: dead.name });
    await queue.enqueue('stored');
    await onOther(queue).enqueue('stored there');
    const paused = { name: queue.name, paused: false, producersPaused: true };
    expect(await queue.admin('pause', { side: 'producers' })).toEqual(paused);
    for (const one of [queue, onOther(queue)]) {
      const refused = await one.request('enqueue', { messages: [{ body: 'refused' }] });
      expect(expectProblem(refused, 409, 'queue-paused').detail).toContain(`'${queue.name}'`);
      expect(refused.headers.get('retry-after')).toBe('5');
    }
    const topic = `/v1/admin/topics/${queue.name}`;
    await shared.api.put(topic);
    await shared.api.put(`${topic}/subscriptions/${queue.name}`);
    const publish = { messages: [{ body: 'refused' }] };
    expectProblem(await shared.api.post(`/v1/topics/${queue.name}/messages`, publish), 409, 'queue-paused');
    // A redrive is the operator's, and no producer's.
    const [message] = await queue.dequeue({ maxMessages: 2 });
    await queue.request('nack', { receipts: [message!.receipt], deadLetter: true });
    expect(await dead.job('redrive')).toMatchObject({ done: 1 });
    expect(await queue.admin('pause')).toEqual({ ...paused, paused: true });
    expect(await queue.admin('resume', { side: 'producers' })).toEqual({
      ...paused,
      paused: true,
      producersPaused: false,
    });
    await queue.enqueue('welcome');
    await queue.admin('pause', { side: 'both' });
    expect(await queue.get()).toMatchObject({ paused: true, producersPaused: true });
    expect(await queue.admin('resume')).toEqual({ ...paused, producersPaused: false });
    const bad = await shared.api.post(`${queue.adminPath}/pause`, { side: 'nobody' });
    expectProblem(bad, 400, 'invalid-request');
  });

  test('and resume can be repeated', async () => {
    const queue = await shared.newQueue();
    await queue.admin('pause');
    expect(await queue.admin('pause')).toEqual({ name: queue.name, paused: true, producersPaused: false });
    await queue.admin('resume');
    expect(await queue.admin('resume')).toEqual({ name: queue.name, paused: false, producersPaused: false });
  });
});

describe.concurrent('purge', () => {
  test('drops ready, delayed and leased messages of its queue only', async () => {
    const queue = await shared.newQueue();
    const neighbour = await shared.newQueue();
    await neighbour.enqueue('stays');
    const ids = await queue.enqueue('leased', 'ready', { body: 'delayed', delaySeconds: 600 });
    await queue.dequeueOne();
    expect(await queue.job('purge')).toMatchObject({ total: 3, examined: 3, done: 3, skipped: 0 });
    for (const state of ['ready', 'delayed', 'leased'] as const) expect(await queue.browse(state)).toEqual([]);
    for (const id of ids) expect(await shared.api.message(id)).toMatchObject({ settled: true });
    expect(bodies(await neighbour.dequeue({ maxMessages: 10 }))).toEqual(['stays']);
    expect(await queue.job('purge')).toMatchObject({ total: 0, done: 0 });
  });

  test('drops more than one batch', async () => {
    const queue = await shared.newQueue();
    for (let batch = 0; batch < 12; batch += 1) await queue.enqueue(...Array.from({ length: 100 }, () => 'x'));
    expect(await queue.job('purge')).toMatchObject({ done: 1200 });
    expect(await queue.dequeue()).toEqual([]);
  });
});

describe.concurrent('history', () => {
  test('has what happened within ten seconds or so, on every broker, and shows it as rates', async () => {
    const queue = await shared.newQueue({ messageTtlSeconds: 1000 });
    await queue.enqueue('a', 'b');
    await onOther(queue).enqueue('c', 'd');
    const messages: LeasedMessage[] = [];
    while (messages.length < 4) messages.push(...(await queue.dequeue({ maxMessages: 4, waitSeconds: 5 })));
    await queue.ack(...messages.slice(0, 3).map(({ receipt }) => receipt));
    await onOther(queue).nack(messages.slice(3).map(({ receipt }) => receipt));
    const history = async () =>
      (await shared.api.get<HistoryAnswer>(`${queue.adminPath}/history?minutes=1440`)).json.minutes;
    const sum = (minutes: HistoryAnswer['minutes'], key: 'enqueued' | 'dequeued' | 'acked' | 'nacked'): number =>
      minutes.reduce((all, minute) => all + minute[key], 0);
    const minutes = await eventually('both brokers have reported', async () => {
      const now = await history();
      const sums = (['enqueued', 'dequeued', 'acked', 'nacked'] as const).map((key) => sum(now, key));
      return String(sums) === '4,4,3,1' && now;
    });
    expect(Math.abs(Date.parse(minutes[0]!.at) - Date.now())).toBeLessThan(180_000);
    const { rates } = await queue.get();
    expect(rates.map((one) => one.minutes)).toEqual([1, 5, 60]);
    expect(rates[1]).toMatchObject({ in: expect.closeTo(4 / 300, 2), out: 0.01, failed: 0.003, expired: 0 });
    const { json } = await shared.api.get<QueuesAnswer>('/v1/admin/queues');
    expect(json.queues.find(({ name }) => name === queue.name)?.rates[1]).toMatchObject({ out: 0.01 });
    for (const bad of ['0', '1441', 'x'])
      expectProblem(await shared.api.get(`${queue.adminPath}/history?minutes=${bad}`), 400, 'invalid-request');
    expectProblem(await shared.api.get('/v1/admin/queues/nowhere/history'), 404, 'queue-not-found');
  });
});

describe.concurrent('consumers', () => {
  test('are shown with what they hold, whatever broker they use', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('1', '2', '3');
    const [first, second] = await queue.dequeue({ maxMessages: 2, consumer: 'one' });
    await onOther(queue).dequeue({ maxMessages: 1, consumer: 'two', waitSeconds: 5 });
    await onOther(queue).request('extend', { receipts: [first!.receipt], leaseSeconds: 60, consumer: 'one' });
    await queue.ack(second!.receipt);
    const waits = onOther(queue).dequeue({ waitSeconds: 20, consumer: 'three' });
    const consumers = async (): Promise<ConsumersAnswer> =>
      (await shared.api.get<ConsumersAnswer>(`${queue.adminPath}/consumers`)).json;
    const answer = await eventually('the third waits', async () => {
      const now = await consumers();
      return now.consumers.length === 3 && now.complete && now;
    });
    const same = { address: '127.0.0.1', lastSeenAt: expect.any(String) };
    expect(answer).toEqual({
      queue: queue.name,
      consumers: [
        { name: 'one', waiting: 0, leases: 1, ...same },
        { name: 'three', waiting: 1, leases: 0, ...same },
        { name: 'two', waiting: 0, leases: 1, ...same },
      ],
      otherLeases: 0,
      complete: true,
    });
    await queue.enqueue('4');
    expect(await waits).toHaveLength(1);
    expectProblem(await shared.api.get('/v1/admin/queues/nowhere/consumers'), 404, 'queue-not-found');
  });
});

describe.concurrent('delete', () => {
  test('keeps a queue that has messages, unless it is forced', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('a', 'b');
    expect(expectProblem(await shared.api.delete(queue.adminPath), 409, 'queue-not-empty').detail).toMatch(
      /has 2 messages.*force=true/,
    );
    expectProblem(await shared.api.delete(`${queue.adminPath}?force=false`), 409, 'queue-not-empty');
    expectProblem(await shared.api.delete(`${queue.adminPath}?force=yes`), 400, 'invalid-request');
    expect((await shared.api.delete(`${queue.adminPath}?force=true`)).status).toBe(204);
    const empty = await shared.newQueue();
    expect((await shared.api.delete(empty.adminPath)).status).toBe(204);
  });

  test('refuses every call from then on, an enqueue on another broker at once', async () => {
    const queue = await shared.newQueue();
    const elsewhere = onOther(queue);
    await elsewhere.enqueue('lost with its queue');
    const { receipt } = await elsewhere.dequeueOne();
    expect((await shared.api.delete(`${queue.adminPath}?force=true`)).status).toBe(204);

    expectProblem(await elsewhere.request('enqueue', { messages: [{ body: 'b' }] }), 404, 'queue-not-found');
    expectProblem(await queue.request('enqueue', { messages: [{ body: 'b' }] }), 404, 'queue-not-found');
    expectProblem(await queue.request('dequeue'), 404, 'queue-not-found');
    expectProblem(await queue.requestAckOne(receipt), 404, 'queue-not-found');
    expectProblem(await shared.api.get(queue.adminPath), 404, 'queue-not-found');
    expectProblem(await shared.api.delete(`${queue.adminPath}?force=true`), 404, 'queue-not-found');
    await eventually(
      'the other broker knows it for the other calls too',
      async () => (await elsewhere.request('dequeue')).status === 404,
      5000,
    );
  });

  test('deletes the queue’s messages: a queue of the same name starts empty', async () => {
    const queue = await shared.newQueue({ leaseSeconds: 99, maxDepth: 5 });
    const [id] = await queue.enqueue('old', 'old too', { body: 'delayed', delaySeconds: 1 });
    const { receipt } = await queue.dequeueOne({ leaseSeconds: 1 });
    await shared.api.delete(`${queue.adminPath}?force=true`);
    const again = await queue.put();
    expect(again).toMatchObject({ leaseSeconds: 30, maxDepth: null });
    expect(again.stats).toMatchObject({ ready: 0, delayed: 0, leased: 0, waiting: 0, oldestReadyAgeSeconds: null });
    expect(await queue.dequeue({ maxMessages: 100, waitSeconds: 2 })).toEqual([]);
    expect(await queue.ack(receipt)).toEqual({ acked: [], failed: [{ receipt, code: 'delivery-not-found' }] });
    expect(await shared.api.message(id!)).toMatchObject({ queue: null, settled: true, deliveries: [] });
    await queue.enqueue('new');
    expect(bodies(await queue.dequeue({ maxMessages: 100 }))).toEqual(['new']);
  });

  test('ends the wait of waiting consumers', async () => {
    const queue = await shared.newQueue();
    const started = performance.now();
    const waiting = queue.request('dequeue', { waitSeconds: 20 });
    await eventually('somebody waits', async () => (await shared.api.metric('rowmq_waiting_consumers')) > 0);
    await shared.api.delete(`${queue.adminPath}?force=true`);
    expectProblem(await waiting, 404, 'queue-not-found');
    expect(performance.now() - started).toBeLessThan(15_000);
  });

  test('is refused while another queue dead-letters into it', async () => {
    const dead = await shared.newQueue();
    const queue = await shared.newQueue({ deadLetterQueue: dead.name });
    const { detail } = expectProblem(await shared.api.delete(dead.adminPath), 400, 'invalid-request');
    expect(detail).toContain(`'${queue.name}'`);
    await queue.put({ deadLetterQueue: null });
    expect((await shared.api.delete(dead.adminPath)).status).toBe(204);
  });

  test('is allowed once the queue that dead-letters into it is gone', async () => {
    const dead = await shared.newQueue();
    const queue = await shared.newQueue({ deadLetterQueue: dead.name });
    expect((await shared.api.delete(`${queue.adminPath}?force=true`)).status).toBe(204);
    expect((await shared.api.delete(dead.adminPath)).status).toBe(204);
  });
});

describe.concurrent('dead-lettering', () => {
  async function newPair(maxReceives: number): Promise<{ queue: QueueApi; dead: QueueApi }> {
    const dead = await shared.newQueue({ leaseSeconds: 60 });
    const queue = await shared.newQueue({ maxReceives, deadLetterQueue: dead.name });
    return { queue, dead };
  }

  /** Leases and nacks until nothing is left. Returns the number of leases. */
  async function exhaust(queue: QueueApi): Promise<number> {
    for (let receives = 0; ; receives += 1) {
      const [message] = await queue.dequeue();
      if (message === undefined) return receives;
      expect(message.receiveCount).toBe(receives + 1);
      expect(receives, 'it is handed out for ever').toBeLessThan(10);
      await queue.nack([message.receipt], { reason: `failure ${receives + 1}` });
    }
  }

  test('happens when a claim finds the message after maxReceives, and keeps body, headers, expiry and last reason', async () => {
    const { queue, dead } = await newPair(3);
    const [id] = await queue.enqueue({ body: 'poison', headers: { h: 'v' }, priority: 8, expiresInSeconds: 5000 });
    const { expiresAt } = await shared.api.message(id!);
    expect(await exhaust(queue)).toBe(3);

    expect(await queue.browse('ready')).toEqual([]);
    expect(await dead.browse('ready')).toMatchObject([{ id, receiveCount: 0, lastNackReason: 'failure 3', expiresAt }]);
    expect(await shared.api.message(id!)).toMatchObject({
      queue: queue.name,
      settled: false,
      deliveries: [{ queue: dead.name, state: 'ready' }],
    });
    const message = await dead.dequeueOne();
    expect(message).toMatchObject({ id, body: 'poison', headers: { h: 'v' }, priority: 8, expiresAt, receiveCount: 1 });
    expect(await dead.ack(message.receipt)).toEqual({ acked: [message.receipt], failed: [] });
    expect(await shared.api.message(id!)).toMatchObject({ settled: true });
  });

  test('happens after leases that ran out as well as after nacks', async () => {
    const { queue, dead } = await newPair(1);
    const [id] = await queue.enqueue('crashes its consumer');
    const { receipt } = await queue.dequeueOne({ leaseSeconds: 1 });
    await eventually('it is a dead letter', async () => {
      expect(await queue.dequeue({ waitSeconds: 1 })).toEqual([]);
      return (await dead.browse('ready')).length > 0;
    });
    expect((await dead.browse('ready')).map((message) => message.id)).toEqual([id]);
    expect(await queue.ack(receipt)).toEqual({ acked: [], failed: [{ receipt, code: 'delivery-not-found' }] });
  });

  test('does not move a message that is acked on its last receive', async () => {
    const { queue, dead } = await newPair(2);
    await queue.enqueue('just in time');
    await queue.nack([(await queue.dequeueOne()).receipt]);
    const last = await queue.dequeueOne();
    expect((await queue.ack(last.receipt)).acked).toEqual([last.receipt]);
    expect(await queue.dequeue()).toEqual([]);
    expect(await dead.browse('ready')).toEqual([]);
  });

  test('does not block the messages behind the poisoned ones', async () => {
    const { queue, dead } = await newPair(1);
    await queue.enqueue(...Array.from({ length: 100 }, (_, index) => `poison ${index}`));
    await queue.nack((await queue.dequeue({ maxMessages: 100 })).map(({ receipt }) => receipt));
    await queue.enqueue('healthy');
    expect(bodies(await queue.dequeue({ maxMessages: 100 }))).toEqual(['healthy']);
    expect(await dead.browse('ready')).toHaveLength(100);
  });

  test('never revives an expired message', async () => {
    const { queue, dead } = await newPair(1);
    const [id] = await queue.enqueue({ body: 'dies first', expiresInSeconds: 5 });
    const { receipt, expiresAt } = await queue.dequeueOne();
    await queue.nack([receipt]);
    await eventually('it has expired', () => Date.now() > Date.parse(expiresAt));
    expect(await queue.dequeue()).toEqual([]);
    expect(await dead.browse('ready')).toEqual([]);
    expect(await shared.api.message(id!)).toMatchObject({ settled: true });
  });

  test('is undone by redrive, which returns the message and resets its receive count', async () => {
    const { queue, dead } = await newPair(2);
    const [id] = await queue.enqueue({ body: 'second chance', headers: { h: 'v' } });
    await dead.enqueue('at home here');
    await exhaust(queue);
    expect(await dead.job('redrive')).toMatchObject({ total: 2, examined: 2, done: 1, skipped: 1 });

    expect(bodies(await dead.dequeue({ maxMessages: 10 }))).toEqual(['at home here']);
    const message = await queue.dequeueOne();
    expect(message).toMatchObject({ id, receiveCount: 1, headers: { h: 'v' } });
    await queue.nack([message.receipt]);
    expect(await queue.dequeueOne()).toMatchObject({ id, receiveCount: 2 });
  });

  test('redrive moves the requested number, leaves leased messages and wakes waiting consumers', async () => {
    const { queue, dead } = await newPair(1);
    await queue.enqueue('a', 'b', 'c');
    await queue.nack((await queue.dequeue({ maxMessages: 3 })).map(({ receipt }) => receipt));
    expect(await queue.dequeue()).toEqual([]);
    const held = await dead.dequeueOne();
    const waiting = queue.dequeue({ waitSeconds: 20 });
    expect(await dead.job('redrive', { maxMessages: 1 })).toMatchObject({ done: 1, skipped: 0 });
    expect(await waiting).toHaveLength(1);
    expect(await dead.job('redrive', {})).toMatchObject({ total: 2, examined: 1, done: 1, skipped: 0 });
    expect((await dead.browse('leased')).map(({ id }) => id)).toEqual([held.id]);
  });

  test('redrive leaves a message whose queue is gone', async () => {
    const { queue, dead } = await newPair(1);
    await queue.enqueue('orphan');
    await exhaust(queue);
    await shared.api.delete(`${queue.adminPath}?force=true`);
    await queue.put();
    expect(await dead.job('redrive')).toMatchObject({ done: 0, skipped: 1 });
    expect(bodies(await dead.dequeue())).toEqual(['orphan']);
    expect(await queue.dequeue()).toEqual([]);
  });
});

describe.concurrent('maxDepth', () => {
  test('refuses a batch that does not fit as a whole with queue-full, and says when to retry', async () => {
    const queue = await shared.newQueue({ maxDepth: 3 });
    await queue.enqueue('a', 'b');
    const full = await queue.request('enqueue', { messages: [{ body: 'c' }, { body: 'd' }] });
    const { detail } = expectProblem(full, 429, 'queue-full');
    expect(detail).toContain('2 of at most 3');
    expect(full.headers.get('retry-after')).toMatch(/^[1-9]\d*$/);
    expect(await queue.browse('ready')).toHaveLength(2);
    await queue.enqueue('c');
    expectProblem(await queue.request('enqueue', { messages: [{ body: 'd' }] }), 429, 'queue-full');
  });

  test('counts leased and delayed messages, and an ack makes room again', async () => {
    const queue = await shared.newQueue({ maxDepth: 2 });
    await queue.enqueue('leased', { body: 'delayed', delaySeconds: 600 });
    const { receipt } = await queue.dequeueOne();
    expectProblem(await queue.request('enqueue', { messages: [{ body: 'x' }] }), 429, 'queue-full');
    await queue.ack(receipt);
    await queue.enqueue('fits');
    expectProblem(await queue.request('enqueue', { messages: [{ body: 'x' }] }), 429, 'queue-full');
  });

  test('can be raised, lowered below the current depth, and removed', async () => {
    const queue = await shared.newQueue({ maxDepth: 1 });
    await queue.enqueue('a');
    await queue.put({ maxDepth: 2 });
    await queue.enqueue('b');
    await queue.put({ maxDepth: 1 });
    expectProblem(await queue.request('enqueue', { messages: [{ body: 'x' }] }), 429, 'queue-full');
    expect(await queue.browse('ready')).toHaveLength(2);
    await queue.put({ maxDepth: null });
    await queue.enqueue(...Array.from({ length: 50 }, () => 'many'));
  });

  test('is exact when twenty producers on one broker compete for the last ten messages', async () => {
    for (let round = 0; round < 5; round += 1) {
      const queue = await shared.newQueue({ maxDepth: 10 });
      const answers = await Promise.all(
        Array.from({ length: 20 }, async (_, index) =>
          queue.request('enqueue', { messages: [{ body: String(index) }] }),
        ),
      );
      for (const answer of answers) if (answer.status !== 201) expectProblem(answer, 429, 'queue-full');
      expect(await queue.browse('ready')).toHaveLength(10);
      expect(answers.filter(({ status }) => status === 201)).toHaveLength(10);
    }
  });

  test('may be exceeded by what two brokers enqueue within a second, and then holds on both', async () => {
    const queue = await shared.newQueue({ maxDepth: 10 });
    const answers = await Promise.all(
      Array.from({ length: 40 }, async (_, index) =>
        (index % 2 === 0 ? queue : onOther(queue)).request('enqueue', { messages: [{ body: String(index) }] }),
      ),
    );
    for (const answer of answers) if (answer.status !== 201) expectProblem(answer, 429, 'queue-full');
    const stored = answers.filter(({ status }) => status === 201).length;
    expect(await queue.browse('ready')).toHaveLength(stored);
    // Each broker alone would have stored ten.
    expect(stored).toBeGreaterThanOrEqual(10);
    expect(stored).toBeLessThanOrEqual(20);
    for (const broker of [queue, onOther(queue)]) {
      expectProblem(await broker.request('enqueue', { messages: [{ body: 'late' }] }), 429, 'queue-full');
    }
  });

  test('is exact when the producers go on while consumers ack', async () => {
    const queue = await shared.newQueue({ maxDepth: 5 });
    const depths: number[] = [];
    let isOver = false;
    const refused: number[] = [];
    const produce = async (): Promise<void> => {
      while (!isOver) {
        const { status } = await queue.request('enqueue', { messages: [{ body: 'x' }] });
        if (status !== 201) refused.push(status);
      }
    };
    const consume = async (): Promise<void> => {
      for (let taken = 0; taken < 20; taken += 1) {
        const [message] = await queue.dequeue({ waitSeconds: 20 });
        // The producers go on, so there is always a next message.
        await queue.ack(message!.receipt);
        depths.push((await queue.browse('ready')).length);
      }
    };
    await Promise.all([produce(), produce(), consume().finally(() => (isOver = true))]);
    expect(new Set(refused)).toEqual(new Set([429]));
    expect(Math.max(...depths)).toBeLessThanOrEqual(5);
    expect((await queue.browse('ready')).length).toBeLessThanOrEqual(5);
  });
});
