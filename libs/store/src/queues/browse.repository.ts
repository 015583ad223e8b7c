import { LIMITS, type DeliveryState, type QueueStats } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database } from '../database/database.js';
import { NO_LEASE } from '../messages/delivery.sql.js';

/** A delivery as an operator sees it. Times are ms since 1970, on the database's clock. */
export interface DeliveryView {
  queueId: number;
  messageId: Buffer;
  state: DeliveryState | 'expired';
  priority: number;
  receiveCount: number;
  availableAt: number;
  expiresAt: number;
  nackReason: string | null;
}

/** A stored message. */
export interface MessageView {
  id: Buffer;
  queueId: number;
  body: Buffer;
  headers: Buffer | null;
  expiresAt: number;
}

interface DeliveryRow extends Omit<DeliveryView, 'state' | 'priority'> {
  priorityRank: number;
  leased: number;
  now: number;
}

/** The end of a page, in hand-out order. */
interface Position {
  rank: number;
  availableAt: number;
  messageId: Buffer;
}

const DELIVERY_COLUMNS = `queue_id AS queueId, message_id AS messageId, priority_rank AS priorityRank, receive_count AS receiveCount,
         available_at AS availableAt, expires_at AS expiresAt, nack_reason AS nackReason, lease_token <> ${NO_LEASE} AS leased`;

/** The operators' queries. They only read and take no locks. */
export class BrowseRepository {
  constructor(private readonly database: Database) {}

  /**
   * Counts a queue's deliveries by state, without expired ones. Its cost grows with the queue's
   * depth.
   */
  async stats(queueId: number): Promise<QueueStats> {
    const [row] = await this.database.read<
      Record<'ready' | 'delayed' | 'leased', string | number | null> & { oldest: number | null; now: number }
    >(
      `SELECT SUM(available_at <= ${NOW_MS}) AS ready,
              SUM(available_at > ${NOW_MS} AND lease_token = ${NO_LEASE}) AS \`delayed\`,
              SUM(available_at > ${NOW_MS} AND lease_token <> ${NO_LEASE}) AS leased,
              MIN(CASE WHEN available_at <= ${NOW_MS} THEN available_at END) AS oldest,
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
    };
  }

  /**
   * Returns a page of a queue's deliveries in one state, in hand-out order, and the cursor of the
   * next page. Throws TypeError for an `after` that is no such cursor.
   */
  async browse(
    queueId: number,
    state: DeliveryState,
    limit: number,
    after: string | undefined,
  ): Promise<{ deliveries: DeliveryView[]; nextAfter: string | null }> {
    const position = after === undefined ? undefined : readPosition(after);
    // ORDER BY omits message_id, although the index ends with it: MariaDB would sort.
    const rows = await this.database.read<DeliveryRow>(
      `SELECT ${DELIVERY_COLUMNS}, ${NOW_MS} AS now
       FROM delivery FORCE INDEX (delivery_next)
       WHERE queue_id = ?
         AND priority_rank BETWEEN ? AND ${LIMITS.priorityMax}
         AND ${STATE_CONDITIONS[state]}
         ${position === undefined ? '' : 'AND (priority_rank > ? OR available_at > ? OR (available_at = ? AND message_id > ?))'}
       ORDER BY priority_rank, available_at
       LIMIT ?`,
      [
        queueId,
        position?.rank ?? 0,
        ...(position === undefined
          ? []
          : [position.rank, position.availableAt, position.availableAt, position.messageId]),
        limit,
      ],
    );
    const last = rows.length < limit ? undefined : rows.at(-1);
    return { deliveries: rows.map(toView), nextAfter: last === undefined ? null : writePosition(last) };
  }

  /** Reads messages by id. The result omits messages that no longer exist. */
  async messages(ids: readonly Buffer[]): Promise<MessageView[]> {
    if (ids.length === 0) return [];
    return this.database.read<MessageView>(
      `SELECT id, queue_id AS queueId, body, headers, expires_at AS expiresAt FROM message FORCE INDEX (PRIMARY) WHERE id IN (?)
       UNION ALL
       SELECT id, queue_id, body, headers, expires_at FROM message_overflow FORCE INDEX (PRIMARY) WHERE id IN (?)`,
      [ids, ids],
    );
  }

  /** Finds a message's deliveries in these queues. */
  async deliveries(messageId: Buffer, queueIds: readonly number[]): Promise<DeliveryView[]> {
    if (queueIds.length === 0) return [];
    const rows = await this.database.read<DeliveryRow>(
      `SELECT ${DELIVERY_COLUMNS}, ${NOW_MS} AS now
       FROM delivery FORCE INDEX (PRIMARY)
       WHERE queue_id IN (?)
         AND message_id = ?`,
      [queueIds, messageId],
    );
    return rows.map(toView);
  }
}

const STATE_CONDITIONS: Record<DeliveryState, string> = {
  ready: `available_at <= ${NOW_MS} AND expires_at > ${NOW_MS}`,
  delayed: `available_at > ${NOW_MS} AND lease_token = ${NO_LEASE} AND expires_at > ${NOW_MS}`,
  leased: `available_at > ${NOW_MS} AND lease_token <> ${NO_LEASE}`,
};

function toView({ priorityRank, leased, now, ...row }: DeliveryRow): DeliveryView {
  return { ...row, priority: LIMITS.priorityMax - priorityRank, state: stateOf(row, leased !== 0, now) };
}

function stateOf(row: { availableAt: number; expiresAt: number }, leased: boolean, now: number): DeliveryView['state'] {
  if (leased && row.availableAt > now) return 'leased';
  if (row.expiresAt <= now) return 'expired';
  return row.availableAt > now ? 'delayed' : 'ready';
}

function writePosition(row: DeliveryRow): string {
  return `${row.priorityRank}.${row.availableAt}.${row.messageId.toString('base64url')}`;
}

function readPosition(after: string): Position {
  const match = /^(\d)\.(\d{1,15})\.([A-Za-z0-9_-]{22})$/.exec(after);
  if (match === null) throw new TypeError('after must be the nextAfter of the previous page');
  const [, rank, availableAt, id] = match as unknown as [string, string, string, string];
  return { rank: Number(rank), availableAt: Number(availableAt), messageId: Buffer.from(id, 'base64url') };
}
