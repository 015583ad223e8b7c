import { randomUUID } from 'node:crypto';
import { link, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { FolderLockedError, systemErrorCode } from './errors.js';
import { identifyProcess, isRunning, type ProcessIdentity } from './processes.js';

const ATTEMPTS = 100;
const RELEASED = 'released';
const holderSchema = z.object({ pid: z.number(), startedAt: z.string() });

/**
 * Exclusive use of a folder by one process, which outlives nothing: a holder that was killed loses
 * it at once.
 *
 * The lock is a series of files `lock.1`, `lock.2`, … of which the highest counts; it names its
 * holder by pid and start time. To take over from a dead holder of `lock.n`, link a file that
 * already has its content to `lock.(n+1)`: of several takers one succeeds. Numbers only rise,
 * because a release marks the file instead of removing it. A process that read the numbers too
 * long ago links a taken number and fails, or sees a higher one when it reads again. Nothing is
 * ever removed that another might hold.
 */
export class FolderLock {
  private released = false;

  private constructor(private readonly file: string) {}

  /**
   * Takes the lock of an existing folder.
   * @throws FolderLockedError when a live process (also this one) holds it
   */
  static async acquire(folder: string): Promise<FolderLock> {
    const me = await identifyProcess(process.pid);
    if (me === undefined) throw new Error('Cannot read the start time of this process: /proc (Linux) or ps must work.');
    const candidate = join(folder, `lock-candidate.${randomUUID()}`);
    await writeFile(candidate, JSON.stringify(me), { mode: 0o600 });
    try {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        const highest = Math.max(0, ...(await lockNumbers(folder)));
        await refuseIfHeld(folder, highest);
        if (await claim(folder, candidate, highest + 1)) return new FolderLock(lockFile(folder, highest + 1));
      }
    } finally {
      await rm(candidate, { force: true });
    }
    throw new Error(`Could not lock ${folder}: too many processes try at the same time. Try again.`);
  }

  /** Gives the folder free. Does nothing the second time. */
  async release(): Promise<void> {
    if (this.released) return;
    this.released = true;
    const mark = `${this.file}.${randomUUID()}`;
    await writeFile(mark, RELEASED);
    await rename(mark, this.file);
  }
}

async function refuseIfHeld(folder: string, number: number): Promise<void> {
  if (number === 0) return;
  const text = await readFile(lockFile(folder, number), 'utf8').catch(() => RELEASED);
  if (text === RELEASED) return;
  const holder = readHolder(text);
  if (holder !== undefined && (await isRunning(holder))) throw new FolderLockedError(folder, holder.pid);
}

/**
 * Undefined for a file that a crash of the machine emptied or cut: no holder outlives that. A
 * process that is killed leaves none, because a file is whole before it is linked.
 */
function readHolder(text: string): ProcessIdentity | undefined {
  try {
    return holderSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

async function claim(folder: string, candidate: string, number: number): Promise<boolean> {
  try {
    await link(candidate, lockFile(folder, number));
  } catch (error) {
    if (systemErrorCode(error) === 'EEXIST') return false;
    throw error;
  }
  const numbers = await lockNumbers(folder);
  const lower = numbers.filter((other) => other < number);
  const outdone = numbers.length > lower.length + 1;
  const remove = outdone ? [number] : lower;
  await Promise.all(remove.map((other) => rm(lockFile(folder, other), { force: true })));
  return !outdone;
}

async function lockNumbers(folder: string): Promise<number[]> {
  return (await readdir(folder)).filter((name) => /^lock\.\d+$/.test(name)).map((name) => Number(name.slice(5)));
}

function lockFile(folder: string, number: number): string {
  return join(folder, `lock.${number}`);
}
