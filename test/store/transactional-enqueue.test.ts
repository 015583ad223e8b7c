import { MessageRepository, type Queue } from '@rowmq/store';
import { enqueue } from '../../libs/typeorm/src/index.js';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { storedBodies } from '../support/deliveries.js';
import { bodies, createQueue, message, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

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
      const { leased } = await broker.claim(queue, [{ maxMessages: 10, leaseSeconds: 600 }]);
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
});
