import { peerPackage } from './peer-package.js';

/** The part of node-postgres' pool that the benchmark uses. */
export interface PgPool {
  on(event: 'error', listener: (error: Error) => void): void;
  query(sql: string, values?: unknown[]): Promise<{ rows: unknown[] }>;
  end(): Promise<void>;
}

/** The one number that a query answers. */
export async function queryCount(pool: PgPool, sql: string, values: unknown[] = []): Promise<number> {
  const { rows } = await pool.query(sql, values);
  return Number((rows as { count: string }[])[0]?.count);
}

/** A pool of node-postgres, the driver of the PostgreSQL peers. */
export function openPool(connectionString: string, max: number): PgPool {
  const { Pool } = peerPackage('pg') as { Pool: new (options: { connectionString: string; max: number }) => PgPool };
  const pool = new Pool({ connectionString, max });
  // Only idle connections report here. A query in flight fails by itself.
  pool.on('error', (error) => console.error(error));
  return pool;
}

/**
 * Holds a snapshot open, as a backup or a forgotten transaction would. Vacuum may remove nothing
 * that the snapshot can still see. The returned function closes it.
 */
export async function holdSnapshot(connectionString: string): Promise<() => Promise<void>> {
  const pool = openPool(connectionString, 1);
  await pool.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  // The snapshot is taken by the first statement, not by BEGIN.
  await pool.query('SELECT txid_current_snapshot()');
  return async () => {
    await pool.query('COMMIT');
    await pool.end();
  };
}
