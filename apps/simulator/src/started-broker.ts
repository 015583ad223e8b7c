import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { RowmqHttpClient } from '@rowmq/client/core';

/** A broker that was started for one run, with a database of its own. */
export interface StartedBroker {
  url: string;
  /** Stops it and removes its data. Idempotent. */
  stop(): Promise<void>;
}

/** A first start may have to fetch and unpack a database server. */
const START_DEADLINE_MS = 10 * 60_000;
const STOP_DEADLINE_MS = 60_000;
const LOOK_MS = 200;
const LOG_LINES_SHOWN = 20;

/** Starts everything (database, broker, reaper) on a free port, as `npm start` does, and waits until it is ready. Gives up at `stop`. */
export async function startBroker(apiKey: string | undefined, stop: AbortSignal): Promise<StartedBroker> {
  const folder = await mkdtemp(join(tmpdir(), 'rowmq-simulator-'));
  const url = `http://127.0.0.1:${await freePort()}`;
  const logFile = join(folder, 'start.log');
  const child = await launch(folder, url, apiKey, logFile);
  let stopping: Promise<void> | undefined;
  const stopOnce = () => (stopping ??= endAndRemove(child, folder));
  try {
    await untilReady(child, url, apiKey, stop);
    return { url, stop: stopOnce };
  } catch (error) {
    const log = await readFile(logFile, 'utf8').catch(() => '');
    await stopOnce();
    if (stop.aborted) throw error;
    const tail = log.trimEnd().split('\n').slice(-LOG_LINES_SHOWN).join('\n');
    throw new Error(
      `The broker could not be started: ${error instanceof Error ? error.message : String(error)}\n${tail}`,
      {
        cause: error,
      },
    );
  }
}

async function launch(folder: string, url: string, apiKey: string | undefined, logFile: string): Promise<ChildProcess> {
  const log = await open(logFile, 'a');
  try {
    const root = projectRoot();
    return spawn(process.execPath, [join(root, 'scripts', 'start.mjs')], {
      // A process group of its own: Ctrl-C in the terminal is for the simulator, which still needs the broker to finish.
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
      env: {
        ...process.env,
        ROWMQ_DATA_DIR: join(folder, 'data'),
        // The data is for this run alone, but a database server unpacked by an earlier start serves again.
        ROWMQ_SERVERS_DIR: process.env['ROWMQ_SERVERS_DIR'] ?? join(root, '.rowmq', 'servers'),
        ROWMQ_DATABASE_URL: '',
        ROWMQ_HOST: '127.0.0.1',
        ROWMQ_PORT: new URL(url).port,
        ROWMQ_ADMIN_KEY: apiKey ?? '',
        // Under this name the launcher stops when its parent process is gone, so that a killed simulator leaves nothing behind.
        npm_lifecycle_event: 'start',
      },
    });
  } finally {
    await log.close();
  }
}

async function untilReady(
  child: ChildProcess,
  url: string,
  apiKey: string | undefined,
  stop: AbortSignal,
): Promise<void> {
  const client = new RowmqHttpClient({ url, apiKey, timeoutMs: 5000, retries: 0 });
  const deadline = performance.now() + START_DEADLINE_MS;
  try {
    for (;;) {
      stop.throwIfAborted();
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new Error(`it ended with ${child.signalCode ?? `exit code ${child.exitCode}`}`);
      }
      if (await isReady(client)) return;
      if (performance.now() > deadline) throw new Error(`it was not ready after ${START_DEADLINE_MS / 60_000} minutes`);
      await sleep(LOOK_MS, undefined, { signal: stop });
    }
  } finally {
    await client.close();
  }
}

/** Whether a broker answers and reaches its database. */
export async function isReady(client: RowmqHttpClient): Promise<boolean> {
  try {
    await client.ready();
    return true;
  } catch {
    return false;
  }
}

async function endAndRemove(child: ChildProcess, folder: string): Promise<void> {
  try {
    await end(child);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS);
  await ended;
  clearTimeout(timer);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === 'string') throw new Error('the system gave no free port');
  return address.port;
}

/** The folder of the project, whether this runs from its sources or from dist. */
function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'scripts', 'start.mjs'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error('scripts/start.mjs is missing: the simulator runs from a checkout of RowMQ');
    folder = parent;
  }
  return folder;
}
