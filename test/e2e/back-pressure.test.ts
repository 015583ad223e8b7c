import { type Connection, createConnection } from 'mysql2/promise';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { expectProblem, type QueueApi, useOwnBroker } from '../support/api.js';
import { openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

const shared = useOwnBroker({
  ROWMQ_SLOW_YIELD_MS: '100',
  ROWMQ_SLOW_SHED_ENQUEUES_MS: '500',
  ROWMQ_SLOW_SHED_DEQUEUES_MS: '2000',
});

let store: TestStore;
let locker: Connection;

beforeAll(async () => {
  store = await openStore({ on: shared.broker.database.url });
  locker = await createConnection({ uri: shared.broker.database.url });
});
afterAll(async () => {
  await locker.end();
  await store.close();
});

const level = async (): Promise<number> => shared.api.metric('rowmq_database_pressure');

test('while the database hangs, the reaper yields, then enqueues are refused, then dequeues, and acks never', async () => {
  const queue = await shared.newQueue({ leaseSeconds: 600 });
  await queue.enqueue(...Array.from({ length: 20 }, (_, index) => String(index)));
  const leased: { receipt: string }[] = [];
  while (leased.length < 10) leased.push(...(await queue.dequeue({ maxMessages: 10 - leased.length })));
  expect(await level()).toBe(0);

  // Whatever writes a delivery waits for this lock.
  await locker.query('LOCK TABLES delivery WRITE');
  const pending: Promise<{ status: number }>[] = [];
  const ask = (verb: Parameters<QueueApi['request']>[0], body: object) => {
    const answer = queue.request(verb, body);
    pending.push(answer);
    return answer;
  };
  const enqueue = { messages: [{ body: 'b' }] };
  const acks = leased.slice(0, 9).map(async ({ receipt }) => ask('ack', { receipts: [receipt] }));
  pending.push(...acks);
  await eventually('the reaper yields', async () => {
    void ask('enqueue', enqueue);
    return (await level()) >= 1;
  });
  await eventually('enqueues are refused', async () => (await level()) >= 2);
  const refused = await queue.request('enqueue', enqueue);
  expect(expectProblem(refused, 503, 'overloaded').detail).toContain('takes no enqueues');
  expect(refused.headers.get('retry-after')).toBe('1');
  await eventually('dequeues are refused, too', async () => (await level()) === 3);
  expect(expectProblem(await queue.request('dequeue'), 503, 'overloaded').detail).toContain('takes no dequeues');
  await eventually('the reaper hears of it', async () => (await store.reaper.pressure()) > 0);
  const last = ask('ack', { receipts: [leased[9]!.receipt] });
  await locker.query('UNLOCK TABLES');

  expect((await last).status).toBe(200);
  for (const answer of await Promise.all(acks)) expect(answer.status).toBe(200);
  const stored = (await Promise.all(pending)).filter(({ status }) => status === 201).length;
  await eventually(
    'everything is accepted again',
    async () => (await queue.request('enqueue', enqueue)).status === 201,
  );
  // The queue has all messages that were accepted, and no other.
  await eventually('all are counted', async () => (await queue.get()).stats.ready === 10 + stored + 1);
});
