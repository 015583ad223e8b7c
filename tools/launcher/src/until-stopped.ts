import { once } from 'node:events';
import { onStopRequest, reason } from '@rowmq/runtime';

const PARENT_POLL_MS = 250;

/** A program that runs until it is told to stop. */
export interface Program {
  /**
   * Resolves when `stopping` was aborted and everything is stopped, or its work is done; rejects
   * when it does not start.
   */
  run(stopping: AbortSignal): Promise<void>;
  /** Ends everything at once, after `stopping` was aborted. */
  kill(): Promise<void>;
}

/**
 * Runs the program as this process. The first signal ends it in order, and the second at once. It
 * also ends in order when the npm that runs it as `script` is gone, or the process that forked it.
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
    stopWithParent(stopping, log);
    await program.run(stopping.signal);
    process.exit(0);
  } catch (error) {
    console.error(reason(error));
    process.exit(1);
  }
}

/**
 * Starts, tells a parent process `ready`, waits for `stopping`, and stops: also what a start that
 * failed or was given up has left behind. Rejects if the start failed.
 */
export async function startThenStop(
  stopping: AbortSignal,
  start: () => Promise<void>,
  stop: () => Promise<void>,
): Promise<void> {
  try {
    await start();
    // A parent that is gone just now is not told; that it is gone is noticed elsewhere.
    process.send?.('ready', () => undefined);
    if (!stopping.aborted) await once(stopping, 'abort');
  } catch (error) {
    // Giving the start up is what was asked for, and no failure.
    if (!stopping.aborted) throw error;
  } finally {
    await stop();
  }
}

function stopOnSignal(stopping: AbortController, program: Program, log: (line: string) => void): void {
  onStopRequest(
    (signal) => {
      log(`${signal}: stopping in order. Once more to stop at once.`);
      stopping.abort();
    },
    (signal) => {
      log(`${signal} again: killing.`);
      void program.kill().finally(() => process.exit(130));
    },
  );
}

/**
 * A killed npm cannot pass anything on: run by npm, the program stops when npm is gone, as its
 * user believes it to be.
 */
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

/**
 * Forked with a channel, the program stops when the channel closes, as a parent's does that is
 * gone.
 */
function stopWithParent(stopping: AbortController, log: (line: string) => void): void {
  const stop = (): void => {
    log('The parent process is gone: stopping in order.');
    stopping.abort();
  };
  if (process.send === undefined) return;
  // It may have gone before it was listened for.
  if (process.connected) process.once('disconnect', stop);
  else stop();
}
