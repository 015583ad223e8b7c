import { RowmqError } from '@rowmq/contract';
import pRetry, { type Options } from 'p-retry';
import type { DataSource, EntityManager } from 'typeorm';
import { Connections, type ServerConnection } from './connection.js';
import { healthOf } from './data-source.js';
import {
  isConnectionLost,
  isDatabaseFailure,
  isDuplicateKey,
  isRetryable,
  mayHaveCommitted,
  toRowmqError,
} from './database-errors.js';
import type { DatabaseHealth } from './database-health.js';
import { ASK_FOR_PROOF } from './primary.js';
import { managerOn } from './session-runner.js';
import type { Row, Session, Statement, WriteResult } from './session.js';

/** One attempt at a transaction. */
export interface Transaction extends Session {
  /**
   * True when the COMMIT of an earlier attempt got no answer. The database may already hold that
   * attempt's changes.
   */
  readonly commitUnknown: boolean;
  /** TypeORM's repositories and query builders in this transaction. */
  readonly manager: EntityManager;
  /**
   * Runs statements in order, in one round trip. The server stops at the first that fails. Returns
   * the answer of each: rows, or a {@link WriteResult}.
   */
  all(statements: readonly Statement[]): Promise<unknown[]>;
  /**
   * Runs the last statements of a transaction and its COMMIT in one round trip. The caller must
   * send nothing afterwards. A transaction of one statement needs no START and no COMMIT.
   */
  finish(statements: readonly Statement[]): Promise<unknown[]>;
}

/**
 * Limits for {@link Database.transaction}: five retries with jitter, begun within 15 s. That leaves
 * room to retry after a lock wait or a statement deadline.
 */
const RETRIES: Options = {
  retries: 5,
  minTimeout: 20,
  maxTimeout: 1000,
  factor: 3,
  randomize: true,
  maxRetryTime: 15_000,
  shouldRetry: ({ error }) => isRetryable(error),
};

/**
 * The only access to the database: short READ COMMITTED transactions on TypeORM's connection pool.
 * It sets a deadline on every statement and retries transient failures. It uses the one server that
 * takes writes, and none while there are two.
 *
 * It sends SQL to mysql2 directly, because TypeORM's `query` copies every result and broadcasts
 * every statement.
 */
export class Database {
  /** Learns the outcome of every attempt. */
  readonly health: DatabaseHealth;
  /**
   * TypeORM's repositories and query builders. Each statement runs on its own, like {@link read}
   * and {@link write}.
   */
  readonly manager: EntityManager;
  private readonly connections: Connections;

  /** @param statementDeadlineMs When it passes, the statement fails and its connection closes. */
  constructor(
    readonly dataSource: DataSource,
    private readonly statementDeadlineMs = 10_000,
  ) {
    this.health = healthOf(dataSource);
    this.connections = new Connections(dataSource, statementDeadlineMs);
    this.manager = managerOn(dataSource, {
      read: async (sql, values) => this.read(sql, values),
      write: async (sql, values) => this.write(sql, values),
    });
  }

  /**
   * Runs `work` in a transaction and commits. If `work` throws, the transaction rolls back.
   *
   * It retries the whole transaction after a deadlock, a lock wait timeout, a lost connection, or a
   * read-only server. `work` must therefore be repeatable. If a second run would differ from
   * one, `work` must check `commitUnknown`.
   *
   * Throws `database-unavailable` when no attempt succeeded and `overloaded` when no connection
   * became free. Rethrows errors of `work`.
   */
  async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    let commitUnknown = false;
    try {
      return await this.retry(() =>
        this.connections.use(async (connection) => {
          const attempt = new Attempt(this.dataSource, connection.session, commitUnknown);
          try {
            const result = await work(attempt);
            await attempt.commit();
            return result;
          } catch (error) {
            commitUnknown ||= attempt.commitSent && mayHaveCommitted(error);
            if (attempt.begun && !isConnectionLost(error)) await rollBack(connection);
            throw error;
          }
        }),
      );
    } catch (error) {
      if (!commitUnknown || !isDatabaseFailure(error)) throw error;
      throw outcomeUnknown(error);
    }
  }

  /**
   * Runs one SELECT on its own, retried like a transaction. It accepts a demoted primary's answers
   * for one second at most.
   */
  async read<T = Row>(sql: string, values?: readonly unknown[]): Promise<T[]> {
    return this.retry(() =>
      this.connections.use(async (connection) => {
        if (connection.isProven) return connection.session.read<T>(sql, values);
        const answers = await connection.session.read<Row[]>(`${sql};\n${ASK_FOR_PROOF}`, values);
        connection.prove(answers.pop()?.[0]);
        return (answers.length === 1 ? answers[0] : answers) as T[];
      }, true),
    );
  }

  /**
   * Throws unless the database confirms by the deadline that it takes writes. The codes are
   * `database-unavailable` and `overloaded`.
   */
  async ping(deadlineMs: number): Promise<void> {
    const asked = this.retry(() =>
      this.connections.use(async (connection) => {
        const [row] = await connection.session.read(ASK_FOR_PROOF);
        connection.prove(row);
      }, true),
    );
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const error = new RowmqError('database-unavailable', `no answer within ${deadlineMs / 1000} s`);
        this.health.failed(error);
        reject(error);
      }, deadlineMs);
    });
    try {
      await Promise.race([asked, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Runs several SELECTs in one round trip, outside a transaction, retried like one. */
  async all(statements: readonly Statement[]): Promise<unknown[]> {
    const { sql, values } = join(statements);
    const answers = await this.read<unknown>(sql, values);
    // mysql2 does not wrap the answer of a single statement in a list.
    return statements.length === 1 ? [answers] : answers;
  }

  /**
   * Runs one INSERT, UPDATE or DELETE on its own. It is retried like a transaction, so it must be
   * repeatable.
   */
  async write(sql: string, values?: readonly unknown[]): Promise<WriteResult> {
    return this.retry(() => this.connections.use(({ session }) => session.write(sql, values)));
  }

  /**
   * Gives `work` a connection of its own, for session state such as LOCK TABLES. Never retries.
   * Closes the connection afterwards, so that no session state leaks.
   *
   * @param statementDeadlineMs DDL may need longer than a request's statement.
   */
  async exclusive<T>(
    work: (session: Session) => Promise<T>,
    statementDeadlineMs = this.statementDeadlineMs,
  ): Promise<T> {
    return this.connections.useOnce((connection) => work(connection.session), statementDeadlineMs);
  }

  private async retry<T>(attempt: () => Promise<T>): Promise<T> {
    try {
      return await pRetry(attempt, RETRIES);
    } catch (error) {
      throw toRowmqError(error);
    }
  }
}

/**
 * Handles the failure of an INSERT that ran on its own, of a row whose key nobody else can have. A
 * duplicate key then is the row itself: an earlier attempt stored it, and its answer was lost.
 */
export function unlessStored(error: unknown): void {
  if (!isDuplicateKey(error)) throw error;
}

/** The error of a transaction whose COMMIT got no answer, if nobody can tell its outcome. */
export function outcomeUnknown(cause?: unknown): RowmqError {
  return new RowmqError(
    'database-unavailable',
    'The connection to the database broke during COMMIT: the request may or may not have succeeded. Repeat it if doing it twice is harmless.',
    { cause, retryAfterSeconds: 1 },
  );
}

/** Closes the connection if the rollback fails, because its transaction may still be open. */
async function rollBack(connection: ServerConnection): Promise<void> {
  try {
    await connection.session.write('ROLLBACK');
  } catch (error) {
    connection.close();
    throw error;
  }
}

/**
 * One attempt at a transaction, in as few round trips as possible. START TRANSACTION travels with
 * the first statement, and COMMIT with the last if the caller marks it. A round trip costs each
 * side tens of microseconds, about as much as a short statement.
 */
class Attempt implements Transaction {
  begun = false;
  commitSent = false;

  constructor(
    private readonly dataSource: DataSource,
    private readonly session: Session,
    readonly commitUnknown: boolean,
  ) {}

  get manager(): EntityManager {
    return managerOn(this.dataSource, this);
  }

  async read<T = Row>(sql: string, values?: readonly unknown[]): Promise<T[]> {
    return (await this.send([{ sql, ...(values && { values }) }]))[0] as T[];
  }

  async write(sql: string, values?: readonly unknown[]): Promise<WriteResult> {
    return (await this.send([{ sql, ...(values && { values }) }]))[0] as WriteResult;
  }

  async all(statements: readonly Statement[]): Promise<unknown[]> {
    return this.send(statements);
  }

  async finish(statements: readonly Statement[]): Promise<unknown[]> {
    if (!this.begun && statements.length === 0) return [];
    this.commitSent = true;
    const [only] = statements;
    if (!this.begun && only !== undefined && statements.length === 1)
      return [await this.session.read(only.sql, only.values)];
    return (await this.send([...statements, COMMIT])).slice(0, -1);
  }

  /** Commits, unless `finish` has sent the COMMIT. */
  async commit(): Promise<void> {
    if (!this.commitSent) await this.finish([]);
  }

  private async send(statements: readonly Statement[]): Promise<unknown[]> {
    if (statements.length === 0) return [];
    const first = !this.begun;
    this.begun = true;
    const sent = first ? [START, ...statements] : statements;
    const { sql, values } = join(sent);
    const answer = await this.session.read<unknown>(sql, values);
    // mysql2 does not wrap the answer of a single statement in a list.
    const answers = sent.length === 1 ? [answer] : answer;
    return first ? answers.slice(1) : answers;
  }
}

/** Joins statements into one text, for one round trip. */
function join(statements: readonly Statement[]): { sql: string; values: unknown[] } {
  return {
    sql: statements.map(({ sql }) => sql).join(';\n'),
    values: statements.flatMap(({ values }) => values ?? []),
  };
}

const START: Statement = { sql: 'START TRANSACTION' };
const COMMIT: Statement = { sql: 'COMMIT' };
