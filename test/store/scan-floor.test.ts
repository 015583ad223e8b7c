import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { newMessageId } from '@rowmq/contract';
import { EmbeddedServer } from '@rowmq/mysql-server';
import { type LeasedDelivery, MessageRepository, migrateDatabase, type Queue, type StoreObserver } from '@rowmq/store';
import { type Connection, createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { serverProgram } from '../support/servers.js';
import { LOOK_AT_HEAD, recordStatements } from '../support/statements.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * Claims begin where the last one found something, not at the left edge of the index. What that
 * saves is measured where purge stands still; what it could lose is looked for below the floor.
 */

async function take(messages: MessageRepository, queue: Queue, maxMessages: number): Promise<LeasedDelivery[]> {
  const [outcome] = await messages.dequeue([{ queue, demands: [{ maxMessages, leaseSeconds: 600 }] }]);
  return outcome?.leased.flat() ?? [];
}

/** Remembers when rescans ran, by `performance.now()`. */
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

  // A server of its own: what a statement reads is told for the whole server, and a purge that
  // stands still does so for all.
  beforeAll(async () => {
    const program = await serverProgram();
    dataDir = await mkdtemp(join(tmpdir(), 'rowmq-floor-'));
    server = await EmbeddedServer.start({ program, dataDir, bufferPoolMegabytes: 256 });
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
    await server.stop();
    await rm(dataDir, { recursive: true, force: true });
  });

  async function pagesRead(): Promise<number> {
    const [rows] = await observer.query(`SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_read_requests'`);
    return Number((rows as { Value: string }[])[0]?.Value);
  }

  /**
   * What a claim has to walk over: pages that its look reads (the least of some times, as the
   * server has work of its own), and messages that came and went above where it begins.
   */
  async function costOfClaim(
    messages: MessageRepository,
    queue: Queue,
    hasFloors: boolean,
  ): Promise<{ pages: number; dead: number }> {
    // A floor stays a tenth of a second behind what was seen: what came and went in this time is
    // walked over as well.
    for (let time = 0; time < 2; time += 1) {
      await sleep(150);
      const leased = await take(messages, queue, 5);
      await messages.nack([{ queueId: queue.id, receipts: leased, delaySeconds: 0 }]);
    }
    // As long as a claim goes by what the last look saw.
    await sleep(150);
    // One that has just been made has no floors.
    const claiming = hasFloors ? messages : new MessageRepository(store.database);
    statements.length = 0;
    const leased = await take(claiming, queue, 5);
    expect(leased).toHaveLength(5);
    const look = statements.find((sql) => LOOK_AT_HEAD.test(sql.trim())) ?? 'no look';
    await messages.nack([{ queueId: queue.id, receipts: leased, delaySeconds: 0 }]);
    const floor = /priority_rank = 5 AND available_at BETWEEN (\d+)/.exec(look)?.[1];
    const [gone] = await store.database.read<{ n: number }>(
      `SELECT COUNT(*) AS n FROM message m LEFT JOIN delivery d FORCE INDEX (PRIMARY) ON d.queue_id = m.queue_id AND d.message_id = m.id
       WHERE m.queue_id = ? AND m.expires_at - ? >= ? AND d.message_id IS NULL`,
      [queue.id, queue.messageTtlSeconds * 1000, Number(floor)],
    );
    let pages = Infinity;
    for (let time = 0; time < 10; time += 1) {
      const before = await pagesRead();
      await observer.query(look);
      pages = Math.min(pages, (await pagesRead()) - before);
    }
    return { pages, dead: Number(gone?.n) };
  }

  /** So many messages come and go. */
  async function pass(queue: Queue, count: number): Promise<void> {
    const { batches } = store.messages;
    for (let passed = 0; passed < count; passed += BATCH) {
      await batches.enqueue([{ queueName: queue.name, messages: numbered(BATCH) }]);
      const leased = await take(batches, queue, BATCH);
      expect(leased).toHaveLength(BATCH);
      expect(new Set((await batches.ack([{ queueId: queue.id, receipts: leased }]))[0])).toEqual(new Set([null]));
    }
  }

  it.each([2000, 5])(
    'a claim from a queue with a backlog of %i walks over no more than at the beginning, and without floors ever more',
    async (backlog) => {
      const queue = await createQueue(store);
      const { batches } = store.messages;
      await batches.enqueue([{ queueName: queue.name, messages: numbered(backlog) }]);
      await pass(queue, 1000);
      const floored: { pages: number; dead: number }[] = [];
      for (let passed = 0; passed < MESSAGES; passed += MESSAGES / 4) {
        await pass(queue, MESSAGES / 4);
        // With few messages alive the table is a small one to the optimizer, however much there is
        // to walk over.
        await observer.query('ANALYZE TABLE delivery');
        floored.push(await costOfClaim(batches, queue, true));
      }
      const without = await costOfClaim(batches, queue, false);
      const measured = JSON.stringify({ backlog, floored, without });
      // The counter-test: it is there to be walked over.
      expect(without.dead, measured).toBeGreaterThanOrEqual(MESSAGES);
      // What came and went in a tenth of a second, and the rest of the batch whose first is still
      // there.
      for (const { dead } of floored) expect(dead, measured).toBeLessThanOrEqual(MESSAGES / 5);
      // And the server goes by the floor. With many messages alive, pages tell too little: each
      // holds hundreds of entries.
      const pages = floored.map((cost) => cost.pages).toSorted((one, other) => one - other);
      if (backlog < 100) expect(pages[1], measured).toBeLessThan(without.pages / 2);
    },
    180_000,
  );

  it('a rescan takes long, and so comes seldom: a twentieth of the time at most, for a queue that is empty all the time', async () => {
    const queue = await createQueue(store);
    await pass(queue, MESSAGES / 2);
    const { batches } = store.messages;
    const { rescans } = recorded;
    rescans.length = 0;
    const from = performance.now();
    let claims = 0;
    while (performance.now() < from + (rescans.length < 2 ? 20_000 : 4000)) {
      await take(batches, queue, 10);
      claims += 1;
    }
    expect(rescans.length).toBeGreaterThanOrEqual(2);
    expect(claims).toBeGreaterThan(10 * rescans.length);
    for (const [index, { from: begun }] of rescans.entries()) {
      const before = rescans[index - 1];
      if (before === undefined) continue;
      // Within what the two of us measure differently.
      expect(begun - before.until).toBeGreaterThanOrEqual(20 * (before.until - before.from) - 2);
    }
    // They do cost something, so that this was a test.
    const longest = Math.max(...rescans.map((rescan) => rescan.until - rescan.from));
    expect(longest).toBeGreaterThan(2);
  }, 60_000);

  it('a rescan of a queue that has messages all the time is made four times a second at most', async () => {
    const queue = await createQueue(store);
    const { batches } = store.messages;
    await batches.enqueue([{ queueName: queue.name, messages: numbered(1000) }]);
    const { rescans } = recorded;
    rescans.length = 0;
    const from = performance.now();
    for (let left = 1000; left > 0 && performance.now() < from + 3000; left -= 1) {
      expect(await take(batches, queue, 1)).toHaveLength(1);
    }
    await sleep(100);
    expect(rescans.length).toBeGreaterThan(0);
    for (const [index, { from: begun }] of rescans.entries()) {
      const before = rescans[index - 1];
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
   * Begins an enqueue by hand whose clock was read a minute ago, and which commits when it is told
   * to.
   */
  async function enqueueLate(queue: Queue, { priorityRank = 5 } = {}): Promise<() => Promise<void>> {
    const id = newMessageId();
    const availableAt = (await clock()) - 60_000;
    await connection.beginTransaction();
    await connection.query('INSERT INTO message (id, queue_id, body, expires_at) VALUES (?, ?, ?, ?)', [
      id,
      queue.id,
      Buffer.from('late'),
      availableAt + 3_600_000,
    ]);
    await connection.query(
      'INSERT INTO delivery (queue_id, message_id, priority_rank, available_at, expires_at, receive_count) VALUES (?, ?, ?, ?, ?, 0)',
      [queue.id, id, priorityRank, availableAt, availableAt + 3_600_000],
    );
    return () => connection.commit();
  }

  async function clock(): Promise<number> {
    const [row] = await store.database.read<{ now: number }>(
      'SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED) AS now',
    );
    return (row as { now: number }).now;
  }

  /** The message repository of a further broker, and when it rescanned. */
  function newBroker() {
    const { rescans, observer } = rescanRecorder();
    return { messages: new MessageRepository(store.database, observer), rescans };
  }

  /**
   * Has a broker claim what there is, so that its floor stands at this moment, and waits until its
   * next rescan has its turn.
   */
  async function raiseFloor({ messages, rescans }: ReturnType<typeof newBroker>, queue: Queue): Promise<void> {
    await messages.enqueue([{ queueName: queue.name, messages: numbered(3) }]);
    await eventually('the queue to be empty', async () => (await take(messages, queue, 10)).length === 0);
    await eventually('a rescan', async () => {
      await take(messages, queue, 1);
      return rescans.length > 0;
    });
    const last = rescans.at(-1) as { from: number; until: number };
    await sleep(25 * (last.until - last.from) + 50);
  }

  it.each([
    ['in a priority that is in use', 5],
    ['in one that is not', 0],
  ])('that was committed late, %s, is found before the queue is called empty', async (_, priorityRank) => {
    const queue = await createQueue(store);
    const broker = newBroker();
    const { messages } = broker;
    const commit = await enqueueLate(queue, { priorityRank });
    await raiseFloor(broker, queue);
    await commit();
    const [first] = await messages.dequeue([{ queue, demands: [{ maxMessages: 5, leaseSeconds: 600 }] }]);
    // The claim did not see it, the rescan after it did: a broker claims once more before it says
    // that there is nothing.
    expect([first?.leased, await first?.claimAgain]).toEqual([[[]], true]);
    expect(bodies(await take(messages, queue, 5))).toEqual(['late']);
  });

  it('is found while other messages keep coming, though the queue is never empty', async () => {
    const queue = await createQueue(store);
    const broker = newBroker();
    const { messages } = broker;
    const commit = await enqueueLate(queue);
    await raiseFloor(broker, queue);
    await messages.enqueue([{ queueName: queue.name, messages: numbered(200) }]);
    await take(messages, queue, 1);
    await commit();
    const from = performance.now();
    for (;;) {
      await messages.enqueue([{ queueName: queue.name, messages: numbered(2) }]);
      const leased = await take(messages, queue, 2);
      expect(leased).toHaveLength(2);
      await messages.ack([{ queueId: queue.id, receipts: leased }]);
      if (bodies(leased).includes('late')) break;
      expect(performance.now() - from).toBeLessThan(10_000);
    }
  });

  it('that a claim held, which then rolled back, is handed out', async () => {
    const queue = await createQueue(store);
    const messages = new MessageRepository(store.database);
    await messages.enqueue([{ queueName: queue.name, messages: numbered(20) }]);
    await connection.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED');
    await connection.beginTransaction();
    await connection.query(
      `UPDATE delivery SET available_at = available_at + 600000, lease_token = x'0102030405060708'
       WHERE queue_id = ? ORDER BY message_id LIMIT 5`,
      [queue.id],
    );
    const others = [...(await take(messages, queue, 15)), ...(await take(messages, queue, 15))];
    await messages.enqueue([{ queueName: queue.name, messages: numbered(5) }]);
    others.push(...(await take(messages, queue, 20)));
    await connection.rollback();
    const rest: LeasedDelivery[] = [];
    await eventually('the rest', async () => {
      rest.push(...(await take(messages, queue, 20)));
      return others.length + rest.length === 25;
    });
    expect(new Set([...others, ...rest].map(({ messageId }) => messageId.toString('hex'))).size).toBe(25);
  });

  it.each([9, 0])(
    'of priority %i, which was never used here before, and which another broker enqueued, is found by a look and then by a claim',
    async (priority) => {
      const queue = await createQueue(store);
      const broker = newBroker();
      const { messages } = broker;
      await raiseFloor(broker, queue);
      await new MessageRepository(store.database).enqueue([
        { queueName: queue.name, messages: [message({ priority })] },
      ]);
      await eventually('a look to find it', async () => (await messages.poll([queue.id])).has(queue.id));
      expect(await take(messages, queue, 1)).toMatchObject([{ priority }]);
    },
  );

  it.each([9, 0])(
    'of priority %i, which was never used here before, and which another broker enqueued, is found by a claim alone',
    async (priority) => {
      const queue = await createQueue(store);
      const broker = newBroker();
      const { messages } = broker;
      await raiseFloor(broker, queue);
      await new MessageRepository(store.database).enqueue([
        { queueName: queue.name, messages: [message({ priority })] },
      ]);
      const [first] = await messages.dequeue([{ queue, demands: [{ maxMessages: 1, leaseSeconds: 600 }] }]);
      const leased = (await first?.claimAgain) ? await take(messages, queue, 1) : first?.leased.flat();
      expect(leased).toMatchObject([{ priority }]);
    },
  );

  it('is a look’s business, too: it finds what was committed late in an idle queue', async () => {
    const queue = await createQueue(store);
    const broker = newBroker();
    const { messages } = broker;
    const commit = await enqueueLate(queue);
    await raiseFloor(broker, queue);
    expect(await messages.poll([queue.id])).toEqual(new Set());
    await commit();
    await eventually('a look to find it', async () => (await messages.poll([queue.id])).has(queue.id));
    expect(bodies(await take(messages, queue, 1))).toEqual(['late']);
  });
});

describe('the same millisecond', () => {
  let store: TestStore;

  beforeAll(async () => {
    store = await openStore();
  });
  afterAll(() => store.close());

  it('a message that is claimed as soon as it is enqueued is found by the first claim, 1000 times', async () => {
    const queue = await createQueue(store);
    const { batches } = store.messages;
    for (let time = 0; time < 1000; time += 1) {
      const sent = message({ priority: time % 10, body: Buffer.from(String(time)) });
      await batches.enqueue([{ queueName: queue.name, messages: [sent] }]);
      expect(bodies(await take(batches, queue, 1))).toEqual([String(time)]);
    }
  }, 120_000);

  it('so it is when another broker enqueued it', async () => {
    const queue = await createQueue(store);
    const [enqueuing, claiming] = [new MessageRepository(store.database), new MessageRepository(store.database)];
    for (let time = 0; time < 500; time += 1) {
      await enqueuing.enqueue([{ queueName: queue.name, messages: [message({ body: Buffer.from(String(time)) })] }]);
      expect(bodies(await take(claiming, queue, 1))).toEqual([String(time)]);
    }
  }, 120_000);

  it('a delivery that is nacked is found by the first claim after it', async () => {
    const queue = await createQueue(store);
    const { batches } = store.messages;
    await batches.enqueue([{ queueName: queue.name, messages: [message()] }]);
    let leased = await take(batches, queue, 1);
    for (let time = 0; time < 200; time += 1) {
      await batches.nack([{ queueId: queue.id, receipts: leased, delaySeconds: 0 }]);
      leased = await take(batches, queue, 1);
      expect(leased).toHaveLength(1);
    }
  }, 60_000);
});
