import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../', import.meta.url));

const promtool = async (...args: string[]): Promise<string> => {
  const { stdout, stderr } = await run('promtool', args, { cwd: `${root}docs` });
  return stdout + stderr;
};
const hasPromtool = await promtool('--version').then(
  () => true,
  () => false,
);
if (!hasPromtool) process.stderr.write('NOT TESTED: docs/alerts.yml by promtool, which the package prometheus has.\n');

test.runIf(hasPromtool)('promtool accepts the rules of docs/alerts.yml', async () => {
  expect(await promtool('check', 'rules', 'alerts.yml')).toContain('SUCCESS');
});

test.runIf(hasPromtool)('the rules of docs/alerts.yml fire when they should, and only then', async () => {
  expect(await promtool('test', 'rules', 'alerts.test.yml')).toContain('SUCCESS');
});
