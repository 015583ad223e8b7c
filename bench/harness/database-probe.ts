import { type Connection, createConnection, type RowDataPacket } from 'mysql2/promise';

/** What must hold for a figure to be that of durable messages. */
const DURABLE = { innodb_flush_log_at_trx_commit: '1', sync_binlog: '1', log_bin: 'ON' } as const;

/** Bytes written so far. */
export interface WrittenBytes {
  redo: number;
  /** Sizes of the binlog's files: a file may be purged meanwhile, so only differences of each file mean something. */
  binlog: ReadonlyMap<string, number>;
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

  /** Transactions whose remains purge has not removed yet. */
  async historyListLength(): Promise<number> {
    const [metric] = await this.query<{ COUNT: number; STATUS: string }>(
      `SELECT * FROM information_schema.INNODB_METRICS WHERE NAME = 'trx_rseg_history_len'`,
    );
    if (metric !== undefined && /enabled|1/.test(String(metric.STATUS))) return Number(metric.COUNT);
    const [engine] = await this.query<{ Status: string }>('SHOW ENGINE INNODB STATUS');
    return Number(/History list length (\d+)/.exec(engine?.Status ?? '')?.[1]);
  }

  /** Of all clients, this among them. */
  async openConnections(): Promise<number> {
    return this.status('Threads_connected');
  }

  /** Deliveries in a queue. */
  async depth(queue: string): Promise<number> {
    const [row] = await this.query<{ depth: number }>(
      'SELECT COUNT(*) AS depth FROM delivery WHERE queue_id = (SELECT id FROM queue WHERE name = ?)',
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

/** What was written between two readings, in bytes. */
export function writtenBetween(before: WrittenBytes, after: WrittenBytes): { redo: number; binlog: number } {
  const files = [...after.binlog].map(([name, size]) => size - (before.binlog.get(name) ?? 0));
  return { redo: after.redo - before.redo, binlog: files.reduce((sum, size) => sum + size, 0) };
}
