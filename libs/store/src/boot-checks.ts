import type { DataSource } from 'typeorm';

/** RowMQ cannot run on this database as it is; the message says what to change. */
export class StartupError extends Error {
  override readonly name = 'StartupError';
}

interface ServerFacts {
  version: string;
  logBin: number;
  binlogFormat: string;
  flushLog: number;
  syncBinlog: number;
  maxAllowedPacket: number;
}

/** A flight of 4 MiB of bodies is twice that as SQL, and has its other columns beside it. */
const LARGEST_PACKET = 16 * 1024 * 1024;

/** Oldest releases that have everything the statements use: SKIP LOCKED, JSON_TABLE, and partitions that can be dropped beside running writers. */
const OLDEST = { MySQL: [8, 4], MariaDB: [10, 6] } as const;

/**
 * Checks the server before anything is built on it. Returns warnings about settings that weaken durability.
 * Throws {@link StartupError} for a server that is too old, whose binlog cannot carry READ COMMITTED, that takes too small packets, or whose group has several primaries.
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

/** The judgement of {@link checkServer}, on facts. */
export function judgeServer({
  version,
  logBin,
  binlogFormat,
  flushLog,
  syncBinlog,
  maxAllowedPacket,
}: ServerFacts): string[] {
  const kind = /mariadb/i.test(version) ? 'MariaDB' : 'MySQL';
  // MariaDB hides its version behind the 5.5.5- prefix of old replication protocols on some paths.
  const [major = 0, minor = 0] = version
    .replace(/^5\.5\.5-/, '')
    .split('.')
    .map(Number);
  const [oldestMajor, oldestMinor] = OLDEST[kind];
  if (major < oldestMajor || (major === oldestMajor && minor < oldestMinor)) {
    throw new StartupError(
      `The server is ${kind} ${version}, too old: it lacks FOR UPDATE SKIP LOCKED or JSON_TABLE. RowMQ needs MySQL ${OLDEST.MySQL.join('.')} or MariaDB ${OLDEST.MariaDB.join('.')} or later.`,
    );
  }
  if (Number(logBin) === 1 && binlogFormat === 'STATEMENT') {
    throw new StartupError(
      'The server writes its binlog as statements, which READ COMMITTED transactions cannot; set binlog_format=ROW.',
    );
  }
  if (Number(maxAllowedPacket) < LARGEST_PACKET) {
    throw new StartupError(
      `max_allowed_packet is ${maxAllowedPacket}; a transaction of many messages at once needs ${LARGEST_PACKET} (16 MiB), which is the least either server comes with.`,
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

/** The same of a server's `group_replication_…` variables; there are none where the plugin is not loaded. */
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
      'group_replication_consistency is EVENTUAL: after a failover, a new primary that is behind may answer as if what was confirmed were not there; set it to BEFORE_ON_PRIMARY_FAILOVER.',
    );
  if (valueOf('unreachable_majority_timeout') === '0')
    warnings.push(
      'group_replication_unreachable_majority_timeout is 0: a primary that is cut off never becomes read-only, and brokers that can reach it wait there; set it to some seconds.',
    );
  return warnings;
}
