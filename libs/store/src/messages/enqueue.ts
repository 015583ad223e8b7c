import { LIMITS, RowmqError } from '@rowmq/contract';
import { NOW_MS, UTC_NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import { isDuplicateKey, isNull, TryAgain } from '../database/database-errors.js';
import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';
import { type Queue, QUEUE_COLUMNS, queueNotFound, type QueueRow, toQueue } from '../queues/queue.js';
import type { QueueRepository } from '../queues/queue.repository.js';
import type { LeasedMessage } from './claim.js';
import { LEASE_GRACE_MS, NO_LEASE, NO_TOKEN } from './delivery.sql.js';
import { countMessages, DepthGauge, refuseIfFull } from './depth-gauge.js';
import { newLeaseToken } from './lease-token.js';
import { lowestMember } from './members.js';
import type { Content } from './pack.codec.js';
import { type NewPack, packMessages, type Packable } from './packing.js';
import type { QueueViews } from './queue-view.js';

/** A message as a producer sends it. The caller has checked its size. */
export interface NewMessage extends Content {
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
 * The messages' ids, in order. An error if nothing of the request is stored: a `RowmqError` with
 * the code `queue-not-found`, `queue-full` or `invalid-request`.
 */
export type EnqueueOutcome = Buffer[] | Error;

/** A parked consumer whom an enqueue has reserved. Exactly one of the two is called, once. */
export interface Reservation {
  readonly maxMessages: number;
  readonly leaseSeconds: number;
  /**
   * After COMMIT: these messages are leased to the consumer. At least one, at most `maxMessages`.
   */
  handOff(leased: LeasedMessage[]): void;
  /** Nothing is leased to the consumer. */
  cancel(): void;
}

/**
 * Reserves parked consumers of a queue for so many messages, first come first served. Together they
 * want about that many. The enqueue calls it once a queue, just before it sends its statements.
 */
export type Reserve = (queue: Queue, messages: number) => Reservation[];

/** A message that the batch stores. */
interface Admitted extends Packable {
  priority: number;
}

/** A request whose messages the batch stores. */
interface Admission {
  queue: Queue;
  request: EnqueueRequest;
  messages: Admitted[];
}

/** The messages of one batch for one queue. */
interface QueueBatch {
  queue: Queue;
  messages: Admitted[];
  packs: NewPack[];
  /** Each reservation with the messages that it gets. */
  handOffs: { reservation: Reservation; messages: Admitted[] }[];
}

/**
 * A queue changed after it was cached, and nothing of the batch is stored. An earlier try whose
 * COMMIT got no answer cannot store it later, because it names the same version of the queue.
 */
class QueueChanged extends Error {
  constructor(cause: unknown) {
    super('A queue changed after the broker had cached its settings.', { cause });
  }
}

/** Messages were stored under a lease, and reached no consumer. */
interface UndoHandOff {
  release(queueId: number, leased: readonly LeasedMessage[]): Promise<void>;
  /** Logs the failure of a consumer. */
  report(failure: string): void;
}

/** An enqueue meets queues that changed since they were cached at most this many times. */
const ROUNDS = 4;

/**
 * Stores messages. A batch is one round trip and one commit: its statements check in the database
 * that the cached settings still hold.
 */
export class Enqueue {
  private readonly depths: DepthGauge;

  constructor(
    private readonly database: Database,
    private readonly queues: QueueRepository,
    private readonly views: QueueViews,
    private readonly undo: UndoHandOff,
    private readonly makePackId: (() => Buffer) | undefined,
  ) {
    this.depths = new DepthGauge(database);
  }

  async run(requests: readonly EnqueueRequest[], reserve: Reserve): Promise<EnqueueOutcome[]> {
    for (let round = 1; ; round += 1) {
      const names = [...new Set(requests.map(({ queueName }) => queueName))];
      const queues = await this.queues.getAll(names);
      const outcomes = new Map<EnqueueRequest, Error>();
      const admitted: Admission[] = [];
      const batches: QueueBatch[] = [];
      const leaseToken = newLeaseToken();
      let storedAt: number | undefined;
      try {
        await this.admit(requests, queues, { outcomes, admitted });
        for (const [queue, group] of groupBy(admitted, (one) => one.queue)) {
          const batch: QueueBatch = { queue, messages: group.flatMap((one) => one.messages), packs: [], handOffs: [] };
          batches.push(batch);
          reserveFor(batch, reserve);
          batch.packs = packMessages(batch.messages, this.makePackId);
        }
        storedAt = await this.store(batches, leaseToken);
      } catch (error) {
        for (const { queue, messages } of admitted) this.depths.end(queue.id, messages.length, false);
        for (const { queue, handOffs } of batches) {
          // The messages may be stored after all, so the next claim reads from the start.
          this.views.forget(queue.id);
          for (const { reservation } of handOffs) reservation.cancel();
        }
        if (!(error instanceof QueueChanged)) throw error;
        if (round === ROUNDS) {
          throw new RowmqError('overloaded', 'A queue of this batch changes all the time; try again.', {
            cause: error,
            retryAfterSeconds: 1,
          });
        }
        for (const name of names) this.queues.evict(name);
        continue;
      }
      // Nothing may throw from here on: the caller would store the messages again.
      for (const { queue, messages } of admitted) this.depths.end(queue.id, messages.length, true);
      for (const batch of batches) {
        this.noteReady(batch, storedAt);
        await this.handOff(batch, leaseToken, storedAt);
      }
      const stored = new Map(
        admitted.map(({ request, messages }) => [request, messages.map(({ id }) => id as Buffer)]),
      );
      return requests.map((request) => outcomes.get(request) ?? (stored.get(request) as Buffer[]));
    }
  }

  /**
   * Adds each request that can be stored to `admitted`, and the outcome of every other one to
   * `outcomes`. The depth gauge counts admitted messages until the caller ends them.
   */
  private async admit(
    requests: readonly EnqueueRequest[],
    queues: ReadonlyMap<string, Queue>,
    { outcomes, admitted }: { outcomes: Map<EnqueueRequest, Error>; admitted: Admission[] },
  ): Promise<void> {
    const begunAt = performance.now();
    for (const request of requests) {
      const queue = queues.get(request.queueName);
      if (queue === undefined) {
        outcomes.set(request, queueNotFound(request.queueName));
        continue;
      }
      try {
        const messages = request.messages.map((message, index) => schedule(message, queue, index));
        await this.depths.begin(queue, messages.length, begunAt);
        admitted.push({ queue, request, messages });
      } catch (error) {
        if (!(error instanceof RowmqError) || error.code === 'database-unavailable') throw error;
        outcomes.set(request, error);
      }
    }
  }

  /**
   * Returns the database's time of the store. Undefined: a COMMIT without an answer turned out
   * well, or there is nothing to store.
   */
  private async store(batches: readonly QueueBatch[], leaseToken: Buffer): Promise<number | undefined> {
    if (batches.length === 0) return undefined;
    const firstPack = batches[0]?.packs[0]?.id as Buffer;
    const statements = storeBatches(batches, leaseToken);
    return this.database.transaction(async (tx) => {
      // The batch is one transaction: its first pack tells whether an earlier try committed.
      if (tx.commitUnknown && (await isStored(tx, firstPack))) return undefined;
      try {
        const answers = await tx.finish(statements);
        return Number((answers.at(-1) as [{ now: number }])[0].now);
      } catch (error) {
        const isChanged = isNull(error);
        // The earlier try has committed only now. The next try finds its pack.
        const isLate = isDuplicateKey(error) || (isChanged && tx.commitUnknown && (await isStored(tx, firstPack)));
        if (tx.commitUnknown && isLate)
          throw new TryAgain('an earlier try has just stored the batch', { cause: error });
        throw isChanged ? new QueueChanged(error) : error;
      }
    });
  }

  /** From now on claims read low enough to find these messages, however late they committed. */
  private noteReady({ queue, packs }: QueueBatch, now: number | undefined): void {
    if (now === undefined) {
      this.views.forget(queue.id);
      return;
    }
    const ranks = new Set(packs.flatMap(({ deliveries }) => deliveries.map(({ fate }) => fate.priorityRank)));
    for (const priorityRank of ranks) this.views.of(queue.id).lower({ priorityRank, availableAt: now });
  }

  /**
   * Answers the reserved consumers. Releases messages that reached no consumer, so that they become
   * ready again.
   *
   * @param now when the batch was stored; undefined if a COMMIT without an answer turned out well
   */
  private async handOff({ queue, handOffs }: QueueBatch, leaseToken: Buffer, now: number | undefined): Promise<void> {
    const undone: LeasedMessage[] = [];
    for (const { reservation, messages } of handOffs) {
      const leased = messages.map((message) => toLeased(message, leaseToken, now ?? 0));
      try {
        if (now !== undefined) {
          reservation.handOff(leased);
          continue;
        }
        // Nobody knows the deadlines of these leases.
        reservation.cancel();
      } catch (error) {
        this.undo.report(`A consumer of queue '${queue.name}' failed to take its messages: ${String(error)}`);
      }
      undone.push(...leased);
    }
    if (undone.length > 0) await this.undo.release(queue.id, undone).catch(() => undefined);
  }
}

/** Reserves parked consumers for a batch's ready messages, the most urgent first. */
function reserveFor({ queue, messages, handOffs }: QueueBatch, reserve: Reserve): void {
  if (queue.paused) return;
  const ready = messages
    .filter(({ delayMs }) => delayMs === 0)
    .toSorted((one, other) => one.priorityRank - other.priorityRank);
  let used = 0;
  for (const reservation of ready.length === 0 ? [] : reserve(queue, ready.length)) {
    const reserved = ready.slice(used, used + reservation.maxMessages);
    used += reserved.length;
    if (reserved.length === 0) {
      reservation.cancel();
      continue;
    }
    for (const message of reserved) message.leaseMs = reservation.leaseSeconds * 1000;
    handOffs.push({ reservation, messages: reserved });
  }
}

function toLeased(message: Admitted, leaseToken: Buffer, now: number): LeasedMessage {
  return {
    messageId: message.id as Buffer,
    leaseToken,
    body: message.body,
    headers: message.headers,
    priority: message.priority,
    receiveCount: 1,
    expiresAt: now + message.lifeMs,
    leaseExpiresAt: now + (message.leaseMs ?? 0),
  };
}

/** Throws `invalid-request` if the message would expire before its delay ends. */
function schedule(message: NewMessage, queue: Queue, index: number): Admitted {
  const { body, headers, priority, expiresInSeconds } = message;
  const delaySeconds = message.delaySeconds ?? queue.delaySeconds;
  const lifeSeconds = Math.min(expiresInSeconds ?? queue.messageTtlSeconds, queue.messageTtlSeconds);
  if (delaySeconds >= lifeSeconds) {
    throw new RowmqError(
      'invalid-request',
      `Message ${index} would expire after ${lifeSeconds} s, before its delay of ${delaySeconds} s ends, and never be delivered; shorten the delay or let it live longer.`,
    );
  }
  return {
    body,
    headers,
    priority,
    priorityRank: LIMITS.priorityMax - priority,
    delayMs: delaySeconds * 1000,
    lifeMs: lifeSeconds * 1000,
    producerLifeMs: expiresInSeconds === undefined ? null : expiresInSeconds * 1000,
    leaseMs: null,
  };
}

async function isStored(tx: Transaction, packId: Buffer): Promise<boolean> {
  const [found] = await tx.read(
    `SELECT 1 FROM pack FORCE INDEX (PRIMARY) WHERE id = ?
     UNION ALL
     SELECT 1 FROM pack_overflow FORCE INDEX (PRIMARY) WHERE id = ?`,
    [packId, packId],
  );
  return found !== undefined;
}

/**
 * The statements of a batch: lock the queues' rows, shared, in id order; insert packs and
 * deliveries; tell the time of the store.
 *
 * A queue that was deleted or changed since it was cached has no row with this version. Its
 * variable is then NULL, the INSERT fails with 1048, and nothing of the batch is stored.
 */
function storeBatches(batches: readonly QueueBatch[], leaseToken: Buffer): Statement[] {
  const sorted = batches.toSorted((one, other) => one.queue.id - other.queue.id);
  const guards = sorted.map(
    ({ queue }, index) =>
      `@queue_${index} = (SELECT id FROM queue FORCE INDEX (PRIMARY) WHERE id = ${queue.id} AND version = ${queue.version} AND name IS NOT NULL LOCK IN SHARE MODE)`,
  );
  const rows = sorted.map(({ packs }, index) => rowsOf(`@queue_${index}`, '@now', packs, leaseToken));
  return [
    { sql: `SET ${guards.join(',\n    ')}` },
    // The time comes after the locks.
    { sql: `SET @now = ${NOW_MS}` },
    insertPacks(rows.flatMap(({ packs }) => packs)),
    insertNewDeliveries(rows.flatMap(({ deliveries }) => deliveries)),
    { sql: 'SELECT @now AS now' },
  ];
}

/** The rows of packs as SQL text. Escaping by mysql2, value by value, costs a third more. */
function rowsOf(
  queueId: string | number,
  now: string | number,
  packs: readonly NewPack[],
  leaseToken: Buffer,
): { packs: string[]; deliveries: string[] } {
  return {
    packs: packs.map(
      ({ id, count, lifeMs, payload }) => `(${hex(id)},${queueId},${count},${now}+${lifeMs},${hex(payload)})`,
    ),
    deliveries: packs.flatMap(({ id, deliveries }) =>
      deliveries.map(({ fate, members }) => {
        const { leaseMs, delayMs } = fate;
        const waitMs = leaseMs === null ? delayMs : leaseMs + LEASE_GRACE_MS;
        const token = leaseMs === null ? NO_LEASE : hex(leaseToken);
        const producerExpiresAt = fate.producerLifeMs === null ? 'NULL' : `${now}+${fate.producerLifeMs}`;
        return `(${queueId},${hex(id)},${token},${lowestMember(members)},${members},${fate.priorityRank},${now}+${waitMs},${now}+${fate.lifeMs},${producerExpiresAt},${leaseMs === null ? 0 : 1})`;
      }),
    ),
  };
}

function insertPacks(rows: readonly string[]): Statement {
  return { sql: `INSERT INTO pack (id, queue_id, count, expires_at, payload) VALUES ${rows.join(',')}` };
}

function insertNewDeliveries(rows: readonly string[]): Statement {
  return {
    sql: `INSERT INTO delivery (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, producer_expires_at, receive_count) VALUES ${rows.join(',')}`,
  };
}

/** The caller's own transaction, on a connection that the store does not manage. */
export type ForeignTransaction = Pick<Transaction, 'read' | 'write'>;

/**
 * Stores the messages of one request in the caller's transaction, and returns their ids. It does
 * not commit, retry, or notify waiting consumers.
 *
 * Throws `queue-not-found`, `queue-full` or `invalid-request`.
 *
 * Shares the queue's entry in `queue_by_name` until the caller's transaction ends. That keeps the
 * queue from being deleted, and hinders no change of its settings. In REPEATABLE READ the settings
 * are those of the transaction's snapshot. A queue that is younger than the snapshot is not found.
 */
export async function storeIn(tx: ForeignTransaction, { queueName, messages }: EnqueueRequest): Promise<Buffer[]> {
  const [known] = await tx.read<{ id: number }>('SELECT id FROM queue WHERE name = ?', [queueName]);
  if (known === undefined) throw queueNotFound(queueName);
  // The index has all columns that this reads, so it locks the entry and not the row.
  const [locked] = await tx.read<{ id: number }>(
    'SELECT id FROM queue FORCE INDEX (queue_by_name) WHERE name = ? LOCK IN SHARE MODE',
    [queueName],
  );
  if (locked?.id !== known.id) throw queueNotFound(queueName);
  const [row] = await tx.read<QueueRow & { now: number | string }>(
    `SELECT ${QUEUE_COLUMNS}, ${UTC_NOW_MS} AS now FROM queue FORCE INDEX (PRIMARY) WHERE id = ?`,
    [known.id],
  );
  if (row === undefined) throw queueNotFound(queueName);
  const queue = toQueue(row);
  const scheduled = messages.map((message, index) => schedule(message, queue, index));
  if (queue.maxDepth !== null) {
    const depth = await countMessages(tx, queue.id, queue.maxDepth, UTC_NOW_MS);
    refuseIfFull(queue.maxDepth, depth, messages.length);
  }
  // The caller's connection may return large numbers as text.
  const rows = rowsOf(queue.id, Number(row.now), packMessages(scheduled), NO_TOKEN);
  await tx.write(insertPacks(rows.packs).sql);
  await tx.write(insertNewDeliveries(rows.deliveries).sql);
  return scheduled.map(({ id }) => id as Buffer);
}
