import type { Statement } from '../database/session.js';

/**
 * Inserts packs. Each row is a list of values in SQL.
 *
 * @param owner the column that says where the messages were sent
 * @param schema precedes the table's name, as in `ForeignTransaction`
 */
export function insertPacks(
  rows: readonly string[],
  { owner = 'queue_id', schema = '' }: { owner?: 'queue_id' | 'topic_id'; schema?: string | undefined } = {},
): Statement {
  return { sql: `INSERT INTO ${schema}pack (id, ${owner}, count, expires_at, payload) VALUES ${rows.join(',')}` };
}
