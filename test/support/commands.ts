import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { freePort, startApp } from './processes.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const DEADLINE_MS = 60_000;

/** The exit code and the output of a command. */
export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** The compiled programs behind npm run migrate and npm start. */
const ENTRIES = {
  migrate: 'apps/migrate/dist/main.js',
  start: 'tools/launcher/dist/main.js',
  key: 'tools/launcher/dist/key/main.js',
} as const;
export type Entry = keyof typeof ENTRIES;

/**
 * Runs a program to its end. It does not get the ROWMQ_ settings of the surrounding environment.
 */
export async function runEntry(entry: Entry, env: Record<string, string>, args: string[] = []): Promise<Ended> {
  return startEntry(entry, env, args).ended;
}

/** Starts a program without a wait for its end. `stop` asks it to stop. */
export function startEntry(
  entry: Entry,
  env: Record<string, string>,
  args: string[] = [],
): { ended: Promise<Ended>; stop(): void } {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith('ROWMQ_')));
  const child = spawn(process.execPath, [ENTRIES[entry], ...args], {
    cwd: ROOT,
    env: { ...inherited, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: DEADLINE_MS,
  });
  const closed = once(child, 'close') as Promise<[number | null]>;
  const ended = Promise.all([closed, text(child.stdout), text(child.stderr)]).then(([[code], stdout, stderr]) => ({
    code,
    stdout,
    stderr,
  }));
  return { ended, stop: () => void child.kill('SIGTERM') };
}

/**
 * Starts a broker that must not come up, and returns its output. Fails if the broker starts, or
 * prints a stack.
 */
export async function brokerRefusal(env: Record<string, string>): Promise<string> {
  const outcome = await startApp('broker', { ROWMQ_PORT: String(await freePort()), ...env }).then(
    async (app) => {
      await app.stop();
      throw new Error(`It started:\n${app.output()}`);
    },
    (error: unknown) => (error as Error).message,
  );
  expect(outcome).toContain('did not become ready (exited)');
  expect(outcome).not.toMatch(/\n\s+at /);
  return outcome;
}
