import type { Socket } from 'node:net';
import type { Connection } from 'mysql2';
import { isConnectionLost } from './database-errors.js';
import { ISOLATION_LEVEL } from './session-facts.js';

/** The deadline for the settings of a new connection. */
const SETUP_DEADLINE_MS = 5000;

/**
 * The settings of every session, whatever the server's defaults, `init_connect` and the account
 * say. They stand here if a default could change the meaning or the outcome of a statement.
 *
 * `autocommit` comes first, because without it the other statements would begin a transaction. READ
 * COMMITTED takes no gap locks. The store's times need UTC. Short lock waits leave time to retry
 * before the client gives up. mysql2 assumes that backslashes escape. With `unique_checks=0`,
 * InnoDB may skip the check of `queue_by_name`. MySQL caches the sizes of tables and partitions for
 * a day, and MariaDB does not.
 *
 * MariaDB turns an IN list of 1,000 values or more into a join. It then reads and locks the whole
 * queue. A threshold of 0 forbids that.
 */
const SETUP = `SET SESSION autocommit = 1;
SET SESSION completion_type = 0,
            sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION',
            time_zone = '+00:00',
            innodb_lock_wait_timeout = 2,
            lock_wait_timeout = 2,
            sql_safe_updates = 0,
            sql_select_limit = 18446744073709551615,
            sql_big_selects = 1,
            sql_auto_is_null = 0,
            foreign_key_checks = 1,
            unique_checks = 1
            /*!80000 , max_execution_time = 0, information_schema_stats_expiry = 0 */
            /*M! , max_statement_time = 0, in_predicate_conversion_threshold = 0, alter_algorithm = 'DEFAULT' */;
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
SET NAMES utf8mb4`;

/** The value of {@link SESSION_FACTS} in a session that has its settings. */
export const SESSION_AS_SET = 'READ-COMMITTED 1 NO_CHAIN +00:00';
/**
 * The settings of which a session tells once a second. A proxy that moves a client from one
 * connection to another may lose them.
 */
export const SESSION_FACTS = `CONCAT_WS(' ', ${ISOLATION_LEVEL}, IF(@@SESSION.autocommit, 1, 0), @@SESSION.completion_type, @@SESSION.time_zone)`;

const failures = new WeakMap<object, Error>();

/**
 * Gives a new connection its session settings, ahead of every other statement. {@link setupFailure}
 * tells if the server refused them.
 *
 * If no answer comes, it breaks the connection, and the statements behind it fail with the same
 * error. mysql2 starts a statement's deadline only when it sends that statement, so they would
 * otherwise wait for ever. `connection.destroy()` would not fail them.
 */
export function setUp(connection: Connection): void {
  connection.query({ sql: SETUP, timeout: SETUP_DEADLINE_MS }, (error) => {
    if (error === null) return;
    failures.set(connection, error);
    if (isConnectionLost(error)) (connection as Connection & { stream: Socket }).stream.destroy(error);
  });
}

/** The server's reason to refuse the settings of this session. */
export function setupFailure(connection: object): Error | undefined {
  return failures.get(connection);
}
