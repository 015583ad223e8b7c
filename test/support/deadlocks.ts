import { createConnection } from 'mysql2/promise';
import { testServer } from './servers.js';

/** How many deadlocks the server has met since it started. */
export async function deadlocks(): Promise<number> {
  const connection = await createConnection({ uri: testServer().url });
  try {
    const [rows] = await connection.query(
      `SELECT COUNT AS n FROM information_schema.INNODB_METRICS WHERE NAME = 'lock_deadlocks' AND STATUS = 'enabled'`,
    );
    const [row] = rows as { n: number }[];
    if (row === undefined) throw new Error('the server does not count deadlocks');
    return Number(row.n);
  } finally {
    await connection.end();
  }
}
