import { readdir, readFile } from 'node:fs/promises';

/** Linux counts in hundredths of a second, whatever the kernel's own clock is (USER_HZ). */
const MICROSECONDS_PER_TICK = 10_000;

interface ProcessTimes {
  parent: number;
  ticks: number;
}

/**
 * CPU time, µs, user and system, that each of these processes has used so far. It includes their
 * children, live and ended: a database's backends, a broker's workers.
 */
export async function cpuTimes(pids: Record<string, number>): Promise<Record<string, number>> {
  const processes = new Map<number, ProcessTimes>();
  const names = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  await Promise.all(
    names.map(async (name) => {
      const times = await readTimes(name);
      if (times !== undefined) processes.set(Number(name), times);
    }),
  );
  const children = new Map<number, number[]>();
  for (const [pid, { parent }] of processes) children.set(parent, [...(children.get(parent) ?? []), pid]);
  const total = (pid: number): number =>
    (processes.get(pid)?.ticks ?? 0) + (children.get(pid) ?? []).reduce((sum, child) => sum + total(child), 0);
  return Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, total(pid) * MICROSECONDS_PER_TICK]));
}

/** Undefined when the process has ended. */
async function readTimes(pid: string): Promise<ProcessTimes | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (stat === undefined) return undefined;
  // The name in parentheses may itself hold spaces and parentheses, so it counts from the last one.
  const fields = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  // utime, stime, and cutime, cstime of the children that ended. So the end of a child loses
  // nothing.
  const ticks = [11, 12, 13, 14].reduce((sum, index) => sum + (fields[index] ?? 0), 0);
  return { parent: fields[1] ?? 0, ticks };
}
