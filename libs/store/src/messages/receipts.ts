import type { Receipt, ReceiptErrorCode } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import type { Statement, WriteResult } from '../database/session.js';
import { deleteDeliveries, isNoLease, LEASE_GRACE_MS, NO_LEASE } from './delivery.sql.js';
import { groupBy } from '../group-by.js';
import { hex, hexList } from '../database/hex.js';

/** One client's receipts for deliveries of one queue. */
export interface ReceiptsRequest {
  queueId: number;
  receipts: readonly Receipt[];
}

/**
 * For each receipt, in the request's order: null after success, otherwise the reason for failure.
 */
export type ReceiptOutcomes = (Exclude<ReceiptErrorCode, 'invalid-request'> | null)[];

/** A delivery that a receipt names. */
interface LeaseRow {
  messageId: Buffer;
  leaseToken: Buffer;
  availableAt: number;
  /** The delivery was under a lease of these receipts, and the transaction has locked its row. */
  isLocked: boolean;
}

/** An operation on deliveries whose lease is held. */
export interface ReceiptVerb<Request> {
  /** Acquires the locks that must precede those on the deliveries. */
  begin?(tx: Transaction): Promise<void>;
  apply(request: Request, messageIds: readonly Buffer[], now: number): Statement;
  /** The outcome of a second request with the same receipt. Null: it succeeds as well. */
  secondOutcome: ReceiptOutcomes[number];
  /**
   * Tells whether an earlier try, whose COMMIT got no answer, had applied the operation to a
   * delivery. The lease was held at that try.
   * @param isBeforeItsEnd the lease would still run if no try had applied the operation
   * @param isDeadLettered the delivery is in the dead-letter queue
   */
  wasApplied(row: LeaseRow | undefined, isBeforeItsEnd: boolean, isDeadLettered: boolean): boolean;
}

/** With more groups than this, a condition per queue and token costs more than it saves. */
const GROUPS_IN_ONE_CONDITION = 50;

/** Some of the leases are not held, so the transaction rolls back. */
class NotAllHeld extends Error {}

/** Operations on leased deliveries: the caller proves its lease by a receipt. */
export class Receipts {
  constructor(private readonly database: Database) {}

  /**
   * Applies an operation to the deliveries whose lease is held, and returns an outcome for each
   * receipt. A lease is held if the receipt has its token and its deadline has not passed.
   *
   * The transaction locks the rows in primary-key order until COMMIT: {@link lockLeases}.
   */
  async change<Request extends ReceiptsRequest>(
    requests: readonly Request[],
    verb: ReceiptVerb<Request>,
  ): Promise<{ outcomes: ReceiptOutcomes[]; now: number }> {
    const held: HeldLeases = new Map();
    return this.database.transaction((tx) => changeHeld(tx, requests, verb, held));
  }

  /**
   * Deletes the deliveries whose lease is held. The first transaction deletes all or none. If some
   * lease is not held, a second transaction checks each receipt: {@link change}.
   *
   * Both lock the rows in primary-key order.
   */
  async delete(requests: readonly ReceiptsRequest[]): Promise<ReceiptOutcomes[]> {
    const allHeld: HeldLeases = new Map(requests.flatMap(({ receipts }) => receipts.map((receipt) => [receipt, 0])));
    try {
      return await this.database.transaction(async (tx) => {
        // Only this transaction knows that an earlier COMMIT got no answer. A failure of another
        // transaction would claim that nothing was deleted.
        if (tx.commitUnknown) return (await changeHeld(tx, requests, DELETE, allHeld)).outcomes;
        await deleteAll(tx, requests);
        return requests.map(({ receipts }) => receipts.map(() => null));
      });
    } catch (error) {
      if (!(error instanceof NotAllHeld)) throw error;
    }
    return (await this.change(requests, DELETE)).outcomes;
  }
}

const DELETE: ReceiptVerb<ReceiptsRequest> = {
  apply: ({ queueId }, messageIds) => deleteDeliveries(queueId, messageIds),
  secondOutcome: 'delivery-not-found',
  // A delivery in the dead-letter queue was not deleted: its lease ran out between the tries, and a
  // claim or the reaper moved it.
  wasApplied: (row, _isBeforeItsEnd, isDeadLettered) => row === undefined && !isDeadLettered,
};

/** Leases that some try found held, with their deadlines. */
type HeldLeases = Map<Receipt, number>;

/** Makes one try of {@link Receipts.change}. Adds the leases that it finds held to `held`. */
async function changeHeld<Request extends ReceiptsRequest>(
  tx: Transaction,
  requests: readonly Request[],
  verb: ReceiptVerb<Request>,
  held: HeldLeases,
): Promise<{ outcomes: ReceiptOutcomes[]; now: number }> {
  await verb.begin?.(tx);
  const { now, find } = await lockLeases(tx, requests);
  const deadLettered = tx.commitUnknown ? await findDeadLettered(tx, requests) : new Set<string>();
  const ended = new Set<LeaseRow>();
  const statements: Statement[] = [];
  const outcomes = requests.map((request) => {
    const messageIds: Buffer[] = [];
    const outcome = request.receipts.map((receipt): ReceiptOutcomes[number] => {
      const row = find(request.queueId, receipt.messageId);
      if (row !== undefined && ended.has(row)) return verb.secondOutcome;
      if (isHeld(row, receipt, now)) {
        if (verb.secondOutcome !== null) ended.add(row);
        messageIds.push(receipt.messageId);
        held.set(receipt, row.availableAt - LEASE_GRACE_MS);
        return null;
      }
      const end = tx.commitUnknown ? held.get(receipt) : undefined;
      const isDeadLettered = deadLettered.has(rowKey(request.queueId, receipt.messageId));
      if (end !== undefined && verb.wasApplied(row, now < end, isDeadLettered)) return null;
      return row === undefined ? 'delivery-not-found' : 'lease-lost';
    });
    if (messageIds.length > 0) statements.push(verb.apply(request, messageIds, now));
    return outcome;
  });
  await tx.finish(statements);
  return { outcomes, now };
}

/**
 * Deletes all deliveries. Throws {@link NotAllHeld}, which rolls back, if some lease is not held.
 */
async function deleteAll(tx: Transaction, requests: readonly ReceiptsRequest[]): Promise<void> {
  const wanted = requests.reduce((sum, { receipts }) => sum + receipts.length, 0);
  const deleted = (await tx.all(deleteLeased(receiptsByQueue(requests)))) as WriteResult[];
  if (deleted.reduce((sum, { affectedRows }) => sum + affectedRows, 0) !== wanted) throw new NotAllHeld();
}

/**
 * Deletes those of these deliveries whose lease is held, in primary-key order. One condition covers
 * all deliveries of a queue and a token, which come from one claim.
 *
 * Both servers obey the index hint in the multi-table form. With few tokens it costs a quarter less
 * than the join with a list in {@link deleteDeliveries}. Its plan is certain only with the token
 * among the conditions. `docs/decisions/0001-delete-by-primary-key.md` has the measurements.
 */
function deleteLeased(byQueue: ReturnType<typeof receiptsByQueue>): Statement[] {
  const groups = byQueue.flatMap(([queueId, receipts]) => {
    const byToken = groupBy(receipts, ({ leaseToken }) => hex(leaseToken));
    return Array.from(byToken, ([token, group]) => {
      const messageIds = group.map(({ messageId }) => messageId);
      return `(d.queue_id = ${queueId} AND d.message_id IN (${hexList(messageIds)}) AND d.lease_token = ${token})`;
    });
  });
  if (groups.length > GROUPS_IN_ONE_CONDITION) {
    return byQueue.map(([queueId, receipts]) => deleteLeasedByList(queueId, receipts));
  }
  const sql = `
  DELETE d
  FROM delivery d FORCE INDEX (PRIMARY)
  WHERE (${groups.join('\n     OR ')})
    AND d.lease_token <> ${NO_LEASE}
    AND d.available_at > ${NOW_MS} + ${LEASE_GRACE_MS}`;
  return groups.length === 0 ? [] : [{ sql }];
}

/** Does the work of {@link deleteLeased} for many groups. */
function deleteLeasedByList(queueId: number, receipts: readonly Receipt[]): Statement {
  const sorted = receipts
    .map(({ messageId, leaseToken }) => messageId.toString('hex') + leaseToken.toString('hex'))
    .toSorted();
  return {
    sql: `
  DELETE d
  FROM JSON_TABLE(?, '$[*]' COLUMNS (receipt CHAR(48) PATH '$')) receipts
  STRAIGHT_JOIN delivery d FORCE INDEX (PRIMARY)
    ON d.queue_id = ? AND d.message_id = UNHEX(LEFT(receipts.receipt, 32))
  WHERE d.lease_token = UNHEX(RIGHT(receipts.receipt, 16))
    AND d.lease_token <> ${NO_LEASE}
    AND d.available_at > ${NOW_MS} + ${LEASE_GRACE_MS}`,
    values: [JSON.stringify(sorted), queueId],
  };
}

/**
 * Locks the deliveries that are under a lease of these requests' receipts: queues in id order, rows
 * in primary-key order. Reads the other deliveries without locks, to explain their outcomes.
 *
 * The statement's condition keeps it from holding a claimable row while it waits for another.
 * Claims lock in a different order, and MariaDB's SKIP LOCKED waits for an instant. Both servers
 * release the lock of a row that does not meet the condition at once.
 */
async function lockLeases(
  tx: Transaction,
  requests: readonly ReceiptsRequest[],
): Promise<{ now: number; find: (queueId: number, messageId: Buffer) => LeaseRow | undefined }> {
  const byQueue = receiptsByQueue(requests);
  const rows = new Map<string, LeaseRow>();
  const add = (
    queues: readonly (readonly [number, unknown])[],
    answers: readonly unknown[],
    isLocked: boolean,
  ): void => {
    for (const [index, [queueId]] of queues.entries()) {
      for (const row of answers[index] as Omit<LeaseRow, 'isLocked'>[]) {
        rows.set(rowKey(queueId, row.messageId), { ...row, isLocked });
      }
    }
  };
  const answers = await tx.all([
    ...byQueue.map(([queueId, receipts]) => lockHeld(queueId, receipts)),
    // The time comes after the locks, because leases may run out while the transaction waits.
    { sql: `SELECT ${NOW_MS} AS now` },
  ]);
  add(byQueue, answers, true);
  const others = byQueue
    .map(([queueId, receipts]): [number, Buffer[]] => [
      queueId,
      receipts.map(({ messageId }) => messageId).filter((messageId) => !rows.has(rowKey(queueId, messageId))),
    ])
    .filter(([, messageIds]) => messageIds.length > 0);
  add(others, await tx.all(others.map(([queueId, messageIds]) => readUnlocked(queueId, messageIds))), false);
  return {
    now: (answers.at(-1) as [{ now: number }])[0].now,
    find: (queueId, messageId) => rows.get(rowKey(queueId, messageId)),
  };
}

/** Finds those of these deliveries that are in their queues' dead-letter queues, without locks. */
async function findDeadLettered(tx: Transaction, requests: readonly ReceiptsRequest[]): Promise<Set<string>> {
  const byQueue = receiptsByQueue(requests);
  const answers = await tx.all(
    byQueue.map(([queueId, receipts]) => ({
      sql: `SELECT d.message_id AS messageId
         FROM queue q
         STRAIGHT_JOIN delivery d FORCE INDEX (PRIMARY) ON d.queue_id = q.dead_letter_queue_id
         WHERE q.id = ?
           AND d.message_id IN (?)`,
      values: [queueId, receipts.map(({ messageId }) => messageId)],
    })),
  );
  const found = (answers as { messageId: Buffer }[][]).map((rows, index) =>
    rows.map(({ messageId }) => rowKey(byQueue[index]?.[0] ?? 0, messageId)),
  );
  return new Set(found.flat());
}

function rowKey(queueId: number, messageId: Buffer): string {
  return `${queueId} ${messageId.toString('latin1')}`;
}

const FIND_ROWS = `SELECT message_id AS messageId, lease_token AS leaseToken, available_at AS availableAt
         FROM delivery FORCE INDEX (PRIMARY)
         WHERE queue_id = ?
           AND message_id IN (?)`;

function lockHeld(queueId: number, receipts: readonly Receipt[]): Statement {
  const tokens = new Map(receipts.map(({ leaseToken }) => [leaseToken.toString('latin1'), leaseToken]));
  return {
    sql: `${FIND_ROWS}
           AND lease_token IN (?)
           AND available_at > ${NOW_MS} + ${LEASE_GRACE_MS}
         ORDER BY message_id
         FOR UPDATE`,
    values: [queueId, receipts.map(({ messageId }) => messageId), [...tokens.values()]],
  };
}

function readUnlocked(queueId: number, messageIds: readonly Buffer[]): Statement {
  return { sql: FIND_ROWS, values: [queueId, messageIds] };
}

/** Groups receipts by queue, in order of queue ids. */
function receiptsByQueue(requests: readonly ReceiptsRequest[]): [number, Receipt[]][] {
  const groups = groupBy(
    requests.filter(({ receipts }) => receipts.length > 0),
    ({ queueId }) => queueId,
  );
  return Array.from(groups, ([queueId, group]): [number, Receipt[]] => [
    queueId,
    group.flatMap(({ receipts }) => receipts),
  ]).toSorted(([one], [other]) => one - other);
}

/** Whether a receipt proves the lease that a delivery is under at this time. */
function isHeld(row: LeaseRow | undefined, receipt: Receipt, now: number): row is LeaseRow {
  return (
    row?.isLocked === true &&
    !isNoLease(row.leaseToken) &&
    row.leaseToken.equals(receipt.leaseToken) &&
    row.availableAt - LEASE_GRACE_MS > now
  );
}
