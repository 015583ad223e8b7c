import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { pendingMigrations } from '@rowmq/store';
import { expect, test } from 'vitest';
import { freePort } from '../support/processes.js';
import { createDatabase } from '../support/servers.js';

/* `npm run migrate` as a process, as people and containers run it. */

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

async function migrate(url: string, ...args: string[]): Promise<Ended> {
  const options = { cwd: ROOT, env: { ...process.env, ROWMQ_DATABASE_URL: url }, timeout: 60_000 };
  return run(process.execPath, ['apps/migrate/dist/main.js', ...args], options).then(
    (done) => ({ code: 0, ...done }),
    (error: unknown) => error as Ended,
  );
}

test(
  'migrate reports missing migrations by its exit code, and drops nothing without --yes',
  { timeout: 180_000 },
  async () => {
    const database = await createDatabase();
    expect(await migrate(database.url, 'status')).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/^Pending: /),
    });
    expect(await migrate(database.url)).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/ blocks [^]*\nApplied: /),
    });
    expect(await migrate(database.url, 'status')).toMatchObject({ code: 0, stdout: 'Up to date.\n' });

    expect(await migrate(database.url, 'down')).toMatchObject({ code: 1, stderr: expect.stringContaining('--yes') });
    expect(await pendingMigrations(database.url)).toEqual([]);
    expect(await migrate(database.url, 'down', '--yes')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^Reverted: /),
    });
    expect(await pendingMigrations(database.url)).toHaveLength(1);
    await database.drop();
  },
);

test('migrate status has a separate exit code for a database that cannot be read', { timeout: 180_000 }, async () => {
  const nobody = `mysql://u:p@127.0.0.1:${await freePort()}/d`;
  expect(await migrate(nobody, 'status')).toMatchObject({ code: 3, stderr: expect.stringContaining('ECONNREFUSED') });
  expect(await migrate('', 'status')).toMatchObject({
    code: 3,
    stderr: expect.stringContaining('ROWMQ_DATABASE_URL is needed'),
  });
  expect(await migrate(nobody)).toMatchObject({ code: 1 });
});
