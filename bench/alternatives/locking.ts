import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Database,
  type LeasedMessage,
  MessageRepository,
  openDataSource,
  type Queue,
  QueueRepository,
} from '@rowmq/store';
import { fillBacklog } from '../harness/fill-backlog.js';
import { ownCpuSeconds } from '../harness/process-usage.js';
import type { RunningServer } from '../harness/rig.js';
import { microsOf, openSession } from './session.js';

const ROWS = 100;
const CLAIM = 50;
const LEASE_SECONDS = 600;
const IDLE_QUEUES = 50;

/** The server's CPU, µs, of a statement, and of the same with locks. */
export type LockCost = { what: string; without: number; with: number };

/**
 * Measures the price of a lock beside a plain read. There is no contention. Transactions are rolled
 * back, or they hold one shared lock.
 */
export async function measureLocks(server: RunningServer, seconds: number): Promise<LockCost[]> {
  const session = await openSession(server.url);
  const queue = await backlog(server, 'bench-locks', 10_000);
  const head = `SELECT pack_id, members, priority_rank, available_at, expires_at, receive_count FROM delivery FORCE INDEX (delivery_next)
    WHERE (queue_id = ${queue.id} AND priority_rank = 5 AND available_at BETWEEN 1 AND ${Date.now()}) ORDER BY queue_id, priority_rank, available_at LIMIT ${ROWS}`;
  const settings = `SELECT id, name, max_depth FROM queue FORCE INDEX (PRIMARY) WHERE id IN (${queue.id}) ORDER BY id`;
  const rolledBack = (sql: string): Promise<number> =>
    microsOf(server, seconds, () => session.run(`START TRANSACTION; ${sql}; ROLLBACK`));
  try {
    return [
      {
        what: `a queue's head, ${ROWS} deliveries: FOR UPDATE SKIP LOCKED`,
        without: await rolledBack(head),
        with: await rolledBack(`${head} FOR UPDATE SKIP LOCKED`),
      },
      {
        what: "an enqueue's queue row: LOCK IN SHARE MODE",
        without: await rolledBack(settings),
        with: await rolledBack(`${settings} LOCK IN SHARE MODE`),
      },
    ];
  } finally {
    await session.close();
    await empty(server);
  }
}

/** Consumers of one queue through so many brokers. */
export type Contention = {
  brokers: number;
  /** Claimed and acked. */
  perSecond: number;
  /** The server's CPU of one of them. */
  cpuMicros: number;
  claims: number;
  /** Deliveries of a claim. */
  claimed: number;
  lockWaits: number;
  deadlocks: number;
};

/**
 * Measures claims of one queue by several brokers. Each broker is a repository with connections of
 * its own. It runs one claim and one ack at a time.
 */
export async function measureContention(
  server: RunningServer,
  seconds: number,
  messages: number,
): Promise<Contention[]> {
  const measured: Contention[] = [];
  for (const brokers of [1, 2, 4, 8]) {
    const queue = await backlog(server, `bench-contention-${brokers}`, messages);
    measured.push(await contend(server, queue, brokers, seconds));
    await empty(server);
  }
  return measured;
}

async function contend(server: RunningServer, queue: Queue, brokers: number, seconds: number): Promise<Contention> {
  const sources = await Promise.all(
    Array.from({ length: brokers }, () => openDataSource({ url: server.url, poolSize: 4 })),
  );
  const databases = sources.map((source) => new Database(source));
  // One connection is for the claim and one for the ack.
  await Promise.all(databases.flatMap((database) => [database.read('SELECT 1'), database.read('SELECT 1')]));
  let [claims, claimed, acked] = [0, 0, 0];
  const demands = [{ maxMessages: CLAIM, leaseSeconds: LEASE_SECONDS }];
  const before = await server.probe.counters();
  const cpuBefore = await ownCpuSeconds(server.pid);
  const began = performance.now();
  const until = began + seconds * 1000;
  const ack = async (messages: MessageRepository, receipts: readonly LeasedMessage[]): Promise<void> => {
    const [outcomes = []] = await messages.ack([{ queueId: queue.id, receipts }]);
    if (outcomes.some((code) => code !== null)) throw new Error('an ack of a lease that is held was refused');
    acked += receipts.length;
  };
  const consume = async (messages: MessageRepository): Promise<void> => {
    let acking: Promise<void> = Promise.resolve();
    do {
      const [outcome] = await messages.claim([{ queue, demands }]);
      const leased = outcome?.leased ?? [];
      const receipts = leased.flat();
      if (receipts.length === 0) {
        await sleep(1);
        continue;
      }
      claims += 1;
      claimed += receipts.length;
      await acking;
      acking = ack(messages, receipts);
    } while (performance.now() < until);
    await acking;
  };
  try {
    await Promise.all(databases.map((database) => consume(new MessageRepository(database))));
  } finally {
    await Promise.all(sources.map((source) => source.destroy()));
  }
  const took = (performance.now() - began) / 1000;
  const cpuSeconds = (await ownCpuSeconds(server.pid)) - cpuBefore;
  const after = await server.probe.counters();
  return {
    brokers,
    perSecond: acked / took,
    cpuMicros: (cpuSeconds * 1e6) / acked,
    claims,
    claimed: claimed / claims,
    lockWaits: after.lockWaits - before.lockWaits,
    deadlocks: after.deadlocks - before.deadlocks,
  };
}

/** CPU of the server, µs, for one poll of idle queues: one statement for all of them. */
export interface IdlePoll {
  pieces: string;
  micros: number;
}

/** Measures what a poll of many idle queues would cost if `delivery` had partitions. */
export async function measureIdlePoll(server: RunningServer, seconds: number): Promise<IdlePoll[]> {
  const session = await openSession(server.url);
  const queues = Array.from({ length: IDLE_QUEUES }, (_, index) => index + 1).join(',');
  const poll = (table: string): Promise<number> =>
    microsOf(server, seconds, () =>
      session.run(`SELECT queue_id, priority_rank, available_at, expires_at FROM ${table} FORCE INDEX (delivery_next)
        WHERE queue_id IN (${queues}) AND priority_rank IN (0,1,2,3,4,5,6,7,8,9) AND available_at BETWEEN 0 AND ${Date.now()} LIMIT 500`),
    );
  try {
    await session.run('CREATE TABLE a_delivery LIKE delivery');
    await session.run('ALTER TABLE a_delivery PARTITION BY KEY (queue_id) PARTITIONS 8');
    return [
      { pieces: 'one piece', micros: await poll('delivery') },
      { pieces: 'eight partitions', micros: await poll('a_delivery') },
    ];
  } finally {
    await session.run('DROP TABLE IF EXISTS a_delivery');
    await session.close();
  }
}

/** A queue with so many ready messages of 200 bytes in it. */
async function backlog(server: RunningServer, name: string, messages: number): Promise<Queue> {
  const source = await openDataSource({ url: server.url, poolSize: 1 });
  try {
    const { queue } = await new QueueRepository(new Database(source)).put(name, { leaseSeconds: LEASE_SECONDS });
    const filled = { queue: name, bodyBytes: 200, present: 0, messages, from: Date.now() - 60_000, stepMs: 0.1 };
    await fillBacklog(server.probe, filled);
    return queue;
  } finally {
    await source.destroy();
  }
}

async function empty({ probe }: RunningServer): Promise<void> {
  await probe.query('TRUNCATE TABLE delivery');
  await probe.query('TRUNCATE TABLE pack');
}
