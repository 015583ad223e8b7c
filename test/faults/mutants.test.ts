import { execFile } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, inject, test } from 'vitest';
import { type Edit, expectLine, mutatedCopy } from '../support/mutated-copy.js';
import { RUN_ONCE } from '../support/run-once.js';
import { shareOf, testServer } from '../support/servers.js';

/*
 * RowMQ with a fault in it, where no verdict of the campaign can tell: in HTTP, in the audit, in
 * probes, in transactions of other services. For each there is a test that fails because of it.
 */

interface Mutant {
  name: string;
  edits: Edit[];
  /** The test that fails. */
  noticedBy: { file: string; test: string };
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** A test of the unit tests' project lies beside its source. */
const UNIT = /^(apps|libs|tools)\//;
const LONGEST_MS = 240_000;

const CONNECTIONS = 'apps/broker/src/http/connections.ts';
const AUDIT = 'apps/broker/dist/audit/audit-actions.js';
const HEALTH = 'apps/reaper/dist/health.service.js';
const PUBLISH_IN = 'libs/store/src/messages/publish-in.ts';
const SQS = 'apps/broker/dist/sqs/sqs-endpoint.js';
const CLAIM = 'libs/store/src/messages/claim.ts';

const AUDIT_TEST = 'test/e2e/audit.test.ts';
const STOP_OF_WORKERS = {
  file: 'test/e2e/workers.test.ts',
  test: 'cuts off no request on a connection that was accepted, if the signal reaches the primary',
};
const PROBES = {
  file: 'test/e2e/reaper.test.ts',
  test: 'answers probes: it lives, and is ready while it reaches the database, also when it stands by',
};
const PUBLISH_ELSEWHERE = {
  file: 'test/store/transactional-adapters.test.ts',
  test: 'publishes to the queues whose filters match, in order of groups and without doubles',
};
const PRESIGNED = 'test/sqs/presigned.test.ts';

const MUTANTS: Mutant[] = [
  {
    name: 'audit without the calls that a POST makes',
    edits: [{ file: AUDIT, line: "route.method === 'GET'", instead: "route.method === 'POST'" }],
    noticedBy: { file: AUDIT_TEST, test: 'covers every call of an administrator that is no GET' },
  },
  {
    name: 'audit after the reply, which a client that has hung up never gets',
    edits: [
      {
        file: AUDIT,
        line: 'route.onSend = (request, reply, _payload, done) => {',
        instead: 'route.onResponse = (request, reply, done) => { if (request.raw.destroyed) return done();',
      },
    ],
    noticedBy: { file: AUDIT_TEST, test: 'has an action whose client hung up before the reply' },
  },
  {
    name: 'audit that names no key',
    edits: [{ file: AUDIT, line: 'caller?.name ?? null', instead: 'null' }],
    noticedBy: { file: AUDIT_TEST, test: 'says who changed which setting from what to what' },
  },
  {
    name: 'audit of every guess of a flood',
    edits: [{ file: AUDIT, line: "problem !== 'too-many-attempts'", instead: 'true' }],
    noticedBy: { file: 'test/e2e/keys-trouble.test.ts', test: 'fill neither the audit nor its log' },
  },
  {
    name: 'reaper that is ready without its database',
    edits: [{ file: HEALTH, line: 'await this.database.ping(PING_MS);', instead: '' }],
    noticedBy: PROBES,
  },
  {
    name: 'reaper that lives only while it reaches its database',
    edits: [{ file: HEALTH, line: "if (url === '/health/live')", instead: 'if (false)' }],
    noticedBy: PROBES,
  },
  ...[
    ['the topic', '${schema}topic t'],
    ['its subscriptions', '${schema}subscription s'],
    ['the queues', '${schema}queue FORCE INDEX (PRIMARY)'],
    ['the locks on queues', '${schema}queue FORCE INDEX (queue_by_name)'],
  ].map(([what, table]): Mutant => ({
    name: `publish in a transaction that looks for ${what} in the service’s own database`,
    edits: [{ file: PUBLISH_IN, line: table!, instead: table!.replace('${schema}', '') }],
    noticedBy: PUBLISH_ELSEWHERE,
  })),
  ...[
    ['counts messages', '{ clock: UTC_NOW_MS, schema }', '{ clock: UTC_NOW_MS }'],
    ['stores packs', 'String(now), { schema })', 'String(now), {})'],
    ['locks groups', 'lockGroups(keys, tx.schema)', 'lockGroups(keys)'],
    ['reads groups', 'readGroups(keys, tx.schema)', 'readGroups(keys)'],
  ].map(([does, line, instead]): Mutant => ({
    name: `publish in a transaction that ${does} in the service’s own database`,
    edits: [{ file: PUBLISH_IN, line: line!, instead: instead! }],
    noticedBy: PUBLISH_ELSEWHERE,
  })),
  {
    name: 'claim that has one lease token for all its queues',
    edits: [{ file: CLAIM, line: 'leaseToken: newLeaseToken()', instead: 'leaseToken: Buffer.alloc(8, 1)' }],
    noticedBy: {
      file: 'test/store/batches.test.ts',
      test: 'gives receipts that hold in their own queue only, also of a message that several queues got',
    },
  },
  {
    name: 'claim that reads as many bytes for each of its queues as it may for one',
    edits: [{ file: CLAIM, line: 'claimBytes += bytes;', instead: '' }],
    noticedBy: {
      file: 'test/store/batches.test.ts',
      test: 'reads no more bytes than a claim in one queue may, and one pack of each at least',
    },
  },
  {
    name: 'claim that begins again for the consumers of the other queues when it fails for one',
    edits: [
      {
        file: 'apps/broker/src/messages/waiting-consumers.ts',
        line: 'if (turn.request !== undefined) return undefined;',
        instead: '',
      },
    ],
    noticedBy: {
      file: 'apps/broker/src/messages/waiting-consumers.test.ts',
      test: 'because of one queue fails the consumers of that queue only',
    },
  },
  {
    name: 'workers that are stopped while their port is open',
    edits: [{ file: 'apps/broker/dist/workers/workers.js', line: 'await this.port.close();', instead: '' }],
    noticedBy: STOP_OF_WORKERS,
  },
  {
    name: 'enqueues of one transaction that take turns on its connection',
    edits: [
      {
        file: 'libs/typeorm/src/in-turn.ts',
        line: '(last.get(transaction) ?? Promise.resolve()).then(enqueue, enqueue)',
        instead: 'enqueue()',
      },
    ],
    noticedBy: {
      file: 'test/store/transactional-enqueue.test.ts',
      test: 'runs the calls of one transaction in turn, so that ids, groups and the maximum depth hold',
    },
  },
  {
    name: 'requests that begin while a stopping broker still listens',
    edits: [{ file: CONNECTIONS, line: 'this.held === undefined', instead: 'true' }],
    noticedBy: {
      file: 'apps/broker/src/http/connections.test.ts',
      test: 'begins no request before new connections are refused, so that waiting clients open no more',
    },
  },
  {
    name: 'requests that are held in a stop and never begin',
    edits: [{ file: CONNECTIONS, line: 'for (const begin of held) begin();', instead: '' }],
    noticedBy: {
      file: 'apps/broker/src/http/connections.test.ts',
      test: 'begins no request before new connections are refused, so that waiting clients open no more',
    },
  },
  {
    name: 'all requests of a connection at once',
    edits: [{ file: CONNECTIONS, line: 'this.underWay.size === MOST_UNDER_WAY', instead: 'false' }],
    noticedBy: {
      file: 'apps/broker/src/http/connections.test.ts',
      test: 'gets all answers in order, from a few requests under way at a time',
    },
  },
  {
    name: 'the newest of the requests that wait on a connection first',
    edits: [{ file: CONNECTIONS, line: 'this.later.shift()?.()', instead: 'this.later.pop()?.()' }],
    noticedBy: {
      file: 'apps/broker/src/http/connections.test.ts',
      test: 'has them carried out in their order, also those that had to wait',
    },
  },
  {
    name: 'every GET of / as an action of SQS',
    edits: [{ file: SQS, line: '(pattern.test(url) ? value : undefined)', instead: 'value' }],
    noticedBy: { file: PRESIGNED, test: 'answers GET / without an action as ever' },
  },
  {
    name: 'a GET of / whose action is anywhere in its query',
    edits: [{ file: SQS, line: '/^\\/\\?(?:.*&)?Action=/s', instead: '/^\\/\\?.*Action=/s' }],
    noticedBy: { file: PRESIGNED, test: 'answers GET / without an action as ever' },
  },
  {
    name: 'no GET of / as an action of SQS',
    edits: [{ file: SQS, line: '(pattern.test(url) ? value : undefined)', instead: 'undefined' }],
    noticedBy: { file: PRESIGNED, test: 'carries out the action of a presigned URL, of a queue and of /' },
  },
];

/** A test of each file, in a copy without a fault. */
const CONTROLS = MUTANTS.filter(
  ({ noticedBy }, index) => MUTANTS.findIndex((one) => one.noticedBy.file === noticedBy.file) === index,
);

const COPY = join(ROOT, '.rowmq-test', `mutant-${testServer().kind}`);
afterAll(() => rm(COPY, { recursive: true, force: true }));

interface Report {
  testResults: { assertionResults: { title: string; status: string }[] }[];
}

/** Runs one test in the copy. Returns `passed` or `failed`, each once for each time that it ran. */
async function outcomesOf({ file, test: title }: Mutant['noticedBy']): Promise<string[]> {
  const project = UNIT.test(file) ? 'unit' : RUN_ONCE.includes(file) ? inject('kinds')[0] : testServer().kind;
  const report = join(COPY, '.rowmq-test', 'report.json');
  await new Promise<void>((resolve) => {
    const vitest = join(COPY, 'node_modules', 'vitest', 'vitest.mjs');
    const pattern = title.replaceAll(/[$()*+.?[\\\]^{|}]/g, String.raw`\$&`);
    const options = ['--project', String(project), '-t', pattern, '--reporter=json', '--outputFile', report];
    const where = { cwd: COPY, env: environment(), timeout: LONGEST_MS };
    // A test that fails makes it fail.
    execFile(process.execPath, [vitest, 'run', file, ...options], where, () => resolve());
  });
  const { testResults } = JSON.parse(await readFile(report, 'utf8')) as Report;
  return testResults
    .flatMap(({ assertionResults }) => assertionResults)
    .filter((one) => one.title === title && ['passed', 'failed'].includes(one.status))
    .map(({ status }) => status);
}

/** The environment without the parts that tell vitest that it is a worker. */
function environment(): NodeJS.ProcessEnv {
  const isOther = ([name]: [string, unknown]): boolean => !/^(?:VITEST|TEST_BUNDLED_APPS)/.test(name);
  return Object.fromEntries(Object.entries(process.env).filter(isOther));
}

const named = (all: readonly Mutant[]): [string, Mutant][] => all.map((one) => [one.name, one]);

test.each(named(MUTANTS))('the lines are there for: %s', async (_, { edits }) => {
  for (const edit of edits) await expectLine(ROOT, edit);
});

// Each starts vitest, a server and often brokers, so only the campaign does.
describe.runIf(process.env['ROWMQ_FAULT_SECONDS'] !== undefined)('a test', () => {
  test.each(named(shareOf(MUTANTS)))('notices: %s', { timeout: 2 * LONGEST_MS }, async (_, { edits, noticedBy }) => {
    await mutatedCopy(COPY, edits);
    expect(await outcomesOf(noticedBy)).toContain('failed');
  });

  test.each(shareOf(CONTROLS).map(({ noticedBy }) => [noticedBy.file, noticedBy] as const))(
    'passes in a copy without a fault: %s',
    { timeout: 2 * LONGEST_MS },
    async (_, noticedBy) => {
      await mutatedCopy(COPY, []);
      const outcomes = await outcomesOf(noticedBy);
      expect(outcomes).toContain('passed');
      expect(outcomes).not.toContain('failed');
    },
  );
});
