import { RowmqError } from '@rowmq/contract';
import pRetry, { type Options } from 'p-retry';
import type { PoolConnection, QueryOptions } from 'mysql2';
import type { DataSource } from 'typeorm';
import { healthOf, poolOf, primaryOf } from './data-source.js';
import type { DatabaseHealth } from './database-health.js';
import {
  isConnectionLost,
  isDatabaseFailure,
  isNotPrimary,
  isRetryable,
  mayHaveCommitted,
  toRowmqError,
} from './database-errors.js';
import { type Primary, refuseReadOnly } from './primary.js';

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
  /** Runs one statement. Values are escaped by mysql2: Buffers as hex literals, numbers as numbers, arrays as lists. */
  read<T = Row>(sql: string, values?: readonly unknown[]): Promise<T[]>;
  write(sql: string, values?: readonly unknown[]): Promise<WriteResult>;
}

/** One try of a transaction. */
export interface Transaction extends Session {
  /** True when the COMMIT of an earlier try got no answer: what that try did may already be there. */
  readonly commitUnknown: boolean;
  /** Runs statements in one round trip, in order; those after one that fails are not run. Returns the answer of each: rows, or a {@link WriteResult}. */
  all(statements: readonly Statement[]): Promise<unknown[]>;
  /** The same for the last statements of a transaction, with its COMMIT in the round trip. Nothing may follow. */
  finish(statements: readonly Statement[]): Promise<unknown[]>;
}

/** Bounds of {@link Database.transaction}'s retries: five more tries, jittered, begun within fifteen seconds; so one that waited for a lock, or ran into its deadline, is tried again. */
const RETRIES: Options = {
  retries: 5,
  minTimeout: 20,
  maxTimeout: 1000,
  factor: 3,
  randomize: true,
  maxRetryTime: 15_000,
  shouldRetry: ({ error }) => isRetryable(error),
};

/** A statement that takes longer makes one ask whether another host is the primary by now: one that hangs answers nothing, also not that it is no primary. */
const SLOW_MS = 3000;

/**
 * A server that has not said for this long, on the connection in use, that it takes writes is asked along with the next SELECT. A write would be refused, but who only looks for work would go on looking where there
 * will never be any: a primary that was demoted answers.
 */
const PROOF_MS = 1000;
const ASK_FOR_PROOF = 'SELECT @@GLOBAL.read_only AS readOnly';

/**
 * The server ends a session whose client has been silent for so many statement deadlines, and with it the transaction: nobody who works is silent for one. Without that a process that is frozen, or whose machine
 * is gone, keeps its locks for hours, until TCP gives up.
 */
const SILENT_DEADLINES = 3;

/**
 * The one way to the database: short READ COMMITTED transactions on TypeORM's connection pool, retried when they fail for a passing reason, with a
 * deadline on every statement. A server that is read-only is not used; of several hosts, the one that takes writes is. SQL goes to mysql2 directly: TypeORM's own `query` copies every result and broadcasts every statement.
 */
export class Database {
  /** Told of every try, whether it failed or was answered. */
  readonly health: DatabaseHealth;
  /** When the server at a connection's end last said that it takes writes; none of a connection that was not set up yet. */
  private readonly provenAt = new WeakMap<PoolConnection, number>();
  private readonly sessionSetup: readonly string[];
  private readonly primary: Primary | undefined;
  private serverIsMariaDb = true;

  /** @param statementDeadlineMs after which a statement is given up and its connection closed. */
  constructor(
    readonly dataSource: DataSource,
    private readonly statementDeadlineMs = 10_000,
  ) {
    this.health = healthOf(dataSource);
    this.primary = primaryOf(dataSource);
    this.sessionSetup = sessionSetup(Math.ceil((SILENT_DEADLINES * statementDeadlineMs) / 1000));
  }

  /** Whether the server is MariaDB, as its connections say: assumed until the first is open, since what is right for MariaDB is right, if slower, for MySQL. */
  get isMariaDb(): boolean {
    return this.serverIsMariaDb;
  }

  /**
   * Runs `work` in a transaction and commits it; what `work` throws rolls it back. A deadlock, a lock wait timeout, a lost connection or a server that takes no writes is tried again
   * from the start, so `work` must be repeatable, and must look at `commitUnknown` where doing it twice would differ from doing it once.
   *
   * Throws `database-unavailable` when no try succeeded, `overloaded` when no connection was to be had, and what `work` threw.
   */
  async transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> {
    let commitUnknown = false;
    try {
      return await this.retry(() =>
        this.withConnection(async (connection) => {
          const attempt = new Attempt(this.session(connection), commitUnknown);
          try {
            const result = await work(attempt);
            await attempt.commit();
            return result;
          } catch (error) {
            commitUnknown ||= attempt.commitSent && mayHaveCommitted(error);
            if (attempt.begun && !isConnectionLost(error)) await this.rollBack(connection);
            throw error;
          }
        }),
      );
    } catch (error) {
      if (!commitUnknown || !isDatabaseFailure(error)) throw error;
      throw new RowmqError(
        'database-unavailable',
        'The database was lost while it committed: the request may or may not have been carried out.',
        {
          cause: error,
          retryAfterSeconds: 1,
        },
      );
    }
  }

  /** Runs one SELECT by itself, retried like a transaction. What a server answers that takes no writes is not used for longer than a second. */
  async read<T = Row>(sql: string, values?: readonly unknown[]): Promise<T[]> {
    return this.retry(() =>
      this.withConnection(async (connection) => {
        const session = this.session(connection);
        if (performance.now() - (this.provenAt.get(connection) ?? 0) < PROOF_MS) return session.read<T>(sql, values);
        const answers = await session.read<Row[]>(`${sql};\n${ASK_FOR_PROOF}`, values);
        this.prove(connection, answers.pop()?.[0]);
        return (answers.length === 1 ? answers[0] : answers) as T[];
      }),
    );
  }

  /** Throws unless the database says by the deadline that it takes writes: `database-unavailable`, `overloaded`. */
  async ping(deadlineMs: number): Promise<void> {
    const asked = this.retry(() =>
      this.withConnection(async (connection) => {
        const [row] = await this.session(connection).read(ASK_FOR_PROOF);
        this.prove(connection, row);
      }),
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

  /** Runs several SELECTs in one round trip, each by itself, retried like a transaction. */
  async all(statements: readonly Statement[]): Promise<unknown[]> {
    const { sql, values } = join(statements);
    const answers = await this.read<unknown>(sql, values);
    // One statement's answer comes bare.
    return statements.length === 1 ? [answers] : answers;
  }

  /** Throws `ReadOnlyServerError` if the server has said that it takes no writes. */
  private prove(connection: PoolConnection, answer: Row | undefined): void {
    refuseReadOnly(answer?.['readOnly']);
    this.provenAt.set(connection, performance.now());
  }

  /** Runs one INSERT, UPDATE or DELETE by itself, retried like a transaction: it must be repeatable. */
  async write(sql: string, values?: readonly unknown[]): Promise<WriteResult> {
    return this.retry(() => this.withConnection((connection) => this.session(connection).write(sql, values)));
  }

  /**
   * Gives `work` a connection of its own, for session state such as LOCK TABLES. Not retried. The connection is closed afterwards, not reused,
   * so nothing `work` set can leak.
   * @param statementDeadlineMs for DDL, which may take longer than a request's statement.
   */
  async exclusive<T>(
    work: (session: Session) => Promise<T>,
    statementDeadlineMs = this.statementDeadlineMs,
  ): Promise<T> {
    return this.watched(async () => {
      const connection = await this.connect();
      try {
        return await work(this.session(connection, statementDeadlineMs));
      } finally {
        connection.destroy();
      }
    });
  }

  private async retry<T>(attempt: () => Promise<T>): Promise<T> {
    try {
      return await pRetry(attempt, RETRIES);
    } catch (error) {
      throw toRowmqError(error);
    }
  }

  private async withConnection<T>(work: (connection: PoolConnection) => Promise<T>): Promise<T> {
    return this.watched(async () => {
      const connection = await this.connect();
      try {
        const result = await work(connection);
        connection.release();
        return result;
      } catch (error) {
        // A statement may still be running on it, or it leads to a server that is no longer the primary: never hand such a connection to the next request.
        if (isConnectionLost(error) || isNotPrimary(error)) connection.destroy();
        else connection.release();
        throw error;
      }
    });
  }

  /** One try, whose outcome the health is told. Of several hosts, has the primary looked for when it fails in a way that a change of the primary looks like: whoever connects next waits for the answer. */
  private async watched<T>(work: () => Promise<T>): Promise<T> {
    const host = this.primary?.host;
    try {
      const result = await work();
      this.health.succeeded();
      return result;
    } catch (error) {
      this.health.failed(error);
      if (host !== undefined && (isConnectionLost(error) || isNotPrimary(error))) this.primary?.doubt(host);
      throw error;
    }
  }

  /** If that fails the connection is closed, so that nobody meets what may still be open on it. */
  private async rollBack(connection: PoolConnection): Promise<void> {
    try {
      await this.session(connection).write('ROLLBACK');
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  private async connect(): Promise<PoolConnection> {
    await this.primary?.ready();
    const connection = await this.takeConnection();
    if (!this.provenAt.has(connection)) {
      try {
        for (const sql of this.sessionSetup) await this.session(connection).write(sql);
        const [server] = await this.session(connection).read<{ version: string; readOnly: unknown }>(
          'SELECT VERSION() AS version, @@GLOBAL.read_only AS readOnly',
        );
        this.serverIsMariaDb = /mariadb/i.test(server?.version ?? '');
        this.prove(connection, server);
      } catch (error) {
        connection.destroy();
        throw error;
      }
    }
    return connection;
  }

  private async takeConnection(): Promise<PoolConnection> {
    const pool = poolOf(this.dataSource);
    return new Promise((resolve, reject) => {
      let late = false;
      const timer = setTimeout(() => {
        late = true;
        reject(
          new RowmqError('overloaded', 'No database connection became free in time; try again later.', {
            retryAfterSeconds: 1,
          }),
        );
      }, this.statementDeadlineMs);
      pool.getConnection((error, connection) => {
        clearTimeout(timer);
        if (error) reject(error);
        else if (late) connection.release();
        else resolve(connection);
      });
    });
  }

  private session(connection: PoolConnection, timeout = this.statementDeadlineMs): Session {
    const run = async <T>(sql: string, values: readonly unknown[] = []): Promise<T> =>
      new Promise((resolve, reject) => {
        // Without values there is nothing to look for in the text.
        const options: QueryOptions = { sql, ...(values.length > 0 && { values: [...values] }), timeout };
        const slow = this.doubtLater();
        connection.query(options, (error, result) => {
          clearTimeout(slow);
          if (error) reject(error);
          else resolve(result as T);
        });
      });
    return { read: run, write: run };
  }

  private doubtLater(): NodeJS.Timeout | undefined {
    const { primary } = this;
    if (primary === undefined) return undefined;
    const { host } = primary;
    return setTimeout(() => primary.suspect(host), SLOW_MS);
  }
}

/**
 * What every connection is set to when it is opened. READ COMMITTED takes no gap locks; UTC makes {@link NOW_MS} true; a lock wait is short, since
 * nothing here should wait for long, and the retry comes sooner than the client's patience ends; the mode is strict, and backslashes escape, as mysql2 takes for granted.
 */
function sessionSetup(silentSeconds: number): string[] {
  return [
    'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED',
    `SET SESSION time_zone = '+00:00', innodb_lock_wait_timeout = 2, lock_wait_timeout = 2, wait_timeout = ${silentSeconds}, autocommit = 1,
                 sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'`,
  ];
}

/**
 * One try of a transaction, in as few round trips as its statements allow: START TRANSACTION travels with the first, COMMIT with the last if that is known to be the last.
 * A round trip costs both sides some tens of microseconds, about as much as a short statement.
 */
class Attempt implements Transaction {
  begun = false;
  commitSent = false;

  constructor(
    private readonly session: Session,
    readonly commitUnknown: boolean,
  ) {}

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
    return (await this.send([...statements, COMMIT])).slice(0, -1);
  }

  /** Unless `finish` did it. */
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
    // One statement's answer comes bare.
    const answers = sent.length === 1 ? [answer] : answer;
    return first ? answers.slice(1) : answers;
  }
}

/** As one text, for one round trip. */
function join(statements: readonly Statement[]): { sql: string; values: unknown[] } {
  return {
    sql: statements.map(({ sql }) => sql).join(';\n'),
    values: statements.flatMap(({ values }) => values ?? []),
  };
}

const START: Statement = { sql: 'START TRANSACTION' };
const COMMIT: Statement = { sql: 'COMMIT' };
