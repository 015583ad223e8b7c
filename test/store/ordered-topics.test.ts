import {
  FIRST_ID,
  type LeasedMessage,
  MessageRepository,
  type NewMessage,
  type Published,
  type Queue,
} from '@rowmq/store';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { owedIds } from '../support/deliveries.js';
import { losingAnswers } from '../support/lost-answer.js';
import { deadLetterAll } from '../support/partitions.js';
import { bodies, createQueue, message, openStore, type TestStore } from '../support/store.js';

/*
 * Groups of messages that go through a topic: every ordered subscriber hands them out in one order,
 * whichever of them its filter wants.
 */

const T0 = 1_800_000_000_000;
const MINUTE = 60_000;

let store: TestStore;
let topic: string;
let topics = 0;

beforeAll(async () => {
  store = await openStore();
  return () => store.close();
});
beforeEach(async () => {
  store.at(undefined);
  topics += 1;
  topic = `topic-${topics}`;
  await store.topics.put(topic);
});

const inOrder = (settings: Parameters<typeof createQueue>[1] = {}) =>
  createQueue(store, { ordering: 'group', ...settings });

async function subscribe(queue: Queue, filter?: Parameters<TestStore['topics']['putSubscription']>[2]): Promise<void> {
  await store.topics.putSubscription(topic, queue.name, filter);
}

/** A message `a1`, whose group is the letter, and whose header `kind` is odd or even. */
function named(name: string): NewMessage {
  const kind = Number(name.slice(1)) % 2 === 0 ? 'even' : 'odd';
  return message({
    body: Buffer.from(name),
    groupId: name.slice(0, 1),
    headers: Buffer.from(JSON.stringify({ kind })),
  });
}

const publish = async (names: string, on = store.messages) => on.publish(topic, names.split(' ').map(named));

/** Claims and acks until the queue is empty, a few messages at a time. */
async function drain(queue: Queue, atOnce = 3): Promise<LeasedMessage[]> {
  const all: LeasedMessage[] = [];
  for (;;) {
    const leased = await store.messages.dequeue(queue, { maxMessages: atOnce, leaseSeconds: 60 });
    if (leased.length === 0) return all;
    all.push(...leased);
    const acked =
      queue.ordering === null ? store.messages.ack(queue.id, leased) : store.messages.ackInOrder(queue.id, leased);
    expect(await acked).toEqual(leased.map(() => null));
  }
}

const ofGroup = (messages: readonly LeasedMessage[], group: string) =>
  bodies(messages).filter((body) => body.startsWith(group));

const numbers = (count: number, from = 1) => Array.from({ length: count }, (_, index) => from + index);

describe('a group that is published', () => {
  it('is in order in every ordered queue, also where a filter leaves messages out', async () => {
    const [all, even, plain] = [await inOrder(), await inOrder(), await createQueue(store)];
    await subscribe(all);
    await subscribe(even, { kind: ['even'] });
    await subscribe(plain);
    // More than a pack, in two requests.
    const names = numbers(40).flatMap((number) => [`a${number}`, `b${number}`]);
    const published = [...(await publish(names.slice(0, 50).join(' '))), ...(await publish(names.slice(50).join(' ')))];
    expect(published.map(({ queues }) => queues.length)).toEqual(
      numbers(40).flatMap((number) => (number % 2 === 0 ? [3, 3] : [2, 2])),
    );
    const [inAll, inEven, inPlain] = [await drain(all), await drain(even), await drain(plain, 100)];
    for (const group of ['a', 'b']) {
      expect(ofGroup(inAll, group)).toEqual(numbers(40).map((number) => `${group}${number}`));
      expect(ofGroup(inEven, group)).toEqual(numbers(20).map((number) => `${group}${2 * number}`));
    }
    expect(bodies(inPlain).toSorted()).toEqual(names.toSorted());
    for (const got of [inAll, inPlain]) expect(new Set(got.map(({ groupId }) => groupId))).toEqual(new Set(['a', 'b']));
    expect(await store.database.read('SELECT * FROM message_group')).toEqual([]);
  });

  it('has one order in all queues, however many brokers publish at the same time', async () => {
    const queues = [await inOrder(), await inOrder()];
    for (const queue of queues) await subscribe(queue);
    const other = await openStore({ on: store.url });
    const publishers = [store.messages, other.messages];
    await Promise.all(
      numbers(24).map(async (number) => publish(`a${number} b${number} a${number}`, publishers[number % 2])),
    );
    await other.close();
    const [one, another] = [await drain(queues[0]!, 7), await drain(queues[1]!, 2)];
    for (const group of ['a', 'b']) expect(ofGroup(one, group)).toEqual(ofGroup(another, group));
    expect(ofGroup(one, 'a')).toHaveLength(48);
  });

  it('waits behind messages that were enqueued in the queue, and the other way round', async () => {
    const queue = await inOrder();
    await subscribe(queue);
    await store.messages.enqueue(queue.name, [named('a1')]);
    await publish('a2 b1');
    await store.messages.enqueue(queue.name, [named('a3')]);
    const first = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 });
    expect(bodies(first)).toEqual(['a1', 'b1']);
    await store.messages.ackInOrder(queue.id, first);
    expect(bodies(await drain(queue, 1))).toEqual(['a2', 'a3']);
  });

  it('waits in each queue for the delay of that queue', async () => {
    const [later, atOnce] = [await inOrder({ delaySeconds: 5 }), await inOrder()];
    for (const queue of [later, atOnce]) await subscribe(queue);
    store.at(T0);
    await publish('a1 b1 a2');
    expect(bodies(await drain(atOnce)).toSorted()).toEqual(['a1', 'a2', 'b1']);
    expect(await drain(later)).toEqual([]);
    await publish('a3');
    store.at(T0 + 5000);
    expect(ofGroup(await drain(later), 'a')).toEqual(['a1', 'a2', 'a3']);
  });

  it('is refused without its group, or with what would break the order, by the queue’s name', async () => {
    const queue = await inOrder();
    await subscribe(await createQueue(store));
    await subscribe(queue, { kind: ['even'] });
    const refused = [{ groupId: undefined }, { priority: 9 }, { delaySeconds: 1 }];
    for (const change of refused) {
      await expect(store.messages.publish(topic, [{ ...named('a2'), ...change }])).rejects.toMatchObject({
        code: 'invalid-request',
        message: expect.stringContaining(`Queue '${queue.name}', which subscribes to topic`),
      });
      // The ordered queue does not want this one.
      await store.messages.publish(topic, [{ ...named('a1'), ...change }]);
    }
  });

  it('is stored once if its COMMIT gets no answer, and handed off only where there is no order', async () => {
    const [ordered, plain] = [await inOrder(), await createQueue(store)];
    await subscribe(ordered);
    await subscribe(plain);
    const losing = new MessageRepository(losingAnswers(store.database));
    const messages = [{ ...named('a1'), deduplicationId: 'one', values: {} }];
    const [lost] = await losing.publish([{ topicName: topic, messages }]);
    expect(lost).toMatchObject([{ duplicate: false }]);
    expect(await store.messages.publish(topic, messages)).toMatchObject([
      { id: (lost as Published[])[0]!.id, duplicate: true },
    ]);
    const offered: string[] = [];
    const leased: LeasedMessage[] = [];
    await store.messages.batches.publish([{ topicName: topic, messages: [{ ...named('a2'), values: {} }] }], {
      reserve: ({ name }) => {
        offered.push(name);
        return [
          { maxMessages: 5, leaseSeconds: 60, handOff: (some) => void leased.push(...some), cancel: () => undefined },
        ];
      },
    });
    expect(offered).toEqual([plain.name]);
    expect(bodies(leased)).toEqual(['a2']);
    expect(bodies(await drain(plain))).toEqual(['a1']);
    expect(bodies(await drain(ordered))).toEqual(['a1', 'a2']);
  });

  it('is stored once if its COMMIT gets no answer, and somebody subscribes before the retry', async () => {
    const [ordered, later] = [await inOrder(), await inOrder()];
    await subscribe(ordered);
    const losing = new MessageRepository(losingAnswers(store.database, async () => subscribe(later)));
    const [published] = await losing.publish([{ topicName: topic, messages: [{ ...named('a1'), values: {} }] }]);
    expect(published).toMatchObject([{ duplicate: false, subscriptions: 1 }]);
    expect(bodies(await drain(ordered))).toEqual(['a1']);
    expect(await drain(later)).toEqual([]);
  });

  it('keeps its order in a dead-letter queue that subscribers share, and goes back', async () => {
    store.at(T0);
    const dead = await inOrder();
    const queues = [
      await inOrder({ maxReceives: 1, deadLetterQueue: dead.name }),
      await inOrder({ maxReceives: 1, deadLetterQueue: dead.name }),
    ];
    for (const queue of queues) await subscribe(queue);
    await publish('a1 a2 b1');
    for (const [nth, queue] of queues.entries()) {
      store.at(T0 + nth);
      expect(await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 })).toHaveLength(3);
      expect(await deadLetterAll(store, queue, T0 + 2 * MINUTE)).toBe(3);
    }
    expect(await owedIds(store, dead)).toHaveLength(6);
    const { moved } = await store.unleased.redrive(dead.id, FIRST_ID, 100);
    expect([...moved.values()]).toEqual([3, 3]);
    for (const queue of queues) expect(ofGroup(await drain(queue, 1), 'a')).toEqual(['a1', 'a2']);
  });
});
