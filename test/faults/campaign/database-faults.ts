import { constants } from 'node:fs';
import { open, readFile, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection } from 'mysql2/promise';
import { definePartition } from '../../../libs/store/src/partitions/partition.sql.js';
import { enqueueStamped, HOUR, settleAll } from '../../support/partitions.js';
import { createQueue } from '../../support/store.js';
import { eventually } from '../../support/wait.js';
import { DEADLINE_MS, type Fault, holding, now } from './fault.js';
import { partitions } from './process-faults.js';
import { type FaultRig, MAX_CONNECTIONS, POOL_SIZE, type Restartable, RETENTION_SECONDS } from './rig.js';

/** MariaDB's least. */
const FEWEST_CONNECTIONS = 10;

/** The lines that the database appends to its error log from now on. */
async function logFromHere(rig: FaultRig): Promise<() => Promise<string>> {
  const { size, ino } = await stat(rig.errorLog);
  return async () => {
    // A start moves a large log to another name.
    const from = (await stat(rig.errorLog)).ino === ino ? size : 0;
    return (await readFile(rig.errorLog)).subarray(from).toString();
  };
}

export const DATABASE_KILLED: Fault = {
  name: 'database killed (SIGKILL), with pages not flushed',
  expected:
    'Nobody knows whether open requests were carried out. Later ones wait or get database-unavailable. Recovery from the redo log brings back every commit that was answered.',
  mayEndIn: ['database-unavailable', 'overloaded', 'no-answer'],
  strike: async (rig) => {
    await rig.admin('SET GLOBAL innodb_max_dirty_pages_pct = 90');
    await rig.admin('SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0');
    await sleep(500);
    if ((await statusOf(rig, 'Innodb_buffer_pool_pages_dirty')) === 0) throw new Error('every page was flushed');
    const log = await logFromHere(rig);
    await rig.killServer();
    await rig.startServer();
    if (!/crash recovery/i.test(await log())) throw new Error('the database had nothing to recover from');
    return now();
  },
};

export const CONNECTIONS_KILLED: Fault = {
  name: 'every connection to the database killed',
  expected:
    'The server rolls back or completes open transactions. The brokers try them again with the same ids, and clients hardly notice.',
  mayEndIn: ['database-unavailable'],
  strike: async (rig) => {
    // After a fault before this one, the brokers may still have to open some.
    await eventually('a connection is killed', async () => (await rig.killConnections()) > 0, DEADLINE_MS);
    return now();
  },
};

export const CONNECTIONS_EXHAUSTED: Fault = {
  name: 'database out of connections',
  expected:
    'A broker that cannot open one uses those it has, and answers overloaded or database-unavailable when none becomes free in time.',
  mayEndIn: ['database-unavailable', 'overloaded', 'no-answer'],
  strike: async (rig) => {
    const crowd: Connection[] = [];
    try {
      // With the administrator's, these are almost all connections of the new limit.
      while (crowd.length < FEWEST_CONNECTIONS - 2) crowd.push(await rig.connect());
      await rig.admin(`SET GLOBAL max_connections = ${FEWEST_CONNECTIONS}`);
      const before = await turnedAway(rig);
      await rig.killConnections();
      await eventually('somebody is turned away', async () => (await turnedAway(rig)) > before + 2, DEADLINE_MS);
      await sleep(1000);
    } finally {
      await rig.admin(`SET GLOBAL max_connections = ${MAX_CONNECTIONS}`);
      for (const connection of crowd) connection.destroy();
    }
    return now();
  },
};

/** Counts the connections that the server refused because it had none left. */
async function turnedAway(rig: FaultRig): Promise<number> {
  return statusOf(rig, 'Connection_errors_max_connections');
}

async function statusOf(rig: FaultRig, variable: string): Promise<number> {
  const [row] = await rig.admin<{ Value: string }>(`SHOW GLOBAL STATUS LIKE '${variable}'`);
  return Number(row?.Value);
}

export const POOL_EXHAUSTED: Fault = {
  name: 'pool exhausted: a table locked by somebody else',
  expected:
    'Every connection waits for the table until its lock wait times out, and tries again. Requests wait for their batch, bounded in number and time. The broker refuses more as overloaded.',
  mayEndIn: ['database-unavailable', 'overloaded', 'no-answer'],
  strike: async (rig) => {
    await holding(rig, ['LOCK TABLES delivery WRITE'], async () => {
      await eventually('a broker all of whose connections wait', () => isPoolExhausted(rig), DEADLINE_MS);
      await sleep(1500);
    });
    return now();
  },
};

async function isPoolExhausted(rig: FaultRig): Promise<boolean> {
  const waiting = await rig.underWay(`STATE LIKE 'Waiting for table%'`);
  return rig.brokers.some(({ user }) => (waiting.get(user) ?? 0) >= POOL_SIZE);
}

export const READ_ONLY: Fault = {
  name: 'database read-only',
  expected:
    'The server refuses every write before it does anything. The broker tries again on another connection, then answers database-unavailable.',
  mayEndIn: ['database-unavailable', 'overloaded'],
  strike: async (rig) => {
    await rig.setReadOnly(true);
    await sleep(2000);
    await rig.setReadOnly(false);
    return now();
  },
};

export const METADATA_LOCK: Fault = {
  name: 'an idle transaction holds the table while a reaper wants to drop a partition',
  expected:
    'The reaper yields after a second and lets writers through. It drops the partition later, which holds no owed message.',
  mayEndIn: [],
  strike: async (rig, prober) => {
    const [first] = rig.reapers as [Restartable];
    await Promise.all(rig.reapers.map((reaper) => reaper.stop()));
    const old = await settleLongAgo(rig);
    await holding(rig, ['START TRANSACTION', 'SELECT 1 FROM pack LIMIT 1'], async () => {
      const waits = async (): Promise<boolean> =>
        (await rig.underWay(`INFO LIKE 'LOCK TABLES pack WRITE%'`)).has(first.user);
      await Promise.all([first.start(), eventually('the reaper waits for the table', waits, DEADLINE_MS)]);
      await eventually('it gives way', async () => !(await waits()), DEADLINE_MS);
      await prober.recovered(now(), DEADLINE_MS);
      if (!(await partitions(rig)).includes(old)) throw new Error('the partition was dropped all the same');
    });
    const since = now();
    // After a failure the reaper waits for half a minute or more. A new one tries at once.
    await first.stop();
    await Promise.all(rig.reapers.map((reaper) => reaper.start()));
    await eventually('it drops the partition', async () => !(await partitions(rig)).includes(old), 2 * DEADLINE_MS);
    return since;
  },
};

/**
 * Makes a partition past retention whose messages are all settled. Returns its name.
 */
async function settleLongAgo(rig: FaultRig): Promise<string> {
  const store = await rig.openStore();
  try {
    const [first] = await store.partitions.list();
    if (first === undefined || first.until === null) throw new Error('the table is not partitioned yet');
    const until = Date.now() - RETENTION_SECONDS * 1000 - HOUR;
    const parts = [definePartition(until), definePartition(first.until)];
    await rig.admin(`ALTER TABLE pack REORGANIZE PARTITION ${first.name} INTO (${parts.join(', ')})`);
    const queue = await createQueue(store, { messageTtlSeconds: 864_000 });
    await enqueueStamped(store, queue, { at: until - HOUR, now: Date.now(), count: 10 });
    await settleAll(store, queue, Date.now());
    const [old] = await store.partitions.list();
    return (old as { name: string }).name;
  } finally {
    await store.close();
  }
}

/** Needs a rig whose data is on a small file system. */
export const DISK_FULL: Fault = {
  name: "the database's disk full",
  expected:
    'The server refuses writes, waits for space or stops. Requests get database-unavailable or no answer. With space again, and a start if it stopped, every confirmed message is there.',
  mayEndIn: ['database-unavailable', 'overloaded', 'no-answer'],
  recoveryMs: 120_000,
  strike: async (rig) => {
    const ballast = join(dirname(dirname(rig.errorLog)), 'ballast');
    const log = await logFromHere(rig);
    try {
      await fill(ballast);
      const isNoticed = async (): Promise<boolean> => /disk (is )?full|no space left/i.test(await log());
      await eventually('the server has no space left', isNoticed, DEADLINE_MS);
      await sleep(2000);
    } finally {
      await rm(ballast);
    }
    await rig.startServer();
    return now();
  },
};

/** Fills a file system. */
async function fill(path: string): Promise<void> {
  const file = await open(path, constants.O_WRONLY | constants.O_CREAT);
  try {
    for (let size = 1 << 20; size >= 4096;) {
      try {
        await file.write(Buffer.alloc(size, 1));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        size >>= 1;
      }
    }
  } finally {
    await file.close();
  }
}
