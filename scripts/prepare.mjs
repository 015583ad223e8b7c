// What has to be there before anything of RowMQ runs: a Node.js that is new enough, the dependencies, and a fresh build.
// Plain JavaScript without imports beyond Node's own, because on a fresh clone there is nothing else.
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

const MINIMUM_NODE = [20, 19];
/** Makes the project runnable; does nothing when it is. Ends the process with a message when it cannot be made so. */
export async function prepare() {
  process.chdir(root);
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < MINIMUM_NODE[0] || (major === MINIMUM_NODE[0] && minor < MINIMUM_NODE[1])) {
    fail(`RowMQ needs Node.js ${MINIMUM_NODE.join('.')} or later; this is ${process.version}. See https://nodejs.org`);
  }
  if (!(await dependenciesAreInstalled())) {
    console.log('Installing dependencies …');
    // Also where NODE_ENV=production is set: the build needs the compiler.
    await step('npm', ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error']);
  }
  // Builds what changed; takes a second where nothing did. It writes over the old files: a broker that runs from them keeps running.
  await step('npm', ['run', '--silent', 'build']);
}

/** Runs one command in the foreground; ends this process with its exit code when it fails. */
export async function step(command, args) {
  const code = await runCommand(command, args);
  if (code !== 0) fail(`\n${[command, ...args].join(' ')} failed (exit code ${code})`, code);
}

/** Runs one command in the foreground and returns its exit code. A request to stop reaches the command, and then ends us. */
export async function runCommand(command, args, env = process.env) {
  const child = spawn(command, args, { cwd: root, stdio: 'inherit', env });
  let requested;
  // Ctrl-C in a terminal reaches the command without us; a signal that was sent to us alone does not.
  const forward = (signal) => {
    requested = signal;
    child.kill(signal);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, forward);
  try {
    return await new Promise((done, failed) => {
      child.once('error', (error) => failed(new Error(`Cannot run ${command}: ${error.message}`)));
      child.once('close', (code) => done(requested === undefined ? (code ?? 1) : 1));
    });
  } finally {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.off(signal, forward);
    // Only now, so that the command had the time to end in order.
    if (requested !== undefined) process.kill(process.pid, requested);
  }
}

export function fail(message, code = 1) {
  console.error(message);
  process.exit(code);
}

/** Compares what npm says it installed with what the lock file wants: cheaper than `npm ls`, surer than file times. */
async function dependenciesAreInstalled() {
  const wanted = await packages(join(root, 'package-lock.json'));
  const installed = await packages(join(root, 'node_modules', '.package-lock.json')).catch(() => undefined);
  if (installed === undefined) return false;
  return Object.entries(wanted).every(([path, { version, optional, devOptional }]) => {
    if (path === '') return true;
    // A workspace is linked, not installed.
    if (!path.startsWith('node_modules/')) return true;
    // Optional ones are left out where they do not fit the platform.
    if (installed[path] === undefined) return optional === true || devOptional === true;
    return installed[path].version === version;
  });
}

async function packages(lockFile) {
  return JSON.parse(await readFile(lockFile, 'utf8')).packages;
}
