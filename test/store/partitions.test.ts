import { packIdOf } from '@rowmq/contract';
import { beforeEach, describe, expect, test } from 'vitest';
import { FIRST_ID, type Queue } from '@rowmq/store';
import { claimAll, DAY, enqueueStamped, hex, HOUR, MINUTE, settleAll, START, stored } from '../support/partitions.js';
import { createQueue, openStore, type TestStore } from '../support/store.js';

const DAILY = { widthMinutes: 1440, advanceMinutes: 2880 };
const LONG = { messageTtlSeconds: 60 * 86_400 };

let store: TestStore;
let queue: Queue;

beforeEach(async () => {
  store = await openStore();
  queue = await createQueue(store, LONG);
  return () => store.close();
});

async function names(): Promise<string[]> {
  return (await store.partitions.list()).map(({ name }) => name);
}

describe('the creation of partitions', () => {
  test('extends a new database from p_max alone to the requested time, and creates no partition twice', async () => {
    expect(await names()).toEqual(['p_max']);
    expect(await store.at(START + HOUR).partitions.createMissing({ ...DAILY })).toBe(3);
    expect(await store.partitions.list()).toEqual([
      { name: 'p_20260102_0000', from: null, until: START + DAY, rows: 0 },
      { name: 'p_20260103_0000', from: START + DAY, until: START + 2 * DAY, rows: 0 },
      { name: 'p_20260104_0000', from: START + 2 * DAY, until: START + 3 * DAY, rows: 0 },
      { name: 'p_max', from: START + 3 * DAY, until: null, rows: 0 },
    ]);
    expect(await store.at(START + HOUR).partitions.createMissing({ ...DAILY })).toBe(0);
    expect(await store.at(START + DAY).partitions.createMissing({ ...DAILY })).toBe(0);
    expect(await store.at(START + DAY + 1).partitions.createMissing({ ...DAILY })).toBe(1);
    expect(await names()).toHaveLength(5);
  });

  test('applies a new width behind the last partition', async () => {
    await store.at(START + 1).partitions.createMissing({ ...DAILY });
    expect(await store.at(START + 3 * DAY).partitions.createMissing({ widthMinutes: 7, advanceMinutes: 14 })).toBe(3);
    const untils = (await store.partitions.list()).map(({ until }) => until);
    expect(untils.slice(0, 3)).toEqual([START + DAY, START + 2 * DAY, START + 3 * DAY]);
    for (const [index, until] of untils.slice(3, -1).entries()) {
      expect((until as number) % (7 * MINUTE)).toBe(0);
      expect(until as number).toBeGreaterThan(untils[index + 2] as number);
    }
  });

  test('creates each partition once when several reapers run it at the same time', async () => {
    const made = await Promise.all([1, 2, 3].map(() => store.at(START).partitions.createMissing({ ...DAILY })));
    expect(made.toSorted((a, b) => a - b)).toEqual([0, 0, 2]);
    expect(await names()).toHaveLength(3);
  });

  test('makes a read by ids touch only the partitions of their times', async () => {
    await store.at(START).partitions.createMissing({ widthMinutes: 60, advanceMinutes: 1440 });
    const first = await enqueueStamped(store, queue, { at: START + 90 * MINUTE, count: 50 });
    const second = await enqueueStamped(store, queue, { at: START + 150 * MINUTE, count: 50 });
    const [{ version } = { version: '' }] = await store.database.read<{ version: string }>(
      'SELECT VERSION() AS version',
    );
    const explain = version.includes('MariaDB') ? 'EXPLAIN PARTITIONS' : 'EXPLAIN FORMAT=TRADITIONAL';
    const plan = async (ids: Buffer[]): Promise<unknown> => {
      const [row] = await store.database.read(
        `${explain} SELECT id, payload FROM pack FORCE INDEX (PRIMARY) WHERE id IN (?)`,
        [ids.map(packIdOf)],
      );
      return row?.['partitions'];
    };
    expect(await plan(first)).toBe('p_20260101_0200');
    expect(await plan([first[0] as Buffer])).toBe('p_20260101_0200');
    expect(await plan([...first, ...second])).toBe('p_20260101_0200,p_20260101_0300');
  });
});

describe('partitions', () => {
  test('are created, filled, settled and dropped over the end of a month, and those within retention stay', async () => {
    const retentionSeconds = (3 * DAY) / 1000;
    const days: Buffer[][] = [];
    let most = 0;
    for (let day = 0; day < 12; day += 1) {
      const midnight = START + (25 + day) * DAY;
      await store.at(midnight).partitions.createMissing({ ...DAILY });
      days.push(await enqueueStamped(store, queue, { at: midnight + 6 * HOUR, count: 20 }));
      expect(await settleAll(store, queue, midnight + 7 * HOUR)).toHaveLength(20);
      const dropped = await store.at(midnight + 8 * HOUR).partitions.dropSettled({ retentionSeconds });
      expect(dropped).toHaveLength(day < 4 ? 0 : 1);
      const left = await Promise.all(days.map((ids) => stored(store, ids)));
      expect(left).toEqual(days.map((_, filled) => (filled <= day - 4 ? 0 : 20)));
      most = Math.max(most, (await names()).length);
    }
    // Three past days, today, the next day, and p_max.
    expect(most).toBe(6);
  });

  test('stay until the retention after their end has passed, to the millisecond', async () => {
    await store.at(START).partitions.createMissing({ ...DAILY });
    await enqueueStamped(store, queue, { at: START + HOUR });
    await settleAll(store, queue, START + HOUR);
    const retentionSeconds = 3600;
    expect(await store.at(START + DAY + HOUR - 1).partitions.dropSettled({ retentionSeconds })).toEqual([]);
    expect(await store.at(START + DAY + HOUR).partitions.dropSettled({ retentionSeconds })).toEqual([
      'p_20260102_0000',
    ]);
  });

  test('are dropped under a limited number of locks per call, oldest first, so that writers do not wait long', async () => {
    await store.at(START).partitions.createMissing({ widthMinutes: 60, advanceMinutes: 12 * 60 });
    await enqueueStamped(store, queue, { at: START + 2.5 * HOUR, now: START });
    const drop = (locks: number): Promise<string[]> =>
      store.at(START + DAY).partitions.dropSettled({ retentionSeconds: 60, locks });
    expect(await drop(1)).toEqual(['p_20260101_0100', 'p_20260101_0200']);
    expect(await drop(1)).toEqual(['p_20260101_0400', 'p_20260101_0500', 'p_20260101_0600', 'p_20260101_0700']);
    expect(await drop(2)).toHaveLength(5);
    expect(await drop(1)).toEqual([]);
  });

  test('are dropped by the dozen in one call, except those with owed messages', async () => {
    await store.at(START).partitions.createMissing({ widthMinutes: 60, advanceMinutes: 26 * 60 });
    const kept = await enqueueStamped(store, queue, { at: START + 13.5 * HOUR, now: START });
    const dropped = await store.at(START + 26.5 * HOUR).partitions.dropSettled({ retentionSeconds: 60 });
    expect(dropped).toHaveLength(25);
    expect(dropped).not.toContain('p_20260101_1400');
    expect((await names())[0]).toBe('p_20260101_1400');
    expect(await stored(store, kept)).toBe(1);
  });
});

describe('an owed message is never dropped', () => {
  const later = START + 20 * DAY;
  let id: Buffer;

  /** Each leaves one delivery of an old message, and returns the function that settles it. */
  const owed: Record<string, () => Promise<() => Promise<unknown>>> = {
    'a delivery that waits': async () => () => settleAll(store, queue, later),
    'a dead-lettered delivery': async () => {
      const graveyard = await createQueue(store, LONG);
      const { queue: strict } = await store.queues.put(queue.name, { maxReceives: 1, deadLetterQueue: graveyard.name });
      await claimAll(store, strict, START + HOUR);
      expect(await claimAll(store, strict, START + 2 * HOUR)).toEqual([]);
      return () => settleAll(store, graveyard, later);
    },
    'a leased delivery': async () => {
      const [leased] = await store
        .at(START + HOUR)
        .messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 30 * 86_400 });
      return async () => {
        expect(await store.at(later).messages.ack(queue.id, [leased!])).toEqual([null]);
      };
    },
    'a nacked delivery with a long delay': async () => {
      const [leased] = await claimAll(store, queue, START + HOUR);
      await store.at(START + HOUR).messages.nack(queue.id, [leased!], { delaySeconds: 20 * 86_400 });
      expect(await claimAll(store, queue, later)).toEqual([]);
      return () => settleAll(store, queue, later + 2 * DAY);
    },
    'an expired delivery that no claim and no reaper has found': async () => async () => {
      const now = START + 61 * DAY;
      const { found } = await store.at(now).unleased.findExpired(queue.id, FIRST_ID, 10);
      expect(await store.at(now).messages.expire(queue.id, found)).toBe(1);
    },
    'a delivery of a deleted queue': async () => {
      await store.queues.delete(queue.name);
      return async () => {
        expect(await store.unleased.purge(queue.id, FIRST_ID, id, 10)).toMatchObject({ purged: 1, next: null });
        await store.queues.forget(queue.id);
      };
    },
  };

  test.each(Object.keys(owed))('%s keeps its partition and its body until it is settled', async (kind) => {
    await store.at(START + MINUTE).partitions.createMissing({ ...DAILY });
    [id] = (await enqueueStamped(store, queue, { at: START + MINUTE })) as [Buffer];
    const settle = await owed[kind]!();
    const drop = (): Promise<string[]> => store.at(later).partitions.dropSettled({ retentionSeconds: 3600 });
    expect(await drop()).toEqual(['p_20260103_0000', 'p_20260104_0000']);
    const kept = await store.at(later).partitions.listKept({ retentionSeconds: 3600 });
    expect(kept.map(({ name }) => name)).toEqual(['p_20260102_0000']);
    expect(await store.partitions.countOwed(kept[0]!, 10)).toBe(1);
    expect(await stored(store, [id])).toBe(1);
    await settle();
    expect(await store.at(later).partitions.listKept({ retentionSeconds: 3600 })).toEqual([]);
    expect(await drop()).toEqual(['p_20260102_0000']);
    expect(await stored(store, [id])).toBe(0);
  });
});

describe('a broker with a wrong clock', () => {
  test.each([
    ['an hour behind', -HOUR],
    ['a year behind', -365 * DAY],
    ['an hour ahead', HOUR],
    ['a year ahead', 365 * DAY],
  ])('(%s) has its messages stored, delivered, browsed and finally reaped', async (_, off) => {
    const now = START + 10 * DAY;
    await store.at(now).partitions.createMissing({ ...DAILY });
    const ids = await enqueueStamped(store, queue, { at: now + off, now, count: 100 });
    const right = await enqueueStamped(store, queue, { at: now, count: 10 });
    // Owed messages are never dropped, however old their ids are.
    await store.at(now + 30 * DAY).partitions.dropSettled({ retentionSeconds: 60 });
    await store.at(now + MINUTE).partitions.createMissing({ ...DAILY });
    expect(await store.browse.messages(ids)).toHaveLength(100);
    const settled = await settleAll(store, queue, now + MINUTE);
    expect(hex(settled.map(({ messageId }) => messageId))).toEqual(hex([...ids, ...right]));
    // A message whose id is in the future is kept until that time has come. No other waits for
    // longer than its own retention.
    const end = now + Math.max(off, 0) + 3 * DAY;
    await store.at(end).partitions.createMissing({ ...DAILY });
    await store.at(end + 2 * DAY).partitions.dropSettled({ retentionSeconds: 3600 });
    expect(await stored(store, [...ids, ...right])).toBe(0);
  });
});
