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
 * Throws {@link StartupError} for a server that is too old, whose binlog cannot carry READ COMMITTED, or that takes too small packets.
 */
export async function checkServer(dataSource: DataSource): Promise<string[]> {
  const [facts] = await dataSource.query<ServerFacts[]>(
    `SELECT VERSION() AS version, @@GLOBAL.log_bin AS logBin, @@GLOBAL.binlog_format AS binlogFormat,
            @@GLOBAL.innodb_flush_log_at_trx_commit AS flushLog, @@GLOBAL.sync_binlog AS syncBinlog,
            @@GLOBAL.max_allowed_packet AS maxAllowedPacket`,
  );
  return judgeServer(facts as ServerFacts);
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
