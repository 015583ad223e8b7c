import type { Connection } from 'mysql2';
import { type Database, poolOf } from '@rowmq/store';
import { onTestFinished, vi } from 'vitest';

/** The claim's peek at the start of a queue, from the scan floors on. */
export const PEEK_AT_FRONT =
  /^SELECT d\.priority_rank AS priorityRank, d\.available_at AS availableAt[^]*ORDER BY d\.queue_id, d\.priority_rank, d\.available_at\s+LIMIT \d+$/;

/**
 * Records every statement, with its values in place, that the database's pool sends from now on.
 */
export function recordStatements(database: Database): string[] {
  const statements: string[] = [];
  onEachConnection(database, (connection) => {
    const query = connection.query.bind(connection) as (...args: unknown[]) => unknown;
    connection.query = ((options: string | { sql: string; values?: unknown[] }, ...rest: unknown[]) => {
      // TypeORM sends text.
      const { sql, values = [] } = typeof options === 'string' ? { sql: options } : options;
      statements.push(...connection.format(sql, values).split(/;\s+(?=[A-Z])/));
      return query(options, ...rest);
    }) as Connection['query'];
  });
  return statements;
}

/**
 * Counts the errors that the server answers to the database's pool from now on, by error number. It
 * includes the errors of retried statements. An error that is not the server's counts by its code.
 */
export function countErrors(database: Database, counts: Map<number | string, number>): void {
  onEachConnection(database, (connection) => {
    const query = connection.query.bind(connection) as (...args: unknown[]) => unknown;
    connection.query = ((...args: unknown[]) => {
      const answer = args.at(-1);
      if (typeof answer !== 'function') return query(...args);
      return query(...args.slice(0, -1), (error: { errno?: number; code?: string } | null, ...rest: unknown[]) => {
        const which = error?.errno ?? error?.code;
        if (which !== undefined) counts.set(which, (counts.get(which) ?? 0) + 1);
        (answer as (...all: unknown[]) => void)(error, ...rest);
      });
    }) as Connection['query'];
  });
}

/** Runs a function once for each connection of a database's pool, before its next use. */
function onEachConnection(database: Database, work: (connection: Connection) => void): void {
  const seen = new WeakSet<Connection>();
  poolOf(database.dataSource).on('acquire', (connection) => {
    if (seen.has(connection)) return;
    seen.add(connection);
    work(connection);
  });
}

/**
 * Stops this process's clock until the test ends. The store then refreshes nothing that it knows
 * for a second, and a slow machine makes no more round trips than a fast one.
 */
export function stopClock(): void {
  const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now());
  onTestFinished(() => clock.mockRestore());
}

/**
 * Records the text of every round trip to the database from now on: all statements that one message
 * to the server carries.
 */
export function recordRoundTrips(database: Database): string[] {
  const trips: string[] = [];
  onEachConnection(database, (connection) => {
    const query = connection.query.bind(connection) as (...args: unknown[]) => unknown;
    connection.query = ((options: { sql: string }, ...rest: unknown[]) => {
      trips.push(options.sql);
      return query(options, ...rest);
    }) as Connection['query'];
  });
  return trips;
}
