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
  const form = testServer().kind === 'mysql' ? 'EXPLAIN FORMAT=TRADITIONAL' : 'EXPLAIN';
  const found: Record<string, string[]> = {};
  for (const [name, pattern] of Object.entries(patterns)) {
    const sent = statements.map((sql) => sql.trim()).find((sql) => pattern.test(sql));
    if (sent === undefined) continue;
    const rows = await database.read<{ table: string; type: string; key: string | null; key_len: string | null }>(
      `${form} ${sent}`,
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
