import { type DeliveryState, indexInPack, LIMITS, messageIdIn, packIdOf, type QueueStats } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { groupBy } from '../group-by.js';
import { isNoLease, NO_LEASE } from '../messages/delivery.sql.js';
import { leaseAgeSql, leasedAt } from '../messages/lease-token.js';
import { bitOf, indexesOf, type Members } from '../messages/members.js';
import { type Content, decodePack } from '../messages/pack.codec.js';
import { decodeOrLog, type StoredPack } from '../messages/stored-pack.js';

/**
 * A message in a queue as an operator sees it. Times are ms since 1970, on the database's clock.
 */
export interface DeliveryView {
  queueId: number;
  messageId: Buffer;
  state: DeliveryState | 'expired';
  priority: number;
  receiveCount: number;
  availableAt: number;
  expiresAt: number;
  nackReason: string | null;
  /** The lease under which it is held, if it is leased. `since` is null if that is not known. */
  lease: { token: Buffer; since: number | null } | null;
}

/** The counts of a queue, and for how long its oldest lease has been held. */
export interface DeliveryStats extends QueueStats {
  /** Null if nothing is leased, or if it is not known since when. */
  oldestLeaseAgeSeconds: number | null;
}

/** A stored message. */
export interface MessageView {
  id: Buffer;
  queueId: number;
  body: Buffer;
  headers: Buffer | null;
  /** When the last message of its pack expires. */
  expiresAt: number;
}

interface DeliveryRow extends Omit<DeliveryView, 'state' | 'priority' | 'messageId' | 'lease'> {
  packId: Buffer;
  leaseToken: Buffer;
  part: number;
  members: Members;
  priorityRank: number;
  now: number;
}

/** The end of a page, in hand-out order. */
interface Cursor {
  rank: number;
  availableAt: number;
  packId: Buffer;
  leaseToken: Buffer;
  part: number;
  /** The index of the last message. */
  index: number;
}

const DELIVERY_COLUMNS = `queue_id AS queueId, pack_id AS packId, lease_token AS leaseToken, part, members,
         priority_rank AS priorityRank, receive_count AS receiveCount, available_at AS availableAt,
         expires_at AS expiresAt, nack_reason AS nackReason`;

/** The operators' queries. They only read and take no locks. */
export class BrowseRepository {
  constructor(private readonly database: Database) {}

  /**
   * Counts a queue's messages by state, without expired ones. Its cost grows with the queue's
   * depth.
   */
  async stats(queueId: number): Promise<DeliveryStats> {
    const [row] = await this.database.read<
      Record<'ready' | 'delayed' | 'leased', string | number | null> & {
        oldest: number | null;
        oldestLease: string | number | null;
        now: number;
      }
    >(
      `SELECT SUM(IF(available_at <= ${NOW_MS}, BIT_COUNT(members), 0)) AS ready,
              SUM(IF(available_at > ${NOW_MS} AND lease_token = ${NO_LEASE}, BIT_COUNT(members), 0)) AS \`delayed\`,
              SUM(IF(available_at > ${NOW_MS} AND lease_token <> ${NO_LEASE}, BIT_COUNT(members), 0)) AS leased,
              MIN(CASE WHEN available_at <= ${NOW_MS} THEN available_at END) AS oldest,
              MAX(CASE WHEN available_at > ${NOW_MS} AND lease_token <> ${NO_LEASE} THEN ${LEASE_AGE} END) AS oldestLease,
              ${NOW_MS} AS now
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id = ?
         AND (expires_at > ${NOW_MS} OR (lease_token <> ${NO_LEASE} AND available_at > ${NOW_MS}))`,
      [queueId],
    );
    return {
      ready: Number(row?.ready ?? 0),
      delayed: Number(row?.delayed ?? 0),
      leased: Number(row?.leased ?? 0),
      oldestReadyAgeSeconds: row === undefined || row.oldest === null ? null : Math.max(0, row.now - row.oldest) / 1000,
      oldestLeaseAgeSeconds:
        row === undefined || row.oldestLease === null ? null : Math.max(0, Number(row.oldestLease)),
    };
  }

  /**
   * Returns a page of a queue's messages in one state, in hand-out order, and the cursor of the
   * next page. Throws TypeError for an `after` that is no such cursor.
   */
  async browse(
    queueId: number,
    state: DeliveryState,
    limit: number,
    after: string | undefined,
  ): Promise<{ deliveries: DeliveryView[]; nextAfter: string | null }> {
    const cursor = after === undefined ? undefined : readCursor(after);
    // ORDER BY omits the primary key, although the index ends with it: MariaDB would sort.
    const rows = await this.database.read<DeliveryRow>(
      `SELECT ${DELIVERY_COLUMNS}, ${NOW_MS} AS now
       FROM delivery FORCE INDEX (delivery_next)
       WHERE queue_id = ?
         AND priority_rank BETWEEN ? AND ${LIMITS.priorityMax}
         AND ${STATE_CONDITIONS[state]}
         ${cursor === undefined ? '' : NOT_BEFORE_CURSOR}
       ORDER BY priority_rank, available_at
       LIMIT ?`,
      [queueId, cursor?.rank ?? 0, ...(cursor === undefined ? [] : cursorValues(cursor)), limit + 2],
    );
    const found = rows.flatMap((row) => {
      const isShown = cursor !== undefined && isAt(row, cursor);
      return Array.from(indexesOf(row.members), (index) => ({ row, index })).filter(
        ({ index }) => !isShown || index > cursor.index,
      );
    });
    const page = found.slice(0, limit);
    const last = found.length > limit ? page.at(-1) : undefined;
    return {
      deliveries: page.map(({ row, index }) => toView(row, index)),
      nextAfter: last === undefined ? null : writeCursor(last.row, last.index),
    };
  }

  /**
   * Reads messages by id. The result omits messages that no longer exist, or whose pack is
   * unreadable.
   */
  async messages(ids: readonly Buffer[]): Promise<MessageView[]> {
    return this.readMessages(ids, decodeOrLog);
  }

  /**
   * Reads a message. Undefined: it no longer exists. Throws RangeError if its pack is unreadable.
   */
  async message(id: Buffer): Promise<MessageView | undefined> {
    const [message] = await this.readMessages([id], ({ payload, count }) => decodePack(payload, count));
    return message;
  }

  private async readMessages(ids: readonly Buffer[], decode: (pack: StoredPack) => Content[]): Promise<MessageView[]> {
    if (ids.length === 0) return [];
    const byPack = groupBy(ids, (id) => packIdOf(id).toString('latin1'));
    const packIds = [...byPack.keys()].map((id) => Buffer.from(id, 'latin1'));
    const packs = await this.database.read<StoredPack & { queueId: number; expiresAt: number }>(
      `SELECT id, queue_id AS queueId, count, expires_at AS expiresAt, payload FROM pack FORCE INDEX (PRIMARY) WHERE id IN (?)
       UNION ALL
       SELECT id, queue_id, count, expires_at, payload FROM pack_overflow FORCE INDEX (PRIMARY) WHERE id IN (?)`,
      [packIds, packIds],
    );
    return packs.flatMap((pack) => {
      const { queueId, expiresAt } = pack;
      const contents = decode(pack);
      return (byPack.get(pack.id.toString('latin1')) ?? []).flatMap((id) => {
        const content = contents[indexInPack(id)];
        return content === undefined ? [] : { id, queueId, expiresAt, ...content };
      });
    });
  }

  /** Finds the queues that owe a message, among these. */
  async deliveries(messageId: Buffer, queueIds: readonly number[]): Promise<DeliveryView[]> {
    if (queueIds.length === 0) return [];
    const index = indexInPack(messageId);
    const rows = await this.database.read<DeliveryRow>(
      `SELECT ${DELIVERY_COLUMNS}, ${NOW_MS} AS now
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id IN (?)
         AND pack_id = ?
         AND members & ? <> 0`,
      [queueIds, packIdOf(messageId), bitOf(index)],
    );
    return rows.map((row) => toView(row, index));
  }
}

const LEASE_AGE = leaseAgeSql(NOW_MS);

const STATE_CONDITIONS: Record<DeliveryState, string> = {
  ready: `available_at <= ${NOW_MS} AND expires_at > ${NOW_MS}`,
  delayed: `available_at > ${NOW_MS} AND lease_token = ${NO_LEASE} AND expires_at > ${NOW_MS}`,
  leased: `available_at > ${NOW_MS} AND lease_token <> ${NO_LEASE}`,
};

function toView(row: DeliveryRow, index: number): DeliveryView {
  const { queueId, packId, leaseToken, priorityRank, receiveCount, availableAt, expiresAt, nackReason, now } = row;
  const state = stateOf(row);
  return {
    queueId,
    messageId: messageIdIn(packId, index),
    state,
    priority: LIMITS.priorityMax - priorityRank,
    receiveCount,
    availableAt,
    expiresAt,
    nackReason,
    lease: state === 'leased' ? { token: leaseToken, since: leasedAt(leaseToken, now) } : null,
  };
}

function stateOf({ leaseToken, availableAt, expiresAt, now }: DeliveryRow): DeliveryView['state'] {
  if (!isNoLease(leaseToken) && availableAt > now) return 'leased';
  if (expiresAt <= now) return 'expired';
  return availableAt > now ? 'delayed' : 'ready';
}

/** The cursor's own delivery is read again: a page may end inside it. */
const NOT_BEFORE_CURSOR = `AND (priority_rank > ? OR available_at > ? OR (available_at = ?
           AND (pack_id > ? OR (pack_id = ? AND (lease_token > ? OR (lease_token = ? AND part >= ?))))))`;

function cursorValues({ rank, availableAt, packId, leaseToken, part }: Cursor): unknown[] {
  return [rank, availableAt, availableAt, packId, packId, leaseToken, leaseToken, part];
}

function isAt(row: DeliveryRow, { packId, leaseToken, part }: Cursor): boolean {
  return row.packId.equals(packId) && row.leaseToken.equals(leaseToken) && row.part === part;
}

function writeCursor({ priorityRank, availableAt, packId, leaseToken, part }: DeliveryRow, index: number): string {
  const key = Buffer.concat([packId, leaseToken, Buffer.of(part, index)]);
  return `${priorityRank}.${availableAt}.${key.toString('base64url')}`;
}

function readCursor(after: string): Cursor {
  const match = /^(\d)\.(\d{1,15})\.([A-Za-z0-9_-]{35})$/.exec(after);
  if (match === null) throw new TypeError('after must be the nextAfter of the previous page');
  const [, rank, availableAt, key] = match as unknown as [string, string, string, string];
  const bytes = Buffer.from(key, 'base64url');
  return {
    rank: Number(rank),
    availableAt: Number(availableAt),
    packId: bytes.subarray(0, 16),
    leaseToken: bytes.subarray(16, 24),
    part: bytes.readUInt8(24),
    index: bytes.readUInt8(25),
  };
}
