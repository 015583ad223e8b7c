import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Linux counts CPU in this unit: `getconf CLK_TCK`, the same everywhere for years. */
const TICKS_PER_SECOND = 100;

/** CPU seconds, user and system, that a process and its children have used so far. */
export async function treeCpuSeconds(pid: number): Promise<number> {
  const each = await Promise.all((await withChildren(pid)).map(ownCpuSeconds));
  return each.reduce((sum, seconds) => sum + seconds, 0);
}

/** Resident memory of a process and its children, in MiB. */
export async function residentMegabytes(pid: number): Promise<number> {
  const each = await Promise.all((await withChildren(pid)).map(ownResidentMegabytes));
  return each.reduce((sum, megabytes) => sum + megabytes, 0);
}

/** CPU seconds, user and system, of all threads of a process so far, without its children. */
export async function ownCpuSeconds(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  // The name in parentheses may itself hold spaces and parentheses, so count from the last one.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [utime, stime] = [fields[11], fields[12]];
  return (Number(utime) + Number(stime)) / TICKS_PER_SECOND;
}

/**
 * Bytes that the kernel has written to storage for a process so far, into any file. 0 on a file
 * system in memory.
 */
export async function bytesToStorage(pid: number): Promise<number> {
  const io = await readFile(`/proc/${pid}/io`, 'utf8');
  return Number(/^write_bytes: (\d+)$/m.exec(io)?.[1]);
}

/** Files, sockets and pipes that a process and its children hold open. */
export async function openHandles(pid: number): Promise<number> {
  const each = await Promise.all(
    (await withChildren(pid)).map(async (one) => (await readdir(`/proc/${one}/fd`)).length),
  );
  return each.reduce((sum, count) => sum + count, 0);
}

/**
 * Sizes, MiB, of all files below a folder, by their names. It leaves out files that are removed
 * meanwhile.
 */
export async function folderMegabytes(folder: string): Promise<Map<string, number>> {
  const sizes = new Map<string, number>();
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile()) continue;
    const found = await stat(join(entry.parentPath, entry.name)).catch(() => undefined);
    if (found !== undefined) sizes.set(entry.name, (sizes.get(entry.name) ?? 0) + found.size / 2 ** 20);
  }
  return sizes;
}

async function ownResidentMegabytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024;
}

/** A broker with several workers is a tree of processes. */
async function withChildren(pid: number): Promise<number[]> {
  const threads = await readdir(`/proc/${pid}/task`);
  const lists = await Promise.all(
    threads.map((thread) => readFile(`/proc/${pid}/task/${thread}/children`, 'utf8').catch(() => '')),
  );
  const children = lists.flatMap((list) => list.split(' ').filter(Boolean).map(Number));
  const below = await Promise.all(children.map(withChildren));
  return [pid, ...below.flat()];
}
