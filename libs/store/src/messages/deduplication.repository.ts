import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { deleteRecords, type RecordKey } from './deduplication.sql.js';

/**
 * The records of deduplicationIds and Idempotency-Keys, for the reaper. Enqueues write and read
 * them: deduplication.ts.
 */
export class DeduplicationRepository {
  constructor(private readonly database: Database) {}

  /**
   * Deletes records that have expired, at most `rows`, in the order of their key. Returns how many.
   * An enqueue may take over a record meanwhile: it is not deleted then.
   */
  async removeExpired(rows: number): Promise<number> {
    const expired = await this.database.read<RecordKey>(
      `SELECT kind, scope_id AS scopeId, digest
       FROM deduplication FORCE INDEX (deduplication_by_expiry)
       WHERE expires_at <= ${NOW_MS}
       ORDER BY expires_at
       LIMIT ?`,
      [rows],
    );
    if (expired.length === 0) return 0;
    const { sql } = deleteRecords(expired, `d.expires_at <= ${NOW_MS}`);
    return (await this.database.write(sql)).affectedRows;
  }
}
