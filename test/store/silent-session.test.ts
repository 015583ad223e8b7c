import { Database, openDataSource, type Queue } from '@rowmq/store';
import type { DataSource } from 'typeorm';
import { beforeEach, expect, test } from 'vitest';
import { withTablesLocked } from '../../libs/store/src/partitions/partition.sql.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * A process that is frozen, or whose machine is gone, says nothing and hangs up on nobody. What it
 * had locked must become free all the same. Here it is one that begins and then does not go on.
 */

const DEADLINE_MS = 1000;

let store: TestStore;
let queue: Queue;
let source: DataSource;
let frozen: Database;
let thaw: () => void;
let thawed: Promise<void>;

beforeEach(async () => {
  store = await openStore();
  queue = await createQueue(store);
  source = await openDataSource({ url: store.url, poolSize: 4 });
  frozen = new Database(source, DEADLINE_MS);
  thawed = new Promise((resolve) => {
    thaw = resolve;
  });
  return async () => {
    thaw();
    await source.destroy();
    await store.close();
  };
});

/** Locks in a transaction that is never ended. */
async function freezeWith(sql: string): Promise<void> {
  await new Promise<void>((locked) => {
    void frozen
      .transaction(async (tx) => {
        expect((await tx.read(sql, [queue.id])).length).toBeGreaterThan(0);
        locked();
        await thawed;
      })
      .catch(() => undefined);
  });
}

test('deliveries that a frozen process had locked are handed out soon', async () => {
  await store.messages.enqueue(queue.name, numbered(3));
  await freezeWith('SELECT 1 FROM delivery FORCE INDEX (delivery_next) WHERE queue_id = ? FOR UPDATE');
  const leased = await eventually('they are handed out', async () => {
    const some = await store.messages.dequeue(queue, { maxMessages: 3, leaseSeconds: 60 });
    return some.length > 0 && some;
  });
  expect(bodies(leased)).toEqual(['0', '1', '2']);
});

test('a queue whose row a frozen process had locked takes messages again, and the one that wakes up does not harm it', async () => {
  await freezeWith('SELECT 1 FROM queue WHERE id = ? FOR UPDATE');
  await store.messages.enqueue(queue.name, [message()]);
  thaw();
  await eventually('its connections are of use', async () => (await frozen.read('SELECT 1')).length === 1);
  expect(await store.messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 })).toHaveLength(1);
});

test('a frozen reaper gives the table back', async () => {
  await new Promise<void>((locked, failed) => {
    frozen
      .exclusive((session) =>
        withTablesLocked(session, 'message WRITE', async () => {
          locked();
          await thawed;
        }),
      )
      .catch(failed);
  });
  await eventually(
    'an enqueue succeeds',
    () =>
      store.messages.enqueue(queue.name, [message()]).then(
        () => true,
        () => false,
      ),
    40_000,
  );
  expect(await store.messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 })).not.toHaveLength(0);
});

test('a connection that was idle for longer than the server suffers is replaced without anybody noticing', async () => {
  const connection = async (): Promise<unknown> =>
    (await frozen.read<{ id: number }>('SELECT CONNECTION_ID() AS id'))[0]?.id;
  const first = await connection();
  await eventually(
    'the server has ended it',
    async () =>
      (await store.database.read('SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = ?', [first])).length === 0,
  );
  expect(await connection()).not.toBe(first);
});
