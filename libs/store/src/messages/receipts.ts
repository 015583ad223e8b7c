import { indexInPack, packIdOf, type Receipt, type ReceiptErrorCode } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import { type Database, outcomeUnknown, type Transaction } from '../database/database.js';
import { isDatabaseFailure, isOutOfRange } from '../database/database-errors.js';
import { hex, hexList } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';
import { type Delivery, type Fate, GONE, split } from './delivery.js';
import { DELIVERY_COLUMNS, FOR_UPDATE, isNoLease, LEASE_GRACE_MS, MOST_GROUPS, rewrite } from './delivery.sql.js';
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
}

/** The receipts of one pack and token, which come from one claim. */
interface Held {
  queueId: number;
  packId: Buffer;
  leaseToken: Buffer;
  members: Members;
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
   * One round trip: the statements lock the deliveries in primary-key order, delete those of which
   * nothing is left, and clear the members of the others. If some lease has ended, the batch fails,
   * and {@link change} settles the others in two round trips.
   */
  async settle(requests: readonly ReceiptsRequest[]): Promise<ReceiptOutcomes[]> {
    const held = heldBy(requests);
    if (held.length === 0) return this.outcomes(requests, [], 'delivery-not-found');
    const { statements, locking } = settleStatements(held);
    let isRepeated = false;
    try {
      const answers = await this.database.transaction((tx) => {
        isRepeated ||= tx.commitUnknown;
        return tx.finish(statements);
      });
      return await this.outcomes(requests, answers[locking] as Delivery[], 'delivery-not-found', isRepeated);
    } catch (error) {
      if (!isOutOfRange(error)) throw error;
    }
    return (await this.change(requests, SETTLE)).outcomes;
  }

  /**
   * Gives the messages whose lease is held a new fate, and returns an outcome for each receipt. The
   * transaction locks the deliveries in primary-key order until COMMIT.
   */
  async change<Request extends ReceiptsRequest>(
    requests: readonly Request[],
    verb: ReceiptVerb<Request>,
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
      await tx.finish(
        rewrite(
          changed.map(([row]) => row),
          changed.flatMap(([row, fates]) => split(row, fates)),
        ),
      );
      return { ...found, mayBeSecond: tx.commitUnknown };
    });
    return { outcomes: await this.outcomes(requests, locked, verb.secondOutcome, mayBeSecond), now };
  }

  /** The outcome of each receipt, from the deliveries that the transaction had locked. */
  private async outcomes(
    requests: readonly ReceiptsRequest[],
    locked: readonly Delivery[],
    secondOutcome: ReceiptOutcomes[number],
    isRepeated = false,
  ): Promise<ReceiptOutcomes[]> {
    const find = finder(locked);
    const ended = new Map<Delivery, Members>();
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
    locked: readonly Delivery[],
  ): Promise<(queueId: number, receipt: Receipt) => boolean> {
    const rows = await this.database.read<Pick<Delivery, 'queueId' | 'packId' | 'members'>>(
      `SELECT d.queue_id AS queueId, d.pack_id AS packId, d.members
       FROM ${wantedTable('?')}
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

/** Finds the delivery that owes a receipt's message under the receipt's token. */
function finder(rows: readonly Delivery[]): (queueId: number, receipt: Receipt) => Delivery | undefined {
  const rowsOf = new Map<string, Delivery[]>();
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
  /** Statements that must precede. */
  setUp: Statement[];
  /** The table, for FROM and UPDATE. */
  table: string;
  condition: string;
  orderBy: string;
  /** The members that the receipts of a delivery name. */
  members: string;
  lock: string;
}

/**
 * Finds the deliveries of receipts by pack and token, in primary-key order. One condition covers
 * the packs of a queue, token and set of members. More than MOST_GROUPS become a list to join.
 *
 * The token excludes rows without a lease, and the deadline those whose lease has ended. A claim
 * may want only these.
 */
function sourceOf(held: readonly Held[]): Source {
  const groups = [
    ...groupBy(held, ({ queueId, leaseToken, members }) => `${queueId} ${hex(leaseToken)} ${members}`).values(),
  ];
  if (groups.length > MOST_GROUPS) {
    return {
      setUp: [{ sql: 'SET @wanted = ?', values: [wantedJson(held)] }],
      table: `${wantedTable('@wanted')}
       STRAIGHT_JOIN delivery d FORCE INDEX (PRIMARY)
         ON d.queue_id = wanted.queue_id
        AND d.pack_id = UNHEX(wanted.pack_id)
        AND d.lease_token = UNHEX(wanted.lease_token)`,
      condition: 'TRUE',
      orderBy: '',
      members: 'wanted.members',
      lock: FOR_UPDATE,
    };
  }
  const conditions = groups.map((group) => {
    const [{ queueId, leaseToken, members }] = group as [Held];
    const ids = hexList(group.map(({ packId }) => packId));
    return {
      row: `(d.queue_id = ${queueId} AND d.pack_id IN (${ids}) AND d.lease_token = ${hex(leaseToken)})`,
      members,
    };
  });
  return {
    setUp: [],
    table: 'delivery d FORCE INDEX (PRIMARY)',
    condition: `(${conditions.map(({ row }) => row).join('\n         OR ')})`,
    orderBy: 'ORDER BY d.queue_id, d.pack_id, d.lease_token',
    members:
      conditions.length === 1
        ? String(conditions[0]?.members)
        : `CASE ${conditions.map(({ row, members }) => `WHEN ${row} THEN ${members}`).join(' ')} END`,
    lock: 'FOR UPDATE',
  };
}

function wantedTable(json: string): string {
  return `JSON_TABLE(${json}, '$[*]' COLUMNS (
         queue_id INT UNSIGNED PATH '$[0]',
         pack_id CHAR(32) PATH '$[1]',
         lease_token CHAR(16) PATH '$[2]',
         members INT UNSIGNED PATH '$[3]'
       )) wanted`;
}

function wantedJson(held: readonly Held[]): string {
  return JSON.stringify(
    held.map(({ queueId, packId, leaseToken, members }) => [
      queueId,
      packId.toString('hex'),
      leaseToken.toString('hex'),
      members,
    ]),
  );
}

const SET_DEADLINE: Statement = { sql: `SET @deadline = ${NOW_MS} + ${LEASE_GRACE_MS}` };
const IS_HELD = 'd.available_at > @deadline';

function lockStatement({ table, condition, orderBy, lock }: Source): Statement {
  return { sql: `SELECT ${DELIVERY_COLUMNS} FROM ${table} WHERE ${condition} AND ${IS_HELD} ${orderBy} ${lock}` };
}

/**
 * Locks the deliveries of these receipts, deletes those of which nothing is left, and clears the
 * members of the others. Also returns the place of the first of these statements.
 *
 * All three find the same rows: `@deadline` does not move, the first locks the rows, and only a
 * holder of these locks adds rows under their tokens.
 *
 * The DELETE and the UPDATE would also lock a row whose lease has ended, until they see that. They
 * would take it after rows that come later in the key, and could deadlock. So a count without locks
 * comes first. If it finds such a row, `EXP` overflows, and the batch fails with 1690.
 */
function settleStatements(held: readonly Held[]): { statements: Statement[]; locking: number } {
  const source = sourceOf(held);
  const { setUp, table, condition, members } = source;
  const before = [
    ...setUp,
    SET_DEADLINE,
    { sql: `SELECT COUNT(*) INTO @ended FROM ${table} WHERE ${condition} AND NOT ${IS_HELD}` },
    { sql: 'SET @ended = EXP(IF(@ended = 0, 0, 99999))' },
  ];
  return {
    statements: [
      ...before,
      lockStatement(source),
      { sql: `DELETE d FROM ${table} WHERE ${condition} AND ${IS_HELD} AND d.members & ~(${members}) = 0` },
      {
        sql: `UPDATE ${table} SET d.members = d.members & ~(${members}) WHERE ${condition} AND ${IS_HELD} AND d.members & (${members}) <> 0`,
      },
    ],
    locking: before.length,
  };
}

const SETTLE: ReceiptVerb<ReceiptsRequest> = { fate: () => GONE, secondOutcome: 'delivery-not-found' };

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
  const source = sourceOf(held);
  const answers = await tx.all([
    ...source.setUp,
    SET_DEADLINE,
    lockStatement(source),
    { sql: `SELECT ${NOW_MS} AS now` },
  ]);
  const [locked, [{ now }]] = answers.slice(-2) as [Delivery[], [{ now: number }]];
  // A lease may have run out while the transaction waited for a lock.
  return { locked: locked.filter(({ availableAt }) => availableAt - LEASE_GRACE_MS > now), now };
}
