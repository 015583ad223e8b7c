/** A row as mysql2 returns it. */
export type Row = Record<string, unknown>;

/** The result of an INSERT, UPDATE or DELETE. */
export interface WriteResult {
  /** Counts matched rows, because mysql2 sets FOUND_ROWS. */
  affectedRows: number;
  insertId: number;
}

/** One statement and the values for its placeholders. */
export interface Statement {
  sql: string;
  values?: readonly unknown[];
}

/** One connection, either inside a transaction or on its own. */
export interface Session {
  /**
   * Runs one statement. mysql2 escapes the values: Buffers as hex literals, numbers as numbers,
   * arrays as lists.
   */
  read<T = Row>(sql: string, values?: readonly unknown[]): Promise<T[]>;
  write(sql: string, values?: readonly unknown[]): Promise<WriteResult>;
}
