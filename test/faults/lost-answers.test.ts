import type { RowmqError } from '@rowmq/contract';
import { Database, LEASE_GRACE_MS, type LeasedDelivery, poolOf, type Queue, type Transaction } from '@rowmq/store';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type CuttingProxy, endsWithCommit, startCuttingProxy } from '../support/cutting-proxy.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * The connection is cut while a COMMIT is under way: before the server sees it, after it has
 * carried it out, or while it is still on its way. The broker cannot tell which; the outcome must
 * be the same.
 */

const T0 = 1_800_000_000_000;

let direct: TestStore;
let store: TestStore;
let proxy: CuttingProxy;

beforeAll(async () => {
  direct = await openStore();
  proxy = await startCuttingProxy(direct.url);
  store = await openStore({ on: proxy.url });
});
afterAll(async () => {
  await store.close();
  await proxy.close();
  await direct.close();
});

describe.each(['before', 'late', 'after'] as const)('a connection cut around its COMMIT (%s)', (when) => {
  async function cutOnce<T>(work: () => Promise<T>): Promise<T> {
    const before = proxy.cuts();
    proxy.cutAt(endsWithCommit, when);
    const result = await work();
    expect(proxy.cuts()).toBe(before + 1);
    return result;
  }

  it('an enqueue is stored exactly once', async () => {
    const queue = await createQueue(direct);
    await cutOnce(() => store.messages.enqueue(queue.name, numbered(10)));
    expect(bodies(await direct.messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 60 }))).toEqual(
      Array.from({ length: 10 }, (_, index) => String(index)),
    );
  });

  it('an enqueue is handed out before what is less urgent, in a priority that was not in use', async () => {
    const queue = await createQueue(direct);
    // After a peek at all priorities, the broker peeks only at those in use until its next claim.
    expect(await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 60 })).toEqual([]);
    await store.messages.enqueue(queue.name, [message({ body: Buffer.from('later') })]);
    await cutOnce(() => store.messages.enqueue(queue.name, [message({ priority: 9, body: Buffer.from('first') })]));
    expect(bodies(await store.messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 }))).toEqual([
      'first',
      'later',
    ]);
  });

  it('an enqueue that fills a bounded queue is not refused for its own messages', async () => {
    const queue = await createQueue(direct, { maxDepth: 10 });
    await store.messages.enqueue(queue.name, [message()]);
    await cutOnce(() => store.messages.enqueue(queue.name, numbered(9)));
    expect(await direct.browse.stats(queue.id)).toMatchObject({ ready: 10 });
    await expect(store.messages.enqueue(queue.name, [message()])).rejects.toMatchObject({ code: 'queue-full' });
  });

  it('a dequeue strands nothing and counts one hand-out', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(10));
    const leased = await cutOnce(() => store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 600 }));
    expect(leased.map(({ receiveCount }) => receiveCount)).toEqual(Array.from({ length: 10 }, () => 1));
    expect(new Set(bodies(leased)).size).toBe(10);
    expect(await direct.messages.ack(queue.id, leased)).toEqual(Array.from({ length: 10 }, () => null));
  });

  it('an ack is answered as done', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(3));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
    const never = { ...(leased[0] as (typeof leased)[0]), messageId: message().id };
    expect(await cutOnce(() => store.messages.ack(queue.id, [...leased, never]))).toEqual([
      null,
      null,
      null,
      'delivery-not-found',
    ]);
    expect(await direct.unleased.lastId(queue.id)).toBeNull();
  });

  it('a queue is deleted, and said to be', async () => {
    const queue = await createQueue(direct);
    expect(await cutOnce(() => store.queues.delete(queue.name))).toBe(queue.id);
    expect((await direct.queues.list()).map(({ name }) => name)).not.toContain(queue.name);
    await expect(store.queues.delete(queue.name)).rejects.toMatchObject({ code: 'queue-not-found' });
  });

  it('a nack is answered as done, and done once', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(3));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
    expect(await cutOnce(() => store.messages.nack(queue.id, leased, { delaySeconds: 0 }))).toEqual([null, null, null]);
    expect(await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 })).toMatchObject([
      { receiveCount: 2 },
      { receiveCount: 2 },
      { receiveCount: 2 },
    ]);
  });

  it('a nack is answered as done although another consumer has got the message meanwhile', async () => {
    const queue = await createQueue(direct);
    for (let round = 0; round < 5; round += 1) {
      await direct.messages.enqueue(queue.name, numbered(1));
      const leased = await direct.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 600 });
      const nacked = cutOnce(() => store.messages.nack(queue.id, leased, { delaySeconds: 0 }));
      const taken = await eventually('it is handed out again', async () => {
        const again = await direct.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 600 });
        return again.length > 0 && again;
      });
      expect(taken).toMatchObject([{ receiveCount: 2 }]);
      // Deleted as well, in every second round.
      if (round % 2 === 1) await direct.messages.ack(queue.id, taken);
      expect(await nacked).toEqual([null]);
      await direct.messages.ack(queue.id, taken);
    }
  });

  it('a dead-lettering is answered as done, and done once', async () => {
    const dead = await createQueue(direct);
    const queue = await createQueue(direct, { deadLetterQueue: dead.name });
    await direct.messages.enqueue(queue.name, numbered(3));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
    const request = { queueId: queue.id, receipts: leased, reason: 'broken' };
    expect(await cutOnce(() => store.messages.batches.reject(request))).toEqual([null, null, null]);
    expect(await direct.unleased.lastId(queue.id)).toBeNull();
    const moved = await direct.messages.dequeue(dead, { maxMessages: 10, leaseSeconds: 600 });
    expect(bodies(moved).toSorted()).toEqual(['0', '1', '2']);
  });

  it('an extend is answered as done', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(1));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 600 });
    const { outcomes } = await cutOnce(() => store.messages.extend(queue.id, leased, { leaseSeconds: 900 }));
    expect(outcomes).toEqual([null]);
    expect(await direct.messages.ack(queue.id, leased)).toEqual([null]);
  });

  describe('in a batch of several clients’ requests for several queues', () => {
    let a: Queue;
    let b: Queue;

    beforeEach(async () => {
      a = await createQueue(direct);
      b = await createQueue(direct);
    });

    /** Leases what is in both queues. */
    async function leaseAll(): Promise<[LeasedDelivery[], LeasedDelivery[]]> {
      await direct.messages.enqueue(a.name, numbered(6));
      await direct.messages.enqueue(b.name, numbered(3));
      return [
        await direct.messages.dequeue(a, { maxMessages: 6, leaseSeconds: 600 }),
        await direct.messages.dequeue(b, { maxMessages: 3, leaseSeconds: 600 }),
      ];
    }
    const copy = (lease: LeasedDelivery | undefined): LeasedDelivery => ({ ...(lease as LeasedDelivery) });
    const unknown = (lease: LeasedDelivery | undefined): LeasedDelivery => ({
      ...copy(lease),
      messageId: message().id,
    });

    it('an enqueue stores each request once, and refuses what it would have refused', async () => {
      const outcomes = await cutOnce(() =>
        store.messages.batches.enqueue([
          { queueName: a.name, messages: numbered(3) },
          { queueName: b.name, messages: numbered(2) },
          { queueName: a.name, messages: [message({ delaySeconds: 10, expiresInSeconds: 5 })] },
          { queueName: 'no-such-queue', messages: numbered(1) },
          { queueName: a.name, messages: numbered(4) },
        ]),
      );
      expect(outcomes.map((outcome) => outcome && (outcome as RowmqError).code)).toEqual([
        null,
        null,
        'invalid-request',
        'queue-not-found',
        null,
      ]);
      expect(await direct.browse.stats(a.id)).toMatchObject({ ready: 7 });
      expect(await direct.browse.stats(b.id)).toMatchObject({ ready: 2 });
    });

    it('a dequeue strands nothing, counts one hand-out each and gives every consumer its part of one lease', async () => {
      await direct.messages.enqueue(a.name, numbered(6));
      await direct.messages.enqueue(b.name, numbered(3));
      const request = [
        { queue: a, demands: [2, 4].map((maxMessages) => ({ maxMessages, leaseSeconds: 600 * maxMessages })) },
        { queue: b, demands: [{ maxMessages: 3, leaseSeconds: 600 }] },
      ];
      const got: Record<string, LeasedDelivery[]> = { a: [], b: [] };
      const take = async (): Promise<boolean> => {
        const [fromA, fromB] = await store.messages.batches.dequeue(request);
        got['a']?.push(...(fromA?.leased.flat() ?? []));
        got['b']?.push(...(fromB?.leased.flat() ?? []));
        return (await fromA?.claimAgain) === true || (await fromB?.claimAgain) === true;
      };
      let mayBeMore = await cutOnce(take);
      for (let tries = 0; mayBeMore && tries < 10; tries += 1) mayBeMore = await take();
      expect(bodies(got['a'] ?? []).toSorted()).toEqual(['0', '1', '2', '3', '4', '5']);
      expect(bodies(got['b'] ?? []).toSorted()).toEqual(['0', '1', '2']);
      expect(new Set(Object.values(got).flatMap((leased) => leased.map(({ receiveCount }) => receiveCount)))).toEqual(
        new Set([1]),
      );
      expect(await direct.messages.ack(a.id, got['a'] ?? [])).toEqual(Array.from({ length: 6 }, () => null));
      expect(await direct.messages.ack(b.id, got['b'] ?? [])).toEqual([null, null, null]);
    });

    it('an ack of leases that are all held is answered as done', async () => {
      const [ofA, ofB] = await leaseAll();
      const requests = [
        { queueId: b.id, receipts: ofB },
        { queueId: a.id, receipts: ofA.slice(0, 2) },
        { queueId: a.id, receipts: ofA.slice(2, 5) },
      ];
      expect(await cutOnce(() => store.messages.batches.ack(requests))).toEqual([
        [null, null, null],
        [null, null],
        [null, null, null],
      ]);
      expect(await direct.browse.stats(a.id)).toMatchObject({ leased: 1 });
      expect(await direct.unleased.lastId(b.id)).toBeNull();
    });

    it('an ack with some that are not tells what became of each', async () => {
      const [ofA, ofB] = await leaseAll();
      const requests = [
        { queueId: a.id, receipts: [...ofA.slice(0, 2), unknown(ofA[0])] },
        { queueId: b.id, receipts: [copy(ofA[4]), ...ofB.slice(0, 1)] },
        { queueId: a.id, receipts: [copy(ofA[1]), { ...copy(ofA[5]), leaseToken: Buffer.alloc(8, 7) }] },
      ];
      const outcomes = await cutOnce(() => store.messages.batches.ack(requests));
      expect(outcomes).toEqual([
        [null, null, 'delivery-not-found'],
        ['delivery-not-found', null],
        [expect.stringMatching(/^(delivery-not-found|lease-lost)$/), 'lease-lost'],
      ]);
      expect(await direct.browse.stats(a.id)).toMatchObject({ leased: 4 });
      expect(await direct.browse.stats(b.id)).toMatchObject({ leased: 2 });
    });

    it('a nack is answered as done, and done once', async () => {
      const [ofA, ofB] = await leaseAll();
      const outcomes = await cutOnce(() =>
        store.messages.batches.nack([
          { queueId: a.id, receipts: [...ofA.slice(0, 2), unknown(ofA[0])], delaySeconds: 0 },
          { queueId: b.id, receipts: ofB.slice(0, 2), delaySeconds: 600 },
          { queueId: a.id, receipts: [{ ...copy(ofA[5]), leaseToken: Buffer.alloc(8, 7) }], delaySeconds: 0 },
        ]),
      );
      expect(outcomes).toEqual([[null, null, 'delivery-not-found'], [null, null], ['lease-lost']]);
      expect(await direct.browse.stats(a.id)).toMatchObject({ ready: 2, leased: 4 });
      expect(await direct.browse.stats(b.id)).toMatchObject({ ready: 0, delayed: 2, leased: 1 });
      const back = await direct.messages.dequeue(a, { maxMessages: 10, leaseSeconds: 600 });
      expect(back.map(({ receiveCount }) => receiveCount)).toEqual([2, 2]);
    });

    it('an extend is answered as done, with the deadline that holds', async () => {
      const [ofA, ofB] = await leaseAll();
      const results = await cutOnce(() =>
        store.messages.batches.extend([
          { queueId: a.id, receipts: [...ofA.slice(0, 2), unknown(ofA[0])], leaseSeconds: 900 },
          { queueId: b.id, receipts: ofB, leaseSeconds: 1200 },
        ]),
      );
      expect(results.map(({ outcomes }) => outcomes)).toEqual([
        [null, null, 'delivery-not-found'],
        [null, null, null],
      ]);
      for (const [index, lease] of [ofA[0], ofB[0]].entries()) {
        const [row] = await direct.database.read<{ availableAt: number }>(
          'SELECT available_at AS availableAt FROM delivery WHERE message_id = ?',
          [lease?.messageId],
        );
        expect((row?.availableAt ?? 0) - LEASE_GRACE_MS).toBe(results[index]?.leaseExpiresAt);
      }
    });
  });

  it('a queue is created once', async () => {
    const { queue } = await cutOnce(() => store.queues.put(`cut-${when}`, { leaseSeconds: 77 }));
    expect(queue.leaseSeconds).toBe(77);
    expect((await direct.queues.list()).filter(({ name }) => name === `cut-${when}`)).toHaveLength(1);
  });
});

describe('between a COMMIT without an answer and the next try', () => {
  let meanwhile: () => Promise<void>;
  let interrupted: TestStore;

  class Interrupted extends Database {
    override async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
      return super.transaction(async (tx) => {
        if (tx.commitUnknown) await meanwhile();
        return work(tx);
      });
    }
  }

  beforeAll(async () => {
    interrupted = await openStore({ on: proxy.url, databaseOf: (source) => new Interrupted(source) });
  });
  afterEach(() => {
    direct.at(undefined);
    interrupted.at(undefined);
  });
  afterAll(() => interrupted.close());

  it.each(['all are held', 'some are not'])(
    'an ack that was not carried out is not confirmed when the lease ends and the message is dead-lettered (%s)',
    async (which) => {
      const dead = await createQueue(direct);
      const queue = await createQueue(direct, { maxReceives: 1, deadLetterQueue: dead.name });
      const claim = { maxMessages: 1, leaseSeconds: 60 };
      await direct.at(T0).messages.enqueue(queue.name, numbered(1));
      const leased = await direct.at(T0).messages.dequeue(queue, { ...claim });
      expect(leased).toHaveLength(1);
      const unknown = { ...(leased[0] as LeasedDelivery), messageId: message().id };
      meanwhile = async () => {
        // A claim skips the row until the server notices the cut and rolls the ack back.
        await eventually('it is dead-lettered', async () => {
          expect(await direct.at(T0 + 100_000).messages.dequeue(queue, { ...claim })).toEqual([]);
          return direct.unleased.lastId(dead.id);
        });
      };
      proxy.cutAt(endsWithCommit, 'before');
      const receipts = which === 'all are held' ? leased : [...leased, unknown];
      const outcomes = await interrupted.at(T0).messages.ack(queue.id, receipts);
      expect(new Set(outcomes)).toEqual(new Set(['delivery-not-found']));
      expect(bodies(await direct.at(T0 + 100_000).messages.dequeue(dead, { ...claim }))).toEqual(['0']);
    },
  );

  it('a queue that is made under the name of one that was deleted stays', async () => {
    const queue = await createQueue(direct);
    let namesake: number | undefined;
    meanwhile = async () => {
      namesake = (await direct.queues.put(queue.name, {})).queue.id;
    };
    proxy.cutAt(endsWithCommit, 'after');
    expect(await interrupted.queues.delete(queue.name)).toBe(queue.id);
    expect((await direct.queues.getFresh(queue.name)).id).toBe(namesake);
    expect(namesake).not.toBe(queue.id);
  });
});

it('an ack that was carried out is answered as done although the broker gets one connection, and no third, to find that out', async () => {
  const queue = await createQueue(direct);
  await direct.messages.enqueue(queue.name, numbered(3));
  const leased = await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
  const scarce = await openStore({ on: proxy.url, poolSize: 1, databaseOf: (source) => new Database(source, 1000) });
  try {
    const pool = poolOf(scarce.database.dataSource);
    const getConnection = pool.getConnection.bind(pool);
    let given = 0;
    pool.getConnection = (callback) => {
      given += 1;
      if (given <= 2) getConnection(callback);
    };
    proxy.cutAt(endsWithCommit, 'after');
    expect(await scarce.messages.ack(queue.id, leased)).toEqual([null, null, null]);
    expect(given).toBe(2);
    expect(await direct.unleased.lastId(queue.id)).toBeNull();
  } finally {
    await scarce.close();
  }
});

it('a connection cut in the middle of a transaction leaves nothing half-done', async () => {
  const queue = await createQueue(direct);
  proxy.cutAt('INSERT INTO delivery', 'after');
  await store.messages.enqueue(queue.name, numbered(5));
  expect(await direct.browse.stats(queue.id)).toMatchObject({ ready: 5 });
});

it('a rescan below a scan floor that fails for one queue keeps no leased message from the consumers of another', async () => {
  const [a, b] = [await createQueue(direct), await createQueue(direct)];
  const take = () =>
    store.messages.batches.dequeue(
      [a, b].map((queue) => ({ queue, demands: [{ maxMessages: 5, leaseSeconds: 600 }] })),
    );
  await take();
  await store.messages.enqueue(a.name, numbered(3));
  // The rescan is the statement that begins at the left edge of every priority.
  proxy.cutAt('available_at BETWEEN 0 AND', 'before', 1000);
  try {
    await expect
      .poll(async () => {
        const outcomes = await take();
        return outcomes.flatMap(({ leased }) => leased.flat()).length;
      })
      .toBe(3);
  } finally {
    proxy.cutAt('', 'before', 0);
  }
});
