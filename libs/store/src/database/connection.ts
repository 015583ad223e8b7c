import { RowmqError } from '@rowmq/contract';
import type { Pool, PoolConnection, QueryOptions } from 'mysql2';
import type { DataSource } from 'typeorm';
import { healthOf, poolOf, primaryOf } from './data-source.js';
import { isConnectionLost, isNotPrimary } from './database-errors.js';
import type { DatabaseHealth } from './database-health.js';
import { type Primary, refuseReadOnly } from './primary.js';
import type { Row, Session } from './session.js';

/**
 * After this time without an answer the hosts are asked which is the primary: a server that hangs
 * never says that it is none.
 */
const SLOW_MS = 3000;

/**
 * A proof that the server takes writes is renewed with the next SELECT when it is older. A demoted
 * primary still answers reads, so a claim would go on to look for work where there will never be
 * any.
 */
const PROOF_MS = 1000;
export const ASK_FOR_PROOF = 'SELECT @@GLOBAL.read_only AS readOnly';

/**
 * The server ends a session, and its transaction, after a silence of this many statement deadlines.
 * No working client is silent for one. Otherwise a frozen process keeps its locks for hours, until
 * TCP gives up.
 */
const SILENT_DEADLINES = 3;

/** A connection to a server that has said that it takes writes. */
export interface ServerConnection {
  readonly session: Session;
  /** The server said so within the last second. */
  readonly isProven: boolean;
  /**
   * Throws `ReadOnlyServerError` if the server's answer to {@link ASK_FOR_PROOF} says that it takes
   * no writes.
   */
  prove(answer: Row | undefined): void;
  /** Closes it instead of handing it to the next request. */
  close(): void;
}

/**
 * The pool's connections to the primary. Each is set up once, is proven to take writes, and has a
 * deadline on every statement. Statements go to mysql2 directly: TypeORM's `query` copies every
 * result and broadcasts every statement.
 */
export class Connections {
  private readonly health: DatabaseHealth;
  private readonly primary: Primary | undefined;
  private readonly pool: Pool;
  private readonly setup: readonly string[];
  /**
   * When a connection's server last said that it takes writes. A connection that was not set up yet
   * has no entry.
   */
  private readonly provenAt = new WeakMap<PoolConnection, number>();

  constructor(
    dataSource: DataSource,
    private readonly statementDeadlineMs: number,
  ) {
    this.health = healthOf(dataSource);
    this.primary = primaryOf(dataSource);
    this.pool = poolOf(dataSource);
    this.setup = sessionSetup(Math.ceil((SILENT_DEADLINES * statementDeadlineMs) / 1000));
  }

  /** Gives `work` a connection of the pool. */
  async use<T>(work: (connection: ServerConnection) => Promise<T>): Promise<T> {
    return this.observed(async () => {
      const connection = await this.connect();
      try {
        const result = await work(this.serverConnection(connection, this.statementDeadlineMs));
        connection.release();
        return result;
      } catch (error) {
        // A statement may still run on it, or its server is no longer the primary.
        if (isConnectionLost(error) || isNotPrimary(error)) connection.destroy();
        else connection.release();
        throw error;
      }
    });
  }

  /** Gives `work` a connection that is closed afterwards, so that its session state cannot leak. */
  async useOnce<T>(work: (connection: ServerConnection) => Promise<T>, statementDeadlineMs: number): Promise<T> {
    return this.observed(async () => {
      const connection = await this.connect();
      try {
        return await work(this.serverConnection(connection, statementDeadlineMs));
      } finally {
        connection.destroy();
      }
    });
  }

  /**
   * Tells the health how a try ended. A failure that a failover looks like starts a search for the
   * primary.
   */
  private async observed<T>(work: () => Promise<T>): Promise<T> {
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

  private serverConnection(connection: PoolConnection, statementDeadlineMs: number): ServerConnection {
    return {
      session: this.session(connection, statementDeadlineMs),
      isProven: performance.now() - (this.provenAt.get(connection) ?? -Infinity) < PROOF_MS,
      prove: (answer) => this.prove(connection, answer),
      close: () => connection.destroy(),
    };
  }

  private prove(connection: PoolConnection, answer: Row | undefined): void {
    refuseReadOnly(answer?.['readOnly']);
    this.provenAt.set(connection, performance.now());
  }

  private async connect(): Promise<PoolConnection> {
    await this.primary?.ready();
    const connection = await this.acquire();
    if (!this.provenAt.has(connection)) {
      try {
        const session = this.session(connection, this.statementDeadlineMs);
        for (const sql of this.setup) await session.write(sql);
        const [server] = await session.read(ASK_FOR_PROOF);
        this.prove(connection, server);
      } catch (error) {
        connection.destroy();
        throw error;
      }
    }
    return connection;
  }

  private async acquire(): Promise<PoolConnection> {
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
      this.pool.getConnection((error, connection) => {
        clearTimeout(timer);
        if (error) reject(error);
        else if (late) connection.release();
        else resolve(connection);
      });
    });
  }

  private session(connection: PoolConnection, timeout: number): Session {
    const run = async <T>(sql: string, values: readonly unknown[] = []): Promise<T> =>
      new Promise((resolve, reject) => {
        // Without values mysql2 need not search the text for placeholders.
        const options: QueryOptions = { sql, ...(values.length > 0 && { values: [...values] }), timeout };
        const slow = this.suspectLater();
        connection.query(options, (error, result) => {
          clearTimeout(slow);
          if (error) reject(error);
          else resolve(result as T);
        });
      });
    return { read: run, write: run };
  }

  private suspectLater(): NodeJS.Timeout | undefined {
    const { primary } = this;
    if (primary === undefined) return undefined;
    const { host } = primary;
    return setTimeout(() => primary.suspect(host), SLOW_MS);
  }
}

/**
 * The settings of every session. READ COMMITTED takes no gap locks. UTC makes {@link NOW_MS} true.
 * A lock wait is short, so that the retry comes before the client's patience ends. mysql2 takes for
 * granted that backslashes escape.
 */
function sessionSetup(silentSeconds: number): string[] {
  return [
    'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED',
    `SET SESSION time_zone = '+00:00',
                 innodb_lock_wait_timeout = 2,
                 lock_wait_timeout = 2,
                 wait_timeout = ${silentSeconds},
                 autocommit = 1,
                 sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'`,
  ];
}
