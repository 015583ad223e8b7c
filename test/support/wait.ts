import { setTimeout as sleep } from 'node:timers/promises';

const DEADLINE_MS = 60_000;
/** Pauses between two looks. A look often costs a broker or a database some milliseconds of CPU. */
const SHORTEST_PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 50;

/** A condition returns something other than these when it is met. */
type Met<T> = NonNullable<Exclude<T, false>>;
type What = string | (() => string);

/**
 * Waits until a condition returns something other than false, null or undefined, and returns that.
 * At the deadline it fails and says what it waited for. `what` may be a function that describes the
 * state by then. The longer it waits, the less often it looks.
 */
export async function eventually<T>(
  what: What,
  condition: () => Promise<T> | T,
  deadlineMs = DEADLINE_MS,
): Promise<Met<T>> {
  return look(what, condition, deadlineMs, (waitedMs) =>
    Math.min(Math.max(waitedMs / 20, SHORTEST_PAUSE_MS), LONGEST_PAUSE_MS),
  );
}

/** {@link eventually} for a condition that may be over soon: it looks as often at any time. */
export async function caught<T>(
  what: What,
  condition: () => Promise<T> | T,
  deadlineMs = DEADLINE_MS,
): Promise<Met<T>> {
  return look(what, condition, deadlineMs, () => SHORTEST_PAUSE_MS);
}

async function look<T>(
  what: What,
  condition: () => Promise<T> | T,
  deadlineMs: number,
  pauseMs: (waitedMs: number) => number,
): Promise<Met<T>> {
  const from = performance.now();
  for (;;) {
    const value = await condition();
    if (value !== false && value !== null && value !== undefined) return value as Met<T>;
    const waitedMs = performance.now() - from;
    if (waitedMs > deadlineMs) {
      throw new Error(`Waited ${deadlineMs} ms in vain: ${typeof what === 'string' ? what : what()}`);
    }
    await sleep(pauseMs(waitedMs));
  }
}
