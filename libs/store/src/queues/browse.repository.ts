import {
  countFitting,
  type DeliveryState,
  indexInPack,
  LIMITS,
  type MessageFilter,
  messageIdIn,
  mostPackBytes,
  packIdOf,
  type QueueStats,
} from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { groupBy } from '../group-by.js';
import { isWaiting, WAITING } from '../groups/waiting.js';
import { IS_LEASED, NO_LEASE } from '../messages/delivery.sql.js';
import { leaseAgeSql, leasedAt } from '../messages/lease-token.js';
import { bitOf, has, indexesOf, type Members } from '../messages/members.js';
import { type Move, readMoves } from '../messages/moves.js';
import { isLeased } from '../messages/owing.js';
import { select } from '../messages/select.js';
import { type Content, decodePack } from '../messages/pack.codec.js';
import { decodeOrLog, type StoredPack } from '../messages/stored-pack.js';
import { type Ending, endingOf } from '../messages/withdrawn.sql.js';

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
  /** The queue that it left first. Null: it is there. */
  sourceQueueId: number | null;
  /** When and why it moved, oldest first. */
  moves: Move[];
  /** The lease under which it is held, if it is leased. `since` is null if that is not known. */
  lease: { token: Buffer; since: number | null } | null;
}

/** The counts of a queue, and for how long its oldest lease has been held. */
export interface DeliveryStats extends Omit<QueueStats, 'ageSeconds' | 'errorBound'> {
  /** Null if nothing is leased, or if it is not known since when. */
  oldestLeaseAgeSeconds: number | null;
  /** Rows that were counted: the cost of the count. */
  deliveries: number;
}

/** A stored message. */
export interface MessageView extends Content {
  id: Buffer;
  /** Null: it was published. */
  queueId: number | null;
  /** Null: it was enqueued. */
  topicId: number | null;
  /** When the last message of its pack expires. */
  expiresAt: number;
}

/** A page of a queue's messages. */
export interface Page {
  deliveries: DeliveryView[];
  /** Messages that it has looked at. */
  examined: number;
  /** The cursor of the next page. Null after the last one. */
  nextAfter: string | null;
}

interface DeliveryRow extends Omit<DeliveryView, 'state' | 'priority' | 'messageId' | 'lease' | 'moves'> {
  moves: string | null;
  packId: Buffer;
  leaseToken: Buffer;
  part: number;
  members: Members;
  priorityRank: number;
  delayedUntil: number | null;
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
         expires_at AS expiresAt, nack_reason AS nackReason, delayed_until AS delayedUntil,
         source_queue_id AS sourceQueueId, moves`;

/** A page looks at so many deliveries at a time while it searches, and ends after this time. */
const SEARCH_ROWS = 500;
const SEARCH_MS = 1000;

/** The operators' queries. They only read and take no locks. */
export class BrowseRepository {
  constructor(private readonly database: Database) {}

  /**
   * Counts a queue's messages by state, without expired ones. Its cost grows with the queue's
   * depth.
   */
  async stats(queueId: number): Promise<DeliveryStats> {
    const [row] = await this.database.read<StatsRow>(
      `SELECT ${STATS}
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id = ?
         AND ${COUNTED}`,
      [queueId],
    );
    return toStats(row);
  }

  /** The same of several queues, by id. An empty queue is left out. */
  async statsOfSeveral(queueIds: readonly number[]): Promise<Map<number, DeliveryStats>> {
    if (queueIds.length === 0) return new Map();
    const rows = await this.database.read<StatsRow & { queueId: number }>(
      `SELECT queue_id AS queueId, ${STATS}
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id IN (?)
         AND ${COUNTED}
       GROUP BY queue_id`,
      [queueIds],
    );
    return new Map(rows.map((row) => [row.queueId, toStats(row)]));
  }

  /**
   * Counts the messages of a queue that left others first, by the first of those, among so many of
   * its oldest deliveries.
   */
  async countBySource(queueId: number, rows: number): Promise<{ sourceQueueId: number; messages: number }[]> {
    const found = await this.database.read<{ sourceQueueId: number; messages: string | number }>(
      `SELECT oldest.source_queue_id AS sourceQueueId, SUM(oldest.messages) AS messages
       FROM (
         SELECT source_queue_id, BIT_COUNT(members) AS messages
         FROM delivery FORCE INDEX (PRIMARY)
         WHERE queue_id = ? AND expires_at > ${NOW_MS}
         ORDER BY pack_id
         LIMIT ?
       ) oldest
       WHERE oldest.source_queue_id IS NOT NULL
       GROUP BY oldest.source_queue_id`,
      [queueId, rows],
    );
    return found.map(({ sourceQueueId, messages }) => ({ sourceQueueId, messages: Number(messages) }));
  }

  /**
   * Returns a page of a queue's messages in one state that a filter selects, in hand-out order, and
   * the cursor of the next page. A page ends before its bodies exceed an answer. It also ends after
   * a second of search, and then says with its cursor how far it looked. Throws TypeError for an
   * `after` that is no such cursor.
   */
  async browse(
    queueId: number,
    state: DeliveryState,
    limit: number,
    after: string | undefined,
    filter: MessageFilter = {},
  ): Promise<Page> {
    const isSearch = Object.values(filter).some((condition) => condition !== undefined);
    const most = isSearch ? SEARCH_ROWS : limit + 2;
    const until = performance.now() + SEARCH_MS;
    let cursor = after === undefined ? undefined : readCursor(after);
    let page: FoundMessage[] = [];
    let examined = 0;
    for (;;) {
      const rows = await this.readPage(queueId, state, cursor, most);
      const selected = await select(this.database, filter, rows);
      const all = rows.flatMap((row) => messagesAfter(row, cursor));
      const found = [...page, ...all.filter(({ row, index }) => has(selected.get(row) ?? 0, index))];
      page = found.slice(0, Math.min(limit, fittingAnAnswer(found)));
      const isFull = found.length > page.length;
      const last = isFull ? page.at(-1) : all.at(-1);
      examined += isFull ? all.findIndex((one) => one.row === last?.row && one.index === last.index) + 1 : all.length;
      const isEnd = !isFull && rows.length < most;
      if (isEnd || isFull || page.length === limit || performance.now() > until) {
        return {
          deliveries: page.map(({ row, index }) => toView(row, index)),
          examined,
          nextAfter: isEnd || last === undefined ? null : writeCursor(last.row, last.index),
        };
      }
      if (last !== undefined) cursor = cursorOf(last.row, last.index);
    }
  }

  private async readPage(
    queueId: number,
    state: DeliveryState,
    cursor: Cursor | undefined,
    rows: number,
  ): Promise<DeliveryRow[]> {
    // ORDER BY omits the primary key, although the index ends with it: MariaDB would sort.
    return this.database.read<DeliveryRow>(
      `SELECT ${DELIVERY_COLUMNS}, ${NOW_MS} AS now
       FROM delivery FORCE INDEX (delivery_next)
       WHERE queue_id = ?
         AND priority_rank BETWEEN ? AND ${LIMITS.priorityMax}
         AND ${STATE_CONDITIONS[state]}
         ${cursor === undefined ? '' : NOT_BEFORE_CURSOR}
       ORDER BY priority_rank, available_at
       LIMIT ?`,
      [queueId, cursor?.rank ?? 0, ...(cursor === undefined ? [] : cursorValues(cursor)), rows],
    );
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
    const packs = await this.database.read<StoredPack & Pick<MessageView, 'queueId' | 'topicId' | 'expiresAt'>>(
      `SELECT id, queue_id AS queueId, topic_id AS topicId, count, expires_at AS expiresAt, payload FROM pack FORCE INDEX (PRIMARY) WHERE id IN (?)
       UNION ALL
       SELECT id, queue_id, topic_id, count, expires_at, payload FROM pack_overflow FORCE INDEX (PRIMARY) WHERE id IN (?)`,
      [packIds, packIds],
    );
    return packs.flatMap((pack) => {
      const { queueId, topicId, expiresAt } = pack;
      const contents = decode(pack);
      return (byPack.get(pack.id.toString('latin1')) ?? []).flatMap((id) => {
        const content = contents[indexInPack(id)];
        return content === undefined ? [] : { id, queueId, topicId, expiresAt, ...content };
      });
    });
  }

  /** Messages that are leased, of at most this many deliveries. */
  async leases(queueId: number, limit: number): Promise<{ messageId: Buffer; token: Buffer }[]> {
    // A range for each priority, so that the ready ones are not read.
    const rows = await this.database.read<Pick<DeliveryRow, 'packId' | 'leaseToken' | 'members'>>(
      `SELECT pack_id AS packId, lease_token AS leaseToken, members
       FROM delivery FORCE INDEX (delivery_next)
       WHERE queue_id = ?
         AND priority_rank IN (${RANKS})
         AND ${STATE_CONDITIONS.leased}
       LIMIT ?`,
      [queueId, limit],
    );
    return rows.flatMap(({ packId, leaseToken, members }) =>
      Array.from(indexesOf(members), (index) => ({ messageId: messageIdIn(packId, index), token: leaseToken })),
    );
  }

  /** How operators have settled a message, by the queues in which its deliveries began. */
  async endings(messageId: Buffer): Promise<{ queueId: number; how: Ending }[]> {
    const rows = await this.database.read<{ queueId: number; how: number }>(
      'SELECT queue_id AS queueId, how FROM withdrawn FORCE INDEX (PRIMARY) WHERE pack_id = ? AND members & ? <> 0',
      [packIdOf(messageId), bitOf(indexInPack(messageId))],
    );
    return rows.map(({ queueId, how }) => ({ queueId, how: endingOf(how) }));
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

const STATS = `SUM(IF(available_at <= ${NOW_MS}, BIT_COUNT(members), 0)) AS ready,
              SUM(IF(available_at > ${NOW_MS} AND available_at < ${WAITING} AND lease_token = ${NO_LEASE}, BIT_COUNT(members), 0)) AS \`delayed\`,
              SUM(IF(available_at >= ${WAITING} AND NOT ${IS_LEASED}, BIT_COUNT(members), 0)) AS waiting,
              SUM(IF(${IS_LEASED}, BIT_COUNT(members), 0)) AS leased,
              MIN(CASE WHEN available_at <= ${NOW_MS} THEN available_at END) AS oldest,
              MAX(CASE WHEN ${IS_LEASED} THEN ${LEASE_AGE} END) AS oldestLease,
              COUNT(*) AS deliveries,
              ${NOW_MS} AS now`;
/** Expired messages do not count, unless a consumer holds them. */
const COUNTED = `(expires_at > ${NOW_MS} OR ${IS_LEASED})`;

type StatsRow = Record<'ready' | 'delayed' | 'leased' | 'waiting' | 'oldestLease', string | number | null> & {
  oldest: number | null;
  deliveries: number;
  now: number;
};

function toStats(row: StatsRow | undefined): DeliveryStats {
  return {
    ready: Number(row?.ready ?? 0),
    delayed: Number(row?.delayed ?? 0),
    leased: Number(row?.leased ?? 0),
    waiting: Number(row?.waiting ?? 0),
    oldestReadyAgeSeconds: row === undefined || row.oldest === null ? null : Math.max(0, row.now - row.oldest) / 1000,
    oldestLeaseAgeSeconds: row === undefined || row.oldestLease === null ? null : Math.max(0, Number(row.oldestLease)),
    deliveries: row?.deliveries ?? 0,
  };
}

const RANKS = Array.from({ length: LIMITS.priorityMax + 1 }, (_, rank) => rank).join(', ');

const STATE_CONDITIONS: Record<DeliveryState, string> = {
  ready: `available_at <= ${NOW_MS} AND expires_at > ${NOW_MS}`,
  delayed: `available_at > ${NOW_MS} AND available_at < ${WAITING} AND lease_token = ${NO_LEASE} AND expires_at > ${NOW_MS}`,
  waiting: `available_at >= ${WAITING} AND expires_at > ${NOW_MS} AND NOT ${IS_LEASED}`,
  leased: `available_at > ${NOW_MS} AND ${IS_LEASED}`,
};

/** A message of a delivery. */
interface FoundMessage {
  row: DeliveryRow;
  /** Its index in its pack. */
  index: number;
}

/** The messages of a delivery that come after the cursor, which may lie inside it. */
function messagesAfter(row: DeliveryRow, cursor: Cursor | undefined): FoundMessage[] {
  const isShown = cursor !== undefined && isAt(row, cursor);
  return Array.from(indexesOf(row.members), (index) => ({ row, index })).filter(
    ({ index }) => !isShown || index > cursor.index,
  );
}

/** {@link countFitting} of messages, whose packs count once. */
function fittingAnAnswer(found: readonly FoundMessage[]): number {
  return countFitting(found, ({ row }, nth) => (row === found[nth - 1]?.row ? 0 : mostPackBytes(row.packId)));
}

function toView(row: DeliveryRow, index: number): DeliveryView {
  const { queueId, packId, leaseToken, priorityRank, receiveCount, expiresAt, nackReason, sourceQueueId, now } = row;
  const state = stateOf(row);
  return {
    queueId,
    messageId: messageIdIn(packId, index),
    state,
    priority: LIMITS.priorityMax - priorityRank,
    receiveCount,
    availableAt: isWaiting(row) ? (row.delayedUntil ?? now) : row.availableAt,
    expiresAt,
    nackReason,
    sourceQueueId,
    moves: readMoves(row.moves),
    lease: state === 'leased' ? { token: leaseToken, since: leasedAt(leaseToken, now) } : null,
  };
}

function stateOf(row: DeliveryRow): DeliveryView['state'] {
  if (isLeased(row)) return 'leased';
  if (row.expiresAt <= row.now) return 'expired';
  if (isWaiting(row)) return 'waiting';
  return row.availableAt > row.now ? 'delayed' : 'ready';
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

function cursorOf({ priorityRank, availableAt, packId, leaseToken, part }: DeliveryRow, index: number): Cursor {
  return { rank: priorityRank, availableAt, packId, leaseToken, part, index };
}

function writeCursor({ priorityRank, availableAt, packId, leaseToken, part }: DeliveryRow, index: number): string {
  const key = Buffer.concat([packId, leaseToken, Buffer.of(part >> 8, part & 0xff, index)]);
  return `${priorityRank}.${availableAt}.${key.toString('base64url')}`;
}

function readCursor(after: string): Cursor {
  const match = /^(\d)\.(\d{1,16})\.([A-Za-z0-9_-]{36})$/.exec(after);
  if (match === null) throw new TypeError('after must be the nextAfter of the previous page');
  const [, rank, availableAt, key] = match as unknown as [string, string, string, string];
  const bytes = Buffer.from(key, 'base64url');
  return {
    rank: Number(rank),
    availableAt: Number(availableAt),
    packId: bytes.subarray(0, 16),
    leaseToken: bytes.subarray(16, 24),
    part: bytes.readUInt16BE(24),
    index: bytes.readUInt8(26),
  };
}
