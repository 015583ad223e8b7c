import { spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { QueuesAnswer } from '@rowmq/contract';
import { findProcessesByArgument, isRunning, type ProcessIdentity, terminateProcess } from '@rowmq/mysql-server';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Sample } from '../../tools/simulator/src/meter.js';
import { openClient } from '../../tools/simulator/src/open-client.js';
import { simulate as runSimulation } from '../../tools/simulator/src/simulation.js';
import { readSimulatorSettings } from '../../tools/simulator/src/simulator.config.js';
import { verdictText } from '../../tools/simulator/src/verdict-text.js';
import { type Broker, createMigratedDatabase, freePort, startBroker } from '../support/broker.js';
import {
  altersBodies,
  confirmsStaleAcks,
  deliversExpired,
  deliversTwice,
  type Lie,
  losesEnqueues,
  startLyingProxy,
  swallowsAcks,
} from '../support/lying-proxy.js';
import { type AppProcess, startApp } from '../support/processes.js';
import { testServer } from '../support/servers.js';
import { eventually } from '../support/wait.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Only ends a run that hangs. */
const DEADLINE_MS = 300_000;
/** Broker, reaper and database have stopped by then, unless one of them hangs. */
const STOP_MS = 120_000;

// Each run is a load of its own, and they share the machine.
vi.setConfig({ maxConcurrency: 3, testTimeout: 2 * DEADLINE_MS });

const UNWATCHED = { phase: () => undefined, sample: () => undefined };
const AFTER_ACK = 'Nothing is delivered after its ack';
const FENCED = 'Only the current lease settles or extends';
const ALL_FAULTS = '--crash-rate 0.25 --slow-rate 0.3 --nack-rate 0.1 --expire-rate 0.1 --lease-seconds 3'.split(' ');

interface Written {
  run: string;
  settings: Record<string, unknown>;
  totals: Record<string, number>;
  errors: Record<string, number>;
  verdict: {
    status: string;
    guarantees: { guarantee: string; status: string; checked: number }[];
    fates: Record<string, number>;
  };
}

let broker: Broker;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-simulator-test-'));
  // Bodies that stay in the rows of packs, and larger ones.
  broker = await startBroker({ env: { ROWMQ_MAX_BODY_BYTES: '12000' } });
});

afterAll(async () => {
  await broker.stop();
  await rm(folder, { recursive: true, force: true });
});

/**
 * Environment of a simulator that starts a broker of its own, with all of its files in this folder.
 */
function ownBroker(own: string): Record<string, string> {
  return {
    TMPDIR: own,
    ROWMQ_SERVERS_DIR: process.env['ROWMQ_SERVERS_DIR'] ?? join(ROOT, '.rowmq-test', 'servers'),
    ROWMQ_EMBEDDED_SERVER: testServer().kind,
    ROWMQ_BUFFER_POOL_MB: '128',
  };
}

/**
 * Runs the simulator as a user does, and returns how it ended.
 * @param interruptAt sends SIGINT once the simulator has printed a line like this
 */
async function simulate(
  args: readonly string[],
  { interruptAt, env = {} }: { interruptAt?: RegExp; env?: Record<string, string> } = {},
): Promise<{ code: number; output: string }> {
  const child = spawn(process.execPath, ['tools/simulator/dist/main.js', ...args], {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), DEADLINE_MS);
  let output = '';
  let interrupted = false;
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (interruptAt === undefined || interrupted || !interruptAt.test(output)) return;
      interrupted = true;
      child.kill('SIGINT');
    });
  }
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  clearTimeout(timer);
  if (code === null) throw new Error(`the simulator did not end by itself:\n${output}`);
  return { code, output };
}

/** Broken guarantees of a verdict. */
function brokenOf(guarantees: readonly { guarantee: string; status: string }[]): string[] {
  return guarantees.filter(({ status }) => status === 'BROKEN').map(({ guarantee }) => guarantee);
}

describe.concurrent('the simulator', () => {
  test('finds every guarantee kept by a broker, with every fault switched on', async () => {
    const report = join(folder, 'kept.json');
    const traffic =
      '--producers 4 --consumers 4 --seconds 15 --rate 800 --queues 2 --batch 5 --body-bytes 0-12000'.split(' ');
    const more = ['--report', report, '--priorities', '0-9', '--api-key', 'the-secret-key'];
    const { code, output } = await simulate(['--url', broker.url, ...traffic, ...ALL_FAULTS, ...more]);
    expect(output).toContain('Verdict: OK');
    expect(code).toBe(0);

    const written = await readFile(report, 'utf8');
    expect(written).not.toContain('the-secret-key');
    const { run, settings, totals, errors, verdict }: Written = JSON.parse(written);
    expect(verdict.guarantees.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 'OK'));
    expect(errors).toEqual({});
    // The faults did happen: otherwise the run would prove little.
    for (const fault of ['vanished', 'hungUp', 'slow', 'nacked', 'extended', 'leaseLost', 'redelivered']) {
      expect({ [fault]: totals[fault] }).not.toEqual({ [fault]: 0 });
    }
    expect(verdict.fates['expired']).toBeGreaterThan(0);
    expect(verdict.fates['unaccounted']).toBe(0);
    expect(settings).not.toHaveProperty('apiKey');
    // It leaves no queue behind.
    const { queues }: QueuesAnswer = JSON.parse(await (await fetch(`${broker.url}/v1/admin/queues`)).text());
    expect(queues.filter(({ name }) => name.startsWith(`sim-${run}-`))).toEqual([]);
  });

  test.each([
    ['1,000 groups', '--queues 1'],
    ['1,000 groups of each of three subscribers of a topic', '--topic --queues 3'],
  ])('finds the order of %s kept while two brokers are killed and start again', async (_, target) => {
    const database = await createMigratedDatabase();
    const ports = [await freePort(), await freePort()];
    const start = async (index: number): Promise<AppProcess> =>
      startApp('broker', { ROWMQ_DATABASE_URL: database.url, ROWMQ_PORT: String(ports[index]) });
    const brokers = [await start(0), await start(1)];
    const traffic = '--groups 1000 --producers 4 --consumers 6 --seconds 600 --rate 500 --batch 5 --max-backlog 2000';
    const faults = '--crash-rate 0.1 --slow-rate 0.1 --nack-rate 0.1 --expire-rate 0.05 --lease-seconds 1';
    const settings = readSimulatorSettings(`${target} ${traffic} ${faults}`.split(' '), {});
    const client = openClient(
      ports.map((port) => `http://127.0.0.1:${port}`),
      settings,
    );
    const stop = new AbortController();
    let acked = 0;
    const sample = ({ counts }: Sample): void => void (acked += counts.acked);
    const running = runSimulation(client, settings, { ...UNWATCHED, sample }, stop.signal);
    try {
      for (const index of [0, 1]) {
        const goal = acked + 500;
        await eventually('consumers work', () => acked >= goal, DEADLINE_MS);
        await brokers[index]?.kill();
        brokers[index] = await start(index);
      }
      const goal = acked + 500;
      await eventually('consumers work', () => acked >= goal, DEADLINE_MS);
      stop.abort();
      const result = await running;
      expect(result.verdict.status, verdictText(result)).toBe('OK');
      const checked = new Map(result.verdict.guarantees.map((one) => [one.guarantee, one.checked]));
      expect(checked.get('Messages of a group come in order')).toBeGreaterThan(1500);
    } finally {
      stop.abort();
      await running.catch(() => undefined);
      await client.close();
      for (const one of brokers) await one.stop();
      await database.drop();
    }
  });

  const lyingTraffic = '--producers 2 --consumers 3 --seconds 4 --rate 300 --lease-seconds 1 --drain-seconds 5'.split(
    ' ',
  );

  test('ends with exit code 1 and reports the guarantee when the broker loses what it confirmed', async () => {
    const proxy = await startLyingProxy(broker.url, losesEnqueues);
    const report = join(folder, 'lost.json');
    try {
      const { code, output } = await simulate(['--url', proxy.url, ...lyingTraffic, '--report', report]);
      expect(output).toContain('Verdict: BROKEN');
      expect(output).toContain('The queues were kept');
      expect(code).toBe(1);
      const { verdict }: Written = JSON.parse(await readFile(report, 'utf8'));
      expect(verdict.status).toBe('BROKEN');
      expect(brokenOf(verdict.guarantees)).toContain('Nothing is lost');
    } finally {
      await proxy.stop();
    }
  });

  const lies: [string, () => Lie, string[], string[]][] = [
    ['confirms acks that it swallows', () => swallowsAcks, [], [AFTER_ACK]],
    // Which of the two it is depends on whether the message had been handed out again by then.
    ['confirms stale acks', () => confirmsStaleAcks, ['--slow-rate', '0.5'], [FENCED, AFTER_ACK]],
    ['delivers the same lease twice', deliversTwice, [], ['A message has one valid lease at a time']],
    ['alters bodies', () => altersBodies, [], ['Nothing is altered']],
    [
      'delivers what has expired',
      () => deliversExpired,
      ['--expire-rate', '1'],
      ['Nothing is delivered after its expiry'],
    ],
  ];
  // In this process, because the exit code and the report depend on the verdict alone.
  test.each(lies)('finds the broken guarantee when the broker %s', async (_what, lie, args, possible) => {
    const proxy = await startLyingProxy(broker.url, lie());
    const settings = readSimulatorSettings([...lyingTraffic, ...args], {});
    const client = openClient(proxy.url, settings);
    try {
      const result = await runSimulation(client, settings, UNWATCHED, new AbortController().signal);
      const output = verdictText(result);
      expect(output).toContain('Verdict: BROKEN');
      expect(output).toContain('The queues were kept');
      expect(result.verdict.status).toBe('BROKEN');
      const broken = brokenOf(result.verdict.guarantees);
      expect(
        broken.some((guarantee) => possible.includes(guarantee)),
        `broken: ${broken.join(', ')}`,
      ).toBe(true);
    } finally {
      await client.close();
      await proxy.stop();
    }
  });

  test('ends with exit code 2 and names the URL when no broker listens there', async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    const { code, output } = await simulate(['--url', url]);
    expect(output).toContain(`No broker can be reached at ${url} (ECONNREFUSED); start one with npm start`);
    expect(code).toBe(2);
  });

  test('ends with exit code 2 and names the wrong option', async () => {
    const { code, output } = await simulate(['--crash-rate', 'often']);
    expect(output).toContain(
      "option '--crash-rate <share>' argument 'often' is invalid. It must be a number from 0 to 1.",
    );
    expect(code).toBe(2);
  });

  test('stops producing when interrupted, and still drains and judges', async () => {
    const args = ['--url', broker.url, '--producers', '2', '--consumers', '2', '--seconds', '600', '--rate', '200'];
    const { code, output } = await simulate(args, { interruptAt: /^ +(?:[5-9]|\d\d+) s /m });
    expect(output).toContain('Producing was stopped early, by request.');
    expect(output).toContain('Verdict: OK');
    expect(code).toBe(0);
  });

  test('ends with exit code 2 at once when a consumer fails, before the run or its slow handlers would end', async () => {
    const faults = '--nack-rate 1 --slow-rate 0.3 --lease-seconds 600'.split(' ');
    // Nothing is ever acked, so the ledger has room for the messages, but not for their leases.
    const traffic = '--producers 2 --consumers 2 --seconds 600 --batch 1 --rate 50 --max-backlog 40 --max-messages 60';
    const { code, output } = await simulate(['--url', broker.url, ...traffic.split(' '), ...faults]);
    expect(output).toMatch(/The ledger is full after 180 leases of \d\d messages/);
    expect(output).not.toContain('draining');
    expect(code).toBe(2);
  });

  test('starts a broker of its own with --start, and leaves nothing of it behind', async () => {
    const own = await mkdtemp(join(folder, 'own-'));
    const traffic = '--producers 2 --consumers 2 --seconds 2 --rate 200'.split(' ');
    const { code, output } = await simulate(['--start', ...traffic], { env: ownBroker(own) });
    expect(output).toContain('Verdict: OK');
    expect(code).toBe(0);
    const url = /against (\S+) for/.exec(output)?.[1] ?? '';
    await expect(fetch(`${url}/health/live`)).rejects.toThrow('fetch failed');
    expect(await readdir(own)).toEqual([]);
  });

  test('does not leave its own broker behind when it is killed', { timeout: 2 * DEADLINE_MS }, async () => {
    const own = await mkdtemp(join(folder, 'killed-'));
    const traffic = '--producers 1 --consumers 1 --seconds 600 --rate 20'.split(' ');
    const child = spawn(process.execPath, ['tools/simulator/dist/main.js', '--start', ...traffic], {
      cwd: ROOT,
      env: { ...process.env, ...ownBroker(own) },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    let launcher: ProcessIdentity | undefined;
    try {
      const [, url] = await eventually('it runs', () => /against (\S+) for/.exec(output), DEADLINE_MS);
      const [data = ''] = await readdir(own);
      const kindFolder = join(own, data, 'data', testServer().kind);
      const holder: ProcessIdentity = JSON.parse(await readFile(join(kindFolder, 'lock.1'), 'utf8'));
      launcher = holder;
      const servers = () => findProcessesByArgument(`--datadir=${join(kindFolder, 'data')}`);
      expect(await servers()).toHaveLength(1);
      child.kill('SIGKILL');
      await eventually('its broker has stopped', async () => !(await isRunning(holder)), STOP_MS);
      expect(await servers()).toEqual([]);
      await expect(fetch(`${url}/health/live`)).rejects.toThrow('fetch failed');
    } finally {
      child.kill('SIGKILL');
      if (launcher !== undefined) await terminateProcess(launcher, STOP_MS);
    }
  });
});
