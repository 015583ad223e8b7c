// npm test: prepares what is missing, then lint, typecheck and every test on every kind of server. Arguments go to vitest.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { fail, prepare, root, runCommand, step } from './prepare.mjs';

await prepare();
await installBrowser();
const untested = await kindsThatCannotBeHad();

const steps = [
  { name: 'lint', command: 'npm', args: ['run', '--silent', 'lint'] },
  { name: 'typecheck', command: 'npm', args: ['run', '--silent', 'typecheck'] },
  { name: 'tests', command: 'npx', args: ['vitest', 'run', ...process.argv.slice(2)] },
];
for (const [index, { name, command, args }] of steps.entries()) {
  console.log(`\n── ${index + 1}/${steps.length} ${name}: ${[command, ...args].join(' ')}`);
  const code = await runCommand(command, args);
  if (code !== 0) fail(`\n${name} failed (exit code ${code})`, code);
}
for (const kind of untested) console.log(`NOT TESTED: ${kind} (the reason is at the top)`);

/** Web pages are tested in a real browser. Where there is none it is installed if it can be; else its tests fail, and say what to do. */
async function installBrowser() {
  const found = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].some(
    (path) => path && existsSync(path),
  );
  if (found || process.getuid?.() !== 0 || !existsSync('/usr/bin/apt-get')) return;
  console.log('Installing Chromium …');
  await step('apt-get', ['-qq', 'update']);
  await step('apt-get', ['-qq', '-y', '--no-install-recommends', 'install', 'chromium']);
}

/** Finds, or unpacks, each kind of server before anything else, so that what is missing is known at once. */
async function kindsThatCannotBeHad() {
  const { findServer } = await import(pathToFileURL(join(root, 'tools/mysql-server/dist/index.js')).href);
  const missing = [];
  for (const kind of ['mysql', 'mariadb']) {
    try {
      const found = await findServer({
        kinds: [kind],
        dataDir: join(root, '.rowmq-test'),
        ...(process.env.ROWMQ_SERVERS_DIR ? { serversDir: process.env.ROWMQ_SERVERS_DIR } : {}),
        log: console.log,
      });
      console.log(`Testing on ${kind} ${found.version}, ${found.origin}: ${found.program}`);
    } catch (error) {
      console.warn(`NOT TESTED: ${kind}. ${error.message}`);
      missing.push(kind);
    }
  }
  if (missing.length > 0 && process.env.CI === 'true') fail('With CI=true every kind of server must be tested.');
  return missing;
}
