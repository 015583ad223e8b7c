import { describe, expect, test } from 'vitest';
import { brokerRefusal, type Entry, runEntry } from '../support/commands.js';
import { freePort } from '../support/processes.js';
import { isFirstKind, testServer } from '../support/servers.js';

/** Each test starts processes, several at a time: on a busy machine that takes long. */
const SLOW = { timeout: 180_000 };

/** The database of the tests, with something about it changed. */
function changed(change: (url: URL) => void): string {
  const url = new URL(testServer().url);
  change(url);
  return url.href;
}

/**
 * The message about an unusable database: one line, exit code 1, and no password.
 */
async function refusal(entry: Entry, url: string): Promise<string> {
  const { code, stdout, stderr } = await runEntry(entry, {
    ROWMQ_DATABASE_URL: url,
    ROWMQ_PORT: String(await freePort()),
  });
  expect(code, stdout + stderr).toBe(1);
  const { password } = new URL(testServer().url);
  expect(stdout + stderr).not.toContain(password);
  return stderr;
}

/*
 * The server writes a part of two messages, so one program reports them on every kind. All programs
 * share the rest. boot-checks.test.ts has a database without tables.
 */
const entries = [
  ['npm run migrate', 'migrate'],
  ...(isFirstKind() ? ([['npm start', 'start']] as const) : []),
] as const;

describe.concurrent.each(entries)('%s', SLOW, (_, entry) => {
  test.runIf(isFirstKind())(
    'on a host where nothing listens says which, and why, for each of its addresses',
    async () => {
      const port = await freePort();
      const stderr = await refusal(entry, `mysql://u:p@localhost:${port}/rowmq`);
      expect(stderr).toMatch(
        new RegExp(
          `^Cannot use the database at localhost:${port}/rowmq: .*ECONNREFUSED 127.0.0.1:${port}.*ROWMQ_DATABASE_URL\\.\n$`,
        ),
      );
    },
  );

  test('on a database that is not there says how to create it', async () => {
    const stderr = await refusal(
      entry,
      changed((url) => {
        url.pathname = '/not_there';
      }),
    );
    expect(stderr).toMatch(
      /^Cannot use the database at 127\.0\.0\.1:\d+\/not_there: Unknown database 'not_there'\. Create it \(CREATE DATABASE `not_there` .*ROWMQ_DATABASE_URL\.\n$/,
    );
  });

  test('with a wrong password names the user and says what to check', async () => {
    const stderr = await refusal(
      entry,
      changed((url) => {
        url.password = 'another';
      }),
    );
    expect(stderr).toMatch(/^Cannot use the database at .*: Access denied for user 'rowmq'@.*ROWMQ_DATABASE_URL.*\n$/);
  });

  test.runIf(isFirstKind())('with an invalid URL, or one with parameters, names the setting', async () => {
    expect(await refusal(entry, 'localhost/rowmq')).toContain('ROWMQ_DATABASE_URL must look like mysql://');
    const stderr = await refusal(entry, `${testServer().url}?ssl=true`);
    expect(stderr).toContain('ROWMQ_DATABASE_URL takes no parameters');
    expect(stderr).toContain('for encryption set ROWMQ_DATABASE_TLS');
  });
});

describe.concurrent('a broker does not start', SLOW, () => {
  test('with a wrong password, and does not print the password', async () => {
    const url = new URL(testServer().url);
    url.password = 'wrong-password-0815';
    const output = await brokerRefusal({ ROWMQ_DATABASE_URL: url.href });
    expect(output).toMatch(
      /rowmq broker: Cannot use the database at 127\.0\.0\.1:\d+\/rowmq: Access denied .*ROWMQ_DATABASE_URL/,
    );
    expect(output).not.toContain('Retrying');
    expect(output).not.toContain('wrong-password-0815');
  });

  test('on a database that does not exist, and says so', async () => {
    const url = new URL(testServer().url);
    url.pathname = '/rowmq_no_such_database';
    const output = await brokerRefusal({ ROWMQ_DATABASE_URL: url.href });
    expect(output).toMatch(/rowmq broker: Cannot use the database .*: Unknown database 'rowmq_no_such_database'/);
    expect(output).not.toContain('Retrying');
  });

  test.runIf(isFirstKind())('while the database cannot be reached, and names the address', async () => {
    const port = await freePort();
    const output = await brokerRefusal({ ROWMQ_DATABASE_URL: `mysql://root@127.0.0.1:${port}/rowmq` });
    expect(output).toMatch(
      new RegExp(`rowmq broker: Cannot use the database at 127.0.0.1:${port}/rowmq: .*ECONNREFUSED`),
    );
  });
});
