import { RowmqError } from '@rowmq/contract';
import { MessageRepository, type Queue } from '@rowmq/store';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { enqueue } from '../../libs/typeorm/src/index.js';
import { openSession } from '../support/partitions.js';
import { recordStatements } from '../support/statements.js';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';

/*
 * A service's transaction may stay open for long after its enqueue. Changes of the queue do not
 * wait for it. A change that has to wait for somebody's lock lets other requests pass.
 */

/**
 * Below the second that a wait for a lock takes at least. A busy machine may delay everything, so
 * the longest enqueue in a queue that nobody locks is allowed on top.
 */
const AT_ONCE_MS = 800;

let store: TestStore;
let other: TestStore;
let shop: DataSource;
let queue: Queue;
let elsewhere: Queue;
/** Nobody changes it or locks its row. */
let free: Queue;

beforeAll(async () => {
  store = await openStore();
  other = await openStore({ on: store.url });
  shop = await new DataSource({ type: 'mysql', url: store.url }).initialize();
});
afterAll(async () => {
  await shop.destroy();
  await other.close();
  await store.close();
});
beforeEach(async () => {
  queue = await createQueue(store);
  elsewhere = await createQueue(store);
  free = await createQueue(store);
});

async function duration(work: Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work;
  return performance.now() - begun;
}

/**
 * Enqueues in these queues, in one batch, until it is told to stop. Returns the longest duration.
 */
function enqueueIn(queues: readonly Queue[]): { stop(): Promise<number> } {
  const broker = new MessageRepository(other.database);
  let isOver = false;
  const run = async (): Promise<number> => {
    let longest = 0;
    while (!isOver) {
      const requests = queues.map(({ name }) => ({ queueName: name, messages: [message()] }));
      const batch = broker.enqueue(requests);
      longest = Math.max(longest, await duration(batch));
      for (const outcome of await batch) if (outcome instanceof Error) throw outcome;
    }
    return longest;
  };
  const running = run();
  running.catch(() => undefined);
  return {
    stop: async () => {
      isOver = true;
      return running;
    },
  };
}

/** Returns by how much this work takes longer than an enqueue in the queue that nobody locks. */
async function delay(work: () => Promise<unknown>): Promise<number> {
  const control = enqueueIn([free]);
  const took = await duration(work());
  return took - (await control.stop());
}

/**
 * Enqueues in both queues, in one batch, until it is told to stop. Returns by how much the longest
 * took longer than one in the queue that nobody locks.
 */
function enqueueMeanwhile(): { stop(): Promise<number> } {
  const [both, control] = [enqueueIn([queue, elsewhere]), enqueueIn([free])];
  return {
    stop: async () => {
      const [longest, usual] = await Promise.all([both.stop(), control.stop()]);
      return longest - usual;
    },
  };
}

describe('while a service’s transaction that enqueued is open', () => {
  test.each(['READ COMMITTED', 'REPEATABLE READ'] as const)(
    'settings and the pause of its queue change at once, and enqueues go on (%s)',
    async (isolation) => {
      const graveyard = await createQueue(store);
      const load = enqueueMeanwhile();
      await shop.transaction(isolation, async (manager) => {
        await enqueue(manager, queue.name, [{ body: 'of the service' }]);
        for (const change of [
          () => store.queues.put(queue.name, { leaseSeconds: 77, deadLetterQueue: graveyard.name }),
          () => store.queues.setPaused(queue.name, { paused: true }),
          () => store.queues.setPaused(queue.name, { paused: false }),
          () => store.queues.put(graveyard.name, { delaySeconds: 1 }),
        ])
          expect(await delay(change)).toBeLessThan(AT_ONCE_MS);
        expect(await store.queues.getFresh(queue.name)).toMatchObject({ leaseSeconds: 77, paused: false });
      });
      expect(await load.stop()).toBeLessThan(AT_ONCE_MS);
      const stored = await store.database.read('SELECT 1 FROM delivery WHERE queue_id = ?', [queue.id]);
      expect(stored.length).toBeGreaterThan(0);
    },
  );

  test('its queue cannot be deleted, the error says why, and enqueues go on meanwhile', async () => {
    await shop.transaction(async (manager) => {
      await enqueue(manager, queue.name, [{ body: 'of the service' }]);
      const load = enqueueMeanwhile();
      const error: unknown = await store.queues.delete(queue.name).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(RowmqError);
      expect(error).toMatchObject({ code: 'queue-locked', retryAfterSeconds: 1 });
      expect((error as Error).message).toContain(`has kept queue '${queue.name}' locked for 4 s, or `);
      expect(await load.stop()).toBeLessThan(AT_ONCE_MS);
    });
    expect(await store.queues.delete(queue.name)).toBe(queue.id);
  });

  test('a second service’s transaction enqueues in its queue while a deletion tries', async () => {
    await shop.transaction(async (manager) => {
      await enqueue(manager, queue.name, [{ body: 'first' }]);
      const deletion = store.queues.delete(queue.name);
      deletion.catch(() => undefined);
      for (let turn = 0; turn < 5; turn += 1) {
        const second = () => shop.transaction((another) => enqueue(another, queue.name, [{ body: 'second' }]));
        expect(await delay(second)).toBeLessThan(AT_ONCE_MS);
      }
      await expect(deletion).rejects.toMatchObject({ code: 'queue-locked' });
    });
  });
});

test('while the reaper’s lease row is locked, a new queue fails with its own error', async () => {
  const session = await openSession(store);
  try {
    await session.write('START TRANSACTION');
    await session.read(`SELECT 1 FROM reaper_lease WHERE name = 'reaper' FOR UPDATE`);
    // The row stays locked: the change itself must give up.
    await expect(store.queues.put('new', {})).rejects.toMatchObject({
      code: 'queue-locked',
      message: expect.stringContaining("or the reaper's row of `reaper_lease`"),
    });
    await session.write('ROLLBACK');
    expect(await store.queues.put('new', {})).toMatchObject({ created: true });
  } finally {
    await session.end();
  }
});

describe('while somebody keeps the row of a queue locked', () => {
  test.each([
    ['a change', () => store.queues.put(queue.name, { leaseSeconds: 5 })],
    ['a pause', () => store.queues.setPaused(queue.name, { paused: true })],
    ['a deletion', () => store.queues.delete(queue.name)],
  ])('%s fails with its own error, and does not hinder enqueues', async (_, change) => {
    const session = await openSession(store);
    try {
      // As a broker that froze in the middle of an enqueue.
      await session.write('START TRANSACTION');
      await session.read('SELECT id FROM queue FORCE INDEX (PRIMARY) WHERE id = ? LOCK IN SHARE MODE', [queue.id]);
      const load = enqueueMeanwhile();
      await expect(change()).rejects.toMatchObject({ code: 'queue-locked' });
      expect(await load.stop()).toBeLessThan(AT_ONCE_MS);
      await session.write('ROLLBACK');
      await change();
    } finally {
      await session.end();
    }
  });

  test('a change, a pause or a creation that changes nothing takes no lock', async () => {
    const graveyard = await createQueue(store);
    await store.queues.put(queue.name, { leaseSeconds: 9, maxReceives: null, deadLetterQueue: graveyard.name });
    const { version } = await store.queues.getFresh(queue.name);
    const session = await openSession(store);
    try {
      await session.write('START TRANSACTION');
      await session.read('SELECT id FROM queue FORCE INDEX (PRIMARY) WHERE id = ? FOR UPDATE', [queue.id]);
      const statements = recordStatements(store.database);
      for (const same of [{}, { leaseSeconds: 9 }, { maxReceives: null }, { deadLetterQueue: graveyard.name }])
        expect(await store.queues.put(queue.name, same)).toMatchObject({ created: false, queue: { leaseSeconds: 9 } });
      await expect(store.queues.create(queue.name, { leaseSeconds: 8 })).rejects.toMatchObject({
        code: 'queue-exists',
      });
      await store.queues.setPaused(queue.name, { paused: false });
      expect(statements.filter((sql) => /UPDATE|SHARE|INSERT|MAX_EXECUTION_TIME/.test(sql))).toEqual([]);
      expect((await store.queues.getFresh(queue.name)).version).toBe(version);
    } finally {
      await session.end();
    }
    // Each of these differs.
    for (const change of [{ leaseSeconds: 8 }, { maxReceives: 3 }, { maxReceives: null, deadLetterQueue: null }])
      await store.queues.put(queue.name, change);
    expect((await store.queues.getFresh(queue.name)).version).toBe(version + 3);
    await expect(store.queues.put(queue.name, { deadLetterQueue: 'not-there' })).rejects.toThrow('does not exist');
  });
});
