// npm test: installs and builds what is missing, then runs lint, the type check and every test.
// Arguments go to vitest.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fail, prepare, root, runCommand, step } from './prepare.mjs';

const MAY_INSTALL = process.env.ROWMQ_TEST_INSTALL !== 'off';
const HOW_TO_PREVENT = 'ROWMQ_TEST_INSTALL=off prevents this.';
const LABELS = { mysql: 'MySQL', mariadb: 'MariaDB' };

await prepare();
const untested = [...(await findServers()), ...(await findBrowser())];
if (untested.length > 0 && process.env.CI === 'true') {
  fail(`With CI=true everything must be tested, and this cannot be: ${untested.join(', ')}.`);
}

const steps = [
  { name: 'lint', command: 'npm', args: ['run', '--silent', 'lint'] },
  { name: 'prose', command: 'npm', args: ['run', '--silent', 'lint:prose'] },
  { name: 'typecheck', command: 'npm', args: ['run', '--silent', 'typecheck'] },
  { name: 'tests', command: 'npx', args: ['vitest', 'run', ...process.argv.slice(2)] },
];
for (const [index, { name, command, args }] of steps.entries()) {
  console.log(`\n── ${index + 1}/${steps.length} ${name}: ${[command, ...args].join(' ')}`);
  const code = await runCommand(command, args);
  if (code !== 0) fail(`\n${name} failed (exit code ${code})`, code);
}
for (const part of untested) console.log(`NOT TESTED: ${part} (the reason is at the top)`);

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

/** Finds or installs a browser. Returns what cannot be tested without one. */
async function findBrowser() {
  const usual = JSON.parse(await readFile(join(root, 'test/support/chromium-paths.json'), 'utf8'));
  if ([process.env.CHROMIUM, ...usual].some((path) => path && existsSync(path))) return [];
  if (MAY_INSTALL && process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')) {
    console.log(
      `There is no Chromium on this machine. Installing the package chromium with apt-get. ${HOW_TO_PREVENT}`,
    );
    await step('apt-get', ['-qq', 'update']);
    await step('apt-get', ['-qq', '-y', '--no-install-recommends', 'install', 'chromium']);
    return [];
  }
  console.warn(
    'NOT TESTED: web pages. There is no Chromium; install it (Debian: apt-get install chromium), or set CHROMIUM to its path.',
  );
  return ['web pages'];
}
