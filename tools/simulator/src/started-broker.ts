import { type ChildProcess, fork } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { untilReady } from '@rowmq/runtime';

/** A broker that was started for one run, with a database of its own. */
export interface StartedBroker {
  url: string;
  /** Stops it and removes its data. Idempotent. */
  stop(): Promise<void>;
}

/** A first start may have to fetch and unpack a database server. */
const READY_DEADLINE_MS = 10 * 60_000;
/** Broker and reaper stop first, and then the database. */
const STOP_SECONDS = 55;
const LOG_LINES_SHOWN = 20;

/**
 * Starts database, broker and reaper on a free port, as `npm start` does, and waits until the
 * broker is ready.
 * @param stop ends the start
 */
export async function startBroker(apiKey: string | undefined, stop: AbortSignal): Promise<StartedBroker> {
  const folder = await mkdtemp(join(tmpdir(), 'rowmq-simulator-'));
  const removeFolder = () => rm(folder, { recursive: true, force: true });
  const port = await freePort();
  const logFile = join(folder, 'start.log');
  try {
    const child = await launch(folder, port, apiKey, logFile);
    const running = await untilReady('broker', child, STOP_SECONDS, stop, READY_DEADLINE_MS);
    const stopAndRemove = async () => {
      await running.stop();
      await removeFolder();
    };
    let stopping: Promise<void> | undefined;
    return { url: `http://127.0.0.1:${port}`, stop: () => (stopping ??= stopAndRemove()) };
  } catch (error) {
    const log = await readFile(logFile, 'utf8').catch(() => '');
    await removeFolder();
    if (stop.aborted) throw new Error('Stopped before the broker was ready.', { cause: error });
    const tail = log.trimEnd().split('\n').slice(-LOG_LINES_SHOWN).join('\n');
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n${tail}`, { cause: error });
  }
}

async function launch(
  folder: string,
  port: number,
  apiKey: string | undefined,
  logFile: string,
): Promise<ChildProcess> {
  const log = await open(logFile, 'a');
  try {
    const root = projectRoot();
    return fork(join(root, 'scripts', 'start.mjs'), [], {
      // It has a process group of its own. Ctrl-C in the terminal is for the simulator, which still
      // needs the broker to finish.
      detached: true,
      stdio: ['ignore', log.fd, log.fd, 'ipc'],
      env: {
        ...process.env,
        ROWMQ_DATA_DIR: join(folder, 'data'),
        // The data is for this run alone. A database server that an earlier start unpacked is used
        // again.
        ROWMQ_SERVERS_DIR: process.env['ROWMQ_SERVERS_DIR'] ?? join(root, '.rowmq', 'servers'),
        ROWMQ_DATABASE_URL: '',
        ROWMQ_HOST: '127.0.0.1',
        ROWMQ_PORT: String(port),
        ROWMQ_ADMIN_KEY: apiKey ?? '',
      },
    });
  } finally {
    await log.close();
  }
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
