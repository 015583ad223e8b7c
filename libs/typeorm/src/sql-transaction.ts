/**
 * A service's own transaction, as RowMQ uses it. Two methods fit it to any library that runs SQL.
 *
 * Both get the whole text of one statement, without placeholders, and must run it in the
 * transaction, on the transaction's connection. Their errors pass to the caller unchanged.
 */
export interface SqlTransaction {
  /** Runs a SELECT. Returns its rows as an array of objects with the columns' names. */
  read(sql: string): Promise<unknown>;
  /** Runs any other statement. RowMQ ignores the result. */
  write(sql: string): Promise<unknown>;
}

/** Fits a library's transaction to {@link SqlTransaction}. */
export type Adapter<Tx> = (transaction: Tx) => SqlTransaction;
