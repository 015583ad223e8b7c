import { setTimeout as sleep } from 'node:timers/promises';
import { indexInPack, newPackId, type RowmqError } from '@rowmq/contract';
import {
  Database,
  type EnqueuedMessage,
  LEASE_GRACE_MS,
  type LeasedMessage,
  type Queue,
  type Transaction,
} from '@rowmq/store';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { commits, type CuttingProxy, startCuttingProxy } from '../support/cutting-proxy.js';
import { has } from '../../libs/store/src/messages/members.js';
import { deliveryRows } from '../support/deliveries.js';
import { Parked } from '../support/parked.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';
import { claimFrom } from '../support/claim-from.js';

/*
 * The connection is cut while a COMMIT is under way: before the server sees it, after it has
 * carried it out, or while it is still on its way. The broker cannot tell which. The state of the
 * database must be the same.
 *
 * An ack, nack or reject that was carried out ended the leases. The broker repeats it and cannot
 * tell whose leases it finds ended, so it says that the outcome is unknown.
 */

const T0 = 1_800_000_000_000;

const UNKNOWN = expect.objectContaining({
  code: 'database-unavailable',
  message: expect.stringContaining('may or may not'),
});

/** A late COMMIT has reached the server after this time. */
const LATE_MS = 400;

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
    proxy.cutAt(commits, when);
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

  it('an enqueue with ids and a key is no duplicate of itself, and is one of what was there before', async () => {
    const queue = await createQueue(direct);
    const once = (id: string) => message({ body: Buffer.from(id), deduplicationId: id });
    const [first] = await direct.messages.enqueue(queue.name, [once('a')]);
    const requests = [
      { queueName: queue.name, messages: [once('b'), once('c')], idempotencyKey: 'key' },
      { queueName: queue.name, messages: [once('d')] },
    ];
    const known = [...requests, { queueName: queue.name, messages: [once('a')], idempotencyKey: 'of-a' }];
    for (const batch of [requests, known]) {
      const outcomes = await cutOnce(() => store.messages.batches.enqueue(batch));
      const repeated = await direct.messages.batches.enqueue(requests);
      expect(outcomes[0]).toEqual(repeated[0]);
      expect((outcomes[1] as EnqueuedMessage[])[0]?.id).toEqual((repeated[1] as EnqueuedMessage[])[0]?.id);
      expect((outcomes[0] as EnqueuedMessage[]).map(({ duplicate }) => duplicate)).toEqual([false, false]);
      if (batch === known) expect(outcomes[2]).toEqual([{ id: first, duplicate: true }]);
    }
    const handedOut = await direct.messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 60 });
    expect(bodies(handedOut).toSorted()).toEqual(['a', 'b', 'c', 'd']);
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

  /**
   * Expects these outcomes of a verb that ends leases, or the answer that its outcome is unknown if
   * it may have been carried out.
   */
  async function expectDone<Outcomes>(work: () => Promise<Outcomes>, expected: Outcomes): Promise<void> {
    const settled = await cutOnce(() => Promise.allSettled([work()]));
    const done = { status: 'fulfilled', value: expected };
    const unknown = { status: 'rejected', reason: UNKNOWN };
    const possible = { before: [done], late: [done, unknown], after: [unknown] }[when];
    expect(possible).toContainEqual(settled[0]);
  }

  it('a hand-off reaches each consumer once, or frees the messages', async () => {
    const queue = await createQueue(direct);
    const parked = new Parked([4, 3]);
    await cutOnce(() => store.messages.batches.enqueue([{ queueName: queue.name, messages: numbered(10) }], parked));
    const { handedOff } = parked;
    expect(parked.answers).toEqual([1, 1]);
    if (when === 'before') expect(bodies(handedOff)).toEqual(['0', '1', '2', '3', '4', '5', '6']);
    if (when === 'after') expect(handedOff).toEqual([]);
    const rest = await direct.messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 600 });
    expect(bodies([...handedOff, ...rest]).toSorted()).toEqual(numbered(10).map(({ body }) => body.toString()));
    // A lease that reached nobody does not count.
    expect(new Set([...handedOff, ...rest].map(({ receiveCount }) => receiveCount))).toEqual(new Set([1]));
    expect(new Set(await direct.messages.ack(queue.id, [...handedOff, ...rest]))).toEqual(new Set([null]));
    expect(await direct.unleased.lastId(queue.id)).toBeNull();
  });

  it('an ack settles its messages', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(3));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
    await expectDone(() => store.messages.ack(queue.id, leased), [null, null, null]);
    expect(await direct.unleased.lastId(queue.id)).toBeNull();
  });

  it('an ack of some messages of a pack settles them and no others', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(5));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 5, leaseSeconds: 600 });
    await expectDone(() => store.messages.ack(queue.id, leased.slice(1, 3)), [null, null]);
    expect(await direct.browse.stats(queue.id)).toMatchObject({ leased: 3 });
    expect(await direct.messages.ack(queue.id, leased)).toEqual([
      null,
      'delivery-not-found',
      'delivery-not-found',
      null,
      null,
    ]);
  });

  it('a queue is deleted, and said to be', async () => {
    const queue = await createQueue(direct);
    expect(await cutOnce(() => store.queues.delete(queue.name))).toBe(queue.id);
    expect((await direct.queues.list()).map(({ name }) => name)).not.toContain(queue.name);
    await expect(store.queues.delete(queue.name)).rejects.toMatchObject({ code: 'queue-not-found' });
  });

  it('a nack is done once', async () => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(3));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
    await expectDone(() => store.messages.nack(queue.id, leased, { delaySeconds: 0 }), [null, null, null]);
    expect(await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 })).toMatchObject([
      { receiveCount: 2 },
      { receiveCount: 2 },
      { receiveCount: 2 },
    ]);
  });

  it('a nack takes no message back from a consumer who has got it meanwhile', async () => {
    const queue = await createQueue(direct);
    for (let round = 0; round < 5; round += 1) {
      await direct.messages.enqueue(queue.name, numbered(1));
      const leased = await direct.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 600 });
      const nacked = expectDone(() => store.messages.nack(queue.id, leased, { delaySeconds: 0 }), [null]);
      const taken = await eventually('it is handed out again', async () => {
        const again = await direct.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 600 });
        return again.length > 0 && again;
      });
      expect(taken).toMatchObject([{ receiveCount: 2 }]);
      // Settled as well, in every second round.
      const isSettled = round % 2 === 1;
      if (isSettled) expect(await direct.messages.ack(queue.id, taken)).toEqual([null]);
      await nacked;
      if (when === 'late') await sleep(LATE_MS);
      if (!isSettled) expect(await direct.messages.ack(queue.id, taken)).toEqual([null]);
      expect(await direct.unleased.lastId(queue.id)).toBeNull();
    }
  });

  it('a dead-lettering is done once', async () => {
    const dead = await createQueue(direct);
    const queue = await createQueue(direct, { deadLetterQueue: dead.name });
    await direct.messages.enqueue(queue.name, numbered(3));
    const leased = await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
    const request = { queueId: queue.id, receipts: leased, reason: 'broken' };
    await expectDone(() => store.messages.batches.reject(request), [null, null, null]);
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
    async function leaseAll(): Promise<[LeasedMessage[], LeasedMessage[]]> {
      await direct.messages.enqueue(a.name, numbered(6));
      await direct.messages.enqueue(b.name, numbered(3));
      return [
        await direct.messages.dequeue(a, { maxMessages: 6, leaseSeconds: 600 }),
        await direct.messages.dequeue(b, { maxMessages: 3, leaseSeconds: 600 }),
      ];
    }
    const copy = (lease: LeasedMessage | undefined): LeasedMessage => ({ ...(lease as LeasedMessage) });
    const unknown = (lease: LeasedMessage | undefined): LeasedMessage => ({
      ...copy(lease),
      messageId: newPackId(),
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
      expect(outcomes.map((outcome) => (outcome as RowmqError).code ?? (outcome as EnqueuedMessage[]).length)).toEqual([
        3,
        2,
        'invalid-request',
        'queue-not-found',
        4,
      ]);
      const ids = outcomes.flatMap((outcome) => (outcome instanceof Error ? [] : outcome.map(({ id }) => id)));
      expect(await direct.browse.messages(ids)).toHaveLength(9);
      expect(await direct.browse.stats(a.id)).toMatchObject({ ready: 7 });
      expect(await direct.browse.stats(b.id)).toMatchObject({ ready: 2 });
    });

    it('a claim strands nothing, counts one hand-out each and gives every consumer its part of one lease', async () => {
      await direct.messages.enqueue(a.name, numbered(9));
      // The last message of the pack stays ready.
      const demands = [2, 3, 3].map((maxMessages) => ({ maxMessages, leaseSeconds: 600 * maxMessages }));
      const got: LeasedMessage[] = [];
      const take = async (): Promise<boolean> => {
        const { leased, claimAgain } = await claimFrom(store.messages.batches, a, demands);
        got.push(...leased.flat());
        for (const [index, some] of leased.entries()) {
          expect(some.length).toBeLessThanOrEqual(demands[index]?.maxMessages ?? 0);
          if (some.length > 0) expect(new Set(some.map(({ leaseExpiresAt }) => leaseExpiresAt)).size).toBe(1);
        }
        return (await claimAgain) && got.length < 8;
      };
      let mayBeMore = await cutOnce(take);
      for (let tries = 0; mayBeMore && tries < 10; tries += 1) mayBeMore = await take();
      expect(bodies(got).toSorted().slice(0, 8)).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
      expect(new Set(got.map(({ receiveCount }) => receiveCount))).toEqual(new Set([1]));
      expect(new Set(await direct.messages.ack(a.id, got))).toEqual(new Set([null]));
      expect(await direct.browse.stats(a.id)).toMatchObject({ leased: 0, ready: 9 - got.length });
    });

    it('a claim in several queues strands nothing, and counts one hand-out each', async () => {
      const queues = [a, b];
      for (const { name } of queues) await direct.messages.enqueue(name, numbered(9));
      const requests = queues.map((queue) => ({ queue, demands: [{ maxMessages: 8, leaseSeconds: 600 }] }));
      const got = new Map(queues.map((queue) => [queue, [] as LeasedMessage[]]));
      const take = async (): Promise<boolean> => {
        const wanted = requests.filter(({ queue }) => got.get(queue)!.length === 0);
        const outcomes = await store.messages.batches.claim(wanted);
        for (const [index, { queue }] of wanted.entries()) got.get(queue)!.push(...outcomes[index]!.leased.flat());
        const again = await Promise.all(outcomes.map(async ({ claimAgain }) => claimAgain));
        return again.includes(true) && [...got.values()].some(({ length }) => length === 0);
      };
      let mayBeMore = await cutOnce(take);
      for (let tries = 0; mayBeMore && tries < 10; tries += 1) mayBeMore = await take();
      for (const [queue, leased] of got) {
        expect(bodies(leased).toSorted()).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
        expect(new Set(leased.map(({ receiveCount }) => receiveCount))).toEqual(new Set([1]));
        expect(new Set(await direct.messages.ack(queue.id, leased))).toEqual(new Set([null]));
        expect(await direct.browse.stats(queue.id)).toMatchObject({ leased: 0, ready: 1 });
      }
    });

    it('an ack of leases that are all held settles them', async () => {
      const [ofA, ofB] = await leaseAll();
      const requests = [
        { queueId: b.id, receipts: ofB },
        { queueId: a.id, receipts: ofA.slice(0, 2) },
        { queueId: a.id, receipts: ofA.slice(2, 5) },
      ];
      await expectDone(
        () => store.messages.batches.ack(requests),
        [
          [null, null, null],
          [null, null],
          [null, null, null],
        ],
      );
      expect(await direct.browse.stats(a.id)).toMatchObject({ leased: 1 });
      expect(await direct.unleased.lastId(b.id)).toBeNull();
    });

    it('an ack with some that are not settles the others', async () => {
      const [ofA, ofB] = await leaseAll();
      const requests = [
        { queueId: a.id, receipts: [...ofA.slice(0, 2), unknown(ofA[0])] },
        { queueId: b.id, receipts: [copy(ofA[4]), ...ofB.slice(0, 1)] },
        { queueId: a.id, receipts: [copy(ofA[1]), { ...copy(ofA[5]), leaseToken: Buffer.alloc(8, 7) }] },
      ];
      const answer = cutOnce(() => store.messages.batches.ack(requests));
      // The broker cannot tell which receipts failed in the first try.
      await expect(answer).rejects.toEqual(UNKNOWN);
      expect(await direct.browse.stats(a.id)).toMatchObject({ leased: 4 });
      expect(await direct.browse.stats(b.id)).toMatchObject({ leased: 2 });
    });

    it('a nack is done once', async () => {
      const [ofA, ofB] = await leaseAll();
      await expectDone(
        () =>
          store.messages.batches.nack([
            { queueId: a.id, receipts: ofA.slice(0, 2), delaySeconds: 0 },
            { queueId: b.id, receipts: ofB.slice(0, 2), delaySeconds: 600 },
          ]),
        [
          [null, null],
          [null, null],
        ],
      );
      expect(await direct.browse.stats(a.id)).toMatchObject({ ready: 2, leased: 4 });
      expect(await direct.browse.stats(b.id)).toMatchObject({ ready: 0, delayed: 2, leased: 1 });
      const back = await direct.messages.dequeue(a, { maxMessages: 10, leaseSeconds: 600 });
      expect(back.map(({ receiveCount }) => receiveCount)).toEqual([2, 2]);
    });

    it('an extend is answered as done, with the deadline that holds', async () => {
      const [ofA, ofB] = await leaseAll();
      const results = await cutOnce(() =>
        store.messages.batches.extend([
          { queueId: a.id, receipts: ofA.slice(0, 2), leaseSeconds: 900 },
          { queueId: b.id, receipts: ofB, leaseSeconds: 1200 },
        ]),
      );
      expect(results.map(({ outcomes }) => outcomes)).toEqual([
        [null, null],
        [null, null, null],
      ]);
      const owing = [
        [a, ofA[0]],
        [b, ofB[0]],
      ] as [Queue, LeasedMessage][];
      for (const [index, [queue, { messageId }]] of owing.entries()) {
        const rows = await deliveryRows(direct, queue);
        const row = rows.find(({ members }) => has(members, indexInPack(messageId)));
        expect((row?.availableAt ?? 0) - LEASE_GRACE_MS).toBe(results[index]?.leaseExpiresAt);
      }
    });
  });

  it.each([
    ['put', async (name: string) => store.queues.put(name, { leaseSeconds: 77 })],
    [
      'create',
      async (name: string) => ({ queue: await store.queues.create(name, { leaseSeconds: 77 }), created: true }),
    ],
  ])('a queue is created once (%s)', async (verb, create) => {
    const name = `cut-${when}-${verb}`;
    expect(await cutOnce(() => create(name))).toMatchObject({ created: true, queue: { leaseSeconds: 77 } });
    expect((await direct.queues.list()).filter((queue) => queue.name === name)).toHaveLength(1);
    await expect(store.queues.create(name, {})).rejects.toMatchObject({ code: 'queue-exists' });
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
      const unknown = { ...(leased[0] as LeasedMessage), messageId: newPackId() };
      meanwhile = async () => {
        // A claim skips the row until the server notices the cut and rolls the ack back.
        await eventually('it is dead-lettered', async () => {
          expect(await direct.at(T0 + 100_000).messages.dequeue(queue, { ...claim })).toEqual([]);
          return direct.unleased.lastId(dead.id);
        });
      };
      proxy.cutAt(commits, 'before');
      const receipts = which === 'all are held' ? leased : [...leased, unknown];
      await expect(interrupted.at(T0).messages.ack(queue.id, receipts)).rejects.toEqual(UNKNOWN);
      expect(bodies(await direct.at(T0 + 100_000).messages.dequeue(dead, { ...claim }))).toEqual(['0']);
    },
  );

  it('a queue that is made under the name of one that was deleted stays', async () => {
    const queue = await createQueue(direct);
    let namesake: number | undefined;
    meanwhile = async () => {
      namesake = (await direct.queues.put(queue.name, {})).queue.id;
    };
    proxy.cutAt(commits, 'after');
    expect(await interrupted.queues.delete(queue.name)).toBe(queue.id);
    expect((await direct.queues.getFresh(queue.name)).id).toBe(namesake);
    expect(namesake).not.toBe(queue.id);
  });
});

it('an enqueue whose every COMMIT gets no answer frees its consumers and says that the outcome is unknown', async () => {
  const queue = await createQueue(direct);
  const parked = new Parked([2]);
  proxy.cutAt(commits, 'before', 1000);
  try {
    const enqueued = store.messages.batches.enqueue([{ queueName: queue.name, messages: numbered(3) }], parked);
    await expect(enqueued).rejects.toMatchObject({
      code: 'database-unavailable',
      message: expect.stringContaining('may or may not'),
    });
  } finally {
    proxy.cutAt('', 'before', 0);
  }
  expect(parked).toMatchObject({ answers: [1], handedOff: [] });
});

describe.each([
  ['a claim', 'FOR UPDATE SKIP LOCKED'],
  ['a nack', 'FOR UPDATE'],
])('%s whose connection is cut in the middle of its transaction', (what, statement) => {
  it.each(['before', 'after'] as const)('leaves nothing half-done (%s)', async (when) => {
    const queue = await createQueue(direct);
    await direct.messages.enqueue(queue.name, numbered(5));
    const take = (from: TestStore) => from.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
    if (what === 'a claim') {
      proxy.cutAt(statement, when);
      // The server may hold the locks of the cut transaction for a while.
      const leased = await eventually('it leases three', async () => {
        const some = await take(store);
        return some.length > 0 && some;
      });
      expect(leased.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1]);
      expect(await direct.browse.stats(queue.id)).toMatchObject({ leased: 3, ready: 2 });
    } else {
      const leased = await take(direct);
      proxy.cutAt(statement, when);
      expect(await store.messages.nack(queue.id, leased.slice(0, 2), { delaySeconds: 0 })).toEqual([null, null]);
      expect(await direct.browse.stats(queue.id)).toMatchObject({ leased: 1, ready: 4 });
    }
  });
});

it('an ack whose look-up of the failure reasons fails still answers what it settled', async () => {
  const queue = await createQueue(direct);
  await direct.messages.enqueue(queue.name, numbered(3));
  const leased = await direct.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 600 });
  expect(await direct.messages.ack(queue.id, leased.slice(0, 1))).toEqual([null]);
  const before = proxy.cuts();
  proxy.cutAt('d.queue_id AS queueId, d.pack_id AS packId, d.members', 'before', 1000);
  try {
    // The first is settled: no longer held is all that the broker knows.
    expect(await store.messages.ack(queue.id, leased)).toEqual(['lease-lost', null, null]);
  } finally {
    proxy.cutAt('', 'before', 0);
  }
  expect(proxy.cuts()).toBeGreaterThan(before);
  expect(await direct.unleased.lastId(queue.id)).toBeNull();
});

it('an enqueue whose connection is cut in the middle of its statements stores its messages once', async () => {
  const queue = await createQueue(direct);
  proxy.cutAt('INSERT INTO delivery', 'after');
  await store.messages.enqueue(queue.name, numbered(5));
  expect(await direct.browse.stats(queue.id)).toMatchObject({ ready: 5 });
});

it('a rescan below a scan floor that fails keeps no leased message from its consumers', async () => {
  const queue = await createQueue(direct);
  const take = () => claimFrom(store.messages.batches, queue, [{ maxMessages: 5, leaseSeconds: 600 }]);
  await take();
  await store.messages.enqueue(queue.name, numbered(3));
  // The rescan is the statement that begins at the left edge of every priority.
  const before = proxy.cuts();
  proxy.cutAt('available_at BETWEEN 0 AND', 'before', 1000);
  try {
    const got: LeasedMessage[] = [];
    await eventually('the messages are leased, and a rescan has failed', async () => {
      const { leased, claimAgain } = await take();
      got.push(...leased.flat());
      await claimAgain;
      return got.length === 3 && proxy.cuts() > before;
    });
  } finally {
    proxy.cutAt('', 'before', 0);
  }
});
