import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { onEachServer, type Rig } from '../../bench/harness/rig.js';
import { testServer } from '../support/servers.js';

/*
 * Runs the benchmarks in their smallest form. They account for every message and report. Their
 * figures mean nothing here.
 *
 * The soak runs as users run it: npm, a build, and a server of its own. The comparison with other
 * systems measures RowMQ only, on servers of its own. The others run in this process, and share one
 * broker on the tests' server. Starts and builds took most of the time.
 */

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Only ends a run that hangs. */
const HANG_MS = 600_000;
const DAY = 86_400_000;
const SMALL = ['--runs', '1', '--seconds', '0.2', '--warm-up-seconds', '0'];

interface Benchmark {
  /** Returns the exit code, or nothing for 0. */
  main(args: readonly string[], rig?: Rig): Promise<number | undefined>;
}

interface Soak {
  simulator: unknown;
  flatness: { second: number | null; last: number | null }[];
}

interface PeerResult {
  name: string;
  rounds: Record<string, unknown>[];
}

let folder: string;
let scripts: Record<string, string>;
/** The shared broker and its database. */
let rig: Rig;
let closeRig: () => Promise<unknown>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-bench-test-'));
  ({ scripts } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { scripts: typeof scripts });
  ({ rig, closeRig } = await openRig());
}, HANG_MS);
afterAll(async () => {
  await closeRig();
  await rm(folder, { recursive: true, force: true });
}, HANG_MS);

async function openRig(): Promise<{ rig: Rig; closeRig: () => Promise<unknown> }> {
  const server = { databaseUrl: testServer().url, servers: [], bufferPoolMegabytes: 0 };
  // bench:depth stores messages of the last day.
  const options = { ...server, brokerEnv: {}, partitionsFrom: Date.now() - 2 * DAY };
  return new Promise((resolve, reject) => {
    const ended = onEachServer(options, async (opened) => {
      await new Promise<void>((close) => {
        const closeOpened = async (): Promise<unknown> => {
          close();
          return ended;
        };
        resolve({ rig: opened, closeRig: closeOpened });
      });
    });
    ended.catch(reject);
  });
}

/** Runs what `npm run <name>` runs, and returns what it prints. */
async function measure(name: string, args: readonly string[], on?: Rig): Promise<string> {
  const [, module] = /^exec node bench\/run\.mjs ([\w-]+)$/.exec(scripts[name] ?? '') ?? [];
  if (module === undefined) throw new Error(`the npm script ${name} runs no benchmark: ${scripts[name]}`);
  const benchmark = (await import(join(ROOT, 'bench', `${module}.ts`))) as Benchmark;
  const log = vi.spyOn(console, 'log').mockReturnValue();
  try {
    expect(await benchmark.main(args, on)).toBeUndefined();
    return log.mock.calls.map((line) => line.join(' ')).join('\n');
  } finally {
    log.mockRestore();
  }
}

/** Expects figures of the tests' server in the file. */
async function expectReport(json: string): Promise<void> {
  const { kind, version } = testServer();
  expect(JSON.parse(await readFile(json, 'utf8'))).toMatchObject({
    commit: expect.any(String),
    results: { [`${kind} ${version}`]: expect.anything() },
  });
}

describe('a benchmark', () => {
  it.each([
    ['bench', ['--only', 'batch 10', '--only', '200 messages/s'], /\| batch 10 \| \*\*[\d,.]+\*\*/],
    ['bench:depth', ['--backlogs', '2000'], /2,000/],
    ['bench:snapshot', ['--minutes', '2', '--no-peers'], /last minute to first/],
    ['bench:fanin', ['--consumers', '1,4'], /batch 10, 4 consumers/],
    [
      'bench:brokers',
      ['--brokers', '1,2', '--only', 'batch 10,', '--only', '200 messages/s'],
      /batch 10, 2 brokers, requests dealt round, to one[\s\S]*producers and consumers on different brokers \| [\d,.]+ /,
    ],
    ['bench:dashboard', ['--pages', '2', '--queues', '3'], /\| 2 pages \|/],
    ['bench:flood', [], /key has a limit \|/],
    ['bench:sqs', [], /AWS SDK for JavaScript to RowMQ's client/],
    ['bench:client', [], /batch 100: the client's consumers to bare calls/],
    ['bench:cost', [], /delivery\.delivery_next/],
    ['bench:idle', ['--consumers', '20', '--queues', '4'], /queries/],
  ])(
    'npm run %s measures, accounts for every message and reports',
    async (name, options, reported) => {
      const json = join(folder, `${name.replace(':', '-')}.json`);
      expect(await measure(name, [...SMALL, '--json', json, ...options], rig)).toMatch(reported);
      await expectReport(json);
    },
    HANG_MS,
  );

  it(
    'npm run bench:alternatives measures on the server that --database-url names, and reports',
    async () => {
      const json = join(folder, 'alternatives.json');
      const options = ['--database-url', testServer().url, '--messages', '400', '--json', json];
      // It has 60 stretches, and each repeats its work at least once.
      const shortest = ['--runs', '1', '--seconds', '0.05'];
      expect(await measure('bench:alternatives', [...shortest, ...options])).toMatch(
        /packs \+ hand-off[\s\S]*Several brokers on one queue/,
      );
      await expectReport(json);
    },
    HANG_MS,
  );

  it(
    "npm run bench:peers measures RowMQ's client and two brokers behind a balancer, and reports",
    async () => {
      const { kind } = testServer();
      const [client, brokers] = [`rowmq-client-${kind}`, `rowmq-two-brokers-${kind}`];
      const json = join(folder, 'peers.json');
      const small = ['--runs', '1', '--seconds', '1', '--warm-up-seconds', '0', '--json', json];
      const report = await measure('bench:peers', ['--only', `${client},${brokers}`, ...small]);
      expect(report).toMatch(/\| RowMQ through its client, \w+ \| – \| – \| [\d,.]+ /);
      const { results } = JSON.parse(await readFile(json, 'utf8')) as { results: Record<string, PeerResult> };
      const kindsOf = Object.values(results).map(({ name, rounds }) => [name, Object.keys(rounds[0] ?? {})]);
      expect(Object.fromEntries(kindsOf)).toEqual({ [client]: ['used'], [brokers]: ['batch', 'single', 'steady'] });
    },
    HANG_MS,
  );

  it(
    'the soak reads every quantity, and does not judge a run of eight seconds',
    async () => {
      const json = join(folder, 'soak.json');
      // Each quarter of the run has two readings.
      const small = ['--servers', testServer().kind, '--minutes', '0.14', '--rate', '50', '--sample-seconds', '1'];
      const ended: unknown = await promisify(execFile)(
        'npm',
        ['run', '--silent', 'soak', '--', ...small, '--json', json],
        {
          cwd: ROOT,
          timeout: HANG_MS,
          env: { ...process.env, NODE_ENV: 'test' },
        },
      ).catch((error: unknown) => error);
      expect(ended).toMatchObject({ code: 2, stdout: expect.stringContaining('Verdict: not judged') });

      const { results } = JSON.parse(await readFile(json, 'utf8')) as { results: Record<string, Soak> };
      const [soak] = Object.values(results) as [Soak];
      expect(soak.simulator).toMatchObject({ code: 0, output: expect.stringContaining('Verdict: OK') });
      expect(soak.flatness.length).toBeGreaterThan(10);
      // A quantity that could not be read is null here.
      expect(soak.flatness.filter(({ second, last }) => second === null || last === null)).toEqual([]);
    },
    HANG_MS,
  );
});
