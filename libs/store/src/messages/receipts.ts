import { indexInPack, packIdOf, type Receipt, type ReceiptErrorCode } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import { type Database, outcomeUnknown, type Transaction } from '../database/database.js';
import { isDatabaseFailure, isOutOfRange } from '../database/database-errors.js';
import type { WriteResult } from '../database/session.js';
import { finish } from '../groups/finish.js';
import { lockFollowers } from '../groups/followers.js';
import { isGrouped } from '../groups/group.js';
import type { Group } from '../groups/group.sql.js';
import { type Reach, spread } from '../groups/receipts-in-order.js';
import { WAITING } from '../groups/waiting.js';
import { type Delivery, type Fate, GONE, split } from './delivery.js';
import { byKey, DELIVERY_COLUMNS, isNoLease, LEASE_GRACE_MS } from './delivery.sql.js';
import { bitOf, has, type Members, union, without } from './members.js';
import {
  type Held,
  type HeldRow,
  IS_HELD,
  leaseKey,
  settleStatements,
  sourceOf,
  WANTED_TABLE,
  wantedJson,
} from './receipts.sql.js';

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
  /**
   * Acquires the locks that must precede those on the deliveries. Returns the queue to which the
   * messages move, if they do.
   */
  begin?(tx: Transaction): Promise<number>;
  /** The new state of a request's messages. It may depend on their delivery. */
  fate(request: Request, delivery: Delivery, now: number): Fate;
  /** The outcome of a second request with the same receipt in one batch. Null: it succeeds too. */
  secondOutcome: ReceiptOutcomes[number];
  /** In an ordered queue: which other messages of the group it concerns. */
  reach: Reach;
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
   * Settles the messages whose lease is held, in queues without ordering. Returns an outcome for
   * each receipt. A lease is held if a delivery with the receipt's token owes the message and its
   * deadline has not passed.
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
    return (await this.change(requests, SETTLE, { isRepeated, isOrdered: false })).outcomes;
  }

  /**
   * Gives the messages whose lease is held a new fate, and returns an outcome for each receipt. The
   * transaction locks the deliveries in primary-key order until COMMIT, then the groups, then the
   * deliveries that wait.
   *
   * @param options.isRepeated an earlier try, whose COMMIT got no answer, may have succeeded
   * @param options.isOrdered one of the queues may be ordered, so there may be followers
   */
  async change<Request extends ReceiptsRequest>(
    requests: readonly Request[],
    verb: ReceiptVerb<Request>,
    { isRepeated = false, isOrdered = true }: { isRepeated?: boolean; isOrdered?: boolean } = {},
  ): Promise<{ outcomes: ReceiptOutcomes[]; now: number }> {
    const held = heldBy(requests);
    const { locked, now, mayBeSecond } = await this.database.transaction(async (tx) => {
      const targetId = await verb.begin?.(tx);
      const found = await lockHeld(tx, held, isOrdered, targetId);
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
        found.groups,
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
      const key = leaseKey({ queueId, packId, leaseToken });
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
      const key = `${leaseKey({ queueId, packId, leaseToken })}${part}`;
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
    const key = leaseKey(row);
    const known = rowsOf.get(key);
    if (known === undefined) rowsOf.set(key, [row]);
    else known.push(row);
  }
  return (queueId, { messageId, leaseToken }) =>
    rowsOf
      .get(leaseKey({ queueId, packId: packIdOf(messageId), leaseToken }))
      ?.find(({ members }) => has(members, indexInPack(messageId)));
}

function packKey(queueId: number, packId: Buffer): string {
  return `${queueId} ${packId.toString('latin1')}`;
}

export const SETTLE: ReceiptVerb<ReceiptsRequest> = {
  fate: () => GONE,
  secondOutcome: 'delivery-not-found',
  reach: 'alone',
};

/** Deliveries that a transaction has locked, and the time after the locks. */
interface LockedHeld {
  locked: Delivery[];
  /** The groups that it has locked: all that it needs, or none. */
  groups: Group[];
  now: number;
}

/**
 * Locks the deliveries of these receipts.
 *
 * The statement keeps no lock on a delivery whose lease has ended, because a claim may want it.
 * Claims lock in a different order, and MariaDB's SKIP LOCKED waits for an instant. Both servers
 * release the lock of a row at once if it does not meet the condition. This one statement takes
 * rows in the order of the key, so such a short lock harms nobody.
 *
 * It keeps no lock on a follower either, because the group's row comes before it. If receipts are
 * left, they may be those of followers: see {@link lockFollowers}.
 */
async function lockHeld(
  tx: Transaction,
  held: readonly Held[],
  isOrdered: boolean,
  targetId: number | undefined,
): Promise<LockedHeld> {
  if (held.length === 0) return { locked: [], groups: [], now: 0 };
  const { table, values, condition, orderBy, lock } = sourceOf(held);
  const [rows, [{ now }]] = (await tx.all([
    {
      sql: `SELECT ${DELIVERY_COLUMNS} FROM ${table} WHERE ${condition} AND ${IS_HELD} AND d.available_at < ${WAITING} ${orderBy} ${lock}`,
      values,
    },
    { sql: `SELECT ${NOW_MS} AS now` },
  ])) as [Delivery[], [{ now: number }]];
  // A lease may have run out while the transaction waited for a lock.
  const locked = rows.filter(({ availableAt }) => availableAt - LEASE_GRACE_MS > now);
  const missing = isOrdered ? leftBy(held, locked) : [];
  if (missing.length === 0) return { locked, groups: [], now };
  const found = await lockFollowers(tx, missing, locked, targetId);
  return { locked: [...locked, ...found.followers], groups: found.groups, now: found.now };
}

/** The receipts of messages that none of these deliveries owes. */
function leftBy(held: readonly Held[], locked: readonly Held[]): Held[] {
  const owed = new Map<string, Members>();
  for (const row of locked) owed.set(leaseKey(row), union(owed.get(leaseKey(row)) ?? 0, row.members));
  return held.flatMap((one) => {
    const members = without(one.members, owed.get(leaseKey(one)) ?? 0);
    return members === 0 ? [] : [{ ...one, members }];
  });
}
