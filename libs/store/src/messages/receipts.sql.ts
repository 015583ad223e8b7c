import { NOW_MS } from '../database/clock.js';
import { hex, hexList } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';
import { FOR_UPDATE, LEASE_GRACE_MS, MOST_GROUPS } from './delivery.sql.js';
import type { Members } from './members.js';

/*
 * How the verbs on leased messages find deliveries, and the statements of an ack.
 */

/** The receipts of one pack and token, which come from one claim. */
export interface Held {
  queueId: number;
  packId: Buffer;
  leaseToken: Buffer;
  members: Members;
}

/** The receipts of one delivery, as the hints in the receipts name it. */
export interface HeldRow extends Held {
  part: number;
  /** The receipts name all members that the delivery had when it was leased. */
  isWhole: boolean;
}

/** A text that is equal for receipts and deliveries of one pack and token. */
export function leaseKey({ queueId, packId, leaseToken }: Omit<Held, 'members'>): string {
  return `${queueId} ${packId.toString('latin1')}${leaseToken.toString('latin1')}`;
}

/** How a statement finds the deliveries of receipts. */
interface Source {
  /** The table, for FROM and UPDATE, and the values of its placeholders. */
  table: string;
  values: unknown[];
  condition: string;
  orderBy: string;
  /** The members that the receipts of a delivery name. */
  members: string;
  lock: string;
}

/**
 * Finds the deliveries of receipts by pack and token, in primary-key order, and by part if the rows
 * name theirs. One condition covers the packs of a queue, token, part and set of members. More than
 * MOST_GROUPS become a list to join.
 *
 * The token excludes rows without a lease, and the deadline those whose lease has ended. A claim
 * may want only these.
 */
export function sourceOf(held: readonly (Held & Partial<HeldRow>)[]): Source {
  const groups = [
    ...groupBy(
      held,
      ({ queueId, leaseToken, part, members }) => `${queueId} ${hex(leaseToken)} ${part} ${members}`,
    ).values(),
  ];
  if (groups.length > MOST_GROUPS) {
    return {
      table: `${WANTED_TABLE}
       STRAIGHT_JOIN delivery d FORCE INDEX (PRIMARY)
         ON d.queue_id = wanted.queue_id
        AND d.pack_id = UNHEX(wanted.pack_id)
        AND d.lease_token = UNHEX(wanted.lease_token)${held[0]?.part === undefined ? '' : ' AND d.part = wanted.part'}`,
      values: [wantedJson(held)],
      condition: 'TRUE',
      orderBy: '',
      members: 'wanted.members',
      lock: FOR_UPDATE,
    };
  }
  const conditions = groups.map((group) => {
    const [{ queueId, leaseToken, part, members }] = group as [Held & Partial<HeldRow>];
    const ids = hexList(group.map(({ packId }) => packId));
    const ofPart = part === undefined ? '' : ` AND d.part = ${part}`;
    return {
      row: `(d.queue_id = ${queueId} AND d.pack_id IN (${ids}) AND d.lease_token = ${hex(leaseToken)}${ofPart})`,
      members,
    };
  });
  return {
    table: 'delivery d FORCE INDEX (PRIMARY)',
    values: [],
    condition: `(${conditions.map(({ row }) => row).join('\n         OR ')})`,
    orderBy: 'ORDER BY d.queue_id, d.pack_id, d.lease_token',
    members:
      conditions.length === 1
        ? String(conditions[0]?.members)
        : `CASE ${conditions.map(({ row, members }) => `WHEN ${row} THEN ${members}`).join(' ')} END`,
    lock: 'FOR UPDATE',
  };
}

export const WANTED_TABLE = `JSON_TABLE(?, '$[*]' COLUMNS (
         queue_id INT UNSIGNED PATH '$[0]',
         pack_id CHAR(32) PATH '$[1]',
         lease_token CHAR(16) PATH '$[2]',
         part SMALLINT UNSIGNED PATH '$[3]',
         members INT UNSIGNED PATH '$[4]'
       )) wanted`;

export function wantedJson(held: readonly (Held & Partial<HeldRow>)[]): string {
  return JSON.stringify(
    held.map(({ queueId, packId, leaseToken, part = null, members }) => [
      queueId,
      packId.toString('hex'),
      leaseToken.toString('hex'),
      part,
      members,
    ]),
  );
}

export const IS_HELD = `d.available_at > ${NOW_MS} + ${LEASE_GRACE_MS}`;

/**
 * Settles the receipts of these deliveries, all or none. If a delivery is not as its receipts say,
 * a single DELETE changes nothing. Several statements fail with 1690: `EXP` overflows.
 *
 * An UPDATE of members locks rows in primary-key order, and no index entries. The DELETE after it
 * reads the same rows, so it waits for no further row.
 *
 * A DELETE alone locks the entry of each row before the next row. On MariaDB it could deadlock with
 * a claim if it waited for the row of an ended lease. So a count without locks comes first, and
 * finds such rows before a claim can want them. `docs/locking.md` has the argument.
 */
export function settleStatements(rows: readonly HeldRow[]): Statement[] {
  const { table, values, condition, members } = sourceOf(rows);
  const unless = (isRight: string): Statement => ({ sql: `SET @wrong = EXP(IF(${isRight}, 0, 99999))` });
  const allChanged = unless(`ROW_COUNT() = ${rows.length}`);
  if (rows.every(({ isWhole }) => isWhole)) {
    const sql = `DELETE d FROM ${table} WHERE ${condition} AND d.members = ${members} AND ${IS_HELD}`;
    if (rows.length === 1) return [{ sql, values }];
    // A subquery of SET would lock the rows that it counts.
    const countEnded = {
      sql: `SELECT COUNT(*) INTO @ended FROM ${table} WHERE ${condition} AND NOT ${IS_HELD}`,
      values,
    };
    return [countEnded, unless('@ended = 0'), { sql, values }, allChanged];
  }
  return [
    {
      sql: `UPDATE ${table} SET d.members = d.members & ~(${members}) WHERE ${condition} AND d.members & (${members}) = ${members} AND ${IS_HELD}`,
      values,
    },
    allChanged,
    { sql: `DELETE d FROM ${table} WHERE ${condition} AND d.members = 0`, values },
  ];
}
