import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '@rowmq/mysql-server';
import { migrateDatabase } from '@rowmq/store';
import { createDatabase, type TestDatabase } from './servers.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** A broker of several workers takes long on a busy machine. */
const READY_MS = 150_000;
const STOP_MS = 60_000;

/** A process of RowMQ as users run it: built, separate, and reached over real sockets. */
export interface AppProcess {
  pid: number;
  /** The output of both streams so far. */
  output(): string;
  isAlive(): boolean;
  /** Stops it in order and waits for the end. Fails if it does not end in time or not cleanly. */
  stop(): Promise<void>;
  /** Sends SIGKILL and waits for the end. */
  kill(): Promise<void>;
}

/** A process that may be killed before it is ready, or end by itself. */
export interface SpawnedApp extends AppProcess {
  /** Resolves when it reports ready. Rejects if it ends before that, or takes too long. */
  ready: Promise<void>;
  isReady(): boolean;
}

export interface Broker extends AppProcess {
  /** `http://127.0.0.1:port` */
  url: string;
  database: TestDatabase;
}

export { freePort };

/** A fresh database with the schema in it. */
export async function createMigratedDatabase(): Promise<TestDatabase> {
  const database = await createDatabase();
  await migrateDatabase(database.url);
  return database;
}

/** Starts a broker process, on a database of its own unless one is given. */
export async function startBroker({
  database,
  env = {},
}: { database?: TestDatabase; env?: Record<string, string> } = {}): Promise<Broker> {
  const own = database ?? (await createMigratedDatabase());
  const port = await freePort();
  const app = await startApp('broker', { ROWMQ_DATABASE_URL: own.url, ROWMQ_PORT: String(port), ...env });
  return { ...app, url: `http://127.0.0.1:${env['ROWMQ_PORT'] ?? port}`, database: own };
}

/** Starts a reaper process on a database. */
export async function startReaper(database: TestDatabase, env: Record<string, string> = {}): Promise<AppProcess> {
  return startApp('reaper', { ROWMQ_DATABASE_URL: database.url, ...env });
}

interface StartOptions {
  /** The folder that holds `apps` of their own. */
  root?: string | undefined;
  /** A module to load before it. */
  preload?: string;
  /** Receives the messages that it, or that module, sends to its parent. */
  onMessage?: (message: unknown) => void;
}

/** Starts `apps/<name>` and waits until it reports ready. */
export async function startApp(
  name: 'broker' | 'reaper',
  env: Record<string, string>,
  options: StartOptions = {},
): Promise<AppProcess> {
  const app = spawnApp(name, env, options);
  await app.ready;
  return app;
}

/**
 * Starts `apps/<name>` without a wait. It does not get the settings of the surrounding environment.
 *
 * Tests start the bundled app, which takes half the CPU. With a module to preload it is the app as
 * it was built, because the module may change what is in the app's files.
 */
export function spawnApp(
  name: 'broker' | 'reaper',
  env: Record<string, string>,
  { root, preload, onMessage }: StartOptions = {},
): SpawnedApp {
  const bundled = preload === undefined ? process.env['TEST_BUNDLED_APPS'] : undefined;
  const apps = root === undefined ? (bundled ?? join(ROOT, 'apps')) : join(root, 'apps');
  const inherited = Object.fromEntries(
    Object.entries(process.env).filter(([key]) => !key.startsWith('ROWMQ_') && key !== 'NODE_OPTIONS'),
  );
  const preloading = preload === undefined ? [] : ['--import', preload];
  const child = spawn(process.execPath, [...preloading, join(apps, name, 'dist', 'main.js')], {
    cwd: ROOT,
    env: { ...inherited, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  let output = '';
  const keep = (chunk: Buffer): void => void (output += chunk.toString());
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  // `exit` can come before the last of the output.
  const exited = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  let isReady = false;
  const saysReady = new Promise<void>((resolve) => {
    child.on('message', (message) => {
      if (message !== 'ready') return onMessage?.(message);
      isReady = true;
      resolve();
    });
  });
  const comesUp = async (): Promise<void> => {
    const outcome = await Promise.race([
      saysReady.then(() => 'ready'),
      exited.then(() => 'exited'),
      deadline(READY_MS),
    ]);
    if (outcome === 'ready') return;
    child.kill('SIGKILL');
    // A caller that starts it again must not take it for alive.
    await exited;
    throw new Error(`${name} did not become ready (${outcome}):\n${output}`);
  };
  const ready = comesUp();
  // A caller that does not await it will see that the process has ended.
  ready.catch(() => undefined);
  return {
    pid: child.pid as number,
    ready,
    isReady: () => isReady,
    isAlive: () => child.exitCode === null && child.signalCode === null,
    output: () => output,
    stop: () => stopChild(name, child, exited, () => output),
    kill: async () => {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

async function stopChild(
  name: string,
  child: ChildProcess,
  exited: Promise<[number | null, NodeJS.Signals | null]>,
  output: () => string,
): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGTERM');
  const outcome = await Promise.race([exited, deadline(STOP_MS)]);
  if (outcome === 'too late') {
    child.kill('SIGKILL');
    throw new Error(`${name} did not stop in time:\n${output()}`);
  }
  if (outcome[0] !== 0) throw new Error(`${name} stopped with ${String(outcome[0] ?? outcome[1])}:\n${output()}`);
}

async function deadline(ms: number): Promise<'too late'> {
  return new Promise((resolve) => {
    setTimeout(() => resolve('too late'), ms).unref();
  });
}
