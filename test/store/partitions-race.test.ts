import { beforeEach, describe, expect, test } from 'vitest';
import { newPackId } from '@rowmq/contract';
import {
  Database,
  isLockWaitTimeout,
  MessageRepository,
  PartitionRepository,
  type Queue,
  type Session,
} from '@rowmq/store';
import { DAY, enqueueStamped, hex, HOUR, MINUTE, openSession, START, stored } from '../support/partitions.js';
import { storeLonely } from '../support/packs.js';
import { createQueue, numbered, openStore, SingleMessages, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/** Eight partitions. A drop locks the table for four at a time. */
const HOURLY = { widthMinutes: 60, advanceMinutes: 8 * 60 };
const LATER = START + 30 * DAY;
const DROP = { retentionSeconds: 60 };

let store: TestStore;
let queue: Queue;

beforeEach(async () => {
  store = await openStore({ poolSize: 16 });
  queue = await createQueue(store, { messageTtlSeconds: 60 * 86_400 });
  await store.at(START).partitions.createMissing({ ...HOURLY });
  return () => store.close();
});

/** A partition repository that is interrupted once, after the first statement that matches. */
function interrupted(after: RegExp, interruption: () => Promise<unknown>): PartitionRepository {
  let due = true;
  class Interrupted extends Database {
    override async exclusive<T>(work: (session: Session) => Promise<T>, deadlineMs?: number): Promise<T> {
      return super.exclusive((session) => {
        const run = async <R>(statement: Promise<R>, sql: string): Promise<R> => {
          const result = await statement;
          if (due && after.test(sql)) {
            due = false;
            await interruption();
          }
          return result;
        };
        return work({
          read: (sql, values) => run(session.read(sql, values), sql),
          write: (sql, values) => run(session.write(sql, values), sql),
        });
      }, deadlineMs);
    }
  }
  return new PartitionRepository(new Interrupted(store.database.dataSource));
}

/** Dequeues messages from a broker that has just started, so that its claims read everything. */
async function deliver(now = LATER): Promise<string[]> {
  store.at(now);
  const messages = new SingleMessages(new MessageRepository(store.database));
  const some = await messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 30 });
  return some.map(({ messageId }) => messageId.toString('hex'));
}

async function waitingForMetadataLock(): Promise<boolean> {
  const rows = await store.database.read(
    `SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND STATE LIKE 'Waiting for%metadata lock' AND INFO LIKE 'LOCK TABLES%'`,
  );
  return rows.length > 0;
}

describe('a message that a broker with a slow clock enqueues into a partition during its drop', () => {
  let id: Buffer;
  const enqueue = async (): Promise<void> => {
    [id] = (await enqueueStamped(store, queue, { at: START + HOUR / 2, now: LATER - MINUTE })) as [Buffer];
  };

  test('is kept when it arrives between the first check and the lock', async () => {
    const partitions = interrupted(/FROM delivery/, enqueue);
    store.at(LATER);
    const dropped = await partitions.dropSettled(DROP);
    expect(dropped).not.toContain('p_20260101_0100');
    expect(await deliver()).toEqual([id.toString('hex')]);
  });

  test('is kept when its transaction is open while the drop requests the lock', async () => {
    id = newPackId(START + HOUR / 2);
    const [pack, delivery] = storeLonely([
      { packId: id, queueId: queue.id, body: 'late', availableAt: LATER - MINUTE, expiresAt: LATER + DAY },
    ]);
    const writer = await openSession(store);
    await writer.write('START TRANSACTION');
    await writer.write(pack.sql, pack.values);
    const dropping = store.at(LATER).partitions.dropSettled(DROP);
    await eventually('the drop waits for the writer', waitingForMetadataLock);
    await writer.write(delivery.sql, delivery.values);
    await writer.write('COMMIT');
    expect(await dropping).not.toContain('p_20260101_0100');
    await writer.end();
    expect(await deliver()).toEqual([id.toString('hex')]);
  });

  test('is kept when its own partition is gone and a drop of the next partition, which received it, follows', async () => {
    const partitions = interrupted(/UNLOCK TABLES/, enqueue);
    store.at(LATER);
    const dropped = await partitions.dropSettled(DROP);
    expect(dropped).toContain('p_20260101_0100');
    expect(await stored(store, [id])).toBe(1);
    expect(await deliver()).toEqual([id.toString('hex')]);
  });

  test('is kept when another reaper dropped its partition meanwhile', async () => {
    const blocker = await enqueueStamped(store, queue, { at: START + HOUR / 4, now: START });
    const partitions = interrupted(/FROM delivery/, async () => {
      // The check found that the first partition still has an owed message. Now that message is
      // acked, the partition is dropped, and the late message arrives.
      await store
        .at(LATER)
        .messages.ack(queue.id, await store.at(LATER).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 30 }));
      await store.at(START + HOUR + MINUTE).partitions.dropSettled(DROP);
      expect(await stored(store, blocker)).toBe(0);
      await enqueue();
    });
    store.at(LATER);
    await partitions.dropSettled(DROP);
    expect(await deliver()).toEqual([id.toString('hex')]);
  });
});

describe('a delivery that moves to another queue while the reaper checks its partition', () => {
  let id: Buffer;

  /**
   * Creates more queues than one statement checks. The delivery moves from the last to the first
   * when half of the check is done.
   */
  async function hop(): Promise<{ first: number; move: () => Promise<unknown> }> {
    await store.database.write(
      `INSERT INTO queue (name, lease_seconds, message_ttl_seconds, delay_seconds, deduplication_seconds, created_at,
         changed_at, version)
       SELECT CONCAT('many-', seq), 30, 86400, 0, 300, 0, 0, 1 FROM JSON_TABLE(?, '$[*]' COLUMNS (seq INT PATH '$')) AS numbers`,
      [JSON.stringify(Array.from({ length: 250 }, (_, index) => index))],
    );
    const last = await createQueue(store, { messageTtlSeconds: 60 * 86_400 });
    [id] = (await enqueueStamped(store, last, { at: START + HOUR / 2, now: LATER - MINUTE })) as [Buffer];
    const move = (): Promise<unknown> =>
      store.database.write('UPDATE delivery SET queue_id = ? WHERE queue_id = ? AND pack_id = ?', [
        queue.id,
        last.id,
        id,
      ]);
    return { first: queue.id, move };
  }

  test('keeps its partition from a drop', async () => {
    const { move } = await hop();
    // The first check finds the delivery. The check under the lock begins with the snapshot.
    let seen = 0;
    const partitions = interrupted(/^START TRANSACTION WITH CONSISTENT SNAPSHOT/, async () => {
      seen += 1;
      await move();
    });
    await store.database.write('UPDATE queue SET name = NULL WHERE name LIKE ?', ['many-%']);
    store.at(LATER);
    await partitions.dropSettled(DROP);
    expect(seen).toBe(1);
    expect(await deliver()).toEqual([id.toString('hex')]);
  });

  test('keeps its body when the partition is thinned', async () => {
    const { move } = await hop();
    const partitions = interrupted(/FROM delivery/, move);
    const [partition] = await store.partitions.list();
    expect(await partitions.thin(partition!, Buffer.alloc(16), 100)).toEqual({ deleted: 0, next: null });
    expect(await deliver()).toEqual([id.toString('hex')]);
  });
});

describe('writers, consumers and a partition drop in a loop with an accelerated clock', () => {
  test('never lose the body of a message whose enqueue succeeded', async () => {
    const deadline = performance.now() + 60_000;
    let now = START;
    let dropped = 0;
    // Run until enough partitions were dropped while messages arrived for them. On a busy machine
    // the deadline ends it earlier.
    const working = (): boolean => (dropped < 15 || enqueued.length < 300) && performance.now() < deadline;
    // About the age at which partitions are dropped.
    const old = (): number => now - Math.floor((3 + Math.random() * 3) * MINUTE);
    const enqueued: string[] = [];
    const settled: string[] = [];

    const writer = async (): Promise<void> => {
      const messages = new MessageRepository(store.database, undefined, store.queues, () => newPackId(old()));
      const producer = new SingleMessages(messages);
      while (working()) {
        store.at(now);
        enqueued.push(...hex(await producer.enqueue(queue.name, numbered(3))));
      }
    };
    const slowWriter = async (): Promise<void> => {
      const session = await openSession(store);
      while (working()) {
        const packId = newPackId(old());
        const [pack, delivery] = storeLonely([
          { packId, queueId: queue.id, body: 'slow', availableAt: now, expiresAt: LATER },
        ]);
        await session.write('START TRANSACTION');
        await session.write(pack.sql, pack.values);
        await session.write('DO SLEEP(0.02)');
        await session.write(delivery.sql, delivery.values);
        await session.write('COMMIT');
        enqueued.push(packId.toString('hex'));
      }
      await session.end();
    };
    const consumer = async (): Promise<void> => {
      while (working()) {
        const leased = await store.at(now).messages.dequeue(queue, { maxMessages: 50, leaseSeconds: 3000 });
        const outcomes = await store.at(now).messages.ack(queue.id, leased);
        settled.push(
          ...leased.filter((_, index) => outcomes[index] === null).map(({ messageId }) => messageId.toString('hex')),
        );
      }
    };
    const reaper = async (): Promise<void> => {
      while (working()) {
        now += MINUTE;
        try {
          await store.at(now).partitions.createMissing({ widthMinutes: 1, advanceMinutes: 5 });
          dropped += (await store.at(now).partitions.dropSettled({ retentionSeconds: 240 })).length;
        } catch (error) {
          expect(isLockWaitTimeout(error)).toBe(true);
        }
      }
    };
    await store.database.write(
      `ALTER TABLE pack DROP PARTITION ${(await store.partitions.list())
        .slice(0, -1)
        .map(({ name }) => name)
        .join(', ')}`,
    );
    await Promise.all([writer(), writer(), slowWriter(), slowWriter(), consumer(), consumer(), reaper(), reaper()]);

    const [orphans] = await store.database.read<{ n: number }>(
      'SELECT COUNT(*) AS n FROM delivery d LEFT JOIN pack p ON p.id = d.pack_id WHERE p.id IS NULL',
    );
    expect(Number(orphans?.n)).toBe(0);
    for (let some = await deliver(LATER - DAY); some.length > 0; some = await deliver(LATER - DAY))
      settled.push(...some);
    expect(settled.toSorted()).toEqual(enqueued.toSorted());
    expect(dropped).toBeGreaterThanOrEqual(3);
    expect(enqueued.length).toBeGreaterThanOrEqual(100);
  });
});
