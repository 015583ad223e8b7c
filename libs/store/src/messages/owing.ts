import { indexInPack, packIdOf } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { isWaiting } from '../groups/waiting.js';
import type { Delivery } from './delivery.js';
import { DELIVERY_COLUMNS, isNoLease } from './delivery.sql.js';
import { bitOf } from './members.js';

/** A delivery that owes a message, and the database's time when it was read. */
export type Owing = Delivery & { now: number };

/** Reads the deliveries that owe a message in these queues, without locks. */
export async function findOwing(database: Database, messageId: Buffer, queueIds: readonly number[]): Promise<Owing[]> {
  if (queueIds.length === 0) return [];
  const owing = await database.read<Owing>(
    `SELECT ${DELIVERY_COLUMNS}, ${NOW_MS} AS now
     FROM delivery d FORCE INDEX (PRIMARY)
     WHERE d.queue_id IN (?)
       AND d.pack_id = ?
       AND d.members & ? <> 0
     ORDER BY d.queue_id`,
    [queueIds, packIdOf(messageId), bitOf(indexInPack(messageId))],
  );
  return owing.filter((one) => one.expiresAt > one.now || isLeased(one));
}

/** Also in the grace period after the lease: an ack may still be under way. */
export function isLeased(one: Pick<Owing, 'leaseToken' | 'availableAt' | 'delayedUntil' | 'now'>): boolean {
  const until = isWaiting(one) ? (one.delayedUntil ?? 0) : one.availableAt;
  return !isNoLease(one.leaseToken) && until > one.now;
}
