import type { Session } from './session.js';

/**
 * The database's clock in milliseconds since 1970, as a SQL expression. It is constant within a
 * statement, so the optimizer can use it in a range.
 *
 * It needs a session in UTC, which {@link Database} sets. In other time zones
 * UNIX_TIMESTAMP(NOW(3)) jumps when daylight saving starts or ends. Bind values derived from it as
 * numbers: the servers compare a BIGINT column with a quoted number as DOUBLE.
 */
export const NOW_MS = 'CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED)';

/** The database's time, in milliseconds since 1970. */
export async function timeOf(session: Session): Promise<number> {
  const [row] = await session.read<{ now: number }>(`SELECT ${NOW_MS} AS now`);
  return (row as { now: number }).now;
}

/** The same clock, correct in every session time zone. A caller's own session may have any. */
export const UTC_NOW_MS = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000";
