import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import type { Delivery } from './delivery.js';
import { type Members, union } from './members.js';

/** How an operator has settled messages. */
export type Ending = 'cancelled' | 'purged' | 'dropped';

/** The column `how`. */
const CODES: Record<Ending, number> = { cancelled: 1, purged: 2, dropped: 3 };

/** The ending that a value of the column `how` stands for. */
export function endingOf(code: number): Ending {
  return (Object.keys(CODES) as Ending[]).find((ending) => CODES[ending] === code) ?? 'cancelled';
}

/** Messages of a pack that an operator settles, and the queue in which they began. */
export type Withdrawn = Pick<Delivery, 'queueId' | 'packId' | 'members' | 'sourceQueueId'>;

/**
 * Remembers these messages, so that no replay brings them back. It is the last statement of its
 * transaction that waits for anything, and takes the rows in the order of their keys.
 */
export function withdraw(messages: readonly Withdrawn[], how: Ending): Statement[] {
  if (messages.length === 0) return [];
  const rows = new Map<string, { packId: Buffer; queueId: number; members: Members }>();
  for (const { packId, queueId, sourceQueueId, members } of messages) {
    const origin = sourceQueueId ?? queueId;
    const key = `${packId.toString('hex')} ${origin}`;
    rows.set(key, { packId, queueId: origin, members: union(members, rows.get(key)?.members ?? 0) });
  }
  const values = [...rows.values()]
    .toSorted((one, other) => one.packId.compare(other.packId) || one.queueId - other.queueId)
    .map(({ packId, queueId, members }) => `(${hex(packId)},${queueId},${CODES[how]},${members})`);
  return [
    {
      sql: `INSERT INTO withdrawn (pack_id, queue_id, how, members) VALUES ${values.join(',')}
     ON DUPLICATE KEY UPDATE members = members | VALUES(members)`,
    },
  ];
}
