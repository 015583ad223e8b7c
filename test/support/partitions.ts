import { LIMITS, newPackId, packIdOf } from '@rowmq/contract';
import { FIRST_ID, type LeasedMessage, type Queue, type Session } from '@rowmq/store';
import { createConnection } from 'mysql2/promise';
import { storeLonely } from './packs.js';
import { numbered, type TestStore } from './store.js';

export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;
/** The midnight at which tests that move time begin. */
export const START = Date.UTC(2026, 0, 1);

const BATCH = 1000;

/**
 * Enqueues messages whose ids have the time `at`, as from a broker with a wrong clock. The
 * database's clock shows `now`. Returns the ids.
 */
export async function enqueueStamped(
  store: TestStore,
  queue: Queue,
  { at, now = at, count = 1, delaySeconds }: { at: number; now?: number; count?: number; delaySeconds?: number },
): Promise<Buffer[]> {
  const ids: Buffer[] = [];
  for (let done = 0; done < count; done += BATCH) {
    const messages = numbered(Math.min(BATCH, count - done), { delaySeconds });
    ids.push(...(await store.at(now, at).messages.enqueue(queue.name, messages)));
  }
  store.at(now);
  return ids;
}

/**
 * Stores each message as a pack of its own, so that there are as many packs and deliveries as
 * messages. Otherwise like {@link enqueueStamped}.
 */
export async function storeStamped(
  store: TestStore,
  queue: Queue,
  {
    at,
    now = at,
    count,
    priority = 4,
    expiresInSeconds = queue.messageTtlSeconds,
  }: { at: number; now?: number; count: number; priority?: number; expiresInSeconds?: number },
): Promise<Buffer[]> {
  const ids: Buffer[] = [];
  for (let done = 0; done < count; done += BATCH) {
    const rows = Array.from({ length: Math.min(BATCH, count - done) }, (_, index) => ({
      packId: newPackId(at),
      queueId: queue.id,
      body: String(index),
      priorityRank: LIMITS.priorityMax - priority,
      availableAt: now,
      expiresAt: now + expiresInSeconds * 1000,
    }));
    for (const { sql, values } of storeLonely(rows)) await store.database.write(sql, values);
    ids.push(...rows.map(({ packId }) => packId));
  }
  return ids;
}

/** Dequeues every message that is available at an instant. */
export async function claimAll(store: TestStore, queue: Queue, now: number): Promise<LeasedMessage[]> {
  const taken: LeasedMessage[] = [];
  for (;;) {
    const some = await store.at(now).messages.dequeue(queue, { maxMessages: BATCH, leaseSeconds: 60 });
    if (some.length === 0) return taken;
    taken.push(...some);
  }
}

/** Dequeues and acks every message that is available at an instant. */
export async function settleAll(store: TestStore, queue: Queue, now: number): Promise<LeasedMessage[]> {
  const taken = await claimAll(store, queue, now);
  for (let done = 0; done < taken.length; done += BATCH) {
    const outcomes = await store.at(now).messages.ack(queue.id, taken.slice(done, done + BATCH));
    if (outcomes.some((outcome) => outcome !== null)) throw new Error('an ack failed');
  }
  return taken;
}

/** Dead-letters every over-received message. Returns their number. */
export async function deadLetterAll(store: TestStore, queue: Queue, now: number): Promise<number> {
  const { found } = await store.at(now).unleased.findOverReceived(queue, FIRST_ID, BATCH);
  return store.at(now).messages.deadLetter(queue, found);
}

/** Counts those of these messages whose pack is in the table `pack`. */
export async function stored(store: TestStore, ids: readonly Buffer[]): Promise<number> {
  if (ids.length === 0) return 0;
  const rows = await store.database.read<{ id: Buffer }>('SELECT id FROM pack WHERE id IN (?)', [ids.map(packIdOf)]);
  const packs = new Set(hex(rows.map(({ id }) => id)));
  return ids.filter((id) => packs.has(packIdOf(id).toString('hex'))).length;
}

/** Ids as sorted text, for a comparison of sets. */
export function hex(ids: readonly Buffer[]): string[] {
  return ids.map((id) => id.toString('hex')).toSorted();
}

/**
 * A connection outside every pool, for transactions that a test holds open. Its locks are released
 * when `end` resolves.
 */
export async function openSession(store: TestStore): Promise<Session & { end(): Promise<void> }> {
  const connection = await createConnection({ uri: store.url });
  await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
  // A failed test leaves it open. Its locks must not outlive the test for long.
  await connection.query('SET SESSION wait_timeout = 15');
  connection.on('error', () => undefined);
  const run = async <T>(sql: string, values: readonly unknown[] = []): Promise<T> => {
    const [result] = await connection.query(sql, [...values]);
    return result as T;
  };
  const end = async (): Promise<void> => {
    // The server notices the end of a connection only later, and keeps the locks until then. It has
    // ended the transaction itself if it closed the connection as idle.
    await connection.query('ROLLBACK').catch(() => undefined);
    await connection.end();
  };
  return { read: run, write: run, end };
}
