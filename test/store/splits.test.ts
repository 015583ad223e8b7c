import { formatMessageId, messageIdIn, newPackId, PACK_MESSAGES, packIdOf } from '@rowmq/contract';
import {
  type EnqueuedMessage,
  FIRST_ID,
  LEASE_GRACE_MS,
  type LeasedMessage,
  MessageRepository,
  type NewMessage,
  type Queue,
  QueueRepository,
} from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { deliveryRows, type OwedMessage, owedIds, owedMessages, storedBodies } from '../support/deliveries.js';
import { hex } from '../support/partitions.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { claimFrom } from '../support/claim-from.js';

/*
 * Messages that share a pack and a delivery, and then part: each must be owed exactly once, by a
 * delivery with its own fate, whatever happens to the others.
 */

const T0 = 1_800_000_000_000;
const SECOND = 1000;

let store: TestStore;
let queue: Queue;

beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());
beforeEach(async () => {
  queue = await createQueue(store);
});

async function claim(now: number, maxMessages = 100, leaseSeconds = 60, of = queue): Promise<LeasedMessage[]> {
  return store.at(now).messages.dequeue(of, { maxMessages, leaseSeconds });
}

/** Enqueues numbered messages, and returns them in one delivery under one lease. */
async function leaseTogether(
  count: number,
  leaseSeconds = 60,
  overrides: Partial<NewMessage> = {},
): Promise<LeasedMessage[]> {
  await store.at(T0).messages.enqueue(queue.name, numbered(count, overrides));
  const leased = await claim(T0, count, leaseSeconds);
  expect(leased).toHaveLength(count);
  expect(await deliveryRows(store, queue)).toHaveLength(Math.ceil(count / PACK_MESSAGES));
  return leased;
}

/** The owed messages of a queue by body. Fails if one is owed twice. */
async function owed(of = queue): Promise<Record<string, OwedMessage>> {
  const all = await owedMessages(store, of);
  expect(new Set(all.map(({ id }) => formatMessageId(id))).size).toBe(all.length);
  return Object.fromEntries(all.map((one) => [String(one.body), one]));
}

const packsOf = (ids: readonly Buffer[]): number => new Set(ids.map((id) => packIdOf(id).toString('hex'))).size;

describe('messages leased together', () => {
  it('are acked, nacked, extended, rejected, released and expire member by member', async () => {
    const dead = await createQueue(store);
    queue = await createQueue(store, { deadLetterQueue: dead.name });
    const leased = await leaseTogether(8);
    const [acked, nacked, delayed, extended, rejected, released] = leased as [
      LeasedMessage,
      LeasedMessage,
      LeasedMessage,
      LeasedMessage,
      LeasedMessage,
      LeasedMessage,
    ];
    const { messages } = store.at(T0 + SECOND);
    expect(await messages.nack(queue.id, [delayed], { delaySeconds: 500, reason: 'later' })).toEqual([null]);
    expect((await messages.extend(queue.id, [extended], { leaseSeconds: 300 })).outcomes).toEqual([null]);
    expect(await messages.ack(queue.id, [acked])).toEqual([null]);
    expect(await messages.batches.reject({ queueId: queue.id, receipts: [rejected], reason: 'bad' })).toEqual([null]);
    await messages.release(queue.id, [released]);
    expect(await messages.nack(queue.id, [nacked], { delaySeconds: 0, reason: 'again' })).toEqual([null]);

    const lease = { isLeased: true, receiveCount: 1, reason: null };
    expect(await owed()).toMatchObject({
      1: { availableAt: T0 + SECOND, isLeased: false, receiveCount: 1, reason: 'again' },
      2: { availableAt: T0 + 501 * SECOND, isLeased: false, receiveCount: 1, reason: 'later' },
      3: { ...lease, availableAt: T0 + 301 * SECOND + LEASE_GRACE_MS },
      5: { availableAt: T0 + SECOND, isLeased: false, receiveCount: 0, reason: null },
      6: { ...lease, availableAt: T0 + 60 * SECOND + LEASE_GRACE_MS },
      7: { ...lease, availableAt: T0 + 60 * SECOND + LEASE_GRACE_MS },
    });
    expect(Object.keys(await owed())).toHaveLength(6);
    expect(await owed(dead)).toMatchObject({ 4: { receiveCount: 0, isLeased: false, reason: 'bad' } });

    // Each comes back at its own time, once, and with its own count.
    const back = async (now: number) =>
      (await claim(now, 100, 10_000)).map(({ body, receiveCount }) => `${String(body)}/${receiveCount}`).toSorted();
    expect(await back(T0 + SECOND)).toEqual(['1/2', '5/1']);
    expect(await back(T0 + 60 * SECOND + LEASE_GRACE_MS - 1)).toEqual([]);
    expect(await back(T0 + 60 * SECOND + LEASE_GRACE_MS)).toEqual(['6/2', '7/2']);
    expect(await back(T0 + 301 * SECOND + LEASE_GRACE_MS - 1)).toEqual([]);
    expect(await back(T0 + 301 * SECOND + LEASE_GRACE_MS)).toEqual(['3/2']);
    expect(await back(T0 + 501 * SECOND)).toEqual(['2/2']);
    expect(bodies(await claim(T0 + 501 * SECOND, 100, 60, dead))).toEqual(['4']);
  });

  it('by several consumers are settled by each of them for itself', async () => {
    await store.at(T0).messages.enqueue(queue.name, numbered(9));
    const { leased } = await claimFrom(
      store.at(T0).messages.batches,
      queue,
      [3, 3, 3].map((maxMessages) => ({ maxMessages, leaseSeconds: 60 })),
    );
    const [one, two, three] = leased as [LeasedMessage[], LeasedMessage[], LeasedMessage[]];
    expect(await deliveryRows(store, queue)).toHaveLength(1);
    const outcomes = await store.at(T0).messages.batches.ack([
      { queueId: queue.id, receipts: one.slice(0, 2) },
      { queueId: queue.id, receipts: three.slice(1) },
    ]);
    expect(outcomes).toEqual([
      [null, null],
      [null, null],
    ]);
    expect(Object.keys(await owed())).toEqual(['2', '3', '4', '5', '6']);
    await store.at(T0).messages.batches.nack([
      { queueId: queue.id, receipts: two.slice(0, 1), delaySeconds: 10 },
      { queueId: queue.id, receipts: three.slice(0, 1), delaySeconds: 20 },
    ]);
    await store.at(T0).messages.batches.extend([
      { queueId: queue.id, receipts: two.slice(1), leaseSeconds: 100 },
      { queueId: queue.id, receipts: one.slice(2), leaseSeconds: 200 },
    ]);
    expect(await owed()).toMatchObject({
      2: { isLeased: true, availableAt: T0 + 200 * SECOND + LEASE_GRACE_MS },
      3: { isLeased: false, availableAt: T0 + 10 * SECOND },
      4: { isLeased: true, availableAt: T0 + 100 * SECOND + LEASE_GRACE_MS },
      5: { isLeased: true, availableAt: T0 + 100 * SECOND + LEASE_GRACE_MS },
      6: { isLeased: false, availableAt: T0 + 20 * SECOND },
    });
    const late = await store.at(T0 + 99 * SECOND).messages.ack(queue.id, [...one.slice(2), ...two.slice(1)]);
    expect(late).toEqual([null, null, null]);
    expect(Object.keys(await owed())).toEqual(['3', '6']);
  });

  it('under leases of different lengths end theirs at different times', async () => {
    await store.at(T0).messages.enqueue(queue.name, numbered(10));
    const { leased } = await claimFrom(
      store.at(T0).messages.batches,
      queue,
      [10, 20, 10].map((leaseSeconds) => ({ maxMessages: 3, leaseSeconds })),
    );
    expect(leased.map((some) => bodies(some))).toEqual([
      ['0', '1', '2'],
      ['3', '4', '5'],
      ['6', '7', '8'],
    ]);
    // One row for each deadline, and one for the message that nobody took.
    expect(await deliveryRows(store, queue)).toHaveLength(3);
    const atEnd = store.at(T0 + 10 * SECOND);
    expect(
      await atEnd.messages.ack(
        queue.id,
        leased.flatMap(([first]) => first!),
      ),
    ).toEqual(['lease-lost', null, 'lease-lost']);
    expect(bodies(await claim(T0 + 10 * SECOND, 100, 600))).toEqual(['9']);
    expect(bodies(await claim(T0 + 10 * SECOND + LEASE_GRACE_MS, 100, 600))).toEqual(['0', '1', '2', '6', '7', '8']);
    expect(bodies(await claim(T0 + 20 * SECOND + LEASE_GRACE_MS, 100, 600))).toEqual(['4', '5']);
  });

  it('can be a whole pack of 32, of which the last stays leased alone', async () => {
    const leased = await leaseTogether(PACK_MESSAGES);
    expect(await store.at(T0).messages.ack(queue.id, leased.slice(0, -1))).toEqual(leased.slice(1).map(() => null));
    expect(await owed()).toMatchObject({ 31: { isLeased: true } });
    expect(Object.keys(await owed())).toEqual(['31']);
    await store.at(T0).messages.extend(queue.id, leased.slice(-1), { leaseSeconds: 100 });
    await store.at(T0).messages.release(queue.id, leased.slice(-1));
    const [last] = await claim(T0);
    expect(last).toMatchObject({ body: Buffer.from('31'), receiveCount: 1 });
    expect(await store.at(T0).messages.ack(queue.id, [last!])).toEqual([null]);
    expect(await deliveryRows(store, queue)).toEqual([]);
  });

  it('can be extended one by one, nacked one by one and claimed together again, and no keys collide', async () => {
    const leased = await leaseTogether(PACK_MESSAGES, 600);
    // Steps that visit every index, from both ends and in between.
    const order = leased.map((_, index) => leased[(index * 13 + 5) % PACK_MESSAGES] as LeasedMessage);
    for (const [step, one] of order.entries()) {
      const { outcomes } = await store.at(T0).messages.extend(queue.id, [one], { leaseSeconds: 700 + step });
      expect(outcomes).toEqual([null]);
    }
    expect(await deliveryRows(store, queue)).toHaveLength(PACK_MESSAGES);
    for (const one of order.toReversed()) {
      expect(await store.at(T0).messages.nack(queue.id, [one], { delaySeconds: 0 })).toEqual([null]);
    }
    // The deliveries of one pack all get the claim's token.
    const again = await claim(T0, PACK_MESSAGES);
    expect(new Set(again.map(({ leaseToken }) => leaseToken.toString('hex'))).size).toBe(1);
    expect(bodies(again).toSorted()).toEqual(bodies(leased).toSorted());
    expect((await store.at(T0).messages.extend(queue.id, again, { leaseSeconds: 90 })).outcomes).toEqual(
      again.map(() => null),
    );
    expect(await store.at(T0).messages.nack(queue.id, again, { delaySeconds: 0 })).toEqual(again.map(() => null));
    const third = await claim(T0, PACK_MESSAGES);
    expect(await store.at(T0).messages.ack(queue.id, third)).toEqual(leased.map(() => null));
    expect(await deliveryRows(store, queue)).toEqual([]);
  });

  it('count their receives member by member, so that only over-received ones are dead-lettered', async () => {
    const dead = await createQueue(store);
    queue = await createQueue(store, { maxReceives: 2, deadLetterQueue: dead.name });
    await store.at(T0).messages.enqueue(queue.name, numbered(5));
    const next = T0 + 10 * SECOND + LEASE_GRACE_MS;
    expect(bodies(await claim(T0, 2, 10))).toEqual(['0', '1']);
    // The messages that were never claimed have been ready for longer.
    expect(bodies(await claim(next, 4, 10))).toEqual(['2', '3', '4', '0']);
    const counts = (await owedMessages(store, queue)).map(({ body, receiveCount }) => `${body}/${receiveCount}`);
    expect(counts).toEqual(['0/2', '1/1', '2/1', '3/1', '4/1']);
    const later = next + 10 * SECOND + LEASE_GRACE_MS;
    const { found } = await store.at(later).unleased.findOverReceived(queue, FIRST_ID, 100);
    expect(await store.messages.deadLetter(queue, found)).toBe(1);
    expect(Object.keys(await owed(dead))).toEqual(['0']);
    expect(Object.keys(await owed())).toEqual(['1', '2', '3', '4']);
  });
});

describe('a claim that takes a delivery in part', () => {
  it('leaves the rest ready, where it was, with its count', async () => {
    await store.at(T0).messages.enqueue(queue.name, numbered(10));
    await store.at(T0 + 1).messages.enqueue(queue.name, [message({ body: Buffer.from('behind') })]);
    const first = await claim(T0 + 1, 3);
    expect(bodies(first)).toEqual(['0', '1', '2']);
    expect(await store.browse.stats(queue.id)).toMatchObject({ ready: 8, leased: 3 });
    const second = await claim(T0 + 1, 4);
    expect(bodies(second)).toEqual(['3', '4', '5', '6']);
    expect(second.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1, 1]);
    expect(second[0]?.leaseToken.equals(first[0]!.leaseToken)).toBe(false);
    const third = await claim(T0 + 1);
    expect(bodies(third)).toEqual(['7', '8', '9', 'behind']);
    // Nobody can settle another's part.
    const mixed = [
      { ...first[0]!, leaseToken: second[0]!.leaseToken },
      { ...third[0]!, leaseToken: first[0]!.leaseToken },
    ];
    expect(await store.messages.ack(queue.id, mixed)).toEqual(['lease-lost', 'lease-lost']);
    expect(await store.messages.ack(queue.id, [...third, ...first, ...second])).toEqual(
      Array.from({ length: 11 }, () => null),
    );
    expect(await deliveryRows(store, queue)).toEqual([]);
  });

  it('takes whole deliveries from the front and splits only the last', async () => {
    for (let pack = 0; pack < 4; pack += 1) await store.at(T0 + pack).messages.enqueue(queue.name, numbered(5));
    expect(await claim(T0 + 9, 12)).toHaveLength(12);
    const rows = await deliveryRows(store, queue);
    const sizes = rows.map(({ availableAt, receiveCount }) => [availableAt > T0 + 9, receiveCount]);
    expect(rows).toHaveLength(5);
    expect(sizes.filter(([isLeased]) => isLeased)).toEqual([
      [true, 1],
      [true, 1],
      [true, 1],
    ]);
    expect(await store.browse.stats(queue.id)).toMatchObject({ ready: 8, leased: 12 });
  });

  it('goes on at its place after a release, behind messages that became ready before', async () => {
    await store.at(T0).messages.enqueue(queue.name, numbered(4));
    const [first] = await claim(T0, 1);
    await store.at(T0 + 5).messages.release(queue.id, [first!]);
    expect(bodies(await claim(T0 + 5))).toEqual(['1', '2', '3', '0']);
  });
});

describe('a stale holder', () => {
  it('changes nothing about members that others lease, that are ready again or that are settled', async () => {
    const dead = await createQueue(store);
    queue = await createQueue(store, { deadLetterQueue: dead.name });
    const stale = await leaseTogether(6, 10);
    const later = T0 + 10 * SECOND + LEASE_GRACE_MS;
    const current = await claim(later, 4);
    expect(bodies(current)).toEqual(['0', '1', '2', '3']);
    expect(await store.messages.ack(queue.id, current.slice(0, 1))).toEqual([null]);
    expect(await store.messages.nack(queue.id, current.slice(1, 2), { delaySeconds: 30 })).toEqual([null]);
    const before = await deliveryRows(store, queue);
    const lost = ['delivery-not-found', ...Array.from({ length: 5 }, () => 'lease-lost')];
    const { messages } = store;
    expect(await messages.ack(queue.id, stale)).toEqual(lost);
    expect(await messages.nack(queue.id, stale, { delaySeconds: 0 })).toEqual(lost);
    expect((await messages.extend(queue.id, stale, { leaseSeconds: 9000 })).outcomes).toEqual(lost);
    expect(await messages.batches.reject({ queueId: queue.id, receipts: stale })).toEqual(lost);
    await messages.release(queue.id, stale);
    expect(await deliveryRows(store, queue)).toEqual(before);
    expect(await owed(dead)).toEqual({});
    // In one batch with the current holder, each gets its own answer.
    const outcomes = await messages.batches.ack([
      { queueId: queue.id, receipts: stale.slice(2, 4) },
      { queueId: queue.id, receipts: current.slice(2, 3) },
    ]);
    expect(outcomes).toEqual([['lease-lost', 'lease-lost'], [null]]);
    expect(Object.keys(await owed())).toEqual(['1', '3', '4', '5']);
  });

  it('with the lease of one member cannot act on another member of the same delivery', async () => {
    const leased = await leaseTogether(4);
    const strange = messageIdIn(packIdOf(leased[0]!.messageId), 9);
    const never = messageIdIn(newPackId(), 0);
    const receipts = [strange, never].map((messageId) => ({ ...(leased[0] as LeasedMessage), messageId }));
    expect(await store.messages.ack(queue.id, receipts)).toEqual(['delivery-not-found', 'delivery-not-found']);
    expect(await store.messages.ack(queue.id, leased.slice(0, 1))).toEqual([null]);
    // A settled member of a delivery that is still leased.
    expect(await store.messages.ack(queue.id, leased.slice(0, 1))).toEqual(['delivery-not-found']);
    expect(await store.messages.nack(queue.id, leased.slice(0, 2), { delaySeconds: 0 })).toEqual([
      'delivery-not-found',
      null,
    ]);
    expect(await store.messages.ack(queue.id, leased.slice(1))).toEqual(['lease-lost', null, null]);
    expect(Object.keys(await owed())).toEqual(['1']);
  });

  it('that names the wrong queue does not decide which member an ack of the same batch clears', async () => {
    const [low, high] = [queue, await createQueue(store)];
    expect(low.id).toBeLessThan(high.id);
    queue = high;
    const leased = await leaseTogether(3);
    const outcomes = await store.messages.batches.ack([
      { queueId: low.id, receipts: leased.slice(0, 1) },
      { queueId: high.id, receipts: leased.slice(1, 2) },
    ]);
    expect(outcomes).toEqual([['delivery-not-found'], [null]]);
    expect(Object.keys(await owed())).toEqual(['0', '2']);
  });

  it('from very many claims is refused, and valid receipts beside it hold', async () => {
    await store.at(T0).messages.enqueue(queue.name, numbered(64));
    const leased: LeasedMessage[] = [];
    for (let taken = 0; taken < 64; taken += 1) leased.push(...(await claim(T0, 1, taken < 10 ? 1 : 600)));
    const { messages } = store.at(T0 + 5 * SECOND);
    const order = leased.toReversed();
    const { outcomes } = await messages.extend(queue.id, order, { leaseSeconds: 700 });
    expect(outcomes).toEqual([...leased.slice(10).map(() => null), ...leased.slice(0, 10).map(() => 'lease-lost')]);
    expect(await messages.ack(queue.id, order)).toEqual(outcomes);
    expect(Object.keys(await owed())).toHaveLength(10);
    expect(await claim(T0 + 5 * SECOND)).toHaveLength(10);
  });
});

describe('a pack', () => {
  it('holds messages of different priority, delay and expiry, and each has its own fate', async () => {
    const say = (body: string, overrides: Partial<NewMessage> = {}) =>
      message({ body: Buffer.from(body), ...overrides });
    const ids = await store
      .at(T0)
      .messages.enqueue(queue.name, [
        say('a'),
        say('urgent', { priority: 9 }),
        say('late', { delaySeconds: 30 }),
        say('brief', { expiresInSeconds: 10 }),
        say('b'),
        say('urgent, late', { priority: 9, delaySeconds: 30 }),
        say('low', { priority: 0 }),
        say('c'),
        say('urgent 2', { priority: 9 }),
        say('empty'.slice(5), { headers: Buffer.from('{"kind":"nothing"}') }),
      ]);
    expect(packsOf(ids)).toBe(1);
    expect(await deliveryRows(store, queue)).toHaveLength(6);
    // The answer lists the ids in the order of the request.
    const stored = new Map(
      (await store.browse.messages(ids)).map(({ id, body }) => [id.toString('hex'), String(body)]),
    );
    expect(ids.map((id) => stored.get(id.toString('hex')))).toEqual([
      'a',
      'urgent',
      'late',
      'brief',
      'b',
      'urgent, late',
      'low',
      'c',
      'urgent 2',
      '',
    ]);
    expect(bodies(await claim(T0 + 10 * SECOND, 4))).toEqual(['urgent', 'urgent 2', 'a', 'b']);
    expect(bodies(await claim(T0 + 10 * SECOND))).toEqual(['c', '', 'low']);
    expect(Object.keys(await owed())).not.toContain('brief');
    expect(bodies(await claim(T0 + 30 * SECOND))).toEqual(['urgent, late', 'late']);
  });

  it('holds at most 32 messages, and larger enqueues become several, in order', async () => {
    for (const [count, packs] of [
      [32, 1],
      [33, 2],
      [64, 2],
      [100, 4],
    ] as const) {
      queue = await createQueue(store);
      const ids = await store.at(T0).messages.enqueue(queue.name, numbered(count));
      expect(packsOf(ids)).toBe(packs);
      expect(ids.toSorted((one, other) => one.compare(other))).toEqual(ids);
      expect(await deliveryRows(store, queue)).toHaveLength(packs);
      const leased = [...(await claim(T0, 40)), ...(await claim(T0, 100))];
      expect(bodies(leased)).toEqual(Array.from({ length: count }, (_, index) => String(index)));
      expect(leased.map(({ messageId }) => messageId)).toEqual(ids);
      expect(await store.messages.ack(queue.id, leased)).toEqual(leased.map(() => null));
      expect(await deliveryRows(store, queue)).toEqual([]);
    }
  });

  it('is not shared by messages that are too large for it, and every byte comes back', async () => {
    const bytes = (length: number, start: number) => Buffer.from(Array.from({ length }, (_, at) => (start + at) % 256));
    const sizes = [70_000, 10, 69_000, 60_000, 60_000, 60_000, 0, 4096, 1, 139_000];
    const sent = sizes.map((size, index) =>
      message({ body: bytes(size, index * 7), headers: index % 2 === 0 ? null : Buffer.from(`{"n":"${index}"}`) }),
    );
    const ids = await store.at(T0).messages.enqueue(queue.name, sent);
    const [{ longest, count }] = (await store.database.read<{ longest: number; count: number }>(
      'SELECT MAX(LENGTH(payload)) AS longest, COUNT(*) AS count FROM pack WHERE queue_id = ?',
      [queue.id],
    )) as [{ longest: number; count: number }];
    expect(Number(longest)).toBeLessThanOrEqual(140_000);
    expect(Number(count)).toBe(packsOf(ids));
    expect(packsOf(ids)).toBeGreaterThan(3);
    const leased = await claim(T0);
    expect(leased.map(({ body }) => body.toString('hex'))).toEqual(sent.map(({ body }) => body.toString('hex')));
    expect(leased.map(({ headers }) => headers?.toString())).toEqual(sent.map(({ headers }) => headers?.toString()));
  });

  it('holds messages of one queue only, also of several requests', async () => {
    const other = await createQueue(store);
    const outcomes = await store.at(T0).messages.batches.enqueue([
      { queueName: queue.name, messages: numbered(3) },
      { queueName: other.name, messages: numbered(2) },
      { queueName: queue.name, messages: numbered(2) },
    ]);
    const stored = outcomes as [EnqueuedMessage[], EnqueuedMessage[], EnqueuedMessage[]];
    const [one, two, three] = stored.map((messages) => messages.map(({ id }) => id)) as [Buffer[], Buffer[], Buffer[]];
    expect(packsOf([...one, ...three])).toBe(1);
    expect(packsOf([...one, ...two])).toBe(2);
    expect(await owedIds(store, queue)).toEqual(hex([...one, ...three]));
    expect(await owedIds(store, other)).toEqual(hex(two));
  });
});

describe('a dead-lettered message', () => {
  const WEEK = 7 * 86_400;
  const say = (body: string, overrides: Partial<NewMessage> = {}) => message({ body: Buffer.from(body), ...overrides });
  /** When each of a queue's messages expires, in seconds from T0. */
  const lives = async (of: Queue): Promise<Record<string, number>> =>
    Object.fromEntries(
      Object.entries(await owed(of)).map(([body, { expiresAt }]) => [body, (expiresAt - T0) / SECOND]),
    );

  it.each([
    ['nack', 1000],
    ['claim', 1000],
    ['reaper', 1000],
  ] as const)(
    'that a %s moved lives by the TTL of its new queue, and no longer than its producer said',
    async (by, originTtl) => {
      const dead = await createQueue(store, { messageTtlSeconds: WEEK });
      queue = await createQueue(store, {
        messageTtlSeconds: originTtl,
        maxReceives: 1,
        deadLetterQueue: dead.name,
      });
      const ids = await store
        .at(T0)
        .messages.enqueue(queue.name, [
          say('by the queue'),
          say('by its producer', { expiresInSeconds: 500 }),
          say('by its producer, beyond the queue', { expiresInSeconds: 5000 }),
          say('also by the queue'),
        ]);
      expect(packsOf(ids)).toBe(1);
      expect(await lives(queue)).toEqual({
        'by the queue': 1000,
        'by its producer': 500,
        'by its producer, beyond the queue': 1000,
        'also by the queue': 1000,
      });
      const leased = await claim(T0, 10, 60);
      let moved = 100;
      if (by === 'nack') {
        const { batches } = store.at(T0 + moved * SECOND).messages;
        // The leases are over by then.
        await batches.reject({ queueId: queue.id, receipts: leased });
        moved = 50;
        expect(await batches.reject({ queueId: queue.id, receipts: leased })).toEqual(leased.map(() => 'lease-lost'));
        store.at(T0 + moved * SECOND);
        expect(await batches.reject({ queueId: queue.id, receipts: leased })).toEqual(leased.map(() => null));
      } else if (by === 'claim') {
        expect(await claim(T0 + moved * SECOND)).toEqual([]);
      } else {
        const { found } = await store.at(T0 + moved * SECOND).unleased.findOverReceived(queue, FIRST_ID, 100);
        expect(await store.messages.deadLetter(queue, found)).toBe(4);
      }
      expect(await lives(dead)).toEqual({
        'by the queue': moved + WEEK,
        'by its producer': 500,
        'by its producer, beyond the queue': 5000,
        'also by the queue': moved + WEEK,
      });
      // A message that no longer lives is not handed out there either.
      expect(bodies(await claim(T0 + 500 * SECOND, 10, 60, dead))).not.toContain('by its producer');
    },
  );

  it('lives for the shorter TTL of its dead-letter queue, and anew after a redrive', async () => {
    const dead = await createQueue(store, { messageTtlSeconds: 100 });
    queue = await createQueue(store, { messageTtlSeconds: 1000, deadLetterQueue: dead.name });
    const leased = await leaseTogether(3, 600);
    await store.at(T0 + 10 * SECOND).messages.batches.reject({ queueId: queue.id, receipts: leased });
    expect(await lives(dead)).toEqual({ 0: 110, 1: 110, 2: 110 });
    const { moved } = await store.at(T0 + 109 * SECOND).unleased.redrive(dead.id, FIRST_ID, 100, 2);
    expect(moved).toEqual(new Map([[queue.id, 2]]));
    expect(await lives(queue)).toEqual({ 0: 1109, 1: 1109 });
    expect(await claim(T0 + 110 * SECOND, 10, 60, dead)).toEqual([]);
    expect(bodies(await claim(T0 + 1108 * SECOND))).toEqual(['0', '1']);
  });
});

describe('a page of a browse', () => {
  /** All pages, one after the other. */
  const pages = async (
    state: 'ready' | 'delayed' | 'leased',
    limit: number,
    between: () => Promise<unknown> = async () => undefined,
  ): Promise<Buffer[][]> => {
    const found: Buffer[][] = [];
    for (let after: string | undefined; ;) {
      const page = await store.browse.browse(queue.id, state, limit, after);
      found.push(page.deliveries.map(({ messageId }) => messageId));
      if (page.nextAfter === null) return found;
      after = page.nextAfter;
      await between();
    }
  };

  it.each([1, 2, 3, 5, 7, 100])(
    'with %i messages may end inside a delivery, and the next one goes on there',
    async (limit) => {
      const ids: Record<'ready' | 'delayed' | 'leased', Buffer[]> = { ready: [], delayed: [], leased: [] };
      ids.leased.push(...(await store.at(T0).messages.enqueue(queue.name, numbered(5))));
      await claim(T0, 5);
      for (let pack = 0; pack < 3; pack += 1) {
        ids.ready.push(...(await store.at(T0 + pack).messages.enqueue(queue.name, numbered(5))));
      }
      ids.ready.push(...(await store.at(T0 + 2).messages.enqueue(queue.name, numbered(2))));
      ids.delayed.push(...(await store.at(T0).messages.enqueue(queue.name, numbered(9, { delaySeconds: 90 }))));
      store.at(T0 + 10);
      for (const state of ['ready', 'delayed', 'leased'] as const) {
        const found = await pages(state, limit);
        expect(found.flat()).toEqual(ids[state]);
        expect(found.map(({ length }) => length)).toEqual(
          Array.from({ length: Math.ceil(ids[state].length / limit) }, (_, page) =>
            Math.min(limit, ids[state].length - page * limit),
          ),
        );
      }
    },
  );

  it('skips no message whose delivery was split since the page before', async () => {
    const leased = await leaseTogether(12);
    let step = 0;
    const found = await pages('leased', 3, async () => {
      // The first one that is not shown yet gets a delivery of its own, with a later deadline.
      step += 1;
      const hidden = leased.slice(step * 3 + 1, step * 3 + 2);
      await store.at(T0).messages.extend(queue.id, hidden, { leaseSeconds: 100 + step });
    });
    const shown = new Set(hex(found.flat()));
    expect([...shown].toSorted()).toEqual(hex(leased.map(({ messageId }) => messageId)));
  });

  it('shows every member’s own state', async () => {
    const leased = await leaseTogether(4);
    await store.at(T0).messages.nack(queue.id, leased.slice(1, 2), { delaySeconds: 20, reason: 'busy' });
    await store.at(T0).messages.nack(queue.id, leased.slice(2, 3), { delaySeconds: 0 });
    const ids = leased.map(({ messageId }) => messageId);
    const shown = async (state: 'ready' | 'delayed' | 'leased') =>
      (await store.browse.browse(queue.id, state, 10, undefined)).deliveries;
    expect(await shown('leased')).toMatchObject([{ messageId: ids[0] }, { messageId: ids[3] }]);
    expect(await shown('delayed')).toMatchObject([{ messageId: ids[1], nackReason: 'busy', receiveCount: 1 }]);
    expect(await shown('ready')).toMatchObject([{ messageId: ids[2], nackReason: null }]);
    expect(await store.browse.stats(queue.id)).toMatchObject({ ready: 1, delayed: 1, leased: 2 });
  });
});

describe('a lookup by id', () => {
  it('finds each member’s body and the delivery that owes it, in whatever queue', async () => {
    const dead = await createQueue(store);
    queue = await createQueue(store, { deadLetterQueue: dead.name });
    const leased = await leaseTogether(4);
    const ids = leased.map(({ messageId }) => messageId);
    await store.at(T0).messages.ack(queue.id, leased.slice(0, 1));
    await store.at(T0).messages.nack(queue.id, leased.slice(1, 2), { delaySeconds: 9, reason: 'busy' });
    await store.at(T0).messages.batches.reject({ queueId: queue.id, receipts: leased.slice(2, 3), reason: 'bad' });
    const lookUp = (id: Buffer) => store.browse.deliveries(id, [queue.id, dead.id]);
    expect(await lookUp(ids[0]!)).toEqual([]);
    expect(await lookUp(ids[1]!)).toMatchObject([{ queueId: queue.id, state: 'delayed', nackReason: 'busy' }]);
    expect(await lookUp(ids[2]!)).toMatchObject([{ queueId: dead.id, state: 'ready', nackReason: 'bad' }]);
    expect(await lookUp(ids[3]!)).toMatchObject([{ queueId: queue.id, state: 'leased', messageId: ids[3] }]);
    expect(await store.browse.deliveries(ids[3]!, [dead.id])).toEqual([]);
    store.at(T0 + 400_000 * SECOND);
    expect(await lookUp(ids[1]!)).toMatchObject([{ state: 'expired' }]);
    // Bodies stay, also of the settled one, and each id finds its own.
    for (const [index, id] of ids.entries()) {
      expect(await store.browse.messages([id])).toMatchObject([
        { id, queueId: queue.id, body: Buffer.from(String(index)) },
      ]);
    }
  });

  it('finds nothing for an index that its pack does not have, and for a pack that does not exist', async () => {
    const [first] = await store.at(T0).messages.enqueue(queue.name, numbered(3));
    const beyond = messageIdIn(packIdOf(first!), 3);
    const unknown = newPackId();
    expect(await store.browse.messages([beyond, unknown])).toEqual([]);
    for (const id of [beyond, unknown]) expect(await store.browse.deliveries(id, [queue.id])).toEqual([]);
  });
});

describe('a queue that another broker changed since its settings were cached', () => {
  let other: TestStore;

  beforeEach(async () => {
    other = await openStore({ on: store.url });
    // Its cache now has the settings.
    await other.messages.enqueue(queue.name, [message({ body: Buffer.from('before') })]);
    return () => other.close();
  });

  const enqueue = async (...texts: string[]) =>
    other.messages.enqueue(
      queue.name,
      texts.map((text) => message({ body: Buffer.from(text) })),
    );

  it('gets messages by its new settings', async () => {
    await store.queues.put(queue.name, { messageTtlSeconds: 50, delaySeconds: 20 });
    await enqueue('after');
    const { before, after } = await owed();
    expect((after!.expiresAt - after!.availableAt) / SECOND).toBe(50);
    expect((before!.expiresAt - before!.availableAt) / SECOND).toBe(queue.messageTtlSeconds);
    expect((await storedBodies(store, queue)).messages).toEqual(['before', 'after']);
  });

  it('or deleted stores nothing, and the rest of the batch is stored', async () => {
    const second = await createQueue(store);
    await other.messages.enqueue(second.name, [message({ body: Buffer.from('before') })]);
    await store.queues.delete(queue.name);
    const batch = () =>
      other.messages.batches.enqueue([
        { queueName: second.name, messages: [message({ body: Buffer.from('one') })] },
        { queueName: queue.name, messages: numbered(3) },
        { queueName: second.name, messages: [message({ body: Buffer.from('two') })] },
      ]);
    expect(await batch()).toEqual([
      [expect.objectContaining({ duplicate: false })],
      expect.objectContaining({ code: 'queue-not-found' }),
      [expect.objectContaining({ duplicate: false })],
    ]);
    expect((await storedBodies(store, queue)).messages).toEqual(['before']);
    expect((await storedBodies(store, second)).owed).toEqual(['before', 'one', 'two']);
  });

  it('or replaced by a namesake gets none of the namesake’s messages', async () => {
    await store.queues.delete(queue.name);
    const { queue: namesake } = await store.queues.put(queue.name, { messageTtlSeconds: 77 });
    await enqueue('for the namesake');
    expect((await storedBodies(store, queue)).owed).toEqual(['before']);
    expect((await storedBodies(store, namesake)).owed).toEqual(['for the namesake']);
    const [only] = await owedMessages(store, namesake);
    expect((only!.expiresAt - only!.availableAt) / SECOND).toBe(77);
  });

  /** A broker whose queue changes each time after it has read the settings, so many times. */
  const overtaken = (times: number): MessageRepository => {
    let left = times;
    const queues = new QueueRepository(other.database);
    const getAll = queues.getAll.bind(queues);
    queues.getAll = async (names) => {
      const found = await getAll(names);
      left -= 1;
      if (left >= 0) await store.queues.put(queue.name, { messageTtlSeconds: 1000 + left });
      return found;
    };
    return new MessageRepository(other.database, undefined, queues);
  };
  const request = () => [{ queueName: queue.name, messages: numbered(2) }];

  it('is read again as often as it changes, up to a limit, and nothing is stored twice', async () => {
    const [ids] = await overtaken(3).enqueue(request());
    expect(ids).toHaveLength(2);
    expect((await storedBodies(store, queue)).messages).toEqual(['before', '0', '1']);
    expect((await owed())['0']?.expiresAt).toBe((await owed())['0']!.availableAt + 1000 * SECOND);
    await expect(overtaken(100).enqueue(request())).rejects.toMatchObject({ code: 'overloaded', retryAfterSeconds: 1 });
    expect((await storedBodies(store, queue)).messages).toEqual(['before', '0', '1']);
  });

  it('is handed off only by the settings that hold when its messages are stored', async () => {
    const events: string[] = [];
    let round = 0;
    const reserve = (of: Queue) => {
      round += 1;
      const name = `${round}${of.paused ? ' (paused)' : ''}`;
      return [
        {
          maxMessages: 1,
          leaseSeconds: 30,
          handOff: (leased: LeasedMessage[]) => events.push(`${name} got ${bodies(leased).join()}`),
          cancel: () => events.push(`${name} got nothing`),
        },
      ];
    };
    const [ids] = await overtaken(2).enqueue(request(), { reserve });
    expect(ids).toHaveLength(2);
    expect(events).toEqual(['1 got nothing', '2 got nothing', '3 got 0']);
    expect(await owed()).toMatchObject({ 0: { isLeased: true, receiveCount: 1 }, 1: { isLeased: false } });
    // The cached settings still say that it is not paused.
    await store.queues.setPaused(queue.name, { paused: true });
    events.length = 0;
    await other.messages.batches.enqueue(request(), { reserve });
    expect(events.filter((event) => event.includes(' got 0'))).toEqual([]);
    expect((await owedMessages(store, queue)).filter(({ isLeased }) => isLeased)).toHaveLength(1);
  });
});
