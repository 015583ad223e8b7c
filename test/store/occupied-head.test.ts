import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Database, MessageRepository, type Queue } from '@rowmq/store';
import { storeStamped } from '../support/partitions.js';
import { recordStatements } from '../support/statements.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';
import { claimFrom } from '../support/claim-from.js';

/*
 * Deliveries that others hold or block at the start of a queue hide neither the deliveries behind
 * them nor the deliveries of other queues.
 */

let store: TestStore;
let other: TestStore;
let queue: Queue;

beforeAll(async () => {
  store = await openStore();
  other = await openStore({ on: store.url });
});
afterAll(async () => {
  await other.close();
  await store.close();
});
beforeEach(async () => {
  queue = await createQueue(store);
});

/** Runs `work` while another transaction locks every delivery that the queue has now. */
async function whileHeld(work: (held: number) => Promise<void>): Promise<void> {
  await other.database.exclusive(async (holder) => {
    await holder.write('START TRANSACTION');
    const held = await holder.read(
      'SELECT pack_id FROM delivery FORCE INDEX (delivery_next) WHERE queue_id = ? AND priority_rank >= 0 FOR UPDATE',
      [queue.id],
    );
    await work(held.length);
    await holder.write('ROLLBACK');
  });
}

describe('urgent deliveries that others hold', () => {
  test.each([1, 300])('do not block less urgent ones (%i urgent)', async (urgent) => {
    await storeStamped(store, queue, { at: Date.now(), count: urgent, priority: 9 });
    await whileHeld(async (held) => {
      expect(held).toBe(urgent);
      await store.messages.enqueue(queue.name, numbered(3, { priority: 1 }));
      const leased = await store.messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 });
      expect(bodies(leased)).toEqual(['0', '1']);
      const last = await store.messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 });
      expect(bodies(last)).toEqual(['2']);
    });
    const rest = await store.messages.dequeue(queue, { maxMessages: 1000, leaseSeconds: 60 });
    expect(rest.map(({ priority }) => priority)).toEqual(Array.from({ length: urgent }, () => 9));
  });

  test('are not locked by the hundred for one consumer', async () => {
    await store.messages.enqueue(queue.name, [message({ priority: 9 })]);
    await whileHeld(async () => {
      await storeStamped(store, queue, { at: Date.now(), count: 50, priority: 1 });
      const statements = recordStatements(store.database);
      expect(await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 60 })).toHaveLength(1);
      const limits = statements
        .filter((sql) => sql.endsWith('FOR UPDATE SKIP LOCKED'))
        .map((sql) => /LIMIT (\d+)/.exec(sql)?.[1]);
      expect(new Set(limits)).toEqual(new Set(['1']));
    });
  });
});

test('a claim whose delivery another broker shrinks between peek and lock must be repeated', async () => {
  for (const batch of [numbered(5), numbered(5)]) await store.messages.enqueue(queue.name, batch);
  const database = Object.create(store.database) as Database;
  database.transaction = async (work) => {
    await other.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 60 });
    return store.database.transaction(work);
  };
  // The peek saw five messages in the first delivery, and the lock finds two.
  const outcome = await claimFrom(new MessageRepository(database), queue, [{ maxMessages: 5, leaseSeconds: 60 }]);
  expect(bodies(outcome.leased.flat())).toEqual(['3', '4']);
  expect(await outcome.claimAgain).toBe(true);
});

describe('messages that another broker leased', () => {
  /** Both brokers have floors: they know where the queue's ready messages begin. */
  async function claimBoth(): Promise<void> {
    for (const { messages } of [store, other]) {
      const leased = await messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 60 });
      expect(leased).toHaveLength(1);
    }
  }

  test('are skipped, and the next ones follow in order', async () => {
    await store.messages.enqueue(queue.name, numbered(22));
    await claimBoth();
    const others = await other.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 });
    const own = await store.messages.dequeue(queue, { maxMessages: 20, leaseSeconds: 60 });
    expect([...bodies(others), ...bodies(own)]).toEqual(Array.from({ length: 20 }, (_, index) => String(index + 2)));
  });

  test('do not hide less urgent ones, even if they were all the urgent ones', async () => {
    await storeStamped(store, queue, { at: Date.now(), count: 60, priority: 9 });
    await storeStamped(store, queue, { at: Date.now(), count: 20 });
    await claimBoth();
    await other.messages.dequeue(queue, { maxMessages: 58, leaseSeconds: 60 });
    const leased = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 });
    expect(leased.map(({ priority }) => priority)).toEqual(Array.from({ length: 10 }, () => 4));
  });
});

test('a queue that was deleted or emptied after a claim hands out nothing', async () => {
  const emptied = await createQueue(store);
  for (const each of [queue, emptied]) {
    await store.messages.enqueue(each.name, numbered(10));
    expect(await store.messages.dequeue(each, { maxMessages: 2, leaseSeconds: 60 })).toHaveLength(2);
  }
  await store.queues.delete(queue.name);
  await store.database.write('DELETE FROM delivery WHERE queue_id = ?', [emptied.id]);
  for (const each of [queue, emptied]) {
    expect(await store.messages.dequeue(each, { maxMessages: 2, leaseSeconds: 60 })).toEqual([]);
  }
});

test('a more urgent message goes first, also if it was nacked or released after a claim', async () => {
  await store.messages.enqueue(queue.name, [message({ priority: 9 }), ...numbered(10)]);
  const demand = { maxMessages: 1, leaseSeconds: 60 };
  const [urgent] = await store.messages.dequeue(queue, demand);
  expect(urgent?.priority).toBe(9);
  expect(bodies(await store.messages.dequeue(queue, demand))).toEqual(['0']);
  await store.messages.nack(queue.id, [urgent!], { delaySeconds: 0 });
  const [again] = await store.messages.dequeue(queue, demand);
  expect(again?.messageId).toEqual(urgent?.messageId);
  expect(bodies(await store.messages.dequeue(queue, demand))).toEqual(['1']);
  await store.messages.release(queue.id, [again!]);
  expect((await store.messages.dequeue(queue, demand)).map(({ messageId }) => messageId)).toEqual([urgent?.messageId]);
});

test('a poll of many queues finds the messages of a queue behind one with more messages than a poll reads', async () => {
  const [behind, empty] = [await createQueue(store), await createQueue(store)];
  await storeStamped(store, queue, { at: Date.now(), count: 501 });
  await store.messages.enqueue(behind.name, [message()]);
  const watcher = new MessageRepository(other.database);
  expect(await watcher.poll([queue.id, behind.id, empty.id])).toEqual(new Set([queue.id, behind.id]));
});

describe('a poll from the scan floors', () => {
  const demand = { maxMessages: 1, leaseSeconds: 60 };

  /** A broker whose full poll took so long that the next one is some seconds away. */
  async function afterSlowFullPoll(): Promise<{ watcher: MessageRepository; endedAt: number }> {
    const database = Object.create(other.database) as Database;
    database.read = async <T>(sql: string, values?: readonly unknown[]) => {
      if (sql.includes('SLEEP')) return other.database.read<T>(sql, values);
      await other.database.read('SELECT SLEEP(0.3)');
      return other.database.read<T>(sql, values);
    };
    const watcher = new MessageRepository(database);
    await watcher.poll([queue.id]);
    delete (database as Partial<Database>).read;
    return { watcher, endedAt: performance.now() };
  }

  test('names a queue of which the broker remembers nothing', async () => {
    const { watcher } = await afterSlowFullPoll();
    expect(await watcher.poll([queue.id])).toEqual(new Set([queue.id]));
    // A claim reads all of the queue, and after that the poll knows that it is empty.
    expect((await claimFrom(watcher, queue, [demand])).leased).toEqual([[]]);
    expect(await watcher.poll([queue.id])).toEqual(new Set());
  });

  test('is followed by a full one after 20 times its duration, which finds a message in an unused priority', async () => {
    const { watcher, endedAt } = await afterSlowFullPoll();
    await claimFrom(watcher, queue, [demand]);
    await store.messages.enqueue(queue.name, [message()]);
    expect(await watcher.poll([queue.id])).toEqual(new Set());
    await eventually('the poll finds it', async () => (await watcher.poll([queue.id])).has(queue.id));
    expect(performance.now() - endedAt).toBeGreaterThan(5500);
  });

  test('goes on while full polls fail', async () => {
    const database = Object.create(other.database) as Database;
    const watcher = new MessageRepository(database);
    await store.messages.enqueue(queue.name, [message()]);
    // The claim sees all of the queue, so it sets a scan floor, and no poll begins at 0.
    expect((await claimFrom(watcher, queue, [{ ...demand, maxMessages: 10 }])).leased.flat()).toHaveLength(1);
    await store.messages.enqueue(queue.name, [message()]);
    database.read = async <T>(sql: string, values?: readonly unknown[]) => {
      // As if the statement met more dead entries than it can read by its deadline.
      if (sql.includes('available_at BETWEEN ?') && values?.at(-1) === 0)
        return other.database.read<T>('SELECT EXP(99999)');
      return other.database.read<T>(sql, values);
    };
    await expect(watcher.poll([queue.id])).rejects.toThrow('out of range');
    expect(await watcher.poll([queue.id])).toEqual(new Set([queue.id]));
  });
});

test('a poll also names the queues that it did not reach', async () => {
  const full = [queue, await createQueue(store)];
  const unknown = await createQueue(store);
  for (const each of full) await storeStamped(store, each, { at: Date.now(), count: 501 });
  const watcher = new MessageRepository(other.database);
  const ids = [...full, unknown].map(({ id }) => id);
  expect(await watcher.poll(ids)).toEqual(new Set(ids));
});

test('concurrent requests for one queue share one read of its settings', async () => {
  const statements = recordStatements(other.database);
  const found = await Promise.all(Array.from({ length: 50 }, () => other.queues.get(queue.name)));
  expect(new Set(found.map(({ id }) => id))).toEqual(new Set([queue.id]));
  expect(statements.filter((sql) => /FROM queue WHERE name/.test(sql))).toHaveLength(1);
});
