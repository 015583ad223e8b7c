import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Running, untilReady } from '@rowmq/runtime';

/**
 * Runs one of our apps and waits until it is ready.
 * @throws Error when it ends or the deadline passes first; it is gone by then
 */
export async function startApp(
  name: 'broker' | 'reaper',
  environment: NodeJS.ProcessEnv,
  stopSeconds: number,
  signal: AbortSignal,
): Promise<Running> {
  signal.throwIfAborted();
  const child = fork(fileURLToPath(new URL(`../../${name}/src/main.js`, import.meta.url)), [], {
    env: environment,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    // A process group of its own: Ctrl-C in a terminal reaches the launcher only, which stops things in order.
    detached: true,
  });
  return untilReady(name, child, stopSeconds, signal);
}
