import { beforeEach, describe, expect, test } from 'vitest';
import { lowestMessageId, packIdOf } from '@rowmq/contract';
import { FIRST_ID, type Queue } from '@rowmq/store';
import { claimAll, DAY, enqueueStamped, hex, HOUR, settleAll, START, storeStamped } from '../support/partitions.js';
import { bodies, createQueue, openStore, type TestStore } from '../support/store.js';

const HOURLY = { widthMinutes: 60, advanceMinutes: 180 };
/** More rows than a split copies. */
const MANY = 10_500;
/** A week later, a minute after the hour. */
const WEEK_LATER = START + 7 * DAY + 60_000;

let store: TestStore;
let queue: Queue;

beforeEach(async () => {
  store = await openStore();
  queue = await createQueue(store, { messageTtlSeconds: 30 * 86_400 });
  return () => store.close();
});

async function count(source: string): Promise<number> {
  const [row] = await store.database.read<{ n: number }>(`SELECT COUNT(*) AS n FROM ${source}`);
  return Number(row?.n);
}

/**
 * A reaper created partitions and was then off for a week, while messages were enqueued, each as a
 * pack of its own.
 */
async function fillCatchAll(rows: number): Promise<Buffer[]> {
  await store.at(START).partitions.createMissing({ ...HOURLY });
  const ids: Buffer[] = [];
  for (let day = 0; day < 7; day += 1) {
    ids.push(...(await storeStamped(store, queue, { at: START + day * DAY + 12 * HOUR, count: Math.ceil(rows / 7) })));
  }
  expect(await count('pack PARTITION (p_max)')).toBe(ids.length);
  return ids;
}

/** Expects that dead letters can be browsed, and that a redrive returns them to their queue. */
async function expectBrowsedAndRedriven(ids: readonly Buffer[]): Promise<void> {
  expect(hex((await store.browse.messages(ids)).map(({ id }) => id)).toSorted()).toEqual(hex(ids).toSorted());
  const graveyard = await createQueue(store);
  await store.database.write(
    'UPDATE delivery SET queue_id = ?, source_queue_id = ? WHERE queue_id = ? AND pack_id IN (?)',
    [graveyard.id, queue.id, queue.id, ids.map(packIdOf)],
  );
  const { moved, skipped } = await store.at(WEEK_LATER).unleased.redrive(graveyard.id, FIRST_ID, 100);
  expect([moved, skipped]).toEqual([new Map([[queue.id, ids.length]]), 0]);
}

async function expectEverythingReadable(ids: readonly Buffer[]): Promise<void> {
  const taken = await claimAll(store, queue, WEEK_LATER);
  expect(hex(taken.map(({ messageId }) => messageId))).toEqual(hex(ids));
  expect(bodies(taken).every((body) => /^\d+$/.test(body))).toBe(true);
}

describe('a reaper that was off for a week', () => {
  test.each([
    ['few messages, which it copies', 700],
    ['many messages, which it does not copy', MANY],
  ])('splits a p_max that filled with %s, keeps every message readable and frees the space', async (_, rows) => {
    const ids = await fillCatchAll(rows);
    expect(await store.at(WEEK_LATER).partitions.createMissing({ ...HOURLY })).toBe(4);
    expect(await count('pack PARTITION (p_max)')).toBe(0);
    expect(await count('pack_overflow')).toBe(0);
    // One partition received the week's messages. The partitions behind it span an hour each.
    const week = (await store.partitions.list()).find(({ until }) => until !== null && until > WEEK_LATER);
    expect(week).toMatchObject({ from: START + 3 * HOUR, until: START + 7 * DAY + HOUR });
    expect(await count(`pack PARTITION (${week!.name})`)).toBe(ids.length);
    const settled = await settleAll(store, queue, WEEK_LATER);
    expect(hex(settled.map(({ messageId }) => messageId))).toEqual(hex(ids));
    await store.at(WEEK_LATER + 3 * HOUR).partitions.dropSettled({ retentionSeconds: 3600 });
    expect(await count('pack')).toBe(0);
  });

  test('widens a partition to avoid a copy when one of many messages is from a broker whose clock is hours fast', async () => {
    const ids = await fillCatchAll(MANY);
    ids.push(...(await enqueueStamped(store, queue, { at: WEEK_LATER + 2 * HOUR, now: WEEK_LATER })));
    expect(await store.at(WEEK_LATER).partitions.createMissing({ ...HOURLY })).toBe(2);
    const [wide, ...others] = (await store.partitions.list()).slice(3);
    expect(wide).toMatchObject({ from: START + 3 * HOUR, until: START + 7 * DAY + 3 * HOUR });
    expect(others.map(({ until }) => until)).toEqual([START + 7 * DAY + 4 * HOUR, null]);
    expect(await count(`pack PARTITION (${wide!.name})`)).toBe(ids.length);
    await expectEverythingReadable(ids);
  });

  test('copies many messages when one of them is from a broker whose clock is a year fast', async () => {
    const ids = await fillCatchAll(MANY);
    ids.push(...(await enqueueStamped(store, queue, { at: WEEK_LATER + 365 * DAY, now: WEEK_LATER })));
    expect(await store.at(WEEK_LATER).partitions.createMissing({ ...HOURLY })).toBe(4);
    expect(await count('pack PARTITION (p_max)')).toBe(1);
    await expectEverythingReadable(ids);
  });

  test('leaves messages in p_max when all are from a clock that is a year fast, and creates the partitions before them', async () => {
    await store.at(START).partitions.createMissing({ ...HOURLY });
    const ids = await storeStamped(store, queue, { at: WEEK_LATER + 365 * DAY, now: START, count: MANY });
    expect(await store.at(WEEK_LATER).partitions.createMissing({ ...HOURLY })).toBe(4);
    expect(await store.partitions.list()).toHaveLength(8);
    expect(await count('pack PARTITION (p_max)')).toBe(MANY);
    expect(await count('pack_overflow')).toBe(0);
    await expectEverythingReadable(ids);
  });
});

describe('a split that copies no message', () => {
  const until = START + 7 * DAY + HOUR;
  const definition = `PARTITION p_20260108_0100 VALUES LESS THAN (x'${lowestMessageId(until).toString('hex')}')`;
  const steps = [
    'ALTER TABLE pack EXCHANGE PARTITION p_max WITH TABLE pack_overflow',
    `ALTER TABLE pack REORGANIZE PARTITION p_max INTO (${definition}, PARTITION p_max VALUES LESS THAN (MAXVALUE))`,
    'ALTER TABLE pack EXCHANGE PARTITION p_20260108_0100 WITH TABLE pack_overflow',
  ];

  test.each([
    [1, 0],
    [2, 0],
    [3, MANY],
  ])(
    'that is interrupted after step %i of 3 leaves every body readable, and the next round completes it',
    async (done, inPack) => {
      const ids = await fillCatchAll(MANY);
      for (const step of steps.slice(0, done)) await store.database.write(step);
      expect(await count('pack')).toBe(inPack);
      expect(await count('pack_overflow')).toBe(MANY - inPack);
      // Messages that are enqueued meanwhile; one claim gets some of both.
      const late = await storeStamped(store, queue, { at: WEEK_LATER, count: 10 });
      const some = await store.at(WEEK_LATER).messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 30 });
      expect(some).toHaveLength(100);
      await store.at(WEEK_LATER).messages.ack(queue.id, some);
      await expectBrowsedAndRedriven(ids.slice(-3));

      expect(await store.at(WEEK_LATER).partitions.createMissing({ ...HOURLY })).toBe(done === 1 ? 4 : 3);
      expect(await count('pack_overflow')).toBe(0);
      expect(await count('pack')).toBe(ids.length + late.length);
      const acked = new Set(hex(some.map(({ messageId }) => messageId)));
      await expectEverythingReadable([...ids, ...late].filter((id) => !acked.has(id.toString('hex'))));
      // The reaper drops the messages that it moved back like any others.
      await settleAll(store, queue, WEEK_LATER + 2 * 60_000);
      await store.at(WEEK_LATER + 4 * HOUR).partitions.dropSettled({ retentionSeconds: 60 });
      expect(await count('pack')).toBe(0);
    },
  );

  test('makes a concurrent claim wait, and the claim then reads every message', async () => {
    const ids = await fillCatchAll(MANY);
    const taking = (async () => {
      const taken: string[] = [];
      while (taken.length < ids.length) {
        const some = await store.at(WEEK_LATER).messages.dequeue(queue, { maxMessages: 500, leaseSeconds: 600 });
        expect(some.length).toBeGreaterThan(0);
        taken.push(...hex(some.map(({ messageId }) => messageId)));
      }
      return taken.toSorted();
    })();
    expect(await store.at(WEEK_LATER).partitions.createMissing({ ...HOURLY })).toBe(4);
    expect(await taking).toEqual(hex(ids));
  });
});
