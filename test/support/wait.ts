import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Waits until a condition returns something other than false, null or undefined, and returns that.
 * At the deadline it fails and says what it waited for. `what` may be a function that describes the
 * state by then.
 */
export async function eventually<T>(
  what: string | (() => string),
  condition: () => Promise<T> | T,
  deadlineMs = 15_000,
): Promise<NonNullable<Exclude<T, false>>> {
  const until = performance.now() + deadlineMs;
  for (;;) {
    const value = await condition();
    if (value !== false && value !== null && value !== undefined) return value as NonNullable<Exclude<T, false>>;
    if (performance.now() > until) {
      throw new Error(`Waited ${deadlineMs} ms in vain: ${typeof what === 'string' ? what : what()}`);
    }
    await sleep(20);
  }
}
