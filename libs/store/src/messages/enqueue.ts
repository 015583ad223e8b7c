import { checkGroup, countFitting, LIMITS, RowmqError } from '@rowmq/contract';
import { NOW_MS, UTC_NOW_MS } from '../database/clock.js';
import type { Database, Transaction } from '../database/database.js';
import {
  isDuplicateKey,
  isLockWaitTimeout,
  isNull,
  isOutOfRange,
  toRowmqError,
  TryAgain,
} from '../database/database-errors.js';
import { hex } from '../database/hex.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';
import { FairPlaces } from '../groups/fair-places.js';
import { storeOrdered } from '../groups/ordered-enqueue.js';
import { storeInOrder } from '../groups/store-in-order.js';
import { type Queue, QUEUE_COLUMNS, queueNotFound, queuePaused, type QueueRow, toQueue } from '../queues/queue.js';
import type { QueueRepository } from '../queues/queue.repository.js';
import { partOf } from './delivery.js';
import { LEASE_GRACE_MS, NO_LEASE, NO_TOKEN } from './delivery.sql.js';
import {
  Deduplication,
  inQueue,
  isDeduplicated,
  type Plan,
  readRecords,
  recordKeys,
  RecordMet,
  toAnswer,
} from './deduplication.js';
import { byRecordKey, insertRecords, type NewRecord, recordRow, refuseLive } from './deduplication.sql.js';
import { countMessages, DepthGauge, refuseIfFull } from './depth-gauge.js';
import {
  assertUsable,
  type ForeignTransaction,
  numbers,
  TRANSACTION_FACTS,
  type TransactionFacts,
  textOf,
} from './foreign-transaction.js';
import { newLeaseToken } from './lease-token.js';
import type { LeasedMessage } from './leased-message.js';
import { type Content, contentBytes } from './pack.codec.js';
import { insertPacks } from './pack.sql.js';
import { type NewDelivery, type NewFate, type NewPack, packMessages, type Packable } from './packing.js';
import type { QueueViews } from './queue-view.js';
import type { EnqueuedMessage } from './recorded-answer.js';
import { RecordsInTransaction } from './records-in-transaction.js';

/** A message as a producer sends it. The caller has checked its size. */
export interface NewMessage extends Content {
  /** 0 to 9; 9 is the most urgent. */
  priority: number;
  /** Default: the queue's delay. */
  delaySeconds?: number | undefined;
  /** In place of a delay: ms since 1970. A past instant means now. */
  availableAt?: number | undefined;
  /** Counts from the enqueue. Default and maximum: the queue's TTL from when it is available. */
  expiresInSeconds?: number | undefined;
  /** A further message with this id is not stored for some time. */
  deduplicationId?: string | undefined;
}

/** Messages for one queue. The broker stores all of them or none. */
export interface EnqueueRequest {
  queueName: string;
  messages: readonly NewMessage[];
  /** A repeat of the request has the same key, and gets the answer of the first. */
  idempotencyKey?: string | undefined;
}

/**
 * The messages, in order. An error if nothing of the request is stored: a `RowmqError` with the
 * code `queue-not-found`, `queue-full`, `queue-paused`, `invalid-request`,
 * `idempotency-key-reused` or `enqueue-in-progress`.
 */
export type EnqueueOutcome = EnqueuedMessage[] | Error;

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
export interface Admitted extends Packable {
  priority: number;
}

/** A request that the batch carries out. */
interface Admission {
  queue: Queue;
  request: EnqueueRequest;
  plan: Pick<Plan<Admitted>, 'answer' | 'messages'> & Partial<Pick<Plan<Admitted>, 'records'>>;
}

/** The messages of one batch that consumers of a queue get at once. */
export interface HandOffs {
  queue: Queue;
  /** Each reservation with the messages that it gets. */
  handOffs: { reservation: Reservation; messages: Admitted[] }[];
}

/** The messages of one batch for one queue. */
export interface QueueBatch extends HandOffs {
  messages: Admitted[];
}

/** The messages of one batch for one queue, in packs of their own. */
interface PackedBatch extends QueueBatch {
  packs: NewPack[];
  /** Records of deduplicationIds and Idempotency-Keys. */
  records: NewRecord[];
  makeRecords: () => NewRecord[];
}

/**
 * A queue or a topic changed after it was cached, and nothing of the batch is stored. An earlier
 * try whose COMMIT got no answer cannot store it later, because it names the same version.
 */
export class SettingsChanged extends Error {
  constructor(cause: unknown) {
    super('A queue or a topic changed after the broker had cached it.', { cause });
  }

  /** The error after too many of them. */
  static tooOften(what: 'queue' | 'topic', cause: SettingsChanged): RowmqError {
    return new RowmqError('overloaded', `A ${what} of this batch changes all the time; try again.`, {
      cause,
      retryAfterSeconds: 1,
    });
  }
}

/** Messages were stored under a lease, and reached no consumer. */
interface UndoHandOff {
  release(queueId: number, leased: readonly LeasedMessage[]): Promise<void>;
  /** Logs the failure of a consumer. */
  report(failure: string): void;
}

/**
 * A batch begins at most this often. Queues and topics that changed make it begin again, and so do
 * duplicates.
 */
export const ROUNDS = 4;

/**
 * Stores messages. A batch is one round trip and one commit: its statements check in the database
 * that the cached settings still hold.
 */
export class Enqueue {
  readonly depths: DepthGauge;
  private readonly places: FairPlaces;

  constructor(
    private readonly database: Database,
    private readonly queues: QueueRepository,
    private readonly views: QueueViews,
    private readonly undo: UndoHandOff,
    private readonly makePackId: (() => Buffer) | undefined,
  ) {
    this.depths = new DepthGauge(database);
    this.places = new FairPlaces(database);
  }

  /** @param isOrdered the requests are for ordered queues */
  async run(requests: readonly EnqueueRequest[], reserve: Reserve, isOrdered = false): Promise<EnqueueOutcome[]> {
    const names = [...new Set(requests.map(({ queueName }) => queueName))];
    const deduplication = new Deduplication<Admitted>();
    for (let round = 1; ; round += 1) {
      const queues = await this.queues.getAll(names);
      const outcomes = new Map<EnqueueRequest, Error>();
      const admitted: Admission[] = [];
      const batches: PackedBatch[] = [];
      const leaseToken = newLeaseToken();
      let storedAt: number | undefined;
      try {
        await this.admit(requests, queues, deduplication, { outcomes, admitted, isOrdered });
        for (const [queue, group] of groupBy(admitted, (one) => one.queue)) {
          const messages = group.flatMap(({ plan }) => plan.messages);
          const makeRecords = () => group.flatMap(({ plan }) => plan.records?.() ?? []);
          const batch: PackedBatch = { queue, messages, packs: [], records: [], makeRecords, handOffs: [] };
          batches.push(batch);
        }
        if (!isOrdered) await this.places.give(batches);
        for (const batch of isOrdered ? [] : batches) {
          reserveReady(batch, reserve);
          batch.packs = packMessages(batch.messages, this.makePackId);
          batch.records = batch.makeRecords();
        }
        storedAt = await (isOrdered
          ? this.storeOrdered(batches, leaseToken, reserve)
          : this.storePacked(batches, leaseToken));
      } catch (error) {
        for (const { queue, plan } of admitted) this.depths.end(queue.id, plan.messages.length, false);
        this.cancel(batches, error);
        if (!(error instanceof SettingsChanged || error instanceof RecordMet)) throw error;
        if (round === ROUNDS) throw restless(error, 'queue');
        if (error instanceof SettingsChanged) for (const name of names) this.queues.evict(name);
        else await this.readRecords(requests, queues, deduplication, error);
        continue;
      }
      // Nothing may throw from here on: the caller would store the messages again.
      for (const { queue, plan } of admitted) this.depths.end(queue.id, plan.messages.length, true);
      for (const batch of batches) {
        const fates = batch.packs.flatMap(({ deliveries }) => deliveries.map(({ fate }) => fate));
        this.noteReady(batch.queue, isOrdered ? batch.messages : fates, storedAt);
        await this.handOff(batch, leaseToken, storedAt);
      }
      const stored = new Map(admitted.map(({ request, plan }) => [request, toAnswer(plan)]));
      return requests.map((request) => outcomes.get(request) ?? (stored.get(request) as EnqueuedMessage[]));
    }
  }

  /**
   * Adds each request that can be carried out to `admitted`, and the outcome of every other one to
   * `outcomes`. The depth gauge counts admitted messages until the caller ends them.
   *
   * Throws {@link RecordMet} instead of refusing a request that may be a repeat.
   */
  private async admit(
    requests: readonly EnqueueRequest[],
    queues: ReadonlyMap<string, Queue>,
    deduplication: Deduplication<Admitted>,
    {
      outcomes,
      admitted,
      isOrdered,
    }: { outcomes: Map<EnqueueRequest, Error>; admitted: Admission[]; isOrdered: boolean },
  ): Promise<void> {
    const begunAt = performance.now();
    const now = requests.some(namesInstant) ? await this.readClock() : 0;
    deduplication.startRound();
    for (const request of requests) {
      const queue = queues.get(request.queueName);
      if (queue === undefined) {
        outcomes.set(request, queueNotFound(request.queueName));
        continue;
      }
      try {
        const make = (message: NewMessage, index: number): Admitted => {
          const made = schedule(message, queue, index, now);
          if (isOrdered !== (queue.ordering !== null)) throw createdAnew(queue);
          return made;
        };
        if (!isDeduplicated(request)) {
          const messages = request.messages.map(make);
          await this.depths.begin(queue, messages.length, begunAt);
          const answer = messages.map((message) => ({ message, duplicate: false }));
          admitted.push({ queue, request, plan: { answer, messages } });
          continue;
        }
        const plan = deduplication.plan(inQueue(queue), request, make);
        await this.depths.begin(queue, plan.messages.length, begunAt);
        deduplication.accept(plan);
        admitted.push({ queue, request, plan });
      } catch (error) {
        if (!(error instanceof RowmqError) || error.code === 'database-unavailable') throw error;
        if (isDeduplicated(request) && !deduplication.hasRead) throw new RecordMet(error);
        outcomes.set(request, error);
      }
    }
  }

  private async readRecords(
    requests: readonly EnqueueRequest[],
    queues: ReadonlyMap<string, Queue>,
    deduplication: Deduplication<Admitted>,
    met: RecordMet,
  ): Promise<void> {
    const keys = requests.flatMap((request) => {
      const queue = queues.get(request.queueName);
      return queue === undefined ? [] : recordKeys(inQueue(queue), request);
    });
    const { live, open } = await readRecords(this.database, keys, met);
    deduplication.learn(live, open);
  }

  /**
   * The database's time. It decides whether an instant that a producer named has passed, before
   * anything is stored. Messages without such an instant do without this round trip.
   */
  async readClock(): Promise<number> {
    const [row] = await this.database.read<{ now: number }>(`SELECT ${NOW_MS} AS now`);
    return row?.now ?? 0;
  }

  /**
   * Runs the statements of a batch, the last of which tells the time. Returns the database's time
   * of the store. Undefined: a COMMIT without an answer turned out well.
   *
   * @param firstPack undefined if the batch stores no message
   * @param hasRecords whether a record can be in the way of the batch
   */
  async store(
    statements: readonly Statement[],
    { firstPack, hasRecords = false }: { firstPack: Buffer | undefined; hasRecords?: boolean },
  ): Promise<number | undefined> {
    return this.database.transaction(async (tx) => {
      // The batch is one transaction: its first pack tells whether an earlier try committed. A
      // batch without a pack leaves nothing but records. Its repeat finds them like any others.
      const wasStored = async (): Promise<boolean> =>
        tx.commitUnknown && firstPack !== undefined && (await isStored(tx, firstPack));
      if (await wasStored()) return undefined;
      try {
        const answers = await tx.finish(statements);
        return Number((answers.at(-1) as [{ now: number }])[0].now);
      } catch (error) {
        const reason = reasonToBeginAgain(error, { hasRecords, mayBeOwn: tx.commitUnknown });
        // The earlier try has committed only now. The next try finds its pack.
        const isLate = isDuplicateKey(error) ? tx.commitUnknown : reason !== undefined && (await wasStored());
        if (isLate) throw new TryAgain('an earlier try has just stored the batch', { cause: error });
        throw reason ?? error;
      }
    });
  }

  private async storeOrdered(
    batches: readonly PackedBatch[],
    leaseToken: Buffer,
    reserve: Reserve,
  ): Promise<number | undefined> {
    return batches.length === 0 ? undefined : storeOrdered(this.database, batches, { leaseToken, reserve });
  }

  private async storePacked(batches: readonly PackedBatch[], leaseToken: Buffer): Promise<number | undefined> {
    const writing = batches.filter(({ packs, records }) => packs.length + records.length > 0);
    if (writing.length === 0) return undefined;
    return this.store(storeBatches(writing, leaseToken), {
      firstPack: writing.flatMap(({ packs }) => packs)[0]?.id,
      hasRecords: writing.some(({ records }) => records.length > 0),
    });
  }

  /** Nothing of these batches is stored, unless a COMMIT without an answer turns out well. */
  cancel(batches: readonly HandOffs[], error: unknown): void {
    const isKnown = error instanceof SettingsChanged || error instanceof RecordMet;
    for (const { queue, handOffs } of batches) {
      // The messages may be stored after all, so the next claim reads from the start.
      if (!isKnown) this.views.forget(queue.id);
      for (const { reservation } of handOffs) reservation.cancel();
    }
  }

  /**
   * From now on claims of a queue read low enough to find new messages with these fates, however
   * late they committed.
   */
  noteReady(queue: Queue, fates: readonly NewFate[], now: number | undefined): void {
    // All of its messages were duplicates.
    if (fates.length === 0) return;
    if (now === undefined) {
      this.views.forget(queue.id);
      return;
    }
    const lowest = new Map<number, number>();
    for (const { priorityRank, availableAt } of fates)
      lowest.set(priorityRank, Math.min(lowest.get(priorityRank) ?? now, availableAt ?? now));
    for (const [priorityRank, availableAt] of lowest) this.views.of(queue.id).lower({ priorityRank, availableAt });
  }

  /**
   * Answers the reserved consumers. Releases messages that reached no consumer, so that they become
   * ready again.
   *
   * @param now when the batch was stored; undefined if a COMMIT without an answer turned out well
   */
  async handOff({ queue, handOffs }: HandOffs, leaseToken: Buffer, now: number | undefined): Promise<void> {
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

/**
 * Why a batch that met this error has to begin again. A lock that its own earlier try may hold is
 * waited for once more instead.
 */
export function reasonToBeginAgain(
  error: unknown,
  { hasRecords, mayBeOwn }: { hasRecords: boolean; mayBeOwn: boolean },
): SettingsChanged | RecordMet | undefined {
  if (isNull(error)) return new SettingsChanged(error);
  if (isOutOfRange(error)) return hasRecords ? new RecordMet(error) : new SettingsChanged(error);
  if (hasRecords && isLockWaitTimeout(error) && !mayBeOwn) return new RecordMet(error, true);
  return undefined;
}

/** The caller took the queue for an ordered one, or for one without ordering. */
function createdAnew({ name }: Queue): RowmqError {
  return new RowmqError('overloaded', `Queue '${name}' was deleted and created anew meanwhile; try again.`, {
    retryAfterSeconds: 1,
  });
}

/** The error of a batch that began too often. */
export function restless(error: SettingsChanged | RecordMet, what: 'queue' | 'topic'): unknown {
  if (error instanceof SettingsChanged) return SettingsChanged.tooOften(what, error);
  // It waited for the lock of a queue or a topic, and not of a record.
  if (error.isOpen) return toRowmqError(error.cause);
  return new RowmqError(
    'overloaded',
    'Others enqueue with the deduplicationIds or Idempotency-Keys of this batch all the time; try again.',
    { cause: error, retryAfterSeconds: 1 },
  );
}

/** Reserves parked consumers for a batch's ready messages, the most urgent first. */
function reserveReady(batch: QueueBatch, reserve: Reserve): void {
  const ready = batch.messages.filter(({ delayMs }) => delayMs === 0);
  reserveFor(batch, ready.length, () => ready.toSorted((one, other) => one.priorityRank - other.priorityRank), reserve);
}

/**
 * Reserves parked consumers of a queue for `count` ready messages.
 * @param inOrder makes the messages, in the order in which consumers get them
 */
export function reserveFor(
  { queue, handOffs }: HandOffs,
  count: number,
  inOrder: () => readonly Admitted[],
  reserve: Reserve,
): void {
  const reservations = queue.paused || count === 0 ? [] : reserve(queue, count);
  if (reservations.length === 0) return;
  const ready = inOrder();
  let used = 0;
  for (const reservation of reservations) {
    const wanted = ready.slice(used, used + reservation.maxMessages);
    const reserved = wanted.slice(0, countFitting(wanted, contentBytes));
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
  const { copy, members } = message.delivery as NewDelivery;
  return {
    messageId: message.id as Buffer,
    leaseToken,
    part: partOf(copy, members),
    members,
    body: message.body,
    headers: message.headers,
    replayOf: message.replayOf,
    groupId: message.groupId,
    priority: message.priority,
    receiveCount: 1,
    firstReceivedAt: now,
    moves: null,
    expiresAt: now + message.lifeMs,
    leaseExpiresAt: now + (message.leaseMs ?? 0),
  };
}

export function namesInstant({ messages }: Pick<EnqueueRequest, 'messages'>): boolean {
  return messages.some(({ availableAt }) => availableAt !== undefined);
}

/**
 * A message with its times. Throws what {@link fateOf} does.
 * @param now the database's time, for a message that names an instant
 */
function schedule(message: NewMessage, queue: Queue, index: number, now: number): Admitted {
  const { body, headers, replayOf, groupId, priority } = message;
  const fate = fateOf(message, queue, index, now);
  return { body, headers, replayOf, ...(groupId !== undefined && { groupId }), priority, ...fate };
}

/**
 * The times of a message. Throws `queue-paused` if its queue takes none. Throws `invalid-request`
 * if it does not fit the ordering of its queue, if it would expire before it is available, or if it
 * is available too late.
 */
export function fateOf(message: NewMessage, queue: Queue, index: number, now: number): NewFate {
  if (queue.producersPaused) throw queuePaused(queue.name);
  checkGroup(message, queue, index);
  const { priority, expiresInSeconds } = message;
  const availableAt = message.availableAt !== undefined && message.availableAt > now ? message.availableAt : null;
  const delayMs = delayOf(message, queue, now);
  if (delayMs > LIMITS.aheadSeconds * 1000) {
    throw new RowmqError(
      'invalid-request',
      `Message ${index} would be available in more than ${LIMITS.aheadSeconds / 86_400} days; name an earlier time, and enqueue it again then.`,
    );
  }
  const ttlMs = queue.messageTtlSeconds * 1000;
  const producerLifeMs = expiresInSeconds === undefined ? null : expiresInSeconds * 1000;
  if (producerLifeMs !== null && delayMs >= producerLifeMs) {
    throw new RowmqError(
      'invalid-request',
      `Message ${index} would expire after ${expiresInSeconds} s, before its delay of ${Math.ceil(delayMs / 1000)} s ends, and never be delivered; shorten the delay or let it live longer.`,
    );
  }
  return {
    priorityRank: LIMITS.priorityMax - priority,
    delayMs,
    availableAt,
    lifeMs: Math.min(producerLifeMs ?? Infinity, delayMs + ttlMs),
    producerLifeMs,
    leaseMs: null,
  };
}

function delayOf({ availableAt, delaySeconds }: NewMessage, queue: Queue, now: number): number {
  if (availableAt !== undefined) return Math.max(0, availableAt - now);
  return (delaySeconds ?? queue.delaySeconds) * 1000;
}

export async function isStored(tx: Transaction, packId: Buffer): Promise<boolean> {
  const [found] = await tx.read(
    `SELECT 1 FROM pack FORCE INDEX (PRIMARY) WHERE id = ?
     UNION ALL
     SELECT 1 FROM pack_overflow FORCE INDEX (PRIMARY) WHERE id = ?`,
    [packId, packId],
  );
  return found !== undefined;
}

/**
 * The statements of a batch: lock the queues' rows, shared, in id order; lock and insert records in
 * key order; insert deliveries and packs; tell the time of the store.
 *
 * A queue that was deleted or changed since it was cached has no row with this version. Its
 * variable is then NULL, the INSERT of deliveries fails with 1048, and nothing of the batch is
 * stored. Packs come later: after that failure, a pack tells that an earlier try has committed.
 */
function storeBatches(batches: readonly PackedBatch[], leaseToken: Buffer): Statement[] {
  const sorted = batches.toSorted((one, other) => one.queue.id - other.queue.id);
  const rows = sorted.map(({ packs }, index) => rowsOf(`@queue_${index}`, '@now', packs, leaseToken));
  const packs = rows.flatMap((one) => one.packs);
  return [
    lockQueues(sorted.map(({ queue }) => queue)),
    // The time comes after the locks.
    { sql: `SET @now = ${NOW_MS}` },
    ...storeRecords(
      sorted.flatMap(({ records }, index) => records.map((record) => ({ record, scope: `@queue_${index}` }))),
    ),
    ...(packs.length > 0
      ? [insertNewDeliveries(rows.flatMap(({ deliveries }) => deliveries)), insertPacks(packs)]
      : []),
    { sql: 'SELECT @now AS now' },
  ];
}

/**
 * Locks and inserts records, in the order of their keys. Fails with 1690 if one is live.
 *
 * @param scope replaces the id of a record's queue or topic
 */
export function storeRecords(records: readonly { record: NewRecord; scope?: string }[]): Statement[] {
  if (records.length === 0) return [];
  const sorted = records.toSorted((one, other) => byRecordKey(one.record, other.record));
  return [
    refuseLive(
      sorted.map(({ record }) => record),
      '@now',
    ),
    insertRecords(
      sorted.map(({ record, scope }) => recordRow(record, '@now', scope)),
      '@now',
    ),
  ];
}

/**
 * Locks the rows of queues, shared. Sets the variable `@queue_n` to the id of the nth, or to NULL
 * if that queue was changed or deleted.
 *
 * @param queues in id order
 */
export function lockQueues(queues: readonly Queue[]): Statement {
  const guards = queues.map(
    ({ id, version }, index) =>
      `@queue_${index} = (SELECT id FROM queue FORCE INDEX (PRIMARY) WHERE id = ${id} AND version = ${version} AND name IS NOT NULL LOCK IN SHARE MODE)`,
  );
  return { sql: `SET ${guards.join(',\n    ')}` };
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
      deliveries.map((delivery) => deliveryRow({ queueId, packId: id, ...delivery }, now, leaseToken)),
    ),
  };
}

/** A new row of `delivery`. */
export function deliveryRow(
  { queueId, packId, copy, members, fate }: NewDelivery & { queueId: string | number; packId: Buffer },
  now: string | number,
  leaseToken: Buffer,
): string {
  const { leaseMs, delayMs } = fate;
  const availableAt =
    leaseMs === null ? (fate.availableAt ?? `${now}+${delayMs}`) : `${now}+${leaseMs + LEASE_GRACE_MS}`;
  const token = leaseMs === null ? NO_LEASE : hex(leaseToken);
  const producerExpiresAt = fate.producerLifeMs === null ? 'NULL' : `${now}+${fate.producerLifeMs}`;
  return `(${queueId},${hex(packId)},${token},${partOf(copy, members)},${members},${fate.priorityRank},${availableAt},${now}+${fate.lifeMs},${producerExpiresAt},${leaseMs === null ? '0,NULL' : `1,${now}`})`;
}

export function insertNewDeliveries(rows: readonly string[], schema = ''): Statement {
  return {
    sql: `INSERT INTO ${schema}delivery (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, producer_expires_at, receive_count, first_received_at) VALUES ${rows.join(',')}`,
  };
}

/**
 * Stores the messages of one request in the caller's transaction, and returns their ids. It does
 * not commit, retry, or notify waiting consumers.
 *
 * Throws `queue-not-found`, `queue-full` or `invalid-request`, and Error for a transaction that
 * cannot be used.
 *
 * Shares the queue's entry in `queue_by_name` until the caller's transaction ends. That keeps the
 * queue from being deleted, and hinders no change of its settings. In REPEATABLE READ the settings
 * are those of the transaction's snapshot. A queue that is younger than the snapshot is not found.
 */
export async function storeIn(tx: ForeignTransaction, request: EnqueueRequest): Promise<EnqueuedMessage[]> {
  const { queueName } = request;
  const { schema = '' } = tx;
  // Without a lock: in REPEATABLE READ, a locking read of a missing name locks a gap between names.
  const [row] = await tx.read<QueueRow & TransactionFacts>(
    `SELECT ${QUEUE_COLUMNS}, ${TRANSACTION_FACTS} FROM ${schema}queue WHERE name = ?`,
    [queueName],
  );
  if (row === undefined) throw notFoundIn(queueName);
  const { name, ordering, level, isOpen, ...settings } = row;
  assertUsable({ level, isOpen });
  const queue = toQueue({ ...numbers(settings), name: textOf(name), ordering: ordering && textOf(ordering) });
  // The index has all columns that this reads, so it locks the entry and not the row.
  const [locked] = await tx.read<{ id: number; now: number }>(
    `SELECT id, ${UTC_NOW_MS} AS now FROM ${schema}queue FORCE INDEX (queue_by_name) WHERE name = ? LOCK IN SHARE MODE`,
    [queueName],
  );
  if (locked === undefined) throw notFoundIn(queueName);
  const { id, now } = numbers(locked);
  if (id !== queue.id) throw notFoundIn(queueName);
  const records = isDeduplicated(request)
    ? await RecordsInTransaction.claim<Admitted>(tx, inQueue(queue), request, now)
    : undefined;
  const plan = (records?.deduplication ?? new Deduplication<Admitted>()).plan(
    inQueue(queue),
    request,
    (message, index) => schedule(message, queue, index, now),
  );
  const { messages } = plan;
  if (messages.length > 0) {
    if (queue.maxDepth !== null) {
      const depth = await countMessages(tx, queue.id, queue.maxDepth, { clock: UTC_NOW_MS, schema });
      refuseIfFull(queue.maxDepth, depth, messages.length);
    }
    if (queue.ordering === null) {
      const rows = rowsOf(queue.id, now, packMessages(messages), NO_TOKEN);
      await tx.write(insertPacks(rows.packs, { schema }).sql);
      await tx.write(insertNewDeliveries(rows.deliveries, schema).sql);
    } else await storeInOrder(tx, queue.id, messages, now);
  }
  await records?.complete(plan.records());
  return toAnswer(plan);
}

function notFoundIn(name: string): RowmqError {
  const { message } = queueNotFound(name);
  return new RowmqError(
    'queue-not-found',
    `${message} A transaction in REPEATABLE READ does not see a queue that was created after its first read.`,
  );
}
