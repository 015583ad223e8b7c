import type { Database } from '../database/database.js';
import { hexList } from '../database/hex.js';

/** The records of cancelled and purged messages, for the reaper: withdrawn.sql.ts writes them. */
export class WithdrawnRepository {
  constructor(private readonly database: Database) {}

  /**
   * Forgets the messages of packs that are no longer stored, among the next `rows` after a pack.
   * Returns how many records that were, and where the next step begins: null after the last one.
   *
   * Locks: rows of `withdrawn`, in the order of their keys.
   */
  async forgetReaped(after: Buffer, rows: number): Promise<{ forgotten: number; next: Buffer | null }> {
    const packs = await this.database.read<{ packId: Buffer; isStored: number }>(
      `SELECT w.pack_id AS packId,
              EXISTS (SELECT 1 FROM pack FORCE INDEX (PRIMARY) WHERE id = w.pack_id)
              OR EXISTS (SELECT 1 FROM pack_overflow FORCE INDEX (PRIMARY) WHERE id = w.pack_id) AS isStored
       FROM withdrawn w FORCE INDEX (PRIMARY)
       WHERE w.pack_id > ?
       ORDER BY w.pack_id
       LIMIT ?`,
      [after, rows],
    );
    const reaped = packs.filter(({ isStored }) => isStored === 0).map(({ packId }) => packId);
    const next = packs.length < rows ? null : (packs.at(-1)?.packId ?? null);
    if (reaped.length === 0) return { forgotten: 0, next };
    // A column outside the key keeps both servers from a scan: see `deleteDeliveries`.
    const { affectedRows } = await this.database.write(
      `DELETE w FROM withdrawn w FORCE INDEX (PRIMARY) WHERE w.pack_id IN (${hexList(reaped)}) AND w.members <> 0`,
    );
    return { forgotten: affectedRows, next };
  }
}
