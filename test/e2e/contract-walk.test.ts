import { encodeReceipt } from '@rowmq/contract';
import { describe, expect, test, vi } from 'vitest';
import { expectProblem, newQueueName, useBroker } from '../support/api.js';
import { eventually } from '../support/wait.js';

vi.setConfig({ maxConcurrency: 20 });

const shared = useBroker();

const UUID_V7 = expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
const TIME = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
const RECEIPT = expect.stringMatching(/^[A-Za-z0-9_-]{42}$/);

const DEFAULT_SETTINGS = {
  leaseSeconds: 30,
  messageTtlSeconds: 345_600,
  delaySeconds: 0,
  maxReceives: null,
  deadLetterQueue: null,
  deadLetterExpired: false,
  maxDepth: null,
  maxMessagesPerSecond: null,
  maxLongPolls: null,
  deduplicationSeconds: 300,
  ordering: null,
};
const EMPTY_STATS = {
  ready: 0,
  delayed: 0,
  leased: 0,
  waiting: 0,
  oldestReadyAgeSeconds: null,
  ageSeconds: 0,
  errorBound: 0,
};

const seconds = (from: string, to: string): number => (Date.parse(to) - Date.parse(from)) / 1000;

describe.concurrent('a client that knows the contract', () => {
  test('creates a queue with the defaults, sees it and deletes it', async () => {
    const { api } = shared;
    const name = newQueueName();
    const queue = {
      name,
      ...DEFAULT_SETTINGS,
      paused: false,
      producersPaused: false,
      createdAt: TIME,
      stats: EMPTY_STATS,
      rates: [1, 5, 60].map((minutes) => ({ minutes, in: 0, out: 0, failed: 0, expired: 0 })),
    };

    const created = await api.put(`/v1/admin/queues/${name}`);
    expect(created.status).toBe(201);
    expect(created.headers.get('content-type')).toBe('application/json; charset=utf-8');
    expect(created.json).toEqual(queue);

    const again = await api.put(`/v1/admin/queues/${name}`, {});
    expect(again.status).toBe(200);
    expect(again.json).toEqual(created.json);

    expect((await api.get(`/v1/admin/queues/${name}`)).json).toEqual(created.json);
    const all = await api.get<{ queues: { name: string }[] }>('/v1/admin/queues');
    expect(all.status).toBe(200);
    expect(Object.keys(all.json)).toEqual(['queues']);
    expect(all.json.queues.filter((other) => other.name === name)).toEqual([created.json]);

    const deleted = await api.delete(`/v1/admin/queues/${name}`);
    expect({ status: deleted.status, text: deleted.text }).toEqual({ status: 204, text: '' });
    expectProblem(await api.get(`/v1/admin/queues/${name}`), 404, 'queue-not-found');
  });

  test('enqueues, dequeues and acks', async () => {
    const queue = await shared.newQueue();

    const enqueued = await queue.request('enqueue', { messages: [{ body: 'one' }, { body: 'two' }] });
    expect(enqueued.status).toBe(201);
    expect(enqueued.json).toEqual({ messages: [{ id: UUID_V7 }, { id: UUID_V7 }] });
    const [one, two] = (enqueued.json as { messages: { id: string }[] }).messages.map(({ id }) => id);

    const first = await queue.request<{ messages: { receipt: string; enqueuedAt: string; expiresAt: string }[] }>(
      'dequeue',
    );
    expect(first.status).toBe(200);
    expect(first.json).toEqual({
      messages: [
        {
          id: one,
          body: 'one',
          bodyEncoding: 'utf8',
          headers: {},
          priority: 4,
          receipt: RECEIPT,
          receiveCount: 1,
          enqueuedAt: TIME,
          expiresAt: TIME,
          leaseExpiresAt: TIME,
        },
      ],
    });
    const [leased] = first.json.messages;
    expect(seconds(leased!.enqueuedAt, leased!.expiresAt)).toBeCloseTo(345_600, -1);

    const acked = await queue.request('ack', { receipts: [leased!.receipt] });
    expect(acked.status).toBe(200);
    expect(acked.json).toEqual({ acked: [leased!.receipt], failed: [] });

    const second = await queue.dequeueOne();
    expect(second.id).toBe(two);
    const ackedOne = await queue.requestAckOne(second.receipt);
    expect({ status: ackedOne.status, text: ackedOne.text }).toEqual({ status: 204, text: '' });

    const empty = await queue.request('dequeue', {});
    expect(empty.status).toBe(200);
    expect(empty.json).toEqual({ messages: [] });
    await eventually(
      'nothing is left',
      async () => JSON.stringify((await queue.get()).stats) === JSON.stringify(EMPTY_STATS),
    );
  });

  test('nacks a message, dequeues it again and extends its lease', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('again');
    const { receipt } = await queue.dequeueOne();

    const nacked = await queue.request('nack', { receipts: [receipt] });
    expect(nacked.status).toBe(200);
    expect(nacked.json).toEqual({ nacked: [receipt], failed: [] });

    const again = await queue.dequeueOne({ leaseSeconds: 10 });
    expect(again.receiveCount).toBe(2);
    expect(again.receipt).not.toBe(receipt);
    const extended = await queue.request<{ extended: { leaseExpiresAt: string }[] }>('extend', {
      receipts: [again.receipt],
      leaseSeconds: 600,
    });
    expect(extended.status).toBe(200);
    expect(extended.json).toEqual({ extended: [{ receipt: again.receipt, leaseExpiresAt: TIME }], failed: [] });
    expect(seconds(again.leaseExpiresAt, extended.json.extended[0]!.leaseExpiresAt)).toBeGreaterThan(585);
  });

  test('browses each state without leasing anything', async () => {
    const queue = await shared.newQueue();
    const [leasedId, readyId, delayedId] = await queue.enqueue('leased', 'ready', {
      body: 'delayed',
      delaySeconds: 600,
      headers: { a: 'b' },
      priority: 7,
    });
    const leased = await queue.dequeueOne();
    const origin = { lastNackReason: null, source: null, moves: [] };
    const common = { bodyEncoding: 'utf8', headers: {}, priority: 4, receiveCount: 0, ...origin };
    const times = { enqueuedAt: TIME, availableAt: TIME, expiresAt: TIME };

    const answer = await shared.api.get(`${queue.adminPath}/messages`);
    expect(answer.status).toBe(200);
    expect(answer.json).toEqual({
      messages: [{ ...common, ...times, id: readyId, body: 'ready', state: 'ready' }],
      examined: 1,
      nextAfter: null,
    });
    expect(await queue.browse('delayed')).toEqual([
      { ...common, ...times, id: delayedId, body: 'delayed', headers: { a: 'b' }, priority: 7, state: 'delayed' },
    ]);
    expect(await queue.browse('leased')).toEqual([
      {
        ...common,
        ...times,
        id: leasedId,
        body: 'leased',
        state: 'leased',
        receiveCount: 1,
        expiresAt: leased.expiresAt,
        leasedAt: TIME,
        consumer: 'node',
      },
    ]);

    expect((await queue.dequeue({ maxMessages: 10 })).map(({ id }) => id)).toEqual([readyId]);
  });

  test('browses page by page, each message once', async () => {
    const queue = await shared.newQueue();
    const ids = await queue.enqueue(
      ...Array.from({ length: 25 }, (_, index) => ({ body: String(index), priority: index % 3 })),
    );
    const seen: string[] = [];
    const sizes: number[] = [];
    for (let after = ''; ;) {
      const { json } = await shared.api.get<{ messages: { id: string }[]; nextAfter: string | null }>(
        `${queue.adminPath}/messages?limit=10${after}`,
      );
      seen.push(...json.messages.map(({ id }) => id));
      sizes.push(json.messages.length);
      if (json.nextAfter === null) break;
      after = `&after=${encodeURIComponent(json.nextAfter)}`;
    }
    expect(sizes).toEqual([10, 10, 5]);
    const inHandOutOrder = [2, 1, 0].flatMap((priority) => ids.filter((_, index) => index % 3 === priority));
    expect(seen).toEqual(inHandOutOrder);
    expect(await shared.api.get(`${queue.adminPath}/messages`)).toMatchObject({ status: 200 });
  });

  test('reads one message, from its enqueue until it is settled', async () => {
    const queue = await shared.newQueue();
    const [id] = await queue.enqueue({ body: 'seen', headers: { k: 'v' } });
    const content = {
      id,
      body: 'seen',
      bodyEncoding: 'utf8',
      headers: { k: 'v' },
      enqueuedAt: TIME,
      expiresAt: TIME,
      queue: queue.name,
      topic: null,
      endings: [],
    };
    const delivery = {
      queue: queue.name,
      priority: 4,
      receiveCount: 0,
      availableAt: TIME,
      expiresAt: TIME,
      lastNackReason: null,
      source: null,
      moves: [],
    };
    expect(await shared.api.message(id!)).toEqual({
      ...content,
      settled: false,
      deliveries: [{ ...delivery, state: 'ready' }],
    });
    const { receipt } = await queue.dequeueOne();
    expect((await shared.api.message(id!)).deliveries).toEqual([
      { ...delivery, state: 'leased', receiveCount: 1, leasedAt: TIME, consumer: 'node' },
    ]);
    await queue.ack(receipt);
    expect(await shared.api.message(id!)).toEqual({ ...content, settled: true, deliveries: [] });
    expect(await shared.api.message(id!.toUpperCase())).toMatchObject({ id, settled: true });
  });

  test('pauses, resumes, purges and redrives', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('one', 'two');
    const { api } = shared;

    const paused = await api.post(`${queue.adminPath}/pause`);
    expect({ status: paused.status, json: paused.json }).toEqual({
      status: 200,
      json: { name: queue.name, paused: true, producersPaused: false },
    });
    const resumed = await api.post(`${queue.adminPath}/resume`);
    expect({ status: resumed.status, json: resumed.json }).toEqual({
      status: 200,
      json: { name: queue.name, paused: false, producersPaused: false },
    });
    const job = {
      id: expect.any(String),
      queue: queue.name,
      toQueue: null,
      filter: {},
      maxMessages: null,
      state: 'done',
      total: 2,
      examined: 2,
      error: null,
      worker: null,
      createdAt: TIME,
      updatedAt: TIME,
      finishedAt: TIME,
    };
    expect(await queue.job('redrive')).toEqual({
      ...job,
      kind: 'redrive',
      messagesPerSecond: 1000,
      done: 0,
      skipped: 2,
    });
    expect(await queue.job('purge')).toEqual({ ...job, kind: 'purge', messagesPerSecond: null, done: 2, skipped: 0 });
  });

  test('reads the reaper’s state, which names nobody without a reaper', async () => {
    const answer = await shared.api.get('/v1/admin/reaper');
    expect({ status: answer.status, json: answer.json }).toEqual({ status: 200, json: { leader: null, duties: [] } });
  });
});

describe.concurrent('every call on a queue that does not exist', () => {
  const receipt = encodeReceipt({ messageId: Buffer.alloc(16), leaseToken: Buffer.alloc(8), part: 0, members: 1 });
  test.each<[string, string, unknown]>([
    ['POST', '/v1/queues/nowhere/messages', { messages: [{ body: 'lost?' }] }],
    ['POST', '/v1/queues/nowhere/messages/dequeue', {}],
    ['POST', '/v1/queues/nowhere/messages/dequeue', { waitSeconds: 20 }],
    ['POST', '/v1/queues/nowhere/messages/ack', { receipts: [receipt] }],
    ['POST', '/v1/queues/nowhere/messages/nack', { receipts: [receipt] }],
    ['POST', '/v1/queues/nowhere/messages/extend', { receipts: [receipt], leaseSeconds: 1 }],
    ['DELETE', `/v1/queues/nowhere/messages/${receipt}`, undefined],
    ['GET', '/v1/admin/queues/nowhere', undefined],
    ['DELETE', '/v1/admin/queues/nowhere', undefined],
    ['POST', '/v1/admin/queues/nowhere/purge', undefined],
    ['POST', '/v1/admin/queues/nowhere/pause', undefined],
    ['POST', '/v1/admin/queues/nowhere/resume', undefined],
    ['POST', '/v1/admin/queues/nowhere/redrive', undefined],
    ['POST', '/v1/admin/queues/nowhere/drop', undefined],
    ['GET', '/v1/admin/queues/nowhere/messages', undefined],
  ])('is refused with queue-not-found: %s %s', async (method, path, body) => {
    const { detail } = expectProblem(await shared.api.call(method, path, body), 404, 'queue-not-found');
    expect(detail).toContain('PUT /v1/admin/queues/nowhere');
  });

  test('is refused when the name differs in case only', async () => {
    const queue = await shared.newQueue();
    expectProblem(await shared.api.get(`/v1/admin/queues/${queue.name.toUpperCase()}`), 404, 'queue-not-found');
  });

  test('says of a message that it was never stored', async () => {
    const answer = await shared.api.get('/v1/admin/messages/019a0b5d-ac96-774b-8cce-b302099a8057');
    expectProblem(answer, 404, 'delivery-not-found');
  });
});
