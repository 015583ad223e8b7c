import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { putScheduleRequest, SCHEDULE_HEADER, TICK_HEADER } from '@rowmq/contract';
import { type Queue, ScheduleRepository } from '@rowmq/store';
import { owedMessages } from '../support/deliveries.js';
import { DatabaseProxy } from '../support/database-proxy.js';
import { DAY, hex, HOUR, openSession, claimAll, storeStamped } from '../support/partitions.js';
import { createMigratedDatabase, type SpawnedApp, spawnApp, startReaper } from '../support/processes.js';
import { isFirstKind, type TestDatabase } from '../support/servers.js';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';
import { caught, eventually } from '../support/wait.js';

/** A reaper has started by then, also on a busy machine. */
const START_MS = 120_000;
const OFTEN = { ROWMQ_REAPER_INTERVAL_SECONDS: '1' };

let database: TestDatabase;
let store: TestStore;
let queue: Queue;
let last: SpawnedApp | undefined;

beforeEach(async () => {
  database = await createMigratedDatabase();
  store = await openStore({ on: database.url });
  queue = await createQueue(store, { messageTtlSeconds: 864_000 });
});

afterEach(async () => {
  await last?.kill();
  await store.close();
  await database.drop();
});

/** Starts a reaper without waiting until it is ready: it is to be killed in its first round. */
function spawnReaper(url = database.url): SpawnedApp {
  last = spawnApp('reaper', { ROWMQ_DATABASE_URL: url, ...OFTEN });
  return last;
}

/** Ends the leader's lease, as half a minute without a renewal does. */
async function lapse(): Promise<void> {
  const leader = await store.reaper.leader();
  if (leader !== null) expect(await store.reaper.acquireLease('too early', 30)).toBe(false);
  await store.database.write('UPDATE reaper_lease SET expires_at = 0');
}

async function count(sql: string): Promise<number> {
  const [row] = await store.database.read<{ n: number }>(`SELECT COUNT(*) AS n FROM ${sql}`);
  return Number(row?.n);
}

/** Is a reaper's statement like this under way? */
async function under(pattern: string): Promise<boolean> {
  const rows = await store.database.read(
    'SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND INFO LIKE ?',
    [pattern],
  );
  return rows.length > 0;
}

/** The ticks whose messages the queue owes: in ms since 1970, by schedule and in order. */
async function ticks(): Promise<Map<string, number[]>> {
  const owed = await owedMessages(store, queue);
  const found = new Map<string, number[]>();
  for (const { headers } of await store.browse.messages(owed.map(({ id }) => id))) {
    const { [SCHEDULE_HEADER]: name, [TICK_HEADER]: tick } = JSON.parse(String(headers)) as Record<string, string>;
    found.set(
      name!,
      [...(found.get(name!) ?? []), Date.parse(tick!)].toSorted((one, other) => one - other),
    );
  }
  return found;
}

describe('a reaper that is killed', () => {
  // A batch is a transaction, as the store's tests show on every kind.
  test.runIf(isFirstKind())(
    'in the middle of its batches: the next goes on, and what is not expired is untouched',
    async () => {
      const now = Date.now();
      const living = await storeStamped(store, queue, { at: now, count: 500 });
      await storeStamped(store, queue, { at: now - HOUR, count: 30_000, expiresInSeconds: 60 });
      // The way to the database takes time, so that a busy machine still finds it in the middle.
      const slow = await DatabaseProxy.start(database.url);
      slow.delayMs = 50;
      const first = spawnReaper(slow.url);
      const left = await caught(
        'some are removed, not all',
        async () => {
          const rows = await count('delivery');
          return rows < 30_000 && rows;
        },
        START_MS,
      );
      await first.kill();
      await slow.close();
      expect(left).toBeGreaterThan(500);
      expect(await count('delivery')).toBeGreaterThan(500);
      await lapse();
      const second = await startReaper(database, OFTEN);
      await eventually('the next removes the rest', async () => (await count('delivery')) === 500);
      await second.stop();
      expect(hex((await claimAll(store, queue, now)).map(({ messageId }) => messageId))).toEqual(hex(living));
    },
  );

  test('while its DDL waits for the table: writers are let through, and the next makes the partitions', async () => {
    const idle = await openSession(store);
    await idle.write('START TRANSACTION');
    await idle.read('SELECT 1 FROM pack LIMIT 1');
    const first = spawnReaper();
    await eventually('it waits', () => under('LOCK TABLES%'), START_MS);
    await first.kill();
    // The transaction that stops the DDL is still open: only the DDL can have given up.
    await store.messages.enqueue(queue.name, [message()]);
    await idle.end();
    await lapse();
    const second = await startReaper(database, OFTEN);
    await eventually('there are partitions', async () => (await store.partitions.list()).length > 48);
    await second.stop();
  });

  test('in the middle of splitting a catch-all partition that is full: every message is there, and in its own partition in the end', async () => {
    const past = Date.now() - 3 * DAY;
    const ids = await storeStamped(store, queue, { at: past, now: Date.now(), count: 12_000 });
    const first = spawnReaper();
    await caught('it splits', () => under('ALTER TABLE pack%'), START_MS);
    await first.kill();
    expect(hex((await claimAll(store, queue, Date.now())).map(({ messageId }) => messageId))).toEqual(hex(ids));
    await lapse();
    const second = await startReaper(database, { ...OFTEN, ROWMQ_RETENTION_SECONDS: '31536000' });
    await eventually(
      'every message is in its own partition',
      async () => (await count('pack_overflow')) === 0 && (await count('pack PARTITION (p_max)')) === 0,
    );
    await second.stop();
    expect(await count('pack')).toBe(12_000);
  });

  // The model cuts ticks on every kind.
  test.runIf(isFirstKind())(
    'in the middle of ticks: another goes on at once, and each second is enqueued exactly once',
    async () => {
      const schedules = new ScheduleRepository(store.database);
      for (const name of ['one', 'other']) {
        const definition = { everySeconds: 1, queue: queue.name, message: { body: name } };
        await schedules.put(name, putScheduleRequest.parse(definition));
      }
      const reapers = [spawnReaper(), spawnReaper()];
      try {
        for (let seen = 0, killed = 0; killed < 3; killed += 1) {
          await eventually('more ticks', async () => ((await ticks()).get('one')?.length ?? 0) > seen + 2, START_MS);
          seen = (await ticks()).get('one')?.length ?? 0;
          await reapers.shift()!.kill();
          reapers.push(spawnReaper());
        }
      } finally {
        for (const reaper of reapers) await reaper.kill();
      }
      for (const [name, own] of await ticks()) {
        const first = own[0]!;
        expect(own, name).toEqual(Array.from(own, (_, second) => first + second * 1000));
      }
    },
  );
});
