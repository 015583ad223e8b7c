import { rm } from 'node:fs/promises';
import type { Queue } from '@rowmq/store';
import { sql } from 'drizzle-orm';
import { drizzle, type MySql2Database } from 'drizzle-orm/mysql2';
import knexOf, { type Knex } from 'knex';
import { createPool, type Pool, type PoolConnection, type TypeCast } from 'mysql2/promise';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { TransactionalTopic, type Adapter } from '../../libs/typeorm/src/adapter.js';
import { TransactionalTopic as TypeormTopic } from '../../libs/typeorm/src/index.js';
import { storedBodies } from '../support/deliveries.js';
import { expectPrismaExampleToCompile, preparePrismaExample } from '../support/prisma-example.js';
import { isFirstKind, testServer } from '../support/servers.js';
import { openStore, type TestStore } from '../support/store.js';

/*
 * The examples of @rowmq/typeorm, one for each library: a service with a database of its own, on
 * the server of RowMQ's.
 */

let store: TestStore;
let queue: Queue;
let shop: Pool;

/** Whatever a queue of an example takes as its transaction. */
type Tx = object;

interface Orders {
  enqueue(
    tx: Tx,
    payload: { article: string },
    options?: { deduplicationId?: string; groupId?: string },
  ): Promise<string>;
  enqueueMany(tx: Tx, payloads: { article: string }[]): Promise<string[]>;
}

/** A library, opened on the service's database. */
interface Library {
  orders: Orders;
  placeOrder(article: string): Promise<string>;
  /** Commits if the work succeeds, at the library's default level. */
  transaction(work: (tx: Tx) => Promise<void>): Promise<void>;
  /** The object that a service may pass by mistake. */
  outside: Tx;
  /** Compiles an example that the type check of the repository leaves out. */
  expectToCompile?(): Promise<void>;
  close(): Promise<void>;
}

const source = '../../examples/transactions/src';
const NUMBERS = new Set(['TINY', 'SHORT', 'LONG', 'LONGLONG', 'NEWDECIMAL']);

const LIBRARIES: Record<string, (url: URL) => Promise<Library>> = {
  async TypeORM(url) {
    const { orders, placeOrder } = await import(`${source}/typeorm.ts`);
    const dataSource = await new DataSource({ type: 'mysql', url: url.href }).initialize();
    return {
      orders,
      placeOrder: async (article) => placeOrder(dataSource, article),
      transaction: async (work) => dataSource.transaction(work),
      outside: dataSource.manager,
      close: async () => dataSource.destroy(),
    };
  },
  async Prisma(url) {
    const folder = await preparePrismaExample();
    const { orders, placeOrder } = await import(`${folder}/orders.ts`);
    const { connect } = await import(`${folder}/connect.ts`);
    const prisma = connect(url);
    return {
      orders,
      placeOrder: async (article) => placeOrder(prisma, article),
      transaction: async (work) => prisma.$transaction(work),
      outside: prisma,
      expectToCompile: async () => expectPrismaExampleToCompile(folder),
      async close() {
        await prisma.$disconnect();
        await rm(folder, { recursive: true });
      },
    };
  },
  async Drizzle(url) {
    const { orders, placeOrder } = await import(`${source}/drizzle.ts`);
    const pool = createPool({ uri: url.href });
    const db = drizzle(pool);
    return {
      orders,
      placeOrder: async (article) => placeOrder(db, article),
      transaction: async (work) => db.transaction(work),
      outside: db,
      close: async () => pool.end(),
    };
  },
  async Knex(url) {
    const { orders, placeOrder } = await import(`${source}/knex.ts`);
    const knex = knexOf({ client: 'mysql2', connection: url.href });
    return {
      orders,
      placeOrder: async (article) => placeOrder(knex, article),
      transaction: async (work) => knex.transaction(work),
      outside: knex,
      close: async () => knex.destroy(),
    };
  },
  async mysql2(url) {
    const { orders, placeOrder } = await import(`${source}/mysql2.ts`);
    // Numbers as text.
    const typeCast: TypeCast = (field, next) => (NUMBERS.has(field.type) ? field.string() : next());
    const pool = createPool({ uri: url.href, typeCast });
    return {
      orders,
      placeOrder: async (article) => placeOrder(pool, article),
      transaction: async (work) => {
        const connection = await pool.getConnection();
        await connection.beginTransaction();
        try {
          await work(connection);
          await connection.commit();
        } catch (error) {
          await connection.rollback();
          throw error;
        } finally {
          connection.release();
        }
      },
      outside: pool,
      close: async () => pool.end(),
    };
  },
};

/** The adapters of the examples, for topics. TypeORM needs none. */
const ADAPTERS: Record<string, Adapter<never>> = {
  Prisma: (tx: { $queryRawUnsafe(sql: string): unknown; $executeRawUnsafe(sql: string): unknown }) => ({
    read: async (text) => tx.$queryRawUnsafe(text),
    write: async (text) => tx.$executeRawUnsafe(text),
  }),
  Drizzle: (tx: Parameters<Parameters<MySql2Database['transaction']>[0]>[0]) => ({
    read: async (text) => (await tx.execute(sql.raw(text)))[0],
    write: async (text) => tx.execute(sql.raw(text)),
  }),
  Knex: (trx: Knex.Transaction) => ({
    read: async (text) => ((await trx.raw(text)) as [object[]])[0],
    write: async (text) => trx.raw(text) as Promise<unknown>,
  }),
  mysql2: (connection: PoolConnection) => ({
    read: async (text) => (await connection.query(text))[0],
    write: async (text) => connection.query(text),
  }),
};

/** A topic to publish to in transactions of a library. */
function topicOf(library: string, name: string): TransactionalTopic<Tx> {
  const database = process.env['ROWMQ_DATABASE'];
  const adapter = ADAPTERS[library] as Adapter<Tx> | undefined;
  return adapter === undefined
    ? (new TypeormTopic(name, { database }) as never)
    : new TransactionalTopic(name, { adapter, database });
}

type Takes<Sample extends { enqueue: (tx: never, ...rest: never[]) => unknown }, Outside> = Outside extends Parameters<
  Sample['enqueue']
>[0]
  ? true
  : false;
/** The compiler refuses a pool or a client in place of a transaction. */
const TAKEN: [
  Takes<typeof import('../../examples/transactions/src/drizzle.js').orders, MySql2Database>,
  Takes<typeof import('../../examples/transactions/src/knex.js').orders, Knex>,
  Takes<typeof import('../../examples/transactions/src/mysql2.js').orders, Pool>,
] = [false, false, false];
void TAKEN;

beforeAll(async () => {
  store = await openStore();
  const url = new URL(store.url);
  vi.stubEnv('ROWMQ_DATABASE', url.pathname.slice(1));
  url.pathname += '_shop';
  await store.database.write(`CREATE DATABASE ${url.pathname.slice(1)}`);
  shop = createPool({ uri: url.href });
  await shop.query('CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, article VARCHAR(100) NOT NULL)');
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await shop.query('DROP DATABASE ' + new URL(store.url).pathname.slice(1) + '_shop');
  await shop.end();
  await store.close();
});
beforeEach(async () => {
  await shop.query('DELETE FROM orders');
  await store.queues.delete('orders').catch(() => undefined);
  ({ queue } = await store.queues.put('orders', { maxDepth: 100 }));
});

async function stored(): Promise<{ articles: string[]; bodies: (string | null)[] }> {
  const [rows] = await shop.query('SELECT article FROM orders ORDER BY id');
  const articles = (rows as { article: string }[]).map(({ article }) => article);
  return { articles, bodies: (await storedBodies(store, queue)).owed };
}

const bodyOf = (article: string): string => JSON.stringify({ article });

describe.each(Object.entries(LIBRARIES))('an enqueue in a transaction of %s', (name, open) => {
  let library: Library;
  beforeAll(async () => {
    library = await open(new URL(`${store.url}_shop`));
    return async () => library.close();
  }, 300_000);

  it('stores the message beside the service’s row', async () => {
    const id = await library.placeOrder('tea');
    expect(await stored()).toEqual({ articles: ['tea'], bodies: [bodyOf('tea')] });
    const [leased] = await store.messages.dequeue(queue, { maxMessages: 10, leaseSeconds: 60 });
    expect(id.replaceAll('-', '')).toBe(leased?.messageId.toString('hex'));
  });

  it('stores nothing if the transaction rolls back', async () => {
    const failing = library.transaction(async (tx) => {
      await library.orders.enqueue(tx, { article: 'jam' });
      throw new Error('the card was refused');
    });
    await expect(failing).rejects.toThrow('the card was refused');
    expect(await stored()).toEqual({ articles: [], bodies: [] });
  });

  it('stores all messages of four enqueues at once, and refuses those that do not fit', async () => {
    await library.transaction(async (tx) => {
      const articles = ['a?', 'b\\', "c'", 'd☕'];
      await Promise.all(articles.map(async (article) => library.orders.enqueue(tx, { article })));
    });
    const expected = [bodyOf('a?'), bodyOf('b\\'), bodyOf("c'"), bodyOf('d☕')];
    const { bodies } = await stored();
    expect(new Set(bodies)).toEqual(new Set(expected));
    expect(bodies).toHaveLength(4);
    const tooMany = library.transaction(async (tx) => {
      const payloads = Array.from({ length: 97 }, (__, index) => ({ article: String(index) }));
      await library.orders.enqueueMany(tx, payloads);
    });
    await expect(tooMany).rejects.toMatchObject({ code: 'queue-full' });
    expect((await stored()).bodies).toHaveLength(4);
  });

  it('is refused for a missing queue, and for a payload that does not fit', async () => {
    const refused = async (payload: { article: string }): Promise<void> =>
      library.transaction(async (tx) => void (await library.orders.enqueue(tx, payload)));
    await expect(refused({ article: 7 } as never)).rejects.toThrow("does not fit the schema of queue 'orders'");
    expect(await stored()).toEqual({ articles: [], bodies: [] });
    await store.queues.delete('orders');
    await expect(refused({ article: 'wax' })).rejects.toMatchObject({ code: 'queue-not-found' });
  });

  it('stores a message with a deduplicationId once', async () => {
    const once = { deduplicationId: 'order 17' };
    const ids: string[] = [];
    for (const article of ['tea', 'coffee'])
      await library.transaction(async (tx) => void ids.push(await library.orders.enqueue(tx, { article }, once)));
    expect(ids[1]).toBe(ids[0]);
    expect((await stored()).bodies).toEqual([bodyOf('tea')]);
  });

  it.runIf(['Prisma', 'Drizzle'].includes(name))('knows the lock wait timeout in a wrapped error', async () => {
    const jam = async (tx: Tx): Promise<void> => {
      await library.orders.enqueue(tx, { article: 'jam' }, { deduplicationId: 'order 18' });
    };
    await library.transaction(async (tx) => {
      await jam(tx);
      await expect(library.transaction(jam)).rejects.toMatchObject({ code: 'enqueue-in-progress' });
    });
    expect((await stored()).bodies).toEqual([bodyOf('jam')]);
  });

  it('stores messages of a group in order', async () => {
    await store.queues.delete('orders');
    ({ queue } = await store.queues.put('orders', { ordering: 'group' }));
    const articles = ['tea', 'jam', 'wax'];
    for (const article of articles)
      await library.transaction(async (tx) => void (await library.orders.enqueue(tx, { article }, { groupId: 'g' })));
    expect((await stored()).bodies).toEqual(articles.map(bodyOf));
  });

  it('publishes to the queues whose filters match, in order of groups and without doubles', async () => {
    await store.topics.put('events');
    const { queue: inOrder } = await store.queues.put('in-order', { ordering: 'group', maxDepth: 10 });
    await store.topics.putSubscription('events', 'orders', { kind: ['paid'] });
    await store.topics.putSubscription('events', 'in-order', null);
    const topic = topicOf(name, 'events');
    const message = { groupId: 'g', headers: { kind: 'paid' }, deduplicationId: 'order 19' };
    const answers: object[] = [];
    for (const article of ['tea', 'jam'])
      await library.transaction(async (tx) => void answers.push(await topic.publish(tx, { article }, message)));
    await library.transaction(async (tx) => {
      answers.push(...(await topic.publishMany(tx, [{ article: 'wax' }], { groupId: 'g', headers: { kind: 'sent' } })));
    });
    const rolledBack = library.transaction(async (tx) => {
      await topic.publish(tx, { article: 'oil' }, { groupId: 'g' });
      throw new Error('the card was refused');
    });
    await expect(rolledBack).rejects.toThrow('the card was refused');
    const id = expect.any(String) as string;
    expect(answers).toEqual([
      { id, subscriptions: 2 },
      { ...answers[0], duplicate: true },
      { id, subscriptions: 1 },
    ]);
    expect((await stored()).bodies).toEqual([bodyOf('tea')]);
    expect((await storedBodies(store, inOrder)).owed).toEqual([bodyOf('tea'), bodyOf('wax')]);
    const missing = library.transaction(async (tx) => void (await topicOf(name, 'missing').publish(tx, {})));
    await expect(missing).rejects.toMatchObject({ code: 'topic-not-found' });
    await store.topics.delete('events');
    await store.queues.delete('in-order');
  });

  it('publishes with a priority', async () => {
    await store.topics.put('news');
    await store.topics.putSubscription('news', queue.name, undefined);
    const topic = topicOf(name, 'news');
    for (const priority of [1, 9])
      await library.transaction(async (tx) => void (await topic.publish(tx, { priority }, { priority })));
    const [urgent] = await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 60 });
    expect(urgent).toMatchObject({ priority: 9, body: Buffer.from('{"priority":9}') });
    await store.topics.delete('news');
  });

  it.runIf(name === 'Prisma' && isFirstKind())(
    'compiles, unless the client takes the place of a transaction',
    async () => {
      await library.expectToCompile?.();
    },
  );

  // MySQL does not tell whether a transaction is open.
  it.runIf(testServer().kind === 'mariadb')('is refused on a connection without a transaction', async () => {
    await expect(library.orders.enqueue(library.outside, { article: 'wax' })).rejects.toThrow(
      /^(enqueue|RowMQ) needs .*open transaction/,
    );
    expect(await stored()).toEqual({ articles: [], bodies: [] });
  });
});
