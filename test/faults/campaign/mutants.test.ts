import { cp, mkdir, rm, symlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Edit, editFiles } from '../../support/mutated-copy.js';
import { shareOf, testServer } from '../../support/servers.js';
import { underFault } from './campaign.js';
import type { Fault } from './fault.js';
import { FaultRig } from './rig.js';

/*
 * Brokers from which one guarantee was taken out, under the same load: the verdict must say which;
 * and of the broker as it is, that nothing is broken. The test changes lines of the compiled
 * broker, so a change of their source fails here first.
 */

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const SECONDS = 2;
/**
 * Whether a load meets the missing guarantee is chance. A short load often suffices. Only after
 * three full loads without evidence does the test say that the verdict did not notice.
 */
const LOADS = [0.25, 1, 1, 1];

/** Messages a second: the faster the load, the sooner it has counted enough. */
const RATE = 500;

/** A fault that the load itself makes. */
interface Disturbance extends Omit<Fault, 'hasStruck'> {
  /** True once the load has counted this share of what a full load counts. */
  hasStruck(counts: Parameters<NonNullable<Fault['hasStruck']>>[0], share: number): boolean;
}

interface Mutant {
  name: string;
  /** Below the repository. */
  file: string;
  /** In the mutant's file, unless they name another. */
  edits: (Omit<Edit, 'file'> & Partial<Edit>)[];
  fault: Disturbance;
  /** Any of these guarantees; none: all are kept. */
  broken: string[];
}

/** Handlers that outlast their leases and messages that are as short-lived as leases. */
const SLOW_CONSUMERS: Disturbance = {
  name: 'slow consumers',
  expected: '',
  mayEndIn: [],
  load: { rate: RATE, leaseSeconds: 1, slowRate: 0.4, crashRate: 0, expireRate: 0 },
  hasStruck: ({ slow, redelivered }, share) => slow >= 300 * share && redelivered >= 100 * share,
};
const SHORT_LIVES: Disturbance = {
  name: 'short lives',
  expected: '',
  mayEndIn: [],
  load: { rate: RATE, leaseSeconds: 1, crashRate: 0.3, nackRate: 0.3, expireRate: 0.5 },
  hasStruck: ({ vanished, nacked }, share) => vanished >= 100 * share && nacked >= 100 * share,
};
const HANG_UPS: Disturbance = {
  name: 'consumers that hang up before they got anything',
  expected: '',
  mayEndIn: [],
  // So that there is always something to be claimed for who hangs up.
  load: { leaseSeconds: 2, crashRate: 0.3, rate: undefined, maxBacklog: 500 },
  hasStruck: ({ hungUp }, share) => hungUp >= 30 * share,
};

/** Most messages reach consumers who wait. Their leases are long enough for every ack. */
const WAITING_CONSUMERS: Disturbance = {
  name: 'consumers that wait',
  expected: '',
  mayEndIn: [],
  load: { rate: RATE, leaseSeconds: 5, slowRate: 0, crashRate: 0, nackRate: 0, expireRate: 0 },
  hasStruck: ({ dequeued }, share) => dequeued >= 300 * share,
};

const FENCED = 'Only the current lease settles or extends';
const AFTER_ACK = 'Nothing is delivered after its ack';
const EXCLUSIVE = 'A message has one valid lease at a time';
const EXPLAINED = 'Every redelivery has its reason';

/** Hands messages off before the transaction that stores them, and runs `then` between the two. */
function handOffFirst(then: string): Mutant['edits'] {
  const store = 'storedAt = await (isOrdered';
  return [
    {
      line: store,
      instead: `for (const batch of batches) await this.handOff(batch, leaseToken, Date.now()); ${then} ${store}`,
    },
    { line: 'await this.handOff(batch, leaseToken, storedAt);', instead: '' },
  ];
}

const MUTANTS: Mutant[] = [
  {
    name: 'ack answered before its commit',
    file: 'libs/store/dist/messages/message.repository.js',
    edits: [
      {
        line: 'return this.receipts.settle(requests);',
        instead:
          'this.receipts.settle(requests).catch(() => undefined); return requests.map(({ receipts }) => receipts.map(() => null));',
      },
    ],
    // A consumer knows the answer to a late ack before the store refuses the ack.
    fault: SLOW_CONSUMERS,
    broken: [AFTER_ACK, FENCED],
  },
  {
    name: 'enqueue answered before its commit, and not tried again',
    file: 'libs/store/dist/messages/message.repository.js',
    edits: [
      {
        line: 'return this.enqueuing.run(requests, reserve);',
        instead:
          "return Math.random() < 0.5 ? this.enqueuing.run(requests, reserve) : requests.map(({ messages }) => messages.map(() => ({ id: Buffer.from('019a0b5d00007000' + '8' + crypto.randomUUID().replaceAll('-', '').slice(0, 15), 'hex'), duplicate: false })));",
      },
    ],
    fault: SLOW_CONSUMERS,
    broken: ['Nothing is lost'],
  },
  {
    name: 'token not compared by ack',
    file: 'libs/store/dist/messages/receipts.sql.js',
    edits: [
      { line: ' AND d.lease_token = ${hex(leaseToken)}${ofPart})`,', instead: ')`,' },
      {
        line: "${packId.toString('latin1')}${leaseToken.toString('latin1')}`;",
        instead: "${packId.toString('latin1')}`;",
      },
    ],
    fault: SLOW_CONSUMERS,
    broken: [FENCED, AFTER_ACK],
  },
  {
    name: 'expiry filter removed from the claim',
    file: 'libs/store/dist/messages/claim.js',
    edits: [{ line: 'if (row.expiresAt <= now)', instead: 'if (row.expiresAt <= 0)' }],
    fault: SHORT_LIVES,
    broken: ['Nothing is delivered after its expiry'],
  },
  {
    name: 'lease that others may have a second and a half before it ends',
    file: 'libs/store/dist/messages/claim.js',
    edits: [
      {
        line: 'now + leaseSeconds * 1000 + LEASE_GRACE_MS)',
        instead: 'now + leaseSeconds * 1000 + LEASE_GRACE_MS - 1500)',
      },
    ],
    fault: { ...SLOW_CONSUMERS, load: { ...SLOW_CONSUMERS.load, leaseSeconds: 2 } },
    broken: [EXCLUSIVE, FENCED],
  },
  {
    name: 'nack ignores its delay',
    file: 'libs/store/dist/messages/message.repository.js',
    // The other line is release's.
    edits: [{ line: 'availableAt: now + delaySeconds * 1000,', instead: 'availableAt: now,', times: 2 }],
    fault: SHORT_LIVES,
    broken: [EXPLAINED],
  },
  {
    name: 'deadline not compared',
    file: 'libs/store/dist/messages/receipts.sql.js',
    edits: [
      { line: 'const IS_HELD = `d.available_at > ${NOW_MS} + ${LEASE_GRACE_MS}`;', instead: "const IS_HELD = 'TRUE';" },
      {
        file: 'libs/store/dist/messages/receipts.js',
        line: 'availableAt - LEASE_GRACE_MS > now',
        instead: 'true',
      },
    ],
    fault: SLOW_CONSUMERS,
    broken: [FENCED],
  },
  {
    name: 'half of what is enqueued stored',
    file: 'libs/store/dist/messages/enqueue.sql.js',
    edits: [
      {
        line: '[insertNewDeliveries(rows.flatMap(({ deliveries }) => deliveries)),',
        instead:
          '[insertNewDeliveries(rows.flatMap(({ deliveries }) => deliveries).filter((_, index, all) => index >= all.length / 2 - 0.5)),',
      },
    ],
    fault: SLOW_CONSUMERS,
    broken: ['Nothing is lost'],
  },
  {
    name: 'lease counted that was released',
    file: 'libs/store/dist/messages/message.repository.js',
    edits: [{ line: 'receiveCount: receiveCount - 1', instead: 'receiveCount' }],
    fault: HANG_UPS,
    broken: [EXPLAINED],
  },
  {
    name: 'ack does not clear its bit',
    file: 'libs/store/dist/messages/receipts.sql.js',
    edits: [{ line: 'SET d.members = d.members & ~(${members}) WHERE', instead: 'SET d.members = d.members WHERE' }],
    fault: SLOW_CONSUMERS,
    broken: [AFTER_ACK],
  },
  {
    name: 'split that copies instead of moving',
    file: 'libs/store/dist/messages/delivery.js',
    edits: [{ line: 'left = without(left, members);', instead: '' }],
    fault: SLOW_CONSUMERS,
    broken: [EXCLUSIVE, AFTER_ACK],
  },
  {
    name: 'hand-off answered before its commit, which is slow',
    file: 'libs/store/dist/messages/enqueue.js',
    edits: handOffFirst('await new Promise((resolve) => setTimeout(resolve, 200));'),
    fault: WAITING_CONSUMERS,
    broken: [FENCED],
  },
  {
    name: 'hand-off answered before its commit, which fails',
    file: 'libs/store/dist/messages/enqueue.js',
    edits: handOffFirst("if (Math.random() < 0.3) throw new RowmqError('database-unavailable', 'It failed.');"),
    fault: WAITING_CONSUMERS,
    broken: ['Nothing is lost'],
  },
  { name: 'nothing (slow consumers)', file: 'apps/broker/dist/main.js', edits: [], fault: SLOW_CONSUMERS, broken: [] },
  { name: 'nothing (short lives)', file: 'apps/broker/dist/main.js', edits: [], fault: SHORT_LIVES, broken: [] },
];

/** Which guarantee is broken does not depend on the server: a short run shares them out. */
const HERE = process.env['ROWMQ_FAULT_SECONDS'] ? MUTANTS : shareOf(MUTANTS);

/** The folder of the changed copies. A run overwrites the copies of an interrupted run. */
const COPIES = join(ROOT, '.rowmq-test', `mutants-${testServer().kind}`);
let rig: FaultRig;

beforeAll(async () => {
  // A second broker would cost each mutant another start, and show the verdict nothing new.
  rig = await FaultRig.start({ kind: testServer().kind, processes: 1 });
});

afterAll(async () => {
  await rig?.stop();
  await rm(COPIES, { recursive: true, force: true });
});

/**
 * A copy of the broker and its libraries as they were built, in which lines are others. Other
 * packages are found in the repository around it.
 */
async function mutate({ name, file, edits }: Mutant): Promise<string> {
  const root = join(COPIES, name.replaceAll(' ', '-'));
  await rm(root, { recursive: true, force: true });
  await mkdir(join(root, 'node_modules', '@rowmq'), { recursive: true });
  for (const workspace of ['apps/broker', 'apps/reaper', 'libs/contract', 'libs/runtime', 'libs/store', 'migrations']) {
    for (const part of ['dist', 'package.json']) {
      await cp(join(ROOT, workspace, part), join(root, workspace, part), { recursive: true });
    }
    await symlink(join(root, workspace), join(root, 'node_modules', '@rowmq', basename(workspace)));
  }
  await editFiles(
    root,
    edits.map((edit) => ({ file, ...edit })),
  );
  return root;
}

describe('a broken guarantee is noticed', () => {
  test.each(HERE)('$name', { timeout: 400_000 }, async (mutant) => {
    await rig.useBrokers(await mutate(mutant));
    // The load would wait for lost messages until this deadline.
    const drainSeconds = mutant.broken.length === 0 ? 60 : 5;
    const judge = async (share: number): Promise<{ status: string; broken: string[] }> => {
      const fault: Fault = {
        ...mutant.fault,
        load: { ...mutant.fault.load, drainSeconds },
        hasStruck: (counts) => mutant.fault.hasStruck(counts, share),
      };
      const { status, guarantees } = (await underFault(rig, fault, share * SECONDS)).result.verdict;
      const broken = guarantees.filter((guarantee) => guarantee.status === 'BROKEN');
      return { status, broken: broken.map(({ guarantee }) => guarantee) };
    };
    if (mutant.broken.length === 0) {
      expect(await judge(1)).toEqual({ status: 'OK', broken: [] });
      return;
    }
    const seen = new Set<string>();
    for (const share of LOADS) {
      const { broken } = await judge(share);
      if (broken.some((name) => mutant.broken.includes(name))) return;
      for (const name of broken) seen.add(name);
    }
    expect.fail(`The verdict noticed none of: ${mutant.broken.join(', ')}. It noticed: ${[...seen].join(', ')}`);
  });
});
