import type { Database } from '../database/database.js';
import type { NewRecord } from '../messages/deduplication.sql.js';
import type { QueueBatch, Reserve } from '../messages/hand-off.js';
import type { Admitted } from '../messages/new-message.js';
import { commitInOrder, NO_ID } from './commit-in-order.js';
import { byGroup } from './group.js';
import { handOffInOrder } from './hand-off-in-order.js';
import { packInOrder } from './pack-in-order.js';
import { groupsIn, storePacks } from './store-in-order.js';

/** The messages of one batch for one ordered queue. */
export interface OrderedBatch extends QueueBatch {
  /** Records of deduplicationIds and Idempotency-Keys, with the ids that the messages have now. */
  makeRecords: () => NewRecord[];
}

/**
 * Stores messages of ordered queues, as {@link commitInOrder} does. Once the groups are locked, it
 * reserves parked consumers for messages that nothing keeps back. They are in `handOffs` when it
 * returns or throws.
 */
export async function storeOrdered(
  database: Database,
  batches: readonly OrderedBatch[],
  { leaseToken, reserve }: { leaseToken: Buffer; reserve: Reserve },
): Promise<number | undefined> {
  const sorted = batches.toSorted((one, other) => one.queue.id - other.queue.id);
  const keys = sorted.flatMap(({ queue, messages }) => groupsIn(queue.id, messages)).toSorted(byGroup);
  for (const { messages } of sorted) for (const message of messages) message.id ??= NO_ID;
  const makeRecords = (): NewRecord[] => sorted.flatMap((batch) => batch.makeRecords());
  if (keys.length === 0 && makeRecords().length === 0) return undefined;
  return commitInOrder(database, {
    rows: [{ table: 'queue', rows: sorted.map(({ queue }) => queue) }],
    groups: keys,
    makeRecords,
    pack: (makeId, groups) => {
      const packs = sorted.map((batch) => {
        const ofQueue = packInOrder<Admitted>(batch.messages, makeId);
        // An earlier try may have found other groups idle.
        for (const { reservation } of batch.handOffs.splice(0)) reservation.cancel();
        handOffInOrder(batch, ofQueue, groups, reserve);
        return { queueId: batch.queue.id, packs: ofQueue };
      });
      return {
        firstPack: packs.flatMap((one) => one.packs)[0]?.id,
        inserts: storePacks(packs, groups, '@now', { leaseToken }),
      };
    },
  });
}
