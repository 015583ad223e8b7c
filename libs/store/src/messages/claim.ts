import { randomBytes } from 'node:crypto';
import { LIMITS } from '@rowmq/contract';
import {
  byRank,
  type Candidate,
  leaseDeliveries,
  lockSeen,
  type PeekRequest,
  peekQueues,
  RANKS,
  readBelow,
  readMessages,
  readReady,
  type SeenQueue,
  type SortedDeliveries,
  sortDeliveries,
  type StoredMessage,
  undoLeases,
} from './claim.sql.js';
import type { Database } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { deleteDeliveries } from './delivery.sql.js';
import type { Queue } from '../queues/queue.js';
import { groupBy } from '../group-by.js';
import type { ClaimPositions, IndexPosition, ScanFloors } from './scan-floors.js';
import type { StoreObserver } from '../store-observer.js';

/** One consumer's request for messages. */
export interface Demand {
  maxMessages: number;
  leaseSeconds: number;
}

/** The demands of one queue's consumers, in their order of arrival. */
export interface DequeueRequest {
  queue: Queue;
  demands: readonly Demand[];
}

/** A leased delivery with its message. Times are ms since 1970 on the database's clock. */
export interface LeasedDelivery {
  messageId: Buffer;
  leaseToken: Buffer;
  body: Buffer;
  headers: Buffer | null;
  priority: number;
  receiveCount: number;
  expiresAt: number;
  leaseExpiresAt: number;
}

/** The result of a claim for one request. */
export interface Claimed {
  locked: SortedDeliveries;
  /** One list for each demand. */
  leased: LeasedDelivery[][];
  /** The demands wanted more than the claim leased. */
  isShort: boolean;
  /** Number of deliveries that the claim saw but could not lock. */
  missed: number;
  /** The claim missed some deliveries, or locked others behind them instead. */
  metOthers: boolean;
}

/** A queue in which the peek saw ready deliveries, with the demands for them. */
interface Job {
  queue: SeenQueue;
  demands: readonly Demand[];
  wanted: number;
}

/** The deliveries that one demand gets. */
interface Share {
  leaseSeconds: number;
  rows: Candidate[];
}

const TOKEN_BYTES = 8;
/**
 * A peek at a deep queue reads at least this many deliveries. Later claims lease those that this
 * claim leaves, without a peek of their own. In a batch of many queues a peek reads fewer.
 */
const READ_AHEAD = 200;
const READ_AHEAD_OF_A_BATCH = 2000;
/** A claim locks up to this many rows if the last one met deliveries that it had to remove. */
const LOCK_AFTER_REMOVAL = 200;
/**
 * A claim peeks at up to this many deliveries if other transactions had locked all that the last
 * claim saw. Another claim may hold that many, and less urgent deliveries lie behind them.
 */
const PEEK_PAST_OTHERS = 1000;
/** A queue counts as contended for this long after one of its claims met other claims. */
const CONTENDED_MS = 10_000;
const CONTENDED_QUEUES_REMEMBERED = 10_000;
/** A poll from the left edge of the index waits this many times the duration of the last one. */
const FULL_POLL_PAUSE_FACTOR = 20;

/** Claims deliveries, and polls whether queues have any to claim. */
export class Claim {
  /** Queues whose last claim met deliveries that it had to remove. */
  private readonly obstructed = new Set<number>();
  /** Queues whose last claim could lock none of the deliveries that it saw. */
  private readonly occupied = new Set<number>();
  /** Queues whose claims met other claims, and the time until which they count as contended. */
  private readonly contended = new Map<number, number>();
  private fullPollFrom = 0;

  constructor(
    private readonly database: Database,
    private readonly floors: ScanFloors,
    private readonly observer: StoreObserver,
  ) {}

  /** Claims for all requests, one queue each, in one transaction. */
  async run(requests: readonly DequeueRequest[]): Promise<Claimed[]> {
    if (requests.length === 0) return [];
    const peeks = requests.map(({ queue, demands }) => {
      const wanted = demands.reduce((sum, { maxMessages }) => sum + maxMessages, 0);
      const most = this.obstructed.has(queue.id) ? Math.max(wanted, LOCK_AFTER_REMOVAL) : wanted;
      const limit = this.occupied.has(queue.id) ? Math.max(most, PEEK_PAST_OTHERS) : most;
      return { queueId: queue.id, limit, most, demands, wanted };
    });
    const positions = await this.findPositions(peeks);
    const jobs = peeks.flatMap(({ demands, wanted, most, ...peek }, index): Job[] => {
      const { positions: seen, ties } = positions[index] as ClaimPositions;
      const count = Math.min(seen.length, most);
      if (count === 0) return [];
      const isSeparate = peeks.length === 1 || this.isContended(peek.queueId) || ties === undefined || ties > count;
      return [{ queue: { ...peek, ranks: byRank(seen), count, ties: ties ?? 0, isSeparate }, demands, wanted }];
    });
    const claims = jobs.length === 0 ? new Map<number, Claimed>() : await this.lease(jobs);
    for (const [queueId, { locked, missed, metOthers }] of claims) {
      if (metOthers) this.contend(queueId);
      this.obstructed[locked.expired.length + locked.overReceived.length > 0 ? 'add' : 'delete'](queueId);
      this.occupied[missed > 0 && locked.live.length === 0 ? 'add' : 'delete'](queueId);
    }
    return requests.map(({ queue, demands }) => claims.get(queue.id) ?? nothing(demands));
  }

  /**
   * Marks a queue as contended. Peers may have leased the deliveries that this broker read ahead. A
   * locking read of their empty range would walk on over dead index entries.
   */
  private contend(queueId: number): void {
    this.floors.forgetReadAhead(queueId);
    if (this.contended.size >= CONTENDED_QUEUES_REMEMBERED) this.contended.clear();
    this.contended.set(queueId, performance.now() + CONTENDED_MS);
  }

  private isContended(queueId: number): boolean {
    const until = this.contended.get(queueId);
    if (until === undefined) return false;
    if (until > performance.now()) return true;
    this.contended.delete(queueId);
    return false;
  }

  /** Discards the read-ahead of these queues. */
  forgetReadAhead(queueIds: readonly number[]): void {
    for (const queueId of queueIds) this.floors.forgetReadAhead(queueId);
  }

  /**
   * Finds the positions of up to `limit` ready deliveries of each queue. Peeks only at queues whose
   * read-ahead holds fewer.
   */
  private async findPositions(wanted: readonly Pick<PeekRequest, 'queueId' | 'limit'>[]): Promise<ClaimPositions[]> {
    const known = new Map(wanted.map((want) => [want, this.floors.useReadAhead(want.queueId, want.limit)]));
    const unknown = wanted.filter((want) => known.get(want) === undefined);
    if (unknown.length > 0) {
      const begunAt = this.floors.now();
      const readAhead = Math.min(READ_AHEAD, Math.floor(READ_AHEAD_OF_A_BATCH / unknown.length));
      const peeks = unknown.map(({ queueId, limit }) => {
        const { floors, isDeep } = this.floors.beginPeek(queueId);
        const readsAhead = isDeep && !this.isContended(queueId);
        return { queueId, limit: readsAhead ? Math.max(limit, readAhead) : limit, floors };
      });
      const { positions, now } = await peekQueues(this.database, peeks);
      for (const [index, { queueId, limit }] of peeks.entries()) {
        const [want, seen] = [unknown[index] as PeekRequest, positions[index] as IndexPosition[]];
        const peek = { begunAt, databaseTime: now, seen, isWhole: seen.length < limit, claimed: want.limit };
        known.set(want, this.floors.endPeek(queueId, peek));
      }
    }
    return wanted.map((want) => known.get(want) as ClaimPositions);
  }

  /** Runs the transaction of a claim. Returns its results by queue. */
  private async lease(jobs: readonly Job[]): Promise<Map<number, Claimed>> {
    const leaseToken = randomBytes(TOKEN_BYTES);
    /** Undoes the leases of earlier tries, whose COMMIT may have succeeded without an answer. */
    const undo: Statement[] = [];
    const { claims, messages, now } = await this.database.transaction(async (tx) => {
      if (tx.commitUnknown) await tx.all(undo);
      const locked = await lockSeen(
        tx,
        jobs.map(({ queue }) => queue),
      );
      const sorted = jobs.map(({ queue, demands, wanted }, index) => {
        const rows = locked.rows[index] as Candidate[];
        const { live, ...removed } = sortDeliveries(rows, locked.settings.get(queue.queueId), wanted, locked.now);
        const missed = Math.max(0, queue.count - rows.length);
        const metOthers = missed > 0 || readOn(queue, rows);
        return { live, ...removed, shares: share(live, demands), missed, metOthers };
      });
      const statements: Statement[] = [];
      const leases: { leaseSeconds: number; queueId: number; messageIds: Buffer[] }[] = [];
      for (const [index, { expired, shares }] of sorted.entries()) {
        const { queueId } = (jobs[index] as Job).queue;
        if (expired.length > 0) statements.push(deleteDeliveries(queueId, ids(expired)));
        for (const [leaseSeconds, messageIds] of idsByLease(shares)) {
          undo.push(undoLeases(queueId, messageIds, leaseToken));
          leases.push({ leaseSeconds, queueId, messageIds });
        }
      }
      for (const [leaseSeconds, group] of groupBy(leases, (lease) => lease.leaseSeconds)) {
        const deliveries = group.map(({ queueId, messageIds }) => [queueId, messageIds] as const);
        statements.push(leaseDeliveries(deliveries, leaseToken, locked.now + leaseSeconds * 1000));
      }
      const live = sorted.flatMap((one) => ids(one.live));
      if (live.length > 0) statements.push(readMessages('message', live));
      const answers = await tx.finish(statements);
      return { claims: sorted, messages: live.length > 0 ? (answers.at(-1) as StoredMessage[]) : [], now: locked.now };
    });
    const byId = await this.readMissing(
      messages,
      claims.flatMap(({ live }) => live),
    );
    return new Map(
      claims.map(({ live, expired, overReceived, shares, missed, metOthers }, index) => {
        const { queue, wanted } = jobs[index] as Job;
        const leased = shares.map(({ leaseSeconds, rows }) => {
          const lease = { leaseToken, leaseExpiresAt: now + leaseSeconds * 1000 };
          return rows.flatMap((row) => toLeased(row, byId.get(row.messageId.toString('latin1')), lease));
        });
        const isShort = live.length < wanted;
        return [queue.queueId, { locked: { live, expired, overReceived }, leased, isShort, missed, metOthers }];
      }),
    );
  }

  /**
   * Returns messages by id, and reads those that the claim did not find. While the reaper splits an
   * overfull partition, it moves rows to `message_overflow` and back.
   */
  private async readMissing(
    messages: readonly StoredMessage[],
    claimed: readonly Candidate[],
  ): Promise<Map<string, StoredMessage>> {
    const byId = new Map(messages.map((message) => [message.id.toString('latin1'), message]));
    for (const table of ['message_overflow', 'message'] as const) {
      const missing = ids(claimed).filter((id) => !byId.has(id.toString('latin1')));
      if (missing.length === 0) break;
      // The leases are committed, so a failure to read some messages must not keep back the others.
      const found = await this.database.read<StoredMessage>(readMessages(table, missing).sql).catch(() => []);
      for (const message of found) byId.set(message.id.toString('latin1'), message);
    }
    return byId;
  }

  /**
   * Reads below a queue's scan floor if a rescan is due. Waits for the result only if the queue
   * would otherwise count as empty. Returns true if it found deliveries that no claim would see.
   */
  async rescan(queueId: number, isEmpty: boolean): Promise<boolean> {
    if (!this.floors.isRescanDue(queueId, isEmpty)) return false;
    const scan = this.floors.rescan(queueId, async () => {
      const started = performance.now();
      const positions = await readBelow(this.database, queueId, this.floors.of(queueId) ?? new Map());
      for (const position of positions) this.floors.lower(queueId, position);
      this.observer.rescanned(performance.now() - started, positions.length);
      return positions.length > 0;
    });
    // A failed rescan needs no retry: the next one reads the same range.
    const found = scan.catch(() => false);
    return isEmpty && found;
  }

  /**
   * Returns those of these queues that have ready deliveries, by one statement without locks. A
   * poll reads from the left edge of the index as often as its cost allows, and otherwise from the
   * scan floors.
   *
   * One deep queue can use up the row limit. The poll then reads the other queues once more. It
   * returns queues that it still did not reach as if they had ready deliveries.
   */
  async poll(queueIds: readonly number[]): Promise<Set<number>> {
    const started = performance.now();
    const isFull = started >= this.fullPollFrom;
    const floors = isFull ? [] : queueIds.flatMap((queueId) => [...(this.floors.of(queueId) ?? [])]);
    const ranks = isFull ? RANKS : [...new Set(floors.map(([rank]) => rank))];
    if (ranks.length === 0) return new Set();
    const from = isFull ? 0 : Math.min(...floors.map(([, floor]) => floor));
    const ready = new Set<number>();
    let unknown = queueIds;
    for (let reads = 0; reads < 2 && unknown.length > 0; reads += 1) {
      const { positions, isWhole } = await readReady(this.database, unknown, ranks, from);
      for (const { queueId, ...position } of positions) {
        this.floors.lower(queueId, position);
        ready.add(queueId);
      }
      unknown = isWhole ? [] : unknown.filter((queueId) => !ready.has(queueId));
    }
    if (isFull) this.fullPollFrom = performance.now() + (performance.now() - started) * FULL_POLL_PAUSE_FACTOR;
    return new Set([...ready, ...unknown]);
  }
}

function nothing(demands: readonly Demand[]): Claimed {
  const locked: SortedDeliveries = { live: [], expired: [], overReceived: [] };
  return { locked, leased: demands.map(() => []), isShort: true, missed: 0, metOthers: false };
}

/** Whether some of these rows lie behind the last delivery that the peek saw. */
function readOn({ ranks }: SeenQueue, rows: readonly Candidate[]): boolean {
  const [last, seen] = [rows.at(-1), ranks.at(-1)];
  return (
    last !== undefined && seen !== undefined && last.priorityRank === seen.priorityRank && last.availableAt > seen.last
  );
}

/** Shares deliveries out in order: each demand gets as many as it wants before the next one. */
function share(rows: readonly Candidate[], demands: readonly Demand[]): Share[] {
  let used = 0;
  return demands.map(({ maxMessages, leaseSeconds }) => {
    const from = used;
    used += maxMessages;
    return { leaseSeconds, rows: rows.slice(from, used) };
  });
}

function idsByLease(shares: readonly Share[]): Map<number, Buffer[]> {
  const groups = groupBy(
    shares.filter(({ rows }) => rows.length > 0),
    ({ leaseSeconds }) => leaseSeconds,
  );
  return new Map([...groups].map(([leaseSeconds, group]) => [leaseSeconds, group.flatMap(({ rows }) => ids(rows))]));
}

function toLeased(
  row: Candidate,
  message: StoredMessage | undefined,
  lease: Pick<LeasedDelivery, 'leaseToken' | 'leaseExpiresAt'>,
): LeasedDelivery | [] {
  // The claim cannot tell whether an unreadable message is lost. Its delivery stays leased and
  // becomes ready again when the lease runs out.
  if (message === undefined) return [];
  return {
    messageId: row.messageId,
    leaseToken: lease.leaseToken,
    body: message.body,
    headers: message.headers,
    priority: LIMITS.priorityMax - row.priorityRank,
    receiveCount: row.receiveCount + 1,
    expiresAt: row.expiresAt,
    leaseExpiresAt: lease.leaseExpiresAt,
  };
}

function ids(rows: readonly { messageId: Buffer }[]): Buffer[] {
  return rows.map(({ messageId }) => messageId);
}
