import { RowmqError } from '@rowmq/contract';
import type { Pool, PoolConnection, QueryOptions } from 'mysql2';
import type { DataSource } from 'typeorm';
import { healthOf, poolOf, primaryOf } from './data-source.js';
import { isConnectionLost, isNotPrimary } from './database-errors.js';
import type { DatabaseHealth } from './database-health.js';
import { ASK_FOR_PROOF, type Primary, readProof } from './primary.js';
import type { Row, Session } from './session.js';
import { setupFailure } from './session-setup.js';

/**
 * A statement that runs longer than this starts a search for the primary. A server that hangs never
 * reports that it lost the role.
 */
const SLOW_MS = 3000;

/**
 * An older proof is renewed before the connection's next use, or with it if that is a SELECT. A
 * demoted primary still answers reads, so a claim on it would find an empty queue for ever. A proxy
 * may have moved the connection to another server.
 */
const PROOF_MS = 1000;

/**
 * After this many statement deadlines of silence, the server ends a session and its transaction. A
 * working client is never silent for that long. Otherwise a frozen process holds its locks for
 * hours, until TCP gives up.
 */
const SILENT_DEADLINES = 3;

/**
 * MySQL ends a SELECT this long after the client gave up. Without that it would read on to the end,
 * because it does not notice that the client has closed the connection.
 *
 * MariaDB's limit applies to every statement, so RowMQ does not use it. It could end a COMMIT that
 * waits for a replica, and the transaction would be visible before the replica has it.
 */
const LATE_MS = 1000;

/** A connection to the one server that takes writes. */
export interface ServerConnection {
  readonly session: Session;
  /** The server confirmed it within the last second. */
  readonly isProven: boolean;
  /**
   * Throws `ReadOnlyServerError` if the server's answer to `ASK_FOR_PROOF` says that it is
   * read-only, another server than before, or without the session's settings.
   */
  prove(answer: Row | undefined): void;
  /** Closes the connection instead of returning it to the pool. */
  close(): void;
}

/**
 * The pool's connections to the primary. Each proves that its server takes writes and is the one
 * that this process uses, and has a deadline on every statement.
 */
export class Connections {
  private readonly health: DatabaseHealth;
  private readonly primary: Primary;
  private readonly pool: Pool;
  /** The time of each connection's last proof. A new connection has no entry. */
  private readonly provenAt = new WeakMap<PoolConnection, number>();

  constructor(
    dataSource: DataSource,
    private readonly statementDeadlineMs: number,
  ) {
    this.health = healthOf(dataSource);
    this.primary = primaryOf(dataSource);
    this.pool = poolOf(dataSource);
  }

  /**
   * Lends `work` a pooled connection.
   *
   * @param bringsProof `work` proves the connection if that is due, which saves a round trip
   */
  async use<T>(work: (connection: ServerConnection) => Promise<T>, bringsProof = false): Promise<T> {
    return this.observed(async () => {
      const connection = await this.connect(bringsProof);
      try {
        const result = await work(this.serverConnection(connection, this.statementDeadlineMs));
        connection.release();
        return result;
      } catch (error) {
        // Its statement may still run, or its server is no longer the primary.
        if (isConnectionLost(error) || isNotPrimary(error)) connection.destroy();
        else connection.release();
        throw error;
      }
    });
  }

  /** Lends `work` a connection and closes it afterwards, so that no session state leaks. */
  async useOnce<T>(work: (connection: ServerConnection) => Promise<T>, statementDeadlineMs: number): Promise<T> {
    return this.observed(async () => {
      const connection = await this.connect(false);
      try {
        const lent = this.serverConnection(connection, statementDeadlineMs);
        if (statementDeadlineMs > this.statementDeadlineMs) await lent.session.write(setLimits(statementDeadlineMs));
        return await work(lent);
      } finally {
        connection.destroy();
      }
    });
  }

  /**
   * Reports each attempt's outcome to the health. Starts a search for the primary after a failure
   * that may mean a failover.
   */
  private async observed<T>(work: () => Promise<T>): Promise<T> {
    const { host } = this.primary;
    try {
      const result = await work();
      this.health.succeeded();
      return result;
    } catch (error) {
      this.health.failed(error);
      if (isConnectionLost(error) || isNotPrimary(error)) this.primary.doubt(host);
      throw error;
    }
  }

  private serverConnection(connection: PoolConnection, statementDeadlineMs: number): ServerConnection {
    return {
      session: this.session(connection, statementDeadlineMs),
      isProven: this.isProven(connection),
      prove: (answer) => this.prove(connection, answer),
      close: () => connection.destroy(),
    };
  }

  private isProven(connection: PoolConnection): boolean {
    return performance.now() - (this.provenAt.get(connection) ?? -Infinity) < PROOF_MS;
  }

  private prove(connection: PoolConnection, answer: Row | undefined): void {
    const failure = setupFailure(connection);
    if (failure !== undefined) throw failure;
    this.primary.meet(readProof(answer));
    this.provenAt.set(connection, performance.now());
  }

  private async connect(bringsProof: boolean): Promise<PoolConnection> {
    await this.primary.ready();
    const connection = await this.acquire();
    const isNew = !this.provenAt.has(connection);
    if (!isNew && (bringsProof || this.isProven(connection))) return connection;
    try {
      const session = this.session(connection, this.statementDeadlineMs);
      if (isNew) {
        const sql = `${setLimits(this.statementDeadlineMs)};\n${ASK_FOR_PROOF}`;
        const [, [server]] = (await session.read<unknown>(sql)) as [unknown, Row[]];
        this.prove(connection, server);
      } else {
        const [server] = await session.read(ASK_FOR_PROOF);
        this.prove(connection, server);
      }
    } catch (error) {
      connection.destroy();
      throw error;
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
        // Without values mysql2 does not search the text for placeholders.
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
    if (!primary.hasChoice) return undefined;
    const { host } = primary;
    return setTimeout(() => primary.suspect(host), SLOW_MS);
  }
}

/** The server's own limits for a session whose statements have this deadline. */
function setLimits(statementDeadlineMs: number): string {
  const silentSeconds = Math.ceil((SILENT_DEADLINES * statementDeadlineMs) / 1000);
  return `SET SESSION wait_timeout = ${silentSeconds} /*!80000 , max_execution_time = ${statementDeadlineMs + LATE_MS} */`;
}
