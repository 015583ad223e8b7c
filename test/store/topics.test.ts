import { LIMITS, packIdOf } from '@rowmq/contract';
import {
  FIRST_ID,
  type LeasedMessage,
  MessageRepository,
  type Published,
  type PublishRequest,
  type Queue,
} from '@rowmq/store';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { deliveryRows, owedIds, owedMessages } from '../support/deliveries.js';
import { losingAnswers } from '../support/lost-answer.js';
import { deadLetterAll, hex, MINUTE, START } from '../support/partitions.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { claimFrom } from '../support/claim-from.js';

let store: TestStore;
let topicNumber = 0;

beforeAll(async () => {
  store = await openStore();
  return () => store.close();
});
beforeEach(async () => {
  store.at(undefined);
  for (const table of ['delivery', 'pack', 'subscription', 'topic']) await store.database.write(`DELETE FROM ${table}`);
});

/** A topic to which these queues subscribe. */
async function topicOf(queues: readonly Queue[], filters: Parameters<typeof subscribe>[2][] = []): Promise<string> {
  topicNumber += 1;
  const name = `topic-${topicNumber}`;
  await store.topics.put(name);
  for (const [index, queue] of queues.entries()) await subscribe(name, queue, filters[index]);
  return name;
}

async function subscribe(
  topic: string,
  queue: Queue,
  filter?: Parameters<TestStore['topics']['putSubscription']>[2],
): Promise<void> {
  await store.topics.putSubscription(topic, queue.name, filter);
}

async function createQueues(count: number, settings: Parameters<typeof createQueue>[1] = {}): Promise<Queue[]> {
  const queues: Queue[] = [];
  while (queues.length < count) queues.push(await createQueue(store, settings));
  return queues;
}

/** Messages whose bodies are their numbers, and whose header `kind` takes these values in turn. */
function ofKinds(count: number, kinds: readonly string[]) {
  return numbered(count).map((one, index) => ({
    ...one,
    headers: Buffer.from(JSON.stringify({ kind: kinds[index % kinds.length] })),
  }));
}

const takeAll = (queue: Queue): Promise<LeasedMessage[]> =>
  store.messages.dequeue(queue, { maxMessages: 1000, leaseSeconds: 30 });

async function rowsOf(table: 'pack' | 'delivery'): Promise<number> {
  const [row] = await store.database.read<{ n: number }>(`SELECT COUNT(*) AS n FROM ${table}`);
  return Number(row?.n);
}

const onlyOf = (kind: string) => ({ kind: [kind] });

describe('a publish', () => {
  test('gives every subscription each message that it wants, also the last of a batch', async () => {
    const [all, even, odd, none] = (await createQueues(4)) as [Queue, Queue, Queue, Queue];
    const filters = [null, onlyOf('even'), onlyOf('odd'), onlyOf('never')];
    const topic = await topicOf([all, even, odd, none], filters);
    const published = await store.messages.publish(topic, ofKinds(100, ['even', 'odd']));
    expect(published.map(({ queues }) => queues.length)).toEqual(Array.from({ length: 100 }, () => 2));

    const numbers = Array.from({ length: 100 }, (_, number) => number);
    const taken = async (queue: Queue) =>
      bodies(await takeAll(queue))
        .map(Number)
        .toSorted((one, other) => one - other);
    expect(await taken(all)).toEqual(numbers);
    expect(await taken(even)).toEqual(numbers.filter((number) => number % 2 === 0));
    expect(await taken(odd)).toEqual(numbers.filter((number) => number % 2 === 1));
    expect(await taken(none)).toEqual([]);
  });

  test('to 100 subscriptions costs a pack and 100 deliveries for each 32 messages', async () => {
    const topic = await topicOf([]);
    const [template] = (await createQueues(1)) as [Queue];
    const columns = (await store.database.read<{ Field: string }>('SHOW COLUMNS FROM queue'))
      .map(({ Field }) => Field)
      .filter((name) => name !== 'id' && name !== 'name');
    const numbers = Array.from({ length: 100 }, (_, number) => `SELECT 'subscriber-${number}' AS subscriber`);
    await store.database.write(
      `INSERT INTO queue (name, ${columns.join(',')})
       SELECT subscriber, ${columns.join(',')} FROM queue JOIN (${numbers.join(' UNION ')}) AS numbers WHERE id = ?`,
      [template.id],
    );
    await store.database.write(
      `INSERT INTO subscription (topic_id, queue_id, created_at)
       SELECT topic.id, queue.id, 1 FROM topic JOIN queue WHERE queue.name LIKE 'subscriber-%'`,
    );
    await store.messages.publish(topic, numbered(64));
    expect({ packs: await rowsOf('pack'), deliveries: await rowsOf('delivery') }).toEqual({
      packs: 2,
      deliveries: 200,
    });
  });

  test('packs messages together that the same subscriptions want, across the requests of a batch', async () => {
    const [one, other] = (await createQueues(2)) as [Queue, Queue];
    const topic = await topicOf([one, other], [onlyOf('a'), { kind: ['a', 'b'] }]);
    const request = (): PublishRequest => ({
      topicName: topic,
      messages: ['a', 'b', 'c', 'a', 'b', 'c'].map((kind) => ({ ...message(), values: { kind } })),
    });
    const outcomes = await store.messages.batches.publish([request(), request()]);
    const matched = outcomes.map((outcome) => (outcome as Published[]).map(({ queues }) => queues.length));
    expect(matched).toEqual([
      [2, 1, 0, 2, 1, 0],
      [2, 1, 0, 2, 1, 0],
    ]);
    expect({ packs: await rowsOf('pack'), deliveries: await rowsOf('delivery') }).toEqual({ packs: 2, deliveries: 3 });
    const members = async (queue: Queue) => (await deliveryRows(store, queue)).map((row) => row.members);
    expect(await members(one)).toEqual([0b1111]);
    expect(await members(other)).toEqual([0b1111, 0b1111]);
  });

  test('stores nothing of a message that no subscription wants, and gives it an id', async () => {
    const topic = await topicOf(await createQueues(1), [onlyOf('never')]);
    const [published] = await store.messages.publish(topic, [message()]);
    expect(published).toEqual({ id: expect.any(Buffer), duplicate: false, subscriptions: 0, queues: [] });
    expect({ packs: await rowsOf('pack'), deliveries: await rowsOf('delivery') }).toEqual({ packs: 0, deliveries: 0 });
    expect(await store.browse.message(published!.id)).toBeUndefined();
  });

  test('obeys the settings of each queue', async () => {
    store.at(START);
    const plain = await createQueue(store);
    const late = await createQueue(store, { delaySeconds: 60, messageTtlSeconds: 120 });
    const paused = await createQueue(store);
    await store.queues.setPaused(paused.name, { paused: true });
    const topic = await topicOf([plain, late, paused]);
    await store.messages.publish(topic, [message()]);
    const times = async (queue: Queue) =>
      (await owedMessages(store, queue)).map(({ availableAt, expiresAt }) => [availableAt - START, expiresAt - START]);
    const lifeMs = plain.messageTtlSeconds * 1000;
    expect(await times(plain)).toEqual([[0, lifeMs]]);
    expect(await times(late)).toEqual([[60_000, 180_000]]);
    expect(await times(paused)).toEqual([[0, lifeMs]]);
  });

  test('is refused as a whole if one queue has no room, or delays a message beyond its expiry', async () => {
    const [free, full] = (await createQueues(2)) as [Queue, Queue];
    await store.queues.put(full.name, { maxDepth: 2, delaySeconds: 60 });
    const topic = await topicOf([free, full]);
    await expect(store.messages.publish(topic, numbered(3))).rejects.toMatchObject({
      code: 'queue-full',
      retryAfterSeconds: 1,
      message: expect.stringContaining(`Queue '${full.name}', which subscribes to topic '${topic}', refuses`),
    });
    await expect(store.messages.publish(topic, [message({ expiresInSeconds: 60 })])).rejects.toMatchObject({
      code: 'invalid-request',
      message: expect.stringContaining(full.name),
    });
    expect(await rowsOf('pack')).toBe(0);
    // The refused messages take up no room.
    await store.messages.publish(topic, numbered(2));
    expect(await owedIds(store, free)).toHaveLength(2);
    await expect(store.messages.publish(topic, numbered(1))).rejects.toMatchObject({ code: 'queue-full' });
  });

  test('to a topic that does not exist is refused', async () => {
    await expect(store.messages.publish('nowhere', [message()])).rejects.toMatchObject({ code: 'topic-not-found' });
  });

  test('follows a change that another broker has just made', async () => {
    const [first, second] = (await createQueues(2)) as [Queue, Queue];
    const topic = await topicOf([]);
    const counts: number[] = [];
    const publish = async (): Promise<void> => {
      const [published] = await store.messages.publish(topic, [message()]);
      counts.push(published!.queues.length);
    };
    // Each publish rests on a topic that is cached, so only the check in the database can notice.
    await publish();
    await subscribe(topic, first);
    await publish();
    await subscribe(topic, second, onlyOf('never'));
    await publish();
    await subscribe(topic, second, null);
    await publish();
    await store.queues.put(first.name, { delaySeconds: 60 });
    await publish();
    await store.queues.delete(first.name);
    await publish();
    // A new queue of the old name is not subscribed.
    await store.queues.put(first.name, {});
    await publish();
    await store.topics.deleteSubscription(topic, second.name);
    await publish();
    expect(counts).toEqual([0, 1, 1, 2, 2, 1, 1, 0]);
    const last = (await deliveryRows(store, first)).at(-1);
    expect(last!.availableAt).toBeGreaterThan(Date.now() + 30_000);
    await store.topics.delete(topic);
    await expect(publish()).rejects.toMatchObject({ code: 'topic-not-found' });
  });

  test('stores nothing twice if its COMMIT gets no answer, and nothing at all if none was wanted', async () => {
    const [queue] = (await createQueues(1)) as [Queue];
    const topic = await topicOf([queue], [onlyOf('a')]);
    const losing = new MessageRepository(losingAnswers(store.database));
    const publish = async (kind: string) =>
      losing.publish([{ topicName: topic, messages: [{ ...message(), values: { kind } }] }]);
    const [outcome] = await publish('a');
    expect(await owedIds(store, queue)).toEqual(hex((outcome as Published[]).map(({ id }) => id)));
    expect(await publish('b')).toMatchObject([[{ id: expect.any(Buffer), queues: [] }]]);
    expect(await rowsOf('pack')).toBe(1);
  });

  test('hands messages off to the consumers of every subscription', async () => {
    const [one, other, idle] = (await createQueues(3)) as [Queue, Queue, Queue];
    const topic = await topicOf([one, other, idle]);
    const wants = new Map([
      [one.name, 2],
      [other.name, 40],
    ]);
    const handedOff = new Map<string, LeasedMessage[]>();
    const [outcome] = await store.messages.batches.publish(
      [{ topicName: topic, messages: numbered(40).map((sent) => ({ ...sent, values: {} })) }],
      {
        reserve: ({ name }) => {
          const maxMessages = wants.get(name);
          if (maxMessages === undefined) return [];
          const handOff = (leased: LeasedMessage[]) => void handedOff.set(name, leased);
          return [{ maxMessages, leaseSeconds: 30, handOff, cancel: () => undefined }];
        },
      },
    );
    const ids = (outcome as Published[]).map(({ id }) => id);
    expect(handedOff.get(one.name)?.map(({ messageId }) => messageId)).toEqual(ids.slice(0, 2));
    expect(handedOff.get(other.name)?.map(({ messageId }) => messageId)).toEqual(ids);
    expect(bodies(await takeAll(one))).toHaveLength(38);
    expect(await takeAll(other)).toEqual([]);
    expect(bodies(await takeAll(idle))).toHaveLength(40);
    for (const queue of [one, other]) {
      const leased = handedOff.get(queue.name) ?? [];
      expect(await store.messages.ack(queue.id, leased)).toEqual(leased.map(() => null));
    }
    // One copy of each body, and a row more for the queue whose consumer took a part.
    expect(await rowsOf('pack')).toBe(2);
  });
});

describe('copies of one message that meet in a dead-letter queue', () => {
  const LATER = START + 5 * MINUTE;
  let graveyard: Queue;
  let one: Queue;
  let other: Queue;
  let ids: Buffer[];

  beforeEach(async () => {
    graveyard = await createQueue(store);
    [one, other] = (await createQueues(2, { maxReceives: 1, deadLetterQueue: graveyard.name })) as [Queue, Queue];
    // A subscriber of its own: there are three copies.
    const topic = await topicOf([graveyard, one, other]);
    ids = (await store.at(START).messages.publish(topic, numbered(2))).map(({ id }) => id);
    for (const queue of [one, other]) {
      store.at(START);
      expect(await takeAll(queue)).toHaveLength(2);
      expect(await deadLetterAll(store, queue, START + 2 * MINUTE)).toBe(2);
    }
    store.at(LATER);
  });

  test('are owed each by itself, and no claim gives two of them one receipt', async () => {
    expect(await owedIds(store, graveyard)).toEqual(hex(ids.flatMap((id) => [id, id, id])));
    const { leased, claimAgain } = await claimFrom(store.messages.batches, graveyard, [
      { maxMessages: 100, leaseSeconds: 30 },
    ]);
    expect(leased[0]?.map(({ messageId }) => messageId)).toEqual(ids);
    expect(await claimAgain).toBe(true);
    const taken = [leased[0] ?? [], await takeAll(graveyard), await takeAll(graveyard)];
    expect(taken.map(({ length }) => length)).toEqual([2, 2, 2]);
    expect(new Set(taken.map(([first]) => first?.leaseToken.toString('hex'))).size).toBe(3);
    expect(await takeAll(graveyard)).toEqual([]);

    const views = await store.browse.deliveries(ids[0]!, [graveyard.id, one.id, other.id]);
    expect(views.map(({ queueId, state }) => [queueId, state])).toEqual(
      Array.from({ length: 3 }, () => [graveyard.id, 'leased']),
    );
    // Each receipt settles one copy.
    for (const [at, lease] of taken.entries()) {
      expect(await store.messages.ack(graveyard.id, lease)).toEqual([null, null]);
      expect(await owedIds(store, graveyard)).toHaveLength(4 - 2 * at);
    }
    expect(await store.messages.ack(graveyard.id, taken[0]!)).toEqual(['delivery-not-found', 'delivery-not-found']);
  });

  test('can be browsed one by one', async () => {
    const seen: string[] = [];
    for (let after: string | undefined | null; after !== null;) {
      const page: Awaited<ReturnType<TestStore['browse']['browse']>> = await store.browse.browse(
        graveyard.id,
        'ready',
        1,
        after,
      );
      seen.push(...hex(page.deliveries.map(({ messageId }) => messageId)));
      after = page.nextAfter;
    }
    expect(seen.toSorted()).toEqual(hex(ids.flatMap((id) => [id, id, id])));
  });

  test('go back each to the queue that it left, and can die again', async () => {
    const { moved, skipped, left } = await store.unleased.redrive(graveyard.id, FIRST_ID, 100);
    expect({ moved, skipped, left }).toEqual({
      moved: new Map([
        [one.id, 2],
        [other.id, 2],
      ]),
      skipped: 2,
      left: 0,
    });
    for (const queue of [graveyard, one, other]) expect(await owedIds(store, queue)).toEqual(hex(ids));
    // Back home, a message has no source: the next dead-letter queue sets it again.
    const sources = await store.database.read('SELECT 1 FROM delivery WHERE source_queue_id IS NOT NULL');
    expect(sources).toEqual([]);
    expect(await takeAll(one)).toHaveLength(2);
    expect(await deadLetterAll(store, one, LATER + 2 * MINUTE)).toBe(2);
    const again = await store.at(LATER + 3 * MINUTE).unleased.redrive(graveyard.id, FIRST_ID, 100);
    expect(again.moved).toEqual(new Map([[one.id, 2]]));
  });

  test('show their topic and no queue when one looks up the message', async () => {
    const found = await store.browse.message(ids[0]!);
    expect(found).toMatchObject({ queueId: null, topicId: expect.any(Number) });
    expect(await store.topics.nameOf(found!.topicId!)).toMatch(/^topic-/);
    expect(packIdOf(ids[0]!)).toEqual(packIdOf(ids[1]!));
  });
});

describe('a topic', () => {
  test('is created once, and keeps its subscriptions until they are ended', async () => {
    const [queue] = (await createQueues(1)) as [Queue];
    expect((await store.topics.put('events')).created).toBe(true);
    expect((await store.topics.put('events')).created).toBe(false);
    const filter = { kind: [{ prefix: 'order-' }] };
    expect((await store.topics.putSubscription('events', queue.name, filter)).created).toBe(true);
    // Without a filter the old one stays; null removes it.
    expect(await store.topics.putSubscription('events', queue.name, undefined)).toMatchObject({
      created: false,
      subscription: { filter },
    });
    expect(await store.topics.putSubscription('events', queue.name, null)).toMatchObject({
      created: false,
      subscription: { filter: null },
    });
    expect(await store.topics.list()).toEqual([
      {
        name: 'events',
        deduplicationSeconds: 300,
        createdAt: expect.any(Number),
        subscriptions: [{ queue: queue.name, filter: null, createdAt: expect.any(Number) }],
      },
    ]);
    const refusals = [
      store.topics.putSubscription('nothing', queue.name, null),
      store.topics.putSubscription('events', 'nothing', null),
      store.topics.getSubscription('events', 'nothing'),
      store.topics.deleteSubscription('events', 'nothing'),
      store.topics.delete('nothing'),
    ].map((call) => call.then(String, (error: { code: string }) => error.code));
    expect(await Promise.all(refusals)).toEqual([
      'topic-not-found',
      'queue-not-found',
      'subscription-not-found',
      'subscription-not-found',
      'topic-not-found',
    ]);
    await store.topics.delete('events');
    expect(await store.topics.list()).toEqual([]);
    expect(await store.database.read('SELECT 1 FROM subscription')).toEqual([]);
  });

  test('has a bounded number of subscriptions', async () => {
    const [queue] = (await createQueues(1)) as [Queue];
    const topic = await topicOf([]);
    const [{ id }] = (await store.database.read<{ id: number }>('SELECT id FROM topic')) as [{ id: number }];
    const others = Array.from({ length: LIMITS.subscriptions }, (_, index) => `(${id}, ${10_000 + index}, 1)`);
    await store.database.write(`INSERT INTO subscription (topic_id, queue_id, created_at) VALUES ${others.join(',')}`);
    await expect(subscribe(topic, queue)).rejects.toMatchObject({
      code: 'invalid-request',
      message: expect.stringContaining(`${LIMITS.subscriptions} subscriptions`),
    });
  });

  test('loses the subscription of a deleted queue, and at last its row', async () => {
    const [queue, stays] = (await createQueues(2)) as [Queue, Queue];
    const topic = await topicOf([queue, stays]);
    const id = await store.queues.delete(queue.name);
    expect((await store.topics.get(topic)).subscriptions.map((one) => one.queue)).toEqual([stays.name]);
    await store.queues.forget(id);
    expect(await store.database.read('SELECT queue_id AS id FROM subscription')).toEqual([{ id: stays.id }]);
  });

  test('is created once by brokers that create it at the same time, and deleted once', async () => {
    const created = await Promise.all(Array.from({ length: 8 }, async () => (await store.topics.put('race')).created));
    expect(created.filter(Boolean)).toHaveLength(1);
    const deleted = await Promise.all(
      Array.from({ length: 8 }, () =>
        store.topics.delete('race').then(
          () => true,
          () => false,
        ),
      ),
    );
    expect(deleted.filter(Boolean)).toHaveLength(1);
  });
});
