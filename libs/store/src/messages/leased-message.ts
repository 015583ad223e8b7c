import { LIMITS, messageIdIn, type Receipt } from '@rowmq/contract';
import type { Database } from '../database/database.js';
import { hexList } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import type { Delivery } from './delivery.js';
import type { Content } from './pack.codec.js';
import { decodeOrLog, logUnread, type StoredPack } from './stored-pack.js';

/** A leased message. Times are ms since 1970 on the database's clock. */
export interface LeasedMessage extends Content, Receipt {
  priority: number;
  receiveCount: number;
  firstReceivedAt: number;
  /** When and why it moved from queue to queue, as `moves.ts` documents it. */
  moves: string | null;
  expiresAt: number;
  leaseExpiresAt: number;
}

/** A message that a transaction has leased. */
export interface Lease {
  /** Its delivery before the lease. */
  delivery: Delivery;
  /** The message's index in its pack. */
  index: number;
  /** Its delivery under the lease, as the receipt says. */
  receipt: Pick<LeasedMessage, 'leaseToken' | 'part' | 'members' | 'receiveCount' | 'firstReceivedAt'>;
  leaseExpiresAt: number;
}

/** The column is a SMALLINT UNSIGNED. */
const MOST_RECEIVES = 65_535;

export function nextReceiveCount({ receiveCount }: Pick<Delivery, 'receiveCount'>): number {
  return Math.min(receiveCount + 1, MOST_RECEIVES);
}

export function firstReceiveOf(
  { receiveCount, firstReceivedAt }: Pick<Delivery, 'receiveCount' | 'firstReceivedAt'>,
  now: number,
): number {
  return receiveCount === 0 ? now : (firstReceivedAt ?? now);
}

export function readPacks(table: 'pack' | 'pack_overflow', packIds: readonly Buffer[]): Statement {
  return { sql: `SELECT id, count, payload FROM ${table} FORCE INDEX (PRIMARY) WHERE id IN (${hexList(packIds)})` };
}

/**
 * Returns leased messages with their bodies. The transaction has read most of their packs, but none
 * after a COMMIT without an answer. Some are in `pack_overflow`: the reaper moves packs there and
 * back while it splits an overfull partition.
 *
 * Undefined takes the place of a message without a pack, or with an unreadable one. Nobody can tell
 * whether it is lost. It stays leased, and becomes ready again when the lease runs out.
 */
export async function readLeased(
  database: Database,
  leases: readonly Lease[],
  packs: readonly StoredPack[],
): Promise<(LeasedMessage | undefined)[]> {
  const contents = new Map(packs.map((pack) => [textOf(pack.id), decodeOrLog(pack)]));
  const missing = (): Buffer[] =>
    leases.map(({ delivery }) => delivery.packId).filter((packId) => !contents.has(textOf(packId)));
  let cause: unknown = 'there is no such pack';
  for (const table of ['pack_overflow', 'pack'] as const) {
    const packIds = missing();
    if (packIds.length === 0) break;
    // The leases are committed, so a failure to read some messages must not keep back the others.
    const found = await database.read<StoredPack>(readPacks(table, packIds).sql).catch((error: unknown) => {
      cause = error;
      return [];
    });
    for (const pack of found) contents.set(textOf(pack.id), decodeOrLog(pack));
  }
  const unread = missing();
  if (unread.length > 0) logUnread(unread, cause);
  return leases.map((lease) => {
    const content = contents.get(textOf(lease.delivery.packId))?.[lease.index];
    return content && toLeasedMessage(lease, content);
  });
}

function toLeasedMessage({ delivery, index, receipt, leaseExpiresAt }: Lease, content: Content): LeasedMessage {
  return {
    messageId: messageIdIn(delivery.packId, index),
    leaseToken: receipt.leaseToken,
    part: receipt.part,
    members: receipt.members,
    body: content.body,
    headers: content.headers,
    replayOf: content.replayOf,
    groupId: content.groupId,
    priority: LIMITS.priorityMax - delivery.priorityRank,
    receiveCount: receipt.receiveCount,
    firstReceivedAt: receipt.firstReceivedAt,
    moves: delivery.moves,
    expiresAt: delivery.expiresAt,
    leaseExpiresAt,
  };
}

function textOf(packId: Buffer): string {
  return packId.toString('latin1');
}
