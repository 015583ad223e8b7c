import { Cron } from 'croner';

/*
 * When a schedule is due. The broker, the reaper and the client's in-memory broker share this, and
 * it knows no clock: the caller says what time it is. Times are ms since 1970.
 */

/** When a schedule's ticks are. Exactly one of `cron` and `everySeconds` is set. */
export interface Timing {
  cron: string | null;
  everySeconds: number | null;
  /** The IANA time zone in which `cron` is read. */
  timeZone: string | null;
}

/** The fate of ticks that nobody enqueued in time. */
export type Missed = 'skip' | 'last' | 'all';

/** A tick is missed if nobody has enqueued it after this time. A failover takes half of it. */
export const MISSED_MS = 60_000;
/** `all` makes up for ticks of this long, and gives up older ones. */
export const MADE_UP_MS = 86_400_000;
/** One transaction enqueues at most this many ticks of a schedule. */
export const TICKS_AT_ONCE = 20;

/** Five or six fields, or one of cron's nicknames. The parser would take a date for a pattern. */
const PATTERN = /^(?:@(?:yearly|annually|monthly|weekly|daily|midnight|hourly)|\S+(?:\s+\S+){4,5})$/i;

/** The fault of a pattern, or undefined if it has none. */
export function cronFault(pattern: string): string | undefined {
  if (!PATTERN.test(pattern.trim())) {
    return 'must have five fields (minute, hour, day of the month, month, day of the week), or six with seconds first';
  }
  try {
    return parse(pattern, 'UTC').nextRun() === null ? 'names a time that never comes' : undefined;
  } catch (error) {
    return `is no cron pattern: ${(error as Error).message.replace(/^CronPattern: /, '')}`;
  }
}

/** Whether this runtime knows an IANA time zone of this name. */
export function isTimeZone(name: string): boolean {
  // Some runtimes also take offsets, which no daylight-saving change moves.
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }).resolvedOptions().timeZone !== '';
  } catch {
    return false;
  }
}

/** The first tick after an instant. Null: there is none any more. */
export function nextTick({ cron, everySeconds, timeZone }: Timing, after: number): number | null {
  if (everySeconds !== null) {
    const every = everySeconds * 1000;
    return (Math.floor(after / every) + 1) * every;
  }
  const next = parse(cron as string, timeZone as string).nextRun(new Date(after));
  return next === null ? null : next.getTime();
}

/** The last tick up to an instant. Null: there was none. */
export function lastTick({ cron, everySeconds, timeZone }: Timing, upTo: number): number | null {
  if (everySeconds !== null) return Math.floor(upTo / (everySeconds * 1000)) * everySeconds * 1000;
  // The parser knows whole seconds, and looks for a run before this instant.
  const before = new Date((Math.floor(upTo / 1000) + 1) * 1000);
  const [last] = parse(cron as string, timeZone as string).previousRuns(1, before);
  return last === undefined ? null : last.getTime();
}

/**
 * The ticks that are due, oldest first and {@link TICKS_AT_ONCE} at most, and the first tick after
 * them.
 *
 * Every tick of the last minute is due. Older ones are missed. `skip` gives them up. `last` makes
 * up for the last one if no other tick is due, and `all` for those of the last day.
 * @param nextAt the first tick that nobody has enqueued
 */
export function dueTicks(
  timing: Timing,
  missed: Missed,
  nextAt: number,
  now: number,
  most = TICKS_AT_ONCE,
): { ticks: number[]; nextAt: number | null } {
  const from = Math.max(nextAt, now - (missed === 'all' ? MADE_UP_MS : MISSED_MS));
  const ticks: number[] = [];
  let next = nextTick(timing, from - 1);
  for (; next !== null && next <= now && ticks.length < most; next = nextTick(timing, next)) ticks.push(next);
  if (ticks.length > 0 || missed !== 'last') return { ticks, nextAt: next };
  const last = lastTick(timing, now);
  return { ticks: last !== null && last >= nextAt ? [last] : [], nextAt: next };
}

function parse(pattern: string, timezone: string): Cron {
  return new Cron(pattern.trim(), { timezone, mode: '5-or-6-parts' });
}
