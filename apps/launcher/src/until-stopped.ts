/** npm passes on the Ctrl-C that the terminal already delivered: two signals this close together are one request. */
const SAME_REQUEST_MS = 1_000;

const PARENT_POLL_MS = 250;

/** What runs until it is told to stop. */
export interface Stoppable {
  /** Resolves when {@link requestStop} was called and everything is stopped; rejects when it does not start. */
  run(): Promise<void>;
  requestStop(): void;
  /** Ends everything at once. */
  kill(): Promise<void>;
}

/**
 * Runs it as this process, and ends the process: in order at the first signal, or when the npm that runs it as `script` is gone; at once at the second signal.
 * A failure to start is one message and exit code 1.
 */
export async function runUntilStopped(
  make: () => Stoppable,
  script: string,
  log: (line: string) => void,
): Promise<never> {
  try {
    const program = make();
    stopOnSignal(program, log);
    stopWithNpm(program, script, log);
    await program.run();
    process.exit(0);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  }
}

function stopOnSignal(program: Stoppable, log: (line: string) => void): void {
  let requestedAt: number | undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      const now = performance.now();
      if (requestedAt === undefined) {
        requestedAt = now;
        log(`${signal}: stopping in order. Once more to stop at once.`);
        program.requestStop();
      } else if (now - requestedAt >= SAME_REQUEST_MS) {
        log(`${signal} again: killing.`);
        void program.kill().finally(() => process.exit(130));
      }
    });
  }
}

/** A killed npm cannot pass anything on: run by npm, the program stops when npm is gone, as its user believes it to be. */
function stopWithNpm(program: Stoppable, script: string, log: (line: string) => void): void {
  if (process.env['npm_lifecycle_event'] !== script) return;
  const npm = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === npm) return;
    clearInterval(timer);
    log('npm is gone: stopping in order.');
    program.requestStop();
  }, PARENT_POLL_MS);
  timer.unref();
}
