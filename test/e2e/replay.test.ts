import { type LeasedMessage, parseMessageId, type ReplayAnswer, type ReplayRequest } from '@rowmq/contract';
import { describe, expect, test } from 'vitest';
import { Api, expectProblem, type QueueApi, useOwnBroker } from '../support/api.js';
import { startBroker } from '../support/processes.js';
import { eventually } from '../support/wait.js';

const shared = useOwnBroker();

const ALWAYS = { from: '2020-01-01T00:00:00Z', to: '2100-01-01T00:00:00Z' };
const FAST = { ...ALWAYS, messagesPerSecond: 100_000 };
const numbers = (count: number): string[] => Array.from({ length: count }, (_, index) => String(index));

async function replay(queue: QueueApi, request: ReplayRequest): Promise<ReplayAnswer> {
  const answer = await queue.api.post<ReplayAnswer>(`${queue.adminPath}/replay`, request);
  expect(answer.status, answer.text).toBe(200);
  return answer.json;
}

/** Dequeues and acks so many messages. */
async function drain(queue: QueueApi, count: number): Promise<LeasedMessage[]> {
  const drained: LeasedMessage[] = [];
  while (drained.length < count) {
    const messages = await queue.dequeue({ maxMessages: 100, waitSeconds: 5 });
    expect(messages.length).toBeGreaterThan(0);
    await queue.ack(...messages.map(({ receipt }) => receipt));
    drained.push(...messages);
  }
  return drained;
}

describe.concurrent('a replay', () => {
  test('hands settled messages out again, as new ones that name their originals', async () => {
    const queue = await shared.newQueue();
    const ids = await queue.enqueue(
      { body: 'one', headers: { kind: 'a' } },
      { body: Buffer.of(0xff, 0).toString('base64'), bodyEncoding: 'base64' },
    );
    const [first, second] = await drain(queue, 2);
    expect([first?.replayOf, second?.replayOf]).toEqual([undefined, undefined]);
    expect(await replay(queue, FAST)).toEqual({ replayed: 2, owed: 0, complete: true, cursor: null });
    const again = await queue.dequeue({ maxMessages: 100, waitSeconds: 5 });
    expect(again.map(({ replayOf }) => replayOf)).toEqual(ids);
    expect(again).toMatchObject([
      { body: 'one', headers: { kind: 'a' }, receiveCount: 1, priority: 4 },
      { body: first!.body === 'one' ? second!.body : first!.body, bodyEncoding: 'base64' },
    ]);
    expect(again.some(({ id }) => ids.includes(id))).toBe(false);
    // Browse and the message itself show it too.
    expect((await queue.browse('leased')).map(({ replayOf }) => replayOf)).toEqual(ids);
    expect(await shared.api.message(again[0]!.id)).toMatchObject({ replayOf: ids[0], queue: queue.name });
  });

  test('leaves out messages that a queue still owes, of the same pack too, and replays no copy', async () => {
    const dead = await shared.newQueue();
    const queue = await shared.newQueue({ deadLetterQueue: dead.name });
    const ids = await queue.enqueue(...numbers(5));
    const [acked, nacked, rejected, kept] = await queue.dequeue({ maxMessages: 4, waitSeconds: 5, leaseSeconds: 600 });
    await queue.ack(acked!.receipt);
    await queue.nack([nacked!.receipt], { delaySeconds: 600 });
    await queue.request('nack', { receipts: [rejected!.receipt], deadLetter: true });
    expect(await replay(queue, FAST)).toEqual({ replayed: 1, owed: 4, complete: true, cursor: null });
    // The copy is in the range too.
    expect(await replay(queue, FAST)).toMatchObject({ replayed: 1, owed: 5 });
    expect(kept).toBeDefined();
    const copies = (await queue.dequeue({ maxMessages: 100, waitSeconds: 5 })).filter(({ replayOf }) => replayOf);
    expect(copies.map(({ replayOf }) => replayOf)).toEqual([ids[0], ids[0]]);
    await queue.ack(...copies.map(({ receipt }) => receipt));
    // Settled copies are not copied; their original is.
    expect(await replay(queue, FAST)).toMatchObject({ replayed: 1 });
    expect(await replay(dead, FAST)).toMatchObject({ replayed: 0 });
  });

  test('leaves out what was cancelled or purged, also in a dead-letter queue', async () => {
    const dead = await shared.newQueue();
    const queue = await shared.newQueue({ deadLetterQueue: dead.name });
    const ids = await queue.enqueue(...numbers(6));
    const [first, second, third] = await queue.dequeue({ maxMessages: 3, waitSeconds: 5, leaseSeconds: 600 });
    await queue.ack(first!.receipt);
    await queue.request('nack', { receipts: [second!.receipt, third!.receipt], deadLetter: true });
    expect((await shared.api.delete(`/v1/admin/messages/${ids[3]}`)).status).toBe(204);
    expect((await shared.api.delete(`/v1/admin/messages/${second!.id}`)).status).toBe(204);
    await queue.dequeueOne({ leaseSeconds: 600 });
    for (const one of [queue, dead]) await one.job('purge');
    expect(await replay(queue, FAST)).toEqual({ replayed: 1, owed: 0, complete: true, cursor: null });
    expect((await queue.dequeueOne({ waitSeconds: 5 })).replayOf).toBe(first!.id);
  });

  test('brings back what came through a topic: to each subscriber its own, as its filter says', async () => {
    const [all, even, late] = [await shared.newQueue(), await shared.newQueue(), await shared.newQueue()];
    const topic = `/v1/admin/topics/replayed`;
    const subscribe = (queue: QueueApi, filter: object | null) =>
      shared.api.put(`${topic}/subscriptions/${queue.name}`, { filter });
    await shared.api.put(topic);
    await subscribe(all, null);
    await subscribe(even, { kind: ['even'] });
    const messages = numbers(6).map((body, index) => ({ body, headers: { kind: index % 2 === 0 ? 'even' : 'odd' } }));
    expect((await shared.api.post('/v1/topics/replayed/messages', { messages })).status).toBe(201);
    const [kept] = await all.dequeue({ maxMessages: 1, leaseSeconds: 600 });
    await drain(all, 5);
    const drained = await drain(even, 3);
    await subscribe(late, null);
    // Another subscriber's copy does not matter, and a queue that came later got nothing.
    expect(await replay(all, FAST)).toMatchObject({ replayed: 5, owed: 1 });
    expect(await replay(even, FAST)).toMatchObject({ replayed: 3, owed: 0 });
    expect(await replay(late, FAST)).toMatchObject({ replayed: 0, owed: 0 });
    expect((await drain(all, 5)).map(({ replayOf }) => replayOf)).not.toContain(kept!.id);
    expect((await drain(even, 3)).map(({ replayOf }) => replayOf)).toEqual(drained.map(({ id }) => id));
    await subscribe(even, { kind: ['odd'] });
    expect(await replay(even, { ...FAST, toQueue: late.name })).toMatchObject({ replayed: 3 });
    expect((await drain(late, 3)).map(({ body }) => body)).toEqual(['1', '3', '5']);
  });

  test('goes to another queue, wakes its consumers, and takes only its range and its queue', async () => {
    const [queue, other, target] = [await shared.newQueue(), await shared.newQueue(), await shared.newQueue()];
    await queue.enqueue('before');
    await other.enqueue('other');
    const [inside] = await queue.enqueue('inside');
    const from = new Date(parseMessageId(inside!).readUIntBE(0, 6));
    await eventually('the clock moves on', () => Date.now() > from.getTime() + 1);
    const [after] = await queue.enqueue('after');
    const to = new Date(parseMessageId(after!).readUIntBE(0, 6));
    await drain(queue, 3);
    await drain(other, 1);
    const waiting = target.dequeueOne({ waitSeconds: 20 });
    const range = { from: from.toISOString(), to: to.toISOString() };
    const { replayed } = await replay(queue, { ...range, toQueue: target.name });
    // 'before' may share its millisecond with 'inside'.
    expect(replayed).toBeOneOf([1, 2]);
    expect((await waiting).body).toBeOneOf(['before', 'inside']);
    expect((await queue.get()).stats.ready).toBe(0);
  });

  test('keeps to its rate, ends after ten seconds, and goes on from its cursor without a double or a gap', async () => {
    const queue = await shared.newQueue();
    const target = await shared.newQueue();
    const bodies = numbers(1500);
    for (let first = 0; first < bodies.length; first += 100) await queue.enqueue(...bodies.slice(first, first + 100));
    await drain(queue, bodies.length);
    const began = performance.now();
    const part = await replay(queue, { ...ALWAYS, toQueue: target.name, messagesPerSecond: 50 });
    const seconds = (performance.now() - began) / 1000;
    expect(part.complete).toBe(false);
    expect(part.replayed).toBeGreaterThan(0);
    expect(part.replayed / seconds).toBeLessThanOrEqual(50);
    let { replayed, cursor } = part;
    while (cursor !== null) {
      const next: ReplayAnswer = await replay(queue, { ...FAST, toQueue: target.name, cursor });
      replayed += next.replayed;
      cursor = next.cursor;
    }
    expect(replayed).toBe(1500);
    const got = (await drain(target, 1500)).map(({ body }) => Number(body));
    expect(got.toSorted((one, other) => one - other)).toEqual(bodies.map(Number));
  }, 120_000);

  test('answers what it did before its target was full, and refuses at once when it can do nothing', async () => {
    const queue = await shared.newQueue();
    const target = await shared.newQueue({ maxDepth: 100 });
    for (let batch = 0; batch < 5; batch += 1) await queue.enqueue(...numbers(100));
    await drain(queue, 500);
    const request = { ...FAST, messagesPerSecond: 200, toQueue: target.name };
    const { replayed, complete, cursor } = await replay(queue, request);
    expect(replayed).toBeGreaterThan(0);
    expect(replayed).toBeLessThanOrEqual(100);
    expect(complete).toBe(false);
    const path = `${queue.adminPath}/replay`;
    if (replayed < 100) await target.enqueue(...numbers(100 - replayed));
    expectProblem(await shared.api.post(path, { ...request, cursor }), 429, 'queue-full');
    expect((await target.get()).stats.ready).toBe(100);
  });

  test.each<[string, object, string]>([
    ['no range', {}, 'from'],
    ['an empty range', { from: ALWAYS.to, to: ALWAYS.to }, 'to'],
    ['a time without a zone', { ...ALWAYS, from: '2026-01-01T00:00:00' }, 'from'],
    ['a rate below 10', { ...ALWAYS, messagesPerSecond: 9 }, 'messagesPerSecond'],
    ['a cursor of something else', { ...ALWAYS, cursor: 'x' }, 'cursor'],
    ['an unknown field', { ...ALWAYS, since: 1 }, ''],
  ])('is refused for %s', async (_, request, path) => {
    const queue = await shared.newQueue();
    const problem = expectProblem(await shared.api.post(`${queue.adminPath}/replay`, request), 400, 'invalid-request');
    expect(problem.faults?.map((fault) => fault.path)).toContain(path);
  });

  test('is refused for a queue, or to a queue, that does not exist', async () => {
    const queue = await shared.newQueue();
    expectProblem(await shared.api.post('/v1/admin/queues/nowhere/replay', ALWAYS), 404, 'queue-not-found');
    const request = { ...ALWAYS, toQueue: 'nowhere' };
    expectProblem(await shared.api.post(`${queue.adminPath}/replay`, request), 404, 'queue-not-found');
  });
});

test('a replay goes on at another broker after its own was killed: nothing is missing, and doubles name one original', async () => {
  const [dying, other] = [
    await startBroker({ database: shared.broker.database }),
    await startBroker({ database: shared.broker.database }),
  ];
  try {
    const queue = new Api(other.url).queue('replay-killed');
    const target = new Api(other.url).queue('replay-killed-target');
    await queue.put();
    await target.put();
    const ids: string[] = [];
    for (let batch = 0; batch < 10; batch += 1) ids.push(...(await queue.enqueue(...numbers(100))));
    await drain(queue, 1000);
    const request = { ...ALWAYS, toQueue: target.name, messagesPerSecond: 200 };
    const lost = new Api(dying.url).post(`${queue.adminPath}/replay`, request).catch(() => undefined);
    await eventually('some are replayed', async () => (await target.get()).stats.ready >= 100);
    await dying.kill();
    await lost;
    const { replayed, complete } = await replay(queue, { ...request, messagesPerSecond: 100_000 });
    expect([replayed, complete]).toEqual([1000, true]);
    // The last chunk of the killed broker may have been committed late.
    const { ready } = (await target.get()).stats;
    const originals = (await drain(target, ready)).map(({ replayOf }) => replayOf as string);
    expect(new Set(originals)).toEqual(new Set(ids));
  } finally {
    await other.stop();
  }
}, 120_000);
