import { RowmqError } from '@rowmq/contract';

/**
 * The codes mysql2 and Node give a connection that broke, and the servers' for one that was ended:
 * nothing says how far the statement got.
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

/** The server's own numbers for failures that rolled back and are worth another try. */
const RETRYABLE = new Set([
  1020, // MariaDB: record has changed since last read
  1040, // too many connections
  1203, // too many connections for this user
  1205, // lock wait timeout
  1213, // deadlock
  1226, // too many connections, or statements an hour, of this account
  1290, // read-only (a primary that was just demoted)
  1792, // read-only transaction
  1836, // read-only mode
  3032, // offline mode: a member that left its group
  3100, // group replication refused the commit, which rolled back
  3101, // the same, by certification, or because the member left its group meanwhile
  3796, // group replication cannot say whether what is read is up to date: the member left its group
  3797, // the same
  3798, // the same
]);

/**
 * What a server says that takes no writes, or not now: a replica, a demoted primary, a member that
 * left its group.
 */
const NOT_PRIMARY = new Set([1290, 1792, 1836, 3032, 3100, 3796, 3797, 3798]);

/**
 * What group replication says when it rolls a commit back. The member that says so may have left
 * its group after it had sent the transaction there, and then the others carry it out: as far as a
 * client can know, that is a commit without an answer.
 */
const COMMIT_LEFT_TO_GROUP = new Set([3100, 3101]);

/**
 * What a server says that cannot write to its disk: full, read-only, broken. The statement was
 * undone.
 */
const DISK_FAILED = new Set([
  1021, // disk full
  1026, // error writing a file
  1030, // an error of the storage engine
  1114, // a table's file cannot grow
]);

const DUPLICATE_KEY = 1062;

/** The driver's error inside whatever wrapped it. */
export function driverError(error: unknown): { code?: string; errno?: number; fatal?: boolean; message?: string } {
  if (typeof error !== 'object' || error === null) return {};
  const inner = (error as { driverError?: unknown }).driverError;
  return typeof inner === 'object' && inner !== null ? inner : error;
}

/** True when the connection broke: the statement under way may or may not have been carried out. */
export function isConnectionLost(error: unknown): boolean {
  const { code, fatal } = driverError(error);
  return fatal === true || (code !== undefined && CONNECTION_LOST.has(code));
}

/** True when a COMMIT that failed like this may have been carried out all the same. */
export function mayHaveCommitted(error: unknown): boolean {
  const { errno } = driverError(error);
  return isConnectionLost(error) || (errno !== undefined && COMMIT_LEFT_TO_GROUP.has(errno));
}

/** A connection leads to a server that takes no writes, or that is not alone in taking them. */
export class ReadOnlyServerError extends Error {
  override readonly name = 'ReadOnlyServerError';

  constructor(message = 'the server is read-only') {
    super(message);
  }
}

/** Thrown by a transaction's work to have it tried again. */
export class TryAgain extends Error {
  constructor(cause: unknown) {
    super('What an earlier try did is not visible yet.', { cause });
  }
}

/** True for a failure that another try of the whole transaction can mend. */
export function isRetryable(error: unknown): boolean {
  if (error instanceof TryAgain || driverError(error) instanceof ReadOnlyServerError) return true;
  const { errno } = driverError(error);
  return isConnectionLost(error) || (errno !== undefined && RETRYABLE.has(errno));
}

/** True when the server takes no writes: another connection may lead to one that does. */
export function isNotPrimary(error: unknown): boolean {
  if (driverError(error) instanceof ReadOnlyServerError) return true;
  const { errno } = driverError(error);
  return errno !== undefined && NOT_PRIMARY.has(errno);
}

/** True when an INSERT met a row with its key. */
export function isDuplicateKey(error: unknown): boolean {
  return driverError(error).errno === DUPLICATE_KEY;
}

/**
 * True when a DDL statement or LOCK TABLES gave way because others held the table longer than
 * `lock_wait_timeout`.
 */
export function isLockWaitTimeout(error: unknown): boolean {
  return driverError(error).errno === 1205;
}

/** True when a statement named a partition that does not exist (any more). */
export function isUnknownPartition(error: unknown): boolean {
  const { errno } = driverError(error);
  return errno === 1507 || errno === 1735;
}

/** True when a snapshot is older than a table's definition: it has to be taken again. */
export function isDefinitionChanged(error: unknown): boolean {
  return driverError(error).errno === 1412;
}

/**
 * True for what the database, or the way to it, said or did not say; false for what a transaction's
 * work threw by itself, and for a key that is there already, which tells much.
 */
export function isDatabaseFailure(error: unknown): boolean {
  if (error instanceof RowmqError) return error.code === 'database-unavailable' || error.code === 'overloaded';
  const { errno } = driverError(error);
  return errno !== undefined && errno !== DUPLICATE_KEY;
}

/**
 * What a server says of values: too long, out of range, not of their type, there already, too large
 * a packet.
 */
const OF_VALUES = new Set([1048, 1062, 1153, 1264, 1292, 1366, 1406]);

/**
 * True for a failure that may lie in one request of several, so that the others may succeed without
 * it.
 */
export function mayLieInOneRequest(error: unknown): boolean {
  if (error instanceof RowmqError) return false;
  const { errno } = driverError(error);
  return errno === undefined || OF_VALUES.has(errno);
}

/**
 * What a database says in the course of its work: others were at the same rows or partitions, or a
 * value does not fit.
 */
const ORDINARY = new Set([...OF_VALUES, 1020, 1205, 1213, 1412, 1507, 1735]);

/**
 * How a failure of the database, or of the way to it, is counted: the driver's code for it.
 * Undefined for what is none.
 */
export function failureCode(error: unknown): string | undefined {
  if (driverError(error) instanceof ReadOnlyServerError) return 'READ_ONLY';
  const isFailure = isDatabaseFailure(error) || toRowmqError(error) !== error;
  if (!isFailure || error instanceof TryAgain) return undefined;
  return driverError(error).code ?? 'other';
}

/**
 * True for a failure that says something of the database and the way to it, and not of one request.
 */
export function isTrouble(error: unknown): boolean {
  return failureCode(error) !== undefined && !ORDINARY.has(driverError(error).errno ?? 0);
}

/**
 * Names a database failure for the caller, once no retry is left. Anything that is not one is
 * returned unchanged.
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
      `The database could not write to its disk (${code ?? errno}): see whether it is full, and try again.`,
      { cause: error, retryAfterSeconds: 5 },
    );
  }
  if (isRetryable(error) || message === 'Pool is closed.') {
    return new RowmqError(
      'database-unavailable',
      `The database did not take the request (${code ?? errno ?? message}); try again.`,
      {
        cause: error,
        retryAfterSeconds: 1,
      },
    );
  }
  return error;
}
