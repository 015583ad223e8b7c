import { IsNull, Not } from 'typeorm';
import { QUEUE_DEFAULTS, RowmqError, type PutQueueRequest } from '@rowmq/contract';
import { NOW_MS } from '../database/clock.js';
import { QueueEntity } from '../entities/index.js';
import type { Database, Transaction } from '../database/database.js';
import { TryAgain } from '../database/database-errors.js';

/** A queue that exists, with its settings. */
export interface Queue {
  id: number;
  name: string;
  leaseSeconds: number;
  messageTtlSeconds: number;
  delaySeconds: number;
  maxReceives: number | null;
  deadLetterQueueId: number | null;
  maxDepth: number | null;
  paused: boolean;
  createdAt: number;
}

/** A broker may use settings that another broker has changed for this long. */
const CACHE_MS = 1000;
/** Bounds the cache: a queue that another broker deleted would stay in it for ever. */
const QUEUES_REMEMBERED = 10_000;

/**
 * Queues and their settings.
 *
 * Locks on `queue` rows stand in for the foreign keys that partitioned tables cannot have. Enqueue
 * holds its queue's row shared, so a delete waits for it and no delivery is born in a deleted
 * queue. Who locks by name locks `queue_by_name`, then the row; everybody else locks rows only, in
 * id order, and never touches a name: no cycle. Nobody who holds a queue's row waits for a delivery
 * that another transaction holds, but for moves, which take deliveries like a claim.
 */
export class QueueRepository {
  private readonly cache = new Map<string, { queue: Queue; until: number }>();
  /** Looks under way, so that those who come while one is share it. */
  private readonly looks = new Map<string, Promise<Queue>>();

  constructor(private readonly database: Database) {}

  /** The queue of this name, at most a second old. Throws `queue-not-found`. */
  async get(name: string): Promise<Queue> {
    const cached = this.cache.get(name);
    if (cached !== undefined && cached.until > performance.now()) return cached.queue;
    const underWay = this.looks.get(name);
    if (underWay !== undefined) return underWay;
    const look = this.getFresh(name).finally(() => this.looks.delete(name));
    this.looks.set(name, look);
    return look;
  }

  /** The queue of this name as it is now. Throws `queue-not-found`. */
  async getFresh(name: string): Promise<Queue> {
    const [row] = await this.database.read<QueueRow>(`${SELECT_QUEUE} WHERE name = ?`, [name]);
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

  /** The existing ones of these queues, by name, at most a second old. */
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
    for (const name of stale) this.cache.delete(name);
    const rows = await this.database.read<QueueRow>(`${SELECT_QUEUE} WHERE name IN (?)`, [stale]);
    for (const queue of rows.map(toQueue)) {
      this.remember(queue);
      found.set(queue.name, queue);
    }
    return found;
  }

  /**
   * Whether this queue had a maximum depth when it was last read: its enqueues wait for each other.
   */
  isBounded(name: string): boolean {
    return (this.cache.get(name)?.queue.maxDepth ?? null) !== null;
  }

  /** The next who asks for this queue is told how it is then. */
  evict(name: string): void {
    this.cache.delete(name);
  }

  /** Every queue, by name. */
  async list(): Promise<Queue[]> {
    const queues = await this.database.manager.find(QueueEntity, {
      where: { name: Not(IsNull()) },
      order: { name: 'ASC' },
    });
    return queues.map((queue) => Object.assign(queue, { name: queue.name as string }));
  }

  /** The names behind ids, of queues that still exist. */
  async names(): Promise<Map<number, string>> {
    return new Map((await this.list()).map((queue) => [queue.id, queue.name]));
  }

  /**
   * Creates a queue, or changes the settings that are given. Throws `invalid-request` for a
   * dead-letter queue that does not exist or is the queue itself.
   */
  async put(name: string, settings: PutQueueRequest): Promise<{ queue: Queue; created: boolean }> {
    const created = await this.database.transaction(async (tx) => {
      const mayCreate = !(await tx.manager.existsBy(QueueEntity, { name }));
      if (mayCreate) await tx.read(TAKE_TURN);
      const existing = await this.lockForChange(tx, name, settings.deadLetterQueue ?? undefined);
      const deadLetterQueueId =
        settings.deadLetterQueue === undefined ? undefined : (existing.deadLetterQueue?.id ?? null);
      if (existing.self !== undefined) {
        await updateQueue(tx, existing.self.id, settings, deadLetterQueueId);
        return false;
      }
      if (!mayCreate) throw new TryAgain(`queue '${name}' was deleted meanwhile`);
      await insertQueue(tx, name, settings, deadLetterQueueId ?? null);
      return true;
    });
    return { queue: await this.getFresh(name), created };
  }

  /** Stops or resumes hand-out. Enqueue goes on. Throws `queue-not-found`. */
  async setPaused(name: string, paused: boolean): Promise<void> {
    const { affected } = await this.database.manager.update(QueueEntity, { name }, { paused });
    this.cache.delete(name);
    if (affected === 0) throw queueNotFound(name);
  }

  /**
   * Deletes a queue: from the commit on no request finds it. Its row stays, nameless, until its
   * deliveries are removed ({@link UnleasedRepository.purge}, {@link forget}). Returns its id.
   * Throws `queue-not-found`, and `invalid-request` while it is another queue's dead-letter queue.
   */
  async delete(name: string): Promise<number> {
    let found: number | undefined;
    const id = await this.database.transaction(async (tx) => {
      const [row] = await tx.read<{ id: number }>('SELECT id FROM queue WHERE name = ? FOR UPDATE', [name]);
      // An earlier try deleted the queue; another queue has its name now.
      if (tx.commitUnknown && found !== undefined && row?.id !== found) return found;
      if (row === undefined) throw queueNotFound(name);
      found = row.id;
      // Not locked: whoever is about to name this queue as its dead-letter queue holds this queue's
      // row, which is ours now.
      const [user] = await tx.read<{ name: string }>(
        'SELECT name FROM queue WHERE dead_letter_queue_id = ? AND id <> ? AND name IS NOT NULL LIMIT 1',
        [row.id, row.id],
      );
      if (user !== undefined) {
        throw new RowmqError(
          'invalid-request',
          `Queue '${name}' is the dead-letter queue of '${user.name}'; give that one another, or null, first.`,
        );
      }
      await tx.write('UPDATE queue SET name = NULL WHERE id = ?', [row.id]);
      return row.id;
    });
    this.cache.delete(name);
    return id;
  }

  /** Ids of deleted queues whose rows are still there. */
  async deletedIds(): Promise<number[]> {
    const queues = await this.database.manager.find(QueueEntity, {
      select: { id: true },
      where: { name: IsNull() },
      order: { id: 'ASC' },
    });
    return queues.map(({ id }) => id);
  }

  /** Removes the row of a deleted queue that has no deliveries left. */
  async forget(id: number): Promise<void> {
    const [left] = await this.database.read('SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? LIMIT 1', [
      id,
    ]);
    if (left === undefined) await this.database.write('DELETE FROM queue WHERE id = ? AND name IS NULL', [id]);
  }

  /** Locks the queue and its dead-letter queue-to-be, both by id and in id order. */
  private async lockForChange(
    tx: Transaction,
    name: string,
    deadLetterQueue: string | undefined,
  ): Promise<{ self?: QueueRow; deadLetterQueue?: QueueRow }> {
    if (deadLetterQueue === name) {
      throw new RowmqError('invalid-request', 'A queue cannot be its own dead-letter queue; name another, or null.');
    }
    const names = deadLetterQueue === undefined ? [name] : [name, deadLetterQueue];
    const found = await tx.read<{ id: number }>('SELECT id FROM queue WHERE name IN (?)', [names]);
    const rows =
      found.length === 0
        ? []
        : await tx.read<QueueRow>(`${SELECT_QUEUE} FORCE INDEX (PRIMARY) WHERE id IN (?) ORDER BY id FOR UPDATE`, [
            found.map(({ id }) => id),
          ]);
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

/**
 * Those who create queues take turns. Two INSERTs of one name that wait for the same entry of
 * `queue_by_name`, of a queue that is just being deleted, share a lock on it and on the gap behind
 * it once it is free; then each waits for the other to let it insert. The row is the reaper's
 * because that one is always there; who holds it waits for queues' rows, never the other way round.
 */
const TAKE_TURN = `SELECT 1 FROM reaper_lease WHERE name = 'reaper' FOR UPDATE`;

/** A `queue` row as {@link SELECT_QUEUE} reads it. */
export type QueueRow = Omit<Queue, 'paused' | 'name'> & { name: string | null; paused: number };

export const QUEUE_COLUMNS = `id, name, lease_seconds AS leaseSeconds, message_ttl_seconds AS messageTtlSeconds, delay_seconds AS delaySeconds,
         max_receives AS maxReceives, dead_letter_queue_id AS deadLetterQueueId, max_depth AS maxDepth, paused, created_at AS createdAt`;

const SELECT_QUEUE = `SELECT ${QUEUE_COLUMNS} FROM queue`;

export function queueNotFound(name: string): RowmqError {
  return new RowmqError(
    'queue-not-found',
    `Queue '${name}' does not exist; create it with PUT /v1/admin/queues/${name}.`,
  );
}

function toQueue(row: QueueRow): Queue {
  return { ...row, name: row.name as string, paused: row.paused !== 0 };
}

async function insertQueue(
  tx: Transaction,
  name: string,
  settings: PutQueueRequest,
  deadLetterQueueId: number | null,
): Promise<void> {
  const { deadLetterQueue: _, ...columns } = { ...QUEUE_DEFAULTS, ...settings };
  await tx.manager.insert(QueueEntity, {
    ...columns,
    name,
    deadLetterQueueId,
    paused: false,
    createdAt: () => NOW_MS,
  });
}

async function updateQueue(
  tx: Transaction,
  id: number,
  { deadLetterQueue: _, ...settings }: PutQueueRequest,
  deadLetterQueueId: number | null | undefined,
): Promise<void> {
  const changes = Object.entries({ ...settings, deadLetterQueueId }).filter(([, value]) => value !== undefined);
  if (changes.length > 0) await tx.manager.update(QueueEntity, { id }, Object.fromEntries(changes));
}
