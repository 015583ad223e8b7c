import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PublishAnswer, SubscriptionAnswer, TopicAnswer, TopicsAnswer } from '@rowmq/contract';
import { Api, type Answer, expectProblem, type QueueApi, useOwnBroker } from '../support/api.js';
import { type Broker, startBroker } from '../support/processes.js';
import { eventually } from '../support/wait.js';

const shared = useOwnBroker();
/** Another broker on the same database. */
let other: Broker;

beforeAll(async () => {
  other = await startBroker({ database: shared.broker.database });
});
afterAll(async () => {
  await other.stop();
});

let topics = 0;

/** A new topic to which these queues subscribe, with the filter of each if it has one. */
async function newTopic(...queues: readonly (QueueApi | [QueueApi, object])[]): Promise<string> {
  topics += 1;
  const name = `topic-${topics}`;
  expect((await shared.api.put(`/v1/admin/topics/${name}`)).status).toBe(201);
  for (const one of queues) {
    const [queue, filter] = Array.isArray(one) ? one : [one, null];
    expect((await subscribe(name, queue.name, { filter })).status).toBe(201);
  }
  return name;
}

const subscriptionPath = (topic: string, queue: string) => `/v1/admin/topics/${topic}/subscriptions/${queue}`;
const subscribe = (topic: string, queue: string, body?: object): Promise<Answer<SubscriptionAnswer>> =>
  shared.api.put(subscriptionPath(topic, queue), body);

/** Publishes messages with these bodies and headers. Returns the number of their subscriptions. */
async function publish(topic: string, ...messages: [string, Record<string, string>?][]): Promise<number[]> {
  const answer = await shared.api.post<PublishAnswer>(`/v1/topics/${topic}/messages`, {
    messages: messages.map(([body, headers]) => ({ body, ...(headers && { headers }) })),
  });
  expect(answer.status, answer.text).toBe(201);
  return answer.json.messages.map(({ subscriptions }) => subscriptions);
}

const bodies = (messages: { body: string }[]): string[] => messages.map(({ body }) => body);

describe.concurrent('publish', () => {
  test('gives each queue the messages that its filter wants, and says how many queues got each', async () => {
    const [all, orders, large] = await Promise.all([shared.newQueue(), shared.newQueue(), shared.newQueue()]);
    const topic = await newTopic(
      all,
      [orders, { event: [{ prefix: 'order-' }] }],
      [large, { event: ['order-created'], amount: [{ numeric: ['>=', 100] }] }],
    );
    const counts = await publish(
      topic,
      ['created', { event: 'order-created', amount: '250' }],
      ['deleted', { event: 'order-deleted', amount: '250' }],
      ['paid', { event: 'paid' }],
    );
    expect(counts).toEqual([3, 2, 1]);
    expect(bodies(await all.dequeue({ maxMessages: 10 }))).toEqual(['created', 'deleted', 'paid']);
    expect(bodies(await orders.dequeue({ maxMessages: 10 }))).toEqual(['created', 'deleted']);
    expect(bodies(await large.dequeue({ maxMessages: 10 }))).toEqual(['created']);
  });

  test('stores what names an id or a key once, for the time of the topic', async () => {
    const queue = await shared.newQueue();
    const topic = await newTopic(queue);
    const path = `/v1/topics/${topic}/messages`;
    const publishOnce = (body: string, headers = {}, at = shared.api) =>
      at.call<PublishAnswer>('POST', path, { messages: [{ body, deduplicationId: 'a' }] }, headers);
    const first = await publishOnce('1');
    expect(first.json).toEqual({ messages: [{ id: expect.any(String), subscriptions: 1 }] });
    expect((await publishOnce('2', {}, new Api(other.url))).json).toEqual({
      messages: [{ ...first.json.messages[0], duplicate: true }],
    });
    const key = { 'idempotency-key': '"k"' };
    const keyed = await publishOnce('3', key);
    expect((await publishOnce('3', key)).json).toEqual(keyed.json);
    expectProblem(await publishOnce('4', key), 422, 'idempotency-key-reused');
    const settings = `/v1/admin/topics/${topic}`;
    expect((await shared.api.put<TopicAnswer>(settings, { deduplicationSeconds: 60 })).json).toMatchObject({
      deduplicationSeconds: 60,
    });
    expect((await shared.api.put<TopicAnswer>(settings)).json.deduplicationSeconds).toBe(60);
    expectProblem(await shared.api.put(settings, { deduplicationSeconds: 0 }), 400, 'invalid-request');
    expect(bodies(await queue.dequeue({ maxMessages: 10 }))).toEqual(['1']);
  });

  test('keeps the order of groups in ordered queues, and wakes their consumers', async () => {
    const ordered = await shared.newQueue({ ordering: 'group' });
    const plain = await shared.newQueue();
    const topic = await newTopic(ordered, plain);
    const path = `/v1/topics/${topic}/messages`;
    const refused = expectProblem(await shared.api.post(path, { messages: [{ body: '' }] }), 400, 'invalid-request');
    expect(refused.detail).toContain(`Queue '${ordered.name}', which subscribes to topic`);
    const waiting = ordered.dequeue({ maxMessages: 10, waitSeconds: 20 });
    const messages = ['a1', 'b1', 'a2'].map((body) => ({ body, groupId: body.slice(0, 1) }));
    expect((await shared.api.post<PublishAnswer>(path, { messages })).json.messages).toMatchObject(
      messages.map(() => ({ subscriptions: 2 })),
    );
    const got = await waiting;
    expect(got.filter(({ groupId }) => groupId === 'a').map(({ body }) => body)).toEqual(['a1', 'a2']);
    const others = await plain.dequeue({ maxMessages: 10 });
    expect(others.map(({ body, groupId }) => `${body} of ${groupId}`).toSorted()).toEqual([
      'a1 of a',
      'a2 of a',
      'b1 of b',
    ]);
  });

  test('that nobody wants is an answer and no error', async () => {
    const queue = await shared.newQueue();
    const topic = await newTopic([queue, { event: ['never'] }]);
    expect(await publish(topic, ['a'], ['b'])).toEqual([0, 0]);
    expect(await queue.dequeue()).toEqual([]);
  });

  test('hands a message to the waiting consumers of every subscription, also on another broker', async () => {
    const [here, alsoHere, there] = await Promise.all([shared.newQueue(), shared.newQueue(), shared.newQueue()]);
    const topic = await newTopic(here, alsoHere, there);
    const consumers = [here, alsoHere, new Api(other.url).queue(there.name)].map(async (queue) =>
      queue.dequeueOne({ waitSeconds: 20, leaseSeconds: 60 }),
    );
    await eventually('they wait', async () => {
      const waiting = await Promise.all(
        [shared.broker.url, other.url].map((url) => new Api(url).metric('rowmq_waiting_consumers')),
      );
      return waiting[0]! >= 2 && waiting[1]! >= 1;
    });
    await publish(topic, ['for all']);
    const messages = await Promise.all(consumers);
    expect(bodies(messages)).toEqual(['for all', 'for all', 'for all']);
    expect(new Set(messages.map(({ id }) => id)).size).toBe(1);
    const { deliveries, ...message } = await shared.api.message(messages[0]!.id);
    expect(message).toMatchObject({ queue: null, topic, settled: false, body: 'for all' });
    expect(deliveries.map(({ queue, state }) => `${queue} ${state}`).toSorted()).toEqual(
      [here, alsoHere, there].map(({ name }) => `${name} leased`).toSorted(),
    );
    // Each queue's consumer settles its own copy, and a receipt proves nothing in another queue.
    expect((await here.ack(messages[0]!.receipt)).failed).toEqual([]);
    expect((await alsoHere.ack(messages[0]!.receipt)).failed).toMatchObject([{ code: 'lease-lost' }]);
    expect((await alsoHere.ack(messages[1]!.receipt)).failed).toEqual([]);
    expect((await there.ack(messages[2]!.receipt)).failed).toEqual([]);
    expect(await shared.api.message(messages[0]!.id)).toMatchObject({ settled: true, deliveries: [] });
  });

  test('is refused as a whole if one queue is full', async () => {
    const [free, full] = await Promise.all([shared.newQueue(), shared.newQueue({ maxDepth: 1 })]);
    const topic = await newTopic(free, full);
    const answer = await shared.api.post(`/v1/topics/${topic}/messages`, { messages: [{ body: 'a' }, { body: 'b' }] });
    expect(expectProblem(answer, 429, 'queue-full').detail).toContain(
      `Queue '${full.name}', which subscribes to topic`,
    );
    expect(answer.headers.get('retry-after')).toBe('1');
    expect(await free.dequeue()).toEqual([]);
  });

  test('refuses an unknown topic, and what enqueue refuses', async () => {
    expectProblem(
      await shared.api.post('/v1/topics/nowhere/messages', { messages: [{ body: '' }] }),
      404,
      'topic-not-found',
    );
    const topic = await newTopic();
    const path = `/v1/topics/${topic}/messages`;
    expectProblem(await shared.api.post(path, { messages: [] }), 400, 'invalid-request');
    expectProblem(await shared.api.post(path, { messages: [{ body: 'x'.repeat(5000) }] }), 413, 'message-too-large');
  });
});

describe.concurrent('a topic', () => {
  test('is created, shown, listed and deleted', async () => {
    const queue = await shared.newQueue();
    const topic = await newTopic(queue);
    const path = `/v1/admin/topics/${topic}`;
    const shown = {
      name: topic,
      deduplicationSeconds: 300,
      createdAt: expect.stringMatching(/Z$/),
      subscriptions: [{ queue: queue.name, filter: null, createdAt: expect.stringMatching(/Z$/) }],
    };
    expect(await shared.api.put<TopicAnswer>(path)).toMatchObject({ status: 200, json: shown });
    expect(await shared.api.get<TopicAnswer>(path)).toMatchObject({ status: 200, json: shown });
    const { json } = await shared.api.get<TopicsAnswer>('/v1/admin/topics');
    expect(json.topics.find(({ name }) => name === topic)).toEqual(shown);
    expect((await shared.api.delete(path)).status).toBe(204);
    expectProblem(await shared.api.get(path), 404, 'topic-not-found');
    expectProblem(await shared.api.delete(path), 404, 'topic-not-found');
    expectProblem(await shared.api.put('/v1/admin/topics/no name'), 400, 'invalid-request');
    expectProblem(await shared.api.put(path, { unknown: true }), 400, 'invalid-request');
  });

  test('has subscriptions, whose filter stays unless it is given', async () => {
    const queue = await shared.newQueue();
    const topic = await newTopic();
    const path = subscriptionPath(topic, queue.name);
    const filter = { event: [{ 'anything-but': ['a', 'b'] }] };
    expect(await subscribe(topic, queue.name, { filter })).toMatchObject({
      status: 201,
      json: { topic, queue: queue.name, filter },
    });
    expect(await subscribe(topic, queue.name)).toMatchObject({ status: 200, json: { filter } });
    expect(await subscribe(topic, queue.name, { filter: null })).toMatchObject({ status: 200, json: { filter: null } });
    expect(await shared.api.get(path)).toMatchObject({ status: 200, json: { filter: null } });
    expect((await shared.api.delete(path)).status).toBe(204);
    expectProblem(await shared.api.get(path), 404, 'subscription-not-found');
    expectProblem(await shared.api.delete(path), 404, 'subscription-not-found');
    expectProblem(await subscribe('nowhere', queue.name), 404, 'topic-not-found');
    expectProblem(await subscribe(topic, 'nowhere'), 404, 'queue-not-found');
    const refused = expectProblem(
      await subscribe(topic, queue.name, { filter: { event: [1] } }),
      400,
      'invalid-request',
    );
    expect(refused.faults?.[0]?.path).toBe('filter.event.0');
  });

  test('loses a subscription with its queue', async () => {
    const [queue, stays] = await Promise.all([shared.newQueue(), shared.newQueue()]);
    const topic = await newTopic(queue, stays);
    expect((await shared.api.delete(`${queue.adminPath}?force=true`)).status).toBe(204);
    expect(await publish(topic, ['after'])).toEqual([1]);
    await queue.put();
    expect(await publish(topic, ['to a new queue of the old name'])).toEqual([1]);
    expect(await queue.dequeue()).toEqual([]);
    const { json } = await shared.api.get<TopicAnswer>(`/v1/admin/topics/${topic}`);
    expect(json.subscriptions.map((one) => one.queue)).toEqual([stays.name]);
  });
});
