// Builds the dashboard into apps/dashboard/dist, unless nothing has changed since the last time.
import { readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = join(root, 'apps/dashboard');
const dist = join(folder, 'dist');
const SOURCES = ['apps/dashboard', 'libs/contract/src', 'package-lock.json', 'scripts/build-dashboard.mjs'];

const built = await lastChange(join(dist, 'index.html'));
const changed = Math.max(...(await Promise.all(SOURCES.map((path) => lastChange(join(root, path))))));
if (built <= changed) {
  const { build } = await import('vite');
  // A running broker, or another build, never sees half of the files.
  const unfinished = join(folder, `.dist-${process.pid}`);
  try {
    await build({ root: folder, logLevel: 'warn', build: { outDir: unfinished, emptyOutDir: true } });
    await rm(dist, { recursive: true, force: true });
    await rename(unfinished, dist);
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}

/** When a file of this path was written last, in ms since 1970. 0: it does not exist. */
async function lastChange(path) {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return 0;
  if (!found.isDirectory()) return found.mtimeMs;
  const names = (await readdir(path)).filter(
    (name) => !['dist', 'node_modules'].includes(name) && !name.startsWith('.'),
  );
  return Math.max(0, ...(await Promise.all(names.map((name) => lastChange(join(path, name))))));
}
