import { LIMITS, RowmqError } from '@rowmq/contract';
import { NOW_MS, UTC_NOW_MS } from '../database/clock.js';
import { hex } from '../database/hex.js';
import type { Database, Transaction } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { isDuplicateKey, TryAgain } from '../database/database-errors.js';
import { DepthGauge } from './depth-gauge.js';
import { groupBy } from '../group-by.js';
import { type Queue, QUEUE_COLUMNS, queueNotFound, type QueueRow } from '../queues/queue.js';
import type { QueueRepository } from '../queues/queue.repository.js';
import type { IndexPosition, ScanFloors } from './scan-floors.js';

/** A message as a producer sends it. The caller has checked its size. */
export interface NewMessage {
  /** A UUIDv7 that exists before the first try, so that a repeated try finds it. */
  id: Buffer;
  body: Buffer;
  /** A JSON object of strings, or null. */
  headers: Buffer | null;
  /** 0 to 9; 9 is the most urgent. */
  priority: number;
  /** Default: the queue's delay. */
  delaySeconds?: number | undefined;
  /** Default and maximum: the queue's TTL. */
  expiresInSeconds?: number | undefined;
}

/** Messages for one queue. The broker stores all of them or none. */
export interface EnqueueRequest {
  queueName: string;
  messages: readonly NewMessage[];
}

/**
 * Null if the request is stored. Otherwise nothing of it is stored, and the error says why: a
 * `RowmqError` or the database's own error.
 */
export type EnqueueOutcome = Error | null;

/**
 * The outcome of a request whose queue has a maximum depth, in a batch that accepts only queues
 * without one. Nothing of the request is stored.
 */
export class BoundedQueueError extends Error {
  override readonly name = 'BoundedQueueError';

  constructor() {
    super('The queue has a maximum depth; enqueue to it in a batch that accepts such queues.');
  }
}

/** Requests that share a transaction. */
interface EnqueueBatch {
  requests: EnqueueRequest[];
  queueIds: Set<number>;
  /**
   * Exclusive for a queue with a maximum depth, so that two transactions cannot both use its last
   * room.
   */
  lock: 'shared' | 'exclusive';
  /**
   * Positions of the deliveries of all tries. A COMMIT that got no answer may have stored those of
   * an earlier try.
   */
  positions: (IndexPosition & { queueId: number })[];
}

interface StoreResult {
  outcomes: Map<EnqueueRequest, EnqueueOutcome>;
  /**
   * Requests whose queue no longer matches the cache: it was deleted, replaced, or given a maximum
   * depth. Nothing of them is stored.
   */
  outdated: EnqueueRequest[];
}

/** A queue's settings under a lock on its row, with the database's time. */
type LockedQueue = Queue & { now: number };

/** A call tries a request this many times if its cached queue turns out outdated. */
const ROUNDS = 4;

/** Stores messages. */
export class Enqueue {
  private readonly depths = new DepthGauge();

  constructor(
    private readonly database: Database,
    private readonly queues: QueueRepository,
    private readonly floors: ScanFloors,
  ) {}

  /** @param onlyUnbounded refuse requests for queues with a maximum depth */
  async run(requests: readonly EnqueueRequest[], onlyUnbounded: boolean): Promise<EnqueueOutcome[]> {
    const outcomes = new Map<EnqueueRequest, EnqueueOutcome>();
    let isAnyStored = false;
    let left = [...requests];
    const refuse = (refused: readonly EnqueueRequest[], error: unknown): void => {
      // The caller may repeat a call that stored nothing, so the call throws. Once it has stored
      // something, an error is the outcome of the failed requests only.
      if (!isAnyStored) throw error;
      for (const request of refused) outcomes.set(request, error as Error);
    };
    for (let round = 0; left.length > 0 && round < ROUNDS; round += 1) {
      const before = left;
      left = [];
      let batches: EnqueueBatch[];
      try {
        batches = batchesOf(before, await this.queues.getAll([...new Set(before.map(({ queueName }) => queueName))]));
      } catch (error) {
        refuse(before, error);
        break;
      }
      // The batches run one after the other, so that a call uses one connection for all of them.
      for (const batch of batches) {
        if (onlyUnbounded && batch.lock === 'exclusive') {
          for (const request of batch.requests) outcomes.set(request, new BoundedQueueError());
          continue;
        }
        try {
          const result = await this.carryOut(batch);
          isAnyStored = true;
          left.push(...result.outdated);
          for (const [request, outcome] of result.outcomes) outcomes.set(request, outcome);
        } catch (error) {
          refuse(batch.requests, error);
        }
      }
    }
    return requests.map((request) => {
      const outcome = outcomes.get(request);
      return outcome === undefined ? queueNotFound(request.queueName) : outcome;
    });
  }

  private async carryOut(batch: EnqueueBatch): Promise<StoreResult> {
    try {
      return await this.database.transaction((tx) => this.store(tx, batch));
    } finally {
      // From now on claims read low enough to find these deliveries, however late they committed.
      for (const { queueId, ...position } of batch.positions) this.floors.lower(queueId, position);
    }
  }

  private async store(tx: Transaction, batch: EnqueueBatch): Promise<StoreResult> {
    const { requests, lock } = batch;
    const queues = await lockQueues(tx, [...batch.queueIds], lock);
    const stored = tx.commitUnknown ? await alreadyStored(tx, requests) : new Set<EnqueueRequest>();
    const rows = new NewRows();
    const result: StoreResult = { outcomes: new Map(), outdated: [] };
    const admitted: { queue: LockedQueue; request: EnqueueRequest }[] = [];
    for (const request of requests) {
      const queue = queues.get(request.queueName);
      if (stored.has(request)) {
        result.outcomes.set(request, null);
      } else if (queue === undefined || (queue.maxDepth !== null && lock === 'shared')) {
        this.queues.evict(request.queueName);
        result.outdated.push(request);
      } else {
        admitted.push({ queue, request });
      }
    }
    // An exclusive batch has requests for one queue only.
    const bounded = lock === 'exclusive' ? admitted[0]?.queue : undefined;
    const wanted = admitted.reduce((sum, { request }) => sum + request.messages.length, 0);
    let room = Infinity;
    if (bounded !== undefined && bounded.maxDepth !== null) {
      room = await this.depths.room(tx, bounded.id, bounded.maxDepth, wanted);
    }
    for (const { queue, request } of admitted) {
      result.outcomes.set(request, admit(queue, request, room - rows.count, rows));
    }
    batch.positions.push(...rows.positions);
    try {
      await tx.finish(rows.inserts);
    } catch (error) {
      // The earlier try has committed only now. The next try finds its messages.
      throw tx.commitUnknown && isDuplicateKey(error) ? new TryAgain(error) : error;
    }
    if (bounded !== undefined) this.depths.subtract(bounded.id, rows.count);
    return result;
  }
}

/**
 * Groups requests by transaction. All queues without a maximum depth share one, and every other
 * queue has its own. Requests for unknown queues are in no batch.
 */
function batchesOf(requests: readonly EnqueueRequest[], queues: ReadonlyMap<string, Queue>): EnqueueBatch[] {
  const known = requests.flatMap((request) => {
    const queue = queues.get(request.queueName);
    return queue === undefined ? [] : [{ request, queue }];
  });
  const groups = groupBy(known, ({ queue }) => (queue.maxDepth === null ? undefined : queue.id));
  return Array.from(groups, ([bounded, group]) => ({
    requests: group.map(({ request }) => request),
    queueIds: new Set(group.map(({ queue }) => queue.id)),
    lock: bounded === undefined ? 'shared' : 'exclusive',
    positions: [],
  }));
}

/** The caller's own transaction, on a connection that the store does not manage. */
export type ForeignTransaction = Pick<Transaction, 'read' | 'write'>;

/**
 * Stores the messages of one request in the caller's transaction. It does not commit, retry, or
 * notify waiting consumers.
 *
 * Throws `queue-not-found`, `queue-full` or `invalid-request`. Throws `overloaded` if somebody sets
 * a maximum depth between the read of the queue and its lock.
 *
 * Locks the queue's row until the caller's transaction ends: shared, or exclusively if the queue
 * has a maximum depth.
 */
export async function storeIn(tx: ForeignTransaction, request: EnqueueRequest): Promise<void> {
  const { queueName, messages } = request;
  const [known] = await tx.read<QueueRow>(`SELECT ${QUEUE_COLUMNS} FROM queue WHERE name = ?`, [queueName]);
  if (known === undefined) throw queueNotFound(queueName);
  const lock = known.maxDepth === null ? 'shared' : 'exclusive';
  const locked = (await lockQueues(tx, [known.id], lock, UTC_NOW_MS)).get(queueName);
  if (locked === undefined) throw queueNotFound(queueName);
  // The caller's connection may return large numbers as text.
  const queue = { ...locked, now: Number(locked.now) };
  let room = Infinity;
  if (queue.maxDepth !== null) {
    if (lock === 'shared')
      throw new RowmqError('overloaded', `Queue '${queueName}' was given a maximum depth meanwhile; try again.`);
    room = await new DepthGauge().room(tx, queue.id, queue.maxDepth, messages.length);
  }
  const rows = new NewRows();
  const refusal = admit(queue, request, room, rows);
  if (refusal !== null) throw refusal;
  for (const { sql } of rows.inserts) await tx.write(sql);
}

/**
 * Adds a request's messages to the rows, or returns the reason for its refusal. It checks the
 * messages before the depth: a repeated try may find the queue fuller, and must refuse an invalid
 * message for the same reason.
 */
function admit(queue: LockedQueue, { messages }: EnqueueRequest, room: number, rows: NewRows): EnqueueOutcome {
  let times: Times[];
  try {
    times = messages.map((message, index) => schedule(message, queue, index));
  } catch (error) {
    if (error instanceof RowmqError) return error;
    throw error;
  }
  if (messages.length > room) {
    return new RowmqError(
      'queue-full',
      `The queue holds ${(queue.maxDepth ?? 0) - room} of at most ${queue.maxDepth} deliveries, no room for ${messages.length} more; try again when consumers have caught up.`,
      { retryAfterSeconds: 1 },
    );
  }
  for (const [index, message] of messages.entries()) rows.add(queue, message, times[index] as Times);
  return null;
}

/**
 * Locks the rows of queues until the transaction ends. Returns those that still exist, with the
 * database's time. Every transaction that locks several queues does so in id order:
 * `docs/locking.md`.
 */
async function lockQueues(
  tx: ForeignTransaction,
  queueIds: readonly number[],
  lock: EnqueueBatch['lock'],
  clock = NOW_MS,
): Promise<Map<string | null, LockedQueue>> {
  const rows = await tx.read<QueueRow & { now: number }>(
    `SELECT ${QUEUE_COLUMNS},
            ${clock} AS now
     FROM queue FORCE INDEX (PRIMARY)
     WHERE id IN (?)
     ORDER BY id
     ${lock === 'shared' ? 'LOCK IN SHARE MODE' : 'FOR UPDATE'}`,
    [queueIds],
  );
  return new Map(rows.map((row) => [row.name, { ...row, name: row.name ?? '', paused: row.paused !== 0 }]));
}

/** Returns those of these requests that an earlier try has stored. */
async function alreadyStored(tx: Transaction, requests: readonly EnqueueRequest[]): Promise<Set<EnqueueRequest>> {
  const firstIds = requests.map(({ messages }) => messages[0]?.id);
  const found = await tx.read<{ id: Buffer }>(
    `SELECT id FROM message FORCE INDEX (PRIMARY) WHERE id IN (?)
     UNION ALL
     SELECT id FROM message_overflow FORCE INDEX (PRIMARY) WHERE id IN (?)`,
    [firstIds, firstIds],
  );
  const there = new Set(found.map(({ id }) => id.toString('hex')));
  return new Set(requests.filter((_, index) => there.has(firstIds[index]?.toString('hex') ?? '')));
}

interface Times {
  availableAt: number;
  expiresAt: number;
}

/**
 * Computes when a message becomes available and when it expires, on the database's clock. Throws
 * `invalid-request` if the message would expire before its delay ends.
 */
function schedule(message: NewMessage, queue: LockedQueue, index: number): Times {
  const delaySeconds = message.delaySeconds ?? queue.delaySeconds;
  const lifeSeconds = Math.min(message.expiresInSeconds ?? queue.messageTtlSeconds, queue.messageTtlSeconds);
  if (delaySeconds >= lifeSeconds) {
    throw new RowmqError(
      'invalid-request',
      `Message ${index} would expire after ${lifeSeconds} s, before its delay of ${delaySeconds} s ends, and never be delivered; shorten the delay or let it live longer.`,
    );
  }
  return { availableAt: queue.now + delaySeconds * 1000, expiresAt: queue.now + lifeSeconds * 1000 };
}

/** The rows of a batch as SQL text. Escaping by mysql2, value by value, costs a third more. */
class NewRows {
  private readonly messages: string[] = [];
  private readonly deliveries: string[] = [];
  /**
   * Lower bounds of the rows' positions: for each queue and priority, the time of the store. No row
   * has an earlier `available_at`.
   */
  readonly positions: (IndexPosition & { queueId: number })[] = [];

  get count(): number {
    return this.messages.length;
  }

  add(queue: LockedQueue, { id, body, headers, priority }: NewMessage, { availableAt, expiresAt }: Times): void {
    const priorityRank = LIMITS.priorityMax - priority;
    const messageId = hex(id);
    this.messages.push(
      `(${messageId},${queue.id},${hex(body)},${headers === null ? 'NULL' : hex(headers)},${expiresAt})`,
    );
    this.deliveries.push(`(${queue.id},${messageId},${priorityRank},${availableAt},${expiresAt},0)`);
    if (!this.positions.some((position) => position.queueId === queue.id && position.priorityRank === priorityRank)) {
      this.positions.push({ queueId: queue.id, priorityRank, availableAt: queue.now });
    }
  }

  get inserts(): Statement[] {
    if (this.count === 0) return [];
    return [
      { sql: `INSERT INTO message (id, queue_id, body, headers, expires_at) VALUES ${this.messages.join(',')}` },
      {
        sql: `INSERT INTO delivery (queue_id, message_id, priority_rank, available_at, expires_at, receive_count) VALUES ${this.deliveries.join(',')}`,
      },
    ];
  }
}
