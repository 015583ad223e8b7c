import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { newPackId, PACK_MESSAGES } from '@rowmq/contract';
import { encodePack, PACK_BYTES } from '../libs/store/src/messages/pack.codec.js';
import { Database, openDataSource, PartitionRepository, QueueRepository, ReaperRepository } from '@rowmq/store';
import { SessionClock } from '../test/support/clock.js';
import { freePort, startApp } from '../test/support/processes.js';
import { BrokerLoad } from './harness/broker-load.js';
import { median, type Quantiles } from './harness/figures.js';
import type { LoadShape } from './harness/load.js';
import { number, table } from './harness/markdown.js';
import { benchCommand, type BenchOptions, positive } from './harness/options.js';
import { publish } from './harness/publish.js';
import { withEachServer } from './harness/rig.js';
import { runFor } from './harness/stretch.js';

const DAY = 86_400_000;
const HOUR = 3_600_000;
/** Share of a stretch after which the reaper begins. */
const REAPER_STARTS_AFTER = 0.1;
const PACKS_PER_INSERT = 200;
const OPERATIONS = ['enqueue', 'dequeue', 'ack'] as const;

/** Each run is a pair of stretches. */
interface Options extends BenchOptions {
  messages: number;
  partitions: number;
  rate: number;
  batch: number;
  body: number;
}

interface Stretch {
  reaper: 'off' | 'dropping';
  latencies: Record<string, Quantiles>;
}

interface ServerResult {
  stretches: Stretch[];
  /** Duration of each drop, for each stretch that had some. */
  dropMs: number[][];
}

/** Measures what drops of partitions with settled messages cost the other users of the broker. */
export async function main(args: readonly string[]): Promise<void> {
  const options = readOptions(args);
  const results = await withEachServer(options, ({ url }) => measure(url, options));
  await publish({
    title: 'Reaping beside running producers and consumers',
    script: 'bench:reap',
    args,
    options,
    results,
    markdown: toMarkdown(results, options),
  });
}

function readOptions(args: readonly string[]): Options {
  // A drop of a large partition every half minute.
  const defaults = { runs: 3, seconds: 150, warmUpSeconds: 5, json: 'reap' };
  return benchCommand('bench:reap', 'What dropping partitions of settled messages costs meanwhile.', defaults)
    .option('--messages <count>', 'settled messages that are dropped in each run', positive, 1_000_000)
    .option('--partitions <count>', 'in how many partitions they are', positive, 4)
    .option('--rate <requests>', 'enqueues a second, and dequeues', positive, 50)
    .option('--batch <messages>', 'messages of a request', positive, 4)
    .option('--body <bytes>', 'bytes of a body', positive, 200)
    .parse(args, { from: 'user' })
    .opts<Options>();
}

/** Shared by the stretches of a run. */
interface Bench {
  database: Database;
  url: string;
  brokerUrl: string;
  queue: { id: number; name: string };
  options: Options;
}

async function measure(url: string, options: Options): Promise<ServerResult> {
  const dataSource = await openDataSource({ url, poolSize: 4 });
  const database = new Database(dataSource, 60_000);
  const { queue } = await new QueueRepository(database).put('bench', {});
  const now = Date.now();
  // MySQL adds partitions only at the end, so those of every run are made first, the oldest first.
  // The retention decides which the reaper drops.
  const eras = Array.from({ length: options.runs }, (_, run) => now - (options.runs - run) * 10 * DAY);
  await makePartitions(url, eras, options);
  const port = await freePort();
  const broker = await startApp('broker', { ROWMQ_DATABASE_URL: url, ROWMQ_PORT: String(port), ...options.brokerEnv });
  const bench = { database, url, brokerUrl: `http://127.0.0.1:${port}`, queue, options };
  const result: ServerResult = { stretches: [], dropMs: [] };
  for (const era of eras) {
    const { stretches, dropMs } = await measurePair(bench, era, now);
    result.stretches.push(...stretches);
    result.dropMs.push(dropMs);
    console.error(`  ${result.stretches.length} of ${2 * options.runs} stretches`);
  }
  await broker.stop();
  await dataSource.destroy();
  return result;
}

async function makePartitions(url: string, eras: number[], options: Options): Promise<void> {
  const dataSource = await openDataSource({ url, poolSize: 1 });
  let now: number | undefined;
  new SessionClock(() => now).drive(dataSource);
  const partitions = new PartitionRepository(new Database(dataSource, 60_000));
  const width = { widthMinutes: 60, advanceMinutes: options.partitions * 60 };
  for (const era of eras) {
    now = era;
    await partitions.createMissing(width);
  }
  // Makes as many as the reaper would, so that the reaper makes none.
  now = undefined;
  await partitions.createMissing({ widthMinutes: 60, advanceMinutes: 3 * 1440 });
  await dataSource.destroy();
}

/** Two stretches on a table full of settled messages, the second with the reaper dropping them. */
async function measurePair(
  bench: Bench,
  era: number,
  now: number,
): Promise<{ stretches: Stretch[]; dropMs: number[] }> {
  const { database, url, brokerUrl, queue, options } = bench;
  const reaper = new ReaperRepository(database);
  const load = async (seconds: number): Promise<Stretch['latencies']> => {
    const running = await BrokerLoad.start(brokerUrl, { ...loadOf(options), queues: [queue.name] }, 'steady');
    try {
      await runFor(running, seconds);
    } finally {
      await running.stop();
    }
    return running.takeLatencies();
  };
  await fill(database, queue.id, era, options);
  await reaper.acquireLease('bench', 3600);
  await load(options.warmUpSeconds);
  const off = await load(options.seconds);

  const retentionSeconds = Math.floor((now - era - 2 * DAY - options.partitions * HOUR) / 1000);
  const reaping = await startApp('reaper', {
    ROWMQ_DATABASE_URL: url,
    ROWMQ_RETENTION_SECONDS: String(retentionSeconds),
    ROWMQ_REAPER_INTERVAL_SECONDS: '1',
  });
  await load(options.warmUpSeconds);
  const began = Date.now();
  const measured = load(options.seconds);
  await sleep(options.seconds * 1000 * REAPER_STARTS_AFTER);
  await reaper.dropLease('bench');
  const dropping = await measured;
  await reaping.stop();
  await assertDropped(database, era + options.partitions * HOUR);
  const runs = await reaper.lastRuns('drop-partitions', 100);
  const drops = runs.filter(({ count, startedAt }) => count > 0 && startedAt > began);
  return {
    stretches: [
      { reaper: 'off', latencies: off },
      { reaper: 'dropping', latencies: dropping },
    ],
    dropMs: drops.map(({ durationMs }) => durationMs).toReversed(),
  };
}

/** Fails if a partition of a time before this is still there. */
async function assertDropped(database: Database, before: number): Promise<void> {
  const partitions = await new PartitionRepository(database).list();
  const left = partitions.filter(({ until }) => until !== null && until <= before);
  if (left.length > 0) throw new Error(`the reaper did not drop ${left.map(({ name }) => name).join(', ')} in time`);
}

/**
 * Requests at a constant rate. A latency counts from the moment at which the request was due, so a
 * stall shows in all that it delayed.
 */
function loadOf({ rate, batch, body }: Options): LoadShape {
  const side = { perSecond: rate };
  return { producers: side, consumers: side, batch, bodyBytes: body, countsFromDue: true };
}

/**
 * Inserts full packs of messages as if they had been acked, spread evenly over the partitions from
 * an instant on.
 */
async function fill(database: Database, queueId: number, from: number, options: Options): Promise<void> {
  const { messages, partitions, body } = options;
  const step = (partitions * HOUR) / messages;
  const size = Math.min(PACK_MESSAGES, Math.max(1, Math.floor(PACK_BYTES / (body + 4))));
  for (let done = 0; done < messages;) {
    const rows: unknown[] = [];
    for (; rows.length < PACKS_PER_INSERT && done < messages; done += size) {
      const contents = Array.from({ length: Math.min(size, messages - done) }, () => ({
        body: Buffer.from(randomBytes(body / 2).toString('hex')),
        headers: null,
      }));
      const id = newPackId(Math.floor(from + done * step));
      rows.push([id, queueId, contents.length, from + 4 * DAY, encodePack(contents)]);
    }
    await database.write('INSERT INTO pack (id, queue_id, count, expires_at, payload) VALUES ?', [rows]);
  }
}

function toMarkdown(results: Record<string, ServerResult>, options: Options): string {
  const { rate, batch, body, messages, partitions, runs, seconds } = options;
  const rows = Object.entries(results).flatMap(([server, { stretches }]) =>
    OPERATIONS.map((operation) => {
      const of = (reaper: Stretch['reaper'], what: keyof Quantiles): number =>
        median(
          stretches
            .filter((stretch) => stretch.reaper === reaper)
            .map(({ latencies }) => latencies[operation]?.[what] ?? Number.NaN),
        );
      const figures = (['off', 'dropping'] as const).flatMap((reaper) =>
        (['p50', 'p99', 'max'] as const).map((what) => number(of(reaper, what))),
      );
      return [server, operation, ...figures, (of('dropping', 'p99') / of('off', 'p99')).toFixed(2)];
    }),
  );
  const drops = Object.entries(results).map(
    ([server, { dropMs }]) => `${server}: the drops took ${dropMs.map((each) => each.join(' + ')).join('; ')} ms.`,
  );
  return `The load is ${rate} enqueues/s of ${batch} messages of ${body} bytes, as many dequeues/s, and an ack of each
message. ${partitions} partitions hold ${number(messages)} settled messages, and the reaper drops all of them within the
second stretch. Figures are medians of ${runs} stretches of ${seconds} s each, alternating. Latencies are in ms.

${table(['server', 'call', 'off: p50', 'p99', 'max', 'dropping: p50', 'p99', 'max', 'p99 ratio'], rows)}

${drops.join('\n')}`;
}
