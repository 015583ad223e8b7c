import { RowmqError } from '@rowmq/contract';

/**
 * Codes of a lost connection: from mysql2, from Node, and from a server that ended it. None says
 * how far the statement got.
 */
const CONNECTION_LOST = new Set([
  'PROTOCOL_CONNECTION_LOST',
  'PROTOCOL_SEQUENCE_TIMEOUT',
  'PROTOCOL_UNEXPECTED_PACKET',
  'ECONNRESET',
  'ECONNREFUSED',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ER_SERVER_SHUTDOWN',
  'ER_CLIENT_INTERACTION_TIMEOUT',
  'ER_NEW_ABORTING_CONNECTION',
  'ER_CONNECTION_KILLED',
  'ER_SESSION_WAS_KILLED',
  'ER_QUERY_INTERRUPTED',
]);

/** Error numbers of failures that the server rolled back and that a retry may overcome. */
const RETRYABLE = new Set([
  1020, // MariaDB: record has changed since last read
  1040, // too many connections
  1047, // Galera: the node is cut off from its cluster, or has not joined it yet
  1203, // too many connections for this user
  1205, // lock wait timeout
  1213, // deadlock
  1226, // this account has too many connections, or too many statements an hour
  1290, // read-only (a primary that was just demoted)
  1792, // read-only transaction
  1836, // read-only mode
  3032, // offline mode: a member that left its group
  3100, // group replication refused the commit and rolled it back
  3101, // the same, by certification, or because the member left its group meanwhile
  3796, // the member left its group and cannot tell whether a read is current
  3797, // the same
  3798, // the same
]);

/**
 * Errors of a server that takes no writes: a replica, a demoted primary, a member that left its
 * group or cluster.
 */
const NOT_PRIMARY = new Set([1047, 1290, 1792, 1836, 3032, 3100, 3796, 3797, 3798]);

/**
 * Errors of group replication when it rolls a commit back. The member may have sent the transaction
 * to its group before it left. The others then commit it. The client must treat this as a commit
 * without an answer.
 */
const COMMIT_LEFT_TO_GROUP = new Set([3100, 3101]);

/**
 * Errors of a server that cannot write to its disk: full, read-only or broken. The server undid the
 * statement.
 */
const DISK_FAILED = new Set([
  1021, // disk full
  1026, // error writing a file
  1030, // an error of the storage engine
  1114, // a table's file cannot grow
]);

/** Errors of a user who lacks a privilege. 1045 is no such error: it means a wrong password. */
const DENIED = new Set([1044, 1142, 1143, 1227, 1370]);

/** MySQL's and MariaDB's error of a statement that exceeded its limit. */
const STATEMENT_TIMEOUT = new Set([3024, 1969]);

const DUPLICATE_KEY = 1062;

/** Returns the driver's error from inside its wrappers. */
export function driverError(error: unknown): { code?: string; errno?: number; fatal?: boolean; message?: string } {
  if (typeof error !== 'object' || error === null) return {};
  const inner = (error as { driverError?: unknown }).driverError;
  return typeof inner === 'object' && inner !== null ? inner : error;
}

/**
 * True when the connection broke. The server may or may not have executed the current statement.
 */
export function isConnectionLost(error: unknown): boolean {
  const { code, fatal } = driverError(error);
  return fatal === true || (code !== undefined && CONNECTION_LOST.has(code));
}

/** True when a COMMIT failed in a way that may still have committed. */
export function mayHaveCommitted(error: unknown): boolean {
  const { errno } = driverError(error);
  return isConnectionLost(error) || (errno !== undefined && COMMIT_LEFT_TO_GROUP.has(errno));
}

/**
 * The server behind a connection must not be used: it takes no writes, is not the only one that
 * does, or is not the one that this process uses.
 */
export class ReadOnlyServerError extends Error {
  override readonly name = 'ReadOnlyServerError';

  /** @param failure the code under which the metrics count it */
  constructor(
    message = 'the server is read-only',
    readonly failure: 'READ_ONLY' | 'ANOTHER_SERVER' | 'SEVERAL_SERVERS' | 'SESSION_LOST' = 'READ_ONLY',
  ) {
    super(message);
  }
}

/** A transaction's work throws this to ask for a retry. The message says why. */
export class TryAgain extends Error {
  override readonly name = 'TryAgain';
}

/** True when a retry of the whole transaction may succeed. */
export function isRetryable(error: unknown): boolean {
  if (error instanceof TryAgain || driverError(error) instanceof ReadOnlyServerError) return true;
  const { errno } = driverError(error);
  return isConnectionLost(error) || (errno !== undefined && RETRYABLE.has(errno));
}

/** True when the server takes no writes. Another connection may reach one that does. */
export function isNotPrimary(error: unknown): boolean {
  if (driverError(error) instanceof ReadOnlyServerError) return true;
  const { errno } = driverError(error);
  return errno !== undefined && NOT_PRIMARY.has(errno);
}

/** True when the user lacks a privilege on the database, a table, a column or a routine. */
export function isDenied(error: unknown): boolean {
  const { errno } = driverError(error);
  return errno !== undefined && DENIED.has(errno);
}

/** True when an INSERT gave NULL to a column that takes none. */
export function isNull(error: unknown): boolean {
  return driverError(error).errno === 1048;
}

/** True when a number was too large. */
export function isOutOfRange(error: unknown): boolean {
  return driverError(error).errno === 1690;
}

/** True when an INSERT found a row with the same key. */
export function isDuplicateKey(error: unknown): boolean {
  return driverError(error).errno === DUPLICATE_KEY;
}

/**
 * True when a statement waited longer for a lock than `lock_wait_timeout` or
 * `innodb_lock_wait_timeout` allows.
 */
export function isLockWaitTimeout(error: unknown): boolean {
  return driverError(error).errno === 1205;
}

/** True when a statement took longer than the limit that it named for itself. */
export function isStatementTimeout(error: unknown): boolean {
  const { errno } = driverError(error);
  return errno !== undefined && STATEMENT_TIMEOUT.has(errno);
}

/** True when a statement named a partition that does not exist. */
export function isUnknownPartition(error: unknown): boolean {
  const { errno } = driverError(error);
  return errno === 1507 || errno === 1735;
}

/** True when a snapshot is older than the table's definition. The caller must take a new one. */
export function isDefinitionChanged(error: unknown): boolean {
  return driverError(error).errno === 1412;
}

/**
 * True when the database, or the connection to it, failed. False for errors of a transaction's own
 * work. False for a duplicate key, which is an answer.
 */
export function isDatabaseFailure(error: unknown): boolean {
  if (error instanceof RowmqError) return error.code === 'database-unavailable' || error.code === 'overloaded';
  const { errno } = driverError(error);
  return errno !== undefined && errno !== DUPLICATE_KEY;
}

/**
 * Errors about values: null, duplicate, too long, out of range, of the wrong type, or a packet that
 * is too large.
 */
const OF_VALUES = new Set([1048, 1062, 1153, 1264, 1292, 1366, 1406]);

/** True when one request of a batch may be the cause, so that the others may succeed without it. */
export function mayLieInOneRequest(error: unknown): boolean {
  if (error instanceof RowmqError) return false;
  const { errno } = driverError(error);
  return errno === undefined || OF_VALUES.has(errno);
}

/** Errors of normal operation: contention on rows or partitions, or a value that does not fit. */
const ORDINARY = new Set([...OF_VALUES, ...STATEMENT_TIMEOUT, 1020, 1205, 1213, 1412, 1507, 1690, 1735]);

/**
 * The code under which the metrics count a failure of the database or the connection to it. It is
 * the driver's code. Undefined for any other error.
 */
export function failureCode(error: unknown): string | undefined {
  const inner = driverError(error);
  if (inner instanceof ReadOnlyServerError) return inner.failure;
  const isFailure = isDatabaseFailure(error) || toRowmqError(error) !== error;
  if (!isFailure || error instanceof TryAgain) return undefined;
  return driverError(error).code ?? 'other';
}

/** True when a failure concerns the database or the connection to it, not a single request. */
export function isTrouble(error: unknown): boolean {
  return failureCode(error) !== undefined && !ORDINARY.has(driverError(error).errno ?? 0);
}

/**
 * Translates a database failure for the caller, after the last retry. Returns any other error
 * unchanged.
 */
export function toRowmqError(error: unknown): unknown {
  const { message, code, errno } = driverError(error);
  if (message === 'Queue limit reached.') {
    return new RowmqError('overloaded', 'Too many requests wait for a database connection; try again later.', {
      cause: error,
      retryAfterSeconds: 1,
    });
  }
  if (errno !== undefined && DISK_FAILED.has(errno)) {
    return new RowmqError(
      'database-unavailable',
      `The database could not write to its disk (${code ?? errno}): check whether it is full, then try again.`,
      { cause: error, retryAfterSeconds: 5 },
    );
  }
  if (isLockWaitTimeout(error)) {
    return new RowmqError(
      'database-unavailable',
      `Another transaction kept a lock that the request needs for longer than RowMQ waits (${code ?? errno}), so nothing was changed; try again. If it persists, look for a transaction that somebody forgot to end.`,
      { cause: error, retryAfterSeconds: 1 },
    );
  }
  if (isRetryable(error) || message === 'Pool is closed.') {
    return new RowmqError(
      'database-unavailable',
      `The database failed to process the request (${code ?? errno ?? message}); try again.`,
      {
        cause: error,
        retryAfterSeconds: 1,
      },
    );
  }
  return error;
}
