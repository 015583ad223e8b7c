import { execFile } from 'node:child_process';
import { readFile, readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { systemErrorCode } from './errors.js';

const run = promisify(execFile);
const POLL_MS = 25;

/** A process named so that a later process that got the same pid is not mistaken for it. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Start time of the process, in the system's own notation; compared, never interpreted. */
  readonly startedAt: string;
}

/**
 * Identity of a live process, or undefined when there is none with that pid (a zombie counts as
 * gone).
 */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | undefined> {
  const startedAt = process.platform === 'linux' ? await startTimeFromProc(pid) : await startTimeFromPs(pid);
  return startedAt === undefined ? undefined : { pid, startedAt };
}

/** Whether exactly this process still runs. */
export async function isRunning(identity: ProcessIdentity): Promise<boolean> {
  return (await identifyProcess(identity.pid))?.startedAt === identity.startedAt;
}

/** Processes that were started with exactly this argument, such as `--datadir=/some/folder`. */
export async function findProcessesByArgument(argument: string): Promise<ProcessIdentity[]> {
  const pids = process.platform === 'linux' ? await pidsFromProc(argument) : await pidsFromPs(argument);
  const identities = await Promise.all(pids.filter((pid) => pid !== process.pid).map((pid) => identifyProcess(pid)));
  return identities.filter((identity) => identity !== undefined);
}

/**
 * Asks a process to stop with SIGTERM and kills it with SIGKILL at the deadline; resolves when it
 * is gone. A process that already ended is left alone, also when its pid is another's by now.
 */
export async function terminateProcess(identity: ProcessIdentity, deadlineMs: number): Promise<void> {
  await signal(identity, 'SIGTERM');
  if (await isGone(identity, deadlineMs)) return;
  await signal(identity, 'SIGKILL');
  if (await isGone(identity, 10_000)) return;
  throw new Error(`Process ${identity.pid} does not end, not even by SIGKILL. Look at it with: ps -fp ${identity.pid}`);
}

async function signal(identity: ProcessIdentity, name: NodeJS.Signals): Promise<void> {
  if (!(await isRunning(identity))) return;
  try {
    process.kill(identity.pid, name);
  } catch (error) {
    if (systemErrorCode(error) !== 'ESRCH') throw error;
  }
}

async function isGone(identity: ProcessIdentity, deadlineMs: number): Promise<boolean> {
  const deadline = Date.now() + deadlineMs;
  while (await isRunning(identity)) {
    if (Date.now() >= deadline) return false;
    await delay(POLL_MS);
  }
  return true;
}

async function startTimeFromProc(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may itself hold spaces and parentheses, so count from the last one.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    // Clock ticks since boot: unambiguous only together with the boot.
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '');
    return `${boot.trim()}/${fields[19]}`;
  } catch {
    return undefined;
  }
}

async function startTimeFromPs(pid: number): Promise<string | undefined> {
  try {
    const { stdout } = await run('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], { timeout: 10_000 });
    const [state, ...start] = stdout.trim().split(/\s+/);
    return state === undefined || state.startsWith('Z') ? undefined : start.join(' ');
  } catch {
    return undefined;
  }
}

async function pidsFromProc(argument: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const matches = await Promise.all(
    pids.map(async (pid) => {
      const commandLine = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      return commandLine.split('\0').includes(argument);
    }),
  );
  return pids.filter((_, index) => matches[index]).map(Number);
}

async function pidsFromPs(argument: string): Promise<number[]> {
  const { stdout } = await run('ps', ['-axww', '-o', 'pid=,command='], {
    timeout: 10_000,
    maxBuffer: 64 * 1024 * 1024,
  });
  return stdout
    .split('\n')
    .filter((line) => `${line} `.includes(` ${argument} `))
    .map((line) => Number.parseInt(line, 10));
}
