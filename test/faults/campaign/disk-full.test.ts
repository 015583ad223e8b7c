import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, test } from 'vitest';
import { testServer } from '../../support/servers.js';
import { underFault } from './campaign.js';
import { DISK_FULL } from './database-faults.js';
import { expectAllKept } from './expect-kept.js';
import { recordOutcome } from './results.js';
import { FaultRig } from './rig.js';

/** For the server's files and a while of load: redo log, undo, binlog. */
const MEGABYTES = 700;
const run = promisify(execFile);

let mount: string | undefined;
let rig: FaultRig | undefined;

/**
 * Only root may mount. The servers probe for space once a minute, which is too long for the short
 * run.
 */
const WHY_NOT =
  process.getuid?.() !== 0
    ? 'only root can mount a small disk'
    : process.env['ROWMQ_FAULT_SECONDS'] === undefined && 'it takes minutes: npm run test:faults';

beforeEach(async ({ skip }) => {
  if (WHY_NOT) skip(WHY_NOT);
  mount = await mkdtemp(join(tmpdir(), 'rowmq-small-disk-'));
  await run('mount', ['-t', 'tmpfs', '-o', `size=${MEGABYTES}m`, 'tmpfs', mount]);
  rig = await FaultRig.start({ kind: testServer().kind, folder: join(mount, 'data'), bufferPoolMegabytes: 128 });
  await rig.repair();
});

afterEach(async () => {
  await rig?.stop();
  if (mount === undefined) return;
  // Also while somebody still has a file of it open.
  await run('umount', ['-l', mount]);
  await rm(mount, { recursive: true, force: true });
});

test('the disk of the database full', { timeout: 600_000 }, async () => {
  const outcome = await underFault(rig as FaultRig, DISK_FULL, 1);
  await recordOutcome(outcome);
  expectAllKept(outcome, rig as FaultRig);
});
