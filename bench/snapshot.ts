import { createConnection } from 'mysql2/promise';
import { BrokerLoad } from './harness/broker-load.js';
import { BATCH_100 } from './harness/load.js';
import { number, table } from './harness/markdown.js';
import { lastToFirst, type Minute, measureMinutes } from './harness/minutes.js';
import { benchCommand, type BenchOptions, positive } from './harness/options.js';
import { residentMegabytes } from './harness/process-usage.js';
import { publish } from './harness/publish.js';
import { onEachServer, type Rig } from './harness/rig.js';
import { assertDepth } from './harness/scenario.js';
import { runFor, workFor } from './harness/stretch.js';
import { measureUnderHeldSnapshot } from './peers/held-snapshot.js';
import type { Peer } from './peers/peer.js';
import { postgresPeers } from './peers/registry.js';

interface Options extends BenchOptions {
  minutes: number;
  peers: boolean;
}

/**
 * Measures how the rate depends on the age of an open snapshot, which keeps purge from removing
 * anything.
 */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const options = readOptions(args);
  if (options.peers && !Number.isInteger(options.seconds)) {
    throw new Error('The queues on PostgreSQL need whole --seconds. Leave them out with --no-peers.');
  }
  const runs = await onEachServer({ ...options, rig }, (on) => eachRun(on, options));
  if (options.peers) for (const peer of postgresPeers()) runs[peer.name] = [await measurePeer(peer, options)];
  await publish({
    title: 'While a snapshot is held open',
    script: 'bench:snapshot',
    args,
    options,
    results: runs,
    markdown: toMarkdown(runs, options),
  });
}

function readOptions(args: readonly string[]): Options {
  const defaults = { runs: 1, seconds: 60, json: 'snapshot' };
  return benchCommand('bench:snapshot', 'Rates minute by minute while a snapshot is held open.', defaults)
    .option('--minutes <count>', 'how many stretches, each of --seconds', positive, 10)
    .option('--no-peers', 'leave out the queues on PostgreSQL')
    .parse(args, { from: 'user' })
    .opts<Options>();
}

async function eachRun(rig: Rig, options: Options): Promise<Minute[][]> {
  const runs: Minute[][] = [];
  while (runs.length < options.runs) runs.push(await measureRun(rig, options));
  return runs;
}

async function measureRun(rig: Rig, { minutes, seconds, warmUpSeconds }: Options): Promise<Minute[]> {
  const broker = await rig.broker();
  const queues = await rig.newQueues(1);
  const load = await BrokerLoad.start(broker.url, { ...BATCH_100, queues });
  try {
    await runFor(load, warmUpSeconds);
    return await measureMinutes({
      minutes,
      seconds,
      openSnapshot: () => openSnapshot(rig),
      lifecycles: async (forSeconds) => {
        const before = load.done();
        await workFor(load, forSeconds);
        return load.done() - before;
      },
      gauges: {
        historyListLength: () => rig.database.probe.historyListLength(),
        brokerMegabytes: () => residentMegabytes(broker.pid),
      },
      log: (line) => console.error(`  ${rig.database.name}, ${line}`),
    });
  } finally {
    await load.stop();
    for (const queue of queues) await assertDepth(rig, queue, 0);
  }
}

/** A queue on PostgreSQL, in-process, batch 100, under a snapshot from the start. */
async function measurePeer(peer: Peer, { minutes, seconds, warmUpSeconds }: Options): Promise<Minute[]> {
  const stretch = { seconds: minutes * seconds, warmUpSeconds, bodyBytes: 200 };
  const { measured } = await measureUnderHeldSnapshot(peer, stretch);
  return Array.from({ length: minutes }, (_, index) => {
    const rates = measured.perSecond.slice(index * seconds, (index + 1) * seconds);
    const perSecond = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
    console.error(`  ${peer.name}, minute ${index + 1}: ${Math.round(perSecond)}/s`);
    return { minute: index + 1, perSecond, gauges: {} };
  });
}

/** Opens a transaction, reads with it, and keeps it open. Returns the function that ends it. */
async function openSnapshot(rig: Rig): Promise<() => Promise<void>> {
  const connection = await createConnection({ uri: rig.database.url });
  await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ');
  await connection.query('START TRANSACTION WITH CONSISTENT SNAPSHOT');
  await connection.query('SELECT COUNT(*) FROM queue');
  return () => connection.end();
}

function toMarkdown(runs: Record<string, Minute[][]>, { minutes, seconds }: Options): string {
  const all = Object.entries(runs).flatMap(([server, of]) => of.map((each) => ({ server, each })));
  const rows = all.flatMap(({ server, each }) =>
    each.map(({ minute, perSecond, gauges }) => [
      server,
      minute === 0 ? 'before' : String(minute),
      number(perSecond),
      number(gauges['historyListLength'] ?? Number.NaN),
      number(gauges['brokerMegabytes'] ?? Number.NaN, 0),
    ]),
  );
  const ratios = all.map(({ server, each }) => [server, lastToFirst(each).toFixed(2)]);
  return `The load is full lifecycles over HTTP at batch 100, with 8 producers, 8 consumers and bodies of 200
bytes. In ${minutes} stretches of ${seconds} s, one connection holds a consistent snapshot open; one stretch before
them has no snapshot. Every message is accounted for by its id, and the queue is empty in the
database at the end. Queues on PostgreSQL run in-process at batch 100, with a snapshot from the
start.

${table(['server', 'minute', 'messages/s', 'history list length', 'broker MiB'], rows)}

${table(['server', 'last minute to first'], ratios)}`;
}
