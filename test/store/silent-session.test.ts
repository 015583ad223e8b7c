import { Database, openDataSource, type Queue } from '@rowmq/store';
import type { DataSource } from 'typeorm';
import { beforeEach, expect, test } from 'vitest';
import { withTablesLocked } from '../../libs/store/src/partitions/partition.sql.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * A frozen process, or one whose machine is gone, says nothing and closes no connection. Its locks
 * must be released all the same. Here a session that stops after its first statement stands for it.
 */

const DEADLINE_MS = 1000;
/** A busy machine may delay a statement by seconds. */
const PATIENT_MS = 4000;

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

/** Takes locks in a transaction that never ends. */
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

test('a queue whose row a frozen process had locked accepts messages again, and the process does no harm when it wakes up', async () => {
  await freezeWith('SELECT 1 FROM queue WHERE id = ? FOR UPDATE');
  await store.messages.enqueue(queue.name, [message()]);
  thaw();
  // A busy machine may delay a read beyond its deadline.
  const isOfUse = async (): Promise<boolean> => (await frozen.read('SELECT 1').catch(() => [])).length === 1;
  await eventually('its connections are of use', isOfUse);
  expect(await store.messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 })).toHaveLength(1);
});

test('the table locks of a frozen reaper are released', async () => {
  await new Promise<void>((locked, failed) => {
    frozen
      .exclusive((session) =>
        withTablesLocked(session, 'pack WRITE', async () => {
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

test('the pool replaces a connection that the server closed as idle, and no caller notices', async () => {
  const database = new Database(source, PATIENT_MS);
  const connection = async (): Promise<unknown> =>
    (await database.read<{ id: number }>('SELECT CONNECTION_ID() AS id'))[0]?.id;
  const first = await connection();
  await eventually(
    'the server has ended it',
    async () =>
      (await store.database.read('SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = ?', [first])).length === 0,
  );
  expect(await connection()).not.toBe(first);
});
