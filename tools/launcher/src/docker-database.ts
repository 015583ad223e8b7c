import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { LaunchedDatabase } from './database.js';

const run = promisify(execFile);
const PROJECT = fileURLToPath(new URL('../../../', import.meta.url));
/** Not the file's own name: what runs under that is none of ours, and has another password. */
const NAME = 'rowmq-start';
const PULL_AND_START_MS = 15 * 60_000;

/** Runs the MySQL of docker-compose.yml, or returns undefined where no Docker engine answers. */
export async function startDockerDatabase(
  dataDir: string,
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<LaunchedDatabase | undefined> {
  try {
    await run('docker', ['info'], { timeout: 10_000, signal });
    await run('docker', ['compose', 'version'], { timeout: 10_000, signal });
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
  const password = await rememberedPassword(dataDir);
  // The file wants a key for the brokers too, which are not started here.
  const env = { ...process.env, ROWMQ_MYSQL_PASSWORD: password, ROWMQ_ADMIN_KEY: 'unused' };
  const compose = (args: string[], timeout: number, abort?: AbortSignal) =>
    run('docker', ['compose', '--project-name', NAME, ...args], {
      cwd: PROJECT,
      env,
      timeout,
      ...(abort ? { signal: abort } : {}),
    });

  log('No database server can be had on this machine: running MySQL with docker compose …');
  await compose(['up', '--detach', '--wait', 'mysql'], PULL_AND_START_MS, signal);
  const { stdout } = await compose(['port', 'mysql', '3306'], 10_000);
  return {
    url: `mysql://rowmq:${password}@127.0.0.1:${stdout.trim().split(':').at(-1)}/rowmq`,
    description: `MySQL in a container (docker compose --project-name ${NAME}, service mysql)`,
    folder: undefined,
    stop: async () => void (await compose(['stop', 'mysql'], 120_000)),
    kill: async () => void (await compose(['kill', 'mysql'], 30_000)),
  };
}

/**
 * The container keeps the password of its first start in its volume, so it has to stay the same.
 */
async function rememberedPassword(dataDir: string): Promise<string> {
  const file = join(dataDir, 'docker-password');
  const known = await readFile(file, 'utf8').catch(() => '');
  if (known !== '') return known;
  const password = randomBytes(24).toString('hex');
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  await writeFile(file, password, { mode: 0o600 });
  return password;
}
