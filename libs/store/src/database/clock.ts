/**
 * The database's clock, in milliseconds since 1970, as a SQL expression: constant within a
 * statement, so the optimizer may use it in a range. Right only where the session's time zone is
 * UTC (which {@link Database} sees to): elsewhere UNIX_TIMESTAMP(NOW(3)) jumps when the clocks
 * change. Numbers taken from it stay numbers: compared with a quoted one, a BIGINT column is
 * compared as DOUBLE.
 */
export const NOW_MS = 'CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED)';

/** The same in every time zone that somebody else's session may have. */
export const UTC_NOW_MS = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000";
