import { LEASE_GRACE_MS, type LeasedMessage } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { owedMessages, storedBodies } from '../support/deliveries.js';
import { bodies, createQueue, message, NO_PRIORITY, numbered, openStore, type TestStore } from '../support/store.js';

/** The instant at which tests begin. They move `now`, so no test waits. */
const T0 = 1_800_000_000_000;
const SECOND = 1000;
/** The time after which a delivery leased for 30 s can be claimed again. */
const AFTER_LEASE = 30 * SECOND + LEASE_GRACE_MS;

let store: TestStore;

beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());

async function dequeue(
  queue: Awaited<ReturnType<typeof createQueue>>,
  now: number,
  maxMessages = 10,
  leaseSeconds = 30,
) {
  return store.at(now).messages.dequeue(queue, { maxMessages, leaseSeconds });
}

describe('enqueue', () => {
  it('hands messages out in the order of their enqueues', async () => {
    const queue = await createQueue(store);
    await store.at(T0).messages.enqueue(queue.name, numbered(3));
    await store.at(T0 + 1).messages.enqueue(queue.name, [message({ body: Buffer.from('later') })]);
    expect(bodies(await dequeue(queue, T0 + 1))).toEqual(['0', '1', '2', 'later']);
  });

  it('hands more urgent messages out first, whenever they were enqueued', async () => {
    const queue = await createQueue(store);
    for (const [index, priority] of [4, 0, 9, 5, 9].entries()) {
      await store
        .at(T0 + index)
        .messages.enqueue(queue.name, [message({ priority, body: Buffer.from(`${priority}/${index}`) })]);
    }
    expect(bodies(await dequeue(queue, T0 + 10))).toEqual(['9/2', '9/4', '5/3', '4/0', '0/1']);
  });

  it('stores all messages or none', async () => {
    const queue = await createQueue(store);
    await expect(
      store.at(T0).messages.enqueue(queue.name, [...numbered(40), message({ priority: NO_PRIORITY })]),
    ).rejects.toThrow(/out of range/i);
    expect(await storedBodies(store, queue)).toEqual({ messages: [], owed: [] });
    await store.at(T0).messages.enqueue(queue.name, numbered(40));
    expect(await dequeue(queue, T0, 100)).toHaveLength(40);
  });

  it('refuses a queue that does not exist or was deleted', async () => {
    await expect(store.messages.enqueue('nowhere', [message()])).rejects.toMatchObject({ code: 'queue-not-found' });
    const queue = await createQueue(store);
    await store.queues.delete(queue.name);
    await expect(store.messages.enqueue(queue.name, [message()])).rejects.toMatchObject({ code: 'queue-not-found' });
  });

  it('refuses a message that would expire before its delay ends', async () => {
    const queue = await createQueue(store);
    const shortLived = (delaySeconds: number) => [message({ delaySeconds, expiresInSeconds: 100 })];
    await expect(store.at(T0).messages.enqueue(queue.name, shortLived(100))).rejects.toMatchObject({
      code: 'invalid-request',
    });
    await store.at(T0).messages.enqueue(queue.name, shortLived(99));
    expect(await dequeue(queue, T0 + 99 * SECOND)).toHaveLength(1);
  });

  it('makes a message available at its instant, to the millisecond, and counts the TTL from then', async () => {
    const queue = await createQueue(store, { messageTtlSeconds: 100 });
    const YEAR = 366 * 86_400 * SECOND;
    await store
      .at(T0)
      .messages.enqueue(queue.name, [
        message({ availableAt: T0 - 1, body: Buffer.from('past') }),
        message({ availableAt: T0 + YEAR, body: Buffer.from('instant') }),
        message({ delaySeconds: YEAR / SECOND, body: Buffer.from('delay') }),
        message({ availableAt: T0 + YEAR, expiresInSeconds: YEAR / SECOND + 1, body: Buffer.from('short') }),
      ]);
    expect(bodies(await dequeue(queue, T0))).toEqual(['past']);
    expect(bodies(await dequeue(queue, T0 + YEAR - 1))).toEqual([]);
    const owed = await owedMessages(store, queue);
    const lives = owed.map(({ body, availableAt, expiresAt }) => [body, availableAt - T0, expiresAt - availableAt]);
    expect(lives.filter(([body]) => body !== 'past')).toEqual([
      ['instant', YEAR, 100 * SECOND],
      ['delay', YEAR, 100 * SECOND],
      ['short', YEAR, 1 * SECOND],
    ]);
    expect(bodies(await dequeue(queue, T0 + YEAR)).toSorted()).toEqual(['delay', 'instant', 'short']);
    await expect(
      store.at(T0).messages.enqueue(queue.name, [message({ availableAt: T0 + YEAR + 1 })]),
    ).rejects.toMatchObject({ code: 'invalid-request' });
  });

  it('keeps a queue within its maximum depth and counts leased messages', async () => {
    const queue = await createQueue(store, { maxDepth: 5 });
    await store.at(T0).messages.enqueue(queue.name, numbered(4));
    await expect(store.at(T0).messages.enqueue(queue.name, numbered(2))).rejects.toMatchObject({
      code: 'queue-full',
    });
    await store.at(T0).messages.enqueue(queue.name, numbered(1));
    const leased = await dequeue(queue, T0);
    expect(leased).toHaveLength(5);
    await expect(store.at(T0).messages.enqueue(queue.name, numbered(1))).rejects.toMatchObject({
      code: 'queue-full',
    });
    await store.at(T0).messages.ack(queue.id, leased.slice(0, 2));
    await store.at(T0).messages.enqueue(queue.name, numbered(2));
    await store.queues.put(queue.name, { maxDepth: null });
    await store.at(T0).messages.enqueue(queue.name, numbered(20));
  });
});

describe('lease', () => {
  it('is exclusive until it runs out, and then the message is handed out again', async () => {
    const queue = await createQueue(store);
    await store.at(T0).messages.enqueue(queue.name, numbered(1));
    const [first] = await dequeue(queue, T0);
    expect(first).toMatchObject({ receiveCount: 1, leaseExpiresAt: T0 + 30 * SECOND });
    expect(await dequeue(queue, T0 + AFTER_LEASE - 1)).toEqual([]);
    const [second] = await dequeue(queue, T0 + AFTER_LEASE);
    expect(second).toMatchObject({ receiveCount: 2, messageId: first?.messageId });
    expect(second?.leaseToken).not.toEqual(first?.leaseToken);
  });

  it('is fenced: the receipt of a lost lease does nothing', async () => {
    const queue = await createQueue(store);
    await store.at(T0).messages.enqueue(queue.name, numbered(1));
    const stale = await dequeue(queue, T0);
    const later = T0 + AFTER_LEASE;
    const current = await dequeue(queue, later);
    expect(await store.at(later).messages.ack(queue.id, stale)).toEqual(['lease-lost']);
    expect(await store.at(later).messages.nack(queue.id, stale, { delaySeconds: 0 })).toEqual(['lease-lost']);
    expect((await store.at(later).messages.extend(queue.id, stale, { leaseSeconds: 500 })).outcomes).toEqual([
      'lease-lost',
    ]);
    await store.at(later).messages.release(queue.id, stale);
    expect(await dequeue(queue, later)).toEqual([]);
    expect(await store.at(later).messages.ack(queue.id, [...stale, ...current])).toEqual(['lease-lost', null]);
  });

  it('is lost at its deadline, even if nobody has claimed the message since', async () => {
    const queue = await createQueue(store);
    await store.at(T0).messages.enqueue(queue.name, numbered(1));
    const leased = await dequeue(queue, T0);
    store.at(T0 + 30 * SECOND);
    expect(await store.messages.ack(queue.id, leased)).toEqual(['lease-lost']);
    expect((await store.messages.extend(queue.id, leased, { leaseSeconds: 9 })).outcomes).toEqual(['lease-lost']);
    expect(await store.messages.nack(queue.id, leased, { delaySeconds: 9 })).toEqual(['lease-lost']);
    expect(await store.at(T0 + 30 * SECOND - 1).messages.ack(queue.id, leased)).toEqual([null]);
  });

  it('can be extended, and its receipt stays valid', async () => {
    const queue = await createQueue(store);
    await store.at(T0).messages.enqueue(queue.name, numbered(1));
    const leased = await dequeue(queue, T0);
    expect(await store.at(T0 + 20 * SECOND).messages.extend(queue.id, leased, { leaseSeconds: 60 })).toEqual({
      outcomes: [null],
      leaseExpiresAt: T0 + 80 * SECOND,
    });
    expect(await dequeue(queue, T0 + 80 * SECOND)).toEqual([]);
    expect(await store.at(T0 + 79 * SECOND).messages.ack(queue.id, leased)).toEqual([null]);
  });

  it('can be nacked with a delay and a reason', async () => {
    const queue = await createQueue(store);
    await store.at(T0).messages.enqueue(queue.name, numbered(1));
    const leased = await dequeue(queue, T0);
    expect(await store.at(T0).messages.nack(queue.id, leased, { delaySeconds: 10, reason: 'not now' })).toEqual([null]);
    expect(await store.at(T0).messages.ack(queue.id, leased)).toEqual(['lease-lost']);
    expect(await dequeue(queue, T0 + 10 * SECOND - 1)).toEqual([]);
    const page = await store.at(T0).browse.browse(queue.id, 'delayed', 10, undefined);
    expect(page.deliveries).toMatchObject([{ nackReason: 'not now', receiveCount: 1, availableAt: T0 + 10 * SECOND }]);
    expect(await dequeue(queue, T0 + 10 * SECOND)).toMatchObject([{ receiveCount: 2 }]);
  });

  it('does not count as a receive if it was released', async () => {
    const queue = await createQueue(store);
    await store.at(T0).messages.enqueue(queue.name, numbered(2));
    await store.at(T0 + 1).messages.release(queue.id, await dequeue(queue, T0));
    expect(await dequeue(queue, T0 + 1)).toMatchObject([{ receiveCount: 1 }, { receiveCount: 1 }]);
  });

  it('can be released with a delay, and keeps the reason of an earlier nack unless it gets another', async () => {
    const queue = await createQueue(store);
    await store.at(T0).messages.enqueue(queue.name, numbered(1));
    await store.at(T0).messages.nack(queue.id, await dequeue(queue, T0), { delaySeconds: 0, reason: 'not now' });
    const reasonAfter = async (now: number, request: { delaySeconds?: number; reason?: string }) => {
      const leased = await dequeue(queue, now);
      expect(leased).toMatchObject([{ receiveCount: 2 }]);
      const { batches } = store.at(now).messages;
      const twice = [
        { queueId: queue.id, receipts: leased, ...request },
        { queueId: queue.id, receipts: leased },
      ];
      expect(await batches.release(twice)).toEqual([[null], ['lease-lost']]);
      const { delaySeconds = 0 } = request;
      expect(await dequeue(queue, now + delaySeconds * SECOND - 1)).toEqual([]);
      const state = delaySeconds === 0 ? 'ready' : 'delayed';
      const page = await store.at(now).browse.browse(queue.id, state, 10, undefined);
      expect(page.deliveries).toMatchObject([{ receiveCount: 1, availableAt: now + delaySeconds * SECOND }]);
      return page.deliveries[0]?.nackReason;
    };
    expect(await reasonAfter(T0, {})).toBe('not now');
    expect(await reasonAfter(T0 + 1, { delaySeconds: 10, reason: 'later' })).toBe('later');
    expect(await reasonAfter(T0 + 20 * SECOND, {})).toBe('later');
  });
});

describe('ack', () => {
  it('settles the delivery, which is never handed out again, and keeps the message readable', async () => {
    const queue = await createQueue(store);
    const [id] = await store.at(T0).messages.enqueue(queue.name, [message({ body: Buffer.from('kept') })]);
    const leased = await dequeue(queue, T0);
    expect(await store.at(T0).messages.ack(queue.id, leased)).toEqual([null]);
    expect(await store.at(T0).messages.ack(queue.id, leased)).toEqual(['delivery-not-found']);
    expect(await dequeue(queue, T0 + 1e9)).toEqual([]);
    expect(bodies(await store.browse.messages([id!]))).toEqual(['kept']);
  });

  it('answers each receipt separately', async () => {
    const queue = await createQueue(store);
    const other = await createQueue(store);
    await store.at(T0).messages.enqueue(queue.name, numbered(3));
    const [a, b, c] = (await dequeue(queue, T0)) as [never, never, never];
    const wrongToken = { ...(b as LeasedMessage), leaseToken: Buffer.alloc(8) };
    expect(await store.at(T0).messages.ack(other.id, [a])).toEqual(['delivery-not-found']);
    expect(await store.at(T0).messages.ack(queue.id, [c, wrongToken, a])).toEqual([null, 'lease-lost', null]);
    expect(await store.at(T0).messages.ack(queue.id, [b])).toEqual([null]);
  });
});

describe('expiry', () => {
  it('removes an expired message when a claim finds it and never hands it out', async () => {
    const queue = await createQueue(store, { messageTtlSeconds: 1000 });
    await store
      .at(T0)
      .messages.enqueue(queue.name, [
        message({ expiresInSeconds: 5 }),
        message({ expiresInSeconds: 5000, body: Buffer.from('capped') }),
      ]);
    expect(bodies(await dequeue(queue, T0 + 5 * SECOND))).toEqual(['capped']);
    expect(await store.at(T0 + 5 * SECOND).browse.stats(queue.id)).toMatchObject({
      ready: 0,
      delayed: 0,
      leased: 1,
      oldestReadyAgeSeconds: null,
    });
    expect(await dequeue(queue, T0 + 1000 * SECOND)).toEqual([]);
    expect(await store.unleased.lastId(queue.id)).toBeNull();
  });

  it('during a lease still allows the holder to ack, and nobody else gets the message', async () => {
    const queue = await createQueue(store);
    await store
      .at(T0)
      .messages.enqueue(queue.name, [message({ expiresInSeconds: 5 }), message({ expiresInSeconds: 5 })]);
    const [first, second] = (await dequeue(queue, T0)) as [never, never];
    expect(await store.at(T0 + 29 * SECOND).messages.ack(queue.id, [first])).toEqual([null]);
    expect(await dequeue(queue, T0 + AFTER_LEASE)).toEqual([]);
    expect(await store.at(T0 + AFTER_LEASE).messages.ack(queue.id, [second])).toEqual(['delivery-not-found']);
  });

  it('does not hide other messages: one claim gets past hundreds of expired ones', async () => {
    const queue = await createQueue(store);
    for (let batch = 0; batch < 5; batch += 1)
      await store.at(T0).messages.enqueue(queue.name, numbered(100, { expiresInSeconds: 1 }));
    await store.at(T0).messages.enqueue(queue.name, [message({ body: Buffer.from('alive') })]);
    expect(bodies(await dequeue(queue, T0 + 1 * SECOND, 1))).toEqual(['alive']);
  });
});

describe('a claim that finds expired messages', () => {
  it('reads on and leases nothing twice', async () => {
    const queue = await createQueue(store);
    for (let batch = 0; batch < 3; batch += 1) {
      const mixed = numbered(50).map((one, index) => ({ ...one, expiresInSeconds: index % 2 === 0 ? 1 : 1000 }));
      await store.at(T0).messages.enqueue(queue.name, mixed);
    }
    const leased = await dequeue(queue, T0 + 1 * SECOND, 60);
    // It saw the deliveries of 60 messages, and only some of them were alive.
    expect(leased.length).toBeGreaterThan(0);
    expect(leased.length).toBeLessThan(60);
    leased.push(...(await dequeue(queue, T0 + 1 * SECOND, 60)));
    expect(new Set(leased.map(({ messageId }) => messageId.toString('hex'))).size).toBe(75);
    expect(leased).toHaveLength(75);
  });
});

describe('dead-lettering', () => {
  it('moves an over-received message when a claim finds it, and redrive returns it', async () => {
    const dead = await createQueue(store);
    const queue = await createQueue(store, { maxReceives: 2, deadLetterQueue: dead.name });
    await store.at(T0).messages.enqueue(queue.name, numbered(2));
    const at = (lease: number) => T0 + lease * AFTER_LEASE;
    expect(await dequeue(queue, at(0))).toHaveLength(2);
    const [second] = (await dequeue(queue, at(1))) as [never];
    await store.at(at(1)).messages.ack(queue.id, [second]);
    expect(await dequeue(queue, at(2))).toEqual([]);
    const [moved] = (await dequeue(dead, at(2))) as [never];
    expect(moved).toMatchObject({ receiveCount: 1, body: Buffer.from('1') });
    await store.at(at(2)).messages.nack(dead.id, [moved], { delaySeconds: 0 });
    expect(await store.at(at(3)).unleased.redrive(dead.id, Buffer.alloc(16), 10)).toMatchObject({
      moved: new Map([[queue.id, 1]]),
      skipped: 0,
    });
    expect(await dequeue(dead, at(3))).toEqual([]);
    expect(await dequeue(queue, at(3))).toMatchObject([{ receiveCount: 1, body: Buffer.from('1') }]);
  });

  it('uses the current settings, even if the broker remembers older ones', async () => {
    const dead = await createQueue(store);
    const remembered = await createQueue(store, { maxReceives: 1, deadLetterQueue: dead.name });
    await store.at(T0).messages.enqueue(remembered.name, numbered(1));
    await dequeue(remembered, T0);
    await store.queues.put(remembered.name, { maxReceives: null, deadLetterQueue: null });
    await store.queues.delete(dead.name);
    expect(await dequeue(remembered, T0 + AFTER_LEASE)).toMatchObject([{ receiveCount: 2 }]);
  });
});

describe('a receipt with a token of zeros', () => {
  it('is refused for every delivery, even one without a lease whose id the producer knows', async () => {
    const queue = await createQueue(store);
    const [delayed] = await store.at(T0).messages.enqueue(queue.name, [message({ delaySeconds: 600 })]);
    const forged = [{ messageId: delayed!, leaseToken: Buffer.alloc(8), part: 0, members: 1 }];
    store.at(T0 + 1000);
    expect(await store.messages.ack(queue.id, forged)).toEqual(['lease-lost']);
    expect(await store.messages.nack(queue.id, forged, { delaySeconds: 0 })).toEqual(['lease-lost']);
    const extended = await store.messages.extend(queue.id, forged, { leaseSeconds: 9000 });
    expect(extended.outcomes).toEqual(['lease-lost']);
    await store.messages.release(queue.id, forged);
    // Beside receipts that are valid it is refused as well.
    await store.at(T0).messages.enqueue(queue.name, numbered(60));
    const held = await dequeue(queue, T0, 60, 600);
    const outcomes = await store.messages.ack(queue.id, [...held, ...forged]);
    expect(outcomes).toEqual([...held.map(() => null), 'lease-lost']);
    expect(held).toHaveLength(60);
    expect(await dequeue(queue, T0 + 600_000 - 1)).toEqual([]);
    expect(await dequeue(queue, T0 + 600_000)).toMatchObject([{ messageId: delayed, receiveCount: 1 }]);
  });
});
