import { indexInPack, packIdOf, type Receipt, type ReceiptErrorCode } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import { type Database, outcomeUnknown, type Transaction } from '../database/database.js';
import { isDatabaseFailure, isOutOfRange } from '../database/database-errors.js';
import { hex, hexList } from '../database/hex.js';
import type { Statement, WriteResult } from '../database/session.js';
import { groupBy } from '../group-by.js';
import { finish } from '../groups/finish.js';
import { isGrouped } from '../groups/group.js';
import { type Reach, spread } from '../groups/receipts-in-order.js';
import { type Delivery, type Fate, GONE, split } from './delivery.js';
import { byKey, DELIVERY_COLUMNS, FOR_UPDATE, isNoLease, LEASE_GRACE_MS, MOST_GROUPS } from './delivery.sql.js';
import { bitOf, has, type Members, union } from './members.js';

/** One client's receipts for messages of one queue. */
export interface ReceiptsRequest {
  queueId: number;
  receipts: readonly Receipt[];
}

/**
 * For each receipt, in the request's order: null after success, otherwise the reason for failure.
 */
export type ReceiptOutcomes = (Exclude<ReceiptErrorCode, 'invalid-request'> | null)[];

/** An operation on messages whose lease is held. */
export interface ReceiptVerb<Request> {
  /** Acquires the locks that must precede those on the deliveries. */
  begin?(tx: Transaction): Promise<void>;
  /** The new state of a request's messages. It may depend on their delivery. */
  fate(request: Request, delivery: Delivery, now: number): Fate;
  /** The outcome of a second request with the same receipt in one batch. Null: it succeeds too. */
  secondOutcome: ReceiptOutcomes[number];
  /** In an ordered queue: which other messages of the group it concerns. */
  reach: Reach;
}

/** The receipts of one pack and token, which come from one claim. */
interface Held {
  queueId: number;
  packId: Buffer;
  leaseToken: Buffer;
  members: Members;
}

/** The receipts of one delivery, as the hints in the receipts name it. */
interface HeldRow extends Held {
  part: number;
  /** The receipts name all members that the delivery had when it was leased. */
  isWhole: boolean;
}

/** A delivery is not as its receipts say, and the transaction has changed nothing. */
class OtherwiseLeased extends Error {}

function asOtherwise(error: unknown): never {
  throw isOutOfRange(error) ? new OtherwiseLeased('a delivery is not as its receipts say', { cause: error }) : error;
}

/**
 * Operations on leased messages: the caller proves its lease by a receipt.
 *
 * If a COMMIT gets no answer, the transaction is repeated. If a receipt fails in the repeat, the
 * first try may have served it. Nobody can tell, so the whole batch throws `database-unavailable`.
 * If all succeed, the repeat is answered as usual.
 */
export class Receipts {
  constructor(private readonly database: Database) {}

  /**
   * Settles the messages whose lease is held, and returns an outcome for each receipt. A lease is
   * held if a delivery with the receipt's token owes the message and its deadline has not passed.
   *
   * One round trip: {@link settleStatements} settles all receipts of the batch or none. It rolls
   * back if a lease has ended, or a delivery is no longer as it was leased. {@link change} then
   * settles those that are held, and a batch costs five round trips in all.
   */
  async settle(requests: readonly ReceiptsRequest[]): Promise<ReceiptOutcomes[]> {
    const rows = heldRows(requests);
    if (rows.length === 0) return this.outcomes(requests, [], SETTLE.secondOutcome);
    let isRepeated = false;
    const isSettled = await this.database
      .transaction(async (tx) => {
        isRepeated = tx.commitUnknown;
        const answers = await tx.finish(settleStatements(rows)).catch(asOtherwise);
        return answers.length > 1 || (answers[0] as WriteResult).affectedRows === 1;
      })
      .catch((error: unknown) => {
        if (error instanceof OtherwiseLeased) return false;
        throw error;
      });
    if (isSettled) return this.outcomes(requests, rows, SETTLE.secondOutcome);
    return (await this.change(requests, SETTLE, isRepeated)).outcomes;
  }

  /**
   * Gives the messages whose lease is held a new fate, and returns an outcome for each receipt. The
   * transaction locks the deliveries in primary-key order until COMMIT.
   *
   * @param isRepeated an earlier try, whose COMMIT got no answer, may have succeeded
   */
  async change<Request extends ReceiptsRequest>(
    requests: readonly Request[],
    verb: ReceiptVerb<Request>,
    isRepeated = false,
  ): Promise<{ outcomes: ReceiptOutcomes[]; now: number }> {
    const held = heldBy(requests);
    const { locked, now, mayBeSecond } = await this.database.transaction(async (tx) => {
      await verb.begin?.(tx);
      const found = await lockHeld(tx, held);
      const rows = new Map(found.locked.map((row) => [row, new Map<Fate, Members>()]));
      const find = finder(found.locked);
      const ended = new Map<Delivery, Members>();
      for (const request of requests) {
        const fates = new Map<Delivery, Fate>();
        for (const receipt of request.receipts) {
          const row = find(request.queueId, receipt);
          if (row === undefined) continue;
          const index = indexInPack(receipt.messageId);
          const before = ended.get(row) ?? 0;
          // An earlier receipt of this batch has ended the lease.
          if (verb.secondOutcome !== null && has(before, index)) continue;
          ended.set(row, union(before, bitOf(index)));
          let fate = fates.get(row);
          if (fate === undefined) fates.set(row, (fate = verb.fate(request, row, found.now)));
          const given = rows.get(row) as Map<Fate, Members>;
          given.set(fate, union(given.get(fate) ?? 0, bitOf(index)));
        }
      }
      const changed = [...rows].filter(([, fates]) => fates.size > 0);
      await finish(
        tx,
        changed.map(([row]) => row),
        changed.flatMap(([row, fates]) =>
          split(row, isGrouped(row) ? spread(verb.reach, row, fates, ended.get(row) ?? 0, found.now) : fates),
        ),
      );
      return { ...found, mayBeSecond: isRepeated || tx.commitUnknown };
    });
    return { outcomes: await this.outcomes(requests, locked, verb.secondOutcome, mayBeSecond), now };
  }

  /** The outcome of each receipt, from the deliveries that the transaction had locked. */
  private async outcomes(
    requests: readonly ReceiptsRequest[],
    locked: readonly Held[],
    secondOutcome: ReceiptOutcomes[number],
    isRepeated = false,
  ): Promise<ReceiptOutcomes[]> {
    const find = finder(locked);
    const ended = new Map<Held, Members>();
    const failed: Receipt[] = [];
    const outcomes = requests.map(({ queueId, receipts }) =>
      receipts.map((receipt): ReceiptOutcomes[number] | undefined => {
        const row = find(queueId, receipt);
        if (row === undefined) {
          failed.push(receipt);
          return undefined;
        }
        const [before, bit] = [ended.get(row) ?? 0, bitOf(indexInPack(receipt.messageId))];
        ended.set(row, union(before, bit));
        return (before & bit) === 0 ? null : secondOutcome;
      }),
    );
    if (failed.length === 0) return outcomes as ReceiptOutcomes[];
    if (isRepeated) throw outcomeUnknown();
    const owed = await this.owedBefore(requests, locked).catch((error: unknown) => {
      if (!isDatabaseFailure(error)) throw error;
      // The transaction is over, so its successes must be answered. `lease-lost` is true of the
      // other receipts, whether their messages are settled or not.
      return () => true;
    });
    return outcomes.map((list, request) => {
      const { queueId, receipts } = requests[request] as ReceiptsRequest;
      return list.map((outcome, index) => {
        if (outcome !== undefined) return outcome;
        return owed(queueId, receipts[index] as Receipt) ? 'lease-lost' : 'delivery-not-found';
      });
    });
  }

  /**
   * Tells which of these messages their queues owed before the transaction. It reads without locks,
   * and adds the deliveries that the transaction had locked, from which it may have taken messages.
   */
  private async owedBefore(
    requests: readonly ReceiptsRequest[],
    locked: readonly Held[],
  ): Promise<(queueId: number, receipt: Receipt) => boolean> {
    const rows = await this.database.read<Pick<Delivery, 'queueId' | 'packId' | 'members'>>(
      `SELECT d.queue_id AS queueId, d.pack_id AS packId, d.members
       FROM ${WANTED_TABLE}
       STRAIGHT_JOIN delivery d FORCE INDEX (PRIMARY)
         ON d.queue_id = wanted.queue_id
        AND d.pack_id = UNHEX(wanted.pack_id)`,
      [wantedJson(byLease(requests))],
    );
    const members = new Map<string, Members>();
    for (const { queueId, packId, members: owed } of [...rows, ...locked]) {
      const key = packKey(queueId, packId);
      members.set(key, union(members.get(key) ?? 0, owed));
    }
    return (queueId, { messageId }) => {
      const owed = members.get(packKey(queueId, packIdOf(messageId))) ?? 0;
      return has(owed, indexInPack(messageId));
    };
  }
}

/**
 * The leases that receipts name. Leaves out forged receipts with the token of deliveries without a
 * lease.
 */
function heldBy(requests: readonly ReceiptsRequest[]): Held[] {
  return byLease(requests).filter(({ leaseToken }) => !isNoLease(leaseToken));
}

/** Groups receipts by queue, pack and token, in the order of the primary key. */
function byLease(requests: readonly ReceiptsRequest[]): Held[] {
  const groups = new Map<string, Held>();
  for (const { queueId, receipts } of requests) {
    for (const { messageId, leaseToken } of receipts) {
      const packId = packIdOf(messageId);
      const key = leaseKey(queueId, packId, leaseToken);
      let group = groups.get(key);
      if (group === undefined) groups.set(key, (group = { queueId, packId, leaseToken, members: 0 }));
      group.members = union(group.members, bitOf(indexInPack(messageId)));
    }
  }
  return [...groups.values()].toSorted(
    (one, other) =>
      one.queueId - other.queueId || one.packId.compare(other.packId) || one.leaseToken.compare(other.leaseToken),
  );
}

/** Groups receipts by delivery, in the order of the primary key. Leaves out forged ones too. */
function heldRows(requests: readonly ReceiptsRequest[]): HeldRow[] {
  const rows = new Map<string, HeldRow & { leased: Members }>();
  for (const { queueId, receipts } of requests) {
    for (const { messageId, leaseToken, part, members: leased } of receipts) {
      if (isNoLease(leaseToken)) continue;
      const packId = packIdOf(messageId);
      const key = `${leaseKey(queueId, packId, leaseToken)}${part}`;
      let row = rows.get(key);
      if (row === undefined) {
        row = { queueId, packId, leaseToken, part, members: 0, leased, isWhole: false };
        rows.set(key, row);
      }
      row.members = union(row.members, bitOf(indexInPack(messageId)));
    }
  }
  for (const row of rows.values()) row.isWhole = row.members === row.leased;
  return [...rows.values()].toSorted(byKey);
}

/** Finds the delivery that owes a receipt's message under the receipt's token. */
function finder<Row extends Held>(rows: readonly Row[]): (queueId: number, receipt: Receipt) => Row | undefined {
  const rowsOf = new Map<string, Row[]>();
  for (const row of rows) {
    const key = leaseKey(row.queueId, row.packId, row.leaseToken);
    const known = rowsOf.get(key);
    if (known === undefined) rowsOf.set(key, [row]);
    else known.push(row);
  }
  return (queueId, { messageId, leaseToken }) =>
    rowsOf
      .get(leaseKey(queueId, packIdOf(messageId), leaseToken))
      ?.find(({ members }) => has(members, indexInPack(messageId)));
}

function packKey(queueId: number, packId: Buffer): string {
  return `${queueId} ${packId.toString('latin1')}`;
}

function leaseKey(queueId: number, packId: Buffer, leaseToken: Buffer): string {
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
function sourceOf(held: readonly (Held & Partial<HeldRow>)[]): Source {
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

const WANTED_TABLE = `JSON_TABLE(?, '$[*]' COLUMNS (
         queue_id INT UNSIGNED PATH '$[0]',
         pack_id CHAR(32) PATH '$[1]',
         lease_token CHAR(16) PATH '$[2]',
         part SMALLINT UNSIGNED PATH '$[3]',
         members INT UNSIGNED PATH '$[4]'
       )) wanted`;

function wantedJson(held: readonly (Held & Partial<HeldRow>)[]): string {
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

const IS_HELD = `d.available_at > ${NOW_MS} + ${LEASE_GRACE_MS}`;

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
function settleStatements(rows: readonly HeldRow[]): Statement[] {
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

export const SETTLE: ReceiptVerb<ReceiptsRequest> = {
  fate: () => GONE,
  secondOutcome: 'delivery-not-found',
  reach: 'alone',
};

/**
 * Locks the deliveries of these receipts. Also returns the time after the locks.
 *
 * The statement keeps no lock on a delivery whose lease has ended, because a claim may want it.
 * Claims lock in a different order, and MariaDB's SKIP LOCKED waits for an instant. Both servers
 * release the lock of a row at once if it does not meet the condition. This one statement takes
 * rows in the order of the key, so such a short lock harms nobody.
 */
async function lockHeld(tx: Transaction, held: readonly Held[]): Promise<{ locked: Delivery[]; now: number }> {
  if (held.length === 0) return { locked: [], now: 0 };
  const { table, values, condition, orderBy, lock } = sourceOf(held);
  const [locked, [{ now }]] = (await tx.all([
    { sql: `SELECT ${DELIVERY_COLUMNS} FROM ${table} WHERE ${condition} AND ${IS_HELD} ${orderBy} ${lock}`, values },
    { sql: `SELECT ${NOW_MS} AS now` },
  ])) as [Delivery[], [{ now: number }]];
  // A lease may have run out while the transaction waited for a lock.
  return { locked: locked.filter(({ availableAt }) => availableAt - LEASE_GRACE_MS > now), now };
}
