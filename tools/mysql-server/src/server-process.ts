import { type ChildProcess, spawn } from 'node:child_process';
import { open, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { createConnection } from 'mysql2/promise';
import { DataFolder } from './data-folder.js';
import { EmbeddedServerError } from './errors.js';
import type { ServerProgram } from './server-program.js';
import { defaultBufferPoolMegabytes, serverArguments } from './settings.js';

const POLL_MS = 50;
const PING_DEADLINE_MS = 5_000;
const START_DEADLINE_MS = 5 * 60_000;
/** Within this a healthy server has stopped. */
export const STOP_DEADLINE_MS = 60_000;

/** How a server process ended. */
export interface ServerExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A server process that answers. */
export interface ServerProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly port: number;
  readonly url: string;
  readonly exited: Promise<ServerExit>;
}

/** The options of a start, beyond the program and folder. */
export interface LaunchOptions {
  readonly port?: number | undefined;
  readonly bufferPoolMegabytes?: number | undefined;
  readonly startDeadlineMs?: number | undefined;
  readonly keepAccounts?: boolean | undefined;
  readonly extraArguments?: readonly string[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Runs the server on an initialised folder and waits until it answers.
 * @throws EmbeddedServerError when it ends or the deadline passes first; the process is gone by
 * then
 */
export async function launchServer(
  program: ServerProgram,
  folder: DataFolder,
  options: LaunchOptions,
): Promise<ServerProcess> {
  const password = await folder.password();
  if (options.keepAccounts !== true) await folder.writeInitFile(password);
  const port = options.port ?? (await folder.choosePort());
  const socket = await folder.socket();
  // The folder is ours and its last server gone: a lock file it left would keep the next from
  // starting if another process has its number now.
  for (const stale of [socket, `${socket}.lock`]) await rm(stale, { force: true });
  const settings = serverArguments({
    kind: program.kind,
    data: folder.data,
    port,
    socket,
    pidFile: folder.pidFile,
    initFile: options.keepAccounts === true ? undefined : folder.initFile,
    bufferPoolMegabytes: options.bufferPoolMegabytes ?? defaultBufferPoolMegabytes(),
  });
  const commandLine = [...settings, ...(options.extraArguments ?? [])];

  const log = await open(folder.errorLog, 'a', 0o600);
  const logStart = (await log.stat()).size;
  // Detached: a session of its own, so that Ctrl-C in a terminal does not stop the database before
  // its clients.
  const child = spawn(program.program, commandLine, { stdio: ['ignore', log.fd, log.fd], detached: true });
  await log.close();

  let ending: string | undefined;
  const exited = new Promise<ServerExit>((done) => {
    child.once('error', (error) => {
      ending = error.message;
      // Without a pid it never ran, and no 'exit' follows.
      if (child.pid === undefined) done({ code: null, signal: null });
    });
    child.once('exit', (code, signal) => {
      ending ??= signal ?? `exit code ${code}`;
      done({ code, signal });
    });
  });
  const url = `mysql://rowmq:${password}@127.0.0.1:${port}/rowmq`;
  const deadlineMs = options.startDeadlineMs ?? START_DEADLINE_MS;
  const deadline = Date.now() + deadlineMs;
  for (;;) {
    if (ending === undefined && (await answers(url))) return { child, pid: child.pid!, port, url, exited };
    if (options.signal?.aborted) {
      await stopServer({ child, exited }, STOP_DEADLINE_MS);
      options.signal.throwIfAborted();
    }
    const late = Date.now() >= deadline;
    if (ending !== undefined || late) {
      child.kill('SIGKILL');
      await exited;
      const why = late ? `did not answer within ${deadlineMs / 1000} s` : `ended while it started: ${ending}`;
      const what = `${program.kind} ${program.version} (${program.program}) ${why}.`;
      throw new EmbeddedServerError(what, folder.errorLog, await DataFolder.tail(folder.errorLog, logStart));
    }
    await delay(POLL_MS);
  }
}

/** Stops a server in order with SIGTERM, and kills it at the deadline. */
export async function stopServer(
  { child, exited }: Pick<ServerProcess, 'child' | 'exited'>,
  deadlineMs: number,
): Promise<void> {
  child.kill('SIGTERM');
  const killer = setTimeout(() => child.kill('SIGKILL'), deadlineMs);
  await exited;
  clearTimeout(killer);
}

/**
 * Whether our own user can log in and query, which no other server on the same port would allow.
 */
async function answers(uri: string): Promise<boolean> {
  try {
    const connection = await createConnection({ uri, connectTimeout: PING_DEADLINE_MS });
    try {
      await connection.query({ sql: 'SELECT 1', timeout: PING_DEADLINE_MS });
    } finally {
      connection.destroy();
    }
    return true;
  } catch {
    return false;
  }
}
