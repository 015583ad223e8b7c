import { performance } from 'node:perf_hooks';
import { PACK_MESSAGES, withPackBytes } from '@rowmq/contract';
import { type Content, contentBytes, encodePack, PACK_BYTES } from '../../libs/store/src/messages/pack.codec.js';
import type { DatabaseProbe } from './database-probe.js';

const PACKS_PER_STATEMENT = 10_000;
/** The lowest twelve bits of an id are its pack's size and a message's index. */
const ID_STEP = 2 ** 12;
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
 * their ids. Every pack is full, as a busy broker stores it. The server makes the rows itself and
 * writes none of them to the binlog. Returns messages a second.
 */
export async function fillBacklog(probe: DatabaseProbe, backlog: Backlog): Promise<number> {
  const [queue] = await probe.query<{ id: number }>('SELECT id FROM queue WHERE name = ?', [backlog.queue]);
  if (queue === undefined) throw new Error(`there is no queue ${backlog.queue}`);
  await probe.query('SET SESSION sql_log_bin = 0');
  await makeNumbers(probe);
  const began = performance.now();
  const content: Content = { body: Buffer.alloc(backlog.bodyBytes, 'x'), headers: null };
  const full = Math.max(1, Math.min(PACK_MESSAGES, Math.floor((PACK_BYTES - 1) / contentBytes(content))));
  for (let first = backlog.present; first < backlog.messages;) {
    const left = backlog.messages - first;
    const size = Math.min(full, left);
    const packs = Math.min(PACKS_PER_STATEMENT, Math.floor(left / size));
    await insertPacks(probe, queue.id, backlog, {
      first,
      packs,
      contents: Array.from({ length: size }, () => content),
    });
    first += packs * size;
  }
  const seconds = (performance.now() - began) / 1000;
  await probe.query('DROP TEMPORARY TABLE bench_number');
  await probe.query('SET SESSION sql_log_bin = 1');
  await probe.query('ANALYZE TABLE pack, delivery');
  return (backlog.messages - backlog.present) / seconds;
}

/** Numbers from 0 to 9,999, from which the server makes the rows. */
async function makeNumbers(probe: DatabaseProbe): Promise<void> {
  const digits = `(${Array.from({ length: 10 }, (_, digit) => `SELECT ${digit} AS d`).join(' UNION ALL ')})`;
  await probe.query('CREATE TEMPORARY TABLE bench_number (n INT UNSIGNED PRIMARY KEY)');
  await probe.query(
    `INSERT INTO bench_number
     SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d
     FROM ${digits} a, ${digits} b, ${digits} c, ${digits} d`,
  );
}

/** Inserts so many packs with these contents. `first` is the number of their first message. */
async function insertPacks(
  probe: DatabaseProbe,
  queueId: number,
  { from, stepMs }: Backlog,
  { first, packs, contents }: { first: number; packs: number; contents: readonly Content[] },
): Promise<void> {
  const size = contents.length;
  const message = `(${first} + n * ${size})`;
  const time = `FLOOR(${from} + ${message} * ${stepMs})`;
  // A UUIDv7 of that time. The first message's number takes the place of what is random, before the
  // seven bits of the size and the five bits that are zero.
  const payload = encodePack(contents);
  const sized = withPackBytes(Buffer.alloc(16), payload.length).readUInt16BE(14);
  const id = `UNHEX(CONCAT(LPAD(HEX(${time}), 12, '0'), '70008', LPAD(HEX(${message} * ${ID_STEP} + ${sized}), 15, '0')))`;
  const members = 2 ** size - 1;
  const expiresAt = Date.now() + TTL_MS;
  await probe.query(
    `INSERT INTO pack (id, queue_id, count, expires_at, payload)
     SELECT ${id}, ?, ?, ?, ?
     FROM bench_number
     WHERE n < ?`,
    [queueId, size, expiresAt, payload, packs],
  );
  await probe.query(
    `INSERT INTO delivery
       (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, receive_count)
     SELECT ?, ${id}, x'0000000000000000', 0, ?, ?, ${time}, ?, 0
     FROM bench_number
     WHERE n < ?`,
    [queueId, members, PRIORITY_RANK, expiresAt, packs],
  );
}
