import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { useOwnBroker } from '../support/api.js';
import { programPath } from '../support/cli.js';
import { blocksOf, exceptionOf, pages, speaksToCli } from '../support/docs.js';

/* Types the commands of `rowmq` that the docs tell readers to type. */

const run = promisify(execFile);
const shared = useOwnBroker();
let folder: string;

/** The output that readers must get. */
const EXPECTED = [
  'Queue orders created.',
  '1,000 messages sent',
  'payment gateway is down',
  'no such customer',
  '1 messages redriven',
  'messages replayed',
  'to 1 queue',
  'nightly-report',
  'rowmq_',
  'createKey',
  'end to end',
];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rowmq-docs-'));
  await writeFile(join(folder, 'rowmq'), `#!/bin/sh\nexec '${process.execPath}' '${programPath()}' "$@"\n`, {
    mode: 0o755,
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it('the commands of rowmq on all pages work as they stand, in the order of each page', async () => {
  const blocks = (await Promise.all((await pages()).map((page) => blocksOf(page, 'sh')))).flat();
  const scripts = blocks.filter((block) => speaksToCli(block) && exceptionOf(block) === undefined);
  expect(scripts.length).toBeGreaterThan(4);
  const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', scripts.map(({ text }) => text).join('\n')], {
    env: {
      ...process.env,
      PATH: `${folder}:${process.env['PATH']}`,
      ROWMQ_URL: shared.broker.url,
      ROWMQ_CONFIG: '/nonexistent',
      ROWMQ_KEY: 'any-key',
    },
    cwd: folder,
    timeout: 280_000,
  });
  for (const expected of EXPECTED) expect(stdout).toContain(expected);
}, 300_000);
