import type { DatabaseTls } from '@rowmq/runtime';
import type { DataSource } from 'typeorm';
import { isIgnorable, type RowmqMigration, TABLES } from '@rowmq/migrations';
import { cannotUse, checkServer, StartupError } from './boot-checks.js';
import { addressOf, type DatabaseSettings, openDataSource } from './data-source.js';
import { isDenied } from './database-errors.js';

/** Only one process migrates at a time. The others wait this long. */
const LOCK_SECONDS = 60;
/**
 * Lock names are global to the server and have at most 64 characters. A database name alone can
 * have 64, so the lock name contains its hash.
 */
const LOCK_NAME = `CONCAT('rowmq-migrate.', LEFT(SHA2(DATABASE(), 256), 40))`;

/** Options of {@link revertDatabase}. */
export interface RevertOptions {
  /** Accept a server version that RowMQ was not tested on. */
  untestedAllowed?: boolean;
}

/** Options of {@link migrateDatabase}. */
export interface MigrateOptions extends RevertOptions {
  /** Receives what each migration blocks, before the first one runs. */
  announce?: (line: string) => void;
}

/**
 * Brings the schema up to date and returns the names of the applied migrations. Several processes
 * may call it at once: one migrates, the others wait.
 *
 * Throws `StartupError` if the server is unreachable or unsuitable, or the schema is newer than
 * this version. Throws it too if the database has tables with RowMQ's names but no record of their
 * migrations.
 */
export async function migrateDatabase(
  url: string,
  tls?: DatabaseTls,
  { untestedAllowed, announce }: MigrateOptions = {},
): Promise<string[]> {
  return withMigrationLock({ url, tls, ...(untestedAllowed && { untestedAllowed }) }, async (dataSource) => {
    await refuseNewerSchema(dataSource);
    await refuseForeignTables(dataSource);
    const pending = await pendingOf(dataSource);
    for (const { name, blocks } of dataSource.migrations as RowmqMigration[])
      if (pending.includes(name)) announce?.(`${name} ${blocks}.`);
    const applied = await dataSource.runMigrations();
    return applied.map(({ name }) => name);
  });
}

/**
 * Reverts the last `steps` migrations and returns their names. The data in their tables is lost.
 */
export async function revertDatabase(
  url: string,
  steps = 1,
  tls?: DatabaseTls,
  { untestedAllowed }: RevertOptions = {},
): Promise<string[]> {
  return withMigrationLock({ url, tls, ...(untestedAllowed && { untestedAllowed }) }, async (dataSource) => {
    const reverted: string[] = [];
    for (let step = 0; step < steps; step += 1) {
      const before = await appliedMigrations(dataSource);
      const last = before.at(-1);
      if (last === undefined) break;
      await dataSource.undoLastMigration();
      reverted.push(last);
    }
    return reverted;
  });
}

/** Names of the migrations that this version has and the database lacks. */
export async function pendingMigrations(url: string, tls?: DatabaseTls): Promise<string[]> {
  const dataSource = await openDataSource({ url, tls, poolSize: 1 });
  try {
    return await pendingOf(dataSource);
  } finally {
    await dataSource.destroy();
  }
}

/** Does the same on an open data source. */
export async function pendingOf(dataSource: DataSource): Promise<string[]> {
  const applied = new Set(await appliedMigrations(dataSource));
  return dataSource.migrations
    .map((migration) => migration.name ?? migration.constructor.name)
    .filter((name) => !applied.has(name));
}

/**
 * Throws `StartupError` if the database has had migrations that this version does not know, unless
 * older processes may ignore all of them. Returns those.
 */
export async function refuseNewerSchema(dataSource: DataSource): Promise<string[]> {
  const known = new Set((dataSource.migrations as RowmqMigration[]).map(({ name }) => name));
  const unknown = (await appliedMigrations(dataSource)).filter((name) => !known.has(name));
  const breaking = unknown.filter((name) => !isIgnorable(name));
  if (breaking.length === 0) return unknown;
  throw new StartupError(
    `The database's schema is newer than this version of RowMQ, which does not know the migration(s) ${breaking.join(', ')}. Start the version that migrated the database, or a later one.`,
  );
}

/**
 * Both servers commit each CREATE TABLE on its own. An interrupted first migration therefore leaves
 * tables behind, and every later run would fail on them. So would it on another application's
 * tables.
 */
async function refuseForeignTables(dataSource: DataSource): Promise<void> {
  if ((await appliedMigrations(dataSource)).length > 0) return;
  const rows = await dataSource.query<{ name: string }[]>(
    'SELECT TABLE_NAME AS name FROM information_schema.tables WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN (?)',
    [TABLES],
  );
  const present = TABLES.filter((table) => rows.some(({ name }) => name === table));
  if (present.length === 0) return;
  throw new StartupError(
    `The database has tables of RowMQ's names (${present.join(', ')}), but no record of RowMQ's migrations. ` +
      `If an earlier \`npm run migrate\` was interrupted, drop them (DROP TABLE ${present.join(', ')}) and run it again; if another application owns them, give RowMQ a database of its own.`,
  );
}

async function appliedMigrations(dataSource: DataSource): Promise<string[]> {
  const [table] = await dataSource.query<{ n: number }[]>(
    `SELECT COUNT(*) AS n FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'rowmq_migration'`,
  );
  if (Number(table?.n) === 0) return [];
  const rows = await dataSource.query<{ name: string }[]>('SELECT name FROM rowmq_migration ORDER BY id');
  return rows.map(({ name }) => name);
}

async function withMigrationLock<T>(
  database: Pick<DatabaseSettings, 'url' | 'tls' | 'untestedAllowed'>,
  work: (dataSource: DataSource) => Promise<T>,
): Promise<T> {
  const dataSource = await openDataSource({ ...database, poolSize: 2 });
  try {
    await checkServer(dataSource);
    // A lock by name is enough. It only keeps two starting processes on one server away from each
    // other's half-done DDL.
    const runner = dataSource.createQueryRunner();
    try {
      const [lock] = (await runner.query(`SELECT GET_LOCK(${LOCK_NAME}, ?) AS got`, [LOCK_SECONDS])) as {
        got: number;
      }[];
      if (Number(lock?.got) !== 1)
        throw new Error(
          `Another process has been migrating this database for ${LOCK_SECONDS} s; check what it does, then start again.`,
        );
      try {
        return await work(dataSource);
      } finally {
        await runner.query(`DO RELEASE_LOCK(${LOCK_NAME})`);
      }
    } finally {
      await runner.release();
    }
  } catch (error) {
    throw isDenied(error) ? cannotUse(addressOf(dataSource), error) : error;
  } finally {
    await dataSource.destroy();
  }
}
