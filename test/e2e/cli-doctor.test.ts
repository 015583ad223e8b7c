import { createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rowmq } from '../support/cli.js';
import type { Ended } from '../support/commands.js';
import { type AppProcess, type Broker, startBroker, startReaper } from '../support/processes.js';
import { createDatabase } from '../support/servers.js';
import { eventually } from '../support/wait.js';

/* `rowmq doctor`, against brokers, reapers and databases in each state. */

interface Finding {
  check: string;
  state: string;
  text: string;
}

/** Each command is a process, which takes seconds on a busy machine. */
const COMMANDS_MS = 180_000;

let broker: Broker;
beforeAll(async () => {
  broker = await startBroker();
});
afterAll(async () => {
  await broker.stop();
  await broker.database.drop();
});

async function doctor(args: string[], env: Record<string, string>): Promise<Ended & { findings: Finding[] }> {
  const ended = await rowmq(['doctor', '--json', ...args], { env });
  const lines = ended.stdout.split('\n').filter((line) => line !== '');
  return { ...ended, findings: lines.map((line) => JSON.parse(line) as Finding) };
}

const states = (findings: readonly Finding[]): Record<string, string> =>
  Object.fromEntries(findings.map(({ check, state }) => [check, state]));

describe('the doctor', { timeout: COMMANDS_MS }, () => {
  const env = (): Record<string, string> => ({ ROWMQ_URL: broker.url, ROWMQ_DATABASE_URL: broker.database.url });

  it('misses a reaper, says why one is needed, and finds nothing else at fault', async () => {
    const { code, findings } = await doctor([], env());
    expect(code).toBe(1);
    const faults = findings.filter(({ state }) => state === 'fault');
    expect(faults.map(({ check }) => check)).toEqual(['broker and reaper', 'reaper']);
    for (const { text } of faults) expect(text).toContain('No reaper works');
    // A partition ahead is the reaper's work. The tests' server gives up durability for speed.
    const {
      partitions,
      'server settings': _,
      binlog: __,
      ...others
    } = states(findings.filter(({ state }) => state !== 'fault'));
    expect(partitions).toBe('warning');
    for (const [check, state] of Object.entries(others)) expect([check, state]).toEqual([check, 'ok']);
    const ofBroker = ['broker', 'broker ready', 'queues'];
    const ofDatabase = [
      'connection',
      'one primary',
      'session',
      'clock',
      'long transactions',
      'migrations',
      'privileges',
    ];
    expect(Object.keys(others)).toEqual(expect.arrayContaining([...ofBroker, ...ofDatabase, 'brokers', 'connections']));
  });

  it('is content once a reaper works', async () => {
    const reaper: AppProcess = await startReaper(broker.database);
    try {
      await eventually(
        'a report without faults',
        async () => {
          const { code, findings } = await doctor([], env());
          const { reaper: alive, partitions } = states(findings);
          return code === 0 && alive === 'ok' && partitions === 'ok';
        },
        120_000,
      );
      const { code, stdout } = await rowmq(['doctor'], { env: env() });
      expect(code).toBe(0);
      expect(stdout).toMatch(/✓ ok +migrations +None is pending\.$/m);
      expect(stdout).toMatch(/^0 faults, \d+ warnings\.$/m);
      const strict = await doctor(['--strict'], env());
      expect(strict.code).toBe(strict.findings.some(({ state }) => state === 'warning') ? 1 : 0);
    } finally {
      await reaper.stop();
    }
  });

  it('finds a transaction that stays open, and names its connection', async () => {
    const connection = await createConnection({ uri: broker.database.url });
    try {
      await connection.query('START TRANSACTION');
      await connection.query('SELECT COUNT(*) FROM queue FOR UPDATE');
      await connection.query("UPDATE queue SET name = name WHERE name = 'no-such-queue'");
      const only = ['--database', '--long', '1'];
      const found = await eventually(
        'the transaction to be found',
        async () => {
          const { findings } = await doctor(only, env());
          return findings.find(({ check, state }) => check === 'long transactions' && state === 'warning');
        },
        120_000,
      );
      expect(found.text).toContain(`connection ${connection.threadId} for`);
    } finally {
      await connection.end();
    }
  });

  it('finds pending migrations in a new database, and stops there', async () => {
    const empty = await createDatabase();
    try {
      const { code, findings } = await doctor(['--database'], { ROWMQ_DATABASE_URL: empty.url });
      expect(code).toBe(1);
      expect(findings.at(-1)).toMatchObject({
        check: 'migrations',
        state: 'fault',
        text: expect.stringContaining('npm run migrate'),
      });
      expect(findings.filter(({ state }) => state === 'fault')).toHaveLength(1);
    } finally {
      await empty.drop();
    }
  });

  it('says what is wrong with an address or a password, and never prints the password', async () => {
    const wrong = broker.database.url.replace(/\/\/([^:]+):[^@]*@/, '//$1:a-wrong-secret@');
    expect(wrong).toContain('a-wrong-secret');
    const { code, findings, stdout, stderr } = await doctor(['--database'], { ROWMQ_DATABASE_URL: wrong });
    expect(code).toBe(1);
    expect(findings).toMatchObject([
      { check: 'connection', state: 'fault', text: expect.stringContaining('Check user and password') },
    ]);
    expect(stdout + stderr).not.toContain('a-wrong-secret');
    expect(await rowmq(['doctor', '--database'], {})).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('ROWMQ_DATABASE_URL'),
    });
    const away = await rowmq(['doctor', '--broker'], { env: { ROWMQ_URL: 'http://127.0.0.1:1' } });
    expect(away).toMatchObject({ code: 1, stdout: expect.stringContaining('✗ fault') });
  });
});
