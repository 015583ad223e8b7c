import { constants } from 'node:fs';
import { cp, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const STATE = '.rowmq-test';
/** Parts of the repository that a copy shares, or does not need. */
const LEFT_OUT = new Set(['node_modules', '.git', STATE]);

/** A line of a file, and what takes its place. */
export interface Edit {
  /** Below the repository. */
  file: string;
  /** It must occur `times` times (default: once). */
  line: string;
  instead: string;
  times?: number;
}

/** Changes lines of the files below a folder. */
export async function editFiles(root: string, edits: readonly Edit[]): Promise<void> {
  for (const edit of edits) {
    const parts = await expectLine(root, edit);
    await writeFile(join(root, edit.file), parts.join(edit.instead));
  }
}

/** Expects the line as often as the edit says, and returns the text around it. */
export async function expectLine(root: string, { file, line, times = 1 }: Edit): Promise<string[]> {
  const parts = (await readFile(join(root, file), 'utf8')).split(line);
  expect(parts, `${file} has this, ${times}×: ${line}`).toHaveLength(times + 1);
  return parts;
}

/**
 * Makes a copy of the repository, with its sources and what was compiled from them, in which lines
 * are others. Tests run in it as in the repository. It shares the packages of others, servers and
 * initialised data.
 */
export async function mutatedCopy(root: string, edits: readonly Edit[]): Promise<void> {
  await rm(root, { recursive: true, force: true });
  await mkdir(join(root, STATE), { recursive: true });
  for (const name of (await readdir(ROOT)).filter((one) => !LEFT_OUT.has(one)))
    await cp(join(ROOT, name), join(root, name), {
      recursive: true,
      verbatimSymlinks: true,
      mode: constants.COPYFILE_FICLONE,
    });
  for (const name of ['fresh', 'servers']) await symlink(join(ROOT, STATE, name), join(root, STATE, name));
  const packages = join(root, 'node_modules');
  await mkdir(packages);
  // RowMQ's own packages are links to folders of the repository, and here to those of the copy.
  for (const name of await readdir(join(ROOT, 'node_modules')))
    if (name === '@rowmq')
      await cp(join(ROOT, 'node_modules', name), join(packages, name), { recursive: true, verbatimSymlinks: true });
    else await symlink(join(ROOT, 'node_modules', name), join(packages, name));
  await editFiles(root, edits);
}
