import type { RunningServer } from '../harness/rig.js';
import { costOf, idAt, type MessageCost, openSession, type SqlSession } from './session.js';

const BODY = 'x'.repeat(200);
const TTL_MS = 345_600_000;
/** A delivery without a lease has this token. */
const NO_TOKEN = `x'${'00'.repeat(8)}'`;
const BATCH = 100;
const WRITERS = 4;

export type TransactionCost = {
  rows: number;
  cost: MessageCost;
};

/**
 * Measures the cost of a stored pack of one message in transactions of different sizes. The
 * difference is the commit.
 */
export async function measureTransactions(server: RunningServer, seconds: number): Promise<TransactionCost[]> {
  const session = await openSession(server.url);
  const measured: TransactionCost[] = [];
  let now = 1_800_000_000_000;
  try {
    for (const rows of [1, 10, 100, 1000]) {
      const cost = await costOf(server, seconds, async () => {
        now += 1;
        await insert(
          session,
          1,
          Array.from({ length: rows }, (_, index) => idAt(now, index)),
          now,
        );
        return rows;
      });
      measured.push({ rows, cost });
    }
  } finally {
    await session.run('TRUNCATE TABLE delivery; TRUNCATE TABLE pack');
    await session.close();
  }
  return measured;
}

export interface Packing {
  how: string;
  bytes: number;
}

/**
 * Measures the bytes of a pack of one message. Once, ids come in order. Once, the ids of several
 * writers interleave, because they were made when requests came. @param messages a multiple of 400
 */
export async function measurePacking(server: RunningServer, messages: number): Promise<Packing[]> {
  const session = await openSession(server.url);
  const packing: Packing[] = [];
  try {
    for (const [how, interleaves] of [
      ['made when the batch is sent', false],
      [`made when requests arrive, ${WRITERS} writers`, true],
    ] as const) {
      await session.run('TRUNCATE TABLE delivery');
      await session.run('TRUNCATE TABLE pack');
      await store(session, messages, interleaves);
      const size = (await server.probe.indexSizes(['pack'])).find(({ index }) => index === 'PRIMARY');
      packing.push({ how, bytes: (size?.leafBytes ?? Number.NaN) / messages });
    }
  } finally {
    await session.run('TRUNCATE TABLE delivery');
    await session.run('TRUNCATE TABLE pack');
    await session.close();
  }
  return packing;
}

async function store(session: SqlSession, messages: number, interleaves: boolean): Promise<void> {
  const now = Date.now();
  for (let first = 0; first < messages; first += BATCH * WRITERS) {
    const ids = Array.from({ length: BATCH * WRITERS }, (_, index) =>
      idAt(now + Math.floor(first / 1000), first + index),
    );
    for (let writer = 0; writer < WRITERS; writer += 1) {
      const batch = interleaves
        ? ids.filter((_, index) => index % WRITERS === writer)
        : ids.slice(writer * BATCH, (writer + 1) * BATCH);
      await insert(session, 1, batch, now);
    }
  }
}

async function insert(session: SqlSession, queueId: number, ids: readonly string[], now: number): Promise<void> {
  await session.run(`START TRANSACTION;
    INSERT INTO pack (id, queue_id, count, expires_at, payload) VALUES ${ids.map((id) => `(${id},${queueId},1,${now + TTL_MS},'${BODY}')`).join(',')};
    INSERT INTO delivery (queue_id, pack_id, lease_token, part, members, priority_rank, available_at, expires_at, receive_count) VALUES ${ids.map((id) => `(${queueId},${id},${NO_TOKEN},0,1,5,${now},${now + TTL_MS},0)`).join(',')};
    COMMIT`);
}
