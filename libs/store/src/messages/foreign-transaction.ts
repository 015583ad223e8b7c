import type { Session } from '../database/session.js';
import { IN_TRANSACTION, ISOLATION_LEVEL } from '../database/session-facts.js';

/** The caller's own transaction, on a connection that the store does not manage. */
export interface ForeignTransaction extends Pick<Session, 'read'> {
  /** Returns nothing that all libraries agree on. */
  write(sql: string, values?: readonly unknown[]): Promise<unknown>;
  /** Precedes the name of each table: a quoted database and a dot, or nothing. */
  readonly schema?: string | undefined;
}

/** At other levels a transaction reads what nobody has committed, or locks all it reads. */
const USABLE_LEVELS = new Set(['READ-COMMITTED', 'REPEATABLE-READ']);

/** Columns that tell whether a transaction can be used: {@link TransactionFacts}. */
export const TRANSACTION_FACTS = `${ISOLATION_LEVEL} AS level, ${IN_TRANSACTION} AS isOpen`;

export interface TransactionFacts {
  level: string;
  isOpen: number;
}

/** Throws Error without an open transaction, or at an isolation level that cannot work. */
export function assertUsable(facts: TransactionFacts): void {
  const level = textOf(facts.level);
  if (Number(facts.isOpen) === 0) {
    throw new Error(
      'RowMQ needs an open transaction, and got a connection or a pool without one; pass the object that the library gives to the function of the transaction.',
    );
  }
  if (USABLE_LEVELS.has(level)) return;
  const why =
    level === 'SERIALIZABLE'
      ? 'locks everything it reads, so acks and changes of the queue would wait for its end'
      : 'reads settings that nobody has committed';
  throw new Error(
    `The session's isolation level is ${level}, and a transaction at this level ${why}; run SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED on the connection before the transaction begins.`,
  );
}

/** A connection whose character set is `binary` returns text as bytes. */
export function textOf<Text extends string>(text: Text | null): Text {
  return String(text) as Text;
}

/** The same row with numbers. The caller's driver may return them as text or as BigInt. */
export function numbers<Row extends object>(row: Row): Row {
  const entries = Object.entries(row).map(([column, value]): [string, number | null] => {
    const number = value === null ? null : Number(value);
    if (number !== null && Number.isNaN(number)) {
      throw new TypeError(
        `The transaction returned '${String(value)}' in column '${column}', which holds a number; return rows as the database driver makes them.`,
      );
    }
    return [column, number];
  });
  return Object.fromEntries(entries) as Row;
}
