import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ChildRecord } from './left-over.js';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-left-over-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

test('a child that cannot be noted is told and kept, and noted with the next one that can', async () => {
  const parent = join(folder, 'data');
  const file = join(parent, 'children.json');
  await writeFile(parent, 'a file where the folder should be');
  const lines: string[] = [];
  const record = new ChildRecord(file, (line) => lines.push(line));
  await record.note('broker', process.pid);
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/Could not note the broker \(process \d+\) in .*children\.json: E/);

  await rm(parent);
  await mkdir(parent);
  await record.note('reaper', process.ppid);
  expect(lines).toHaveLength(1);
  expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject([
    { name: 'broker', pid: process.pid },
    { name: 'reaper', pid: process.ppid },
  ]);
});

test.each(['', '\0\0\0\0', '{"name":"broker"}', '[{"name":"broker"'])(
  'a file that a loss of power left broken hinders no start, and is told: %j',
  async (content) => {
    const file = join(folder, 'children.json');
    await writeFile(file, content);
    const lines: string[] = [];
    const record = new ChildRecord(file, (line) => lines.push(line));
    await record.endLeftOver();
    expect(lines).toEqual([expect.stringMatching(/Left out .*children\.json/)]);
    await record.note('broker', process.pid);
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject([{ name: 'broker', pid: process.pid }]);
  },
);
