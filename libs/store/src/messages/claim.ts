import { randomBytes } from 'node:crypto';
import { LIMITS } from '@rowmq/contract';
import {
  byRank,
  type Candidate,
  undoLeases,
  type PeekRequest,
  leaseDeliveries,
  lockSeen,
  peekQueues,
  RANKS,
  readBelow,
  readMessages,
  readReady,
  type SeenQueue,
  type SortedDeliveries,
  sortDeliveries,
  type StoredMessage,
} from './claim.sql.js';
import type { Database } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { deleteDeliveries } from './delivery.sql.js';
import type { Queue } from '../queues/queue.repository.js';
import { groupBy } from '../group-by.js';
import type { IndexPosition, ClaimPositions, ScanFloors } from './scan-floors.js';
import type { StoreObserver } from '../store-observer.js';

/** What one consumer wants. */
export interface Demand {
  maxMessages: number;
  leaseSeconds: number;
}

/** What the consumers of one queue want, in the order in which they came. */
export interface DequeueRequest {
  queue: Queue;
  demands: readonly Demand[];
}

/** A delivery under lease, with its message. Times: ms since 1970 on the database's clock. */
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

/** What a claim did for one request. */
export interface Claimed {
  head: SortedDeliveries;
  /** For each demand. */
  leased: LeasedDelivery[][];
  /** The demands wanted more. */
  isShort: boolean;
  /** Deliveries that others took between look and lock. */
  missed: number;
  /** Some were missed, or others taken in their position. */
  metOthers: boolean;
}

/** A queue with something at its head, and who wants it. */
interface Job {
  head: SeenQueue;
  demands: readonly Demand[];
  wanted: number;
}

/** A demand, and the deliveries it gets. */
interface Share {
  leaseSeconds: number;
  rows: Candidate[];
}

const TOKEN_BYTES = 8;
/**
 * Deliveries a look at a deep queue peeks for, at least: what its claim does not take, those after
 * it take without a look. Fewer where a flight peeks at many queues.
 */
const READ_AHEAD = 200;
const READ_AHEAD_OF_A_BATCH = 2000;
/** Rows a claim locks, at least, after one that met rows which it had to remove. */
const LOCK_AFTER_REMOVAL = 200;
/**
 * So far does a claim look after one that saw only what others hold: as many as another claim may
 * hold, so that it sees behind them what is less urgent.
 */
const PEEK_PAST_OTHERS = 1000;
/** So long does a queue count as contended after a claim that met others. */
const CONTENDED_MS = 10_000;
const CONTENDED_QUEUES_REMEMBERED = 10_000;
/** A look from the left edge waits for this many times what the last one took. */
const FULL_POLL_PAUSE_FACTOR = 20;

/** Claiming deliveries, and looking whether there is something to claim. */
export class Claim {
  /** Queues whose head held something to be removed when last claimed from. */
  private readonly obstructed = new Set<number>();
  /** Queues of which everything that was seen, when last claimed from, was held by others. */
  private readonly occupied = new Set<number>();
  /**
   * Queues in which others held, or had taken, some of what was seen, and until when they count as
   * shared with others.
   */
  private readonly contended = new Map<number, number>();
  private fullPollFrom = 0;

  constructor(
    private readonly database: Database,
    private readonly floors: ScanFloors,
    private readonly observer: StoreObserver,
  ) {}

  /** One claim for each request's queue, all in one transaction. */
  async run(requests: readonly DequeueRequest[]): Promise<Claimed[]> {
    if (requests.length === 0) return [];
    const heads = requests.map(({ queue, demands }) => {
      const wanted = demands.reduce((sum, { maxMessages }) => sum + maxMessages, 0);
      const most = this.obstructed.has(queue.id) ? Math.max(wanted, LOCK_AFTER_REMOVAL) : wanted;
      const limit = this.occupied.has(queue.id) ? Math.max(most, PEEK_PAST_OTHERS) : most;
      return { queueId: queue.id, limit, most, demands, wanted };
    });
    const positions = await this.findPositions(heads);
    const jobs = heads.flatMap(({ demands, wanted, most, ...head }, index): Job[] => {
      const { positions: seen, ties } = positions[index] as ClaimPositions;
      const count = Math.min(seen.length, most);
      if (count === 0) return [];
      const isSeparate = heads.length === 1 || this.isContended(head.queueId) || ties === undefined || ties > count;
      return [{ head: { ...head, ranks: byRank(seen), count, ties: ties ?? 0, isSeparate }, demands, wanted }];
    });
    const claims = jobs.length === 0 ? new Map<number, Claimed>() : await this.lease(jobs);
    for (const [queueId, { head, missed, metOthers }] of claims) {
      if (metOthers) this.contend(queueId);
      this.obstructed[head.expired.length + head.overReceived.length > 0 ? 'add' : 'delete'](queueId);
      this.occupied[missed > 0 && head.live.length === 0 ? 'add' : 'delete'](queueId);
    }
    return requests.map(({ queue, demands }) => claims.get(queue.id) ?? nothing(demands));
  }

  /**
   * Others claim from a queue as well: what was seen there a moment ago is theirs by now, and a
   * read that locks where all is gone runs on over what is dead.
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

  /** What was seen of these queues is forgotten. */
  forgetReadAhead(queueIds: readonly number[]): void {
    for (const queueId of queueIds) this.floors.forgetReadAhead(queueId);
  }

  /**
   * Where up to `limit` deliveries stand that are ready. Looks at those queues only whose last look
   * did not see that many beyond what was taken since.
   */
  private async findPositions(heads: readonly Pick<PeekRequest, 'queueId' | 'limit'>[]): Promise<ClaimPositions[]> {
    const known = new Map(heads.map((head) => [head, this.floors.useReadAhead(head.queueId, head.limit)]));
    const unknown = heads.filter((head) => known.get(head) === undefined);
    if (unknown.length > 0) {
      const begunAt = this.floors.now();
      const readAhead = Math.min(READ_AHEAD, Math.floor(READ_AHEAD_OF_A_BATCH / unknown.length));
      const peeks = unknown.map(({ queueId, limit }) => {
        const { floors, isDeep } = this.floors.beginPeek(queueId);
        const goesFurther = isDeep && !this.isContended(queueId);
        return { queueId, limit: goesFurther ? Math.max(limit, readAhead) : limit, floors };
      });
      const { positions, now } = await peekQueues(this.database, peeks);
      for (const [index, { queueId, limit }] of peeks.entries()) {
        const [head, seen] = [unknown[index] as PeekRequest, positions[index] as IndexPosition[]];
        const look = { begunAt, databaseTime: now, seen, isWhole: seen.length < limit, taken: head.limit };
        known.set(head, this.floors.endPeek(queueId, look));
      }
    }
    return heads.map((head) => known.get(head) as ClaimPositions);
  }

  /** The transaction of a claim. Returns what was claimed by queue. */
  private async lease(jobs: readonly Job[]): Promise<Map<number, Claimed>> {
    const leaseToken = randomBytes(TOKEN_BYTES);
    /** Undoes what this try and those before it have leased: their COMMIT may have succeeded. */
    const undo: Statement[] = [];
    const { claims, messages, now } = await this.database.transaction(async (tx) => {
      if (tx.commitUnknown) await tx.all(undo);
      const locked = await lockSeen(
        tx,
        jobs.map(({ head }) => head),
      );
      const sorted = jobs.map(({ head, demands, wanted }, index) => {
        const rows = locked.rows[index] as Candidate[];
        const { live, ...removed } = sortDeliveries(rows, locked.settings.get(head.queueId), wanted, locked.now);
        const missed = Math.max(0, head.count - rows.length);
        const metOthers = missed > 0 || wentOn(head, rows);
        return { live, ...removed, shares: share(live, demands), missed, metOthers };
      });
      const statements: Statement[] = [];
      const leases: { leaseSeconds: number; queueId: number; messageIds: Buffer[] }[] = [];
      for (const [index, { expired, shares }] of sorted.entries()) {
        const { queueId } = (jobs[index] as Job).head;
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
    const byId = await this.withMoving(
      messages,
      claims.flatMap(({ live }) => live),
    );
    return new Map(
      claims.map(({ live, expired, overReceived, shares, missed, metOthers }, index) => {
        const { head, wanted } = jobs[index] as Job;
        const leased = shares.map(({ leaseSeconds, rows }) => {
          const lease = { leaseToken, leaseExpiresAt: now + leaseSeconds * 1000 };
          return rows.flatMap((row) => toLeased(row, byId.get(row.messageId.toString('latin1')), lease));
        });
        const isShort = live.length < wanted;
        return [head.queueId, { head: { live, expired, overReceived }, leased, isShort, missed, metOthers }];
      }),
    );
  }

  /**
   * Messages by id, those included that are not where they were looked for: the reaper splits an
   * overfull partition, and rows move out and back.
   */
  private async withMoving(
    messages: readonly StoredMessage[],
    claimed: readonly Candidate[],
  ): Promise<Map<string, StoredMessage>> {
    const byId = new Map(messages.map((message) => [message.id.toString('latin1'), message]));
    for (const table of ['message_overflow', 'message'] as const) {
      const missing = ids(claimed).filter((id) => !byId.has(id.toString('latin1')));
      if (missing.length === 0) break;
      // What is leased is committed: a failure to read some of it must not keep the rest from its
      // consumers.
      const found = await this.database.read<StoredMessage>(readMessages(table, missing).sql).catch(() => []);
      for (const message of found) byId.set(message.id.toString('latin1'), message);
    }
    return byId;
  }

  /**
   * Looks below a queue's scan floor, if that has its turn. It is waited for only where the queue
   * would be called empty. Returns true if a claim would have passed something over.
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
    // If it fails, the next one will do.
    const found = scan.catch(() => false);
    return isEmpty && found;
  }

  /**
   * Which of these queues have something ready: one statement for all, no locks. From the left edge
   * on, as often as that may cost; in between from their scan floors on. Where one queue's many
   * leave no room for the others, those are looked at once more; any that are still not reached are
   * named as if they had something.
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
    for (let peeks = 0; peeks < 2 && unknown.length > 0; peeks += 1) {
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
  const head: SortedDeliveries = { live: [], expired: [], overReceived: [] };
  return { head, leased: demands.map(() => []), isShort: true, missed: 0, metOthers: false };
}

/** Some of these lie behind what was seen. */
function wentOn({ ranks }: SeenQueue, rows: readonly Candidate[]): boolean {
  const [last, seen] = [rows.at(-1), ranks.at(-1)];
  return (
    last !== undefined && seen !== undefined && last.priorityRank === seen.priorityRank && last.availableAt > seen.last
  );
}

/** Shares deliveries out to demands: to the first as many as it wants, then to the next. */
function share(rows: readonly Candidate[], demands: readonly Demand[]): Share[] {
  let taken = 0;
  return demands.map(({ maxMessages, leaseSeconds }) => {
    const from = taken;
    taken += maxMessages;
    return { leaseSeconds, rows: rows.slice(from, taken) };
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
  // A delivery whose message cannot be read now stays under its lease and comes back: it is not for
  // a reader to decide that it is lost.
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
