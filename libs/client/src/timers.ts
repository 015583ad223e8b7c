/**
 * Resolves in the next turn of the event loop. Under fake timers it resolves at once: it orders
 * work within a moment, and must not wait until a test moves the clock.
 *
 * A test may install fake timers before or after it loads this module. So the timer itself tells,
 * not the function that made it.
 */
export async function turn(): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer: unknown = setImmediate(resolve);
    if (isNodes(timer)) return;
    clearImmediate(timer as NodeJS.Immediate);
    resolve();
  });
}

/** Node's class is not public. Fake timers are numbers or objects of other classes. */
function isNodes(timer: unknown): boolean {
  return (timer as object | undefined)?.constructor.name === 'Immediate';
}

/**
 * Resolves after `ms`, or at once when one of the signals fires. It looks its timer up at each
 * call, so that fake timers move it like the timers of the application.
 */
export async function pause(ms: number, ...signals: (AbortSignal | undefined)[]): Promise<void> {
  await wait(ms, signals, () => undefined);
}

/** As {@link pause}, but does not keep the process alive. */
export async function idle(ms: number, signal: AbortSignal): Promise<void> {
  // Some fake timers, such as those of Jest for browsers, are numbers.
  await wait(ms, [signal], (timer: { unref?: () => unknown }) => timer.unref?.());
}

async function wait(
  ms: number,
  signals: readonly (AbortSignal | undefined)[],
  prepare: (timer: NodeJS.Timeout) => void,
): Promise<void> {
  if (signals.some((signal) => signal?.aborted === true)) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(over, ms);
    prepare(timer);
    function over(): void {
      clearTimeout(timer);
      for (const signal of signals) signal?.removeEventListener('abort', over);
      resolve();
    }
    for (const signal of signals) signal?.addEventListener('abort', over, { once: true });
  });
}

/** Takes up to half of a pause away: clients that failed together must not return together. */
export function jittered(ms: number): number {
  return ms * (0.5 + Math.random() / 2);
}
