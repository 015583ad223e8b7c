import { type Connection, createConnection } from 'mysql2/promise';
import { testServer } from './servers.js';
import type { TestStore } from './store.js';

/** A connection to the store's database that plans statements as the store's own sessions do. */
export async function openPlanner(store: TestStore): Promise<Connection> {
  const connection = await createConnection({ uri: store.url });
  const [limit] = await store.database.read<{ Value: string }>(
    `SHOW SESSION VARIABLES LIKE 'in_predicate_conversion_threshold'`,
  );
  if (limit !== undefined) await connection.query(`SET SESSION in_predicate_conversion_threshold = ${limit.Value}`);
  return connection;
}

/**
 * How the server reads the tables of a statement: the kind of access, the index, the bytes of its
 * key, and whether the server sorts.
 */
export async function planOf(connection: Connection, sql: string): Promise<string> {
  const form = testServer().kind === 'mysql' ? 'EXPLAIN FORMAT=TRADITIONAL' : 'EXPLAIN';
  const [rows] = (await connection.query(`${form} ${sql}`)) as unknown as [
    { type: string; key: string; key_len: string; Extra: string | null }[],
  ];
  return rows
    .map(({ type, key, key_len: bytes, Extra }) => {
      const sorted = /filesort|temporary/i.exec(Extra ?? '');
      return `${type} on ${key} (${bytes})${sorted ? `, ${sorted[0]}` : ''}`;
    })
    .join('; ');
}

/** The rows and index entries that a statement reads when it runs. */
export async function readsOf(connection: Connection, sql: string): Promise<number> {
  await connection.query('FLUSH STATUS');
  await connection.query(sql);
  const [rows] = (await connection.query(`SHOW SESSION STATUS LIKE 'Handler_read%'`)) as unknown as [
    { Value: string }[],
  ];
  return rows.reduce((sum, { Value }) => sum + Number(Value), 0);
}
