import { once } from 'node:events';
import { reason } from '@rowmq/runtime';

/** npm passes on the Ctrl-C that the terminal already delivered: two signals this close together are one request. */
const SAME_REQUEST_MS = 1_000;

const PARENT_POLL_MS = 250;

/** What runs until it is told to stop. */
export interface Program {
  /** Resolves when `stopping` was aborted and everything is stopped, or its work is done; rejects when it does not start. */
  run(stopping: AbortSignal): Promise<void>;
  /** Ends everything at once, after `stopping` was aborted. */
  kill(): Promise<void>;
}

/**
 * Runs it as this process, and ends the process: in order at the first signal, or when the npm that runs it as `script` is gone; at once at the second signal.
 * A failure to start is one message and exit code 1.
 */
export async function runUntilStopped(
  make: () => Program,
  script: string,
  log: (line: string) => void,
): Promise<never> {
  const stopping = new AbortController();
  try {
    const program = make();
    stopOnSignal(stopping, program, log);
    stopWithNpm(stopping, script, log);
    await program.run(stopping.signal);
    process.exit(0);
  } catch (error) {
    console.error(reason(error));
    process.exit(1);
  }
}

/** Starts, waits for `stopping`, and stops: also what a start that failed or was given up has left behind. Rejects if the start failed. */
export async function startThenStop(
  stopping: AbortSignal,
  start: () => Promise<void>,
  stop: () => Promise<void>,
): Promise<void> {
  try {
    await start();
    if (!stopping.aborted) await once(stopping, 'abort');
  } catch (error) {
    // Giving the start up is what was asked for, and no failure.
    if (!stopping.aborted) throw error;
  } finally {
    await stop();
  }
}

function stopOnSignal(stopping: AbortController, program: Program, log: (line: string) => void): void {
  let requestedAt: number | undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      const now = performance.now();
      if (requestedAt === undefined) {
        requestedAt = now;
        log(`${signal}: stopping in order. Once more to stop at once.`);
        stopping.abort();
      } else if (now - requestedAt >= SAME_REQUEST_MS) {
        log(`${signal} again: killing.`);
        void program.kill().finally(() => process.exit(130));
      }
    });
  }
}

/** A killed npm cannot pass anything on: run by npm, the program stops when npm is gone, as its user believes it to be. */
function stopWithNpm(stopping: AbortController, script: string, log: (line: string) => void): void {
  if (process.env['npm_lifecycle_event'] !== script) return;
  const npm = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === npm) return;
    clearInterval(timer);
    log('npm is gone: stopping in order.');
    stopping.abort();
  }, PARENT_POLL_MS);
  timer.unref();
}
