import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { testServer } from '../../support/servers.js';
import { underFault } from './campaign.js';
import type { Fault } from './faults.js';
import { FaultRig } from './rig.js';

/*
 * Brokers from which one guarantee was taken out, under the same load: the verdict must say which. What is run is the compiled broker with one line changed, so a change of that line's source fails here first.
 */

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const SECONDS = 2;

interface Mutant {
  name: string;
  /** Below dist. */
  file: string;
  /** What must be there, once, and what is put in its place. */
  line: string;
  instead: string;
  fault: Fault;
  /** Any of these guarantees. */
  broken: string[];
}

/** Handlers that outlast their leases and messages that are as short-lived as leases. */
const SLOW_CONSUMERS: Fault = {
  name: 'slow consumers',
  expected: '',
  load: { leaseSeconds: 1, slowRate: 0.4, crashRate: 0, expireRate: 0 },
};
const SHORT_LIVES: Fault = {
  name: 'short lives',
  expected: '',
  load: { leaseSeconds: 1, crashRate: 0.3, nackRate: 0.3, expireRate: 0.5 },
};

const FENCED = 'Only the current lease settles or extends';
const AFTER_ACK = 'Nothing is delivered after its ack';
const EXCLUSIVE = 'A message has one valid lease at a time';

const MUTANTS: Mutant[] = [
  {
    name: 'ack answered before its commit',
    file: 'libs/store/src/message.repository.js',
    line: 'return this.leases.delete(requests, now);',
    instead:
      'this.leases.delete(requests, now).catch(() => undefined); return requests.map(({ receipts }) => receipts.map(() => null));',
    // Of an ack that comes too late the answer is known before it is refused.
    fault: SLOW_CONSUMERS,
    broken: [AFTER_ACK, FENCED],
  },
  {
    name: 'enqueue answered before its commit, and not tried again',
    file: 'libs/store/src/message.repository.js',
    line: 'return this.enqueuing.run(requests, now);',
    instead: 'if (Math.random() < 0.5) return this.enqueuing.run(requests, now); return requests.map(() => null);',
    fault: SLOW_CONSUMERS,
    broken: ['Nothing is lost'],
  },
  {
    name: 'token not compared by ack',
    file: 'libs/store/src/leases.js',
    line: ' AND d.lease_token = ${token})`);',
    instead: ')`);',
    fault: SLOW_CONSUMERS,
    broken: [FENCED, AFTER_ACK],
  },
  {
    name: 'expiry filter removed from the claim',
    file: 'libs/store/src/claim.sql.js',
    line: 'if (row.expiresAt <= now)',
    instead: 'if (row.expiresAt <= 0)',
    fault: SHORT_LIVES,
    broken: ['Nothing is delivered after its expiry'],
  },
  {
    name: 'lease that others may have a second and a half before it ends',
    file: 'libs/store/src/claim.sql.js',
    line: 'SET available_at = ${leaseExpiresAt + LEASE_GRACE_MS},',
    instead: 'SET available_at = ${leaseExpiresAt + LEASE_GRACE_MS - 1500},',
    fault: { ...SLOW_CONSUMERS, load: { ...SLOW_CONSUMERS.load, leaseSeconds: 2 } },
    broken: [EXCLUSIVE, FENCED],
  },
  {
    name: 'nack ignores its delay',
    file: 'libs/store/src/message.repository.js',
    line: 'values: [now + delaySeconds * 1000, reason ?? null, queueId, messageIds],',
    instead: 'values: [now, reason ?? null, queueId, messageIds],',
    fault: SHORT_LIVES,
    broken: ['Every redelivery has its reason'],
  },
];

/** Which guarantee is broken does not depend on the server: a short run shares them out. */
const HERE = process.env['ROWMQ_FAULT_SECONDS']
  ? MUTANTS
  : MUTANTS.filter((_, index) => (index % 2 === 0) === (testServer().kind === 'mysql'));

/** A copy of what was built, in which one line is another. */
async function mutate({ file, line, instead }: Mutant): Promise<string> {
  const dist = await mkdtemp(join(ROOT, '.rowmq-test', 'mutant-'));
  await cp(join(ROOT, 'dist'), dist, { recursive: true });
  const source = await readFile(join(dist, file), 'utf8');
  expect(source.split(line), `${file} has this line once: ${line}`).toHaveLength(2);
  await writeFile(
    join(dist, file),
    source.replace(line, () => instead),
  );
  return dist;
}

describe('a broken guarantee is noticed', () => {
  test.each(HERE)('$name', { timeout: 240_000 }, async (mutant) => {
    const dist = await mutate(mutant);
    const rig = await FaultRig.start({ kind: testServer().kind, dist });
    try {
      const load = { ...mutant.fault.load, drainSeconds: 8 };
      const { result } = await underFault(rig, { ...mutant.fault, load }, SECONDS);
      const broken = result.verdict.guarantees.filter(({ status }) => status === 'BROKEN');
      const names = broken.map(({ guarantee }) => guarantee);
      expect(
        mutant.broken.some((name) => names.includes(name)),
        `broken: ${names.join(', ')}`,
      ).toBe(true);
    } finally {
      await rig.stop();
      await rm(dist, { recursive: true, force: true });
    }
  });
});
