import { messageIdTime, parseMessageId } from '@rowmq/contract';
import { MessageRepository, type Queue } from '@rowmq/store';
import { context, propagation, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { BasicTracerProvider } from '@opentelemetry/sdk-trace-base';
import { enqueue, PayloadError, TransactionalQueue } from '../../libs/typeorm/src/index.js';
import { DataSource, type QueryRunner } from 'typeorm';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { z } from 'zod';
import { owedMessages, storedBodies } from '../support/deliveries.js';
import { bodies, createQueue, message, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';
import { claimFrom } from '../support/claim-from.js';

/*
 * An enqueue in the transaction of another service: on a connection with other settings, beside the
 * service's own data.
 */

let store: TestStore;
let shop: DataSource;
let queue: Queue;

beforeAll(async () => {
  store = await openStore();
  // This connection differs from RowMQ's own as much as possible: REPEATABLE READ, another time
  // zone, large numbers as text.
  shop = await new DataSource({
    type: 'mysql',
    url: store.url,
    timezone: '+05:30',
    bigNumberStrings: true,
    supportBigNumbers: true,
  }).initialize();
  await shop.query('CREATE TABLE purchase (id INT PRIMARY KEY AUTO_INCREMENT, article VARCHAR(20))');
});
afterAll(async () => {
  await shop.destroy();
  await store.close();
});
beforeEach(async () => {
  queue = await createQueue(store);
});

async function dequeueAll(): Promise<{ body: Buffer; expiresAt: number }[]> {
  return store.messages.dequeue(queue, { maxMessages: 100, leaseSeconds: 600 });
}

async function purchases(article: string): Promise<number> {
  const rows: unknown[] = await shop.query('SELECT id FROM purchase WHERE article = ?', [article]);
  return rows.length;
}

describe('enqueue in a transaction', () => {
  it('stores nothing once the transaction was rolled back because of another one beside it', async () => {
    const runner = shop.createQueryRunner();
    try {
      await runner.startTransaction();
      const failing = enqueue(runner.manager, 'no-such-queue', [{ body: 'refused' }]);
      const late = enqueue(runner.manager, queue.name, [{ body: 'late' }]).catch((error: unknown) => error);
      // As Promise.all ends: the other enqueue goes on.
      await expect(failing).rejects.toMatchObject({ code: 'queue-not-found' });
      await runner.rollbackTransaction();
      expect(await late).toMatchObject({ message: expect.stringContaining('open transaction') });
    } finally {
      await runner.release();
    }
    expect(await owedMessages(store, queue)).toEqual([]);
  });

  it('takes bodies up to maxBodyBytes, 4,096 by default, and no limit that no broker could have', async () => {
    const enqueueBytes = async (bytes: number, maxBodyBytes?: number): Promise<string[]> =>
      shop.transaction(async (manager) =>
        enqueue(manager, queue.name, [{ body: 'x'.repeat(bytes) }], { maxBodyBytes }),
      );
    await expect(enqueueBytes(4097)).rejects.toMatchObject({
      code: 'message-too-large',
      message: expect.stringContaining('more than 4096'),
    });
    await expect(enqueueBytes(262_145, 262_144)).rejects.toMatchObject({ code: 'message-too-large' });
    for (const limit of [0, 262_145, 1.5]) await expect(enqueueBytes(1, limit)).rejects.toThrow(RangeError);
    await enqueueBytes(4096);
    await enqueueBytes(262_144, 262_144);
    const stored = await eventually('they', async () => {
      const found = await dequeueAll();
      return found.length > 0 && found;
    });
    expect(stored.map(({ body }) => body.length)).toEqual([4096, 262_144]);
  });

  it('stores exactly one message if it commits, and the service’s row beside it', async () => {
    const ids = await shop.transaction(async (manager) => {
      await manager.query('INSERT INTO purchase (article) VALUES (?)', ['tea']);
      const made = await enqueue(manager, queue.name, [{ body: 'mail them', headers: { kind: 'mail' }, priority: 7 }]);
      // No consumer sees the message before the commit.
      expect(await dequeueAll()).toEqual([]);
      return made;
    });
    expect(ids).toEqual([expect.stringMatching(/^[0-9a-f-]{36}$/)]);
    // A rescan finds it, because its priority was not in use before.
    const delivered = await eventually('it', async () => {
      const found = await dequeueAll();
      return found.length > 0 && found;
    });
    expect(bodies(delivered)).toEqual(['mail them']);
    expect(delivered[0]).toMatchObject({ priority: 7, headers: Buffer.from('{"kind":"mail"}') });
    expect(await purchases('tea')).toBe(1);
    expect(await dequeueAll()).toEqual([]);
  });

  it('makes a message available at its time, by the database’s clock', async () => {
    const far = new Date(Date.now() + 366 * 86_400_000 - 60_000);
    const times = ['2020-01-01T00:00:00Z', far.toISOString()];
    await shop.transaction((manager) =>
      enqueue(
        manager,
        queue.name,
        times.map((availableAt) => ({ body: availableAt, availableAt })),
      ),
    );
    expect(bodies(await dequeueAll())).toEqual([times[0]]);
    const owed = await owedMessages(store, queue);
    expect(owed.find(({ body }) => body === times[1])).toMatchObject({
      availableAt: far.getTime(),
      expiresAt: expect.closeTo(far.getTime() + queue.messageTtlSeconds * 1000, -4) as number,
    });
  });

  it('has ids by the database’s clock in an ordered queue, where the clocks of services do not matter', async () => {
    const ordered = await createQueue(store, { ordering: 'group' });
    const fast = vi.spyOn(Date, 'now').mockReturnValue(Date.now() + 3_600_000);
    onTestFinished(() => fast.mockRestore());
    const [id] = await shop.transaction(async (manager) =>
      enqueue(manager, ordered.name, [{ body: 'one', groupId: 'a' }]),
    );
    const [row] = await store.database.read<{ now: number }>('SELECT UNIX_TIMESTAMP() * 1000 AS now');
    expect(Math.abs(messageIdTime(parseMessageId(id!)) - Number(row!.now))).toBeLessThan(60_000);
  });

  it('stores nothing if it rolls back', async () => {
    const failing = shop.transaction(async (manager) => {
      await manager.query('INSERT INTO purchase (article) VALUES (?)', ['jam']);
      await enqueue(manager, queue.name, [{ body: 'one' }, { body: 'two' }]);
      throw new Error('the card was refused');
    });
    await expect(failing).rejects.toThrow('the card was refused');
    expect(await dequeueAll()).toEqual([]);
    expect(await purchases('jam')).toBe(0);
    expect(await storedBodies(store, queue)).toEqual({ messages: [], owed: [] });
  });

  it('that commits late is delivered, even if later messages were claimed meanwhile', async () => {
    const other = await openStore({ on: store.url });
    const broker = new MessageRepository(other.database);
    const dequeue = async () => {
      const { leased } = await claimFrom(broker, queue, [{ maxMessages: 10, leaseSeconds: 600 }]);
      return bodies(leased.flat());
    };
    await shop.transaction(async (manager) => {
      await enqueue(manager, queue.name, [{ body: 'late' }]);
      // The scan floor passes the late message.
      for (let round = 0; round < 5; round += 1) {
        await broker.enqueue([{ queueName: queue.name, messages: [message({ body: Buffer.from('soon') })] }]);
        expect(await dequeue()).toEqual(['soon']);
        await new Promise((resolve) => setTimeout(resolve, 150));
      }
    });
    const found: string[] = [];
    await eventually('the late one', async () => (found.push(...(await dequeue())), found.length > 0));
    expect(found).toEqual(['late']);
    await other.close();
  });

  it('computes delay and expiry from the database’s clock in any time zone of the connection', async () => {
    await shop.transaction(async (manager) => {
      await manager.query("SET time_zone = '+05:30'");
      await enqueue(manager, queue.name, [
        { body: 'now', expiresInSeconds: 100 },
        { body: 'later', delaySeconds: 3600 },
      ]);
    });
    const [now] = await store.database.read<{ now: number }>(
      'SELECT CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS UNSIGNED) AS now',
    );
    const delivered = await dequeueAll();
    expect(bodies(delivered)).toEqual(['now']);
    const left = (delivered[0]?.expiresAt ?? 0) - (now?.now ?? 0);
    expect(left).toBeGreaterThan(90_000);
    expect(left).toBeLessThanOrEqual(100_000);
  });

  it('stores all messages or none, within the queue’s maximum depth', async () => {
    const bounded = await createQueue(store, { maxDepth: 3 });
    const put = (count: number) =>
      shop.transaction((manager) =>
        enqueue(
          manager,
          bounded.name,
          Array.from({ length: count }, () => ({ body: 'x' })),
        ),
      );
    await put(2);
    await expect(put(2)).rejects.toMatchObject({ code: 'queue-full' });
    await put(1);
    expect((await storedBodies(store, bounded)).owed).toEqual(['x', 'x', 'x']);
  });

  it('writes to RowMQ’s tables in another database and leaves the connection in its own', async () => {
    const name = new URL(store.url).pathname.slice(1);
    const elsewhere = `${name}_shop`;
    await store.database.write(`CREATE DATABASE ${elsewhere}`);
    const url = new URL(store.url);
    url.pathname = `/${elsewhere}`;
    const source = await new DataSource({ type: 'mysql', url: url.href }).initialize();
    try {
      await source.transaction(async (manager) => {
        await enqueue(manager, queue.name, [{ body: 'from elsewhere' }], { database: name });
        expect(await manager.query('SELECT DATABASE() AS own')).toEqual([{ own: elsewhere }]);
      });
      await expect(
        source.transaction((manager) => enqueue(manager, 'no-such-queue', [{ body: 'x' }], { database: name })),
      ).rejects.toMatchObject({ code: 'queue-not-found' });
      expect(bodies(await dequeueAll())).toEqual(['from elsewhere']);
    } finally {
      await source.destroy();
      await store.database.write(`DROP DATABASE ${elsewhere}`);
    }
  });

  it('refuses the same messages as a broker, and refuses to run without a transaction', async () => {
    const refused = (messages: unknown) =>
      shop.transaction((manager) => enqueue(manager, queue.name, messages as never));
    await expect(refused([])).rejects.toMatchObject({ code: 'invalid-request' });
    await expect(refused([{ body: 'x', prio: 3 }])).rejects.toMatchObject({ code: 'invalid-request' });
    await expect(refused([{ body: 'x'.repeat(4097) }])).rejects.toMatchObject({ code: 'message-too-large' });
    await expect(refused([{ body: 'x', delaySeconds: 20, expiresInSeconds: 10 }])).rejects.toMatchObject({
      code: 'invalid-request',
    });
    await expect(enqueue(shop.manager, queue.name, [{ body: 'x' }])).rejects.toThrow(
      /needs the EntityManager of an open transaction/,
    );
    expect(await dequeueAll()).toEqual([]);
  });

  it('keeps what a nested transaction keeps', async () => {
    await shop.transaction(async (manager) => {
      await enqueue(manager, queue.name, [{ body: 'outer' }]);
      const nested = manager.transaction(async (inner) => {
        await enqueue(inner, queue.name, [{ body: 'undone' }]);
        throw new Error('of the nested transaction');
      });
      await expect(nested).rejects.toThrow('of the nested transaction');
      await manager.transaction((inner) => enqueue(inner, queue.name, [{ body: 'nested' }]));
    });
    expect((await storedBodies(store, queue)).owed).toEqual(['outer', 'nested']);
  });

  it('does not find a queue that is younger than its snapshot, and locks nothing then', async () => {
    await shop.transaction('REPEATABLE READ', async (manager) => {
      await manager.query('SELECT * FROM purchase');
      const { queue: young } = await store.queues.put(`${queue.name}-m`, {});
      await expect(enqueue(manager, young.name, [{ body: 'x' }])).rejects.toMatchObject({
        code: 'queue-not-found',
        message: expect.stringContaining('REPEATABLE READ does not see'),
      });
      // A locked gap between names would make these wait for the transaction.
      for (const suffix of ['a', 'z']) await store.queues.put(`${queue.name}-${suffix}`, {});
    });
  });

  it('takes four round trips, also for four calls at once and in another database', async () => {
    const database = new URL(store.url).pathname.slice(1);
    await shop.transaction('READ COMMITTED', async (manager) => {
      const sent = vi.spyOn(manager, 'query');
      const calls = [1, 2, 3, 4].map((call) =>
        enqueue(manager, queue.name, [{ body: `${call}` }, { body: `${call}`, priority: 9 }], { database }),
      );
      expect(new Set((await Promise.all(calls)).flat()).size).toBe(8);
      expect(sent).toHaveBeenCalledTimes(16);
    });
    const { owed } = await storedBodies(store, queue);
    for (const body of ['1', '2', '3', '4']) expect(owed.filter((one) => one === body)).toHaveLength(2);
  });

  it('runs the calls of one transaction in turn, so that ids, groups and the maximum depth hold', async () => {
    const ordered = await createQueue(store, { ordering: 'group' });
    const bounded = await createQueue(store, { maxDepth: 1 });
    await shop.transaction(async (manager) => {
      const call = async (to: Queue, fields: object): Promise<string[][]> =>
        Promise.all(['1', '2', '3'].map(async (body) => enqueue(manager, to.name, [{ body, ...fields }])));
      expect(new Set((await call(queue, { deduplicationId: 'same' })).flat()).size).toBe(1);
      await call(ordered, { groupId: 'same' });
      await expect(call(bounded, {})).rejects.toMatchObject({ code: 'queue-full' });
    });
    expect((await storedBodies(store, queue)).owed).toEqual(['1']);
    expect((await storedBodies(store, bounded)).owed).toEqual(['1']);
    const first = await store.messages.dequeue(ordered, { maxMessages: 10, leaseSeconds: 60 });
    expect(first.map(({ body }) => body.toString())).toEqual(['1']);
  });

  describe('on a session of its own', () => {
    let session: QueryRunner;
    beforeEach(async () => {
      session = shop.createQueryRunner();
      return async () => {
        if (session.isTransactionActive) await session.rollbackTransaction();
        await session.query('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ');
        await session.query('SET SESSION sql_mode = DEFAULT');
        await session.query('SET NAMES utf8mb4');
        await session.release();
      };
    });

    it.each([
      ['SERIALIZABLE', /level is SERIALIZABLE, .* acks .*; run SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED/],
      ['READ UNCOMMITTED', /level is READ-UNCOMMITTED, .* settings that nobody has committed; run SET SESSION/],
    ])('is refused at the level %s', async (level, sentence) => {
      await session.query(`SET SESSION TRANSACTION ISOLATION LEVEL ${level}`);
      await session.startTransaction();
      await expect(enqueue(session.manager, queue.name, [{ body: 'x' }])).rejects.toThrow(sentence);
    });

    it.each(['utf8mb4', 'gbk', 'latin1', 'binary'])('means the same in every sql_mode and in %s', async (charset) => {
      const name = new URL(store.url).pathname.slice(1);
      await session.query("SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,IGNORE_SPACE'");
      await session.query(`SET NAMES ${charset}`);
      await session.startTransaction();
      await enqueue(session.manager, queue.name, [{ body: `中\\ ' " ?` }], { database: name });
      for (const database of [`${name}\`.queue WHERE 1 = 1 -- `, `${name}'; DROP TABLE purchase; -- `])
        await expect(enqueue(session.manager, queue.name, [{ body: 'x' }], { database })).rejects.toMatchObject({
          driverError: { errno: expect.toBeOneOf([1049, 1102, 1146]) },
        });
      for (const quoted of [`${queue.name}' OR '1' = '1`, `${queue.name}\\`])
        await expect(enqueue(session.manager, quoted, [{ body: 'x' }])).rejects.toMatchObject({
          code: 'invalid-request',
        });
      await session.commitTransaction();
      expect((await storedBodies(store, queue)).owed).toEqual([`中\\ ' " ?`]);
    });
  });
});

describe('a queue of payloads', () => {
  const order = z.object({ article: z.string(), at: z.iso.datetime() });

  it('stores JSON that fits the schema, with the options and the trace context of a client’s queue', async () => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    propagation.setGlobalPropagator(new W3CTraceContextPropagator());
    trace.setGlobalTracerProvider(new BasicTracerProvider());
    const orders = new TransactionalQueue<object>(queue.name, { schema: order });
    const at = new Date(0);
    let traceId: string | undefined;
    try {
      await trace.getTracer('test').startActiveSpan('the shop', async (span) => {
        ({ traceId } = span.spanContext());
        await shop.transaction((manager) =>
          orders.enqueueMany(manager, [{ article: 'tea', at }], (_, index) => ({ headers: { index: `${index}` } })),
        );
      });
    } finally {
      for (const api of [trace, propagation, context]) api.disable();
    }
    const [leased] = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 });
    expect(JSON.parse(String(leased?.body))).toEqual({ article: 'tea', at: '1970-01-01T00:00:00.000Z' });
    expect(JSON.parse(String(leased?.headers))).toEqual({
      index: '0',
      traceparent: expect.stringContaining(`${traceId}`),
    });
  });

  it('refuses a payload that does not fit, none and too many, and takes bytes as they are', async () => {
    const orders = new TransactionalQueue<unknown>(queue.name, { schema: order });
    const bytes = new TransactionalQueue<Uint8Array>(queue.name, { format: 'bytes' });
    await shop.transaction(async (manager) => {
      await expect(orders.enqueue(manager, { article: 7 })).rejects.toThrow(PayloadError);
      await expect(orders.enqueue(manager, 7n)).rejects.toThrow(/cannot be represented as JSON/);
      await expect(orders.enqueueMany(manager, [])).rejects.toThrow(RangeError);
      await expect(
        orders.enqueueMany(
          manager,
          Array.from({ length: 101 }, () => ({})),
        ),
      ).rejects.toThrow(/1 to 100 messages; these are 101/);
      await bytes.enqueue(manager, Uint8Array.of(0, 255));
    });
    const leased = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 });
    expect(leased.map(({ body }) => body.toString('hex'))).toEqual(['00ff']);
  });
});
