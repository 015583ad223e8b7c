/** A row as mysql2 answers it. */
export type Row = Record<string, unknown>;

/** What an INSERT, UPDATE or DELETE answered. */
export interface WriteResult {
  /** Rows that matched (mysql2 sets FOUND_ROWS). */
  affectedRows: number;
  insertId: number;
}

/** One statement and the values for its question marks. */
export interface Statement {
  sql: string;
  values?: readonly unknown[];
}

/** One connection, inside one transaction or used alone. */
export interface Session {
  /**
   * Runs one statement. Values are escaped by mysql2: Buffers as hex literals, numbers as numbers,
   * arrays as lists.
   */
  read<T = Row>(sql: string, values?: readonly unknown[]): Promise<T[]>;
  write(sql: string, values?: readonly unknown[]): Promise<WriteResult>;
}
