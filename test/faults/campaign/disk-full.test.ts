import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { verdictText } from '../../../apps/simulator/src/verdict-text.js';
import { testServer } from '../../support/servers.js';
import { underFault } from './campaign.js';
import { DISK_FULL } from './faults.js';
import { recordOutcome } from './results.js';
import { FaultRig } from './rig.js';

/** For the server's files and a while of load: redo log, undo, binlog. */
const MEGABYTES = 700;
const run = promisify(execFile);

let mount: string;
let rig: FaultRig;

const RUNS = process.getuid?.() === 0 && process.env['ROWMQ_FAULT_SECONDS'] !== undefined;

beforeEach(async () => {
  mount = await mkdtemp(join(tmpdir(), 'rowmq-small-disk-'));
  await run('mount', ['-t', 'tmpfs', '-o', `size=${MEGABYTES}m`, 'tmpfs', mount]);
  rig = await FaultRig.start({ kind: testServer().kind, folder: join(mount, 'data'), bufferPoolMegabytes: 128 });
});

afterEach(async () => {
  await rig?.stop();
  await run('umount', [mount]);
  await rm(mount, { recursive: true, force: true });
});

// Only root may mount, and the servers take a minute until they look whether there is space again: not in the short run.
test.runIf(RUNS)('the disk of the database full', { timeout: 400_000 }, async () => {
  const outcome = await underFault(rig, DISK_FULL, 1);
  await recordOutcome(outcome);
  const told = verdictText(outcome.result);
  expect(outcome.result.verdict.status, told).not.toBe('BROKEN');
  expect(outcome.left, told).toBe(0);
});
