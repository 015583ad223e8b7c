import { setTimeout as sleep } from 'node:timers/promises';
import { IsNull, Not } from 'typeorm';
import {
  checkDeadLetterExpired,
  checkDeadLetterPath,
  checkMaxReceives,
  checkOrdering,
  QUEUE_DEFAULTS,
  RowmqError,
  type PutQueueRequest,
} from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import { QueueEntity } from '../entities/index.js';
import type { Database, Transaction } from '../database/database.js';
import { isLockWaitTimeout, isStatementTimeout, TryAgain } from '../database/database-errors.js';
import { countMessages } from '../messages/depth-gauge.js';
import { forgetSubscriptions } from '../topics/topic.repository.js';
import { type Queue, queueExists, queueNotFound, type QueueRow, SELECT_QUEUE, toQueue } from './queue.js';
import { TAKE_TURN } from './take-turn.js';

/** A broker may use outdated settings for this long after another broker changed them. */
const CACHE_MS = 1000;
/**
 * A change waits for a lock only this long at a time, because every later request for that lock
 * waits behind it.
 */
const LOCK_MS = 100;
/**
 * A creation waits this long at a time for its turn. Only changes wait there, first come first
 * served, so a longer wait is fair and hinders nobody else.
 */
const TURN_MS = 2000;
/** After a wait in vain, the change pauses for a time between these two, and others go first. */
const PAUSE_MS = { min: 100, max: 200 };
/** Deliveries that a refused deletion counts at most, while it holds the queue's row. */
const COUNTED = 1000;
/** A change that has not got its locks after this long fails with `queue-locked`. */
const PATIENCE_MS = 4000;
/** Bounds the cache. Otherwise a queue that another broker deleted would stay in it for ever. */
const QUEUES_REMEMBERED = 10_000;

/** Both servers refuse to compare any other text with the name of a queue. */
const ASCII = /^[ -~]*$/;

/** The settings of a queue to write: those of REST, and what only SQS knows. */
export type QueueChange = PutQueueRequest & Partial<Pick<Queue, 'sqs'>>;

/** Somebody else changed the queue since the caller read it. */
class Outdated extends Error {}

/** The sides of a queue that a pause changes. */
export interface PausedSides {
  paused?: boolean | undefined;
  producersPaused?: boolean | undefined;
}

/**
 * Queues and their settings.
 *
 * Partitioned tables cannot have foreign keys. Locks on `queue` replace them. A queue has two: its
 * entry in `queue_by_name` stands for its existence, and its row for its settings. A service's
 * transaction may stay open for long, so its enqueue shares the entry only. A broker's enqueue
 * shares the row, for milliseconds. A delete takes both, so no delivery is created in a deleted
 * queue. A change takes the row only, so it never waits for a service's transaction.
 *
 * Lock order prevents cycles. A transaction that locks by name locks `queue_by_name`, then the row.
 * All others lock only rows, in id order. Reject, which holds a queue's row, also waits for
 * deliveries, but only for those under its leases. Every other holder of a row skips locked ones.
 */
export class QueueRepository {
  private readonly cache = new Map<string, { queue: Queue; until: number }>();
  /** Reads in progress, which later callers share. */
  private readonly reads = new Map<string, Promise<Queue>>();

  constructor(private readonly database: Database) {}

  /** Returns the queue of this name, at most one second old. Throws `queue-not-found`. */
  async get(name: string): Promise<Queue> {
    const cached = this.cache.get(name);
    if (cached !== undefined && cached.until > performance.now()) return cached.queue;
    const underWay = this.reads.get(name);
    if (underWay !== undefined) return underWay;
    const read = this.getFresh(name).finally(() => this.reads.delete(name));
    this.reads.set(name, read);
    return read;
  }

  /**
   * The queue as this process last knew it, at once, also while it is read again: the limits of
   * requests hold without a gap. Undefined: it did not know it lately.
   */
  peek(name: string): Queue | undefined {
    return this.cache.get(name)?.queue;
  }

  /** Reads the current state of this queue. Throws `queue-not-found`. */
  async getFresh(name: string): Promise<Queue> {
    const [row] = ASCII.test(name) ? await this.database.read<QueueRow>(`${SELECT_QUEUE} WHERE name = ?`, [name]) : [];
    if (row === undefined) {
      this.cache.delete(name);
      throw queueNotFound(name);
    }
    const queue = toQueue(row);
    this.remember(queue);
    return queue;
  }

  private remember(queue: Queue): void {
    if (this.cache.size >= QUEUES_REMEMBERED) this.cache.clear();
    this.cache.set(queue.name, { queue, until: performance.now() + CACHE_MS });
  }

  /** Returns those of these queues that exist, by name, at most one second old. */
  async getAll(names: readonly string[]): Promise<Map<string, Queue>> {
    const now = performance.now();
    const found = new Map<string, Queue>();
    const stale: string[] = [];
    for (const name of names) {
      const cached = this.cache.get(name);
      if (cached !== undefined && cached.until > now) found.set(name, cached.queue);
      else stale.push(name);
    }
    if (stale.length === 0) return found;
    const rows = await this.database.read<QueueRow>(`${SELECT_QUEUE} WHERE name IN (?)`, [stale]);
    for (const queue of rows.map(toQueue)) {
      this.remember(queue);
      found.set(queue.name, queue);
    }
    for (const name of stale) if (!found.has(name)) this.cache.delete(name);
    return found;
  }

  /** The next caller that asks for this queue reads it afresh. Until then {@link peek} knows it. */
  evict(name: string): void {
    const known = this.cache.get(name);
    if (known !== undefined) known.until = 0;
  }

  /** All queues, by name. */
  async list(): Promise<Queue[]> {
    const queues = await this.database.manager.find(QueueEntity, {
      where: { name: Not(IsNull()) },
      order: { name: 'ASC' },
    });
    return queues.map((queue) => Object.assign(queue, { name: queue.name as string }));
  }

  /** The names of all existing queues, by id. */
  async names(): Promise<Map<number, string>> {
    return new Map((await this.list()).map((queue) => [queue.id, queue.name]));
  }

  /**
   * Creates a queue, or changes the given settings. Takes no lock if they are as given.
   *
   * Throws `invalid-request` if the dead-letter queue does not exist or leads back to the queue.
   * Throws the same for `maxReceives` without one, and `queue-locked` if another transaction keeps
   * the queue locked.
   */
  async put(name: string, settings: QueueChange): Promise<{ queue: Queue; created: boolean }> {
    const same = await this.findUnchanged(name, settings);
    if (same !== undefined) return { queue: same, created: false };
    return this.write(name, settings, { mayChange: true });
  }

  /**
   * Creates a queue. Takes no lock if it exists.
   *
   * Throws `queue-exists`, and otherwise what {@link put} throws.
   */
  async create(name: string, settings: QueueChange): Promise<Queue> {
    const { queue } = await this.write(name, settings, { mayChange: false });
    return queue;
  }

  /**
   * Changes a queue as its present settings ask for. Reads them again if somebody else changes them
   * meanwhile, so that no change is lost.
   *
   * Throws `queue-not-found`, and otherwise what {@link put} throws.
   */
  async update(name: string, changesOf: (queue: Queue) => QueueChange): Promise<Queue> {
    for (;;) {
      const queue = await this.getFresh(name);
      try {
        const { queue: changed } = await this.write(name, changesOf(queue), { mayChange: true, from: queue.version });
        return changed;
      } catch (error) {
        if (!(error instanceof Outdated)) throw error;
      }
    }
  }

  private async write(
    name: string,
    settings: QueueChange,
    { mayChange, from }: { mayChange: boolean; from?: number },
  ): Promise<{ queue: Queue; created: boolean }> {
    let inserted: number | undefined;
    const created = await this.change(name, async (tx) => {
      const found = await tx.manager.findOne(QueueEntity, { select: { id: true }, where: { name } });
      const mayCreate = found === null;
      if (!mayCreate && !mayChange && found.id !== inserted) throw queueExists(name);
      const mayLink = await mayChangeLink(tx, name, settings);
      if (mayCreate || mayLink) await tx.read(lockSoon(tx, TAKE_TURN, TURN_MS));
      const existing = await this.lockForChange(tx, name, settings.deadLetterQueue ?? undefined);
      const deadLetterQueueId =
        settings.deadLetterQueue === undefined ? undefined : (existing.deadLetterQueue?.id ?? null);
      await checkDeadLetters(tx, name, settings, existing, mayCreate || mayLink);
      checkOrderingOf(name, settings, existing);
      if (from !== undefined && existing.self?.version !== from) throw new Outdated();
      if (existing.self !== undefined) {
        // The COMMIT of an earlier attempt took effect, and its answer was lost.
        if (existing.self.id === inserted) return true;
        if (!mayChange) throw queueExists(name);
        await updateQueue(tx, existing.self.id, settings, deadLetterQueueId);
        return false;
      }
      if (!mayCreate) throw new TryAgain(`queue '${name}' was deleted meanwhile`);
      inserted = await insertQueue(tx, name, settings, deadLetterQueueId ?? null);
      return true;
    });
    return { queue: await this.getFresh(name), created };
  }

  /** Returns the queue if it exists and has all these settings. */
  private async findUnchanged(name: string, { deadLetterQueue, ...settings }: QueueChange): Promise<Queue | undefined> {
    const rows = await this.database.read<QueueRow>(`${SELECT_QUEUE} WHERE name IN (?)`, [
      [name, ...(typeof deadLetterQueue === 'string' ? [deadLetterQueue] : [])],
    ]);
    const row = rows.find((one) => one.name === name);
    if (row === undefined) return undefined;
    const queue = toQueue(row);
    const target = rows.find((one) => one.name === deadLetterQueue)?.id ?? null;
    // A dead-letter queue that does not exist is left to the change, which refuses it.
    const isTargetSame =
      deadLetterQueue === undefined ||
      (queue.deadLetterQueueId === target && (deadLetterQueue === null) === (target === null));
    const isSame = Object.entries(settings).every(
      ([key, value]) => value === undefined || queue[key as keyof Queue] === value,
    );
    if (!isTargetSame || !isSame) return undefined;
    this.remember(queue);
    return queue;
  }

  /**
   * Pauses or resumes consumers, producers or both; `undefined` leaves that side as it is. Takes no
   * lock if nothing changes. Returns the queue.
   *
   * Once it has returned, no broker stores a message of a queue whose producers are paused: an
   * enqueue names the version of the settings that it used.
   *
   * Throws `queue-not-found`, and `queue-locked` if another transaction keeps the queue locked.
   */
  async setPaused(name: string, sides: PausedSides): Promise<Queue> {
    const now = await this.getFresh(name);
    const { paused = now.paused, producersPaused = now.producersPaused } = sides;
    if (paused === now.paused && producersPaused === now.producersPaused) return now;
    await this.change(name, async (tx) => {
      const { self } = await this.lockForChange(tx, name, undefined);
      if (self === undefined) throw queueNotFound(name);
      await tx.manager.update(QueueEntity, { id: self.id }, { ...sides, ...CHANGED });
    });
    return this.getFresh(name);
  }

  /**
   * Deletes a queue and returns its id. After the commit no request finds it. Its row stays without
   * a name until its deliveries are gone ({@link UnleasedRepository.purge}, {@link forget}).
   *
   * With `onlyEmpty` it keeps a queue that owes messages. It looks after it has locked the queue
   * against enqueues and moves, so no message that was answered is lost.
   *
   * Throws `queue-not-found`, `queue-not-empty`, and `invalid-request` while it is another queue's
   * dead-letter queue. Throws `queue-locked` while a service's transaction that enqueued in it is
   * open.
   */
  async delete(name: string, { onlyEmpty = false }: { onlyEmpty?: boolean } = {}): Promise<number> {
    let found: number | undefined;
    const id = await this.change(name, async (tx) => {
      const [row] = await tx.read<{ id: number }>(
        lockSoon(tx, 'SELECT id FROM queue FORCE INDEX (queue_by_name) WHERE name = ? FOR UPDATE'),
        [name],
      );
      // An earlier attempt deleted the queue, and a new queue has its name.
      if (tx.commitUnknown && found !== undefined && row?.id !== found) return found;
      if (row === undefined) throw queueNotFound(name);
      found = row.id;
      // This read needs no lock. A request that makes this queue a dead-letter queue must hold its
      // row, and this transaction holds it.
      const [user] = await tx.read<{ name: string }>(
        'SELECT name FROM queue WHERE dead_letter_queue_id = ? AND id <> ? AND name IS NOT NULL LIMIT 1',
        [row.id, row.id],
      );
      if (user !== undefined) {
        throw new RowmqError(
          'invalid-request',
          `Queue '${name}' is the dead-letter queue of '${user.name}'; first change that queue's deadLetterQueue, or set it to null.`,
        );
      }
      if (onlyEmpty) refuseIfOwing(name, await countMessages(tx, row.id, COUNTED));
      await tx.write('UPDATE queue SET name = NULL WHERE id = ?', [row.id]);
      return row.id;
    });
    this.cache.delete(name);
    return id;
  }

  /**
   * Runs a transaction that locks queues with {@link lockSoon}, again and again with pauses until
   * it gets its locks. Throws `queue-locked` if it does not get them in time.
   */
  private async change<T>(name: string, work: (tx: Transaction) => Promise<T>): Promise<T> {
    for (const begunAt = performance.now(); ;) {
      try {
        return await this.database.transaction(work);
      } catch (error) {
        const isLocked = isStatementTimeout(error) || isLockWaitTimeout((error as Error).cause ?? error);
        if (!isLocked) throw error;
        if (performance.now() - begunAt > PATIENCE_MS) throw queueLocked(name, error);
        await sleep(PAUSE_MS.min + Math.random() * (PAUSE_MS.max - PAUSE_MS.min));
      }
    }
  }

  /** Ids of deleted queues whose rows still exist. */
  async deletedIds(): Promise<number[]> {
    const queues = await this.database.manager.find(QueueEntity, {
      select: { id: true },
      where: { name: IsNull() },
      order: { id: 'ASC' },
    });
    return queues.map(({ id }) => id);
  }

  /** Deletes the row of a deleted queue, and its subscriptions, once it has no deliveries. */
  async forget(id: number): Promise<void> {
    const [left] = await this.database.read('SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? LIMIT 1', [
      id,
    ]);
    if (left !== undefined) return;
    await forgetSubscriptions(this.database, id);
    await this.database.write('DELETE FROM queue WHERE id = ? AND name IS NULL', [id]);
  }

  /**
   * Locks the queue's row, and shares the row of its future dead-letter queue, in id order. The
   * shared lock keeps that queue from being deleted.
   */
  private async lockForChange(
    tx: Transaction,
    name: string,
    deadLetterQueue: string | undefined,
  ): Promise<{ self?: QueueRow; deadLetterQueue?: QueueRow }> {
    if (deadLetterQueue === name) checkDeadLetterPath(name, [name]);
    const names = deadLetterQueue === undefined ? [name] : [name, deadLetterQueue];
    const found = await tx.read<{ id: number; name: string }>(
      'SELECT id, name FROM queue WHERE name IN (?) ORDER BY id',
      [names],
    );
    const rows: QueueRow[] = [];
    for (const { id, name: lockedName } of found.toSorted((one, other) => one.id - other.id)) {
      const mode = lockedName === name ? 'FOR UPDATE' : 'LOCK IN SHARE MODE';
      rows.push(
        ...(await tx.read<QueueRow>(lockSoon(tx, `${SELECT_QUEUE} FORCE INDEX (PRIMARY) WHERE id = ? ${mode}`), [id])),
      );
    }
    const self = rows.find((row) => row.name === name);
    const deadLetter = rows.find((row) => row.name === deadLetterQueue);
    if (deadLetterQueue !== undefined && deadLetter === undefined) {
      throw new RowmqError(
        'invalid-request',
        `Dead-letter queue '${deadLetterQueue}' does not exist; create it first.`,
      );
    }
    return { ...(self && { self }), ...(deadLetter && { deadLetterQueue: deadLetter }) };
  }
}

function refuseIfOwing(name: string, messages: number): void {
  if (messages === 0) return;
  const count = messages < COUNTED ? String(messages) : `at least ${messages}`;
  throw new RowmqError(
    'queue-not-empty',
    `Queue '${name}' has ${count} message${count === '1' ? '' : 's'}, and nothing was deleted; to delete them with it, repeat the call with ?force=true.`,
  );
}

/** Whether a change may give a queue another dead-letter queue. A read without locks decides. */
async function mayChangeLink(tx: Transaction, name: string, { deadLetterQueue }: PutQueueRequest): Promise<boolean> {
  if (typeof deadLetterQueue !== 'string') return false;
  const rows = await tx.read(
    `SELECT 1 FROM queue AS q JOIN queue AS dead ON dead.id = q.dead_letter_queue_id WHERE q.name = ? AND dead.name = ?`,
    [name, deadLetterQueue],
  );
  return rows.length === 0;
}

/**
 * Has a locking SELECT fail after `withinMs`. The servers' own lock wait timeouts are whole
 * seconds. After a COMMIT without an answer it waits for as long as they do, because the earlier
 * attempt may still hold the lock.
 */
function lockSoon(tx: Transaction, select: string, withinMs = LOCK_MS): string {
  if (tx.commitUnknown) return select;
  return `/*M! SET STATEMENT max_statement_time = ${withinMs / 1000} FOR */ ${select.replace(/^SELECT/, `SELECT /*+ MAX_EXECUTION_TIME(${withinMs}) */`)}`;
}

function queueLocked(name: string, cause: unknown): RowmqError {
  return new RowmqError(
    'queue-locked',
    `Another transaction has kept queue '${name}' locked for ${PATIENCE_MS / 1000} s, or the reaper's row of \`reaper_lease\`, which changes of queues lock too, so nothing was changed; try again. If it persists, look for a transaction that somebody forgot to end, such as a service's that enqueued in this queue.`,
    { cause, retryAfterSeconds: 1 },
  );
}

/**
 * Checks the dead-letter queue that a change leaves a queue with, and its limit of receives. Links
 * between queues change one at a time, while {@link TAKE_TURN} is held. Otherwise two changes of
 * different queues could close a circle, and neither would see the other's.
 */
async function checkDeadLetters(
  tx: Transaction,
  name: string,
  settings: PutQueueRequest,
  { self, deadLetterQueue: target }: { self?: QueueRow; deadLetterQueue?: QueueRow },
  hasTurn: boolean,
): Promise<void> {
  const { deadLetterExpired = (self?.deadLetterExpired ?? 0) !== 0 } = settings;
  if (settings.maxReceives === undefined && settings.deadLetterQueue === undefined && !deadLetterExpired) return;
  if (self !== undefined && target !== undefined && self.deadLetterQueueId !== target.id) {
    if (!hasTurn) throw new TryAgain(`queue '${name}' was changed meanwhile`);
    checkDeadLetterPath(name, await pathFrom(tx, target));
  }
  const { maxReceives = self?.maxReceives ?? null } = settings;
  const linked = settings.deadLetterQueue === undefined ? (self?.deadLetterQueueId ?? null) : (target?.id ?? null);
  checkMaxReceives(name, maxReceives, linked !== null);
  checkDeadLetterExpired(name, deadLetterExpired, linked !== null);
}

/** Checks the ordering of a queue, which its creation decides, and of its dead-letter queue. */
function checkOrderingOf(
  name: string,
  { ordering, deadLetterQueue }: PutQueueRequest,
  { self, deadLetterQueue: target }: { self?: QueueRow; deadLetterQueue?: QueueRow },
): void {
  const known = self ?? QUEUE_DEFAULTS;
  checkOrdering(
    name,
    ordering === undefined ? known.ordering : ordering,
    self?.ordering,
    target && { name: String(deadLetterQueue), ordering: target.ordering },
  );
}

/** The names of a dead-letter queue, of its own dead-letter queue, and so on. */
async function pathFrom(tx: Transaction, first: QueueRow): Promise<string[]> {
  const path = new Map<number, string>();
  for (let row: QueueRow | undefined = first; row !== undefined && !path.has(row.id);) {
    path.set(row.id, row.name ?? '');
    [row] = await tx.read<QueueRow>(`${SELECT_QUEUE} WHERE id = ?`, [row.deadLetterQueueId ?? 0]);
  }
  return [...path.values()];
}

/** Every change of a queue's settings counts its version on. */
const CHANGED = { version: (): string => 'version + 1', changedAt: (): string => NOW_MS };

/** Inserts the queue and returns its id. */
async function insertQueue(
  tx: Transaction,
  name: string,
  settings: QueueChange,
  deadLetterQueueId: number | null,
): Promise<number> {
  const { deadLetterQueue: _, ...columns } = { ...QUEUE_DEFAULTS, ...settings };
  const { identifiers } = await tx.manager.insert(QueueEntity, {
    ...columns,
    name,
    deadLetterQueueId,
    paused: false,
    producersPaused: false,
    createdAt: () => NOW_MS,
    changedAt: () => NOW_MS,
    version: 1,
  });
  return (identifiers as [{ id: number }])[0].id;
}

async function updateQueue(
  tx: Transaction,
  id: number,
  { deadLetterQueue: _, ...settings }: QueueChange,
  deadLetterQueueId: number | null | undefined,
): Promise<void> {
  const changes = Object.entries({ ...settings, deadLetterQueueId }).filter(([, value]) => value !== undefined);
  if (changes.length > 0) await tx.manager.update(QueueEntity, { id }, { ...Object.fromEntries(changes), ...CHANGED });
}
