import type { Database } from '@rowmq/store';
import { createConnection } from 'mysql2/promise';
import { expect } from 'vitest';
import { testServer } from './servers.js';
import { countErrors } from './statements.js';

const DEADLOCK = 1213;

/**
 * Counts the deadlocks of all clients since the server started. Use it only on a server without
 * other clients.
 */
export async function deadlocks(url: string): Promise<number> {
  const [row] = await ask<{ COUNT: number }>(
    url,
    `SELECT * FROM information_schema.INNODB_METRICS WHERE NAME = 'lock_deadlocks'`,
  );
  if (row === undefined) throw new Error('the server does not count deadlocks');
  return Number(row.COUNT);
}

/** The server's report on the last deadlock of any client, for the message of a failed test. */
export async function lastDeadlock(url: string): Promise<string> {
  const [row] = await ask<{ Status: string }>(url, 'SHOW ENGINE INNODB STATUS');
  return /LATEST DETECTED DEADLOCK\n-+\n([\s\S]*?)\n-+\nTRANSACTIONS/.exec(row?.Status ?? '')?.[1] ?? 'none';
}

/**
 * Counts the deadlocks between these databases' connections from now on, including those of retried
 * transactions. Each deadlock has a victim, which gets an error. The server's own counter would
 * include the deadlocks of other tests.
 *
 * Returns the function that reads the count.
 */
export function countDeadlocks(databases: readonly Database[]): () => number {
  const errors = new Map<number | string, number>();
  for (const database of databases) countErrors(database, errors);
  return () => errors.get(DEADLOCK) ?? 0;
}

/** The number of deadlocks that MariaDB may meet in one test in which leases run out. */
const OVERSLEPT = 5;

/**
 * Expects no deadlock among `met`.
 *
 * @param leasesRunOut while their holders still use them. An ack, nack or extend has LEASE_GRACE_MS
 * from the end of its lease before a claim can want the same delivery. On an overloaded machine it
 * takes longer, and the two meet in opposite order. MySQL's claim skips the row all the same, so
 * MySQL may show no deadlock. MariaDB's claim waits for an instant. Its deadlock detection then
 * rolls back one transaction, which is retried. The server reports a transaction's age in whole
 * seconds only, so the test cannot tell such a deadlock from others. On MariaDB it allows a few and
 * prints the last one. A wrong lock order would exceed the limit.
 */
export async function expectNoDeadlock(met: number, { leasesRunOut = false } = {}): Promise<void> {
  const last = met === 0 ? '' : await lastDeadlock(testServer().url);
  const allowed = leasesRunOut && testServer().kind === 'mariadb' ? OVERSLEPT : 0;
  if (met > 0 && met <= allowed) console.warn(`${met} deadlock(s), of at most ${allowed} here; the last:\n${last}`);
  expect(met, last).toBeLessThanOrEqual(allowed);
}

async function ask<T>(url: string, sql: string): Promise<T[]> {
  const connection = await createConnection({ uri: url });
  try {
    const [rows] = await connection.query(sql);
    return rows as T[];
  } finally {
    await connection.end();
  }
}
