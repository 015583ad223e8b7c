import { reason } from '@rowmq/runtime';
import type { DataSource } from 'typeorm';
import type { Database } from './database.js';
import { driverError } from './database-errors.js';
import { NoPrimaryError } from './primary.js';

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
  switch (errno) {
    case 1044:
    case 1045:
      // MariaDB with require_secure_transport reports it like this. So do both servers when a user
      // has REQUIRE SSL.
      return `Check user and password in ROWMQ_DATABASE_URL. The same is said where only encrypted connections are taken: ${ENCRYPT}`;
    case 1049:
      return `Create it (CREATE DATABASE \`${address.split('/').at(-1)}\` CHARACTER SET utf8mb4), or name another in ROWMQ_DATABASE_URL.`;
    case 3159:
      return ENCRYPT;
  }
  return undefined;
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
}

/** A batch with 4 MiB of bodies doubles in size as SQL text, and carries its other columns too. */
const LARGEST_PACKET = 16 * 1024 * 1024;

/**
 * The oldest releases with all features that the statements use: SKIP LOCKED, JSON_TABLE, and DROP
 * PARTITION while writers run.
 */
const OLDEST = { MySQL: [8, 4], MariaDB: [10, 6] } as const;

/**
 * Checks the server before the application uses it. Returns warnings about settings that weaken
 * durability.
 *
 * Throws {@link StartupError} for a server that is too old or accepts only small packets. Throws it
 * too when the binlog cannot carry READ COMMITTED, or the group has several primaries.
 */
export async function checkServer(dataSource: DataSource): Promise<string[]> {
  const [facts] = await dataSource.query<ServerFacts[]>(
    `SELECT VERSION() AS version, @@GLOBAL.log_bin AS logBin, @@GLOBAL.binlog_format AS binlogFormat,
            @@GLOBAL.innodb_flush_log_at_trx_commit AS flushLog, @@GLOBAL.sync_binlog AS syncBinlog,
            @@GLOBAL.max_allowed_packet AS maxAllowedPacket`,
  );
  const group = await dataSource.query<{ Variable_name: string; Value: string }[]>(
    `SHOW GLOBAL VARIABLES LIKE 'group_replication_%'`,
  );
  return [
    ...judgeServer(facts as ServerFacts),
    ...judgeGroup(new Map(group.map(({ Variable_name: name, Value: value }) => [name, value]))),
  ];
}

/** Decides for {@link checkServer}, from the values that it read. */
export function judgeServer({
  version,
  logBin,
  binlogFormat,
  flushLog,
  syncBinlog,
  maxAllowedPacket,
}: ServerFacts): string[] {
  const { kind, number } = parseVersion(version);
  const [major = 0, minor = 0] = number.split('.').map(Number);
  const [oldestMajor, oldestMinor] = OLDEST[kind];
  if (major < oldestMajor || (major === oldestMajor && minor < oldestMinor)) {
    throw new StartupError(
      `The server is ${kind} ${version}, too old: it lacks FOR UPDATE SKIP LOCKED or JSON_TABLE. RowMQ needs MySQL ${OLDEST.MySQL.join('.')} or MariaDB ${OLDEST.MariaDB.join('.')} or later.`,
    );
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
  const warnings: string[] = [];
  if (Number(flushLog) !== 1)
    warnings.push(
      `innodb_flush_log_at_trx_commit is ${flushLog}: a crash loses up to a second of answered requests; set it to 1.`,
    );
  if (Number(logBin) === 1 && Number(syncBinlog) !== 1)
    warnings.push(`sync_binlog is ${syncBinlog}: a crash can lose answered requests on replicas; set it to 1.`);
  return warnings;
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
