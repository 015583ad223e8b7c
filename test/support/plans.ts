import { type Connection, createConnection } from 'mysql2/promise';
import { testServer } from './servers.js';
import type { TestStore } from './store.js';

/**
 * How the server reads the aliased tables of recorded statements. A statement that was not sent is
 * left out.
 *
 * @param patterns one for each statement, by its purpose
 */
export async function plansOf(
  { database }: TestStore,
  statements: readonly string[],
  patterns: Readonly<Record<string, RegExp>>,
): Promise<Record<string, string[]>> {
  const found: Record<string, string[]> = {};
  for (const [name, pattern] of Object.entries(patterns)) {
    const sent = statements.map((sql) => sql.trim()).find((sql) => pattern.test(sql));
    if (sent === undefined) continue;
    const rows = await database.read<{ table: string; type: string; key: string | null; key_len: string | null }>(
      explain(sent),
    );
    found[name] = rows
      .filter(({ table }) => ['n', 'g', 'd', 'p'].includes(table))
      .map(({ table, type, key, key_len: bytes }) => `${table}: ${type} on ${key} (${bytes})`)
      .toSorted();
  }
  return found;
}

/** The rows that the server reads for this work. The store must have one connection. */
export async function rowsReadFor({ database }: TestStore, work: () => Promise<void>): Promise<number> {
  const read = async (): Promise<number> => {
    const rows = await database.read<{ Value: string }>(`SHOW SESSION STATUS LIKE 'Handler_read%'`);
    return rows.reduce((sum, { Value: count }) => sum + Number(count), 0);
  };
  const idle = -(await read()) + (await read());
  const before = await read();
  await work();
  return (await read()) - before - idle;
}

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
  const [rows] = (await connection.query(explain(sql))) as unknown as [
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

/** EXPLAIN in the form that both servers have. */
function explain(sql: string): string {
  return `${testServer().kind === 'mysql' ? 'EXPLAIN FORMAT=TRADITIONAL' : 'EXPLAIN'} ${sql}`;
}
