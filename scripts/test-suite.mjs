// test-suite.mjs SUITE [options]: installs and builds what is missing, then runs one suite with
// vitest. Arguments that are no options of the suite go to vitest.
import { readFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { fail, prepare, root, runCommand } from './prepare.mjs';

const KINDS = ['mysql', 'mariadb'];
const RESULTS = join(root, '.rowmq-test', 'results');

const wholeNumber = (maximum = Infinity) => ({
  hint: maximum === Infinity ? 'a whole number from 1' : `a whole number from 1 to ${maximum}`,
  isValid: (text) => /^[1-9]\d*$/.test(text) && Number(text) <= maximum,
});
const positive = { hint: 'a number above 0', isValid: (text) => Number(text) > 0 };
const anyInteger = { hint: 'a whole number', isValid: (text) => /^-?\d+$/.test(text) };
const kindsOfServer = {
  hint: `of ${KINDS.join(', ')}`,
  isValid: (text) => text.split(',').every((kind) => KINDS.includes(kind)),
};
const anything = { hint: 'a text', isValid: () => true };

/**
 * Each suite has options, projects and files for vitest. The value of an option becomes the
 * environment variable `env`. A project is a kind of server; `isSequential` runs one after the
 * other.
 */
const SUITES = {
  unit: {
    does: 'Runs the tests that need no server and no browser.',
    options: {},
    projects: () => ['unit'],
    files: () => [],
  },
  faults: {
    does: 'Breaks RowMQ under load on every kind of server, and prints the results.',
    options: {
      seconds: {
        ...wholeNumber(),
        fallback: '30',
        env: 'ROWMQ_FAULT_SECONDS',
        help: 'how long each fault keeps striking',
      },
      groups: {
        ...wholeNumber(1_000_000),
        env: 'ROWMQ_FAULT_GROUPS',
        help: 'ordered queues, each with so many groups',
      },
    },
    projects: () => KINDS,
    files: () => ['test/faults'],
    before: () => rm(RESULTS, { recursive: true, force: true }),
    after: printResults,
  },
  ha: {
    does: 'Kills, freezes and restarts the servers, brokers and reapers of a group.',
    options: { rounds: { ...wholeNumber(999), fallback: '3', env: 'HA_ROUNDS', help: 'how often each fault strikes' } },
    projects: () => ['mysql'],
    files: () => ['test/ha'],
  },
  deployments: {
    does: 'Restarts brokers, and deploys the services of the example anew, one after the other under load.',
    options: {
      rounds: { ...wholeNumber(999), fallback: '10', env: 'ROWMQ_DEPLOYMENT_ROUNDS', help: 'how often each' },
    },
    projects: () => ['mysql'],
    files: () => ['test/e2e/rolling-restart.test.ts', 'test/e2e/example-deployment.test.ts'],
  },
  model: {
    does: 'Compares random histories of the store with the model of the lease protocol.',
    options: {
      runs: { ...wholeNumber(), fallback: '10000', env: 'ROWMQ_MODEL_RUNS', help: 'how many histories' },
      server: { ...kindsOfServer, fallback: KINDS.join(','), help: 'the kinds of server' },
      seed: { ...anyInteger, env: 'ROWMQ_MODEL_SEED', help: 'the seed that a failure printed' },
      path: { ...anything, env: 'ROWMQ_MODEL_PATH', needs: 'seed', help: 'the path that a failure printed' },
    },
    projects: ({ server }) => server.split(','),
    // A path leads to a history of this file only.
    files: ({ path }) => (path === undefined ? ['test/model'] : ['test/model/lease-protocol.test.ts']),
  },
  deadlocks: {
    does: 'Runs every kind of statement against every other and fails on a deadlock, one server after the other.',
    options: {
      minutes: { ...positive, fallback: '10', env: 'DEADLOCKS_MINUTES', help: 'how long, on each server' },
      servers: { ...kindsOfServer, fallback: KINDS.join(','), help: 'the kinds of server' },
    },
    projects: ({ servers }) => servers.split(','),
    files: () =>
      ['deadlocks', 'drain', 'batches', 'groups', 'neighbours'].map((name) => `test/concurrency/${name}.test.ts`),
    isSequential: true,
  },
};

const [name, ...args] = process.argv.slice(2);
const suite = SUITES[name];
if (suite === undefined) fail(`usage: node scripts/test-suite.mjs ${Object.keys(SUITES).join('|')} [options]`, 2);
const usage = usageOf();
const { values, rest } = read();
await prepare();
await suite.before?.();
const env = { ...process.env };
for (const [option, { env: variable }] of Object.entries(suite.options)) {
  if (variable !== undefined && values[option] !== undefined) env[variable] = values[option];
}
const projects = suite.projects(values);
let worst = 0;
for (const together of suite.isSequential ? projects.map((kind) => [kind]) : [projects]) {
  const chosen = together.flatMap((project) => ['--project', project]);
  worst = Math.max(worst, await runCommand('npx', ['vitest', 'run', ...chosen, ...suite.files(values), ...rest], env));
}
await suite.after?.();
process.exitCode = worst;

function usageOf() {
  const lines = Object.entries(suite.options).map(([option, { hint, fallback, help }]) => {
    const standard = fallback === undefined ? '' : ` (default: ${fallback})`;
    return `  --${option.padEnd(8)} ${help}: ${hint}${standard}`;
  });
  return [`usage: npm run test:${name} -- [options] [arguments for vitest]`, suite.does, ...lines].join('\n');
}

/** Checks the suite's options and returns the other arguments. Ends the process for --help. */
function read() {
  const own = Object.entries(suite.options);
  const options = {
    help: { type: 'boolean' },
    ...Object.fromEntries(own.map(([option]) => [option, { type: 'string' }])),
  };
  const { values: given, tokens } = parseArgs({ args, options, strict: false, allowPositionals: true, tokens: true });
  if (given.help === true) {
    console.log(usage);
    process.exit(0);
  }
  const checked = {};
  for (const [option, { hint, isValid, needs, fallback }] of own) {
    const value = given[option] ?? fallback;
    if (value === undefined) continue;
    if (typeof value !== 'string' || !isValid(value)) fail(`--${option} must be ${hint}\n${usage}`, 2);
    if (needs !== undefined && given[needs] === undefined) fail(`--${option} needs --${needs}\n${usage}`, 2);
    checked[option] = value;
  }
  const taken = new Set();
  for (const token of tokens) {
    if (token.kind !== 'option' || suite.options[token.name] === undefined) continue;
    taken.add(token.index);
    if (token.inlineValue === false) taken.add(token.index + 1);
  }
  return { values: checked, rest: args.filter((_, index) => !taken.has(index)) };
}

async function printResults() {
  for (const file of await readdir(RESULTS).catch(() => [])) {
    console.log(`\n${file}:\n\n${await readFile(join(RESULTS, file), 'utf8')}`);
  }
}
