import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isLockWaitTimeout, type Queue } from '@rowmq/store';
import { DAY, enqueueStamped, openSession, settleAll, START, stored } from '../support/partitions.js';
import { createQueue, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

const DAILY = { widthMinutes: 1440, advanceMinutes: 2880 };
const LATER = START + 5 * DAY;

let store: TestStore;
let queue: Queue;
let idle: Awaited<ReturnType<typeof openSession>>;
let ids: Buffer[];

beforeEach(async () => {
  store = await openStore();
  queue = await createQueue(store, { messageTtlSeconds: 30 * 86_400 });
  await store.at(START).partitions.createMissing({ ...DAILY });
  ids = await enqueueStamped(store, queue, { at: START, count: 10 });
  await settleAll(store, queue, START);
  // A forgotten transaction that once read a pack. Nobody can change the table's partitions
  // until it ends.
  idle = await openSession(store);
  await idle.write('START TRANSACTION');
  await idle.read('SELECT 1 FROM pack LIMIT 1');
});

afterEach(async () => {
  await idle.end();
  await store.close();
});

const ddl: Record<string, () => Promise<unknown>> = {
  createMissing: () => store.at(LATER).partitions.createMissing({ ...DAILY }),
  dropSettled: () => store.at(LATER).partitions.dropSettled({ retentionSeconds: 60 }),
  rebuild: async () => store.partitions.rebuild((await store.partitions.list())[0]!),
};

describe('partition DDL beside a transaction that stays open', () => {
  test.each(Object.keys(ddl))(
    '(%s) gives up, lets writers continue, and succeeds once the transaction has ended',
    async (name) => {
      const before = await store.partitions.list();
      const failing = ddl[name]!().then(
        () => 'done',
        (error: unknown) => error,
      );
      await eventually('it waits for the table', async () => {
        const rows = await store.database.read(
          `SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND STATE LIKE 'Waiting for%metadata lock'`,
        );
        return rows.length > 0;
      });
      // The writer waits behind the DDL for as long as the DDL waits.
      await enqueueStamped(store, queue, { at: LATER, count: 1 });
      expect(isLockWaitTimeout(await failing)).toBe(true);
      expect((await store.partitions.list()).map((partition) => partition.name)).toEqual(
        before.map((partition) => partition.name),
      );
      expect(await stored(store, ids)).toBe(10);
      await enqueueStamped(store, queue, { at: LATER, count: 1 });

      await idle.write('ROLLBACK');
      const done = await ddl[name]!();
      expect(done).toEqual(
        { createMissing: 2, dropSettled: ['p_20260102_0000', 'p_20260103_0000'], rebuild: true }[name],
      );
      expect(await settleAll(store, queue, LATER)).toHaveLength(2);
    },
  );
});
