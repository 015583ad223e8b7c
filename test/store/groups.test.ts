import { newPackId, packIdOf } from '@rowmq/contract';
import {
  FIRST_ID,
  LEASE_GRACE_MS,
  type LeasedMessage,
  MessageRepository,
  type Queue,
  type Reserve,
} from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { sequenceNumberOf } from '../../apps/broker/src/sqs/sequence-number.js';
import { losingAnswers } from '../support/lost-answer.js';
import { plansOf, rowsReadFor } from '../support/plans.js';
import { recordStatements } from '../support/statements.js';
import { bodies, createQueue, message, openStore, type TestStore } from '../support/store.js';
import { claimFrom } from '../support/claim-from.js';

/* Ordered queues: the messages of a group are handed out in the order of their commits. */

const T0 = 1_800_000_000_000;
const SECOND = 1000;

let store: TestStore;
let dead: Queue;
let queue: Queue;

beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());
beforeEach(async () => {
  dead = await createQueue(store, { ordering: 'group' });
  queue = await createQueue(store, { ordering: 'group', deadLetterQueue: dead.name, maxReceives: 3 });
});

const text = (bodiesOfGroup: string) => bodiesOfGroup.split(' ');

/** Enqueues messages `a1 a2 b1` in one request: the letter is the group. */
async function send(names: string, now = T0, expiresInSeconds?: number): Promise<void> {
  await store.at(now).messages.enqueue(
    queue.name,
    text(names).map((name) => message({ body: Buffer.from(name), groupId: name.slice(0, 1), expiresInSeconds })),
  );
}

async function claim(now = T0, maxMessages = 100, of = queue, leaseSeconds = 60): Promise<LeasedMessage[]> {
  return store.at(now).messages.dequeue(of, { maxMessages, leaseSeconds });
}

async function ack(receipts: readonly LeasedMessage[], of = queue) {
  return store.messages.ackInOrder(of.id, receipts);
}

const names = (leased: readonly LeasedMessage[]) => bodies(leased).join(' ');

/** Acks and claims one message at a time until the queue is empty. */
async function drain(of = queue, now = T0): Promise<string> {
  const all: LeasedMessage[] = [];
  for (;;) {
    const [one] = await claim(now, 1, of);
    if (one === undefined) return names(all);
    all.push(one);
    expect(await ack([one], of)).toEqual([null]);
  }
}

async function expectEmpty(): Promise<void> {
  for (const table of ['delivery', 'message_group'])
    expect(await store.database.read(`SELECT * FROM ${table} WHERE queue_id IN (?)`, [[queue.id, dead.id]])).toEqual(
      [],
    );
}

describe('a group', () => {
  it('is handed out in order, one lease at a time, while other groups go on', async () => {
    await send('a1 a2 b1');
    await send('a3 c1');
    const first = await claim();
    expect(names(first)).toBe('a1 a2 b1 c1');
    expect(await claim()).toEqual([]);
    await ack(first.slice(0, 1));
    expect(await claim()).toEqual([]);
    await ack(first.slice(1));
    expect(names(await claim())).toBe('a3');
    expect(first.map(({ groupId }) => groupId)).toEqual(['a', 'a', 'b', 'c']);
  });

  it('keeps its order if a consumer takes a part', async () => {
    await send('a1 a2 a3 a4 a5');
    const first = await claim(T0, 2);
    expect(names(first)).toBe('a1 a2');
    expect(await claim()).toEqual([]);
    await send('a6');
    await ack(first);
    expect(await drain()).toBe('a3 a4 a5 a6');
    await expectEmpty();
  });

  it('is never shared by two consumers of one claim', async () => {
    await send('a1 a2 a3 b1 b2 b3');
    const { leased } = await claimFrom(store.at(T0).messages.batches, queue, [
      { maxMessages: 2, leaseSeconds: 60 },
      { maxMessages: 2, leaseSeconds: 60 },
    ]);
    expect(leased.map(names)).toEqual(['a1 a2', 'b1 b2']);
  });

  it('waits while its first message is delayed by a nack, and a later lease of it is lost', async () => {
    await send('a1 a2 a3 a4');
    const leased = await claim();
    const [a1, a2, a3] = leased as [LeasedMessage, LeasedMessage, LeasedMessage];
    expect(await store.messages.nack(queue.id, [a2], { delaySeconds: 30, reason: 'later' })).toEqual([null]);
    expect(await ack([a3])).toEqual(['lease-lost']);
    expect(await claim()).toEqual([]);
    expect(await ack([a1])).toEqual([null]);
    await send('a5');
    // a2 is delayed, so nobody gets a3.
    expect(await claim(T0 + 30 * SECOND - 1)).toEqual([]);
    const again = await claim(T0 + 30 * SECOND);
    expect(again.map((one) => `${String(one.body)}/${one.receiveCount}`)).toEqual(['a2/2']);
    await ack(again);
    const rest = await claim(T0 + 30 * SECOND);
    // The receives that the nack undid do not count.
    expect(rest.map((one) => `${String(one.body)}/${one.receiveCount}`)).toEqual(['a3/1', 'a4/1']);
    await ack(rest);
    expect(await drain(queue, T0 + 30 * SECOND)).toBe('a5');
    await expectEmpty();
  });

  it('comes back whole when a lease runs out, and the stale holder can do nothing', async () => {
    await send('a1 a2 a3');
    const stale = await claim(T0, 100, queue, 1);
    await ack(stale.slice(0, 1));
    const after = T0 + SECOND + LEASE_GRACE_MS;
    const fresh = await claim(after);
    expect(names(fresh)).toBe('a2 a3');
    expect(await ack(stale.slice(1))).toEqual(['lease-lost', 'lease-lost']);
    expect(await store.messages.nack(queue.id, stale.slice(1), { delaySeconds: 0 })).toEqual([
      'lease-lost',
      'lease-lost',
    ]);
    expect(await ack(fresh)).toEqual([null, null]);
    await expectEmpty();
  });

  it('goes on when a lease has run out and the next consumer takes a part', async () => {
    await send('a1 a2 a3');
    await claim(T0, 100, queue, 1);
    await send('a4');
    expect(await drain(queue, T0 + SECOND + LEASE_GRACE_MS)).toBe('a1 a2 a3 a4');
    await expectEmpty();
  });

  it('is extended as a whole', async () => {
    await send('a1 a2');
    const leased = await claim(T0, 100, queue, 2);
    await store.at(T0 + SECOND).messages.extend(queue.id, leased.slice(1), { leaseSeconds: 100 });
    expect(await claim(T0 + 50 * SECOND)).toEqual([]);
    expect(await ack(leased)).toEqual([null, null]);
  });

  it('goes on behind a message that expires or is rejected', async () => {
    await send('a1', T0, 10);
    await send('a2', T0, 10);
    await send('a3 a4');
    const now = T0 + 10 * SECOND;
    const leased = await claim(now);
    expect(names(leased)).toBe('a3 a4');
    expect(await store.messages.batches.reject({ queueId: queue.id, receipts: leased.slice(0, 1) })).toEqual([null]);
    expect(await ack(leased.slice(1))).toEqual([null]);
    expect(names(await claim(now, 100, dead))).toBe('a3');
    // The reaper removes a2, which no claim has met.
    const { found } = await store.unleased.findExpired(queue.id, FIRST_ID, 100);
    expect(await store.messages.expire(queue.id, found)).toBe(1);
    expect(await store.database.read('SELECT * FROM message_group WHERE queue_id = ?', [queue.id])).toEqual([]);
  });

  it('keeps its order in the dead-letter queue and on its way back', async () => {
    await send('a1 b1');
    await send('a2');
    await send('a3');
    let now = T0;
    for (let receive = 1; receive <= 9; receive += 1) {
      for (const one of await claim(now)) await store.messages.nack(queue.id, [one], { delaySeconds: 0 });
      now += SECOND;
    }
    expect(await claim(now)).toEqual([]);
    await send('a4', now);
    const first = await claim(now, 1, dead);
    expect(names(first)).toBe('a1');
    await store.messages.nack(dead.id, first, { delaySeconds: 0 });
    expect((await store.browse.stats(dead.id)).waiting).toBe(2);
    const { moved, left } = await store.unleased.redrive(dead.id, FIRST_ID, 100);
    expect([moved.get(queue.id), left]).toEqual([4, 0]);
    // a4 was the first already, so it stays so.
    expect((await drain(queue, now)).replace('b1 ', '')).toBe('a4 a1 a2 a3');
    await expectEmpty();
  });

  it('waits for the delay of its queue, message by message and in order', async () => {
    await store.queues.put(queue.name, { delaySeconds: 10 });
    await send('a1 a2 b1');
    await send('a3 c1', T0 + 5 * SECOND);
    expect(await store.at(T0 + 5 * SECOND).browse.stats(queue.id)).toMatchObject({ ready: 0, delayed: 4, waiting: 1 });
    expect(await claim(T0 + 10 * SECOND - 1)).toEqual([]);
    const first = await claim(T0 + 10 * SECOND);
    expect(names(first)).toBe('a1 a2 b1');
    await ack(first);
    expect(await claim(T0 + 15 * SECOND - 1)).toEqual([]);
    expect(text(await drain(queue, T0 + 15 * SECOND)).toSorted()).toEqual(['a3', 'c1']);
    await expectEmpty();
  });

  it('keeps its order when the delay of its queue gets shorter, or a message asks for none', async () => {
    await store.queues.put(queue.name, { delaySeconds: 10 });
    await send('a1');
    await store.at(T0).messages.enqueue(queue.name, [
      message({ body: Buffer.from('a2'), groupId: 'a', delaySeconds: 0 }),
      message({ body: Buffer.from('a3'), groupId: 'a' }),
      // They expire together, so only the delay tells them apart.
      message({ body: Buffer.from('b1'), groupId: 'b', delaySeconds: 0, expiresInSeconds: 60 }),
      message({ body: Buffer.from('b2'), groupId: 'b', expiresInSeconds: 60 }),
    ]);
    await store.queues.put(queue.name, { delaySeconds: 0 });
    await send('a4 b3');
    expect(await drain()).toBe('b1');
    const rest = text(await drain(queue, T0 + 10 * SECOND));
    expect(rest.filter((name) => name.startsWith('a'))).toEqual(['a1', 'a2', 'a3', 'a4']);
    expect(rest.filter((name) => name.startsWith('b'))).toEqual(['b2', 'b3']);
    await expectEmpty();
  });

  it('moves on when its first messages are purged', async () => {
    await send('a1 b1');
    await send('a2');
    await send('a3');
    const [a1] = await claim(T0, 1);
    const purge = async () => store.unleased.purge(queue.id, FIRST_ID, Buffer.alloc(16, 255), 100);
    // a2 became the first meanwhile. The next pass finds it.
    expect(await purge()).toMatchObject({ purged: 3, left: 1 });
    expect(await purge()).toMatchObject({ purged: 1, left: 0 });
    expect(await ack([a1 as LeasedMessage])).toEqual(['delivery-not-found']);
    await expectEmpty();
    await send('a1 a2');
    await send('a3');
    const [last] = await store.database.read<{ id: Buffer }>(
      'SELECT MIN(pack_id) AS id FROM delivery WHERE queue_id = ?',
      [queue.id],
    );
    // Only the first pack.
    await store.unleased.purge(queue.id, FIRST_ID, last!.id, 100);
    expect(await drain()).toBe('a3');
  });

  it('has ids in the order of commits, even from a broker whose clock is late', async () => {
    for (let n = 1; n <= 40; n += 1) {
      const skew = n % 2 === 0 ? 0 : -5000;
      await store
        .at(T0, T0 + skew)
        .messages.enqueue(queue.name, [message({ body: Buffer.from(String(n)), groupId: 'a' })]);
    }
    expect(await drain()).toBe(Array.from({ length: 40 }, (_, index) => index + 1).join(' '));
  });

  it('has ids that ascend also after it owed nothing, although the next broker’s clock is late', async () => {
    const stored: Buffer[] = [];
    for (const [after, skew] of [
      [0, 0],
      [1, -5000],
      [2, -1000],
    ] as const) {
      store.at(T0 + after, T0 + after + skew);
      stored.push(...(await store.messages.enqueue(queue.name, [message({ groupId: 'a' })])));
      expect(await ack(await claim(T0 + after))).toEqual([null]);
    }
    expect(stored.toSorted((one, other) => one.compare(other))).toEqual(stored);
  });

  it('has SequenceNumbers that grow, in a millisecond of many packs and from a clock that stands still', async () => {
    store.at(T0);
    const original = newPackId(T0);
    // Copies and others share no pack.
    const many = Array.from({ length: 300 }, (_, index) =>
      message({ groupId: 'a', ...(index % 2 === 0 && { replayOf: original }) }),
    );
    const ids = await store.messages.enqueue(queue.name, many);
    for (let n = 0; n < 150; n += 1)
      ids.push(...(await store.messages.enqueue(queue.name, [message({ groupId: 'a' })])));
    const sequence = ids.map(sequenceNumberOf);
    expect(sequence.filter((number, index) => index > 0 && number <= sequence[index - 1]!)).toEqual([]);
    expect(new Set(ids.map((id) => packIdOf(id).toString('hex'))).size).toBe(450);
  });
});

it('an enqueue is stored once if the answer to its COMMIT is lost and its queue changes before the retry', async () => {
  store.at(T0);
  const change = async (): Promise<void> => void (await store.queues.put(queue.name, { leaseSeconds: 77 }));
  const losing = new MessageRepository(losingAnswers(store.database, change));
  const messages = [message({ body: Buffer.from('a1'), groupId: 'a' })];
  const [outcome] = await losing.enqueueInOrder([{ queueName: queue.name, messages }]);
  expect(outcome).toMatchObject([{ duplicate: false }]);
  expect(await drain()).toBe('a1');
  await expectEmpty();
});

describe('a hand-off', () => {
  /** Consumers who wait for so many messages each, and what they got. */
  function waiting(...wanted: number[]) {
    const got: (LeasedMessage[] | undefined)[] = [];
    const reserve = vi.fn<Reserve>(() =>
      wanted.map((maxMessages, index) => ({
        maxMessages,
        leaseSeconds: 60,
        handOff: (leased: LeasedMessage[]) => void (got[index] = leased),
        cancel: () => void (got[index] = undefined),
      })),
    );
    return {
      reserve,
      got: () => got.map((leased) => leased && names(leased)),
      leased: () => got.flatMap((leased) => leased ?? []),
    };
  }

  async function sendTo(reserve: Reserve, sent: string, on = store.messages.batches, idempotencyKey?: string) {
    const messages = text(sent).map((name) => message({ body: Buffer.from(name), groupId: name.slice(0, 1) }));
    await on.enqueueInOrder([{ queueName: queue.name, messages, idempotencyKey }], { reserve });
  }

  it('gives each group to one consumer, and keeps back what he does not take', async () => {
    store.at(T0);
    const consumers = waiting(2, 2, 5, 1);
    await sendTo(consumers.reserve, 'a1 b1 a2 c1 b2 a3');
    expect(consumers.got()).toEqual(['a1 a2', 'b1 b2', 'c1', undefined]);
    expect(await claim()).toEqual([]);
    const leased = consumers.leased();
    expect(leased.map(({ receiveCount, groupId }) => `${groupId}${receiveCount}`)).toEqual([
      'a1',
      'a1',
      'b1',
      'b1',
      'c1',
    ]);
    // a2 first.
    expect(await ack(leased.slice(1, 2))).toEqual([null]);
    expect(await claim()).toEqual([]);
    expect(await ack(leased.filter((_, index) => index !== 1))).toEqual([null, null, null, null]);
    expect(await drain()).toBe('a3');
    await expectEmpty();
  });

  it('passes over no message of its group that is ready, leased or delayed', async () => {
    await send('a1 b1 c1');
    const first = await claim(T0, 1);
    const [b1] = await claim(T0, 1);
    await store.messages.nack(queue.id, [b1 as LeasedMessage], { delaySeconds: 30 });
    const consumers = waiting(9);
    await sendTo(consumers.reserve, 'a2 b2 c2');
    expect(consumers.reserve).not.toHaveBeenCalled();
    await sendTo(consumers.reserve, 'a3 d1');
    expect(consumers.reserve).toHaveBeenCalledExactlyOnceWith(expect.anything(), 1);
    expect(consumers.got()).toEqual(['d1']);
    await ack([...first, ...consumers.leased()]);
    expect(await drain()).toBe('c1 a2 c2 a3');
    expect(await drain(queue, T0 + 30 * SECOND)).toBe('b1 b2');
    await expectEmpty();
  });

  it('comes back when its lease has run out, and its holder can do nothing', async () => {
    store.at(T0);
    const consumers = waiting(1);
    await sendTo(consumers.reserve, 'a1 a2');
    const after = T0 + 60 * SECOND + LEASE_GRACE_MS;
    const again = await claim(after);
    expect(again.map((one) => `${String(one.body)}/${one.receiveCount}`)).toEqual(['a1/2']);
    expect(await ack(consumers.leased())).toEqual(['lease-lost']);
    await ack(again);
    expect(await drain(queue, after)).toBe('a2');
    await expectEmpty();
  });

  it('is undone if the answer to its COMMIT is lost, and nobody gets a message twice or out of order', async () => {
    store.at(T0);
    const consumers = waiting(1, 1);
    const losing = new MessageRepository(losingAnswers(store.database));
    await sendTo(consumers.reserve, 'a1 a2 b1', losing, 'key');
    expect(consumers.got()).toEqual([undefined, undefined]);
    const leased = await claim();
    expect(leased.map((one) => `${String(one.body)}/${one.receiveCount}`).toSorted()).toEqual(['a1/1', 'b1/1']);
    await ack(leased);
    expect(await drain()).toBe('a2');
    await expectEmpty();
  });

  it('does not happen before the end of a delay', async () => {
    store.at(T0);
    await store.queues.put(queue.name, { delaySeconds: 10 });
    const consumers = waiting(9);
    await sendTo(consumers.reserve, 'a1 b1');
    expect(consumers.reserve).not.toHaveBeenCalled();
    const undelayed = message({ body: Buffer.from('c1'), groupId: 'c', delaySeconds: 0 });
    const behind = message({ body: Buffer.from('a2'), groupId: 'a', delaySeconds: 0 });
    const requests = [{ queueName: queue.name, messages: [behind, undelayed] }];
    await store.messages.batches.enqueueInOrder(requests, { reserve: consumers.reserve });
    expect(consumers.got()).toEqual(['c1']);
  });

  it('does not happen in a paused queue', async () => {
    await store.queues.setPaused(queue.name, { paused: true });
    const consumers = waiting(1);
    await sendTo(consumers.reserve, 'a1');
    expect(consumers.got()).toEqual([]);
  });
});

/** The statements of an ack that find and change groups, and those that wait in them. */
const STATEMENTS: Record<string, RegExp> = {
  'the next of each group': /^SELECT head\.queue_id[^]*AS next/,
  'the groups': /^SELECT g\.queue_id/,
  'make the next one ready': /^UPDATE JSON_TABLE/,
  'delete ended groups': /^DELETE g/,
};

const PLANS = {
  'the next of each group': ['n: ref on delivery_next (29)', 'p: ref on delivery_next (13)'],
  'the groups': ['g: eq_ref on PRIMARY (12)'],
  'make the next one ready': ['d: eq_ref on PRIMARY (30)'],
  'delete ended groups': ['g: eq_ref on PRIMARY (12)'],
};

describe('a stuck group', () => {
  /** The rows that the server reads for a claim and an ack of one message. */
  async function rowsRead(own: TestStore, of: Queue): Promise<number> {
    return rowsReadFor(own, async () => {
      const leased = await own.messages.dequeue(of, { maxMessages: 1, leaseSeconds: 60 });
      expect(leased).toHaveLength(1);
      expect(await own.messages.ackInOrder(of.id, leased)).toEqual([null]);
    });
  }

  it('with 2,000 messages among 10,000 groups costs the others no row', async () => {
    // One connection, whose counters tell.
    const own = await openStore({ on: store.url, poolSize: 1 });
    const statements = recordStatements(own.database);
    const fill = async (groups: number, behind: number): Promise<Queue> => {
      const filled = await createQueue(own, { ordering: 'group' });
      const sendTo = async (groupIds: string[]) =>
        own.messages.enqueue(
          filled.name,
          groupIds.map((groupId) => message({ groupId })),
        );
      await sendTo(['stuck']);
      expect(await own.messages.dequeue(filled, { maxMessages: 1, leaseSeconds: 600 })).toHaveLength(1);
      for (let sent = 0; sent < behind; sent += 100) await sendTo(Array.from({ length: 100 }, () => 'stuck'));
      for (let sent = 0; sent < groups; sent += 100)
        await sendTo(Array.from({ length: Math.min(100, groups - sent) }, (_, index) => `g${sent + index}`));
      // Something waits behind the first group that the next claim gets.
      await sendTo(['g0']);
      statements.length = 0;
      // The scan floors settle.
      await rowsRead(own, filled);
      return filled;
    };
    const small = await rowsRead(own, await fill(5, 100));
    expect(await plansOf(own, statements, STATEMENTS)).toEqual(PLANS);
    const large = await rowsRead(own, await fill(10_000, 2000));
    expect(await plansOf(own, statements, STATEMENTS)).toEqual(PLANS);
    await own.close();
    expect(small).toBeGreaterThan(0);
    expect(large).toBeLessThanOrEqual(small + 10);
  });
});

describe('an ordered queue', () => {
  it('stores a repeated message once, and answers a repeated request as the first', async () => {
    const one = [message({ body: Buffer.from('a1'), groupId: 'a', deduplicationId: 'once' })];
    const requests = [{ queueName: queue.name, messages: one }];
    const [first] = await store.at(T0).messages.batches.enqueueInOrder(requests);
    const [second] = await store.messages.batches.enqueueInOrder(requests);
    expect(second).toEqual((first as { id: Buffer }[]).map(({ id }) => ({ id, duplicate: true })));
    const keyed = [
      { queueName: queue.name, messages: [message({ body: Buffer.from('a2'), groupId: 'a' })], idempotencyKey: 'k' },
    ];
    const answers = [
      await store.messages.batches.enqueueInOrder(keyed),
      await store.messages.batches.enqueueInOrder([...keyed, ...requests]),
    ];
    expect(answers[1]).toEqual([answers[0]?.[0], second]);
    expect(await drain()).toBe('a1 a2');
    await expectEmpty();
  });

  it('refuses messages without a group, with a priority or with a delay', async () => {
    const refused = { code: 'invalid-request' };
    await expect(store.messages.enqueue(queue.name, [message()])).rejects.toMatchObject(refused);
    for (const wrong of [{ priority: 5 }, { delaySeconds: 1 }]) {
      const sent = store.messages.enqueue(queue.name, [message({ groupId: 'a', ...wrong })]);
      await expect(sent).rejects.toMatchObject(refused);
    }
    // A broker took it for a queue without ordering, which it was before it was created anew.
    const requests = [{ queueName: queue.name, messages: [message({ groupId: 'a' })] }];
    expect(await store.messages.batches.enqueue(requests)).toMatchObject([{ code: 'overloaded' }]);
    const other = await createQueue(store);
    const inOther = [{ ...requests[0], queueName: other.name }] as typeof requests;
    expect(await store.messages.batches.enqueueInOrder(inOther)).toMatchObject([{ code: 'overloaded' }]);
  });

  it('keeps its ordering, and shares it with its dead-letter queue', async () => {
    const refused = { code: 'invalid-request' };
    const put = (name: string, settings: object) => store.queues.put(name, settings);
    await expect(put(queue.name, { ordering: null })).rejects.toMatchObject(refused);
    expect((await put(queue.name, { ordering: 'group', leaseSeconds: 5 })).queue).toMatchObject({ leaseSeconds: 5 });
    const other = await createQueue(store);
    await expect(put(other.name, { ordering: 'group' })).rejects.toMatchObject(refused);
    await expect(put(other.name, { deadLetterQueue: dead.name })).rejects.toMatchObject(refused);
    await expect(put(queue.name, { deadLetterQueue: other.name })).rejects.toMatchObject(refused);
    await expect(put('new-one', { ordering: 'group', deadLetterQueue: other.name })).rejects.toMatchObject(refused);
  });

  it('shows messages behind others as waiting', async () => {
    await send('a1 a2 b1');
    await send('a3 b2');
    expect(await store.at(T0).browse.stats(queue.id)).toMatchObject({ ready: 3, waiting: 2, delayed: 0, leased: 0 });
    await claim();
    expect(await store.browse.stats(queue.id)).toMatchObject({ ready: 0, waiting: 2, delayed: 0, leased: 3 });
    const { deliveries } = await store.browse.browse(queue.id, 'waiting', 10, undefined);
    expect(deliveries).toHaveLength(2);
    expect(deliveries.map(({ state, availableAt }) => [state, availableAt])).toEqual([
      ['waiting', T0],
      ['waiting', T0],
    ]);
  });
});
