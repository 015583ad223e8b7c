import type { Connection, Pool } from 'mysql2';
import type { Database } from '@rowmq/store';

/** How a claim looks at the head of a queue, from the scan floors on. */
export const LOOK_AT_HEAD =
  /^SELECT priority_rank AS priorityRank, available_at AS availableAt[^]*ORDER BY queue_id, priority_rank, available_at\s+LIMIT \d+$/;

/** Notes every statement, with its values in place, that is sent through a database's pool from now on. */
export function recordStatements(database: Database): string[] {
  const statements: string[] = [];
  const { pool } = database.dataSource.driver as unknown as { pool: Pool };
  const wrapped = new WeakSet<Connection>();
  pool.on('acquire', (connection) => {
    if (wrapped.has(connection)) return;
    wrapped.add(connection);
    const query = connection.query.bind(connection) as (...args: unknown[]) => unknown;
    connection.query = ((options: { sql: string; values?: unknown[] }, ...rest: unknown[]) => {
      statements.push(...connection.format(options.sql, options.values ?? []).split(/;\s+(?=[A-Z])/));
      return query(options, ...rest);
    }) as Connection['query'];
  });
  return statements;
}
