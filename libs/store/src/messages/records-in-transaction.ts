import { randomBytes } from 'node:crypto';
import { isLockWaitTimeout } from '../database/database-errors.js';
import {
  Deduplication,
  inProgress,
  keyOf,
  recordKeys,
  type Request,
  SAME_ENQUEUE_SECONDS,
  type Scope,
  type Storable,
} from './deduplication.js';
import {
  byRecordKey,
  completeRecords,
  type DeduplicationRecord,
  deleteRecords,
  insertOrKeepRecords,
  lockRecords,
  nameOf,
  type NewRecord,
  type RecordKey,
  recordRow,
} from './deduplication.sql.js';
import type { ForeignTransaction } from './foreign-transaction.js';

const CLAIM_BYTES = 16;

/**
 * The records of one enqueue in a service's own transaction.
 *
 * The transaction stays open after this enqueue, in any isolation level. So it first claims all its
 * records, with a mark instead of an answer. It then reads back which of them it got. It locks no
 * record that does not exist: in REPEATABLE READ that would lock a gap, and others would wait.
 */
export class RecordsInTransaction<Message extends Storable> {
  readonly deduplication = new Deduplication<Message>();

  private constructor(
    private readonly tx: ForeignTransaction,
    private readonly now: number,
    private readonly claimed: readonly RecordKey[],
  ) {}

  /**
   * Throws `enqueue-in-progress` if another transaction that uses one of these records does not end
   * in time.
   */
  static async claim<Message extends Storable>(
    tx: ForeignTransaction,
    scope: Scope,
    request: Request,
    now: number,
  ): Promise<RecordsInTransaction<Message>> {
    const mark = randomBytes(CLAIM_BYTES);
    const requestDigest = keyOf(scope, request)?.requestDigest ?? null;
    const keys = recordKeys(scope, request).toSorted(byRecordKey);
    const rows = keys.map((key) =>
      recordRow({ ...key, requestDigest, answer: mark, seconds: scope.deduplicationSeconds }, now),
    );
    await waitShortly(tx, insertOrKeepRecords(rows, now, tx.schema).sql);
    const found = await tx.read<DeduplicationRecord>(lockRecords(keys, tx.schema).sql);
    const others = found.filter(({ answer }) => !answer.equals(mark));
    const records = new RecordsInTransaction<Message>(
      tx,
      now,
      found.filter(({ answer }) => answer.equals(mark)),
    );
    records.deduplication.learn(others);
    return records;
  }

  /** Gives the claimed records their answers. A claimed record without one is not needed. */
  async complete(records: readonly NewRecord[]): Promise<void> {
    const rows = records.toSorted(byRecordKey).map((record) => recordRow(record, this.now));
    if (rows.length > 0) await this.tx.write(completeRecords(rows, this.tx.schema).sql);
    const needed = new Set(records.map(nameOf));
    const unused = this.claimed.filter((key) => !needed.has(nameOf(key)));
    if (unused.length > 0) await this.tx.write(deleteRecords(unused, 'd.expires_at > 0', this.tx.schema).sql);
  }
}

/**
 * Runs a statement that waits for a lock for two seconds at most. The caller's session keeps its
 * own limit, which is 50 seconds by default. MySQL has no limit for a single INSERT.
 */
async function waitShortly(tx: ForeignTransaction, sql: string): Promise<void> {
  const [session] = await tx.read<{ seconds: number | string }>('SELECT @@SESSION.innodb_lock_wait_timeout AS seconds');
  const seconds = Number(session?.seconds);
  if (seconds > SAME_ENQUEUE_SECONDS) await tx.write(limitLockWait(SAME_ENQUEUE_SECONDS));
  try {
    await tx.write(sql);
  } catch (error) {
    throw hasWaitedTooLong(error) ? inProgress('deduplicationId or Idempotency-Key', error) : error;
  } finally {
    // It fails if the connection broke, and nobody uses that any more.
    if (seconds > SAME_ENQUEUE_SECONDS) await tx.write(limitLockWait(seconds)).catch(() => undefined);
  }
}

/** Some libraries wrap the driver's error, or keep only its text. */
function hasWaitedTooLong(error: unknown): boolean {
  return [error, (error as { cause?: unknown } | undefined)?.cause].some(
    (one) => isLockWaitTimeout(one) || String(one).includes('Lock wait timeout exceeded'),
  );
}

function limitLockWait(seconds: number): string {
  return `SET SESSION innodb_lock_wait_timeout = ${seconds}`;
}
