import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { shareOf, testServer } from '../../support/servers.js';
import { underFault } from './campaign.js';
import { expectAllKept } from './expect-kept.js';
import { FAULTS, OUTSIDE_DATABASE } from './faults.js';
import { recordOutcome } from './results.js';
import { FaultRig } from './rig.js';

/*
 * Faults under load, each with its expected behaviour beside it in *-faults.ts. The simulator's
 * verdict judges the load's ledger afterwards. The verdict has tests of its own: doctored ledgers
 * (verdict.test.ts), a lying broker (simulator.test.ts), and brokers without one guarantee
 * (mutants.test.ts).
 */

const LENGTH = process.env['ROWMQ_FAULT_SECONDS'];
/** Each fault keeps striking for this long. */
const SECONDS = Number(LENGTH ?? 2);

/** A short run shares out the faults outside the database. */
const SHARE = LENGTH === undefined ? shareOf(OUTSIDE_DATABASE) : OUTSIDE_DATABASE;
const HERE = FAULTS.filter((fault) => !OUTSIDE_DATABASE.includes(fault) || SHARE.includes(fault));

let rig: FaultRig;

beforeAll(async () => {
  rig = await FaultRig.start({ kind: testServer().kind });
});

beforeEach(() => rig.repair());

afterAll(() => rig?.stop());

test.each(HERE)('$name', { timeout: SECONDS * 1000 + 400_000 }, async (fault) => {
  const outcome = await underFault(rig, fault, SECONDS);
  await recordOutcome(outcome);
  expectAllKept(outcome, rig);
});

test('after all of that the reapers work', { timeout: 120_000 }, async () => {
  await expect(rig.untilReaping()).resolves.toBeUndefined();
});
