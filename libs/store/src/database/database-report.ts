import type { Database } from './database.js';
import { serverKind } from './boot-checks.js';

/** The state of the server, as far as the user may see it. */
export interface ServerState {
  server: string;
  upSeconds: number;
  connections: number;
  maxConnections: number;
  rowLockWaits: number;
  /** Null: the user may not see these three. */
  historyLength: number | null;
  deadlocks: number | null;
  longestTransactionSeconds: number | null;
  tables: { name: string; bytes: number; rows: number }[];
}

interface StatusRow {
  Variable_name: string;
  Value: string;
}

const STATUS = [
  'Uptime',
  'Threads_connected',
  'Innodb_row_lock_current_waits',
  'Innodb_history_list_length',
  'Innodb_deadlocks',
];

/** Reads the state of the server, for operators. It takes no locks. */
export class DatabaseReport {
  constructor(private readonly database: Database) {}

  async read(): Promise<ServerState> {
    const [version, status, limit, tables, kind] = await Promise.all([
      this.database.read<{ version: string }>('SELECT VERSION() AS version'),
      this.database.read<StatusRow>(`SHOW GLOBAL STATUS WHERE Variable_name IN (?)`, [STATUS]),
      this.database.read<{ most: number }>('SELECT @@max_connections AS most'),
      this.database.read<{ name: string; bytes: number | string; rowCount: number | string }>(
        `SELECT TABLE_NAME AS name, COALESCE(DATA_LENGTH + INDEX_LENGTH, 0) AS bytes, COALESCE(TABLE_ROWS, 0) AS rowCount
         FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = DATABASE()
         ORDER BY bytes DESC, name`,
      ),
      serverKind(this.database),
    ]);
    const value = (name: string): number => Number(status.find((row) => row.Variable_name === name)?.Value ?? 0);
    const number = version[0]?.version.replace(/^5\.5\.5-/, '').split('-')[0] ?? '';
    return {
      server: `${kind} ${number}`,
      upSeconds: value('Uptime'),
      connections: value('Threads_connected'),
      maxConnections: Number(limit[0]?.most ?? 0),
      rowLockWaits: value('Innodb_row_lock_current_waits'),
      // MariaDB shows these two to everybody.
      ...(kind === 'MariaDB'
        ? { historyLength: value('Innodb_history_list_length'), deadlocks: value('Innodb_deadlocks') }
        : await this.innodbMetrics()),
      longestTransactionSeconds: await this.longestTransaction(),
      tables: tables.map(({ name, bytes, rowCount }) => ({ name, bytes: Number(bytes), rows: Number(rowCount) })),
    };
  }

  private async innodbMetrics(): Promise<Pick<ServerState, 'historyLength' | 'deadlocks'>> {
    const rows = await this.ifAllowed<{ name: string; total: number | string }>(
      `SELECT NAME AS name, COUNT AS total
       FROM information_schema.INNODB_METRICS
       WHERE NAME IN ('trx_rseg_history_len', 'lock_deadlocks')`,
    );
    const count = (name: string): number | null => {
      const row = rows?.find((one) => one.name === name);
      return row === undefined ? null : Number(row.total);
    };
    return { historyLength: count('trx_rseg_history_len'), deadlocks: count('lock_deadlocks') };
  }

  private async longestTransaction(): Promise<number | null> {
    // InnoDB writes the start in the server's own time zone.
    const rows = await this.ifAllowed<{ seconds: number | string }>(
      `SELECT COALESCE(MAX(TIMESTAMPDIFF(SECOND, CONVERT_TZ(trx_started, 'SYSTEM', '+00:00'), UTC_TIMESTAMP())), 0)
                AS seconds
       FROM information_schema.INNODB_TRX`,
    );
    return rows === undefined ? null : Math.max(0, Number(rows[0]?.seconds ?? 0));
  }

  /** Undefined if the user lacks the privilege PROCESS. */
  private async ifAllowed<T extends object>(sql: string): Promise<T[] | undefined> {
    try {
      return await this.database.read<T>(sql);
    } catch (error) {
      if ((error as { code?: string }).code === 'ER_SPECIFIC_ACCESS_DENIED_ERROR') return undefined;
      throw error;
    }
  }
}
