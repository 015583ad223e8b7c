import { createConnection } from 'mysql2/promise';
import { testServer } from './servers.js';

/** How many deadlocks the server has met since it started. */
export async function deadlocks(): Promise<number> {
  const [row] = await ask<{ COUNT: number }>(
    `SELECT * FROM information_schema.INNODB_METRICS WHERE NAME = 'lock_deadlocks'`,
  );
  if (row === undefined) throw new Error('the server does not count deadlocks');
  return Number(row.COUNT);
}

/** What the server tells of the last deadlock: who waited for what. For the message of a failed test. */
export async function lastDeadlock(): Promise<string> {
  const [row] = await ask<{ Status: string }>('SHOW ENGINE INNODB STATUS');
  return /LATEST DETECTED DEADLOCK\n-+\n([\s\S]*?)\n-+\nTRANSACTIONS/.exec(row?.Status ?? '')?.[1] ?? 'none';
}

async function ask<T>(sql: string): Promise<T[]> {
  const connection = await createConnection({ uri: testServer().url });
  try {
    const [rows] = await connection.query(sql);
    return rows as T[];
  } finally {
    await connection.end();
  }
}
