import { RowmqError } from '@rowmq/contract';
import {
  MessageRepository,
  type NewMessage,
  type Published,
  type PublishOutcome,
  type PublishRequest,
  type Queue,
} from '@rowmq/store';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { owedIds, storedBodies } from '../support/deliveries.js';
import { losingAnswers } from '../support/lost-answer.js';
import { recordRoundTrips, stopClock } from '../support/statements.js';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';

/*
 * deduplicationIds and Idempotency-Keys of topics: what was published once reaches no queue a
 * second time within the topic's time. deduplication.test.ts attacks the same records through
 * queues.
 */

const T0 = 1_800_000_000_000;

let store: TestStore;
let other: TestStore;
let queue: Queue;
let topic: string;
let topics = 0;

beforeAll(async () => {
  store = await openStore();
  other = await openStore({ on: store.url });
  return async () => {
    await other.close();
    await store.close();
  };
});
beforeEach(async () => {
  store.at(undefined);
  queue = await createQueue(store);
  topics += 1;
  topic = `topic-${topics}`;
  await store.topics.put(topic);
  await store.topics.putSubscription(topic, queue.name, undefined);
});

function once(deduplicationId: string | undefined, body = deduplicationId ?? 'plain'): NewMessage {
  return message({ body: Buffer.from(body), deduplicationId });
}

function request(messages: NewMessage[], idempotencyKey?: string): PublishRequest {
  return { topicName: topic, messages: messages.map((one) => ({ ...one, values: {} })), idempotencyKey };
}

/** For each message, its id and its number of queues, with `+` before a duplicate. */
function inWords(outcomes: readonly PublishOutcome[]): (string[] | string)[] {
  return outcomes.map((outcome) => {
    if (outcome instanceof RowmqError) return outcome.code;
    return (outcome as Published[]).map(
      ({ id, duplicate, subscriptions }) => `${duplicate ? '+' : ''}${id.toString('hex')} ${subscriptions}`,
    );
  });
}

async function answers(requests: PublishRequest[], on = store.messages.batches) {
  return inWords(await on.publish(requests));
}

async function answer(messages: NewMessage[], key?: string, on = store) {
  return (await answers([request(messages, key)], on.messages.batches))[0] as string[] | string;
}

const owed = async (of = queue) => (await storedBodies(store, of)).owed.map(String).toSorted();

describe('a published message with a deduplicationId', () => {
  it('is stored once, and its repeat gets the first answer, whatever subscribes since', async () => {
    const [[first, again, free] = [], [late] = []] = await answers([
      request([once('a', '1'), once('a', '2'), once(undefined, '3')]),
      request([once('a', '4')]),
    ]);
    expect(first).toMatch(/^[0-9a-f]+ 1$/);
    expect([again, late]).toEqual([`+${first}`, `+${first}`]);
    expect(free).not.toBe(first);
    const second = await createQueue(store);
    await store.topics.putSubscription(topic, second.name, undefined);
    // The duplicate's batch stores the new message in every queue.
    expect(await answer([once('b', '5'), once('a', '6')], undefined, other)).toEqual([
      expect.stringMatching(/^[0-9a-f]+ 2$/),
      `+${first}`,
    ]);
    expect(await owed()).toEqual(['1', '3', '5']);
    expect(await owed(second)).toEqual(['5']);
  });

  it('is remembered for the topic’s own time, in no queue and in no other topic', async () => {
    await store.topics.put(topic, { deduplicationSeconds: 10 });
    const publish = async (now: number) => {
      store.at(now);
      return (await answer([once('a', String(now))]))[0];
    };
    const first = await publish(T0);
    await store.messages.enqueue(queue.name, [once('a', 'enqueued')]);
    await store.topics.put('another');
    expect((await store.messages.publish('another', [once('a')]))[0]).toMatchObject({ duplicate: false });
    expect(await publish(T0 + 9_999)).toBe(`+${first}`);
    expect(await publish(T0 + 10_000)).not.toContain('+');
    await store.topics.put(topic, { deduplicationSeconds: 20 });
    expect((await store.topics.get(topic)).deduplicationSeconds).toBe(20);
    // The change applies to messages that are published from then on.
    expect(await publish(T0 + 20_000)).not.toContain('+');
    expect(await publish(T0 + 39_999)).toContain('+');
    expect(await owed()).toEqual([...[0, 10_000, 20_000].map((ms) => String(T0 + ms)), 'enqueued']);
  });

  it('is remembered even if no queue wanted it', async () => {
    await store.topics.putSubscription(topic, queue.name, { kind: ['never'] });
    const [first] = await answer([once('a')]);
    expect(first).toMatch(/ 0$/);
    await store.topics.putSubscription(topic, queue.name, null);
    expect(await answer([once('a')])).toEqual([`+${first}`]);
    expect(await owed()).toEqual([]);
  });

  it('reaches a queue that another broker has just subscribed', async () => {
    await answer([once('a')]);
    const late = await createQueue(other);
    await other.topics.putSubscription(topic, late.name, undefined);
    // The cached topic lacks the queue, and one of the ids is known.
    expect(await answer([once('b'), once('a')])).toEqual([expect.stringMatching(/^[^+].* 2$/), expect.any(String)]);
    expect(await owed(late)).toEqual(['b']);
  });

  it('costs no round trip, and is stored once if its COMMIT gets no answer', async () => {
    stopClock();
    // It reads the topic.
    await answer([once('before')]);
    const trips = recordRoundTrips(store.database);
    await answer([once('a'), once('b')], 'key');
    expect(trips).toHaveLength(1);
    const losing = new MessageRepository(losingAnswers(store.database));
    const [stored] = await answers([request([once('c')], 'other-key')], losing);
    expect(stored).toEqual([expect.not.stringContaining('+')]);
    expect(await answer([once('c')], 'other-key')).toEqual(stored);
    expect(await owed()).toEqual(['a', 'b', 'before', 'c']);
  });
});

describe('a publish with an Idempotency-Key', () => {
  it('gets the answer of the first for 300 seconds at least, and stores nothing', async () => {
    await store.topics.put(topic, { deduplicationSeconds: 1 });
    store.at(T0);
    await store.topics.putSubscription(topic, queue.name, { kind: ['a'] });
    const messages = ['a', 'b'].map((kind) => ({ ...once(undefined, kind), values: { kind } }));
    const sent: PublishRequest = { topicName: topic, messages, idempotencyKey: 'key' };
    const [first, twin] = await answers([sent, sent]);
    expect(first).toEqual([expect.stringMatching(/ 1$/), expect.stringMatching(/ 0$/)]);
    expect(twin).toEqual(first);
    store.at(T0 + 299_999);
    expect((await answers([sent]))[0]).toEqual(first);
    expect(await owed()).toEqual(['a']);
    store.at(T0 + 300_000);
    expect((await answers([sent]))[0]).not.toEqual(first);
  });

  it('is refused with other messages, and repeated for a full queue', async () => {
    await store.queues.put(queue.name, { maxDepth: 1 });
    const first = await answer([once(undefined, '1')], 'key');
    expect(await answer([once(undefined, '2')], 'key')).toBe('idempotency-key-reused');
    expect(await answer([once(undefined, '1')], 'key')).toEqual(first);
    expect(await answer([once(undefined, '2')], 'other-key')).toBe('queue-full');
  });
});

it('brokers that publish the same at the same time store it once, and give the same answer', async () => {
  const brokers = [store, other].map(({ database }) => new MessageRepository(database));
  const seen = new Map<string, Set<string>>();
  for (let round = 0; round < 20; round += 1) {
    const names = ['a', 'b', 'c', 'd'].map((name) => `${name}${round}`);
    await Promise.all(
      Array.from({ length: 6 }, async (_, turn) => {
        const mine = names.toSorted(() => Math.random() - 0.5).slice(0, 1 + (turn % names.length));
        const [outcome] = await brokers[turn % 2]!.publish([request(mine.map((name) => once(name)))]);
        for (const [index, { id }] of (outcome as Published[]).entries()) {
          const name = mine[index]!;
          seen.set(name, (seen.get(name) ?? new Set<string>()).add(id.toString('hex')));
        }
      }),
    );
  }
  expect([...seen.values()].filter(({ size }) => size !== 1)).toEqual([]);
  expect(await owed()).toEqual([...seen.keys()].toSorted());
  expect(await owedIds(store, queue)).toHaveLength(seen.size);
});
