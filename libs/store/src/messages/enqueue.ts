import { RowmqError } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import { isDuplicateKey, TryAgain } from '../database/database-errors.js';
import type { Database } from '../database/database.js';
import type { Statement } from '../database/session.js';
import { groupBy } from '../group-by.js';
import { FairPlaces } from '../groups/fair-places.js';
import { storeOrdered } from '../groups/ordered-enqueue.js';
import { type Queue, queueNotFound } from '../queues/queue.js';
import type { QueueRepository } from '../queues/queue.repository.js';
import { reasonToBeginAgain, restless, ROUNDS, SettingsChanged } from './begin-again.js';
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
import type { NewRecord } from './deduplication.sql.js';
import { DepthGauge } from './depth-gauge.js';
import { isStored, storeBatches } from './enqueue.sql.js';
import { type HandOffs, type QueueBatch, type Reserve, reserveReady, toLeased } from './hand-off.js';
import { newLeaseToken } from './lease-token.js';
import type { LeasedMessage } from './leased-message.js';
import { type Admitted, type EnqueueRequest, namesInstant, type NewMessage, schedule } from './new-message.js';
import { type NewFate, type NewPack, packMessages } from './packing.js';
import type { QueueViews } from './queue-view.js';
import type { EnqueuedMessage } from './recorded-answer.js';

/**
 * The messages, in order. An error if nothing of the request is stored: a `RowmqError` with the
 * code `queue-not-found`, `queue-full`, `queue-paused`, `invalid-request`,
 * `idempotency-key-reused` or `enqueue-in-progress`.
 */
export type EnqueueOutcome = EnqueuedMessage[] | Error;

/** A request that the batch carries out. */
interface Admission {
  queue: Queue;
  request: EnqueueRequest;
  plan: Pick<Plan<Admitted>, 'answer' | 'messages'> & Partial<Pick<Plan<Admitted>, 'records'>>;
}

/** The messages of one batch for one queue, in packs of their own. */
interface PackedBatch extends QueueBatch {
  packs: NewPack[];
  /** Records of deduplicationIds and Idempotency-Keys. */
  records: NewRecord[];
  makeRecords: () => NewRecord[];
}

/** Messages were stored under a lease, and reached no consumer. */
interface UndoHandOff {
  release(queueId: number, leased: readonly LeasedMessage[]): Promise<void>;
  /** Logs the failure of a consumer. */
  report(failure: string): void;
}

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

/** The caller took the queue for an ordered one, or for one without ordering. */
function createdAnew({ name }: Queue): RowmqError {
  return new RowmqError('overloaded', `Queue '${name}' was deleted and created anew meanwhile; try again.`, {
    retryAfterSeconds: 1,
  });
}
