// Provides what every program of RowMQ needs: a recent Node.js, the dependencies and a fresh build.
// Plain JavaScript that imports only Node's own modules, because a fresh clone has nothing else.
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

const MINIMUM_NODE = [20, 19];
/** Makes the project runnable, or ends the process with a message that says why it cannot. */
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
  // Takes a second if nothing changed. The compiler writes over the old files, so a broker that
  // runs from them keeps running.
  await step('npm', ['run', '--silent', 'build']);
}

/** Runs one command in the foreground; ends this process with its exit code when it fails. */
export async function step(command, args) {
  const code = await runCommand(command, args);
  if (code !== 0) fail(`\n${[command, ...args].join(' ')} failed (exit code ${code})`, code);
}

/**
 * Runs one command in the foreground and returns its exit code. A request to stop is passed on to
 * the command, and ends this process once the command has ended.
 */
export async function runCommand(command, args, env = process.env) {
  const child = spawn(command, args, { cwd: root, stdio: 'inherit', env });
  let requested;
  // Ctrl-C in a terminal reaches the command too; a signal to this process alone does not.
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
    // Only now, so that the command had time to end in order.
    if (requested !== undefined) process.kill(process.pid, requested);
  }
}

export function fail(message, code = 1) {
  console.error(message);
  process.exit(code);
}

/** Compares npm's list of installed packages with the lock file: cheaper than `npm ls`. */
async function dependenciesAreInstalled() {
  const wanted = await packages(join(root, 'package-lock.json'));
  const installed = await packages(join(root, 'node_modules', '.package-lock.json')).catch(() => undefined);
  if (installed === undefined) return false;
  return Object.entries(wanted).every(([path, { version, optional, devOptional }]) => {
    if (path === '') return true;
    // npm links a workspace and does not install it.
    if (!path.startsWith('node_modules/')) return true;
    // npm leaves out optional packages that do not fit the platform.
    if (installed[path] === undefined) return optional === true || devOptional === true;
    return installed[path].version === version;
  });
}

async function packages(lockFile) {
  return JSON.parse(await readFile(lockFile, 'utf8')).packages;
}
