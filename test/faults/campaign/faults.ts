import { constants } from 'node:fs';
import { open, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { definePartition } from '../../../libs/store/src/partition.sql.js';
import { createQueue } from '../../support/store.js';
import { enqueueStamped, HOUR, settleAll } from '../../support/partitions.js';
import { eventually } from '../../support/wait.js';
import type { SimulatorSettings } from '../../../apps/simulator/src/simulator.config.js';
import type { FaultRig } from './rig.js';

/** Something that goes wrong, and what RowMQ promises about it. */
export interface Fault {
  name: string;
  /** What its users see, and why nothing is lost. */
  expected: string;
  /** Before the load begins. Returns what undoes it, and throws if it did not take effect. */
  prepare?(rig: FaultRig): Promise<() => Promise<void>>;
  /** Goes wrong once, under load, and is over. Returns since when RowMQ has had all that it needs (`performance.now()`), and throws if nothing went wrong. */
  strike?(rig: FaultRig): Promise<number>;
  /** How the load differs from the usual one. */
  load?: Partial<SimulatorSettings>;
  /** Within which service must be back after a strike. Default 15 s. */
  recoveryMs?: number;
}

const now = (): number => performance.now();
const oneOf = <T>(choices: readonly T[]): T => choices[Math.floor(Math.random() * choices.length)] as T;

/** A connection beside the network that holds something until it is told to let go. */
async function hold(rig: FaultRig, ...statements: string[]): Promise<() => Promise<void>> {
  const connection = await rig.connect();
  for (const sql of statements) await connection.query(sql);
  return () => connection.end();
}

const BROKER_KILLED: Fault = {
  name: 'broker killed (SIGKILL)',
  expected:
    'Its connections break; what was under way is unknown, or done. Clients turn to the other broker. What it had leased comes again when the leases run out.',
  strike: async (rig) => {
    const broker = oneOf(rig.brokers);
    await broker.kill();
    const since = now();
    await broker.start();
    return since;
  },
};

const REAPERS_KILLED: Fault = {
  name: 'reapers killed (SIGKILL) in their batches',
  expected: 'Nobody notices: brokers need no reaper, and a batch is a transaction.',
  load: { expireRate: 0.5 },
  strike: async (rig) => {
    await Promise.all(rig.reapers.map((reaper) => reaper.kill()));
    const since = now();
    // Whoever held the lease is dead: the next would wait half a minute for it.
    await rig.admin('UPDATE reaper_lease SET expires_at = 0');
    await Promise.all(rig.reapers.map((reaper) => reaper.start()));
    return since;
  },
};

const REAPER_KILLED_IN_DDL: Fault = {
  name: 'reaper killed (SIGKILL) in its DDL',
  expected:
    'A statement that nobody waits for ends by itself or is undone by the server; the table keeps its rows. The next reaper finishes the work.',
  strike: async (rig) => {
    await Promise.all(rig.reapers.map((reaper) => reaper.kill()));
    const ahead = await rig.admin<{ name: string }>(
      `SELECT PARTITION_NAME AS name FROM information_schema.PARTITIONS
       WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'message' AND PARTITION_NAME <> 'p_max'
       ORDER BY PARTITION_ORDINAL_POSITION`,
    );
    const empty = ahead.slice(-24).map(({ name }) => name);
    await rig.admin(`ALTER TABLE message DROP PARTITION ${empty.join(', ')}`);
    await rig.admin('UPDATE reaper_lease SET expires_at = 0');
    const [killed, next] = rig.reapers as [(typeof rig.reapers)[0], (typeof rig.reapers)[0]];
    const starting = killed.start();
    await Promise.all([starting, rig.untilUnderWay('ALTER TABLE message%', 10_000)]);
    await killed.kill();
    const since = now();
    await rig.admin('UPDATE reaper_lease SET expires_at = 0');
    await next.start();
    await killed.start();
    return since;
  },
};

const DATABASE_KILLED: Fault = {
  name: 'database killed (SIGKILL), with pages not flushed',
  expected:
    'Requests under way are unknown; later ones wait or are refused with database-unavailable. Recovery from the redo log brings back every commit that was answered.',
  strike: async (rig) => {
    await rig.admin('SET GLOBAL innodb_max_dirty_pages_pct = 90');
    await rig.admin('SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0');
    await sleep(500);
    const [dirty] = await rig.admin<{ Value: string }>(`SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'`);
    if (Number(dirty?.Value) === 0) throw new Error('every page was flushed');
    await rig.killServer();
    await rig.startServer();
    const log = await readFile(rig.errorLog, 'utf8');
    if (!/crash recovery/i.test(log)) throw new Error('the database had nothing to recover from');
    return now();
  },
};

const CONNECTIONS_KILLED: Fault = {
  name: 'every connection to the database killed',
  expected: 'Transactions under way are rolled back or done, and tried again with the same ids: clients hardly notice.',
  strike: async (rig) => {
    if ((await rig.killConnections()) === 0) throw new Error('there was no connection');
    return now();
  },
};

const CONNECTIONS_EXHAUSTED: Fault = {
  name: 'database out of connections',
  expected:
    'A broker that cannot open one uses those it has, and answers overloaded or database-unavailable when none becomes free in time.',
  strike: async (rig) => {
    await rig.admin('SET GLOBAL max_connections = 10');
    try {
      await rig.killConnections();
      await sleep(2000);
    } finally {
      await rig.admin('SET GLOBAL max_connections = 500');
    }
    return now();
  },
};

const POOL_EXHAUSTED: Fault = {
  name: 'pool exhausted: a table locked by somebody else',
  expected:
    'Every connection waits for the table, then is refused and tries again; requests wait for their flight, bounded in number and time, and beyond that are refused as overloaded.',
  strike: async (rig) => {
    const letGo = await hold(rig, 'LOCK TABLES delivery WRITE');
    await sleep(3000);
    await letGo();
    return now();
  },
};

const READ_ONLY: Fault = {
  name: 'database read-only',
  expected:
    'Every write is refused by the server before it does anything, tried again on another connection, then refused with database-unavailable.',
  strike: async (rig) => {
    await rig.setReadOnly(true);
    await sleep(2000);
    await rig.setReadOnly(false);
    return now();
  },
};

const NETWORK_SLOW: Fault = {
  name: 'network to the database slow (50 ms each way)',
  expected: 'Everything is slower; nothing fails.',
  strike: async (rig) => {
    rig.network.delayMs = 50;
    await sleep(2000);
    rig.network.heal();
    return now();
  },
};

const ANSWERS_LOST: Fault = {
  name: 'one in five answers to a COMMIT lost',
  expected:
    'The broker repeats the transaction with the same ids and tokens, and finds out what had been done: stored once, leased once, settled once.',
  strike: async (rig) => {
    const before = rig.network.lost;
    rig.network.lostAnswers = 0.2;
    await eventually('lost answers', () => rig.network.lost > before + 3);
    await sleep(1000);
    rig.network.heal();
    return now();
  },
};

const NETWORK_CUT: Fault = {
  name: 'network to the database cut, and mended',
  expected:
    'Statements hang until their deadline of 10 s, and their connections are closed. COMMITs that were held up arrive late and are carried out; repeating them changes nothing.',
  recoveryMs: 25_000,
  strike: async (rig) => {
    rig.network.cut();
    // Shorter and longer than a statement's deadline.
    await sleep(oneOf([3000, 12_000]));
    rig.network.heal();
    return now();
  },
};

const CONSUMERS_DIE: Fault = {
  name: 'consumers die with leases, or hang up before they got them',
  expected:
    'What was leased for who hung up is given back at once, the rest comes again when the leases run out. receiveCount tells of it.',
  load: { crashRate: 0.3, slowRate: 0.1 },
};

/** Shifts what the process takes for the time of day. Nothing else reads the machine's clock. */
function clockOff(ms: number): Record<string, string> {
  const source = `const Real = Date;
    globalThis.Date = class extends Real {
      constructor(...given) { given.length > 0 ? super(...given) : super(Real.now() + ${ms}); }
      static now() { return Real.now() + ${ms}; }
    };`;
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(source)}` };
}

const CLOCKS_OFF: Fault = {
  name: "brokers' clocks an hour ahead and an hour behind",
  expected:
    "Only ids are stamped by them; availability, leases and expiry go by the database's clock. Ids fall into other partitions, which are kept while anything in them is owed.",
  prepare: async (rig) => {
    const restart = async (env: Record<string, string>[]): Promise<void> => {
      for (const [index, broker] of rig.brokers.entries()) {
        await broker.stop();
        await broker.start(env[index]);
      }
    };
    await restart([clockOff(HOUR), clockOff(-HOUR)]);
    const [id] = await newIds(rig);
    const off = Math.abs(Number.parseInt((id as string).replaceAll('-', '').slice(0, 12), 16) - Date.now());
    if (Math.abs(off - HOUR) > 60_000) throw new Error(`the clock of a broker is off by ${off} ms`);
    return () => restart([]);
  },
};

/** Of a message that is enqueued at the first broker, in a queue of its own. */
async function newIds(rig: FaultRig): Promise<string[]> {
  const [client] = rig.clients;
  if (client === undefined) throw new Error('there is no broker');
  const queue = `clock-${Date.now()}`;
  await client.putQueue(queue);
  const { messages } = await client.enqueue(queue, { messages: [{ body: '' }] });
  await client.deleteQueue(queue);
  return messages.map(({ id }) => id);
}

const PURGE_STALLED: Fault = {
  name: 'a snapshot held open, so that nothing is purged',
  expected:
    'Claims look and lock from their scan floors on and keep their speed; what stands below a floor is found by the regular look below it.',
  prepare: async (rig) => {
    const letGo = await hold(
      rig,
      'SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ',
      'START TRANSACTION WITH CONSISTENT SNAPSHOT',
      'SELECT COUNT(*) FROM queue',
    );
    return async () => {
      await letGo();
    };
  },
};

const METADATA_LOCK: Fault = {
  name: 'an idle transaction holds the table while a reaper wants to drop a partition',
  expected:
    'The reaper gives way after a second and lets writers through; it drops the partition when it can. What is owed is not in it.',
  strike: async (rig) => {
    await Promise.all(rig.reapers.map((reaper) => reaper.stop()));
    await settleLongAgo(rig);
    const letGo = await hold(rig, 'START TRANSACTION', 'SELECT 1 FROM message LIMIT 1');
    await rig.admin('UPDATE reaper_lease SET expires_at = 0');
    const starting = Promise.all(rig.reapers.map((reaper) => reaper.start()));
    await rig.untilUnderWay('LOCK TABLES message WRITE%', 30_000);
    await starting;
    // The reaper has given way.
    await sleep(1500);
    await letGo();
    return now();
  },
};

/** Makes a partition that is past retention, and in which everything is settled. */
async function settleLongAgo(rig: FaultRig): Promise<void> {
  const store = await rig.openStore();
  try {
    const [first] = await store.partitions.list();
    if (first === undefined || first.until === null) throw new Error('the table is not partitioned yet');
    const parts = [definePartition(Date.now() - 2 * HOUR), definePartition(first.until)];
    await rig.admin(`ALTER TABLE message REORGANIZE PARTITION ${first.name} INTO (${parts.join(', ')})`);
    const queue = await createQueue(store, { messageTtlSeconds: 864_000 });
    await enqueueStamped(store, queue, { at: Date.now() - 3 * HOUR, now: Date.now(), count: 10 });
    await settleAll(store, queue, Date.now());
  } finally {
    await store.close();
  }
}

const SIMPLE = [
  BROKER_KILLED,
  REAPERS_KILLED,
  DATABASE_KILLED,
  CONNECTIONS_KILLED,
  CONNECTIONS_EXHAUSTED,
  READ_ONLY,
  ANSWERS_LOST,
  NETWORK_SLOW,
  POOL_EXHAUSTED,
];

const MIXED: Fault = {
  name: 'all of these mixed, in any order, while purge is stalled and consumers die',
  expected: 'What each of them promises.',
  load: { crashRate: 0.1, slowRate: 0.1 },
  recoveryMs: 25_000,
  prepare: async (rig) => PURGE_STALLED.prepare?.(rig) ?? (async () => undefined),
  strike: async (rig) => {
    await oneOf(SIMPLE).strike?.(rig);
    return (await oneOf(SIMPLE).strike?.(rig)) ?? now();
  },
};

/** Faults that need no more than a rig. */
export const FAULTS: readonly Fault[] = [
  ...SIMPLE,
  NETWORK_CUT,
  REAPER_KILLED_IN_DDL,
  METADATA_LOCK,
  CONSUMERS_DIE,
  CLOCKS_OFF,
  PURGE_STALLED,
  MIXED,
];

/** Needs a rig whose data is on a small file system. */
export const DISK_FULL: Fault = {
  name: "the database's disk full",
  expected:
    'The server refuses, waits for space or stops; requests are refused with database-unavailable, or unknown. With space again (and, if it stopped, a start) everything that was answered is there.',
  recoveryMs: 90_000,
  strike: async (rig) => {
    const ballast = join(dirname(dirname(rig.errorLog)), 'ballast');
    await fill(ballast);
    await sleep(4000);
    await rm(ballast);
    await rig.startServer();
    return now();
  },
};

/** Takes what is left of a file system. */
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
