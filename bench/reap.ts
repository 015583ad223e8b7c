import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { newMessageId } from '@rowmq/contract';
import {
  Database,
  EmbeddedServer,
  findServer,
  migrateDatabase,
  openDataSource,
  PartitionRepository,
  QueueRepository,
  ReaperRepository,
  type ServerKind,
} from '@rowmq/store';
import { freePort, startApp } from './app-process.js';
import { type Latencies, type Load, type Operation, OPERATIONS, steadyLoad } from './steady-load.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DAY = 86_400_000;
const HOUR = 3_600_000;
/** Before each measured stretch: connections, caches. */
const WARM_UP_SECONDS = 5;
/** Of a stretch, after which the reaper begins. */
const REAPER_STARTS_AFTER = 0.1;
const ROWS_PER_INSERT = 5000;

interface Options extends Load {
  kinds: ServerKind[];
  messages: number;
  partitions: number;
  seconds: number;
  pairs: number;
  json: string;
}

interface Stretch {
  reaper: 'off' | 'dropping';
  latencies: Record<Operation, Latencies>;
}

interface ServerResult {
  server: string;
  stretches: Stretch[];
  /** How long each drop took, in each stretch in which there were some. */
  dropMs: number[][];
}

/** Measures what dropping partitions of settled messages costs those who use the broker meanwhile. */
export async function main(): Promise<void> {
  const options = readOptions();
  const results: ServerResult[] = [];
  for (const kind of options.kinds) results.push(await measureServer(kind, options));
  const report = {
    date: new Date().toISOString().slice(0, 10),
    commit: execFileSync('git', ['describe', '--always', '--dirty'], { cwd: ROOT, encoding: 'utf8' }).trim(),
    machine: `${cpus().length} × ${cpus()[0]?.model ?? 'CPU'}, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    node: process.version,
    options,
    results,
  };
  await mkdir(dirname(options.json), { recursive: true });
  await writeFile(options.json, `${JSON.stringify(report, undefined, 2)}\n`);
  console.log(toMarkdown(report));
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      servers: { type: 'string', default: 'mysql,mariadb' },
      messages: { type: 'string', default: '1000000' },
      partitions: { type: 'string', default: '4' },
      // A drop of a large partition every half minute.
      seconds: { type: 'string', default: '150' },
      pairs: { type: 'string', default: '3' },
      rate: { type: 'string', default: '50' },
      batch: { type: 'string', default: '4' },
      body: { type: 'string', default: '200' },
      json: { type: 'string', default: join(ROOT, 'bench', 'results', 'reap.json') },
    },
  });
  return {
    kinds: values.servers.split(',') as ServerKind[],
    messages: Number(values.messages),
    partitions: Number(values.partitions),
    seconds: Number(values.seconds),
    pairs: Number(values.pairs),
    requestsPerSecond: Number(values.rate),
    messagesPerRequest: Number(values.batch),
    bodyBytes: Number(values.body),
    json: values.json,
  };
}

async function measureServer(kind: ServerKind, options: Options): Promise<ServerResult> {
  const serversDir = process.env['ROWMQ_SERVERS_DIR'];
  const program = await findServer({
    kinds: [kind],
    dataDir: join(ROOT, '.rowmq-test'),
    ...(serversDir ? { serversDir } : {}),
  });
  const dataDir = await mkdtemp(join(tmpdir(), 'rowmq-bench-'));
  const server = await EmbeddedServer.start({ program, dataDir, bufferPoolMegabytes: 1024 });
  try {
    await migrateDatabase(server.url);
    const result = await measure(server.url, options);
    return { server: `${kind} ${program.version}`, ...result };
  } finally {
    await server.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
}

/** Pairs of stretches: both on a table full of settled messages, the second with the reaper dropping them. */
async function measure(url: string, options: Options): Promise<Omit<ServerResult, 'server'>> {
  const dataSource = await openDataSource({ url, poolSize: 4 });
  const database = new Database(dataSource, 60_000);
  const partitions = new PartitionRepository(database);
  const reaper = new ReaperRepository(database);
  const { queue } = await new QueueRepository(database).put('bench', {});
  const now = Date.now();
  // Partitions can only be made towards the future, so those of every pair come first; the retention says which pair's go.
  const eras = Array.from({ length: options.pairs }, (_, pair) => now - (options.pairs - pair) * 10 * DAY);
  const width = { widthMinutes: 60, aheadMinutes: options.partitions * 60 };
  for (const era of eras) await partitions.createAhead({ ...width, now: era });
  // As many as the reaper would make, so that it does not.
  await partitions.createAhead({ widthMinutes: 60, aheadMinutes: 3 * 1440, now });
  const port = await freePort();
  const broker = await startApp('broker', { ROWMQ_DATABASE_URL: url, ROWMQ_PORT: String(port) });
  const address = `http://127.0.0.1:${port}`;
  const stretches: Stretch[] = [];
  const dropMs: number[][] = [];
  for (const era of eras) {
    await fill(database, queue.id, era, options);
    await reaper.takeLease('bench', 3600);
    await steadyLoad(address, queue.name, options, WARM_UP_SECONDS);
    stretches.push({ reaper: 'off', latencies: await steadyLoad(address, queue.name, options, options.seconds) });

    const retentionSeconds = Math.floor((now - era - 2 * DAY - options.partitions * HOUR) / 1000);
    const reaping = await startApp('reaper', {
      ROWMQ_DATABASE_URL: url,
      ROWMQ_RETENTION_SECONDS: String(retentionSeconds),
      ROWMQ_REAPER_INTERVAL_SECONDS: '1',
    });
    await steadyLoad(address, queue.name, options, WARM_UP_SECONDS);
    const began = Date.now();
    const measured = steadyLoad(address, queue.name, options, options.seconds);
    await sleep(options.seconds * 1000 * REAPER_STARTS_AFTER);
    await reaper.dropLease('bench');
    stretches.push({ reaper: 'dropping', latencies: await measured });
    await reaping.stop();
    const left = (await partitions.list()).filter(
      ({ until }) => until !== null && until <= era + options.partitions * HOUR,
    );
    if (left.length > 0) throw new Error(`the reaper did not drop ${left.map(({ name }) => name).join(', ')} in time`);
    const drops = (await reaper.lastRuns('drop-partitions', 100)).filter(
      ({ count, startedAt }) => count > 0 && startedAt > began,
    );
    dropMs.push(drops.map(({ durationMs }) => durationMs).toReversed());
    console.error(`  ${stretches.length} of ${2 * options.pairs} stretches`);
  }
  await broker.stop();
  await dataSource.destroy();
  return { stretches, dropMs };
}

/** Settled messages, as if they had been acked, evenly over the partitions that begin at an instant. */
async function fill(database: Database, queueId: number, from: number, options: Options): Promise<void> {
  const step = (options.partitions * HOUR) / options.messages;
  for (let done = 0; done < options.messages; done += ROWS_PER_INSERT) {
    const count = Math.min(ROWS_PER_INSERT, options.messages - done);
    const rows = Array.from({ length: count }, (_, index) => [
      newMessageId(Math.floor(from + (done + index) * step)),
      queueId,
      randomBytes(options.bodyBytes / 2).toString('hex'),
      from + 4 * DAY,
    ]);
    await database.write('INSERT INTO message (id, queue_id, body, expires_at) VALUES ?', [rows]);
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

function toMarkdown(report: {
  date: string;
  commit: string;
  machine: string;
  node: string;
  options: Options;
  results: ServerResult[];
}): string {
  const { options, results } = report;
  const lines = [
    `${report.date}, commit ${report.commit}, Node ${report.node}, ${report.machine}; broker, reaper, database and load on the same machine.`,
    `${options.requestsPerSecond} enqueues/s of ${options.messagesPerRequest} messages of ${options.bodyBytes} bytes, as many dequeues/s, and acks of what was dequeued;`,
    `${options.messages.toLocaleString('en')} settled messages in ${options.partitions} partitions. Medians of ${options.pairs} stretches of ${options.seconds} s each, alternating; ms.`,
    '',
    '| server | call | off: p50 | p99 | max | dropping: p50 | p99 | max | p99 ratio |',
    '|---|---|---|---|---|---|---|---|---|',
  ];
  for (const { server, stretches } of results) {
    for (const operation of OPERATIONS) {
      const of = (reaper: Stretch['reaper'], what: keyof Latencies): number =>
        median(
          stretches.filter((stretch) => stretch.reaper === reaper).map(({ latencies }) => latencies[operation][what]),
        );
      const figures = (['off', 'dropping'] as const).flatMap((reaper) =>
        (['p50', 'p99', 'max'] as const).map((what) => of(reaper, what).toFixed(1)),
      );
      const ratio = (of('dropping', 'p99') / of('off', 'p99')).toFixed(2);
      lines.push(`| ${server} | ${operation} | ${figures.join(' | ')} | ${ratio} |`);
    }
  }
  lines.push('');
  for (const { server, dropMs } of results)
    lines.push(`${server}: the drops took ${dropMs.map((each) => each.join(' + ')).join('; ')} ms.`);
  return lines.join('\n');
}
