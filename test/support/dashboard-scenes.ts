import { newPackId } from '@rowmq/contract';
import { createConnection } from 'mysql2/promise';
import { expect } from 'vitest';
import type { Api } from './api.js';
import { insertQueues } from './many-queues.js';
import { storeLonely } from './packs.js';
import type { Broker } from './processes.js';

/** As long as a name may be, without a place to break it. */
export const LONG_NAME = 'deliveries_of_a_tenant_with_a_name_that_was_made_by_a_program'.padEnd(80, 'x');
const BACKLOG = 12_000;
/** As long as a reason may be. */
const REASON = 'The payment gateway is down: connect ECONNREFUSED 10.4.12.7:443, try-again'.padEnd(200, '-later');

/**
 * Queues as a busy operator has them: a thousand with long names, and one with a deep backlog, dead
 * letters, a message that is leased, and a consumer that fails.
 */
export async function fillWithTrouble(
  { database }: Broker,
  api: Api,
): Promise<{ queue: string; dead: string; id: string }> {
  const [queue, dead] = [LONG_NAME, `${LONG_NAME.slice(0, 75)}-dead`];
  await api.queue(dead).put();
  await api.queue(queue).put({ deadLetterQueue: dead, maxReceives: 2, leaseSeconds: 600, maxDepth: 15_000 });
  await fillQueues(database.url, queue);
  await api.put(`/v1/admin/topics/${dead}`, {});
  await api.put(`/v1/admin/topics/${dead}/subscriptions/${queue}`, { filter: { event: ['paid', 'refunded'] } });
  await api.put(`/v1/admin/schedules/${dead}`, { cron: '30 3 * * *', queue, message: { body: 'x' } });
  const messages = Array.from({ length: 12 }, (_, index) => ({
    body: JSON.stringify({
      order: index,
      customer: 'Ada',
      items: Array.from({ length: 30 }, (__, item) => ({ item })),
    }),
    headers: { 'x-request-id': 'a'.repeat(200), 'content-type': 'application/json' },
    priority: 9,
  }));
  await api.queue(queue).enqueue(...messages);
  const leased = await api.queue(queue).dequeue({ maxMessages: 12, waitSeconds: 5, consumer: 'worker-7 on a host' });
  const receipts = leased.map(({ receipt }) => receipt);
  const rejected = { receipts: receipts.slice(0, 11), deadLetter: true, reason: REASON };
  expect((await api.queue(queue).request('nack', rejected)).status).toBe(200);
  const [one] = await api.queue(dead).browse('ready');
  return { queue, dead, id: one?.id ?? '' };
}

async function fillQueues(databaseUrl: string, queue: string): Promise<void> {
  const connection = await createConnection({ uri: databaseUrl });
  try {
    const now = Date.now();
    await insertQueues(
      connection,
      Array.from({ length: 1000 }, (_, index) => `${String(index).padStart(4, '0')}_${LONG_NAME}`.slice(0, 80)),
    );
    const [[row]] = (await connection.query('SELECT id FROM queue WHERE name = ?', [queue])) as unknown as [
      [{ id: number }],
    ];
    for (let done = 0; done < BACKLOG; done += 2000) {
      const some = Array.from({ length: 2000 }, (_, index) => ({
        packId: newPackId(now),
        queueId: row.id,
        body: `message ${done + index}, ${'with-a-word-that-does-not-break'.repeat(8)}`,
        availableAt: now - 900_000,
        expiresAt: now + 86_400_000,
      }));
      for (const { sql, values } of storeLonely(some)) await connection.query(sql, values);
    }
  } finally {
    await connection.end();
  }
}

/** Every page of the dashboard, and a text by which it has loaded. */
export function pagesOf({ queue, dead, id }: { queue: string; dead: string; id: string }): Record<string, string> {
  return {
    '/queues': 'Needs attention',
    [`/queues/${queue}`]: 'message 0, with',
    [`/queues/${dead}`]: 'a consumer rejected it',
    [`/queues/${queue}/consumers`]: 'worker-7',
    [`/queues/${queue}/jobs`]: 'No jobs',
    [`/queues/${queue}/settings`]: 'Meaning',
    [`/messages/${id}`]: 'Enqueued to',
    '/messages': 'Id of the message',
    '/topics': 'refunded',
    '/schedules': 'Run now',
    '/jobs': 'No job',
    '/reaper': 'No reaper runs',
    '/database': 'Partitions',
    '/audit': 'putQueue',
    '/keys': 'API keys',
  };
}
