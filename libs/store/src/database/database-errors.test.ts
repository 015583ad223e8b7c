import { describe, expect, test } from 'vitest';
import { isConnectionLost, isNotPrimary, isRetryable, mayHaveCommitted, toRowmqError } from './database-errors.js';

const serverError = (errno: number, code: string): Error => Object.assign(new Error(code), { errno, code });

describe('isNotPrimary', () => {
  test.each([
    [1047, 'ER_UNKNOWN_COM_ERROR'],
    [1290, 'ER_OPTION_PREVENTS_STATEMENT'],
    [1792, 'ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION'],
    [1836, 'ER_READ_ONLY_MODE'],
    [3032, 'ER_SERVER_OFFLINE_MODE'],
    [3100, 'ER_RUN_HOOK_ERROR'],
    [3796, 'ER_GRP_TRX_CONSISTENCY_NOT_ALLOWED'],
    [3797, 'ER_GRP_TRX_CONSISTENCY_BEFORE'],
    [3798, 'ER_GRP_TRX_CONSISTENCY_AFTER_ON_TRX_BEGIN'],
  ])('is true for %i %s, which is retryable on another connection', (errno, code) => {
    expect(isNotPrimary(serverError(errno, code))).toBe(true);
    expect(isRetryable(serverError(errno, code))).toBe(true);
    expect(isConnectionLost(serverError(errno, code))).toBe(false);
  });

  test.each([
    [1205, 'ER_LOCK_WAIT_TIMEOUT'],
    [1213, 'ER_LOCK_DEADLOCK'],
    [1062, 'ER_DUP_ENTRY'],
  ])('is false for %i %s, which says nothing about the primary', (errno, code) => {
    expect(isNotPrimary(serverError(errno, code))).toBe(false);
  });
});

describe('errors about too many connections', () => {
  test.each([
    [1040, 'ER_CON_COUNT_ERROR'],
    [1203, 'ER_TOO_MANY_USER_CONNECTIONS'],
    [1226, 'ER_USER_LIMIT_REACHED'],
  ])('%i %s is retried, and the caller gets database-unavailable', (errno, code) => {
    expect(isRetryable(serverError(errno, code))).toBe(true);
    expect(toRowmqError(serverError(errno, code))).toMatchObject({
      code: 'database-unavailable',
      message: expect.stringContaining(code),
    });
  });
});

describe('errors of COMMIT', () => {
  test.each([
    [3100, 'ER_RUN_HOOK_ERROR'],
    [3101, 'ER_TRANSACTION_ROLLBACK_DURING_COMMIT'],
    [1053, 'ER_SERVER_SHUTDOWN'],
    [3169, 'ER_SESSION_WAS_KILLED'],
    [-1, 'ECONNRESET'],
    [-1, 'PROTOCOL_SEQUENCE_TIMEOUT'],
  ])('a COMMIT that fails with %i %s may have committed, because the group has it or no answer came', (errno, code) => {
    expect(mayHaveCommitted(serverError(errno, code))).toBe(true);
    expect(isRetryable(serverError(errno, code))).toBe(true);
  });

  test.each([
    [1213, 'ER_LOCK_DEADLOCK'],
    [1290, 'ER_OPTION_PREVENTS_STATEMENT'],
    [1836, 'ER_READ_ONLY_MODE'],
  ])('a COMMIT that fails with %i %s did not commit', (errno, code) => {
    expect(mayHaveCommitted(serverError(errno, code))).toBe(false);
  });
});

describe('errors of a server that cannot write to its disk', () => {
  test.each([
    [1021, 'ER_DISK_FULL'],
    [1026, 'ER_ERROR_ON_WRITE'],
    [1030, 'ER_GET_ERRNO'],
    [1114, 'ER_RECORD_FILE_FULL'],
  ])('%i %s reaches the caller as database-unavailable, without a retry', (errno, code) => {
    expect(toRowmqError(serverError(errno, code))).toMatchObject({
      code: 'database-unavailable',
      message: expect.stringContaining(code),
      retryAfterSeconds: 5,
    });
    expect(isRetryable(serverError(errno, code))).toBe(false);
  });
});
