import { readdir, readFile, readlink } from 'node:fs/promises';

/** The resident memory of a process, in MiB. */
export async function memoryOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
}

/** The number of sockets that a process has open. */
export async function socketsOf(pid: number): Promise<number> {
  const folder = `/proc/${pid}/fd`;
  const files = await readdir(folder);
  // A file may be closed meanwhile.
  const targets = await Promise.all(files.map(async (file) => readlink(`${folder}/${file}`).catch(() => '')));
  return targets.filter((target) => target.startsWith('socket:')).length;
}
