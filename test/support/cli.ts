import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { type IPty, spawn as spawnInTerminal } from '@lydell/node-pty';
import type { Ended } from './commands.js';
import { eventually } from './wait.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** The program as `npx rowmq` starts it. */
export const ROWMQ = join(ROOT, 'apps', 'cli', 'bin', 'rowmq.mjs');
/** The same as one file, which takes a third of the CPU. */
export function programPath(): string {
  const bundled = process.env['TEST_BUNDLED_APPS'];
  return bundled === undefined ? ROWMQ : join(bundled, 'cli', 'dist', 'main.js');
}
const DEADLINE_MS = 60_000;

/** The environment of a user without any setting of RowMQ. */
function environment(env: Record<string, string>): Record<string, string> {
  const inherited = Object.entries(process.env).filter(
    ([key, value]) =>
      value !== undefined && !key.startsWith('ROWMQ_') && !['NO_COLOR', 'FORCE_COLOR', 'CI'].includes(key),
  );
  // No file of profiles, unless the test names one.
  return { ...(Object.fromEntries(inherited) as Record<string, string>), ROWMQ_CONFIG: '/nonexistent', ...env };
}

export interface CliOptions {
  env?: Record<string, string>;
  /** The content of stdin. Without it stdin is empty. */
  input?: string | Uint8Array;
}

/** Runs `rowmq` as a script does, to its end. */
export async function rowmq(args: readonly string[], { env = {}, input }: CliOptions = {}): Promise<Ended> {
  const running = startRowmq(args, env);
  running.child.stdin.on('error', () => undefined);
  running.child.stdin.end(input ?? '');
  return running.ended;
}

/** Starts `rowmq` as a script does, without a wait for its end. */
export function startRowmq(args: readonly string[], env: Record<string, string> = {}) {
  const child = spawn(process.execPath, [programPath(), ...args], {
    env: environment(env),
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: DEADLINE_MS,
  });
  const closed = once(child, 'close') as Promise<[number | null]>;
  const ended: Promise<Ended> = Promise.all([closed, text(child.stdout), text(child.stderr)]).then(
    ([[code], stdout, stderr]) => ({ code, stdout, stderr }),
  );
  return { child, ended };
}

/** A program in a terminal, as a person uses it. */
export class Terminal {
  private shown = '';
  private readonly closed: Promise<number>;
  private readonly pty: IPty;

  constructor(
    [file, ...args]: readonly [string, ...string[]],
    env: Record<string, string> = {},
    size = { cols: 120, rows: 24 },
  ) {
    this.pty = spawnInTerminal(file, args, {
      ...size,
      name: 'xterm-256color',
      env: environment({ TERM: 'xterm-256color', ...env }),
    });
    this.pty.onData((data) => (this.shown += data));
    this.closed = new Promise((resolve) => this.pty.onExit(({ exitCode }) => resolve(exitCode)));
  }

  /**
   * Starts `rowmq`.
   *
   * @param stdin a file that is the program's stdin in place of the terminal
   */
  static ofRowmq(
    args: readonly string[],
    env: Record<string, string> = {},
    size?: { cols: number; rows: number },
    stdin?: string,
  ): Terminal {
    const command = [process.execPath, programPath(), ...args] as const;
    return new Terminal(stdin === undefined ? command : ['sh', '-c', '"$@" < "$0"', stdin, ...command], env, size);
  }

  /** All that the terminal got so far, with its control sequences. */
  get raw(): string {
    return this.shown;
  }

  /** The same without control sequences. */
  get text(): string {
    // oxlint-disable-next-line no-control-regex -- these are what it removes
    return this.shown.replaceAll(/\u001b\[[0-9;?]*[A-Za-z]/g, '').replaceAll('\r', '');
  }

  type(keys: string): void {
    this.pty.write(keys);
  }

  /** Waits until the terminal shows a text. */
  async shows(wanted: string | RegExp): Promise<void> {
    await eventually(
      () => `the terminal shows ${String(wanted)}, but it shows:\n${this.text}`,
      () => (typeof wanted === 'string' ? this.text.includes(wanted) : wanted.test(this.text)),
      DEADLINE_MS,
    );
  }

  /** Waits for the end, and returns the exit code. */
  async exitCode(): Promise<number> {
    return this.closed;
  }

  kill(): void {
    this.pty.kill('SIGKILL');
  }
}
