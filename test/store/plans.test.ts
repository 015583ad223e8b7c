import { type Connection, createConnection } from 'mysql2/promise';
import { newMessageId } from '@rowmq/contract';
import { type LeasedDelivery, MessageRepository, type Queue } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SessionClock } from '../support/clock.js';
import { testServer } from '../support/servers.js';
import { PEEK_AT_FRONT, recordStatements } from '../support/statements.js';
import { eventually } from '../support/wait.js';
import { createQueue, message, numbered, openStore, SingleMessages, type TestStore } from '../support/store.js';

/*
 * The plans of the hot statements, for the exact text that the repository sends, on empty, small
 * and large tables. A plan must not change with the size of the table. A plan that reads too much
 * meets rows that others hold.
 */

const T0 = 1_800_000_000_000;
const HOUR = 3_600_000;

let store: TestStore;
let connection: Connection;
let queue: Queue;
let neighbour: Queue;
let statements: string[];

beforeAll(async () => {
  store = await openStore();
  await store.at(T0).partitions.createMissing({ widthMinutes: 60, advanceMinutes: 600 });
  queue = await createQueue(store);
  neighbour = await createQueue(store);
  await store.database.write('UPDATE queue SET id = 1 WHERE id = ?', [queue.id]);
  queue = await store.queues.getFresh(queue.name);
  statements = recordStatements(store.database);
  connection = await createConnection({ uri: store.url });
});
afterAll(async () => {
  await connection.end();
  await store.close();
});

/** The recorded statement that matches the pattern. */
function sent(what: string, pattern: RegExp): string {
  const statement = statements.find((sql) => pattern.test(sql.trim()));
  if (statement === undefined) throw new Error(`no statement for ${what}`);
  return statement;
}

/** Moves the clock of the store, and of the connection that explains its statements. */
async function moveClock(now: number | undefined): Promise<void> {
  store.at(now);
  await connection.query(new SessionClock(() => now).statement);
}

const LOCK = /LIMIT \d+\s+FOR UPDATE SKIP LOCKED$/;

/**
 * Runs each verb once on messages of the third hour, for clients of two queues where a batch takes
 * several. Returns the statements by their purpose.
 */
async function live(): Promise<Map<string, string>> {
  statements.length = 0;
  const now = T0 + 3 * HOUR;
  await moveClock(now);
  // A broker that has just started: its claims read from the left edge of the index.
  const messages = new SingleMessages(new MessageRepository(store.database));
  const { batches } = messages;
  const made = Array.from({ length: 20 }, () => message({ id: newMessageId(now), priority: 9 }));
  await batches.enqueue([
    { queueName: queue.name, messages: made },
    { queueName: neighbour.name, messages: [message({ id: newMessageId(now) })] },
  ]);
  const leased = await messages.dequeue(queue, { maxMessages: 20, leaseSeconds: 30 });
  await messages.extend(queue.id, leased, { leaseSeconds: 60 });
  await messages.nack(queue.id, leased.slice(0, 5), { delaySeconds: 60 });
  await messages.release(queue.id, leased.slice(5, 10));
  await messages.ack(queue.id, leased.slice(10));
  // As if each receipt came from another claim.
  const scattered = Array.from({ length: 60 }, (_, index) => ({
    messageId: (leased[index % 10] as LeasedDelivery).messageId,
    leaseToken: Buffer.alloc(8, index),
  }));
  await messages.ack(queue.id, scattered);
  const positions = made.map(({ id }) => ({ messageId: id, priorityRank: 0, availableAt: now }));
  await messages.expire(queue.id, positions);
  await moveClock(now + 30 * 24 * HOUR);
  await messages.expire(queue.id, positions);
  const verbs: [string, RegExp][] = [
    ['enqueue: lock queues', /FROM queue FORCE INDEX \(PRIMARY\)[^]*LOCK IN SHARE MODE$/],
    ['claim: peek', PEEK_AT_FRONT],
    ['claim: settings', /^SELECT id, max_receives[^]*FROM queue FORCE INDEX \(PRIMARY\)/],
    ['claim: lock', LOCK],
    ['claim: lease', /SET available_at = \d+,\s+lease_token = x'\w+',\s+receive/i],
    ['claim: bodies', /FROM message FORCE/],
    ['nack, extend: lock', /ORDER BY message_id\s+FOR UPDATE$/],
    ['extend', /SET available_at = \d+\s+WHERE/],
    ['nack', /nack_reason = NULL\s+WHERE/],
    ['release', /receive_count - 1/],
    ['ack: delete', /^DELETE d\s+FROM delivery d[^]*lease_token/],
    ['ack of many claims: delete', /^DELETE d\s+FROM JSON_TABLE[^]*lease_token/],
    ['expire, claim: delete', /^DELETE d(?![^]*lease_token)/],
    [
      'expire, dead-letter, redrive, purge: lock',
      /^SELECT message_id AS messageId\s+FROM delivery FORCE INDEX \(delivery_next\)/,
    ],
  ];
  return new Map(verbs.map(([verb, pattern]) => [verb, sent(verb, pattern)]));
}

async function fill(rows: number): Promise<void> {
  await connection.query('DELETE FROM delivery');
  await connection.query('DELETE FROM message');
  for (let done = 0; done < rows; done += 1000) {
    const some = numbered(Math.min(1000, rows - done), { priority: 4 }).map((one, index) => ({
      ...one,
      id: newMessageId(T0 + ((done + index) % 6) * HOUR),
    }));
    await store.at(T0).messages.enqueue(queue.name, some);
  }
  await connection.query('ANALYZE TABLE delivery, message');
}

interface Plan {
  table: string;
  partitions: string | null;
  type: string;
  key: string | null;
  rows: number;
  Extra: string;
}

async function explain(statement: string): Promise<Plan[]> {
  const form = testServer().kind === 'mysql' ? 'EXPLAIN FORMAT=TRADITIONAL' : 'EXPLAIN PARTITIONS';
  const [plans] = await connection.query(`${form} ${statement}`);
  return plans as Plan[];
}

/**
 * The fixed part of a plan: how each table is read, through which index, in how many partitions,
 * and whether the server sorts.
 */
function essence(plans: Plan[]): string[] {
  const each = plans
    .filter(({ table }) => ['queue', 'delivery', 'd', 'message'].includes(table))
    .map(({ table, partitions, type, key, Extra }) => {
      const sorted = /filesort|temporary/i.exec(Extra ?? '');
      return `${table}: ${type} on ${key}${partitions ? `, ${partitions.split(',').length} partition(s)` : ''}${sorted ? `, ${sorted[0]}` : ''}`;
    });
  // A UNION has one plan for each part.
  return [...new Set(each)];
}

const ROWS = [0, 3, 200, 20_000];

describe.each(ROWS)('with %i messages in the queue', (rows) => {
  it('every hot statement uses the intended index without a sort and reads one partition of messages', async () => {
    await fill(rows);
    const plans: Record<string, string[]> = {};
    for (const [verb, statement] of await live()) plans[verb] = essence(await explain(statement));
    expect(plans).toEqual({
      'enqueue: lock queues': ['queue: range on PRIMARY'],
      'claim: peek': ['delivery: range on delivery_next'],
      'claim: settings': [expect.stringMatching(/^queue: (const|range) on PRIMARY$/)],
      'claim: lock': ['delivery: range on delivery_next'],
      'claim: lease': ['delivery: range on PRIMARY'],
      'claim: bodies': ['message: range on PRIMARY, 1 partition(s)'],
      'nack, extend: lock': ['delivery: range on PRIMARY'],
      extend: ['delivery: range on PRIMARY'],
      nack: ['delivery: range on PRIMARY'],
      release: ['delivery: range on PRIMARY'],
      'ack: delete': ['d: range on PRIMARY'],
      'ack of many claims: delete': ['d: eq_ref on PRIMARY'],
      'expire, claim: delete': ['d: eq_ref on PRIMARY'],
      'expire, dead-letter, redrive, purge: lock': [expect.stringMatching(/^delivery: (range|ref) on delivery_next$/)],
    });
  });

  it('statements that find deliveries by receipt or id expect to read only the rows that they name', async () => {
    await fill(rows);
    const expected: [string, number][] = [];
    for (const [verb, statement] of await live()) {
      if (!/lease|ack|extend|release|delete/.test(verb)) continue;
      for (const plan of await explain(statement)) {
        if (['delivery', 'd'].includes(plan.table)) expected.push([verb, Number(plan.rows)]);
      }
    }
    expect(expected.length).toBeGreaterThanOrEqual(7);
    expect(expected.filter(([, rowsRead]) => rowsRead > 20)).toEqual([]);
  });
});

describe.each(ROWS)('with %i messages that are ready', (rows) => {
  /**
   * One queue has messages of one priority, one has all ten, and nobody has claimed from the third.
   * Scan floors need the database's clock.
   */
  async function claimStatements(
    priorities: number,
  ): Promise<{ peek: string; lock: string; together: string; below: string; ready: string }> {
    await moveClock(undefined);
    await connection.query('DELETE FROM delivery');
    const own = await createQueue(store);
    const batches = new MessageRepository(store.database);
    for (let done = 0; done < rows; done += 1000) {
      const some = numbered(Math.min(1000, rows - done)).map((one, index) => ({
        ...one,
        priority: index % Math.max(priorities, 1),
      }));
      await batches.enqueue([{ queueName: own.name, messages: some }]);
    }
    await connection.query('ANALYZE TABLE delivery');
    const demands = [{ maxMessages: 10, leaseSeconds: 60 }];
    const seen = () => Array.from({ length: Math.max(priorities, 1) }, (_, priority) => message({ priority }));
    // The first claim begins at the start of every priority. Later claims begin at the floors of
    // the priorities that it saw.
    if (priorities > 0) {
      await batches.dequeue([{ queue: own, demands }]);
      await batches.enqueue([{ queueName: own.name, messages: seen() }]);
    } else {
      await batches.enqueue([{ queueName: own.name, messages: seen() }]);
    }
    statements.length = 0;
    await batches.dequeue([{ queue: own, demands }]);
    const [peek, lock] = [sent('claim: peek', PEEK_AT_FRONT), sent('claim: lock', LOCK)];
    expect(peek.match(/priority_rank = /g)).toHaveLength(priorities || 10);
    const others = [await createQueue(store), await createQueue(store)];
    for (const other of others) await batches.enqueue([{ queueName: other.name, messages: seen() }]);
    // Request more than there is: the claim locks ranges without a visible end separately.
    const more = [{ maxMessages: 20, leaseSeconds: 60 }];
    await batches.dequeue(others.map((other) => ({ queue: other, demands: more })));
    // Lease everything. The next claim then finds nothing, reads below the floors and finds nothing
    // there.
    await batches.dequeue([{ queue: own, demands: [{ maxMessages: 100_000, leaseSeconds: 60 }] }]);
    const below = /priority_rank = 0 AND available_at BETWEEN 0 AND[^]*LIMIT 500$/;
    await eventually('a rescan', async () => {
      await batches.dequeue([{ queue: own, demands }]);
      return statements.some((sql) => below.test(sql));
    });
    await batches.poll([own.id, queue.id, neighbour.id]);
    return {
      peek,
      lock,
      together: sent(
        'claim: lock together',
        new RegExp(`queue_id = ${others[0]?.id} [^]* OR [^]*queue_id = ${others[1]?.id} [^]*SKIP LOCKED$`),
      ),
      below: sent('rescan', below),
      ready: sent('poll', /priority_rank IN \([^]*LIMIT 500$/),
    };
  }

  it.each([0, 1, 10])(
    'a claim above the floors of %i priorities and a rescan below them read the index in its order',
    async (priorities) => {
      const { peek, lock, together, below, ready } = await claimStatements(priorities);
      const walk = ['delivery: range on delivery_next'];
      expect({
        peek: essence(await explain(peek)),
        lock: essence(await explain(lock)),
        together: essence(await explain(together)),
        below: essence(await explain(below)),
      }).toEqual({ peek: walk, lock: walk, together: walk, below: walk });
      expect(essence(await explain(ready))).toEqual(walk);
      if (testServer().kind !== 'mysql') return;
      // The server expects one row a range. FORCE INDEX keeps MySQL from diving into the index for
      // an estimate. In a deep queue that would cost ten times as much as the peek.
      for (const statement of [peek, lock, together]) {
        const ranges = statement.match(/priority_rank = /g)?.length;
        expect((await explain(statement)).map((plan) => plan.rows)).toEqual([ranges]);
      }
    },
  );
});

describe('the hot statements', () => {
  async function lockedRows(work: () => Promise<unknown>): Promise<number> {
    await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
    await connection.beginTransaction();
    try {
      await work();
      const [rows] = await connection.query(
        'SELECT trx_rows_locked AS n FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = CONNECTION_ID()',
      );
      return Number((rows as { n: number }[])[0]?.n ?? 0);
    } finally {
      await connection.rollback();
    }
  }

  /** A claim of the filled queue's messages, which are ready since the first hour. */
  async function claimStatement(size: number): Promise<string> {
    await moveClock(T0 + HOUR);
    statements.length = 0;
    await store.messages.dequeue(queue, { maxMessages: size, leaseSeconds: 30 });
    return sent('claim: lock', LOCK);
  }

  it('lock rows in proportion to the size of a claim, not to the depth of the backlog', async () => {
    await fill(20_000);
    for (const size of [1, 10, 100]) {
      const statement = await claimStatement(size);
      // An index entry and a row for each delivery, and the entry after the end of a range.
      expect(await lockedRows(() => connection.query(statement))).toBeLessThanOrEqual(2 * size + 2);
    }
  });

  it('lock for an ack only its own rows, in a small and a large queue', async () => {
    for (const rows of [3, 200]) {
      await fill(rows);
      const verbs = await live();
      const [lock, remove] = [verbs.get('nack, extend: lock') as string, verbs.get('ack: delete') as string];
      expect(await lockedRows(() => connection.query(lock))).toBeLessThanOrEqual(2 * 20 + 2);
      expect(await lockedRows(() => connection.query(remove))).toBeLessThanOrEqual(2 * 10 + 2);
    }
  });

  it('lock rows for a claim that other claims skip, and block no ack of another delivery', async () => {
    await fill(50);
    const now = T0 + HOUR;
    const held = await store.at(now).messages.dequeue(queue, { maxMessages: 5, leaseSeconds: 30 });
    const statement = await claimStatement(20);
    await lockedRows(async () => {
      const [locked] = await connection.query(statement);
      expect(locked).toHaveLength(20);
      const others = await store.at(now).messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 30 });
      const lockedIds = new Set((locked as { messageId: Buffer }[]).map(({ messageId }) => messageId.toString('hex')));
      expect(others.filter(({ messageId }) => lockedIds.has(messageId.toString('hex')))).toEqual([]);
      expect(others.length).toBeGreaterThan(0);
      expect(await store.at(now).messages.ack(queue.id, held)).toEqual([null, null, null, null, null]);
    });
  });
});
