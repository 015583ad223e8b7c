import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, chown, constants, mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { PeerUnavailableError } from '../peer.js';

export const run = promisify(execFile);

const START_DEADLINE_MS = 60_000;
const STOP_DEADLINE_MS = 30_000;
const POLL_MS = 50;
const LOG_TAIL_BYTES = 2000;

/** User of a server that refuses to run as root. */
export interface User {
  uid: number;
  gid: number;
}

/** Describes the start of a server process. */
export interface ServerCommand {
  program: string;
  arguments: string[];
  /** Its output goes into `server.log` there. */
  folder: string;
  env?: Record<string, string>;
  user?: User | undefined;
  /** Whether it is ready for use. */
  ready: () => Promise<boolean>;
}

/** A folder of a server's own, for as long as it runs. */
export async function temporaryFolder(name: string, user?: User): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `rowmq-peer-${name}-`));
  if (user !== undefined) await chown(folder, user.uid, user.gid);
  return folder;
}

/** Starts a server and waits until it is ready. If it never is, stops it and keeps its folder. */
export async function startServer(command: ServerCommand): Promise<ChildProcess & { pid: number }> {
  const logFile = join(command.folder, 'server.log');
  const log = await open(logFile, 'a');
  const child = spawn(command.program, command.arguments, {
    cwd: command.folder,
    // Passes only the path on. Peers read variables, too, and root's home is not theirs.
    env: { PATH: process.env['PATH'] ?? '', HOME: command.folder, LC_ALL: 'C.UTF-8', ...command.env },
    stdio: ['ignore', log.fd, log.fd],
    ...command.user,
  });
  await log.close();
  // Ctrl-C, or a failure further up, must not leave servers behind.
  const endWithUs = (): void => void child.kill('SIGKILL');
  process.once('exit', endWithUs);
  child.once('exit', () => process.off('exit', endWithUs));
  let failure: string | undefined;
  child.once('error', (error) => (failure = error.message));
  child.once('exit', (code, signal) => (failure ??= `ended with ${signal ?? String(code)}`));
  for (const deadline = Date.now() + START_DEADLINE_MS; failure === undefined; await sleep(POLL_MS)) {
    if (child.pid !== undefined && (await command.ready())) return child as ChildProcess & { pid: number };
    if (Date.now() > deadline) failure = `did not answer within ${START_DEADLINE_MS / 1000} s`;
  }
  await stopProcess(child);
  const tail = (await readFile(logFile, 'utf8')).slice(-LOG_TAIL_BYTES);
  throw new Error(`${command.program} ${failure}; its log is ${logFile}, and ends with:\n${tail}`);
}

/** Ends a process in order, and at the deadline by force. */
export async function stopProcess(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill(signal);
  const killer = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS);
  await exited;
  clearTimeout(killer);
}

export async function removeFolder(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}

/** Whether somebody listens on a port of this machine. */
export async function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
    socket.once('close', () => socket.destroy());
    socket.once('connect', () => socket.destroy());
  });
}

/**
 * Absolute path of a server's program, in the first of these folders that has it, or on the PATH.
 */
export async function findProgram(name: string, folders: readonly string[], debianPackage: string): Promise<string> {
  for (const folder of [...folders, ...(process.env['PATH'] ?? '').split(delimiter).filter(Boolean)]) {
    const program = join(folder, name);
    const found = await access(program, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return program;
  }
  throw new PeerUnavailableError(name, debianPackage);
}
