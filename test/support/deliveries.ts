import { messageIdIn } from '@rowmq/contract';
import type { Queue } from '@rowmq/store';
import { indexesOf, type Members } from '../../libs/store/src/messages/members.js';
import { hex } from './partitions.js';
import { bodies, type TestStore } from './store.js';

/** A message that a queue owes, as its delivery describes it. Times are ms since 1970. */
export interface OwedMessage {
  id: Buffer;
  /** Null if no pack stores it. */
  body: string | null;
  availableAt: number;
  expiresAt: number;
  receiveCount: number;
  reason: string | null;
  isLeased: boolean;
}

/** One row of `delivery`. */
export interface DeliveryRow extends Omit<OwedMessage, 'id' | 'body' | 'isLeased'> {
  packId: Buffer;
  leaseToken: Buffer;
  part: number;
  members: Members;
}

/** The deliveries of a queue, in the order of their keys. */
export async function deliveryRows(store: TestStore, queue: Queue): Promise<DeliveryRow[]> {
  return store.database.read<DeliveryRow>(
    `SELECT pack_id AS packId, lease_token AS leaseToken, part, members, available_at AS availableAt,
            expires_at AS expiresAt, receive_count AS receiveCount, nack_reason AS reason
     FROM delivery
     WHERE queue_id = ?
     ORDER BY pack_id, lease_token, part`,
    [queue.id],
  );
}

/** The messages that a queue owes, in the order of their ids. A fault may list one twice. */
export async function owedMessages(store: TestStore, queue: Queue): Promise<OwedMessage[]> {
  const owed = (await deliveryRows(store, queue)).flatMap(({ packId, members, leaseToken, part: _, ...row }) =>
    Array.from(indexesOf(members), (index) => ({
      ...row,
      id: messageIdIn(packId, index),
      isLeased: leaseToken.some((byte) => byte !== 0),
    })),
  );
  const stored = await store.browse.messages(owed.map(({ id }) => id));
  const bodyOf = new Map(stored.map(({ id, body }) => [id.toString('hex'), body.toString()]));
  return owed
    .map((one) => ({ ...one, body: bodyOf.get(one.id.toString('hex')) ?? null }))
    .toSorted((one, other) => one.id.compare(other.id));
}

/** The ids of the messages that a queue owes, as sorted text. */
export async function owedIds(store: TestStore, queue: Queue): Promise<string[]> {
  return hex((await owedMessages(store, queue)).map(({ id }) => id));
}

/**
 * The bodies of the messages that were enqueued in a queue and are stored, and of those that the
 * queue owes, in the order of their ids.
 */
export async function storedBodies(
  store: TestStore,
  queue: Queue,
): Promise<{ messages: string[]; owed: (string | null)[] }> {
  const packs = await store.database.read<{ id: Buffer; count: number }>(
    'SELECT id, count FROM pack WHERE queue_id = ? ORDER BY id',
    [queue.id],
  );
  const ids = packs.flatMap(({ id, count }) => Array.from({ length: count }, (_, index) => messageIdIn(id, index)));
  const messages = (await store.browse.messages(ids)).toSorted((one, other) => one.id.compare(other.id));
  return { messages: bodies(messages), owed: (await owedMessages(store, queue)).map(({ body }) => body) };
}
