import { createConnection } from 'mysql2/promise';
import type { RunningServer } from '../harness/rig.js';
import { microsOf, openSession, type SqlSession } from './session.js';

const QUEUE = 1;
const RANK = 5;
const LIVE = 1000;
const CLAIM = 10;
const ROWS_PER_INSERT = 5000;
const T0 = 1_800_000_000_000;

/** The server's CPU, µs, of one claim of {@link CLAIM}, rolled back. */
export interface DeadEntries {
  when: string;
  leftEdge: number;
  floors: number;
  peekThenLock: number;
}

/**
 * Measures a claim while index entries of claimed deliveries lie at the front of the queue: with
 * purge running, and with a snapshot that holds purge up. Dead entries lie in the priority in use
 * and in the priorities before it.
 */
export async function measureDeadEntries(server: RunningServer, seconds: number, dead: number): Promise<DeadEntries[]> {
  const session = await openSession(server.url);
  const holder = await createConnection({ uri: server.url });
  try {
    await fill(session, LIVE, T0 + dead, () => RANK);
    const healthy = await measure({ server, session, seconds, dead }, 'nothing is dead');
    await session.run('TRUNCATE TABLE delivery');
    await holder.query('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ');
    await holder.query('START TRANSACTION WITH CONSISTENT SNAPSHOT');
    await holder.query('SELECT COUNT(*) FROM queue');
    await fill(session, dead, T0, (count) => count % (RANK + 1));
    await session.run(`DELETE FROM delivery WHERE queue_id = ${QUEUE}`);
    await fill(session, LIVE, T0 + dead, () => RANK);
    const held = await measure(
      { server, session, seconds, dead },
      `${dead.toLocaleString('en')} dead, a snapshot held`,
    );
    return [healthy, held];
  } finally {
    await holder.end();
    await session.run('TRUNCATE TABLE delivery');
    await session.close();
  }
}

/** A millisecond apart. */
async function fill(session: SqlSession, rows: number, from: number, rankOf: (count: number) => number): Promise<void> {
  for (let first = 0; first < rows; first += ROWS_PER_INSERT) {
    const values = Array.from({ length: Math.min(ROWS_PER_INSERT, rows - first) }, (_, index) => {
      const count = first + index;
      return `(${QUEUE},x'${(from + count).toString(16).padStart(32, '0')}',x'${'00'.repeat(8)}',0,1,${rankOf(count)},${from + count},${T0 * 2},0)`;
    });
    await session.run(
      `INSERT INTO delivery (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, receive_count) VALUES ${values.join(',')}`,
    );
  }
}

async function measure(
  { server, session, seconds, dead }: { server: RunningServer; session: SqlSession; seconds: number; dead: number },
  when: string,
): Promise<DeadEntries> {
  const now = T0 + dead + LIVE;
  const floor = T0 + dead - 100;
  const ranks = Array.from({ length: 10 }, (_, rank) => rank);
  const leftEdge = ranks.map((rank) => range(rank, 0, now));
  const floors = ranks.map((rank) => range(rank, floor, now));
  const claim = (ranges: readonly string[]): Promise<number> =>
    microsOf(server, seconds, () =>
      session.run(`START TRANSACTION; ${statement(ranges, 'FOR UPDATE SKIP LOCKED')}; ROLLBACK`),
    );
  return {
    when,
    leftEdge: await claim(leftEdge),
    floors: await claim(floors),
    peekThenLock: await microsOf(server, seconds, async () => {
      const seen = await session.run(statement([range(RANK, floor, now)], ''));
      const [first, last] = [seen[0]?.['available_at'] as number, seen.at(-1)?.['available_at'] as number];
      if (seen.length !== CLAIM) throw new Error(`saw ${seen.length} deliveries instead of ${CLAIM}`);
      await session.run(
        `START TRANSACTION; ${statement([range(RANK, first - 1, last)], 'FOR UPDATE SKIP LOCKED')}; ROLLBACK`,
      );
    }),
  };
}

function range(rank: number, from: number, to: number): string {
  return `(queue_id = ${QUEUE} AND priority_rank = ${rank} AND available_at BETWEEN ${from} AND ${to})`;
}

function statement(ranges: readonly string[], lock: string): string {
  return `SELECT pack_id, priority_rank, available_at, expires_at FROM delivery FORCE INDEX (delivery_next)
    WHERE ${ranges.join(' OR ')} ORDER BY queue_id, priority_rank, available_at LIMIT ${CLAIM} ${lock}`;
}
