import { RowmqError } from '@rowmq/contract';
import pRetry, { type Options } from 'p-retry';
import type { DataSource, EntityManager } from 'typeorm';
import { ASK_FOR_PROOF, Connections, type ServerConnection } from './connection.js';
import { healthOf } from './data-source.js';
import { isConnectionLost, isDatabaseFailure, isRetryable, mayHaveCommitted, toRowmqError } from './database-errors.js';
import type { DatabaseHealth } from './database-health.js';
import { managerOn } from './session-runner.js';
import type { Row, Session, Statement, WriteResult } from './session.js';

/** One try of a transaction. */
export interface Transaction extends Session {
  /**
   * True when the COMMIT of an earlier try got no answer: what that try did may already be there.
   */
  readonly commitUnknown: boolean;
  /** TypeORM's repositories and query builders in this transaction. */
  readonly manager: EntityManager;
  /**
   * Runs statements in one round trip, in order; those after one that fails are not run. Returns
   * the answer of each: rows, or a {@link WriteResult}.
   */
  all(statements: readonly Statement[]): Promise<unknown[]>;
  /**
   * The same for the last statements of a transaction, with its COMMIT in the round trip. Nothing
   * may follow.
   */
  finish(statements: readonly Statement[]): Promise<unknown[]>;
}

/**
 * Bounds of {@link Database.transaction}'s retries: five more tries, jittered, begun within fifteen
 * seconds; so one that waited for a lock, or ran into its deadline, is tried again.
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
 * The one way to the database: short READ COMMITTED transactions on TypeORM's connection pool,
 * retried when they fail for a passing reason, with a deadline on every statement. A server that is
 * read-only is not used; of several hosts, the one that takes writes is. SQL goes to mysql2
 * directly: TypeORM's own `query` copies every result and broadcasts every statement.
 */
export class Database {
  /** Told of every try, whether it failed or was answered. */
  readonly health: DatabaseHealth;
  /**
   * TypeORM's repositories and query builders. Each of their statements runs by itself, like {@link
   * read} and {@link write}.
   */
  readonly manager: EntityManager;
  private readonly connections: Connections;

  /** @param statementDeadlineMs after which a statement is given up and its connection closed. */
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
   * Runs `work` in a transaction and commits it; what `work` throws rolls it back. A deadlock, a
   * lock wait timeout, a lost connection or a server that takes no writes is tried again from the
   * start, so `work` must be repeatable, and must look at `commitUnknown` where doing it twice
   * would differ from doing it once.
   *
   * Throws `database-unavailable` when no try succeeded, `overloaded` when no connection was to be
   * had, and what `work` threw.
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

  /**
   * Runs one SELECT by itself, retried like a transaction. What a server answers that takes no
   * writes is not used for longer than a second.
   */
  async read<T = Row>(sql: string, values?: readonly unknown[]): Promise<T[]> {
    return this.retry(() =>
      this.connections.use(async (connection) => {
        if (connection.isProven) return connection.session.read<T>(sql, values);
        const answers = await connection.session.read<Row[]>(`${sql};\n${ASK_FOR_PROOF}`, values);
        connection.prove(answers.pop()?.[0]);
        return (answers.length === 1 ? answers[0] : answers) as T[];
      }),
    );
  }

  /**
   * Throws unless the database says by the deadline that it takes writes: `database-unavailable`,
   * `overloaded`.
   */
  async ping(deadlineMs: number): Promise<void> {
    const asked = this.retry(() =>
      this.connections.use(async (connection) => {
        const [row] = await connection.session.read(ASK_FOR_PROOF);
        connection.prove(row);
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

  /**
   * Runs one INSERT, UPDATE or DELETE by itself, retried like a transaction: it must be repeatable.
   */
  async write(sql: string, values?: readonly unknown[]): Promise<WriteResult> {
    return this.retry(() => this.connections.use(({ session }) => session.write(sql, values)));
  }

  /**
   * Gives `work` a connection of its own, for session state such as LOCK TABLES. Not retried. The
   * connection is closed afterwards, not reused, so nothing `work` set can leak.
   * @param statementDeadlineMs for DDL, which may take longer than a request's statement.
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

/** If that fails the connection is closed, so that nobody meets what may still be open on it. */
async function rollBack(connection: ServerConnection): Promise<void> {
  try {
    await connection.session.write('ROLLBACK');
  } catch (error) {
    connection.close();
    throw error;
  }
}

/**
 * One try of a transaction, in as few round trips as its statements allow: START TRANSACTION
 * travels with the first, COMMIT with the last if that is known to be the last. A round trip costs
 * both sides some tens of microseconds, about as much as a short statement.
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
