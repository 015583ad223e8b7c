import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise';

/** Only with these settings is a figure one of durable messages. */
const DURABLE = { innodb_flush_log_at_trx_commit: '1', sync_binlog: '1', log_bin: 'ON' } as const;

/** Bytes written so far. */
export interface WrittenBytes {
  redo: number;
  /**
   * Sizes of the binlog's files. The server may purge a file meanwhile, so only differences of each
   * file mean something.
   */
  binlog: ReadonlyMap<string, number>;
}

/** A server's counters. One that does not count something has NaN there. */
export type ServerCounters = Record<
  'commits' | 'redoFsyncs' | 'dataFsyncs' | 'binlogFsyncs' | 'bytesReceived' | 'bytesSent' | 'lockWaits' | 'deadlocks',
  number
>;

const STATUS: Partial<Record<keyof ServerCounters, string>> = {
  commits: 'Com_commit',
  redoFsyncs: 'Innodb_os_log_fsyncs',
  dataFsyncs: 'Innodb_data_fsyncs',
  bytesReceived: 'Bytes_received',
  bytesSent: 'Bytes_sent',
  lockWaits: 'Innodb_row_lock_waits',
};

/** An index of a table, all its partitions together. */
export interface IndexSize {
  table: string;
  index: string;
  leafBytes: number;
}

/** A server that runs on this machine. */
export interface ServerFacts {
  /** Such as `mysql 9.7.4`. */
  name: string;
  pid: number;
  folder: string;
}

/** Reads a server's counters, on a connection of its own. */
export class DatabaseProbe {
  private own = 0;

  private constructor(private readonly connection: Connection) {}

  static async open(url: string): Promise<DatabaseProbe> {
    return new DatabaseProbe(await createConnection({ uri: url, supportBigNumbers: true }));
  }

  async close(): Promise<void> {
    await this.connection.end();
  }

  async query<T = RowDataPacket>(sql: string, values: readonly unknown[] = []): Promise<T[]> {
    this.own += 1;
    const [rows] = await this.connection.query(sql, [...values]);
    return rows as T[];
  }

  /** Fails if the server's process cannot be found on this machine. */
  async serverFacts(): Promise<ServerFacts> {
    const [facts] = await this.query<Record<'version' | 'folder' | 'pidFile', string>>(
      'SELECT VERSION() AS version, @@datadir AS folder, @@pid_file AS pidFile',
    );
    const { version, folder, pidFile } = facts as Record<'version' | 'folder' | 'pidFile', string>;
    const pid = Number(await readFile(resolve(folder, pidFile), 'utf8').catch(() => Number.NaN));
    if (!Number.isInteger(pid)) {
      throw new Error(
        `${pidFile}, the server's pid file, cannot be read. Run the benchmark on the server's machine, as a user who may read the file: it measures the CPU of the server's process.`,
      );
    }
    const kind = /mariadb/i.test(version) ? 'mariadb' : 'mysql';
    return { name: `${kind} ${/^[\d.]+/.exec(version)?.[0] ?? version}`, pid, folder };
  }

  /** Fails unless an answered commit survives a crash. */
  async assertDurable(): Promise<void> {
    const rows = await this.query<{ Variable_name: string; Value: string }>(
      'SHOW GLOBAL VARIABLES WHERE Variable_name IN (?)',
      [Object.keys(DURABLE)],
    );
    const actual = Object.fromEntries(rows.map(({ Variable_name: name, Value: value }) => [name, value]));
    for (const [name, wanted] of Object.entries(DURABLE)) {
      if (actual[name] !== wanted)
        throw new Error(`${name} is ${String(actual[name])}: only ${wanted} is durable, and no other figure counts`);
    }
  }

  /** Statements that clients other than this have sent so far. */
  async questions(): Promise<number> {
    const all = await this.status('Questions');
    return all - this.own;
  }

  async writtenBytes(): Promise<WrittenBytes> {
    const redo = await this.status('Innodb_os_log_written');
    const files = await this.query<{ Log_name: string; File_size: number }>('SHOW BINARY LOGS');
    return { redo, binlog: new Map(files.map(({ Log_name: name, File_size: size }) => [name, Number(size)])) };
  }

  /** Counters of what a message costs beside CPU and bytes written. */
  async counters(): Promise<ServerCounters> {
    const names = Object.values(STATUS);
    const rows = await this.query<{ Variable_name: string; Value: string }>(
      'SHOW GLOBAL STATUS WHERE Variable_name IN (?)',
      [names],
    );
    const known = new Map(rows.map(({ Variable_name: name, Value: value }) => [name, Number(value)]));
    const of = (counter: keyof ServerCounters): number => known.get(STATUS[counter] ?? '') ?? Number.NaN;
    return {
      commits: of('commits'),
      redoFsyncs: of('redoFsyncs'),
      dataFsyncs: of('dataFsyncs'),
      bytesReceived: of('bytesReceived'),
      bytesSent: of('bytesSent'),
      lockWaits: of('lockWaits'),
      binlogFsyncs: await this.binlogFsyncs(),
      deadlocks: await this.metric('lock_deadlocks'),
    };
  }

  /**
   * With sync_binlog=1, each group of commits is one fsync. MariaDB counts groups. MySQL counts
   * operations on a binlog file that are neither reads nor writes: its fsyncs, and a few openings.
   */
  private async binlogFsyncs(): Promise<number> {
    const [groups] = await this.query<{ Value: string }>(`SHOW GLOBAL STATUS LIKE 'Binlog_group_commits'`);
    if (groups !== undefined) return Number(groups.Value);
    const [file] = await this.query<{ syncs: number }>(
      `SELECT COUNT_MISC AS syncs FROM performance_schema.file_summary_by_event_name WHERE EVENT_NAME = 'wait/io/file/sql/binlog'`,
    );
    return Number(file?.syncs ?? Number.NaN);
  }

  private async metric(name: string): Promise<number> {
    const [metric] = await this.query<{ COUNT: number }>(
      'SELECT * FROM information_schema.INNODB_METRICS WHERE NAME = ?',
      [name],
    );
    return Number(metric?.COUNT ?? Number.NaN);
  }

  /** Bytes in the leaf pages of each index. Only whole pages count; an empty partition has one. */
  async indexSizes(tables: readonly string[]): Promise<IndexSize[]> {
    await this.query(`ANALYZE TABLE ${tables.join(', ')}`);
    const [{ page } = { page: Number.NaN }] = await this.query<{ page: number }>(
      'SELECT @@GLOBAL.innodb_page_size AS page',
    );
    const rows = await this.query<{ name: string; indexName: string; pages: string }>(
      `SELECT SUBSTRING_INDEX(LOWER(table_name), '#p#', 1) AS name, index_name AS indexName, SUM(stat_value) AS pages
       FROM mysql.innodb_index_stats
       WHERE database_name = DATABASE()
         AND stat_name = 'n_leaf_pages'
       GROUP BY name, indexName`,
    );
    return rows
      .filter(({ name }) => tables.includes(name))
      .map(({ name, indexName, pages }) => ({ table: name, index: indexName, leafBytes: Number(pages) * page }));
  }

  /** Transactions whose remains purge has not removed yet. */
  async historyListLength(): Promise<number> {
    const [metric] = await this.query<{ COUNT: number; STATUS: string }>(
      `SELECT * FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'`,
    );
    if (metric !== undefined && /enabled|1/.test(String(metric.STATUS))) return Number(metric.COUNT);
    const [engine] = await this.query<{ Status: string }>('SHOW ENGINE INNODB STATUS');
    return Number(/History list length (\d+)/.exec(engine?.Status ?? '')?.[1]);
  }

  /** Connections of all clients, including this one. */
  async openConnections(): Promise<number> {
    return this.status('Threads_connected');
  }

  /** Messages that a queue owes. */
  async depth(queue: string): Promise<number> {
    const [row] = await this.query<{ depth: number }>(
      'SELECT COALESCE(SUM(BIT_COUNT(members)), 0) AS depth FROM delivery WHERE queue_id = (SELECT id FROM queue WHERE name = ?)',
      [queue],
    );
    return Number(row?.depth);
  }

  private async status(name: string): Promise<number> {
    const [row] = await this.query<{ Value: string }>('SHOW GLOBAL STATUS WHERE Variable_name = ?', [name]);
    if (row === undefined) throw new Error(`the server has no status ${name}`);
    return Number(row.Value);
  }
}

/** Bytes that the server wrote between two readings. */
export function writtenBetween(before: WrittenBytes, after: WrittenBytes): { redo: number; binlog: number } {
  const files = [...after.binlog].map(([name, size]) => size - (before.binlog.get(name) ?? 0));
  return { redo: after.redo - before.redo, binlog: files.reduce((sum, size) => sum + size, 0) };
}
