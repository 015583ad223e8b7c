import { LIMITS } from '@rowmq/contract';
import {
  type Database,
  FIRST_ID,
  type LeasedMessage,
  MessageRepository,
  type Queue,
  type Transaction,
} from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { counted, held, LEASE_END, LEASE_SECONDS, named, names, SECOND, T0 } from '../support/followers.js';
import { losingAnswers } from '../support/lost-answer.js';
import { plansOf, rowsReadFor } from '../support/plans.js';
import { recordStatements } from '../support/statements.js';
import { createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

/*
 * Followers: one receive of an ordered queue gets several messages of a group, also if they were
 * sent one by one.
 */

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

/** Sends a request for each text: `a1`, or a batch `a2 a3`. The letter is the group. */
async function send(...requests: string[]): Promise<Buffer[]> {
  const ids: Buffer[] = [];
  for (const request of requests)
    ids.push(
      ...(await store.messages.enqueue(
        queue.name,
        request.split(' ').map((name) => named(name)),
      )),
    );
  return ids;
}

async function receive(now = T0, maxMessages = 10, leaseSeconds = LEASE_SECONDS, of = queue): Promise<LeasedMessage[]> {
  return store.at(now).messages.receive(of, { maxMessages, leaseSeconds });
}

async function ack(receipts: readonly LeasedMessage[], of = queue) {
  return store.messages.ackInOrder(of.id, receipts);
}

async function stats() {
  const { ready, leased, waiting, delayed } = await store.browse.stats(queue.id);
  return { ready, leased, waiting, delayed };
}

async function expectEmpty(): Promise<void> {
  for (const table of ['delivery', 'message_group'])
    expect(await store.database.read(`SELECT * FROM ${table} WHERE queue_id IN (?)`, [[queue.id, dead.id]])).toEqual(
      [],
    );
}

beforeEach(() => void store.at(T0));

describe('a receive', () => {
  it('gets the messages of its groups in order, also if they were sent one by one', async () => {
    await send('a1', 'b1', 'a2', 'a3 a4', 'b2');
    const leased = await receive();
    expect(names(leased)).toBe('a1 b1 a2 a3 a4 b2');
    expect(new Set(leased.map((one) => [one.receiveCount, one.firstReceivedAt, one.leaseExpiresAt].join()))).toEqual(
      new Set([[1, T0, T0 + LEASE_SECONDS * SECOND].join()]),
    );
    expect(leased.map(({ groupId }) => groupId)).toEqual(['a', 'b', 'a', 'a', 'a', 'b']);
    expect(await stats()).toEqual({ ready: 0, leased: 6, waiting: 0, delayed: 0 });
    expect(await receive()).toEqual([]);
    expect(await ack(leased)).toEqual(leased.map(() => null));
    await expectEmpty();
  });

  it('splits the delivery that has more than it takes, and the rest waits behind', async () => {
    await send('a1', 'a2 a3 a4 a5');
    const first = await receive(T0, 3);
    expect(names(first)).toBe('a1 a2 a3');
    expect(await stats()).toEqual({ ready: 0, leased: 3, waiting: 2, delayed: 0 });
    expect(await receive()).toEqual([]);
    // Without a token, the rest comes before the follower in the index.
    expect(await ack(held(first, 'a1'))).toEqual([null]);
    expect(await receive()).toEqual([]);
    expect(await ack(held(first, 'a3', 'a2'))).toEqual([null, null]);
    expect(names(await receive())).toBe('a4 a5');
  });

  it('gets the rest of a delivery of which it holds the first message', async () => {
    await send('a1 a2 a3 a4');
    const leased = await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: LEASE_SECONDS });
    expect(names(await store.messages.batches.follow(queue, leased, 2))).toBe('a2 a3');
    expect(await ack(leased)).toEqual([null]);
    expect(await receive()).toEqual([]);
    expect(await receive(LEASE_END)).toHaveLength(3);
  });

  it('sends one read more if nothing follows', async () => {
    await send('a1', 'b1');
    const leased = await store.messages.dequeue(queue, { maxMessages: 2, leaseSeconds: LEASE_SECONDS });
    const statements = recordStatements(store.database);
    const reads = () => statements.filter((sql) => sql.includes('delivery')).length;
    expect(await store.messages.batches.follow(queue, leased, 8)).toEqual([]);
    expect(reads()).toBe(1);
    expect(await store.messages.batches.follow(queue, leased, 0)).toEqual([]);
    expect(reads()).toBe(1);
    expect(statements.filter((sql) => sql.includes('message_group'))).toEqual([]);
  });

  it('takes no more bodies than an answer has room for', async () => {
    const large = Buffer.alloc(500_000, 'x');
    for (let sent = 0; sent < 10; sent += 1) await store.messages.enqueue(queue.name, [named('a', { body: large })]);
    const leased = await receive();
    expect(leased).toHaveLength(Math.floor(LIMITS.answerBytes / 500_000));
    await ack(leased);
    expect(await receive()).toHaveLength(10 - leased.length);
  });

  it('gets nothing more of a group that it has lost, or of a queue that is gone', async () => {
    await send('a1', 'a2');
    const leased = await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: LEASE_SECONDS });
    const follow = async () => store.messages.batches.follow(queue, leased, 9);
    store.at(T0 + LEASE_SECONDS * SECOND);
    expect(await follow()).toEqual([]);
    store.at(T0);
    await store.messages.nack(queue.id, leased, { delaySeconds: 0 });
    expect(await follow()).toEqual([]);
    const again = await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: LEASE_SECONDS });
    await store.queues.delete(queue.name);
    expect(await store.messages.batches.follow(queue, again, 9)).toEqual([]);
  });

  it('gets a message once, if it sits in a dead-letter queue as two copies', async () => {
    const topic = `followers-${queue.name}`;
    const other = await createQueue(store, { ordering: 'group', deadLetterQueue: dead.name, maxReceives: 3 });
    await store.topics.put(topic);
    for (const { name } of [queue, other]) await store.topics.putSubscription(topic, name, null);
    await store.messages.publish(topic, [named('a1')]);
    await store.messages.publish(topic, [named('a2')]);
    for (const of of [queue, other])
      expect(
        await store.messages.batches.reject({ queueId: of.id, receipts: await receive(T0, 10, LEASE_SECONDS, of) }),
      ).toEqual([null, null]);
    const drained: string[] = [];
    for (let round = 0; round < 4; round += 1) {
      const leased = await receive(T0, 10, LEASE_SECONDS, dead);
      drained.push(names(leased));
      expect(new Set(leased.map(({ messageId }) => messageId.toString('hex'))).size).toBe(leased.length);
      await ack(leased, dead);
    }
    // The copies of a1 come one after the other, and those of a2.
    expect(drained).toEqual(['a1', 'a1 a2', 'a2', '']);
  });

  it('finds its followers again if the answer to the COMMIT is lost', async () => {
    await send('a1', 'a2', 'a3 a4 a5');
    const leased = await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: LEASE_SECONDS });
    const losing = new MessageRepository(losingAnswers(store.database));
    const followers = await losing.follow(queue, leased, 3);
    expect(counted(followers)).toBe('a2/1 a3/1 a4/1');
    expect(await stats()).toMatchObject({ leased: 4, waiting: 1 });
    expect(await ack([...leased, ...followers])).toEqual([null, null, null, null]);
    expect(counted(await receive())).toBe('a5/1');
  });

  it('gets nothing more if the answer to the COMMIT is lost, and an operator takes the head away', async () => {
    const [a1] = await send('a1', 'a2', 'a3');
    const leased = await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: LEASE_SECONDS });
    const meanwhile = async () => {
      await store.messages.batches.fulfil(a1 as Buffer, [queue.id], { does: 'ack', reaches: () => true });
    };
    const losing = new MessageRepository(losingAnswers(store.database, meanwhile));
    expect(await losing.follow(queue, leased, 9)).toEqual([]);
    expect(await receive()).toEqual([]);
    expect(counted(await receive(LEASE_END))).toBe('a2/2 a3/2');
  });
});

describe('a group with followers', () => {
  it('stays with its consumer while he deletes in any order, and while more is sent', async () => {
    await send('a1', 'a2', 'a3');
    const leased = await receive();
    expect(await ack(held(leased, 'a2'))).toEqual([null]);
    await send('a4');
    expect(await receive()).toEqual([]);
    expect(await ack(held(leased, 'a1'))).toEqual([null]);
    expect(await receive()).toEqual([]);
    expect(await ack(held(leased, 'a3'))).toEqual([null]);
    expect(names(await receive())).toBe('a4');
  });

  it('has a new first message when that is deleted, which is still leased', async () => {
    await send('a1', 'a2', 'a3');
    const leased = await receive();
    await ack(held(leased, 'a1'));
    expect(await stats()).toMatchObject({ ready: 0, leased: 2 });
    store.at(T0 + 50 * SECOND);
    const [a2] = held(leased, 'a2');
    const extended = await store.messages.extend(queue.id, [a2!], { leaseSeconds: 60 });
    expect(extended).toEqual({ outcomes: [null], leaseExpiresAt: T0 + 110 * SECOND });
    expect(await ack([a2!])).toEqual([null]);
    // The lease of a3 has its own end.
    expect(await receive(LEASE_END - 1)).toEqual([]);
    expect(counted(await receive(LEASE_END))).toBe('a3/2');
    expect(await ack(held(leased, 'a3'))).toEqual(['lease-lost']);
  });

  it('is kept by its first message, even when the other leases have ended', async () => {
    await send('a1', 'a2', 'a3');
    const leased = await receive();
    await store.messages.extend(queue.id, held(leased, 'a1'), { leaseSeconds: 100 });
    expect(await receive(LEASE_END)).toEqual([]);
    expect(await stats()).toEqual({ ready: 0, leased: 1, waiting: 2, delayed: 0 });
    expect(await ack(held(leased, 'a2'))).toEqual(['lease-lost']);
    expect(await ack(held(leased, 'a1'))).toEqual([null]);
    expect(counted(await receive(LEASE_END))).toBe('a2/2 a3/2');
  });

  it('stops before a follower that is held for longer', async () => {
    await send('a1', 'a2', 'a3', 'a4');
    const leased = await receive();
    await store.messages.extend(queue.id, held(leased, 'a3'), { leaseSeconds: 100 });
    const again = await receive(LEASE_END);
    expect(counted(again)).toBe('a1/2 a2/2');
    expect(await ack(held(leased, 'a3', 'a4'))).toEqual([null, 'lease-lost']);
    expect(await receive(LEASE_END)).toEqual([]);
    expect(await ack(again)).toEqual([null, null]);
    expect(counted(await receive(LEASE_END))).toBe('a4/2');
  });

  it('comes back whole and in order when all leases have ended, and old receipts are refused', async () => {
    await send('a1', 'a2 a3', 'a4');
    const stale = await receive();
    expect(await receive(LEASE_END - 1)).toEqual([]);
    const fresh = await receive(LEASE_END);
    expect(counted(fresh)).toBe('a1/2 a2/2 a3/2 a4/2');
    expect(await ack(stale)).toEqual(stale.map(() => 'lease-lost'));
    expect((await store.messages.extend(queue.id, stale, { leaseSeconds: 9 })).outcomes).toEqual(
      stale.map(() => 'lease-lost'),
    );
    expect(await ack(fresh)).toEqual(fresh.map(() => null));
    await expectEmpty();
  });

  it('keeps a follower in its place after a nack', async () => {
    await send('a1', 'a2 a3', 'a4');
    const leased = await receive();
    // a3 comes after a2, so it goes back, too, and has not been received.
    expect(await store.messages.nack(queue.id, held(leased, 'a2'), { delaySeconds: 0 })).toEqual([null]);
    expect(await stats()).toEqual({ ready: 0, leased: 2, waiting: 2, delayed: 0 });
    expect(await ack(held(leased, 'a3'))).toEqual(['lease-lost']);
    expect(await receive()).toEqual([]);
    expect(await ack(held(leased, 'a1'))).toEqual([null]);
    const next = await receive();
    expect(counted(next)).toBe('a2/2 a3/1');
    expect(await ack([...next, ...held(leased, 'a4')])).toEqual([null, null, null]);
    await expectEmpty();
  });

  it('stops at a follower that a nack has delayed', async () => {
    await send('a1', 'a2', 'a3');
    const leased = await receive();
    await store.messages.nack(queue.id, held(leased, 'a2'), { delaySeconds: 30 });
    await store.messages.nack(queue.id, held(leased, 'a1', 'a3'), { delaySeconds: 0 });
    const again = await receive();
    expect(counted(again)).toBe('a1/2');
    await ack(again);
    expect(await receive(T0 + 30 * SECOND - 1)).toEqual([]);
    expect(counted(await receive(T0 + 30 * SECOND))).toBe('a2/2 a3/2');
  });

  it('gives its first message to the next consumer after a change to 0, and nothing behind it', async () => {
    await send('a1', 'a2', 'a3');
    const leased = await receive();
    const first = { queueId: queue.id, receipts: held(leased, 'a1'), delaySeconds: 0, keepsReceipts: true };
    expect(await store.messages.batches.nack([first])).toEqual([[null]]);
    const other = await receive();
    expect(counted(other)).toBe('a1/2');
    expect(await ack(held(leased, 'a2', 'a3'))).toEqual([null, null]);
    expect(await ack(other)).toEqual([null]);
    await expectEmpty();
  });

  it('is released as if nobody had received it', async () => {
    await send('a1', 'a2', 'a3');
    expect(await store.messages.release(queue.id, await receive())).toEqual([null, null, null]);
    expect(await stats()).toEqual({ ready: 1, leased: 0, waiting: 2, delayed: 0 });
    expect(counted(await receive())).toBe('a1/1 a2/1 a3/1');
  });

  it('stops at a follower that was received too often, which moves when it comes first', async () => {
    await send('a1', 'a2', 'a3');
    for (let round = 0; round < 3; round += 1) {
      const leased = await receive();
      await store.messages.nack(queue.id, held(leased, 'a2'), { delaySeconds: 0 });
      await store.messages.release(queue.id, held(leased, 'a1', 'a3'));
    }
    const leased = await receive();
    expect(counted(leased)).toBe('a1/1');
    await ack(leased);
    expect(counted(await receive())).toBe('a3/1');
    expect(counted(await receive(T0, 10, LEASE_SECONDS, dead))).toBe('a2/1');
  });

  it('moves to the dead-letter queue in its order when a consumer rejects it', async () => {
    await send('a1', 'a2', 'b1', 'a3', 'b2');
    const leased = await receive();
    const receipts = held(leased, 'a1', 'a2', 'b2');
    expect(await store.messages.batches.reject({ queueId: queue.id, receipts })).toEqual([null, null, null]);
    expect(await receive()).toEqual([]);
    expect(names(await receive(T0, 10, LEASE_SECONDS, dead))).toBe('a1 b2 a2');
    expect(await ack(held(leased, 'b1', 'a3'))).toEqual([null, null]);
    expect(await store.database.read('SELECT * FROM message_group WHERE queue_id = ?', [queue.id])).toEqual([]);
  });

  it('passes over messages that have expired, and waits for one that expires under its lease', async () => {
    await send('a1');
    await store.messages.enqueue(queue.name, [named('a2', { expiresInSeconds: 10 })]);
    await store.messages.enqueue(queue.name, [named('a3', { expiresInSeconds: 30 })]);
    await send('a4');
    const leased = await receive(T0 + 10 * SECOND, 2);
    expect(names(leased)).toBe('a1 a3');
    store.at(T0 + 40 * SECOND);
    const { found } = await store.unleased.findExpired(queue.id, FIRST_ID, 100);
    expect(await store.messages.expire(queue.id, found)).toBe(1);
    expect(await ack(held(leased, 'a1'))).toEqual([null]);
    expect(await receive(T0 + 40 * SECOND)).toEqual([]);
    expect(await ack(held(leased, 'a3'))).toEqual([null]);
    expect(names(await receive(T0 + 40 * SECOND))).toBe('a4');
  });
});

describe('an operator', () => {
  const reaches = () => true;

  it('sees followers as leased, and cannot cancel them before their lease ends', async () => {
    const [, a2] = await send('a1', 'a2', 'a3');
    await receive(T0, 2);
    const shown = async () => (await store.browse.deliveries(a2 as Buffer, [queue.id])).map(({ state }) => state);
    expect(await shown()).toEqual(['leased']);
    const { deliveries } = await store.browse.browse(queue.id, 'leased', 10, undefined);
    expect(deliveries.map(({ availableAt }) => availableAt)).toEqual([LEASE_END, LEASE_END]);
    expect((await store.browse.browse(queue.id, 'waiting', 10, undefined)).deliveries).toHaveLength(1);
    const cancel = async () => store.messages.batches.cancel(a2 as Buffer, [queue.id]);
    await expect(cancel()).rejects.toMatchObject({ code: 'message-leased' });
    store.at(LEASE_END);
    expect(await shown()).toEqual(['waiting']);
    expect(await cancel()).toEqual([queue.id]);
    expect(counted(await receive(LEASE_END))).toBe('a1/2 a3/1');
  });

  it('purges followers like all that is leased', async () => {
    await send('a1', 'a2', 'a3', 'a4', 'b1');
    const leased = await receive(T0, 4);
    expect(names(leased)).toBe('a1 b1 a2 a3');
    const purge = async () => store.unleased.purge(queue.id, FIRST_ID, Buffer.alloc(16, 255), 100);
    // a2 became the first meanwhile. The next pass finds it.
    expect(await purge()).toMatchObject({ purged: 4, left: 1 });
    expect(await purge()).toMatchObject({ purged: 1, left: 0 });
    expect(await ack(leased)).toEqual(leased.map(() => 'delivery-not-found'));
    await expectEmpty();
  });

  it('acks, releases and moves a follower while a consumer holds it', async () => {
    const ids = await send('a1', 'a2', 'a3', 'a4');
    const leased = await receive();
    const target = await createQueue(store, { ordering: 'group' });
    const [, a2, a3, a4] = ids as [Buffer, Buffer, Buffer, Buffer];
    await store.messages.batches.fulfil(a2, [queue.id], { does: 'ack', reaches });
    await store.messages.batches.fulfil(a3, [queue.id], { does: 'move', target, reaches });
    await store.messages.batches.fulfil(a4, [queue.id], { does: 'release', reaches });
    expect(await ack(held(leased, 'a2', 'a3', 'a4'))).toEqual([
      'delivery-not-found',
      'delivery-not-found',
      'lease-lost',
    ]);
    expect(await stats()).toEqual({ ready: 0, leased: 1, waiting: 1, delayed: 0 });
    expect(counted(await receive(T0, 10, LEASE_SECONDS, target))).toBe('a3/1');
    await ack(held(leased, 'a1'));
    expect(counted(await receive())).toBe('a4/1');
  });

  it('redrives no followers before their leases end', async () => {
    await send('a1', 'a2');
    await store.messages.batches.reject({ queueId: queue.id, receipts: await receive() });
    expect(await receive(T0, 10, LEASE_SECONDS, dead)).toHaveLength(2);
    expect((await store.unleased.redrive(dead.id, FIRST_ID, 100)).moved.size).toBe(0);
    store.at(LEASE_END);
    expect((await store.unleased.redrive(dead.id, FIRST_ID, 100)).moved).toEqual(new Map([[queue.id, 2]]));
    expect(counted(await receive(LEASE_END))).toBe('a1/1 a2/1');
  });
});

/**
 * A database that runs `meanwhile` once, between the `nth` round trip of its first transaction and
 * the next.
 */
function interrupted(database: Database, nth: number, meanwhile: () => Promise<unknown>): Database & { tries: number } {
  const own = Object.assign(Object.create(database) as Database, { tries: 0 });
  own.transaction = async <T>(work: (tx: Transaction) => Promise<T>): Promise<T> =>
    database.transaction(async (tx) => {
      own.tries += 1;
      if (own.tries > 1) return work(tx);
      let trips = 0;
      const sent = tx.all.bind(tx);
      const all: Transaction['all'] = async (statements) => {
        const answers = await sent(statements);
        trips += 1;
        if (trips === nth) await meanwhile();
        return answers;
      };
      // Not a copy of `tx`, which would not know that it has begun.
      return work(Object.assign(tx, { all }));
    });
  return own;
}

describe('a verb on followers', () => {
  it.each([1, 2])('begins again if they become first after its round trip %i', async (nth) => {
    await send('a1', 'a2', 'a3');
    const leased = await receive();
    const database = interrupted(store.database, nth, async () => ack(held(leased, 'a1')));
    const receipts = held(leased, 'a2', 'a3');
    expect(await new MessageRepository(database).ackInOrder([{ queueId: queue.id, receipts }])).toEqual([[null, null]]);
    expect(database.tries).toBe(2);
    await expectEmpty();
  });

  it('loses those that an operator takes meanwhile, and changes the others', async () => {
    const [, a2] = await send('a1', 'a2', 'a3');
    const leased = await receive();
    const database = interrupted(store.database, 2, async () =>
      store.messages.batches.fulfil(a2 as Buffer, [queue.id], { does: 'ack', reaches: () => true }),
    );
    const receipts = held(leased, 'a2', 'a3');
    const [outcomes] = await new MessageRepository(database).ackInOrder([{ queueId: queue.id, receipts }]);
    expect(outcomes).toEqual(['delivery-not-found', null]);
    expect(await ack(held(leased, 'a1'))).toEqual([null]);
    await expectEmpty();
  });

  it('serves one of two batches with the same receipts', async () => {
    await send('a1', 'a2', 'b1', 'a3', 'b2');
    const leased = await receive();
    const outcomes = await Promise.all([ack(leased), ack(leased.toReversed()).then((some) => some.toReversed())]);
    for (const [index] of leased.entries())
      expect(new Set(outcomes.map((some) => some[index]))).toEqual(new Set([null, 'delivery-not-found']));
    await expectEmpty();
  });

  it('serves the receipts of many receives in one batch', async () => {
    const groups = Array.from({ length: 55 }, (_, index) => `g${index}`);
    const ofEach = () => groups.map((groupId) => message({ groupId }));
    for (const messages of [ofEach(), ofEach()]) await store.messages.enqueue(queue.name, messages);
    const leased: LeasedMessage[] = [];
    for (let one = 0; one < groups.length; one += 1) {
      const first = await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: LEASE_SECONDS });
      leased.push(...first, ...(await store.messages.batches.follow(queue, first, 1)));
    }
    expect(leased).toHaveLength(2 * groups.length);
    expect((await store.messages.extend(queue.id, leased, { leaseSeconds: 90 })).outcomes).toEqual(
      leased.map(() => null),
    );
    expect(await ack(leased)).toEqual(leased.map(() => null));
    await expectEmpty();
  });

  it('sends no statement more in a queue without ordering', async () => {
    const plain = await createQueue(store);
    await store.messages.enqueue(plain.name, numbered(3));
    const leased = await store.messages.dequeue(plain, { maxMessages: 3, leaseSeconds: LEASE_SECONDS });
    const statements = recordStatements(store.database);
    await store.messages.extend(plain.id, leased, { leaseSeconds: 9 });
    const verbs = statements.filter((sql) => /delivery|message_group/.test(sql)).map((sql) => sql.split(' ')[0]);
    expect(verbs).toEqual(['SELECT', 'DELETE', 'INSERT']);
  });
});

/** The statements of a follow, and those of an ack of followers. */
const STATEMENTS: Record<string, RegExp> = {
  'the next of each group': /^SELECT head\.queue_id[^]*AS next/,
  'the first deliveries':
    /^SELECT[^]*FROM delivery d FORCE INDEX \(PRIMARY\)[^]*d\.lease_token = [^]*d\.available_at < \d+$/,
  'those that wait': /^SELECT[^]*ORDER BY d\.pack_id, d\.part$/,
  'the followers of receipts':
    /^SELECT[^]*FROM delivery d FORCE INDEX \(PRIMARY\) WHERE[^]*delayed_until, 0\)\) > [^]*$/,
};

it('a follow and its ack read a few rows, however long the group is', async () => {
  // One connection, whose counters tell.
  const own = await openStore({ on: store.url, poolSize: 1 });
  const statements = recordStatements(own.database);
  const cost = async (waiting: number): Promise<number> => {
    const filled = await createQueue(own, { ordering: 'group' });
    for (let sent = 0; sent < waiting; sent += 1) await own.messages.enqueue(filled.name, [message({ groupId: 'g' })]);
    statements.length = 0;
    const demand = { maxMessages: 10, leaseSeconds: LEASE_SECONDS };
    return rowsReadFor(own, async () => {
      const leased = await own.messages.receive(filled, demand);
      expect(leased).toHaveLength(10);
      expect(await own.messages.ackInOrder(filled.id, leased)).toEqual(leased.map(() => null));
    });
  };
  const small = await cost(20);
  const plans = await plansOf(own, statements, STATEMENTS);
  expect(plans).toEqual({
    'the next of each group': ['n: ref on delivery_next (29)', 'p: ref on delivery_next (13)'],
    'the first deliveries': ['d: ref on PRIMARY (28)'],
    'those that wait': ['d: ref on delivery_next (29)', 'p: ref on delivery_next (13)'],
    'the followers of receipts': [expect.stringMatching(/^d: range on PRIMARY \(28\)$/)],
  });
  const large = await cost(500);
  expect(await plansOf(own, statements, STATEMENTS)).toEqual(plans);
  await own.close();
  expect(small).toBeGreaterThan(0);
  expect(large).toBeLessThanOrEqual(small + 10);
});
