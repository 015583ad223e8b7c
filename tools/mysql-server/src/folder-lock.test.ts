import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FolderLockedError } from './errors.js';
import { FolderLock } from './folder-lock.js';
import { type ProcessIdentity, identifyProcess } from './processes.js';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-lock-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function killedProcess(): Promise<ProcessIdentity> {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
  const identity = await identifyProcess(child.pid!);
  child.kill('SIGKILL');
  await once(child, 'exit');
  return identity!;
}

async function acquireAtOnce(takers: number): Promise<FolderLock[]> {
  const results = await Promise.allSettled(Array.from({ length: takers }, () => FolderLock.acquire(folder)));
  const losers = results.filter((result) => result.status === 'rejected').map((result): unknown => result.reason);
  for (const loser of losers) expect(loser).toBeInstanceOf(FolderLockedError);
  return results.filter((result) => result.status === 'fulfilled').map((result) => result.value);
}

describe('the lock of a folder', () => {
  test('is held by one at a time, and free again after its release', async () => {
    const lock = await FolderLock.acquire(folder);
    await expect(FolderLock.acquire(folder)).rejects.toThrow(`in use by process ${process.pid}`);
    await lock.release();
    await lock.release();
    await (await FolderLock.acquire(folder)).release();
    expect(await readdir(folder)).toHaveLength(1);
  });

  test('is taken over at once from a killed process', async () => {
    await writeFile(join(folder, 'lock.7'), JSON.stringify(await killedProcess()));
    const lock = await FolderLock.acquire(folder);
    expect(await readdir(folder)).toEqual(['lock.8']);
    await lock.release();
  });

  test.each(['', '{"pid":17,"started'])('is free if a crash of the machine left %j of its file', async (left) => {
    await writeFile(join(folder, 'lock.3'), left);
    const lock = await FolderLock.acquire(folder);
    expect(await readdir(folder)).toEqual(['lock.4']);
    await lock.release();
  });

  test('is not held by a later process that has the same pid', async () => {
    const startedAt = (await killedProcess()).startedAt;
    await writeFile(join(folder, 'lock.1'), JSON.stringify({ pid: process.pid, startedAt }));
    await (await FolderLock.acquire(folder)).release();
    expect(await readdir(folder)).toEqual(['lock.2']);
  });

  test('goes to exactly one of many who try at once, new, stale or released', async () => {
    for (let round = 0; round < 30; round++) {
      if (round % 2 === 0) {
        await rm(folder, { recursive: true, force: true });
        folder = await mkdtemp(join(tmpdir(), 'rowmq-lock-'));
        if (round % 4 === 0) await writeFile(join(folder, 'lock.3'), JSON.stringify(await killedProcess()));
      }
      const winners = await acquireAtOnce(20);
      expect(winners).toHaveLength(1);
      await winners[0]!.release();
    }
  });
});
