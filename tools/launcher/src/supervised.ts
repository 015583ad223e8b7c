import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Running, Supervisor, untilReady } from '@rowmq/runtime';
import type { EmbeddedServer } from '@rowmq/mysql-server';
import type { ChildRecord } from './left-over.js';

/** Settings that the apps of one launcher share. */
export interface Family {
  readonly environment: NodeJS.ProcessEnv;
  /** The time that each app gives itself for a stop. */
  readonly stopSeconds: number;
  /** Undefined where no folder of our own tells our children from those of another launcher. */
  readonly record: ChildRecord | undefined;
  readonly log: (line: string) => void;
  /** Gives every start up. */
  readonly signal: AbortSignal;
}

/**
 * Keeps one of our apps running, under a name that tells it from others of its kind, and with
 * settings that they do not share.
 */
export function superviseApp(
  family: Family,
  app: 'broker' | 'reaper',
  { name = app, settings = {} }: { name?: string; settings?: NodeJS.ProcessEnv } = {},
): Supervisor {
  const { stopSeconds, record, log } = family;
  const env = { ...family.environment, ROWMQ_STOP_SECONDS: String(stopSeconds), ...settings };
  const startOnce = async (stopping: AbortSignal): Promise<Running> => {
    const signal = AbortSignal.any([family.signal, stopping]);
    signal.throwIfAborted();
    const child = fork(fileURLToPath(new URL(`../../../apps/${app}/dist/main.js`, import.meta.url)), [], {
      env,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      // A process group of its own: Ctrl-C in a terminal reaches the launcher only, which stops
      // things in order.
      detached: true,
    });
    const running = await untilReady(name, child, stopSeconds, signal);
    await record?.note(name, running.pid);
    return running;
  };
  return new Supervisor(name, startOnce, log);
}

/** A database server as a supervisor sees it. */
export function asRunning(server: EmbeddedServer): Running {
  return {
    pid: server.pid,
    exited: server.exited.then(({ code, signal }) => signal ?? `exit code ${code}`),
    stop: () => server.stop(),
    kill: () => server.kill(),
  };
}
