import { randomBytes } from 'node:crypto';
import { DataSource } from 'typeorm';
import { DeduplicationRepository, type Queue } from '@rowmq/store';
import type { Connection } from 'mysql2/promise';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { enqueue as enqueueIn } from '../../libs/typeorm/src/index.js';
import { openPlanner, planOf } from '../support/plans.js';
import { recordStatements } from '../support/statements.js';
import { createQueue, message, openStore, type TestStore } from '../support/store.js';

/*
 * The plans of the statements on `deduplication`, as plans.test.ts has those of the others: for the
 * text that the store sends, on empty, small and large tables.
 */

const T0 = 1_800_000_000_000;

let store: TestStore;
let shop: DataSource;
let connection: Connection;
let queue: Queue;
let neighbour: Queue;
let statements: string[];

beforeAll(async () => {
  store = await openStore();
  shop = await new DataSource({ type: 'mysql', url: store.url }).initialize();
  connection = await openPlanner(store);
  queue = await createQueue(store);
  neighbour = await createQueue(store);
  statements = recordStatements(store.database);
});
afterAll(async () => {
  await connection.end();
  await shop.destroy();
  await store.close();
});

/** Fills the table with records that have expired, and with as many that are live. */
async function fill(rows: number): Promise<void> {
  await connection.query('DELETE FROM deduplication');
  for (let done = 0; done < rows; done += 1000) {
    const some = Array.from({ length: Math.min(1000, rows - done) }, (_, index) => [
      1 + (index % 2),
      queue.id,
      randomBytes(16),
      randomBytes(17),
      T0 + (index % 3 === 0 ? 1_000_000 : -1_000_000),
    ]);
    await connection.query('INSERT INTO deduplication (kind, scope_id, digest, answer, expires_at) VALUES ?', [some]);
  }
  await connection.query('ANALYZE TABLE deduplication');
}

/** The recorded statement that matches, without the SET around its query. */
function sent(pattern: RegExp): string {
  const statement = statements.map((sql) => sql.trim()).find((sql) => pattern.test(sql));
  if (statement === undefined) throw new Error(`no statement like ${pattern}`);
  return /^SET @live = EXP\(IF\(\(([^]*)\) = 0, 0, 99999\)\)$/.exec(statement)?.[1] ?? statement;
}

describe.each([0, 3, 200, 20_000])('with %i records', (rows) => {
  it('every statement finds its records by their keys, and the reaper finds expired ones by their time', async () => {
    await fill(rows);
    store.at(T0);
    const messages = ['a', 'b', 'c'].map((deduplicationId) => message({ deduplicationId }));
    const requests = [
      { queueName: queue.name, messages, idempotencyKey: 'key' },
      { queueName: neighbour.name, messages: messages.slice(0, 2), idempotencyKey: 'key' },
    ];
    statements.length = 0;
    await store.messages.batches.enqueue(requests);
    await store.messages.batches.enqueue(requests);
    const removing = new DeduplicationRepository(store.database);
    store.at(T0 + 400_000);
    await removing.removeExpired(100);
    const inTransaction: string[] = [];
    await shop.transaction(async (manager) => {
      const query = manager.query.bind(manager);
      manager.query = (async (sql: string, values?: unknown[]) => {
        inTransaction.push(sql);
        return query(sql, values);
      }) as typeof manager.query;
      await enqueueIn(
        manager,
        queue.name,
        messages.map(({ deduplicationId }) => ({ body: '', deduplicationId })),
        { idempotencyKey: 'in-a-transaction' },
      );
    });
    await connection.query(`SET @now = ${T0}`);
    const plans = {
      'enqueue: refuse live records': await planOf(connection, sent(/^SET @live/)),
      'enqueue: read records': await planOf(connection, sent(/^SELECT kind[^]*expires_at > /)),
      'transactional enqueue: lock own records': await planOf(
        connection,
        inTransaction.find((sql) => /^SELECT kind[^]*FOR UPDATE$/.test(sql)) ?? '',
      ),
      'reaper: find expired': await planOf(connection, sent(/^SELECT kind[^]*ORDER BY expires_at/)),
      'reaper: delete': await planOf(connection, sent(/^DELETE d FROM deduplication/)),
    };
    expect(plans).toEqual({
      'enqueue: refuse live records': 'range on PRIMARY (21)',
      'enqueue: read records': 'range on PRIMARY (21)',
      'transactional enqueue: lock own records': 'range on PRIMARY (21)',
      'reaper: find expired': 'range on deduplication_by_expiry (8)',
      'reaper: delete': 'range on PRIMARY (21)',
    });
  });
});
