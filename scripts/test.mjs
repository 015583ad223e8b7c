// npm test: installs and builds what is missing, then runs lint, the type check and every test.
// Arguments go to vitest.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fail, prepare, root, runCommand, step } from './prepare.mjs';

const MAY_INSTALL = process.env.ROWMQ_TEST_INSTALL !== 'off';
const HOW_TO_PREVENT = 'ROWMQ_TEST_INSTALL=off prevents this.';
const LABELS = { mysql: 'MySQL', mariadb: 'MariaDB' };

await prepare();
const untested = [...(await findServers()), ...(await findPrograms()), ...(await findHelm())];
if (untested.length > 0 && process.env.CI === 'true') {
  fail(`With CI=true everything must be tested, and this cannot be: ${untested.join(', ')}.`);
}

// The compiler uses one core, so the linters run beside it. They print only what they find.
await runTogether('1/2', [
  { name: 'lint', command: 'npm', args: ['run', '--silent', 'lint'] },
  { name: 'prose', command: 'npm', args: ['run', '--silent', 'lint:prose'] },
  { name: 'typecheck', command: 'npm', args: ['run', '--silent', 'typecheck'] },
]);
await runTogether('2/2', [{ name: 'tests', command: 'npx', args: ['vitest', 'run', ...process.argv.slice(2)] }]);
for (const part of untested) console.log(`NOT TESTED: ${part} (the reason is at the top)`);

/** Runs commands at the same time. Ends this process if one of them fails, once all have ended. */
async function runTogether(number, commands) {
  for (const { name, command, args } of commands) {
    console.log(`\n── ${number} ${name}: ${[command, ...args].join(' ')}`);
  }
  const codes = await Promise.all(commands.map(({ command, args }) => runCommand(command, args)));
  const failures = commands.map(({ name }, index) => ({ name, code: codes[index] })).filter(({ code }) => code !== 0);
  if (failures.length === 0) return;
  fail(`\n${failures.map(({ name, code }) => `${name} failed (exit code ${code})`).join('\n')}`, failures[0].code);
}

/** Finds or unpacks each kind of server. Returns the kinds that are missing. */
async function findServers() {
  const { findServer } = await import(pathToFileURL(join(root, 'tools/mysql-server/dist/index.js')).href);
  const missing = [];
  for (const [kind, label] of Object.entries(LABELS)) {
    const dataDir = join(root, '.rowmq-test');
    const serversDir = process.env.ROWMQ_SERVERS_DIR || undefined;
    const options = { kinds: [kind], dataDir, serversDir, log: console.log };
    try {
      const found = await findServer({ ...options, install: false }).catch((error) => {
        if (!MAY_INSTALL) throw error;
        const folder = join(serversDir ?? join(dataDir, 'servers'), kind);
        console.log(
          `There is no ${label} on this machine. Unpacking one into ${folder} (no root rights needed, up to 450 MB, about a minute). ${HOW_TO_PREVENT}`,
        );
        return findServer(options);
      });
      console.log(`Testing on ${label} ${found.version}, ${found.origin}: ${found.program}`);
    } catch (error) {
      console.warn(`NOT TESTED: ${label}. ${error.message}`);
      missing.push(label);
    }
  }
  return missing;
}

/** Finds or installs what comes with Debian. Returns what cannot be tested without it. */
async function findPrograms() {
  const chromium = JSON.parse(await readFile(join(root, 'test/support/chromium-paths.json'), 'utf8'));
  const programs = [
    { name: 'chromium', variable: 'CHROMIUM', paths: chromium, tests: 'web pages' },
    { name: 'haproxy', variable: 'HAPROXY', paths: ['/usr/sbin/haproxy'], tests: 'the balancer' },
    // Clients of SQS beside those of npm. Without them, the tests of the others suffice.
    { name: 'awscli', paths: ['/usr/bin/aws'], tests: 'the AWS command line', isOptional: true },
    ...['boto3', 'celery', 'pycurl'].map((module) => ({
      name: `python3-${module}`,
      paths: [`/usr/share/doc/python3-${module}/copyright`],
      tests: module === 'boto3' ? 'boto3' : 'Celery',
      isOptional: true,
    })),
    // The shells beside bash for which the command line has completions.
    ...['zsh', 'fish'].map((shell) => ({
      name: shell,
      paths: [`/usr/bin/${shell}`],
      tests: `completion in ${shell}`,
      isOptional: true,
    })),
  ];
  const isThere = ({ variable, paths }) =>
    [variable && process.env[variable], ...paths].some((path) => path && existsSync(path));
  const missing = programs.filter((program) => !isThere(program));
  if (missing.length === 0) return [];
  const names = missing.map(({ name }) => name);
  if (MAY_INSTALL && process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    console.log(`This machine lacks ${names.join(' and ')}. Installing them with apt-get. ${HOW_TO_PREVENT}`);
    await step('apt-get', ['-qq', 'update']);
    await step('apt-get', ['-qq', '-y', '--no-install-recommends', 'install', ...names]);
    return [];
  }
  for (const { name, variable, tests } of missing) {
    const orSet = variable === undefined ? '' : `, or set ${variable} to its path`;
    console.warn(`NOT TESTED: ${tests}. There is no ${name}; install it (Debian: apt-get install ${name})${orSet}.`);
  }
  return missing.filter(({ isOptional }) => isOptional !== true).map(({ tests }) => tests);
}

/** Finds or unpacks Helm. Returns what cannot be tested without it. */
async function findHelm() {
  const folder = join(process.env.ROWMQ_SERVERS_DIR || join(root, '.rowmq-test', 'servers'), 'helm');
  const folders = [...(process.env.PATH ?? '').split(delimiter), folder];
  if ([process.env.HELM, ...folders.map((one) => join(one, 'helm'))].some((path) => path && existsSync(path)))
    return [];
  try {
    if (!MAY_INSTALL) throw new Error('ROWMQ_TEST_INSTALL is off.');
    console.log(
      `There is no Helm on this machine. Unpacking it into ${folder} (no root rights needed, 60 MB). ${HOW_TO_PREVENT}`,
    );
    if ((await runCommand('bash', [join(root, 'scripts/install-helm.sh'), folder])) !== 0)
      throw new Error('scripts/install-helm.sh failed.');
    return [];
  } catch (error) {
    console.warn(`NOT TESTED: the Helm chart. ${error.message}`);
    return ['the Helm chart'];
  }
}
