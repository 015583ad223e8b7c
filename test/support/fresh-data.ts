import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { cp, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ServerProgram } from '@rowmq/mysql-server';
import { DataFolder, exists } from '../../tools/mysql-server/src/data-folder.js';
import { initialise } from '../../tools/mysql-server/src/initialise.js';

const FRESH = fileURLToPath(new URL('../../.rowmq-test/fresh', import.meta.url));
/** A change of these files makes a new original. */
const SOURCES = ['initialise.ts', 'settings.ts'].map((name) =>
  fileURLToPath(new URL(`../../tools/mysql-server/src/${name}`, import.meta.url)),
);

/**
 * Gives the folder of a new server a copy of initialised data, because an initialisation costs
 * seconds of CPU. The first call for a version of a server initialises the original, and later
 * runs find it in .rowmq-test/fresh. The data has no accounts yet but `root`: the server's start
 * makes them.
 */
export async function copyFreshData(program: ServerProgram, dataDir: string): Promise<void> {
  const folder = new DataFolder(dataDir, program.kind);
  if (await folder.isInitialised()) return;
  const sources = await Promise.all(SOURCES.map((path) => readFile(path)));
  const hash = createHash('sha256').update(Buffer.concat(sources)).digest('hex').slice(0, 8);
  const original = join(FRESH, `${program.kind}-${program.version}-${hash}`);
  if (!(await exists(original))) await make(original, program);
  const unfinished = `${folder.data}.unfinished`;
  await folder.create();
  await cp(original, unfinished, { recursive: true, mode: constants.COPYFILE_FICLONE });
  await rename(unfinished, folder.data);
}

async function make(original: string, program: ServerProgram): Promise<void> {
  await mkdir(FRESH, { recursive: true });
  const own = await mkdtemp(join(FRESH, 'unfinished-'));
  try {
    const folder = new DataFolder(own, program.kind);
    await folder.create();
    await initialise(program, folder);
    // It holds the server's identity. The start makes another.
    await rm(join(folder.data, 'auto.cnf'), { force: true });
    await rename(folder.data, original).catch(async (error: unknown) => {
      // Another run was first.
      if (!(await exists(original))) throw error;
    });
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}
