import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { newPackId } from '@rowmq/contract';
import type { EmbeddedServer } from '@rowmq/mysql-server';
import { type LeasedMessage, MessageRepository, migrateDatabase, type Queue, type StoreObserver } from '@rowmq/store';
import { type Connection, createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startServer } from '../support/servers.js';
import { storeLonely } from '../support/packs.js';
import { storeStamped } from '../support/partitions.js';
import { PEEK_AT_FRONT, recordStatements } from '../support/statements.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';
import { claimFrom } from '../support/claim-from.js';

/*
 * A claim begins where the last one found something, not at the left edge of the index. The tests
 * measure the saving while purge stands still. They also search below the floor for deliveries that
 * this could lose.
 */

async function dequeue(messages: MessageRepository, queue: Queue, maxMessages: number): Promise<LeasedMessage[]> {
  const { leased } = await claimFrom(messages, queue, [{ maxMessages, leaseSeconds: 600 }]);
  return leased.flat();
}

/** Records the times of rescans, by `performance.now()`. */
function rescanRecorder(): { rescans: { from: number; until: number }[]; observer: StoreObserver } {
  const rescans: { from: number; until: number }[] = [];
  return {
    rescans,
    observer: {
      removedInClaim: () => undefined,
      rescanned: (durationMs) => {
        const until = performance.now();
        rescans.push({ from: until - durationMs, until });
      },
    },
  };
}

describe('while a snapshot is held and purge stands still', () => {
  const MESSAGES = 20_000;
  const BATCH = 500;

  let server: EmbeddedServer;
  let dataDir: string;
  let store: TestStore;
  let snapshot: Connection;
  let observer: Connection;
  let statements: string[];
  let recorded: ReturnType<typeof rescanRecorder>;

  // The test has a server of its own, because these counters and a blocked purge are server-wide.
  beforeAll(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'rowmq-floor-'));
    server = await startServer({ dataDir, bufferPoolMegabytes: 256 });
    await migrateDatabase(server.url);
    recorded = rescanRecorder();
    store = await openStore({ on: server.url, observer: recorded.observer });
    statements = recordStatements(store.database);
    observer = await createConnection({ uri: server.url });
    await observer.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
    snapshot = await createConnection({ uri: server.url });
    await snapshot.query('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ');
    await snapshot.query('START TRANSACTION WITH CONSISTENT SNAPSHOT');
    await snapshot.query('SELECT COUNT(*) FROM delivery');
  });
  afterAll(async () => {
    await snapshot.end();
    await observer.end();
    await store.close();
    // Nobody reads its data again, so it need not stop in order.
    await server.kill();
    await rm(dataDir, { recursive: true, force: true });
  });

  async function pagesRead(): Promise<number> {
    const [rows] = await observer.query(`SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_read_requests'`);
    return Number((rows as { Value: string }[])[0]?.Value);
  }

  /**
   * The cost of a claim: the pages that its peek reads, and the settled packs above its start.
   * The server reads pages for itself too, so the least of several runs counts.
   */
  async function costOfClaim(
    messages: MessageRepository,
    queue: Queue,
    hasFloors: boolean,
  ): Promise<{ pages: number; dead: number }> {
    // A floor stays a tenth of a second behind the deliveries that claims saw. A claim also walks
    // over deliveries that came and went in this time.
    for (let time = 0; time < 2; time += 1) {
      await sleep(150);
      const leased = await dequeue(messages, queue, 5);
      await messages.nack([{ queueId: queue.id, receipts: leased, delaySeconds: 0 }]);
    }
    // A new repository has no floors.
    const claiming = hasFloors ? messages : new MessageRepository(store.database);
    statements.length = 0;
    const leased = await dequeue(claiming, queue, 5);
    expect(leased).toHaveLength(5);
    const peek = statements.find((sql) => PEEK_AT_FRONT.test(sql.trim())) ?? 'no peek';
    await messages.nack([{ queueId: queue.id, receipts: leased, delaySeconds: 0 }]);
    const floor = /priority_rank = 5 AND d\.available_at BETWEEN (\d+)/.exec(peek)?.[1];
    const [gone] = await store.database.read<{ n: number }>(
      `SELECT COUNT(*) AS n FROM pack p LEFT JOIN delivery d FORCE INDEX (PRIMARY) ON d.queue_id = p.queue_id AND d.pack_id = p.id
       WHERE p.queue_id = ? AND p.expires_at - ? >= ? AND d.pack_id IS NULL`,
      [queue.id, queue.messageTtlSeconds * 1000, Number(floor)],
    );
    let pages = Infinity;
    for (let time = 0; time < 10; time += 1) {
      const before = await pagesRead();
      await observer.query(peek);
      pages = Math.min(pages, (await pagesRead()) - before);
    }
    return { pages, dead: Number(gone?.n) };
  }

  /** Enqueues, dequeues and acks this many messages, each a pack of its own. */
  async function pass(queue: Queue, count: number): Promise<void> {
    const { batches } = store.messages;
    for (let passed = 0; passed < count; passed += BATCH) {
      await storeStamped(store, queue, { at: Date.now(), count: BATCH });
      const leased = await dequeue(batches, queue, BATCH);
      expect(leased).toHaveLength(BATCH);
      expect(new Set((await batches.ack([{ queueId: queue.id, receipts: leased }]))[0])).toEqual(new Set([null]));
    }
  }

  it.each([2000, 5])(
    'a claim behind floors walks over no more than at the beginning, and one without floors ever more (backlog %i)',
    async (backlog) => {
      const queue = await createQueue(store);
      const { batches } = store.messages;
      await storeStamped(store, queue, { at: Date.now(), count: backlog });
      await pass(queue, 1000);
      const floored: { pages: number; dead: number }[] = [];
      for (let passed = 0; passed < MESSAGES; passed += MESSAGES / 4) {
        await pass(queue, MESSAGES / 4);
        // With few live messages the optimizer takes the table for a small one, however many dead
        // entries a claim must walk over.
        await observer.query('ANALYZE TABLE delivery');
        floored.push(await costOfClaim(batches, queue, true));
      }
      const without = await costOfClaim(batches, queue, false);
      const measured = JSON.stringify({ backlog, floored, without });
      // The control: the dead entries are there.
      expect(without.dead, measured).toBeGreaterThanOrEqual(MESSAGES);
      // The deliveries of a tenth of a second, and the rest of a batch whose first delivery is
      // still there.
      for (const { dead } of floored) expect(dead, measured).toBeLessThanOrEqual(MESSAGES / 5);
      // The server uses the floor, too. With many live messages, pages show too little, because
      // each holds hundreds of entries.
      const pages = floored.map((cost) => cost.pages).toSorted((one, other) => one - other);
      if (backlog < 100) expect(pages[1], measured).toBeLessThan(without.pages / 2);
    },
    180_000,
  );

  it('rescans of a queue that is always empty take at most a twentieth of the time', async () => {
    const queue = await createQueue(store);
    await pass(queue, 10_000);
    const { batches } = store.messages;
    const { rescans } = recorded;
    rescans.length = 0;
    const from = performance.now();
    let claims = 0;
    while (rescans.length < 8 && performance.now() < from + 100_000) {
      await dequeue(batches, queue, 10);
      claims += 1;
    }
    expect(rescans.length).toBeGreaterThanOrEqual(2);
    expect(claims).toBeGreaterThan(10 * rescans.length);
    for (const [index, { from: begun }] of rescans.entries()) {
      const before = rescans[index - 1];
      if (before === undefined) continue;
      // The test and the broker measure the times separately, hence the tolerance.
      expect(begun - before.until).toBeGreaterThanOrEqual(20 * (before.until - before.from) - 2);
    }
    // Rescans must cost something, or this test would prove nothing.
    const longest = Math.max(...rescans.map((rescan) => rescan.until - rescan.from));
    expect(longest).toBeGreaterThan(2);
  }, 180_000);

  it('rescans of a queue that always has messages run at most four times a second', async () => {
    const queue = await createQueue(store);
    const { batches } = store.messages;
    for (let round = 0; round < 5; round += 1) {
      await batches.enqueue([{ queueName: queue.name, messages: numbered(1000) }]);
    }
    const from = performance.now();
    // A rescan of the queue of the test before may end only now, and a slow one pauses all others.
    const ownRescans = () => recorded.rescans.filter(({ from: begun }) => begun >= from);
    for (let left = 5000; left > 0; left -= 1) {
      if (ownRescans().length >= 4 || performance.now() > from + 100_000) break;
      expect(await dequeue(batches, queue, 1)).toHaveLength(1);
    }
    await sleep(100);
    const own = ownRescans();
    expect(own.length).toBeGreaterThan(0);
    for (const [index, { from: begun }] of own.entries()) {
      const before = own[index - 1];
      if (before !== undefined) expect(begun - before.until).toBeGreaterThanOrEqual(248);
    }
  });
});

describe('a delivery below the floor', () => {
  let store: TestStore;
  let connection: Connection;

  beforeAll(async () => {
    store = await openStore();
    connection = await createConnection({ uri: store.url });
  });
  afterAll(async () => {
    await connection.end();
    await store.close();
  });

  /**
   * Begins an enqueue by hand that read its clock a minute ago. The returned function commits it.
   */
  async function enqueueLate(queue: Queue, { priorityRank = 5 } = {}): Promise<() => Promise<void>> {
    const availableAt = (await clock()) - 60_000;
    const late = { packId: newPackId(), body: 'late', priorityRank, availableAt, expiresAt: availableAt + 3_600_000 };
    await connection.beginTransaction();
    for (const { sql, values } of storeLonely([{ ...late, queueId: queue.id }])) await connection.query(sql, values);
    return () => connection.commit();
  }

  async function clock(): Promise<number> {
    const [row] = await store.database.read<{ now: number }>(
      'SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED) AS now',
    );
    return (row as { now: number }).now;
  }

  /** The message repository of another broker, and the times of its rescans. */
  function newBroker() {
    const { rescans, observer } = rescanRecorder();
    return { messages: new MessageRepository(store.database, observer), rescans };
  }

  /**
   * Makes a broker claim every delivery, so that its floor is at this moment, and waits until its
   * next rescan is due.
   */
  async function raiseFloor({ messages, rescans }: ReturnType<typeof newBroker>, queue: Queue): Promise<void> {
    await messages.enqueue([{ queueName: queue.name, messages: numbered(3) }]);
    await eventually('the queue to be empty', async () => (await dequeue(messages, queue, 10)).length === 0);
    let ms = 0;
    await eventually('a rescan', async () => {
      const from = performance.now();
      // It waits for the rescan, which may stand still longer than its statement.
      await dequeue(messages, queue, 1);
      ms = performance.now() - from;
      return rescans.length > 0;
    });
    await sleep(25 * ms + 50);
  }

  it.each([
    ['in a priority that is in use', 5],
    ['in a priority that is not in use', 0],
  ])('that was committed late, %s, is found before the broker calls the queue empty', async (_, priorityRank) => {
    const queue = await createQueue(store);
    const broker = newBroker();
    const { messages } = broker;
    const commit = await enqueueLate(queue, { priorityRank });
    await raiseFloor(broker, queue);
    await commit();
    const first = await claimFrom(messages, queue, [{ maxMessages: 5, leaseSeconds: 600 }]);
    // The claim missed it, but the rescan after the claim found it. A broker claims once more
    // before it answers that the queue is empty.
    expect([first.leased, await first.claimAgain]).toEqual([[[]], true]);
    expect(bodies(await dequeue(messages, queue, 5))).toEqual(['late']);
  });

  it('is found while other messages keep arriving and the queue is never empty', async () => {
    const queue = await createQueue(store);
    const broker = newBroker();
    const { messages } = broker;
    const commit = await enqueueLate(queue);
    await raiseFloor(broker, queue);
    await messages.enqueue([{ queueName: queue.name, messages: numbered(200) }]);
    await dequeue(messages, queue, 1);
    await commit();
    const from = performance.now();
    for (;;) {
      await messages.enqueue([{ queueName: queue.name, messages: numbered(2) }]);
      const leased = await dequeue(messages, queue, 2);
      expect(leased).toHaveLength(2);
      await messages.ack([{ queueId: queue.id, receipts: leased }]);
      if (bodies(leased).includes('late')) break;
      expect(performance.now() - from).toBeLessThan(40_000);
    }
  });

  it('that a claim locked before it rolled back is handed out', async () => {
    const queue = await createQueue(store);
    const messages = new MessageRepository(store.database);
    for (const one of numbered(20)) await messages.enqueue([{ queueName: queue.name, messages: [one] }]);
    await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
    await connection.beginTransaction();
    await connection.query(
      `UPDATE delivery SET available_at = available_at + 600000, lease_token = x'0102030405060708'
       WHERE queue_id = ? ORDER BY pack_id LIMIT 5`,
      [queue.id],
    );
    const others = [...(await dequeue(messages, queue, 15)), ...(await dequeue(messages, queue, 15))];
    await messages.enqueue([{ queueName: queue.name, messages: numbered(5) }]);
    others.push(...(await dequeue(messages, queue, 20)));
    await connection.rollback();
    const rest: LeasedMessage[] = [];
    await eventually('the rest', async () => {
      rest.push(...(await dequeue(messages, queue, 20)));
      return others.length + rest.length === 25;
    });
    expect(new Set([...others, ...rest].map(({ messageId }) => messageId.toString('hex'))).size).toBe(25);
  });

  it.each([9, 0])(
    'that another broker enqueued in the unused priority %i is found by a poll and then by a claim',
    async (priority) => {
      const queue = await createQueue(store);
      const broker = newBroker();
      const { messages } = broker;
      await raiseFloor(broker, queue);
      await new MessageRepository(store.database).enqueue([
        { queueName: queue.name, messages: [message({ priority })] },
      ]);
      await eventually('the poll finds it', async () => (await messages.poll([queue.id])).has(queue.id));
      expect(await dequeue(messages, queue, 1)).toMatchObject([{ priority }]);
    },
  );

  it.each([9, 0])(
    'that another broker enqueued in the unused priority %i is found by a claim alone',
    async (priority) => {
      const queue = await createQueue(store);
      const broker = newBroker();
      const { messages } = broker;
      await raiseFloor(broker, queue);
      await new MessageRepository(store.database).enqueue([
        { queueName: queue.name, messages: [message({ priority })] },
      ]);
      // A rescan that was slow makes the next one wait.
      const leased = await eventually('a claim finds it', async () => {
        const first = await claimFrom(messages, queue, [{ maxMessages: 1, leaseSeconds: 600 }]);
        const found = (await first.claimAgain) ? await dequeue(messages, queue, 1) : first.leased.flat();
        return found.length > 0 && found;
      });
      expect(leased).toMatchObject([{ priority }]);
    },
  );

  it('that was committed late to an idle queue is found by the poll', async () => {
    const queue = await createQueue(store);
    const broker = newBroker();
    const { messages } = broker;
    const commit = await enqueueLate(queue);
    await raiseFloor(broker, queue);
    expect(await messages.poll([queue.id])).toEqual(new Set());
    await commit();
    await eventually('the poll finds it', async () => (await messages.poll([queue.id])).has(queue.id));
    expect(bodies(await dequeue(messages, queue, 1))).toEqual(['late']);
  });
});

describe('in the same millisecond', () => {
  let store: TestStore;

  beforeAll(async () => {
    store = await openStore();
  });
  afterAll(() => store.close());

  it('the first claim after an enqueue finds the message, 1000 times', async () => {
    const queue = await createQueue(store);
    const { batches } = store.messages;
    for (let time = 0; time < 1000; time += 1) {
      const sent = message({ priority: time % 10, body: Buffer.from(String(time)) });
      await batches.enqueue([{ queueName: queue.name, messages: [sent] }]);
      expect(bodies(await dequeue(batches, queue, 1))).toEqual([String(time)]);
    }
  }, 120_000);

  it('the first claim after an enqueue by another broker finds the message, 500 times', async () => {
    const queue = await createQueue(store);
    const [enqueuing, claiming] = [new MessageRepository(store.database), new MessageRepository(store.database)];
    for (let time = 0; time < 500; time += 1) {
      await enqueuing.enqueue([{ queueName: queue.name, messages: [message({ body: Buffer.from(String(time)) })] }]);
      expect(bodies(await dequeue(claiming, queue, 1))).toEqual([String(time)]);
    }
  }, 120_000);

  it('the first claim after a nack finds the delivery', async () => {
    const queue = await createQueue(store);
    const { batches } = store.messages;
    await batches.enqueue([{ queueName: queue.name, messages: [message()] }]);
    let leased = await dequeue(batches, queue, 1);
    for (let time = 0; time < 200; time += 1) {
      await batches.nack([{ queueId: queue.id, receipts: leased, delaySeconds: 0 }]);
      leased = await dequeue(batches, queue, 1);
      expect(leased).toHaveLength(1);
    }
  }, 60_000);
});
