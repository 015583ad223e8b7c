/**
 * The database's clock, in milliseconds since 1970, as a SQL expression: constant within a statement, so the optimizer may use it in a range.
 * Right only where the session's time zone is UTC (which {@link Database} sees to): elsewhere UNIX_TIMESTAMP(NOW(3)) jumps when the clocks
 * change. Numbers taken from it stay numbers: compared with a quoted one, a BIGINT column is compared as DOUBLE.
 */
export const NOW_MS = 'CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED)';

/** The instant a statement works with: the database's clock, or the number (ms since 1970) that a test moved it to. */
export function clock(now: number | undefined): string {
  if (now === undefined) return NOW_MS;
  if (!Number.isSafeInteger(now) || now < 0)
    throw new TypeError(`now must be whole milliseconds since 1970, not ${now}`);
  return String(now);
}
