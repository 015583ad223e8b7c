import { RowmqError } from '@rowmq/contract';
import { isLockWaitTimeout, isNull, isOutOfRange, toRowmqError } from '../database/database-errors.js';
import { RecordMet } from './deduplication.js';

/**
 * A queue or a topic changed after it was cached, and nothing of the batch is stored. An earlier
 * try whose COMMIT got no answer cannot store it later, because it names the same version.
 */
export class SettingsChanged extends Error {
  constructor(cause: unknown) {
    super('A queue or a topic changed after the broker had cached it.', { cause });
  }

  /** The error after too many of them. */
  static tooOften(what: 'queue' | 'topic', cause: SettingsChanged): RowmqError {
    return new RowmqError('overloaded', `A ${what} of this batch changes all the time; try again.`, {
      cause,
      retryAfterSeconds: 1,
    });
  }
}

/**
 * A batch begins at most this often. Queues and topics that changed make it begin again, and so do
 * duplicates.
 */
export const ROUNDS = 4;

/**
 * Why a batch that met this error has to begin again. A lock that its own earlier try may hold is
 * waited for once more instead.
 */
export function reasonToBeginAgain(
  error: unknown,
  { hasRecords, mayBeOwn }: { hasRecords: boolean; mayBeOwn: boolean },
): SettingsChanged | RecordMet | undefined {
  if (isNull(error)) return new SettingsChanged(error);
  if (isOutOfRange(error)) return hasRecords ? new RecordMet(error) : new SettingsChanged(error);
  if (hasRecords && isLockWaitTimeout(error) && !mayBeOwn) return new RecordMet(error, true);
  return undefined;
}

/** The error of a batch that began too often. */
export function restless(error: SettingsChanged | RecordMet, what: 'queue' | 'topic'): unknown {
  if (error instanceof SettingsChanged) return SettingsChanged.tooOften(what, error);
  // It waited for the lock of a queue or a topic, and not of a record.
  if (error.isOpen) return toRowmqError(error.cause);
  return new RowmqError(
    'overloaded',
    'Others enqueue with the deduplicationIds or Idempotency-Keys of this batch all the time; try again.',
    { cause: error, retryAfterSeconds: 1 },
  );
}
