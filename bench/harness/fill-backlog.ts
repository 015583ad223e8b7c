import { performance } from 'node:perf_hooks';
import type { DatabaseProbe } from './database-probe.js';

const ROWS_PER_STATEMENT = 50_000;
const TTL_MS = 345_600_000;
/** 9 minus the default priority. */
const PRIORITY_RANK = 5;

/** Messages to put into a queue. */
export interface Backlog {
  queue: string;
  bodyBytes: number;
  /** Messages of this backlog that the queue already holds. */
  present: number;
  /** Messages that it holds afterwards. */
  messages: number;
  /** When the very first one was enqueued, ms since 1970. */
  from: number;
  /** Time from one to the next. */
  stepMs: number;
}

/**
 * Puts messages into a queue as if they had been enqueued one after the other, in the order of
 * their ids. The server makes the rows itself and writes none of them to the binlog. Returns
 * messages a second.
 */
export async function fillBacklog(probe: DatabaseProbe, backlog: Backlog): Promise<number> {
  const [queue] = await probe.query<{ id: number }>('SELECT id FROM queue WHERE name = ?', [backlog.queue]);
  if (queue === undefined) throw new Error(`there is no queue ${backlog.queue}`);
  await probe.query('SET SESSION sql_log_bin = 0');
  await makeNumbers(probe);
  const began = performance.now();
  for (let first = backlog.present; first < backlog.messages; first += ROWS_PER_STATEMENT) {
    await insertRows(probe, queue.id, backlog, first);
  }
  const seconds = (performance.now() - began) / 1000;
  await probe.query('DROP TEMPORARY TABLE bench_number');
  await probe.query('SET SESSION sql_log_bin = 1');
  await probe.query('ANALYZE TABLE message, delivery');
  return (backlog.messages - backlog.present) / seconds;
}

/** Numbers from 0 to 49,999, from which the server makes the rows. */
async function makeNumbers(probe: DatabaseProbe): Promise<void> {
  const digits = `(${Array.from({ length: 10 }, (_, digit) => `SELECT ${digit} AS d`).join(' UNION ALL ')})`;
  await probe.query('CREATE TEMPORARY TABLE bench_number (n INT UNSIGNED PRIMARY KEY)');
  await probe.query(
    `INSERT INTO bench_number
     SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d
     FROM ${digits} a, ${digits} b, ${digits} c, ${digits} d, ${digits} e
     WHERE e.d < ?`,
    [ROWS_PER_STATEMENT / 10_000],
  );
}

async function insertRows(probe: DatabaseProbe, queueId: number, backlog: Backlog, first: number): Promise<void> {
  const { messages, bodyBytes, from, stepMs } = backlog;
  const count = Math.min(ROWS_PER_STATEMENT, messages - first);
  const time = `FLOOR(${from} + (n + ${first}) * ${stepMs})`;
  // A UUIDv7 of that time, with the message's number in place of what is random.
  const id = `UNHEX(CONCAT(LPAD(HEX(${time}), 12, '0'), '70008', LPAD(HEX(n + ${first}), 15, '0')))`;
  const body = 'x'.repeat(bodyBytes);
  const expiresAt = Date.now() + TTL_MS;
  await probe.query(
    `INSERT INTO message (id, queue_id, body, expires_at)
     SELECT ${id}, ?, ?, ?
     FROM bench_number
     WHERE n < ?`,
    [queueId, body, expiresAt, count],
  );
  await probe.query(
    `INSERT INTO delivery (queue_id, message_id, priority_rank, available_at, expires_at, receive_count)
     SELECT ?, ${id}, ?, ${time}, ?, 0
     FROM bench_number
     WHERE n < ?`,
    [queueId, PRIORITY_RANK, expiresAt, count],
  );
}
