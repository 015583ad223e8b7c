import { join } from 'node:path';
import type { ServerKind } from '@rowmq/mysql-server';
import { Command, InvalidArgumentError } from 'commander';
import { freePort, startApp } from '../test/support/processes.js';
import { number, table } from './harness/markdown.js';
import { addSetting, positive, serverKinds } from './harness/options.js';
import { publish } from './harness/publish.js';
import { ROOT, type RunningServer, withEachServer } from './harness/rig.js';
import { type Flatness, judgeFlatness } from './soak/flatness.js';
import type { Sample } from './soak/quantities.js';
import { sampleUntil } from './soak/sampler.js';
import { type SimulatorEnd, startSimulator } from './soak/simulator-load.js';

interface Options {
  minutes: number;
  servers: ServerKind[];
  rate: number;
  queues: number;
  sampleSeconds: number;
  bufferPoolMegabytes: number;
  brokerEnv: Record<string, string>;
  json: string;
}

interface SoakResult {
  verdict: 'flat' | 'not flat' | 'not judged';
  simulator: SimulatorEnd;
  flatness: Flatness[];
  samples: Sample[];
}

/** The simulator has the same. */
const EXIT = { flat: 0, 'not flat': 1, 'not judged': 2 } as const;

/**
 * The shortest retention and the narrowest partitions, so that the reaper removes messages within
 * the run.
 */
const REAPER = {
  ROWMQ_RETENTION_SECONDS: '60',
  ROWMQ_PARTITION_MINUTES: '1',
  ROWMQ_PARTITIONS_AHEAD_MINUTES: '10',
  ROWMQ_REAPER_INTERVAL_SECONDS: '1',
};
/** The binlog has to reach its full length before the second quarter, too. */
const BINLOG = 'SET GLOBAL binlog_expire_logs_seconds = 60, GLOBAL max_binlog_size = 4194304';
/**
 * From then on, the reaper removes as much as producers write: after the retention, a partition's
 * span, and two rounds of drops.
 */
const SETTLED_SECONDS = 180;

/** Loads a broker steadily, and judges whether everything that could grow stays as it is. */
export async function main(args: readonly string[]): Promise<number> {
  const options = readOptions(args);
  const results = await withEachServer(options, async (server) => {
    const result = await soak(server, options);
    console.error(`  ${server.name}: ${result.verdict}`);
    return result;
  });
  const title = options.servers.length === 1 ? `Soak: ${options.servers.join()}` : 'Soak';
  await publish({ title, script: 'soak', args, options, results, markdown: toMarkdown(results, options) });
  const verdicts = new Set(Object.values(results).map(({ verdict }) => verdict));
  const worst = (['not flat', 'not judged'] as const).find((verdict) => verdicts.has(verdict)) ?? 'flat';
  console.log(`\nVerdict: ${worst}`);
  return EXIT[worst];
}

function readOptions(args: readonly string[]): Options {
  return new Command('npm run soak --')
    .description(
      'A broker, a reaper and a database under a steady load with faults: does anything grow? Exit codes: 0 flat; 1 something grew, or a guarantee was broken; 2 too short to be judged.',
    )
    .helpOption('--help')
    .option('--minutes <minutes>', 'length on each server; judged from 12 on', minutes, 60)
    .option('--servers <kinds>', 'which servers, one after the other', serverKinds, ['mysql', 'mariadb'])
    .option('--rate <messages>', 'a second', positive, 300)
    .option('--queues <count>', 'that the messages are spread over', positive, 4)
    .option('--sample-seconds <seconds>', 'between two readings', positive, 5)
    .option(
      '--buffer-pool-megabytes <megabytes>',
      "the servers' buffer pool: one that is full within the first quarter",
      positive,
      32,
    )
    .option('--broker-env <NAME=VALUE>', 'a setting of the broker; may be repeated', addSetting, {})
    .option(
      '--json <file>',
      'where the readings go; only those in bench/results show in bench/RESULTS.md',
      join(ROOT, 'bench', 'results', 'soak.json'),
    )
    .parse(args, { from: 'user' })
    .opts<Options>();
}

function minutes(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0 && value <= 10_080)) {
    throw new InvalidArgumentError('must be a number of minutes above 0, and a week at most');
  }
  return value;
}

async function soak(database: RunningServer, options: Options): Promise<SoakResult> {
  await database.probe.query(BINLOG);
  let heapBytes: number | undefined;
  const reaper = await startApp(
    'reaper',
    { ROWMQ_DATABASE_URL: database.url, ...REAPER },
    {
      preload: join(ROOT, 'bench', 'harness', 'tell-heap.mjs'),
      onMessage: (message) => {
        heapBytes = (message as { heapBytes?: number }).heapBytes ?? heapBytes;
      },
    },
  );
  const port = await freePort();
  const env = { ROWMQ_DATABASE_URL: database.url, ROWMQ_PORT: String(port), ...options.brokerEnv };
  const broker = { ...(await startApp('broker', env)), url: `http://127.0.0.1:${port}` };
  const samples: Sample[] = [];
  const stopSampling = new AbortController();
  const seconds = options.minutes * 60;
  try {
    const subjects = { database, broker, reaper, reaperHeapBytes: () => heapBytes };
    const simulator = await startSimulator(broker.url, { ...options, seconds });
    const sampling = sampleUntil(stopSampling.signal, options.sampleSeconds, subjects, (sample) => {
      samples.push(sample);
      log(database.name, sample);
    });
    const end = await Promise.race([
      simulator.ended,
      // `sampling` only fails; it never ends before the simulator.
      sampling.then(() => Promise.reject(new Error('the readings ended early'))),
    ]);
    stopSampling.abort();
    await sampling;
    const flatness = judgeFlatness(samples, seconds);
    return { verdict: verdictOf(flatness, end, seconds), simulator: end, flatness, samples };
  } finally {
    stopSampling.abort();
    await broker.stop();
    await reaper.stop();
  }
}

function verdictOf(flatness: readonly Flatness[], { code }: SimulatorEnd, seconds: number): SoakResult['verdict'] {
  if (code === 1) return 'not flat';
  if (code !== 0 || seconds / 4 < SETTLED_SECONDS) return 'not judged';
  return flatness.every(({ isFlat }) => isFlat) ? 'flat' : 'not flat';
}

function log(server: string, { at, values }: Sample): void {
  const { brokerMegabytes, reaperMegabytes, folderMegabytes, claimTailMs, historyListLength, deliveries } = values;
  const shown = { brokerMegabytes, reaperMegabytes, folderMegabytes, claimTailMs, historyListLength, deliveries };
  const texts = Object.entries(shown).map(([name, value]) => `${name} ${number(value ?? Number.NaN)}`);
  console.error(`  ${server}, ${Math.round(at)} s: ${texts.join(', ')}`);
}

function toMarkdown(
  results: Record<string, SoakResult>,
  { minutes: length, rate, queues, sampleSeconds }: Options,
): string {
  const rows = Object.entries(results).flatMap(([server, { flatness }]) =>
    flatness.map(({ quantity, second, last, allowed, isFlat }) => [
      server,
      [quantity.name, quantity.unit].filter(Boolean).join(', '),
      number(second),
      number(last),
      number(allowed ?? Number.NaN),
      allowed === null ? '–' : isFlat ? 'flat' : '**not flat**',
    ]),
  );
  const verdicts = Object.entries(results).map(
    ([server, { verdict, simulator }]) =>
      `${server}: **${verdict}**; the simulator's ledger: ${ledgerLines(simulator)}`,
  );
  return `For ${number(length)} minutes, the simulator sends ${rate} messages a second to ${queues} queues, in batches of 5 with bodies
of 64 to 1,024 bytes. Some of its 8 consumers vanish with their leases, hang up, are slower than
their leases, or nack messages. Some messages expire. Quantities are read every ${sampleSeconds} s; a quarter's
figure is the median of its readings. The reaper works within the run: the retention is 60 s, and
partitions are a minute wide. The binlog is kept for a minute. \`bench/soak/quantities.ts\` has the
allowed growth.

${table(['server', 'quantity', 'second quarter', 'last quarter', 'flat up to', ''], rows)}

${verdicts.join('\n\n')}`;
}

/** The lines of the simulator's output with the counts and with the verdict. */
function ledgerLines({ output }: SimulatorEnd): string {
  const sent = /^[\d,]+ messages sent.*$/m.exec(output)?.[0];
  const verdict = /^Verdict: \w+$/m.exec(output)?.[0];
  return [sent, verdict].filter((line) => line !== undefined).join(' ') || 'no verdict.';
}
