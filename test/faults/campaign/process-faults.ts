import { setTimeout as sleep } from 'node:timers/promises';
import { HOUR, storeStamped } from '../../support/partitions.js';
import { createQueue } from '../../support/store.js';
import { caught, eventually } from '../../support/wait.js';
import { DEADLINE_MS, type Fault, now, oneOf } from './fault.js';
import type { FaultRig, Restartable } from './rig.js';

/** A kill meets the right moment by luck. It is tried this often. */
const TRIES = 5;

export const BROKER_KILLED: Fault = {
  name: 'broker killed (SIGKILL)',
  expected:
    'Its connections break, and nobody knows whether its open requests were carried out. Clients use the other broker. Its leased messages come again when the leases run out.',
  mayEndIn: ['unreachable', 'no-answer'],
  strike: async (rig) => {
    const broker = oneOf(rig.brokers);
    await broker.kill();
    const since = now();
    await broker.start();
    return since;
  },
};

export const REAPERS_KILLED: Fault = {
  name: 'reapers killed (SIGKILL) in the middle of their batches',
  expected: 'Nobody notices: brokers need no reaper, and a batch is a transaction. The next reapers go on.',
  mayEndIn: [],
  strike: async (rig) => {
    const store = await rig.openStore();
    try {
      for (let rows = 2000, tries = 1; ; rows *= 2, tries += 1) {
        const queue = await createQueue(store);
        const left = (): Promise<number> => rig.countDeliveries(queue.name);
        // Each is a pack and a delivery of its own.
        await storeStamped(store, queue, { at: Date.now() - HOUR, count: rows, expiresInSeconds: 1 });
        await caught('a reaper removes some', async () => (await left()) < rows, DEADLINE_MS);
        await Promise.all(rig.reapers.map((reaper) => reaper.kill()));
        const since = now();
        const unfinished = (await left()) > 0;
        await begin(rig, rig.reapers);
        if (unfinished) {
          await eventually('the next go on', async () => (await left()) === 0, DEADLINE_MS);
          return since;
        }
        if (tries === TRIES) throw new Error(`${TRIES} times their batches were over before they were killed`);
      }
    } finally {
      await store.close();
    }
  },
};

/**
 * Starts reapers after a kill of the lease holder. Ends its lease, because the next leader would
 * wait half a minute for that.
 */
async function begin(rig: FaultRig, reapers: readonly Restartable[]): Promise<void> {
  await rig.admin('UPDATE reaper_lease SET expires_at = 0');
  await Promise.all(reapers.map((reaper) => reaper.start()));
}

export const REAPER_KILLED_IN_DDL: Fault = {
  name: 'reaper killed (SIGKILL) in its DDL',
  expected:
    'The server completes or undoes the statement, and the table keeps its rows. The next reaper finishes the work.',
  mayEndIn: [],
  strike: async (rig) => {
    const [doomed] = rig.reapers as [Restartable];
    // The reapers must still work after the faults before this one.
    await rig.untilReaping();
    await Promise.all(rig.reapers.map((reaper) => reaper.kill()));
    const count = (await partitions(rig)).length;
    for (let tries = 1; !(await killedInDdl(rig, doomed)); tries += 1) {
      if (tries === TRIES) throw new Error(`${TRIES} times its DDL was over before it was killed`);
    }
    const since = now();
    await begin(rig, rig.reapers);
    await eventually('all partitions', async () => (await partitions(rig)).length >= count, DEADLINE_MS);
    return since;
  },
};

/** Starts a reaper with partitions to make and kills it in that DDL. False: it was too late. */
async function killedInDdl(rig: FaultRig, doomed: Restartable): Promise<boolean> {
  // The load writes into the partitions of the next hours, so the last ones are empty.
  const empty = (await partitions(rig)).slice(-40);
  if (empty.length > 0) await rig.admin(`ALTER TABLE pack DROP PARTITION ${empty.join(', ')}`);
  await rig.admin('UPDATE reaper_lease SET expires_at = 0');
  doomed.spawn();
  const isAltering = async (): Promise<boolean> => {
    const statements = await rig.underWay(`INFO LIKE 'ALTER TABLE pack REORGANIZE%'`);
    return statements.has(doomed.user);
  };
  // The reaper makes the partitions in its first round. At its end it reports that it is ready.
  for (const until = now() + DEADLINE_MS; !doomed.isReady() && now() < until; await sleep(1)) {
    if (!(await isAltering())) continue;
    await doomed.kill();
    return !doomed.isReady();
  }
  await doomed.kill();
  return false;
}

/** The names of all partitions but the catch-all one, oldest first. */
export async function partitions(rig: FaultRig): Promise<string[]> {
  const rows = await rig.admin<{ name: string }>(
    `SELECT PARTITION_NAME AS name FROM information_schema.PARTITIONS
     WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'pack' AND PARTITION_NAME <> 'p_max'
     ORDER BY PARTITION_ORDINAL_POSITION`,
  );
  return rows.map(({ name }) => name);
}
