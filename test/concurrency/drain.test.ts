import type { LeasedMessage, Queue, Transaction } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { countDeadlocks, expectNoDeadlock } from '../support/deadlocks.js';
import { testServer } from '../support/servers.js';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';
import { isLong } from './length.js';
import { ackRest } from './rest.js';

/*
 * Many consumers at once, each with its own connection. The test counts the deadlocks that the
 * server reports to these connections, so no retry hides one.
 */

const CONSUMERS = 64;
const MESSAGES = isLong ? 100_000 : 10_000;
/** All kinds of workers meet for this long. */
const MEETING_MS = isLong ? 60_000 : 3000;
/**
 * On MariaDB, two claims of different brokers can briefly form a deadlock (docs/decisions/0002).
 * The test therefore runs one broker there.
 */
const BROKERS = testServer().kind === 'mysql' ? 4 : 1;

let store: TestStore;
/** Each broker runs only a few claims of a queue at a time. Several brokers run more. */
let brokers: TestStore[];
let deadlocks: () => number;

beforeAll(async () => {
  store = await openStore({ poolSize: CONSUMERS + 4 });
  brokers = [store];
  while (brokers.length < BROKERS) brokers.push(await openStore({ on: store.url, poolSize: 20 }));
  deadlocks = countDeadlocks(brokers.map(({ database }) => database));
});
afterAll(async () => {
  for (const broker of brokers.toReversed()) await broker.close();
});

function brokerOf(consumer: number): TestStore {
  return brokers[consumer % BROKERS] as TestStore;
}

async function fill(queue: Queue, messages: number): Promise<Set<string>> {
  const ids = new Set<string>();
  let planned = 0;
  const producers = Array.from({ length: 4 }, async () => {
    while (planned < messages) {
      const batch = Array.from({ length: Math.min(500, messages - planned) }, () => message());
      planned += batch.length;
      for (const id of await store.messages.enqueue(queue.name, batch)) ids.add(id.toString('hex'));
    }
  });
  await Promise.all(producers);
  return ids;
}

it('the deadlock counter of these tests counts deadlocks whose transactions are retried', async () => {
  const { database } = store;
  await database.write('CREATE TABLE probe (id INT PRIMARY KEY)');
  await database.write('INSERT INTO probe VALUES (1), (2)');
  const before = deadlocks();
  const lock = async (tx: Transaction, id: number): Promise<unknown> =>
    tx.read('SELECT * FROM probe WHERE id = ? FOR UPDATE', [id]);
  // If the machine stalls for seconds, one wait times out before the other transaction arrives.
  for (let round = 0; round < 10 && deadlocks() === before; round += 1) {
    const haveFirst = new Set<number>();
    await Promise.all(
      [1, 2].map(async (first) =>
        database.transaction(async (tx) => {
          await lock(tx, first);
          haveFirst.add(first);
          await eventually('each transaction holds the row that the other wants', () => haveFirst.size === 2);
          await lock(tx, 3 - first);
        }),
      ),
    );
  }
  expect(deadlocks()).toBeGreaterThan(before);
});

describe(`${CONSUMERS} consumers`, () => {
  it(`drain ${MESSAGES} messages, each exactly once, without a deadlock`, async () => {
    const queue = await createQueue(store);
    const sent = await fill(queue, MESSAGES);
    const before = deadlocks();
    const taken = new Map<string, number>();
    await Promise.all(
      Array.from({ length: CONSUMERS }, async (_, consumer) => {
        const { messages } = brokerOf(consumer);
        for (;;) {
          const leased = await messages.dequeue(queue, { maxMessages: 50, leaseSeconds: 600 });
          if (leased.length === 0) return;
          for (const { messageId } of leased) {
            const id = messageId.toString('hex');
            taken.set(id, (taken.get(id) ?? 0) + 1);
          }
          const outcomes = await messages.ack(queue.id, leased);
          expect(new Set(outcomes)).toEqual(new Set([null]));
        }
      }),
    );
    expect(taken.size).toBe(sent.size);
    expect([...taken.values()].filter((count) => count !== 1)).toEqual([]);
    expect([...taken.keys()].filter((id) => !sent.has(id))).toEqual([]);
    expect(await store.unleased.lastId(queue.id)).toBeNull();
    await expectNoDeadlock(deadlocks() - before);
  }, 600_000);

  it('ack each message once, without a deadlock, while the old holders of expired leases ack, extend and nack', async () => {
    const queue = await createQueue(store);
    const sent = await fill(queue, 4000);
    const before = deadlocks();
    const acked = new Map<string, number>();
    const codes = new Map<string, number>();
    const until = performance.now() + 30_000;
    /** Leases of 0 to 1 s in steps of an eighth, mostly short. */
    const claim = async ({ messages }: TestStore): Promise<LeasedMessage[]> =>
      messages.dequeue(queue, {
        maxMessages: 20,
        leaseSeconds: Math.floor(8 * Math.random() ** 3) / 8,
      });
    await Promise.all(
      Array.from({ length: CONSUMERS }, async (_, consumer) => {
        const { messages } = brokerOf(consumer);
        let old: LeasedMessage[] = [];
        while (acked.size < sent.size && performance.now() < until) {
          const leased = await claim(brokerOf(consumer));
          // The leases of the previous round have ended or soon will. Other consumers have claimed
          // some of the messages.
          if (consumer % 8 === 0 && old.length > 0) await messages.extend(queue.id, old, { leaseSeconds: 1 });
          if (consumer % 8 === 1 && old.length > 0) await messages.nack(queue.id, old, { delaySeconds: 0 });
          if (consumer % 8 === 2)
            await messages.expire(queue.id, (await store.unleased.findExpired(queue.id, Buffer.alloc(16), 50)).found);
          if (consumer % 8 === 3) await messages.release(queue.id, old);
          const outcomes = await messages.ack(queue.id, [...old, ...leased]);
          for (const [index, outcome] of outcomes.entries()) {
            const id = [...old, ...leased][index]?.messageId.toString('hex') as string;
            codes.set(String(outcome), (codes.get(String(outcome)) ?? 0) + 1);
            if (outcome === null) acked.set(id, (acked.get(id) ?? 0) + 1);
          }
          old = leased;
        }
      }),
    );
    for (const id of await ackRest(store, queue)) acked.set(id, (acked.get(id) ?? 0) + 1);
    expect(acked.size).toBe(sent.size);
    expect([...acked.values()].filter((count) => count !== 1)).toEqual([]);
    // The consumers did compete: many acks came too late.
    expect(codes.get('lease-lost')).toBeGreaterThan(100);
    await expectNoDeadlock(deadlocks() - before, { leasesRunOut: true });
  }, 240_000);

  it('meet no deadlock while other workers purge, expire, dead-letter, redrive and count the queue', async () => {
    const dead = await createQueue(store);
    const queue = await createQueue(store, { maxReceives: 2, deadLetterQueue: dead.name, maxDepth: 100_000 });
    const before = deadlocks();
    const until = performance.now() + MEETING_MS;
    const running = (): boolean => performance.now() < until;
    const loop = async (work: () => Promise<unknown>): Promise<void> => {
      while (running()) await work();
    };
    await Promise.all([
      ...Array.from({ length: 8 }, () =>
        loop(() =>
          store.messages.enqueue(
            queue.name,
            Array.from({ length: 20 }, () => message({ expiresInSeconds: 1 + Math.ceil(Math.random() * 3) })),
          ),
        ),
      ),
      ...Array.from({ length: 40 }, (_, consumer) =>
        loop(async () => {
          const { messages } = brokerOf(consumer);
          const from = consumer % 4 === 0 ? dead : queue;
          const leased = await messages.dequeue(from, { maxMessages: 10, leaseSeconds: 1 });
          if (consumer % 3 === 0) await messages.nack(from.id, leased, { delaySeconds: 0 });
          if (consumer % 3 === 1) await messages.ack(from.id, leased);
        }),
      ),
      ...Array.from({ length: 2 }, () =>
        loop(async () =>
          store.messages.expire(queue.id, (await store.unleased.findExpired(queue.id, Buffer.alloc(16), 500)).found),
        ),
      ),
      ...Array.from({ length: 2 }, () =>
        loop(async () =>
          store.messages.deadLetter(queue, (await store.unleased.findOverReceived(queue, Buffer.alloc(16), 500)).found),
        ),
      ),
      ...Array.from({ length: 4 }, () => loop(() => store.unleased.redrive(dead.id, Buffer.alloc(16), 50))),
      loop(() => store.unleased.purge(queue.id, Buffer.alloc(16), Buffer.alloc(16, 255), 200)),
      loop(() => store.queues.put(queue.name, { leaseSeconds: 1, deadLetterQueue: dead.name })),
      loop(() => store.queues.put(dead.name, { leaseSeconds: 1 })),
      loop(() =>
        store.queues
          .delete(dead.name)
          .catch((error: unknown) => expect(error).toMatchObject({ code: 'invalid-request' })),
      ),
      loop(() => store.browse.stats(queue.id)),
    ]);
    await expectNoDeadlock(deadlocks() - before, { leasesRunOut: true });
  }, 240_000);
});

describe('two brokers', () => {
  it('never lease the same delivery at the same time', async () => {
    const other = await openStore({ on: store.url, poolSize: 8 });
    try {
      const queue = await createQueue(store);
      await fill(queue, 2000);
      const taken: string[] = [];
      await Promise.all(
        [store, other, store, other, store, other].map(async ({ messages }) => {
          for (;;) {
            const leased = await messages.dequeue(queue, { maxMessages: 7, leaseSeconds: 600 });
            if (leased.length === 0) return;
            taken.push(...leased.map(({ messageId }) => messageId.toString('hex')));
          }
        }),
      );
      expect(new Set(taken).size).toBe(2000);
      expect(taken).toHaveLength(2000);
    } finally {
      await other.close();
    }
  });
});

it('the test project runs on the server that it names', async () => {
  const [row] = await store.database.read<{ version: string }>('SELECT VERSION() AS version');
  expect(/mariadb/i.test(row?.version ?? '')).toBe(testServer().kind === 'mariadb');
});
