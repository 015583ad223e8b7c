import { LIMITS, mostPackBytes } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { TryAgain } from '../database/database-errors.js';
import type { Queue } from '../queues/queue.js';
import { isGrouped } from '../groups/group.js';
import { copyOf, type Delivery, type Fate, GONE, oneCopyOfEach, partOf, split } from './delivery.js';
import { DELIVERY_COLUMNS, LEASE_GRACE_MS, lockByKey, type Position, rewrite } from './delivery.sql.js';
import { newLeaseToken } from './lease-token.js';
import {
  firstReceiveOf,
  type Lease,
  type LeasedMessage,
  nextReceiveCount,
  readLeased,
  readPacks,
} from './leased-message.js';
import { bitOf, countAll, countMembers, has, indexesOf, type Members, union } from './members.js';
import { inRanges, peekStatement, type Range } from './peek.sql.js';
import { type Floors, type IndexPosition, type QueueViews, RANKS } from './queue-view.js';
import type { StoredPack } from './stored-pack.js';

/** One consumer's request for messages. */
export interface Demand {
  maxMessages: number;
  leaseSeconds: number;
}

/** The demands of one queue's consumers, in the order in which they came. */
export interface ClaimRequest {
  queue: Queue;
  demands: readonly Demand[];
}

/** The result of a claim in one queue. */
export interface Claimed {
  /** One list for each demand. */
  leased: LeasedMessage[][];
  /**
   * Over-received deliveries that the claim met. They are moved in a transaction of their own: it
   * waits for the queue's row, and must then hold no delivery.
   */
  overReceived: Position[];
  /**
   * Expired deliveries that go in a transaction of their own. They are the first of their groups,
   * for which it waits, or move to the dead-letter queue, and it waits for the queue's row.
   */
  expiredLater: Position[];
  /** They move to the dead-letter queue, instead of being settled. */
  keepsExpired: boolean;
  /** Number of expired messages that the claim removed. */
  expired: number;
  /** The claim leased less than the demands wanted. */
  isShort: boolean;
  /** Number of deliveries that the claim tried to lock and could not. */
  missed: number;
  /** The claim did not try to lease all ready deliveries. */
  leftMore: boolean;
}

/** A delivery that a peek saw. */
type Seen = IndexPosition & { members: Members };

interface Peek {
  positions: readonly Seen[];
  /** The peek saw all ready deliveries. */
  isWhole: boolean;
}

/** The claim leases this message to the demand with this index. */
interface Assignment {
  delivery: Delivery;
  /** The message's index in its pack. */
  index: number;
  demand: number;
}

/** The settings that a claim reads afresh: the caller's copy may be a second old. */
interface ClaimSettings extends Pick<Queue, 'maxReceives' | 'deadLetterQueueId'> {
  deadLetterExpired: number;
}

/** The part of a claim for one queue. */
interface Plan {
  queueId: number;
  /** No receipt of one queue may hold in another that owes the same message. */
  leaseToken: Buffer;
  demands: readonly Demand[];
  peek: Peek;
  rowsToLock: number;
}

/** The result of a claim's transaction in one queue. */
interface ClaimedRows {
  assignments: Assignment[];
  /** The members of each delivery that share a row now, by its new `available_at`. */
  leasedRows: Map<Delivery, Map<number, Members>>;
  expired: Delivery[];
  overReceived: Delivery[];
  expiredLater: Delivery[];
  keepsExpired: boolean;
  /** The rows that the transaction deleted: expired ones, and those that it leased from. */
  replaced: Delivery[];
  /** Some demands got fewer messages than they could, because these are large. */
  isCut: boolean;
  /** Number of deliveries that the transaction locked. */
  rowsLocked: number;
  /** Some locked deliveries stay for the next claim, see {@link oneCopyOfEach}. */
  leftCopies: boolean;
  now: number;
  packs: StoredPack[];
}

const NOTHING: ClaimedRows = {
  assignments: [],
  leasedRows: new Map(),
  expired: [],
  overReceived: [],
  expiredLater: [],
  keepsExpired: false,
  replaced: [],
  isCut: false,
  rowsLocked: 0,
  leftCopies: false,
  now: 0,
  packs: [],
};
const CLOCK: Statement = { sql: `SELECT ${NOW_MS} AS now` };
const FROM_THE_LEFT_EDGE: Floors = new Map(RANKS.map((rank) => [rank, 0]));
/**
 * The most bytes of packs that one claim reads, for all its consumers. It always leases one
 * message. 1,000 packs of 4 KiB stay below it.
 */
const CLAIM_BYTES = 2 * LIMITS.answerBytes;
/**
 * A claim locks up to this many rows after one that met expired or over-received deliveries. It
 * must get past them.
 */
const LOCK_AFTER_REMOVAL = 200;
/**
 * A claim peeks at up to this many deliveries if the last one leased nothing and found locked rows.
 * SKIP LOCKED then gets past the rows that another claim holds.
 */
const PEEK_PAST_OTHERS = 1000;
/** After a cut, a claim locks this many times the rows that fitted: the next may be smaller. */
const ROOM_FOR_LIGHTER = 2;
/** Claims messages. */
export class Claim {
  constructor(
    private readonly database: Database,
    private readonly views: QueueViews,
  ) {}

  /**
   * Leases ready messages to consumers of one or several queues, in one transaction. In each queue,
   * first come first served: peek without locks, lock what the peek saw, sort, lease, read the
   * bodies. The most urgent messages come first, then those that have been available longest.
   */
  async run(requests: readonly ClaimRequest[]): Promise<Claimed[]> {
    const plans = await this.peek(requests);
    const locking = plans.filter(({ rowsToLock }) => rowsToLock > 0).toSorted(byQueue);
    const claims = locking.length === 0 ? [] : await this.database.transaction(leaseSeen(locking));
    const claimed = new Map(locking.map((plan, index) => [plan, claims[index]]));
    return Promise.all(plans.map(async (plan) => this.end(plan, claimed.get(plan) ?? NOTHING)));
  }

  /** Remembers what a claim met in one queue, and reads the messages that it leased there. */
  private async end({ queueId, leaseToken, demands, peek, rowsToLock }: Plan, claimed: ClaimedRows): Promise<Claimed> {
    const view = this.views.of(queueId);
    const missed = Math.max(0, rowsToLock - claimed.rowsLocked);
    view.isObstructed = claimed.expired.length + claimed.overReceived.length + claimed.expiredLater.length > 0;
    view.isOccupied = missed > 0 && claimed.assignments.length === 0;
    view.rowsThatFit = claimed.isCut ? ROOM_FOR_LIGHTER * claimed.replaced.length : Infinity;
    return {
      leased: await this.readMessages(claimed, demands, leaseToken),
      overReceived: claimed.overReceived,
      expiredLater: claimed.expiredLater,
      keepsExpired: claimed.keepsExpired,
      expired: countAll(claimed.expired),
      isShort: claimed.assignments.length < messagesOf(demands),
      missed,
      leftMore: claimed.isCut || claimed.leftCopies || rowsToLock < peek.positions.length || !peek.isWhole,
    };
  }

  /**
   * Reads the first ready deliveries of each queue without locks, in hand-out order, and plans what
   * to lock.
   *
   * A claim peeks first because it must not lock in an exhausted range. On both servers, a locking
   * read of one walks on over the dead entries behind it. While InnoDB's purge is held up, these
   * are hundreds of thousands. The read locks the first live entry beyond the end of its range.
   * That entry may be a leased delivery, whose ack then waits. Decision 7,
   * `docs/decisions/0007-peek-then-lock.md`, has the measurements.
   */
  private async peek(requests: readonly ClaimRequest[]): Promise<Plan[]> {
    const looks = requests.map(({ queue: { id: queueId }, demands }) => {
      const view = this.views.of(queueId);
      const rowsWanted = Math.min(messagesOf(demands), view.rowsThatFit);
      const mostRows = view.isObstructed ? Math.max(rowsWanted, LOCK_AFTER_REMOVAL) : rowsWanted;
      const limit = view.isOccupied ? Math.max(mostRows, PEEK_PAST_OTHERS) : mostRows;
      if (view.isWideDue) view.expectMore();
      // No priority has a floor: only a rescan could find deliveries.
      const { floors = FROM_THE_LEFT_EDGE } = view;
      const statement = floors.size === 0 ? undefined : peekStatement(queueId, floors, limit);
      return { queueId, demands, view, mostRows, limit, statement, begunAt: view.lowerings };
    });
    const statements = looks.flatMap(({ statement }) => statement ?? []);
    const answers = statements.length === 0 ? [] : await this.database.all([CLOCK, ...statements]);
    const [{ now: databaseTime } = { now: 0 }] = (answers.shift() ?? []) as { now: number }[];
    return looks.map(({ queueId, demands, view, mostRows, limit, statement, begunAt }) => {
      const seen = statement === undefined ? [] : (answers.shift() as Seen[]);
      const isWhole = seen.length < limit;
      if (statement !== undefined) view.endPeek({ begunAt, databaseTime, seen, isWhole });
      const rowsToLock = view.isObstructed ? Math.min(seen.length, mostRows) : rowsThatHold(messagesOf(demands), seen);
      return { queueId, leaseToken: newLeaseToken(), demands, peek: { positions: seen, isWhole }, rowsToLock };
    });
  }

  /** Returns the leased messages of each demand, with their bodies. */
  private async readMessages(
    { assignments, leasedRows, packs, now }: ClaimedRows,
    demands: readonly Demand[],
    leaseToken: Buffer,
  ): Promise<LeasedMessage[][]> {
    const leases = assignments.map(({ delivery, index, demand }): Lease => {
      const leaseExpiresAt = now + (demands[demand] as Demand).leaseSeconds * 1000;
      const members = leasedRows.get(delivery)?.get(leaseExpiresAt + LEASE_GRACE_MS) ?? bitOf(index);
      const receipt = {
        leaseToken,
        part: partOf(copyOf(delivery.part), members),
        members,
        receiveCount: nextReceiveCount(delivery),
        firstReceivedAt: firstReceiveOf(delivery, now),
      };
      return { delivery, index, receipt, leaseExpiresAt };
    });
    const leased = demands.map((): LeasedMessage[] => []);
    for (const [nth, message] of (await readLeased(this.database, leases, packs)).entries())
      if (message !== undefined) leased[(assignments[nth] as Assignment).demand]?.push(message);
    return leased;
  }
}

/**
 * The transaction of a claim. Queue by queue, it locks deliveries in the ranges that the peek saw,
 * skips those that other transactions have locked, and leases their messages to the demands.
 *
 * @param plans in the order of their queues' ids
 */
function leaseSeen(plans: readonly Plan[]): (tx: Transaction) => Promise<ClaimedRows[]> {
  /** The outcome of the last try, whose COMMIT may have got no answer. */
  let last: ClaimedRows[] = [];
  return async (tx) => {
    const replaced = last.flatMap((claimed) => claimed.replaced);
    if (tx.commitUnknown && replaced.length > 0) {
      // The last try's COMMIT may still be under way. If it succeeded after a look without this
      // wait, nobody would get its messages until the lease ran out.
      await tx.all([lockByKey(replaced)]);
      const leased = await findLeased(tx, plans, last);
      if (leased.some(({ length }) => length > 0))
        return last.map((claimed, index) => ({ ...claimed, assignments: leased[index] ?? [], packs: [] }));
      last = [];
      // The wait may have locked rows, and a claim locks index entries before rows: start anew.
      throw new TryAgain('the last try of a claim leased nothing');
    }

    const { locked, now } = await lockSeen(tx, plans);
    let claimBytes = 0;
    const after: Delivery[] = [];
    last = plans.map((plan, index) => {
      const { claimed, rows, bytes } = lease(plan, locked[index] as LockedRows, now, CLAIM_BYTES - claimBytes);
      claimBytes += bytes;
      after.push(...rows);
      return claimed;
    });
    const assigned = last.flatMap(({ assignments }) => assignments);
    const packIds = new Map(assigned.map(({ delivery: { packId } }) => [packId.toString('latin1'), packId]));
    // This gives the leases: the rows are deleted, and inserted again under the token.
    const before = last.flatMap((claimed) => claimed.replaced);
    const answers = await tx.finish([
      ...rewrite(before, after),
      ...(packIds.size > 0 ? [readPacks('pack', [...packIds.values()])] : []),
    ]);
    const packs = packIds.size > 0 ? (answers.at(-1) as StoredPack[]) : [];
    return last.map((claimed) => ({ ...claimed, packs }));
  };
}

/**
 * Decides what becomes of the locked deliveries of one queue. Returns the rows that take their
 * place, and the bytes of the packs of which it leases messages.
 */
function lease(
  { leaseToken, demands }: Plan,
  { rows: locked, settings }: LockedRows,
  now: number,
  mostBytes: number,
): { claimed: ClaimedRows; rows: Delivery[]; bytes: number } {
  const { live, expired, overReceived, expiredLater } = sortDeliveries(locked, settings, now);
  const leasable = oneCopyOfEach(live);
  const { assignments, isCut, bytes } = assign(leasable, demands, mostBytes);
  const fates = new Map<Delivery, Map<Fate, Members>>(expired.map((row) => [row, new Map([[GONE, row.members]])]));
  const availableAts = demands.map(({ leaseSeconds }) => now + leaseSeconds * 1000 + LEASE_GRACE_MS);
  const leasedRows = byAvailableAt(assignments, availableAts);
  for (const [delivery, leased] of leasedRows) {
    const receiveCount = nextReceiveCount(delivery);
    const firstReceivedAt = firstReceiveOf(delivery, now);
    const toFate = ([availableAt, members]: [number, Members]): [Fate, Members] => [
      { leaseToken, availableAt, receiveCount, firstReceivedAt },
      members,
    ];
    fates.set(delivery, new Map([...leased].map(toFate)));
  }
  const claimed: ClaimedRows = {
    assignments,
    leasedRows,
    expired,
    overReceived,
    expiredLater,
    keepsExpired: keepsExpired(settings),
    replaced: [...fates.keys()],
    isCut,
    rowsLocked: locked.length,
    leftCopies: leasable.length < live.length,
    now,
    packs: [],
  };
  return { claimed, rows: [...fates].flatMap(([delivery, ofDelivery]) => split(delivery, ofDelivery)), bytes };
}

function byQueue(one: Plan, other: Plan): number {
  return one.queueId - other.queueId;
}

function messagesOf(demands: readonly Demand[]): number {
  return demands.reduce((sum, { maxMessages }) => sum + maxMessages, 0);
}

/** The number of these deliveries, from the first on, that hold so many messages. */
function rowsThatHold(messagesWanted: number, positions: readonly Seen[]): number {
  let held = 0;
  const last = positions.findIndex(({ members }) => (held += countMembers(members)) >= messagesWanted);
  return last < 0 ? positions.length : last + 1;
}

function keepsExpired(settings: ClaimSettings | undefined): boolean {
  return settings !== undefined && settings.deadLetterQueueId !== null && settings.deadLetterExpired !== 0;
}

/** Sorts locked deliveries. A claim may lease only the live ones. */
function sortDeliveries(
  rows: readonly Delivery[],
  settings: ClaimSettings | undefined,
  now: number,
): Record<'live' | 'expired' | 'overReceived' | 'expiredLater', Delivery[]> {
  const sorted = {
    live: [] as Delivery[],
    expired: [] as Delivery[],
    overReceived: [] as Delivery[],
    expiredLater: [] as Delivery[],
  };
  // The queue was deleted after the peek.
  if (settings === undefined) return sorted;
  const maxReceives = settings.deadLetterQueueId === null ? null : settings.maxReceives;
  const isKept = keepsExpired(settings);
  for (const row of rows) {
    if (row.expiresAt <= now) (isGrouped(row) || isKept ? sorted.expiredLater : sorted.expired).push(row);
    else if (maxReceives !== null && row.receiveCount >= maxReceives) sorted.overReceived.push(row);
    else sorted.live.push(row);
  }
  return sorted;
}

/**
 * Assigns messages in order: each demand gets as many as it wants before the next one, if they fit
 * an answer. Stops before the packs have more than `mostBytes`, but not before the first.
 */
function assign(
  live: readonly Delivery[],
  demands: readonly Demand[],
  mostBytes: number,
): { assignments: Assignment[]; isCut: boolean; bytes: number } {
  const assignments: Assignment[] = [];
  let isCut = false;
  let [demand, messages, answerBytes, bytes] = [0, 0, 0, 0];
  const nextDemand = (): void => {
    demand += 1;
    [messages, answerBytes] = [0, 0];
  };
  for (const delivery of live) {
    const packBytes = mostPackBytes(delivery.packId);
    if (bytes + packBytes > mostBytes && assignments.length > 0) return { assignments, isCut: true, bytes };
    bytes += packBytes;
    /** The demand whose answer counts this pack. */
    let countedFor = -1;
    for (const index of indexesOf(delivery.members)) {
      if (messages === demands[demand]?.maxMessages) nextDemand();
      if (countedFor !== demand && messages > 0 && answerBytes + packBytes > LIMITS.answerBytes) {
        isCut = true;
        nextDemand();
      }
      if (demand === demands.length) return { assignments, isCut, bytes };
      // Nobody else may handle messages of a group at the same time.
      if (isGrouped(delivery) && countedFor >= 0 && countedFor !== demand) break;
      if (countedFor !== demand) answerBytes += packBytes;
      countedFor = demand;
      assignments.push({ delivery, index, demand });
      messages += 1;
    }
  }
  return { assignments, isCut, bytes };
}

/**
 * Groups the assigned members of each delivery by their new `available_at`, so that demands with
 * the same lease time share a row.
 *
 * @param availableAts one for each demand
 */
function byAvailableAt(
  assignments: readonly Assignment[],
  availableAts: readonly number[],
): Map<Delivery, Map<number, Members>> {
  const groups = new Map<Delivery, Map<number, Members>>();
  for (const { delivery, index, demand } of assignments) {
    const ofDelivery = groups.get(delivery) ?? new Map<number, Members>();
    const availableAt = availableAts[demand] as number;
    ofDelivery.set(availableAt, union(ofDelivery.get(availableAt) ?? 0, bitOf(index)));
    groups.set(delivery, ofDelivery);
  }
  return groups;
}

/*
 * The statements of a claim.
 */

/** The deliveries of one queue that a claim has locked, and its settings unless it was deleted. */
interface LockedRows {
  rows: Delivery[];
  settings: ClaimSettings | undefined;
}

/**
 * Locks deliveries of each queue in the ranges that the peeks saw. Returns them with the queues'
 * settings, and the database's time after the last lock.
 */
async function lockSeen(tx: Transaction, plans: readonly Plan[]): Promise<{ locked: LockedRows[]; now: number }> {
  const answers = await tx.all([
    {
      sql: `SELECT id, max_receives AS maxReceives, dead_letter_queue_id AS deadLetterQueueId,
              dead_letter_expired AS deadLetterExpired
       FROM queue FORCE INDEX (PRIMARY)
       WHERE id IN (?)
         AND name IS NOT NULL`,
      values: [plans.map(({ queueId }) => queueId)],
    },
    ...plans.map(lockStatement),
    CLOCK,
  ]);
  const settings = answers.shift() as (ClaimSettings & { id: number })[];
  const [{ now }] = answers.pop() as [{ now: number }];
  const locked = plans.map(({ queueId }, index) => ({
    rows: answers[index] as Delivery[],
    settings: settings.find(({ id }) => id === queueId),
  }));
  return { locked, now };
}

/**
 * Locks up to `rowsToLock` deliveries in the ranges that a peek saw, index entry before row, and
 * skips deliveries that other transactions have locked. If the peek reached its limit, the last
 * range goes on to the present.
 *
 * InnoDB keeps the index entries of skipped rows locked as well, until COMMIT.
 */
function lockStatement({ queueId, peek: { positions, isWhole }, rowsToLock }: Plan): Statement {
  const bounds = new Map<number, { first: number; last: number | string }>();
  for (const { priorityRank, availableAt } of positions) {
    const { first = availableAt } = bounds.get(priorityRank) ?? {};
    bounds.set(priorityRank, { first, last: availableAt });
  }
  const last = positions.at(-1);
  if (!isWhole && last !== undefined)
    bounds.set(last.priorityRank, { ...bounds.get(last.priorityRank)!, last: NOW_MS });
  // `first - 1`, because `inRanges` needs from < to.
  const ranges = Array.from(bounds, ([rank, { first, last: to }]): Range => [rank, first - 1, to]);
  return {
    sql: `SELECT ${DELIVERY_COLUMNS}
       ${inRanges(queueId, ranges)}
       LIMIT ${rowsToLock}
       FOR UPDATE SKIP LOCKED`,
  };
}

/**
 * Finds those of the messages of each of these claims that an earlier try has leased, and whose
 * lease still runs.
 */
async function findLeased(
  tx: Transaction,
  plans: readonly Plan[],
  claims: readonly ClaimedRows[],
): Promise<Assignment[][]> {
  const deliveries = claims.flatMap(({ assignments }) => assignments.map(({ delivery }) => delivery));
  if (deliveries.length === 0) return [];
  const rows = await tx.read<Pick<Delivery, 'queueId' | 'packId' | 'members'>>(
    `SELECT queue_id AS queueId, pack_id AS packId, members
     FROM delivery FORCE INDEX (PRIMARY)
     WHERE queue_id IN (?)
       AND pack_id IN (?)
       AND lease_token IN (?)
       AND available_at > ${NOW_MS} + ${LEASE_GRACE_MS}`,
    [
      plans.map(({ queueId }) => queueId),
      deliveries.map(({ packId }) => packId),
      plans.map(({ leaseToken }) => leaseToken),
    ],
  );
  const isLeased = ({ delivery: { queueId, packId }, index }: Assignment): boolean =>
    rows.some((row) => row.queueId === queueId && packId.equals(row.packId) && has(row.members, index));
  return claims.map(({ assignments }) => assignments.filter(isLeased));
}
