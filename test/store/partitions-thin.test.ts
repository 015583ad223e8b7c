import { beforeEach, describe, expect, test } from 'vitest';
import { lowestMessageId, packIdOf } from '@rowmq/contract';
import type { Partition, Queue } from '@rowmq/store';
import { ThinPartitions } from '../../apps/reaper/src/duties/thin-partitions.js';
import { readReaperConfig } from '../../apps/reaper/src/reaper.config.js';
import {
  claimAll,
  DAY,
  deadLetterAll,
  enqueueStamped,
  hex,
  HOUR,
  MINUTE,
  openSession,
  settleAll,
  START,
  stored,
  storeStamped,
} from '../support/partitions.js';
import { runWhole } from '../support/duties.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

const DAILY = { widthMinutes: 1440, advanceMinutes: 2880 };
const LATER = START + 5 * DAY;
const KEPT = { retentionSeconds: 3600 };

let store: TestStore;
let queue: Queue;
let duty: ThinPartitions;

beforeEach(async () => {
  store = await openStore();
  queue = await createQueue(store, { messageTtlSeconds: 30 * 86_400 });
  await store.at(START).partitions.createMissing({ ...DAILY });
  duty = newDuty();
  return () => store.close();
});

function newDuty(): ThinPartitions {
  return new ThinPartitions(store.partitions, readReaperConfig({ ROWMQ_DATABASE_URL: store.url }));
}

async function run(of: ThinPartitions, signal?: AbortSignal): Promise<number> {
  store.at(LATER);
  return runWhole(of, signal);
}

/**
 * Stores settled messages, each a pack of its own, with a few owed ones among them, some in another
 * queue. Returns the ids of both.
 */
async function fill(settled: number): Promise<{ owed: Buffer[]; gone: Buffer[] }> {
  const other = await createQueue(store, { messageTtlSeconds: 30 * 86_400 });
  const owed = await storeStamped(store, other, { at: START + HOUR, count: 2 });
  const gone: Buffer[] = [];
  for (const at of [START, START + 2 * HOUR])
    gone.push(...(await storeStamped(store, queue, { at, count: settled / 2 })));
  await store.database.write('DELETE FROM delivery WHERE queue_id = ?', [queue.id]);
  owed.push(...(await enqueueStamped(store, queue, { at: START + 4 * HOUR, delaySeconds: 10 * 86_400 })));
  return { owed, gone };
}

async function first(): Promise<Partition> {
  return (await store.partitions.list())[0]!;
}

/** The size of a partition's file. The table's statistics lag behind it. */
async function fileSize(partition: Partition): Promise<number> {
  const tables = (await store.database.read<{ v: string }>('SELECT VERSION() AS v'))[0]!.v.includes('MariaDB')
    ? 'INNODB_SYS_TABLESPACES'
    : 'INNODB_TABLESPACES';
  const rows = await store.database.read<{ size: number }>(
    `SELECT FILE_SIZE AS size FROM information_schema.${tables} WHERE LOWER(NAME) LIKE LOWER(CONCAT(DATABASE(), '/pack#p#', ?, '%'))`,
    [partition.name],
  );
  expect(rows).toHaveLength(1);
  return Number(rows[0]!.size);
}

describe('a partition that a few owed messages keep from a drop', () => {
  test('is thinned to the owed messages, rebuilt to free the space, and dropped once they are settled', async () => {
    const { owed, gone } = await fill(20_000);
    const full = await fileSize(await first());
    expect(await store.at(LATER).partitions.dropSettled(KEPT)).toEqual(['p_20260103_0000']);
    expect((await store.at(LATER).partitions.listKept(KEPT)).map(({ name }) => name)).toEqual(['p_20260102_0000']);

    expect(await run(duty)).toBe(gone.length);
    const [left] = await store.database.read<{ n: number }>('SELECT COUNT(*) AS n FROM pack');
    expect(Number(left?.n)).toBe(3);
    expect(await stored(store, owed)).toBe(3);
    expect(await fileSize(await first())).toBeLessThan(full / 4);
    expect(await run(duty)).toBe(0);

    const queues = await store.queues.list();
    const taken = (await Promise.all(queues.map((each) => settleAll(store, each, LATER + 10 * DAY)))).flat();
    expect(hex(taken.map(({ messageId }) => messageId))).toEqual(hex(owed));
    expect(bodies(taken).toSorted()).toEqual(['0', '0', '1']);
    expect(await store.at(LATER).partitions.dropSettled(KEPT)).toEqual(['p_20260102_0000']);
  });

  test('keeps none of the bodies that were enqueued together with a message a year ahead', async () => {
    const year = { delaySeconds: 366 * 86_400 };
    const far = await store.at(START).messages.enqueue(queue.name, [...numbered(40), message(year), ...numbered(40)]);
    const ahead = far.splice(40, 1);
    await settleAll(store, queue, START + MINUTE);
    expect(await store.at(LATER).partitions.dropSettled(KEPT)).toEqual(['p_20260103_0000']);
    await run(duty);
    expect({ settled: await stored(store, far), ahead: await stored(store, ahead) }).toEqual({ settled: 0, ahead: 1 });

    // The TTL begins when it is available: it is handed out then, and dropped with its partition.
    const then = START + 366 * DAY;
    expect(await claimAll(store, queue, then - 1)).toEqual([]);
    expect(hex((await settleAll(store, queue, then + 29 * DAY)).map(({ messageId }) => messageId))).toEqual(hex(ahead));
    expect(await store.at(then + 29 * DAY).partitions.dropSettled(KEPT)).toEqual(['p_20260102_0000']);
  });

  test('is merged with its neighbours when there are many, and none of their messages is lost', async () => {
    const days = 70;
    await store.at(START).partitions.createMissing({ widthMinutes: 1440, advanceMinutes: days * 1440 });
    const ahead: Buffer[] = [];
    for (let day = 0; day < days; day += 1)
      ahead.push(...(await enqueueStamped(store, queue, { at: START + day * DAY, delaySeconds: 366 * 86_400 })));
    const late = START + (days + 5) * DAY;
    const runs = (of: ThinPartitions) => runWhole(of);
    store.at(late);
    const before = (await store.partitions.listKept(KEPT)).length;
    await runs(duty);
    expect((await store.partitions.listKept(KEPT)).length).toBe(before - 23);
    await runs(duty);
    expect((await store.partitions.listKept(KEPT)).length).toBeLessThanOrEqual(48);
    expect(await stored(store, ahead)).toBe(days);

    const taken: Buffer[] = [];
    let now = START + 366 * DAY;
    for (; taken.length < days && now < START + 480 * DAY; now += 20 * DAY)
      taken.push(...(await settleAll(store, queue, now)).map(({ messageId }) => messageId));
    expect(hex(taken)).toEqual(hex(ahead));
    await store.at(now).partitions.dropSettled(KEPT);
    expect(await stored(store, ahead)).toBe(0);
  });

  test('is rebuilt later when another transaction uses the table for longer than DDL waits', async () => {
    await fill(8000);
    const idle = await openSession(store);
    await idle.write('START TRANSACTION');
    await idle.read('SELECT 1 FROM pack LIMIT 1');
    await expect(run(duty)).rejects.toMatchObject({ errno: 1205 });
    const full = await fileSize(await first());
    await idle.end();
    expect(await run(duty)).toBe(0);
    expect(await fileSize(await first())).toBeLessThan(full);
  });

  test('is not thinned while most of it is owed, nor again before half of the owed messages are settled', async () => {
    await storeStamped(store, queue, { at: START, count: 12_000 });
    const all = await claimAll(store, queue, START + MINUTE);
    const ack = async (from: number, to: number): Promise<unknown> =>
      store.at(START + MINUTE).messages.ack(queue.id, all.slice(from, to));
    await ack(0, 1000);
    expect(await run(duty)).toBe(0);
    await ack(1000, 4000);
    expect(await run(duty)).toBe(4000);
    await ack(4000, 7000);
    expect(await run(duty)).toBe(0);
    await ack(7000, 8500);
    expect(await run(duty)).toBe(4500);
    // A reaper that takes over does not know of earlier runs, so it walks the partition.
    await ack(8500, 8510);
    expect(await run(newDuty())).toBe(10);
  });

  test('is not rebuilt while there is much to copy, and a rebuild of a missing partition does no harm', async () => {
    await storeStamped(store, queue, { at: START, count: 10_001 });
    expect(await store.partitions.rebuild(await first())).toBe(false);
    expect(await store.partitions.rebuild({ ...(await first()), name: 'p_20200101_0000' })).toBe(false);
  });

  test('is thinned a stretch at a time, and a stop ends the run after the current stretch', async () => {
    const { owed, gone } = await fill(2000);
    const partition = await first();
    let deleted = 0;
    let stretches = 0;
    for (let after: Buffer | null = lowestMessageId(0); after !== null; stretches += 1) {
      const step: { deleted: number; next: Buffer | null } = await store.partitions.thin(partition, after, 300);
      deleted += step.deleted;
      after = step.next;
    }
    expect({ deleted, stretches }).toEqual({ deleted: gone.length, stretches: 7 });
    expect(await stored(store, owed)).toBe(3);
    expect(await run(duty, AbortSignal.abort())).toBe(0);
  });
});

test('a pack stays while one of its messages is owed', async () => {
  await enqueueStamped(store, queue, { at: START, count: 64 });
  const all = await claimAll(store, queue, START + MINUTE);
  const [last] = all.splice(40, 1);
  await store.at(START + MINUTE).messages.ack(queue.id, all);
  const partition = await first();
  expect(await store.partitions.thin(partition, Buffer.alloc(16), 100)).toEqual({ deleted: 1, next: null });
  expect(await store.browse.messages([last!.messageId])).toHaveLength(1);
  await store.at(START + MINUTE).messages.ack(queue.id, [last!]);
  expect(await store.partitions.thin(partition, Buffer.alloc(16), 100)).toEqual({ deleted: 1, next: null });
});

describe('a run that thins a partition while deliveries move between queues', () => {
  test('deletes no owed message', async () => {
    const graveyard = await createQueue(store, { messageTtlSeconds: 30 * 86_400 });
    const strict = await createQueue(store, {
      messageTtlSeconds: 30 * 86_400,
      maxReceives: 1,
      deadLetterQueue: graveyard.name,
    });
    const owed = await enqueueStamped(store, strict, { at: START, count: 200 });
    const gone = await enqueueStamped(store, queue, { at: START, count: 200 });
    await settleAll(store, queue, START + MINUTE);
    const partition = await first();
    let working = true;
    let [moves, runs, deleted] = [0, 0, 0];
    const mover = async (): Promise<void> => {
      let now = START + MINUTE;
      while (working) {
        await claimAll(store, strict, now);
        now += 2 * MINUTE;
        expect(await deadLetterAll(store, strict, now)).toBe(200);
        const { moved } = await store.at(now).unleased.redrive(graveyard.id, Buffer.alloc(16), 1000);
        expect(moved.get(strict.id)).toBe(200);
        moves += 1;
      }
    };
    const thinner = async (): Promise<void> => {
      for (
        const until = performance.now() + 60_000;
        performance.now() < until && (moves < 15 || runs < 100);
        runs += 1
      ) {
        deleted += (await store.partitions.thin(partition, Buffer.alloc(16), 1000)).deleted;
      }
      working = false;
    };
    await Promise.all([mover(), thinner()]);
    expect(moves).toBeGreaterThanOrEqual(15);
    expect(deleted).toBe(new Set(hex(gone.map(packIdOf))).size);
    expect(await stored(store, owed)).toBe(200);
  });
});
