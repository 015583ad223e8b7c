import { messageIdIn, packIdOf } from '@rowmq/contract';
import { FIRST_ID, type LeasedMessage, type Queue } from '@rowmq/store';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { indexesOf } from '../../libs/store/src/messages/members.js';
import { deadLetterAll, enqueueStamped, hex, MINUTE, openSession, START, claimAll } from '../support/partitions.js';
import { createQueue, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * A transaction that needs a queue's row locks it before any delivery. In the other order it would
 * hold deliveries while it waits for the row. A change of that queue may hold the row and wait for
 * the row of a dead-letter queue. A dead-lettering nack may hold that row and wait for one of the
 * deliveries. This circle of three hardly ever closes by chance.
 *
 * In either order the same statement waits here, but the transaction holds different locks
 * meanwhile.
 */

const LATER = START + 5 * MINUTE;

/**
 * Finds the current statement of other sessions in this database. A batch shows its current
 * statement. INNODB_TRX would not do: its cache may be old.
 */
const WAITING = `SELECT 1 FROM information_schema.PROCESSLIST
  WHERE DB = DATABASE()
    AND ID <> CONNECTION_ID()
    AND INFO LIKE 'SELECT %FROM queue %LOCK IN SHARE MODE%'`;

const FREE = `SELECT pack_id AS packId, members FROM delivery FORCE INDEX (PRIMARY)
  WHERE queue_id = ?
    AND pack_id IN (?)
  FOR UPDATE SKIP LOCKED`;

/** A change to deliveries of one queue. */
interface Work {
  /** The queue whose row it waits for. */
  locked: Queue;
  /** The queue of the deliveries. */
  holds: Queue;
  ids: Buffer[];
  done: unknown;
  carryOut: () => Promise<unknown>;
}

let store: TestStore;

beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());

async function createGraveyard(): Promise<Queue> {
  return createQueue(store, { messageTtlSeconds: 3600 });
}

/**
 * A queue that dead-letters a message when its first lease has run out, with three messages under
 * that lease.
 */
async function createOrigin(graveyard: Queue): Promise<{ origin: Queue; ids: Buffer[]; leases: LeasedMessage[] }> {
  const settings = { messageTtlSeconds: 3600, maxReceives: 1, deadLetterQueue: graveyard.name };
  const origin = await createQueue(store, settings);
  const ids = await enqueueStamped(store, origin, { at: START, count: 3 });
  return { origin, ids, leases: await claimAll(store, origin, START) };
}

const prepare: Record<'redrive' | 'dead-letter' | 'nack, dead-letter', () => Promise<Work>> = {
  redrive: async () => {
    const graveyard = await createGraveyard();
    const targets = [await createOrigin(graveyard), await createOrigin(graveyard)] as const;
    for (const { origin } of targets) expect(await deadLetterAll(store, origin, START + 2 * MINUTE)).toBe(3);
    return {
      // The last of its targets. It must not have locked the deliveries for the first one by then.
      locked: targets[1].origin,
      holds: graveyard,
      ids: targets.flatMap(({ ids }) => ids),
      done: { moved: new Map(targets.map(({ origin }) => [origin.id, 3])), skipped: 0, left: 0, next: null },
      carryOut: () => store.at(LATER).unleased.redrive(graveyard.id, FIRST_ID, 100),
    };
  },
  'dead-letter': async () => {
    const { origin, ids } = await createOrigin(await createGraveyard());
    const { found } = await store.at(LATER).unleased.findOverReceived(origin, FIRST_ID, 100);
    const carryOut = (): Promise<number> => store.at(LATER).messages.deadLetter(origin, found);
    return { locked: origin, holds: origin, ids, done: 3, carryOut };
  },
  'nack, dead-letter': async () => {
    const { origin, ids, leases } = await createOrigin(await createGraveyard());
    const request = { queueId: origin.id, receipts: leases };
    const carryOut = (): Promise<unknown> => store.at(START + 1000).messages.batches.reject(request);
    return { locked: origin, holds: origin, ids, done: [null, null, null], carryOut };
  },
};

test.each(['redrive', 'dead-letter', 'nack, dead-letter'] as const)(
  '%s waits for a queue’s row without a lock on any delivery',
  async (verb) => {
    const { locked, holds, ids, done, carryOut } = await prepare[verb]();
    const [holder, other] = [await openSession(store), await openSession(store)];
    try {
      await holder.write('START TRANSACTION');
      await holder.read('SELECT 1 FROM queue WHERE id = ? FOR UPDATE', [locked.id]);
      const working = carryOut();
      // The expectations below report a failure.
      working.catch(() => undefined);
      await eventually('it waits for the row', async () => (await other.read(WAITING)).length > 0);
      const free = await other.read<{ packId: Buffer; members: number }>(FREE, [holds.id, ids.map(packIdOf)]);
      await holder.write('ROLLBACK');
      const unlocked = free.flatMap(({ packId, members }) =>
        Array.from(indexesOf(members), (index) => messageIdIn(packId, index)),
      );
      expect(hex(unlocked)).toEqual(hex(ids));
      expect(await working).toEqual(done);
    } finally {
      await holder.end();
      await other.end();
    }
  },
);
