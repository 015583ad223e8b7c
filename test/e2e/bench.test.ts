import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testServer } from '../support/servers.js';

/*
 * Runs the benchmarks in their smallest form. They account for every message and report. Their
 * figures mean nothing here.
 */

const root = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-bench-test-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('a benchmark', () => {
  it.each([
    ['bench', ['--only', 'batch 10', '--only', '200 messages/s'], /\| batch 10 \| \*\*[\d,]+\*\*/],
    ['bench:depth', ['--backlogs', '2000'], /2,000/],
    ['bench:snapshot', ['--minutes', '2', '--no-peers'], /last minute to first/],
    ['bench:fanin', ['--consumers', '1,4'], /batch 10, 4 consumers/],
    ['bench:client', [], /batch 100: the client's consumers to bare calls/],
    ['bench:cost', [], /delivery\.delivery_next/],
    ['bench:alternatives', ['--messages', '2000'], /Several brokers on one queue/],
    ['bench:idle', ['--consumers', '20', '--queues', '4'], /queries/],
  ])(
    'npm run %s measures, accounts for every message and reports',
    async (name, options, reported) => {
      const json = join(folder, `${name.replace(':', '-')}.json`);
      const small = ['--servers', testServer().kind, '--runs', '1', '--seconds', '1', '--warm-up-seconds', '0'];
      const { stdout } = await run('npm', ['run', '--silent', name, '--', ...small, '--json', json, ...options], {
        cwd: root,
        timeout: 110_000,
        env: { ...process.env, NODE_ENV: 'test' },
      });
      expect(stdout).toMatch(reported);
      expect(JSON.parse(await readFile(json, 'utf8'))).toMatchObject({ commit: expect.any(String) });
    },
    120_000,
  );

  it('the soak reads every quantity, and does not judge a run of 15 seconds', async () => {
    const json = join(folder, 'soak.json');
    const small = ['--servers', testServer().kind, '--minutes', '0.25', '--rate', '50', '--sample-seconds', '1'];
    const ended: unknown = await run('npm', ['run', '--silent', 'soak', '--', ...small, '--json', json], {
      cwd: root,
      timeout: 110_000,
      env: { ...process.env, NODE_ENV: 'test' },
    }).catch((error: unknown) => error);
    expect(ended).toMatchObject({ code: 2, stdout: expect.stringContaining('Verdict: not judged') });

    const { results } = JSON.parse(await readFile(json, 'utf8')) as { results: Record<string, Soak> };
    const [soak] = Object.values(results) as [Soak];
    expect(soak.simulator).toMatchObject({ code: 0, output: expect.stringContaining('Verdict: OK') });
    expect(soak.flatness.length).toBeGreaterThan(10);
    // A quantity that could not be read is null here.
    expect(soak.flatness.filter(({ second, last }) => second === null || last === null)).toEqual([]);
  }, 120_000);
});

interface Soak {
  simulator: unknown;
  flatness: { second: number | null; last: number | null }[];
}
