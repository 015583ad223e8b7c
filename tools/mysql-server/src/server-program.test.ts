import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ServerNotFoundError } from './errors.js';
import { findServer, parseServerVersion } from './server-program.js';

const MYSQL = 'mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))';
const OLD_MYSQL = 'mysqld  Ver 8.0.41-0ubuntu0.22.04.1 for Linux on x86_64 ((Ubuntu))';
const MARIADB = 'mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)';
const NEW_MARIADB = 'mariadbd from 11.8.3-MariaDB, client 15.2 for debian-linux-gnu (x86_64)';

let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'rowmq-find-'));
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(root, { recursive: true, force: true });
});

async function program(path: string, version: string): Promise<string> {
  const file = join(root, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, `#!/bin/sh\necho '${version}'\n`);
  await chmod(file, 0o755);
  return file;
}

/** Only what a test put there counts as installed on the machine. */
function find(options: Omit<Parameters<typeof findServer>[0], 'dataDir'> = {}) {
  vi.stubEnv('PATH', `${join(root, 'path')}:/usr/bin:/bin`);
  return findServer({ dataDir: join(root, 'data'), install: false, ...options });
}

describe('finding a server', () => {
  test.each([
    [MYSQL, 'mysql', '9.7.4'],
    [MARIADB, 'mariadb', '10.11.19'],
    [NEW_MARIADB, 'mariadb', '11.8.3'],
  ])('reads %s', (text, kind, version) => {
    expect(parseServerVersion(text)).toEqual({ kind, version });
  });

  test('prefers one unpacked earlier, in the shared folder first, over one on the machine', async () => {
    await program('path/mysqld', MYSQL);
    const unpacked = await program('data/servers/mysql/bin/mysqld', MYSQL);
    expect(await find()).toEqual({ kind: 'mysql', program: unpacked, version: '9.7.4', origin: 'unpacked earlier' });
    const shared = await program('shared/mysql/bin/mysqld', MYSQL);
    expect(await find({ serversDir: join(root, 'shared') })).toMatchObject({ program: shared });
  });

  test('takes the kind of a program from its version, not its name', async () => {
    const mariadb = await program('path/mysqld', MARIADB);
    expect(await find({ kinds: ['mariadb'] })).toMatchObject({ kind: 'mariadb', program: mariadb });
    await expect(find({ kinds: ['mysql'] })).rejects.toThrow(ServerNotFoundError);
  });

  test('passes over one that is too old, and says so when there is no other', async () => {
    await program('path/mysqld', OLD_MYSQL);
    await expect(find({ kinds: ['mysql'] })).rejects.toThrow(/mysql 8\.0\.41; RowMQ needs 8\.4 or later/);
    await program('path/mariadbd', NEW_MARIADB);
    expect(await find()).toMatchObject({ kind: 'mariadb', version: '11.8.3' });
  });

  test('says what to do when there is none', async () => {
    await expect(find({ kinds: ['mysql'] })).rejects.toThrow(
      /no mysqld found[^]*apt-get install[^]*ROWMQ_DATABASE_URL/,
    );
  });
});
