import { formatMessageId, newPackId, RowmqError } from '@rowmq/contract';
import { Logger } from '@nestjs/common';
import {
  type EnqueueOutcome,
  LEASE_GRACE_MS,
  type LeasedMessage,
  MessageRepository,
  type NewMessage,
  type Queue,
  type Reserve,
} from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { deliveryRows, type OwedMessage, owedMessages, storedBodies } from '../support/deliveries.js';
import { Parked } from '../support/parked.js';
import { bodies, createQueue, message, NO_PRIORITY, numbered, openStore, type TestStore } from '../support/store.js';
import { claimFrom } from '../support/claim-from.js';
import { recordStatements } from '../support/statements.js';

/*
 * A batch holds requests of several clients for several queues in one transaction. Each request
 * gets an answer of its own, even if others of the batch fail.
 */

const T0 = 1_800_000_000_000;

let store: TestStore;
let a: Queue;
let b: Queue;

beforeAll(async () => {
  store = await openStore({ poolSize: 16 });
});
afterAll(() => store.close());
beforeEach(async () => {
  a = await createQueue(store);
  b = await createQueue(store);
});

function saying(...texts: string[]) {
  return texts.map((text) => message({ body: Buffer.from(text) }));
}

/** Null for a success, the code of a refusal, or the name of another error. */
function codes(outcomes: readonly EnqueueOutcome[]): (string | null)[] {
  return outcomes.map((outcome) =>
    outcome instanceof RowmqError ? outcome.code : outcome instanceof Error ? outcome.name : null,
  );
}

describe('an enqueue batch', () => {
  it('refuses the requests that it cannot store and stores all others, each as a whole', async () => {
    const full = await createQueue(store, { maxDepth: 5 });
    const roomy = await createQueue(store, { maxDepth: 5 });
    await store.messages.enqueue(full.name, numbered(4));
    const outcomes = await store.messages.batches.enqueue([
      { queueName: a.name, messages: saying('a1', 'a2') },
      { queueName: full.name, messages: saying('one too many', 'and another') },
      { queueName: 'no-such-queue', messages: saying('nowhere') },
      {
        queueName: a.name,
        messages: [...saying('fine by itself'), message({ delaySeconds: 10, expiresInSeconds: 5 })],
      },
      { queueName: b.name, messages: saying('b1') },
      { queueName: roomy.name, messages: saying('r1', 'r2', 'r3') },
      { queueName: full.name, messages: saying('the last') },
      { queueName: roomy.name, messages: saying('r4', 'r5', 'r6') },
      { queueName: a.name, messages: saying('a3') },
    ]);
    expect(codes(outcomes)).toEqual([
      null,
      'queue-full',
      'queue-not-found',
      'invalid-request',
      null,
      null,
      null,
      'queue-full',
      null,
    ]);
    expect(await storedBodies(store, a)).toEqual({ messages: ['a1', 'a2', 'a3'], owed: ['a1', 'a2', 'a3'] });
    expect((await storedBodies(store, b)).owed).toEqual(['b1']);
    expect((await storedBodies(store, full)).owed).toEqual(['0', '1', '2', '3', 'the last']);
    expect((await storedBodies(store, roomy)).messages).toEqual(['r1', 'r2', 'r3']);
  });

  it('reports an invalid message as invalid even if the queue is full', async () => {
    const full = await createQueue(store, { maxDepth: 1 });
    const invalid = message({ delaySeconds: 10, expiresInSeconds: 5 });
    await store.messages.enqueue(full.name, numbered(1));
    await expect(store.messages.enqueue(full.name, [message(), invalid])).rejects.toMatchObject({
      code: 'invalid-request',
    });
  });

  it('throws and stores nothing when its transaction fails because of one request', async () => {
    const refused = message({ priority: NO_PRIORITY });
    const bounded = await createQueue(store, { maxDepth: 5 });
    const batch = (last: NewMessage) => [
      { queueName: a.name, messages: saying('a1') },
      { queueName: bounded.name, messages: numbered(5) },
      { queueName: b.name, messages: [last] },
    ];
    await expect(store.messages.batches.enqueue(batch(refused))).rejects.toThrow(/out of range/i);
    for (const queue of [a, bounded, b]) {
      expect(await storedBodies(store, queue)).toEqual({ messages: [], owed: [] });
    }
    // The failed batch uses up no room of the bounded queue.
    expect(codes(await store.messages.batches.enqueue(batch(message())))).toEqual([null, null, null]);
  });

  it('that cannot be built stores nothing, and cancels every reservation that was made for it', async () => {
    let packs = 0;
    const messages = new MessageRepository(store.database, undefined, store.queues, () => {
      packs += 1;
      if (packs === 2) throw new Error('no pack can be made');
      return newPackId();
    });
    const parked = { [a.name]: new Parked([1, 1]), [b.name]: new Parked([1]) };
    const requests = [a, b].map(({ name }) => ({ queueName: name, messages: saying('1', '2') }));
    const reserve: Reserve = (queue, count) => parked[queue.name]!.reserve(queue, count);
    await expect(messages.enqueue(requests, { reserve })).rejects.toThrow('no pack can be made');
    expect(parked).toMatchObject({
      [a.name]: { answers: [1, 1], handedOff: [] },
      [b.name]: { answers: [1], handedOff: [] },
    });
    for (const queue of [a, b]) expect(await storedBodies(store, queue)).toEqual({ messages: [], owed: [] });
  });

  it('succeeds although a consumer fails to take its messages, which become ready again', async () => {
    const [broken, sound] = [new Parked([2]), new Parked([1])];
    const reserve: Reserve = (queue, count) => [
      ...broken.reserve(queue, count).map((one) => ({
        ...one,
        handOff: () => {
          throw new Error('the consumer is broken');
        },
      })),
      ...sound.reserve(queue, count),
    ];
    const logged = vi.spyOn(Logger.prototype, 'error').mockImplementation(() => undefined);
    try {
      const outcomes = await store.messages.batches.enqueue(
        [{ queueName: a.name, messages: saying('1', '2', '3', '4') }],
        { reserve },
      );
      expect(codes(outcomes)).toEqual([null]);
      expect(logged.mock.calls).toEqual([[expect.stringContaining('the consumer is broken')]]);
    } finally {
      logged.mockRestore();
    }
    expect({ broken: broken.answers, sound: sound.answers }).toEqual({ broken: [0], sound: [1] });
    expect(bodies(sound.handedOff)).toEqual(['3']);
    expect((await storedBodies(store, a)).messages).toEqual(['1', '2', '3', '4']);
    const rest = await store.messages.dequeue(a, { maxMessages: 10, leaseSeconds: 60 });
    expect(rest.map(({ body, receiveCount }) => `${String(body)} ${receiveCount}`).toSorted()).toEqual([
      '1 1',
      '2 1',
      '4 1',
    ]);
  });

  it('notices queues that were created, deleted, replaced or changed since it last read them', async () => {
    const enqueue = async (text: string) =>
      codes(
        await store.messages.batches.enqueue([
          { queueName: a.name, messages: saying(text) },
          { queueName: b.name, messages: saying(text) },
        ]),
      );
    expect(await enqueue('1')).toEqual([null, null]);
    await store.queues.delete(a.name);
    expect(await enqueue('2')).toEqual(['queue-not-found', null]);
    const { queue: namesake } = await store.queues.put(a.name, { maxDepth: 1 });
    expect(await enqueue('3')).toEqual([null, null]);
    expect(await enqueue('4')).toEqual(['queue-full', null]);
    await store.queues.put(a.name, { maxDepth: null });
    await store.queues.put(b.name, { maxDepth: 4 });
    expect(await enqueue('5')).toEqual([null, 'queue-full']);
    expect(await enqueue('6')).toEqual([null, 'queue-full']);
    expect((await storedBodies(store, namesake)).owed).toEqual(['3', '5', '6']);
    expect((await storedBodies(store, b)).owed).toEqual(['1', '2', '3', '4']);
  });

  it('applies each request’s delay, lifetime and priority', async () => {
    await store.at(T0).messages.batches.enqueue([
      { queueName: a.name, messages: [message({ body: Buffer.from('later'), delaySeconds: 5 })] },
      {
        queueName: a.name,
        messages: [
          message({ body: Buffer.from('urgent'), priority: 9 }),
          ...saying('brief').map((one) => ({ ...one, expiresInSeconds: 2 })),
        ],
      },
      { queueName: a.name, messages: saying('normal') },
    ]);
    const claim = (now: number) => store.at(now).messages.dequeue(a, { maxMessages: 10, leaseSeconds: 1 });
    expect(bodies(await claim(T0 + 1))).toEqual(['urgent', 'brief', 'normal']);
    expect(bodies(await claim(T0 + 4000))).toEqual(['urgent', 'normal']);
    expect(bodies(await claim(T0 + 7000))).toEqual(['urgent', 'later', 'normal']);
  });
});

describe('a bounded queue', () => {
  it('is filled completely by one broker, never beyond its maximum depth, and each request gets the right answer', async () => {
    const bounded = await createQueue(store, { maxDepth: 100 });
    let accepted = 0;
    for (let round = 0; round < 20; round += 1) {
      const requests = [3, 1, 2, 1].map((count) => ({ queueName: bounded.name, messages: numbered(count) }));
      const outcomes = await store.messages.batches.enqueue([
        ...requests,
        { queueName: a.name, messages: saying('x') },
      ]);
      for (const [index, { messages }] of requests.entries()) {
        const fits = accepted + messages.length <= 100;
        expect(codes(outcomes)[index]).toBe(fits ? null : 'queue-full');
        if (fits) accepted += messages.length;
      }
      expect(outcomes.at(-1)).toHaveLength(1);
    }
    expect(accepted).toBe(100);
    expect((await storedBodies(store, bounded)).owed).toHaveLength(100);
    expect((await storedBodies(store, a)).owed).toHaveLength(20);
  });

  it('is filled completely by eight brokers, each of which refuses messages from its next count on', async () => {
    const bounded = await createQueue(store.at(undefined), { maxDepth: 200 });
    const others = await Promise.all(Array.from({ length: 7 }, () => openStore({ on: store.url, poolSize: 3 })));
    const brokers = [store, ...others];
    /** Enqueues until a request for one message is refused. Returns how many it stored. */
    const fill = async ({ messages }: TestStore): Promise<number> => {
      for (let accepted = 0; ;) {
        const requests = [3, 1].map((count) => ({ queueName: bounded.name, messages: numbered(count) }));
        const outcomes = await messages.batches.enqueue(requests);
        for (const outcome of outcomes) if (!(outcome instanceof Error)) accepted += outcome.length;
        expect(['queue-full', null]).toEqual(expect.arrayContaining(codes(outcomes)));
        if (outcomes[1] instanceof Error) return accepted;
      }
    };
    try {
      const accepted = await Promise.all(brokers.map(fill));
      const depth = accepted.reduce((sum, count) => sum + count, 0);
      expect((await storedBodies(store, bounded)).owed).toHaveLength(depth);
      expect(depth).toBeGreaterThanOrEqual(200);
      expect(Math.max(...accepted)).toBeLessThanOrEqual(200);
      // Every broker has counted the full queue, so none stores any more.
      expect(await Promise.all(brokers.map(fill))).toEqual(brokers.map(() => 0));
      const taken = await store.messages.dequeue(bounded, { maxMessages: depth - 190, leaseSeconds: 60 });
      await store.messages.ack(bounded.id, taken);
      expect(taken).toHaveLength(depth - 190);
      // A refusal rests on a fresh count, so the room is found at once.
      for (const broker of brokers) await broker.messages.enqueue(bounded.name, numbered(1));
      expect((await storedBodies(store, bounded)).owed).toHaveLength(198);
    } finally {
      for (const other of others) await other.close();
    }
  });

  it('does not count expired messages, and counts those under a lease', async () => {
    const bounded = await createQueue(store, { maxDepth: 3 });
    const enqueue = async (now: number) =>
      codes(await store.at(now).messages.batches.enqueue([{ queueName: bounded.name, messages: saying('one more') }]));
    await store.at(T0).messages.enqueue(bounded.name, numbered(3, { expiresInSeconds: 10 }));
    const [held] = await store.at(T0).messages.dequeue(bounded, { maxMessages: 1, leaseSeconds: 60 });
    expect(await enqueue(T0 + 9999)).toEqual(['queue-full']);
    // Nothing has removed the expired messages.
    expect(await enqueue(T0 + 10_000)).toEqual([null]);
    expect(await enqueue(T0 + 10_000)).toEqual([null]);
    expect(await enqueue(T0 + 10_000)).toEqual(['queue-full']);
    expect((await storedBodies(store, bounded)).owed).toHaveLength(5);
    expect(await store.at(T0 + 10_000).messages.ack(bounded.id, [held!])).toEqual([null]);
    expect(await enqueue(T0 + 10_000)).toEqual([null]);
    expect(await enqueue(T0 + 10_000)).toEqual(['queue-full']);
  });
});

describe('a claim', () => {
  it('hands out the messages of the other packs if it cannot read one, which stays leased', async () => {
    for (const text of ['1', '2', '3']) await store.messages.enqueue(a.name, saying(text));
    const [, corrupt] = await deliveryRows(store, a);
    await store.database.write('UPDATE pack SET payload = ? WHERE id = ?', [Buffer.from('?'), corrupt?.packId]);
    const logged = vi.spyOn(Logger.prototype, 'error').mockImplementation(() => undefined);
    try {
      expect(bodies(await store.messages.dequeue(a, { maxMessages: 3, leaseSeconds: 60 }))).toEqual(['1', '3']);
      expect(logged.mock.calls).toEqual([[expect.stringContaining(formatMessageId(corrupt!.packId))]]);
      expect(await store.browse.stats(a.id)).toMatchObject({ leased: 3 });
      const page = await store.browse.browse(a.id, 'leased', 10, undefined);
      const shown = await store.browse.messages(page.deliveries.map(({ messageId }) => messageId));
      expect(bodies(shown).toSorted()).toEqual(['1', '3']);
      expect(logged).toHaveBeenCalledTimes(2);
      await expect(store.browse.message(corrupt!.packId)).rejects.toThrow(RangeError);
    } finally {
      logged.mockRestore();
    }
  });

  it('tells of a message whose pack is not there, which stays leased', async () => {
    for (const text of ['1', '2']) await store.messages.enqueue(a.name, saying(text));
    const [lost] = await deliveryRows(store, a);
    await store.database.write('DELETE FROM pack WHERE id = ?', [lost?.packId]);
    const logged = vi.spyOn(Logger.prototype, 'error').mockImplementation(() => undefined);
    try {
      expect(bodies(await store.messages.dequeue(a, { maxMessages: 2, leaseSeconds: 60 }))).toEqual(['2']);
      expect(logged.mock.calls).toEqual([[expect.stringContaining(formatMessageId(lost!.packId))]]);
      expect(await store.browse.stats(a.id)).toMatchObject({ leased: 2 });
    } finally {
      logged.mockRestore();
    }
  });

  it('counts receives up to the largest number that a delivery can hold', async () => {
    await store.messages.enqueue(a.name, saying('1'));
    await store.database.write('UPDATE delivery SET receive_count = 65534 WHERE queue_id = ?', [a.id]);
    for (const claim of [1, 2, 3]) {
      const leased = await store.messages.dequeue(a, { maxMessages: 1, leaseSeconds: 60 });
      expect(leased, `claim ${claim}`).toMatchObject([{ receiveCount: 65_535 }]);
      await store.messages.nack(a.id, leased, { delaySeconds: 0 });
    }
  });
});

describe('a claim in several queues', () => {
  const one = { maxMessages: 10, leaseSeconds: 60 };

  it('gives each queue’s consumers the messages of that queue, in order', async () => {
    const c = await createQueue(store);
    await store.messages.enqueue(a.name, [...saying('later'), message({ body: Buffer.from('urgent'), priority: 9 })]);
    await store.messages.enqueue(c.name, saying('c1', 'c2', 'c3'));
    const outcomes = await store.messages.batches.claim([
      { queue: c, demands: [{ ...one, maxMessages: 2 }, one] },
      { queue: b, demands: [one] },
      { queue: a, demands: [one] },
    ]);
    const shares = outcomes.map(({ leased }) => leased.map(bodies));
    expect(shares).toEqual([[['c1', 'c2'], ['c3']], [[]], [['urgent', 'later']]]);
    expect(await Promise.all(outcomes.map(async ({ claimAgain }) => claimAgain))).toEqual([false, false, false]);
    const [ofC, , ofA] = outcomes.map(({ leased }) => leased.flat());
    expect(await store.messages.ack(a.id, ofC!)).toEqual(ofC!.map(() => 'delivery-not-found'));
    expect(await store.messages.ack(c.id, ofC!)).toEqual([null, null, null]);
    expect(await store.messages.ack(a.id, ofA!)).toEqual([null, null]);
  });

  it('locks queue by queue in the order of their ids, whoever comes first', async () => {
    for (const { name } of [a, b]) await store.messages.enqueue(name, saying('one'));
    const statements = recordStatements(store.database);
    await store.messages.batches.claim([b, a].map((queue) => ({ queue, demands: [one] })));
    const locked = statements.flatMap((sql) => /queue_id = (\d+)[^]*SKIP LOCKED/.exec(sql)?.[1] ?? []);
    expect(locked.map(Number)).toEqual([a.id, b.id].toSorted((x, y) => x - y));
  });

  it('gives receipts that hold in their own queue only, also of a message that several queues got', async () => {
    const queues = [a, b];
    await store.topics.put('to-both');
    for (const { name } of queues) await store.topics.putSubscription('to-both', name, undefined);
    await store.messages.publish('to-both', saying('both'));
    const outcomes = await store.messages.batches.claim(queues.map((queue) => ({ queue, demands: [one] })));
    const [first, second] = outcomes.map(({ leased }) => leased.flat()) as [LeasedMessage[], LeasedMessage[]];
    expect([first, second].map(bodies)).toEqual([['both'], ['both']]);
    expect(await store.messages.ack(b.id, first)).toEqual(['lease-lost']);
    expect(await store.messages.ack(b.id, second)).toEqual([null]);
  });

  it('leases in the others if one was deleted, or if its messages have expired or were received too often', async () => {
    const dead = await createQueue(store);
    const strict = await createQueue(store, { maxReceives: 1, deadLetterQueue: dead.name });
    const gone = await createQueue(store);
    for (const { name } of [a, strict, gone]) await store.at(T0).messages.enqueue(name, saying(`of ${name}`));
    await store.at(T0).messages.dequeue(strict, { maxMessages: 1, leaseSeconds: 1 });
    await store.at(T0).messages.enqueue(b.name, [message({ expiresInSeconds: 1 }), ...saying('alive')]);
    await store.queues.delete(gone.name);
    const outcomes = await store
      .at(T0 + 5000)
      .messages.batches.claim([a, b, strict, gone].map((queue) => ({ queue, demands: [one] })));
    expect(outcomes.map(({ leased }) => bodies(leased.flat()))).toEqual([[`of ${a.name}`], ['alive'], [], []]);
    await Promise.all(outcomes.map(async ({ claimAgain }) => claimAgain));
    expect(await storedBodies(store, dead)).toMatchObject({ owed: [`of ${strict.name}`] });
    expect((await storedBodies(store, b)).owed).toEqual(['alive']);
  });

  it('reads no more bytes than a claim in one queue may, and one pack of each at least', async () => {
    const queues = await Promise.all([1, 2, 3].map(() => createQueue(store)));
    for (const { name } of queues)
      for (let sent = 0; sent < 30; sent += 1)
        await store.messages.enqueue(name, [message({ body: Buffer.alloc(250_000, 'x') })]);
    const demands = Array.from({ length: 30 }, () => ({ ...one, maxMessages: 1 }));
    const outcomes = await store.messages.batches.claim(queues.map((queue) => ({ queue, demands })));
    const counts = outcomes.map(({ leased }) => leased.flat().length);
    expect(Math.min(...counts)).toBeGreaterThanOrEqual(1);
    expect(counts.reduce((sum, count) => sum + count, 0)).toBeLessThan(40);
    expect(await outcomes[2]?.claimAgain).toBe(true);
  });
});

describe('a claim for several consumers', () => {
  it('hands messages to them in order, each under a lease of its own length', async () => {
    for (const [index, one] of numbered(10).entries()) await store.at(T0 - 100 + index).messages.enqueue(a.name, [one]);
    const { leased } = await claimFrom(store.at(T0).messages.batches, a, [
      { maxMessages: 3, leaseSeconds: 10 },
      { maxMessages: 2, leaseSeconds: 100 },
      { maxMessages: 1, leaseSeconds: 10 },
      { maxMessages: 20, leaseSeconds: 1000 },
      { maxMessages: 1, leaseSeconds: 5 },
    ]);
    expect(leased.map(bodies)).toEqual([['0', '1', '2'], ['3', '4'], ['5'], ['6', '7', '8', '9'], []]);
    for (const [share, seconds] of [
      [0, 10],
      [1, 100],
      [2, 10],
      [3, 1000],
    ] as const) {
      for (const { leaseExpiresAt } of leased[share] ?? []) expect(leaseExpiresAt).toBe(T0 + seconds * 1000);
    }
    // The database holds the same deadlines: a message is available again when its own lease has
    // run out, and not before.
    const comeBack = async (seconds: number): Promise<string[]> => {
      const at = T0 + seconds * 1000 + LEASE_GRACE_MS;
      const early = await store.at(at - 1).messages.dequeue(a, { maxMessages: 100, leaseSeconds: 10_000 });
      const back = await store.at(at).messages.dequeue(a, { maxMessages: 100, leaseSeconds: 10_000 });
      return [...bodies(early).map((body) => `${body} early`), ...bodies(back).toSorted()];
    };
    expect(await comeBack(10)).toEqual(['0', '1', '2', '5']);
    expect(await comeBack(100)).toEqual(['3', '4']);
    expect(await comeBack(1000)).toEqual(['6', '7', '8', '9']);
  });

  it('hands out receipts that are valid only for their own delivery and queue', async () => {
    await store.messages.enqueue(a.name, saying('a1', 'a2'));
    await store.messages.enqueue(b.name, saying('b1'));
    const fromA = await claimFrom(store.messages.batches, a, [
      { maxMessages: 1, leaseSeconds: 60 },
      { maxMessages: 1, leaseSeconds: 90 },
    ]);
    const [a1, a2] = fromA.leased.flat() as [LeasedMessage, LeasedMessage];
    const [b1] = (await store.messages.dequeue(b, { maxMessages: 1, leaseSeconds: 60 })) as [LeasedMessage];
    expect(await store.messages.ack(b.id, [a1])).toEqual(['delivery-not-found']);
    expect(await store.messages.ack(a.id, [{ ...a1, leaseToken: b1.leaseToken }])).toEqual(['lease-lost']);
    expect(await store.messages.ack(a.id, [a1, a2])).toEqual([null, null]);
    expect(await store.messages.ack(b.id, [b1])).toEqual([null]);
  });

  it('removes expired messages, dead-letters over-received ones and hands out the rest', async () => {
    const dead = await createQueue(store);
    const strict = await createQueue(store, { maxReceives: 1, deadLetterQueue: dead.name });
    await store.at(T0).messages.enqueue(strict.name, saying('over'));
    await store.at(T0).messages.dequeue(strict, { maxMessages: 1, leaseSeconds: 1 });
    await store.at(T0).messages.enqueue(strict.name, [message({ expiresInSeconds: 1 }), ...saying('alive')]);
    await store.at(T0 + 5000).messages.enqueue(strict.name, saying('fresh'));
    const claim = await claimFrom(store.at(T0 + 5000).messages.batches, strict, [
      { maxMessages: 1, leaseSeconds: 60 },
      { maxMessages: 5, leaseSeconds: 60 },
    ]);
    expect(claim.leased.map((leased) => bodies(leased))).toEqual([['alive'], ['fresh']]);
    await expect.poll(async () => (await storedBodies(store, strict)).owed).toEqual(['alive', 'fresh']);
    await expect
      .poll(async () => bodies(await store.at(T0 + 6000).messages.dequeue(dead, { maxMessages: 5, leaseSeconds: 60 })))
      .toEqual(['over']);
  });
});

/**
 * Leases held at {@link LATER}, and one that ran out before then, whose delivery was leased again.
 */
const LATER = T0 + 60_000;
interface Leases {
  ofA: LeasedMessage[];
  ofB: LeasedMessage[];
  stale: LeasedMessage;
  unknown: LeasedMessage;
}

async function leases(): Promise<Leases> {
  await store.at(T0).messages.enqueue(a.name, numbered(8));
  await store.at(T0).messages.enqueue(b.name, numbered(4));
  const [stale] = await store.at(T0).messages.dequeue(a, { maxMessages: 1, leaseSeconds: 1 });
  const ofA = await store.at(LATER).messages.dequeue(a, { maxMessages: 8, leaseSeconds: 600 });
  const ofB = await store.at(LATER).messages.dequeue(b, { maxMessages: 4, leaseSeconds: 600 });
  const byBody = (one: LeasedMessage, other: LeasedMessage): number => Number(one.body) - Number(other.body);
  const first = ofA[0] as LeasedMessage;
  return {
    ofA: ofA.toSorted(byBody),
    ofB: ofB.toSorted(byBody),
    stale: stale as LeasedMessage,
    unknown: { ...first, messageId: newPackId() },
  };
}

/** Copies, because two requests never decode to the same objects. */
function again(receipts: (LeasedMessage | undefined)[]): LeasedMessage[] {
  return receipts.map((receipt) => ({ ...(receipt as LeasedMessage) }));
}

/** The state of each message that a queue owes, by its body. */
async function deliveries(
  queue: Queue,
): Promise<Record<string, Pick<OwedMessage, 'availableAt' | 'isLeased' | 'reason'>>> {
  const owed = await owedMessages(store, queue);
  expect(new Set(owed.map(({ body }) => body)).size).toBe(owed.length);
  return Object.fromEntries(
    owed.map(({ body, availableAt, isLeased, reason }) => [String(body), { availableAt, isLeased, reason }]),
  );
}

describe('an ack batch', () => {
  it('whose leases are all held deletes their deliveries and nothing else', async () => {
    const { ofA, ofB } = await leases();
    const outcomes = await store.at(LATER).messages.batches.ack([
      { queueId: b.id, receipts: ofB.slice(0, 2) },
      { queueId: a.id, receipts: ofA.slice(2, 4) },
      { queueId: a.id, receipts: [] },
      { queueId: a.id, receipts: ofA.slice(6) },
    ]);
    expect(outcomes).toEqual([[null, null], [null, null], [], [null, null]]);
    expect(Object.keys(await deliveries(a)).toSorted()).toEqual(['0', '1', '4', '5']);
    expect(Object.keys(await deliveries(b)).toSorted()).toEqual(['2', '3']);
  });

  it('with stale, unknown, foreign and repeated receipts answers each one and deletes only the held deliveries', async () => {
    const { ofA, ofB, stale, unknown } = await leases();
    const fresh = ofA.find(({ messageId }) => messageId.equals(stale.messageId)) as LeasedMessage;
    const [one, two, three] = ofA.filter((lease) => lease !== fresh) as [LeasedMessage, LeasedMessage, LeasedMessage];
    const outcomes = await store.at(LATER).messages.batches.ack([
      { queueId: a.id, receipts: [one, two] },
      { queueId: a.id, receipts: again([two]) },
      { queueId: b.id, receipts: [ofB[0] as LeasedMessage, ...again([ofB[0]])] },
      { queueId: a.id, receipts: [stale, three] },
      { queueId: a.id, receipts: [unknown] },
      { queueId: b.id, receipts: [fresh] },
      { queueId: b.id, receipts: ofB.slice(1, 2) },
    ]);
    expect(outcomes).toEqual([
      [null, null],
      ['delivery-not-found'],
      [null, 'delivery-not-found'],
      ['lease-lost', null],
      ['delivery-not-found'],
      ['delivery-not-found'],
      [null],
    ]);
    const left = ofA.filter((lease) => lease !== one && lease !== two && lease !== three);
    expect(Object.keys(await deliveries(a)).toSorted()).toEqual(bodies(left).toSorted());
    expect(Object.keys(await deliveries(b)).toSorted()).toEqual(['2', '3']);
    // The newer lease on the stale receipt's message is still held.
    expect(await store.at(LATER).messages.ack(a.id, [fresh])).toEqual([null]);
  });

  it('for leases from very many claims gives the same answers and deletes the same deliveries', async () => {
    for (const queue of [a, b]) await store.at(T0).messages.enqueue(queue.name, numbered(60));
    const claims = async (queue: Queue): Promise<LeasedMessage[]> => {
      const leased: LeasedMessage[] = [];
      while (leased.length < 60) {
        leased.push(...(await store.at(LATER).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 600 })));
      }
      return leased;
    };
    const [ofA, ofB] = [await claims(a), await claims(b)];
    const requests = (from: number, to: number) => [
      { queueId: b.id, receipts: ofB.slice(from, to) },
      { queueId: a.id, receipts: ofA.slice(from, to) },
    ];
    const nulls = (count: number) => Array.from({ length: count }, () => null);
    expect(await store.at(LATER).messages.batches.ack(requests(0, 40))).toEqual([nulls(40), nulls(40)]);
    expect(Object.keys(await deliveries(a)).toSorted()).toEqual(bodies(ofA.slice(40)).toSorted());
    // One receipt carries the token of another lease. The others are acked all the same.
    const forged = { ...(ofA[59] as LeasedMessage), leaseToken: (ofB[59] as LeasedMessage).leaseToken };
    const outcomes = await store
      .at(LATER)
      .messages.batches.ack([...requests(40, 59), { queueId: a.id, receipts: [forged] }]);
    expect(outcomes).toEqual([nulls(19), nulls(19), ['lease-lost']]);
    expect(Object.keys(await deliveries(a))).toEqual([String(ofA[59]?.body)]);
    expect(Object.keys(await deliveries(b))).toEqual([String(ofB[59]?.body)]);
    const late = await store.at(LATER + 600_000).messages.batches.ack(requests(59, 60));
    expect(late).toEqual([['lease-lost'], ['lease-lost']]);
  });

  it('refuses every lease that has run out, to the millisecond, even if nobody has claimed the delivery since', async () => {
    const { ofA, ofB } = await leases();
    const end = LATER + 600_000;
    await store.at(LATER).messages.batches.extend([{ queueId: b.id, receipts: ofB, leaseSeconds: 601 }]);
    const requests = [
      { queueId: a.id, receipts: ofA.slice(0, 2) },
      { queueId: b.id, receipts: ofB.slice(0, 1) },
    ];
    expect(await store.at(end).messages.batches.ack(requests)).toEqual([['lease-lost', 'lease-lost'], [null]]);
    expect(Object.keys(await deliveries(a))).toHaveLength(8);
    expect(await store.at(end - 1).messages.batches.ack([{ queueId: a.id, receipts: ofA }])).toEqual([
      ofA.map(() => null),
    ]);
  });
});

describe('a nack batch', () => {
  it('makes the held deliveries ready, each after its own delay, and answers the other receipts', async () => {
    const { ofA, ofB, stale, unknown } = await leases();
    const fresh = ofA.find(({ messageId }) => messageId.equals(stale.messageId)) as LeasedMessage;
    const [one, two] = ofA.filter((lease) => lease !== fresh) as [LeasedMessage, LeasedMessage];
    const outcomes = await store.at(LATER).messages.batches.nack([
      { queueId: a.id, receipts: [one], delaySeconds: 0, reason: 'busy' },
      { queueId: a.id, receipts: again([one]), delaySeconds: 70 },
      { queueId: b.id, receipts: ofB.slice(0, 2), delaySeconds: 30 },
      { queueId: a.id, receipts: [stale, two], delaySeconds: 5 },
      { queueId: b.id, receipts: [unknown, ...ofB.slice(2, 3)], delaySeconds: 0 },
    ]);
    expect(outcomes).toEqual([
      [null],
      ['lease-lost'],
      [null, null],
      ['lease-lost', null],
      ['delivery-not-found', null],
    ]);
    const [inA, inB] = [await deliveries(a), await deliveries(b)];
    const leased = { availableAt: LATER + 600_000 + LEASE_GRACE_MS, isLeased: true, reason: null };
    expect(inA).toEqual({
      ...Object.fromEntries(bodies(ofA).map((body) => [body, leased])),
      [String(one.body)]: { availableAt: LATER, isLeased: false, reason: 'busy' },
      [String(two.body)]: { availableAt: LATER + 5000, isLeased: false, reason: null },
    });
    expect(inB).toEqual({
      0: { availableAt: LATER + 30_000, isLeased: false, reason: null },
      1: { availableAt: LATER + 30_000, isLeased: false, reason: null },
      2: { availableAt: LATER, isLeased: false, reason: null },
      3: leased,
    });
  });
});

describe('equal nacks of several requests for one delivery', () => {
  it('leave one row, and different ones leave a row each', async () => {
    await store.messages.enqueue(a.name, numbered(6));
    const leased = await store.messages.dequeue(a, { maxMessages: 6, leaseSeconds: 600 });
    const nack = (receipt: LeasedMessage, delaySeconds: number, reason?: string) => ({
      queueId: a.id,
      receipts: [receipt],
      delaySeconds,
      reason,
    });
    const requests = leased.map((receipt, index) =>
      nack(receipt, index < 4 ? 0 : 60, index === 5 ? 'busy' : undefined),
    );
    expect(await store.messages.batches.nack(requests)).toEqual(leased.map(() => [null]));
    expect((await deliveryRows(store, a)).map(({ members, reason }) => [members, reason])).toEqual([
      [0b00_1111, null],
      [0b01_0000, null],
      [0b10_0000, 'busy'],
    ]);
  });
});

describe('an extend batch', () => {
  it('sets the deadline of each held lease as its request asks and answers the other receipts', async () => {
    const { ofA, ofB, stale, unknown } = await leases();
    const fresh = ofA.find(({ messageId }) => messageId.equals(stale.messageId)) as LeasedMessage;
    const [one, two] = ofA.filter((lease) => lease !== fresh) as [LeasedMessage, LeasedMessage];
    const results = await store.at(LATER + 1000).messages.batches.extend([
      { queueId: a.id, receipts: [one, stale], leaseSeconds: 100 },
      { queueId: b.id, receipts: [...ofB.slice(0, 1), unknown], leaseSeconds: 1000 },
      { queueId: a.id, receipts: again([two, two]), leaseSeconds: 2000 },
    ]);
    expect(results).toEqual([
      { outcomes: [null, 'lease-lost'], leaseExpiresAt: LATER + 101_000 },
      { outcomes: [null, 'delivery-not-found'], leaseExpiresAt: LATER + 1_001_000 },
      { outcomes: [null, null], leaseExpiresAt: LATER + 2_001_000 },
    ]);
    const until = (ms: number) => ({ availableAt: LATER + ms + LEASE_GRACE_MS, isLeased: true, reason: null });
    expect(await deliveries(a)).toEqual({
      ...Object.fromEntries(bodies(ofA).map((body) => [body, until(600_000)])),
      [String(one.body)]: until(101_000),
      [String(two.body)]: until(2_001_000),
    });
    expect((await deliveries(b))['0']).toEqual(until(1_001_000));
    // The receipts stay valid.
    expect(await store.at(LATER + 1_500_000).messages.ack(a.id, [two])).toEqual([null]);
  });

  it('with two requests for one delivery leaves it with the deadline of the second', async () => {
    const { ofA } = await leases();
    const [one] = ofA as [LeasedMessage];
    const results = await store.at(LATER).messages.batches.extend([
      { queueId: a.id, receipts: [one], leaseSeconds: 900 },
      { queueId: a.id, receipts: again([one]), leaseSeconds: 100 },
    ]);
    expect(results.map(({ outcomes }) => outcomes)).toEqual([[null], [null]]);
    expect((await deliveries(a))[String(one.body)]?.availableAt).toBe(
      (results[1]?.leaseExpiresAt ?? 0) + LEASE_GRACE_MS,
    );
  });
});
