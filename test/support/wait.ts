import { setTimeout as sleep } from 'node:timers/promises';

/** Waits until a condition gives something other than false, null or undefined, and returns that. Fails, saying what it waited for, when the deadline passes. */
export async function eventually<T>(
  what: string,
  condition: () => Promise<T> | T,
  deadlineMs = 15_000,
): Promise<NonNullable<Exclude<T, false>>> {
  const until = performance.now() + deadlineMs;
  for (;;) {
    const value = await condition();
    if (value !== false && value !== null && value !== undefined) return value as NonNullable<Exclude<T, false>>;
    if (performance.now() > until) throw new Error(`Waited ${deadlineMs} ms in vain: ${what}`);
    await sleep(20);
  }
}
