import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { launchDatabase, refuseUnwritable } from './database.js';
import { readLauncherConfig } from './launcher.config.js';

test('a folder that can be written to is made, and nothing is left in it', async () => {
  const parent = await mkdtemp(join(tmpdir(), 'rowmq-folder-'));
  const folder = join(parent, 'deep', 'er');
  await refuseUnwritable(folder, 'ROWMQ_DATA_DIR');
  expect(await readdir(folder)).toEqual([]);
  await rm(parent, { recursive: true });
});

test('a folder that cannot be written to is refused before a server is looked for, by its setting', async () => {
  const parent = await mkdtemp(join(tmpdir(), 'rowmq-folder-'));
  const file = join(parent, 'file');
  await writeFile(file, '');
  const lines: string[] = [];
  const launch = async (settings: Record<string, string>): Promise<unknown> =>
    launchDatabase(readLauncherConfig(settings), (line) => lines.push(line), new AbortController().signal);
  // Root may write everywhere, but not below a file.
  await expect(launch({ ROWMQ_DATA_DIR: join(file, 'below') })).rejects.toThrow(
    new RegExp(`^Cannot write to the folder ${file}/below: ENOTDIR.*name another folder in ROWMQ_DATA_DIR\\.$`),
  );
  await expect(launch({ ROWMQ_DATA_DIR: parent, ROWMQ_SERVERS_DIR: join(file, 'servers') })).rejects.toThrow(
    /file\/servers: ENOTDIR.*name another folder in ROWMQ_SERVERS_DIR\.$/,
  );
  expect(lines).toEqual([]);
  await rm(parent, { recursive: true });
});
