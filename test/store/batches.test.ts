import { RowmqError } from '@rowmq/contract';
import { LEASE_GRACE_MS, type LeasedDelivery, type Queue } from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

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

/**
 * The bodies of a queue's stored messages, and of the messages that have a delivery, in the order
 * of their ids.
 */
async function stored(queue: Queue): Promise<{ messages: string[]; deliveries: string[] }> {
  const rows = await store.database.read<{ body: Buffer; owed: Buffer | null }>(
    `SELECT m.body, d.message_id AS owed FROM message m LEFT JOIN delivery d ON d.queue_id = m.queue_id AND d.message_id = m.id
     WHERE m.queue_id = ? ORDER BY m.id`,
    [queue.id],
  );
  return { messages: bodies(rows), deliveries: bodies(rows.filter(({ owed }) => owed !== null)) };
}

function saying(...texts: string[]) {
  return texts.map((text) => message({ body: Buffer.from(text) }));
}

/** Null for a success, the code of a refusal, or the name of another error. */
function codes(outcomes: readonly (Error | null)[]): (string | null)[] {
  return outcomes.map((outcome) => (outcome instanceof RowmqError ? outcome.code : (outcome?.name ?? null)));
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
    expect(await stored(a)).toEqual({ messages: ['a1', 'a2', 'a3'], deliveries: ['a1', 'a2', 'a3'] });
    expect((await stored(b)).deliveries).toEqual(['b1']);
    expect((await stored(full)).deliveries).toEqual(['0', '1', '2', '3', 'the last']);
    expect((await stored(roomy)).messages).toEqual(['r1', 'r2', 'r3']);
  });

  it('reports an invalid message as invalid even if the queue is full', async () => {
    const full = await createQueue(store, { maxDepth: 1 });
    const invalid = message({ delaySeconds: 10, expiresInSeconds: 5 });
    await store.messages.enqueue(full.name, numbered(1));
    await expect(store.messages.enqueue(full.name, [message(), invalid])).rejects.toMatchObject({
      code: 'invalid-request',
    });
  });

  it('throws and stores nothing when its only transaction fails because of one request', async () => {
    const tooLarge = message({ body: Buffer.alloc(4097) });
    await expect(
      store.messages.batches.enqueue([
        { queueName: a.name, messages: saying('a1') },
        { queueName: b.name, messages: [tooLarge] },
      ]),
    ).rejects.toThrow(/too long/i);
    expect([await stored(a), await stored(b)]).toEqual([
      { messages: [], deliveries: [] },
      { messages: [], deliveries: [] },
    ]);
  });

  it('throws and stores nothing when the first of its transactions fails', async () => {
    const bounded = await createQueue(store, { maxDepth: 100 });
    const call = store.messages.batches.enqueue([
      { queueName: a.name, messages: [message({ body: Buffer.alloc(4097) })] },
      { queueName: bounded.name, messages: saying('first') },
    ]);
    await expect(call).rejects.toThrow(/too long/i);
    expect((await stored(a)).messages).toEqual([]);
    expect((await stored(bounded)).messages).toEqual([]);
  });

  it('with one failed transaction answers each request of that transaction with the failure and stores the others', async () => {
    const bounded = await createQueue(store, { maxDepth: 100 });
    const outcomes = await store.messages.batches.enqueue([
      { queueName: a.name, messages: saying('a1') },
      { queueName: bounded.name, messages: saying('first') },
      { queueName: bounded.name, messages: [message({ body: Buffer.alloc(4097) })] },
      { queueName: b.name, messages: saying('b1') },
    ]);
    expect(codes(outcomes)).toEqual([null, 'Error', 'Error', null]);
    expect((await stored(a)).messages).toEqual(['a1']);
    expect((await stored(b)).messages).toEqual(['b1']);
    expect((await stored(bounded)).messages).toEqual([]);
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
    expect((await stored(namesake)).deliveries).toEqual(['3', '5', '6']);
    expect((await stored(b)).deliveries).toEqual(['1', '2', '3', '4']);
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

describe('eight brokers that fill a bounded queue with batches', () => {
  it('never exceed its maximum depth, fill it completely and answer each request correctly', async () => {
    const bounded = await createQueue(store, { maxDepth: 200 });
    const others = await Promise.all(Array.from({ length: 7 }, () => openStore({ on: store.url, poolSize: 3 })));
    const brokers = [store, ...others];
    let accepted = 0;
    let refused = 0;
    let deepest = 0;
    let isFull = false;
    const watch = (async () => {
      while (!isFull) {
        const [row] = await store.database.read<{ n: number }>(
          'SELECT COUNT(*) AS n FROM delivery WHERE queue_id = ?',
          [bounded.id],
        );
        deepest = Math.max(deepest, Number(row?.n));
      }
    })();
    try {
      await Promise.all(
        brokers.map(async ({ messages }) => {
          for (let round = 0; round < 8; round += 1) {
            const requests = [3, 1, 2, 1].map((count) => ({ queueName: bounded.name, messages: numbered(count) }));
            const outcomes = await messages.batches.enqueue([
              ...requests,
              { queueName: a.name, messages: saying('x') },
            ]);
            expect(outcomes.at(-1)).toBeNull();
            for (const [index, { messages: sent }] of requests.entries()) {
              if (outcomes[index] === null) accepted += sent.length;
              else refused += sent.length;
            }
            expect(new Set(codes(outcomes))).not.toContain('Error');
          }
        }),
      );
    } finally {
      isFull = true;
      await watch;
      for (const other of others) await other.close();
    }
    expect({ accepted, refused }).toEqual({ accepted: 200, refused: 8 * 8 * 7 - 200 });
    expect((await stored(bounded)).deliveries).toHaveLength(200);
    expect((await stored(a)).deliveries).toHaveLength(64);
    expect(deepest).toBeLessThanOrEqual(200);
  });
});

describe('a dequeue batch', () => {
  it('hands messages to the consumers of each queue in order, each under a lease of its own length', async () => {
    const empty = await createQueue(store);
    for (const [index, one] of numbered(10).entries()) await store.at(T0 - 100 + index).messages.enqueue(a.name, [one]);
    await store.at(T0 - 1).messages.enqueue(b.name, saying('x', 'y'));
    const [fromA, fromB, fromEmpty] = await store.at(T0).messages.batches.dequeue([
      {
        queue: a,
        demands: [
          { maxMessages: 3, leaseSeconds: 10 },
          { maxMessages: 2, leaseSeconds: 100 },
          { maxMessages: 1, leaseSeconds: 10 },
          { maxMessages: 20, leaseSeconds: 1000 },
          { maxMessages: 1, leaseSeconds: 5 },
        ],
      },
      { queue: b, demands: [{ maxMessages: 5, leaseSeconds: 50 }] },
      { queue: empty, demands: [{ maxMessages: 1, leaseSeconds: 50 }] },
    ]);
    expect(fromA?.leased.map(bodies)).toEqual([['0', '1', '2'], ['3', '4'], ['5'], ['6', '7', '8', '9'], []]);
    expect(bodies(fromB?.leased[0] ?? []).toSorted()).toEqual(['x', 'y']);
    expect(fromEmpty?.leased).toEqual([[]]);
    for (const [share, seconds] of [
      [0, 10],
      [1, 100],
      [2, 10],
      [3, 1000],
    ] as const) {
      for (const { leaseExpiresAt } of fromA?.leased[share] ?? []) expect(leaseExpiresAt).toBe(T0 + seconds * 1000);
    }
    // The database holds the same deadlines: a message is available again when its own lease has
    // run out, and not before.
    const comeBack = async (queue: Queue, seconds: number): Promise<string[]> => {
      const at = T0 + seconds * 1000 + LEASE_GRACE_MS;
      const early = await store.at(at - 1).messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 10_000 });
      const back = await store.at(at).messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 10_000 });
      return [...bodies(early).map((body) => `${body} early`), ...bodies(back).toSorted()];
    };
    expect(await comeBack(a, 10)).toEqual(['0', '1', '2', '5']);
    expect(await comeBack(b, 50)).toEqual(['x', 'y']);
    expect(await comeBack(a, 100)).toEqual(['3', '4']);
    expect(await comeBack(a, 1000)).toEqual(['6', '7', '8', '9']);
  });

  it('hands out receipts that are valid only for their own delivery and queue', async () => {
    await store.messages.enqueue(a.name, saying('a1', 'a2'));
    await store.messages.enqueue(b.name, saying('b1'));
    const outcomes = await store.messages.batches.dequeue([
      {
        queue: a,
        demands: [
          { maxMessages: 1, leaseSeconds: 60 },
          { maxMessages: 1, leaseSeconds: 90 },
        ],
      },
      { queue: b, demands: [{ maxMessages: 1, leaseSeconds: 60 }] },
    ]);
    const [a1, a2, b1] = outcomes.flatMap(({ leased }) => leased.flat()) as [
      LeasedDelivery,
      LeasedDelivery,
      LeasedDelivery,
    ];
    expect(await store.messages.ack(b.id, [a1])).toEqual(['delivery-not-found']);
    expect(await store.messages.ack(a.id, [a1, a2])).toEqual([null, null]);
    expect(await store.messages.ack(b.id, [b1])).toEqual([null]);
  });

  it('removes expired messages, dead-letters over-received ones and hands out the rest, queue by queue', async () => {
    const dead = await createQueue(store);
    const strict = await createQueue(store, { maxReceives: 1, deadLetterQueue: dead.name });
    await store.at(T0).messages.enqueue(strict.name, saying('over'));
    await store.at(T0).messages.dequeue(strict, { maxMessages: 1, leaseSeconds: 1 });
    await store.at(T0 + 5000).messages.enqueue(strict.name, saying('fresh'));
    await store.at(T0).messages.enqueue(a.name, [message({ expiresInSeconds: 1 }), ...saying('alive')]);
    const [fromStrict, fromA] = await store.at(T0 + 5000).messages.batches.dequeue([
      { queue: strict, demands: [{ maxMessages: 5, leaseSeconds: 60 }] },
      { queue: a, demands: [{ maxMessages: 5, leaseSeconds: 60 }] },
    ]);
    expect(bodies(fromStrict?.leased[0] ?? [])).toEqual(['fresh']);
    expect(bodies(fromA?.leased[0] ?? [])).toEqual(['alive']);
    expect((await stored(a)).deliveries).toEqual(['alive']);
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
  ofA: LeasedDelivery[];
  ofB: LeasedDelivery[];
  stale: LeasedDelivery;
  unknown: LeasedDelivery;
}

async function leases(): Promise<Leases> {
  await store.at(T0).messages.enqueue(a.name, numbered(8));
  await store.at(T0).messages.enqueue(b.name, numbered(4));
  const [stale] = await store.at(T0).messages.dequeue(a, { maxMessages: 1, leaseSeconds: 1 });
  const ofA = await store.at(LATER).messages.dequeue(a, { maxMessages: 8, leaseSeconds: 600 });
  const ofB = await store.at(LATER).messages.dequeue(b, { maxMessages: 4, leaseSeconds: 600 });
  const byBody = (one: LeasedDelivery, other: LeasedDelivery): number => Number(one.body) - Number(other.body);
  const first = ofA[0] as LeasedDelivery;
  return {
    ofA: ofA.toSorted(byBody),
    ofB: ofB.toSorted(byBody),
    stale: stale as LeasedDelivery,
    unknown: { ...first, messageId: message().id },
  };
}

/** Copies, because two requests never decode to the same objects. */
function again(receipts: (LeasedDelivery | undefined)[]): LeasedDelivery[] {
  return receipts.map((receipt) => ({ ...(receipt as LeasedDelivery) }));
}

interface DeliveryRow {
  availableAt: number;
  isLeased: boolean;
  reason: string | null;
}

async function deliveries(queue: Queue): Promise<Record<string, DeliveryRow>> {
  const rows = await store.database.read<{
    body: Buffer;
    availableAt: number;
    token: Buffer;
    reason: string | null;
  }>(
    `SELECT m.body, d.available_at AS availableAt, d.lease_token AS token, d.nack_reason AS reason
     FROM delivery d JOIN message m ON m.id = d.message_id WHERE d.queue_id = ?`,
    [queue.id],
  );
  return Object.fromEntries(
    rows.map(({ body, availableAt, token, reason }) => [
      body.toString(),
      { availableAt, isLeased: token.some((byte) => byte !== 0), reason },
    ]),
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
    const fresh = ofA.find(({ messageId }) => messageId.equals(stale.messageId)) as LeasedDelivery;
    const [one, two, three] = ofA.filter((lease) => lease !== fresh) as [
      LeasedDelivery,
      LeasedDelivery,
      LeasedDelivery,
    ];
    const outcomes = await store.at(LATER).messages.batches.ack([
      { queueId: a.id, receipts: [one, two] },
      { queueId: a.id, receipts: again([two]) },
      { queueId: b.id, receipts: [ofB[0] as LeasedDelivery, ...again([ofB[0]])] },
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
    const claims = async (queue: Queue): Promise<LeasedDelivery[]> => {
      const leased: LeasedDelivery[] = [];
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
    const forged = { ...(ofA[59] as LeasedDelivery), leaseToken: (ofB[59] as LeasedDelivery).leaseToken };
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
    const fresh = ofA.find(({ messageId }) => messageId.equals(stale.messageId)) as LeasedDelivery;
    const [one, two] = ofA.filter((lease) => lease !== fresh) as [LeasedDelivery, LeasedDelivery];
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

describe('an extend batch', () => {
  it('sets the deadline of each held lease as its request asks and answers the other receipts', async () => {
    const { ofA, ofB, stale, unknown } = await leases();
    const fresh = ofA.find(({ messageId }) => messageId.equals(stale.messageId)) as LeasedDelivery;
    const [one, two] = ofA.filter((lease) => lease !== fresh) as [LeasedDelivery, LeasedDelivery];
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
    const [one] = ofA as [LeasedDelivery];
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
