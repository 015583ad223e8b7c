import { reason } from '@rowmq/runtime';
import { TABLES } from '@rowmq/migrations';
import type { DataSource } from 'typeorm';
import { addressOf, allowsUntested, poolOf } from './data-source.js';
import type { Database } from './database.js';
import { driverError, isDenied } from './database-errors.js';
import { NoPrimaryError } from './primary.js';
import { unusableProduct } from './products.js';
import { setupFailure } from './session-setup.js';

/** RowMQ cannot run on this database. The message says what to change. */
export class StartupError extends Error {
  override readonly name = 'StartupError';
}

/**
 * Explains why RowMQ cannot use a database, and what to do. The address contains no user and no
 * password.
 */
export function cannotUse(address: string, error: unknown): StartupError {
  const what = reason(error).replace(/\.$/, '');
  const errors = error instanceof NoPrimaryError ? error.reasons : [error];
  const [advice = 'Check that it runs, and ROWMQ_DATABASE_URL.'] = errors.flatMap(
    (each) => adviceOn(each, address) ?? [],
  );
  return new StartupError(`Cannot use the database at ${address}: ${what}. ${advice}`, { cause: error });
}

const ENCRYPT = 'Set ROWMQ_DATABASE_TLS to require, verify-ca or verify.';

/** Returns undefined when the error needs no advice. */
function adviceOn(error: unknown, address: string): string | undefined {
  const { code, errno } = driverError(error);
  switch (code) {
    case 'HANDSHAKE_NO_SSL_SUPPORT':
      return 'Give the server a certificate (ssl_cert and ssl_key), or set ROWMQ_DATABASE_TLS=off.';
    case 'HANDSHAKE_SSL_ERROR':
      return "Check the server's certificate, ROWMQ_DATABASE_TLS_CA and ROWMQ_DATABASE_TLS.";
  }
  if (isDenied(error)) return grantAdvice(error, address);
  switch (errno) {
    case 1045:
      // MariaDB with require_secure_transport reports it like this. So do both servers when a user
      // has REQUIRE SSL.
      return `Check user and password in ROWMQ_DATABASE_URL. The same is said where only encrypted connections are taken: ${ENCRYPT}`;
    case 1049:
      return `Create it (CREATE DATABASE ${databaseOf(address)} CHARACTER SET utf8mb4), or name another in ROWMQ_DATABASE_URL.`;
    case 3159:
      return ENCRYPT;
  }
  return undefined;
}

/** All privileges that RowMQ's processes and migrations use. None is global. */
const PRIVILEGES = 'SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, LOCK TABLES';

/** The GRANT that an administrator has to run after the server denied a statement. */
function grantAdvice(error: unknown, address: string): string {
  const [user = 'the user of ROWMQ_DATABASE_URL'] = /'[^']*'@'[^']*'/.exec(driverError(error).message ?? '') ?? [];
  const database = databaseOf(address);
  return `Let an administrator run GRANT ${PRIVILEGES} ON ${database}.* TO ${user}. If the database does not exist, create it first (CREATE DATABASE ${database} CHARACTER SET utf8mb4), or name another in ROWMQ_DATABASE_URL.`;
}

function databaseOf(address: string): string {
  return `\`${decodeURIComponent(address.split('/').at(-1) ?? '')}\``;
}

/**
 * Describes the server and its connection for the log, for example `MySQL 9.7.4, not encrypted`.
 */
export async function describeServer(dataSource: DataSource): Promise<string> {
  const [server] = await dataSource.query<{ version: string }[]>('SELECT VERSION() AS version');
  const [cipher] = await dataSource.query<{ Value: string }[]>(`SHOW SESSION STATUS LIKE 'Ssl_cipher'`);
  const { kind, number } = parseVersion(server?.version ?? '');
  return `${kind} ${number}, ${cipher?.Value ? `encrypted with ${cipher.Value}` : 'not encrypted'}`;
}

/** The kind of the server, for example for a metric. */
export async function serverKind(database: Pick<Database, 'read'>): Promise<'MySQL' | 'MariaDB'> {
  const [server] = await database.read<{ version: string }>('SELECT VERSION() AS version');
  return parseVersion(server?.version ?? '').kind;
}

function parseVersion(version: string): { kind: keyof typeof OLDEST; number: string } {
  // Some MariaDB servers prefix their version with 5.5.5-, for old replication protocols.
  const [number = ''] = version.replace(/^5\.5\.5-/, '').split('-');
  return { kind: /mariadb/i.test(version) ? 'MariaDB' : 'MySQL', number };
}

interface ServerFacts {
  version: string;
  logBin: number;
  binlogFormat: string;
  flushLog: number;
  syncBinlog: number;
  maxAllowedPacket: number;
  /** Whether the operator accepts a version that RowMQ was not tested on. */
  untestedAllowed?: boolean;
}

/** A batch with 4 MiB of bodies doubles in size as SQL text, and carries its other columns too. */
const LARGEST_PACKET = 16 * 1024 * 1024;

/**
 * The oldest releases that RowMQ's tests ran on. MySQL 8.0.19 has every statement that it uses too,
 * but no test has shown that they do the same there.
 */
const OLDEST = { MySQL: [8, 4], MariaDB: [10, 6] } as const;
const OLDEST_UNTESTED = { MySQL: [8, 0, 19], MariaDB: [10, 6] } as const;

/** The variables that {@link checkServer} judges. A server lacks those of other products. */
const VARIABLES = [
  'default_storage_engine',
  'group_replication_group_name',
  'group_replication_single_primary_mode',
  'group_replication_consistency',
  'group_replication_unreachable_majority_timeout',
  'wsrep_on',
  'pxc_strict_mode',
];

/**
 * Checks the server before the application uses it. Returns warnings about settings that weaken
 * durability.
 *
 * Throws {@link StartupError} for a product that does not do what RowMQ's statements say, for a
 * server that is too old, not tested, or accepts only small packets. Throws it too when the binlog
 * cannot carry READ COMMITTED, the group has several primaries, or the session refuses its
 * settings.
 */
export async function checkServer(dataSource: DataSource): Promise<string[]> {
  // First of all, because such a product may fail in the next statement.
  const [product] = await dataSource.query<{ version: string; comment: string }[]>(
    'SELECT VERSION() AS version, @@version_comment AS comment',
  );
  judgeProduct([product?.version ?? '', product?.comment ?? '']);
  const rows = await dataSource.query<{ Variable_name: string; Value: string }[]>(
    'SHOW GLOBAL VARIABLES WHERE Variable_name IN (?)',
    [VARIABLES],
  );
  const variables = new Map(rows.map(({ Variable_name: name, Value: value }) => [name, value]));
  judgeProduct([], variables.get('default_storage_engine'));
  await refuseSession(dataSource);
  const [facts] = await dataSource.query<ServerFacts[]>(
    `SELECT VERSION() AS version, @@GLOBAL.log_bin AS logBin, @@GLOBAL.binlog_format AS binlogFormat,
            @@GLOBAL.innodb_flush_log_at_trx_commit AS flushLog, @@GLOBAL.sync_binlog AS syncBinlog,
            @@GLOBAL.max_allowed_packet AS maxAllowedPacket`,
  );
  return [
    ...judgeServer({ ...(facts as ServerFacts), untestedAllowed: allowsUntested(dataSource) }),
    ...judgeGroup(variables),
    ...judgeGalera(variables),
  ];
}

/** Throws {@link StartupError} for a product that cannot carry RowMQ. */
export function judgeProduct(announced: readonly string[], defaultEngine?: string): void {
  const product = unusableProduct(announced, defaultEngine);
  if (product === undefined) return;
  const what = announced.length > 0 ? ` (it announces ${announced.filter(Boolean).join(', ')})` : '';
  throw new StartupError(
    `The server is ${product.name}${what}. RowMQ cannot run on it: ${product.reason}. Use MySQL or MariaDB with InnoDB.`,
  );
}

/** Throws {@link StartupError} if a new session could not get its settings. */
async function refuseSession(dataSource: DataSource): Promise<void> {
  const connection = await poolOf(dataSource).promise().getConnection();
  try {
    await connection.query('DO 0');
    const failure = setupFailure(connection.connection);
    if (failure !== undefined) {
      throw new StartupError(
        `The server refuses a session setting that RowMQ needs: ${reason(failure)}. If a proxy stands between, let it pass SET SESSION; otherwise let the server's user set it.`,
      );
    }
  } finally {
    connection.release();
  }
}

/**
 * Throws {@link StartupError} if the user may not read and write every table. A condition that no
 * row meets has the server check the privilege and touch nothing.
 */
export async function refuseMissingGrants(dataSource: DataSource): Promise<void> {
  for (const table of TABLES) {
    const columns = await dataSource.query<{ name: string }[]>(
      'SELECT COLUMN_NAME AS name FROM information_schema.columns WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?',
      [table],
    );
    const names = columns.map(({ name }) => name);
    const [name] = names;
    for (const sql of [
      `SELECT 1 FROM ${table} WHERE FALSE`,
      `INSERT INTO ${table} (${names.join(', ')}) SELECT ${names.join(', ')} FROM ${table} WHERE FALSE`,
      `UPDATE ${table} SET ${name} = ${name} WHERE FALSE`,
      `DELETE FROM ${table} WHERE FALSE`,
    ]) {
      try {
        await dataSource.query(sql);
      } catch (error) {
        if (!isDenied(error)) throw error;
        throw cannotUse(addressOf(dataSource), error);
      }
    }
  }
}

/** Decides for {@link checkServer}, from the values that it read. */
export function judgeServer({
  version,
  logBin,
  binlogFormat,
  flushLog,
  syncBinlog,
  maxAllowedPacket,
  untestedAllowed = false,
}: ServerFacts): string[] {
  const warnings: string[] = [];
  const { kind, number } = parseVersion(version);
  const needs = `RowMQ needs MySQL ${OLDEST.MySQL.join('.')} or MariaDB ${OLDEST.MariaDB.join('.')} or later.`;
  if (isOlder(number, OLDEST_UNTESTED[kind])) {
    throw new StartupError(
      `The server is ${kind} ${version}, too old: it lacks FOR UPDATE SKIP LOCKED or JSON_TABLE. ${needs}`,
    );
  }
  if (isOlder(number, OLDEST[kind])) {
    const untested = `The server is ${kind} ${version}, which RowMQ's tests never ran on`;
    if (!untestedAllowed) {
      throw new StartupError(
        `${untested}. ${needs} It has the statements that RowMQ uses; to run on it at your own risk, set ROWMQ_DATABASE_UNTESTED=allow.`,
      );
    }
    warnings.push(`${untested}; ROWMQ_DATABASE_UNTESTED=allow lets it run.`);
  }
  if (Number(logBin) === 1 && binlogFormat === 'STATEMENT') {
    throw new StartupError(
      'The server writes its binlog as statements, which does not work with READ COMMITTED; set binlog_format=ROW.',
    );
  }
  if (Number(maxAllowedPacket) < LARGEST_PACKET) {
    throw new StartupError(
      `max_allowed_packet is ${maxAllowedPacket}, but a batch of messages needs ${LARGEST_PACKET} (16 MiB); raise it to at least that.`,
    );
  }
  if (Number(flushLog) !== 1)
    warnings.push(
      `innodb_flush_log_at_trx_commit is ${flushLog}: a crash loses up to a second of answered requests; set it to 1.`,
    );
  if (Number(logBin) === 1 && Number(syncBinlog) !== 1)
    warnings.push(`sync_binlog is ${syncBinlog}: a crash can lose answered requests on replicas; set it to 1.`);
  return warnings;
}

function isOlder(number: string, oldest: readonly number[]): boolean {
  const parts = number.split('.').map(Number);
  const different = oldest.findIndex((part, index) => part !== (parts[index] ?? 0));
  return different >= 0 && (parts[different] ?? 0) < (oldest[different] as number);
}

/** Checks a Galera node's variables. Another server has none, or `wsrep_on` is OFF. */
export function judgeGalera(variables: ReadonlyMap<string, string>): string[] {
  if (variables.get('wsrep_on') !== 'ON') return [];
  if (variables.get('pxc_strict_mode') === 'ENFORCING') {
    throw new StartupError(
      'pxc_strict_mode is ENFORCING, which denies LOCK TABLES, so no reaper could drop a partition; set it to MASTER on every node.',
    );
  }
  return [
    'wsrep_on is ON: in a Galera cluster a lock binds its own node only, so let every broker and reaper write to the same node (docs/high-availability.md).',
  ];
}

/** Checks a server's `group_replication_…` variables. A server without the plugin has none. */
export function judgeGroup(variables: ReadonlyMap<string, string>): string[] {
  const valueOf = (name: string): string => variables.get(`group_replication_${name}`) ?? '';
  if (valueOf('group_name') === '') return [];
  if (valueOf('single_primary_mode') === 'OFF') {
    throw new StartupError(
      'The server is in a group with several primaries, which do not see each other’s locks; RowMQ needs group_replication_single_primary_mode=ON.',
    );
  }
  const warnings: string[] = [];
  if (valueOf('consistency') === 'EVENTUAL')
    warnings.push(
      'group_replication_consistency is EVENTUAL: after a failover, a new primary that is behind may miss confirmed messages; set it to BEFORE_ON_PRIMARY_FAILOVER.',
    );
  if (valueOf('unreachable_majority_timeout') === '0')
    warnings.push(
      'group_replication_unreachable_majority_timeout is 0: a primary that is cut off never becomes read-only, and brokers that reach both it and its successor use neither; set it to 1.',
    );
  return warnings;
}
