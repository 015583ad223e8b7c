import { afterEach, beforeEach, expect, test } from 'vitest';
import type { JobAnswer } from '@rowmq/contract';
import { Api, type QueueApi } from '../support/api.js';
import { type Broker, createMigratedDatabase, startBroker } from '../support/processes.js';
import type { TestDatabase } from '../support/servers.js';
import { eventually } from '../support/wait.js';

const MESSAGES = 2000;

let database: TestDatabase;
let brokers: Broker[];

beforeEach(async () => {
  database = await createMigratedDatabase();
  brokers = await Promise.all([startBroker({ database }), startBroker({ database })]);
});

afterEach(async () => {
  for (const broker of brokers) await broker.kill();
  await database.drop();
});

/** The bodies of all messages in a queue, each once for each delivery. */
async function drain(queue: QueueApi): Promise<string[]> {
  const bodies: string[] = [];
  for (;;) {
    const messages = await queue.dequeue({ maxMessages: 100, waitSeconds: 1 });
    if (messages.length === 0) return bodies;
    bodies.push(...messages.map(({ body }) => body));
    await queue.ack(...messages.map(({ receipt }) => receipt));
  }
}

test('a redrive goes on at another broker after its worker was killed: each message moves once and counts once, beside consumers of the dead-letter queue', async () => {
  const [first, second] = brokers as [Broker, Broker];
  const dead = new Api(second.url).queue('dead');
  await dead.put();
  const queue = new Api(second.url).queue('orders');
  await queue.put({ deadLetterQueue: 'dead' });
  for (let sent = 0; sent < MESSAGES; sent += 100)
    await queue.enqueue(...Array.from({ length: 100 }, (_, index) => String(sent + index)));
  for (let left = MESSAGES; left > 0;) {
    const messages = await queue.dequeue({ maxMessages: 100, waitSeconds: 5 });
    left -= messages.length;
    const receipts = messages.map(({ receipt }) => receipt);
    expect((await queue.request('nack', { receipts, deadLetter: true })).status).toBe(200);
  }

  const job = await new Api(first.url).queue('dead').begin('redrive', { messagesPerSecond: 200 });
  /** Handled as dead letters, while the job runs. */
  const acked: string[] = [];
  let isOver = false;
  const consumers = Array.from({ length: 2 }, async () => {
    while (!isOver) {
      const messages = await dead.dequeue({ maxMessages: 5 });
      const [kept, ...given] = messages;
      if (kept === undefined) continue;
      acked.push(kept.body);
      await dead.ack(kept.receipt);
      if (given.length > 0) await dead.release(given.map(({ receipt }) => receipt));
    }
  });
  const api = new Api(second.url);
  const isUnderWay = ({ done, state }: JobAnswer): boolean => state === 'running' && done >= 200;
  await eventually('the job is under way', async () => isUnderWay(await api.job(job.id, 0)));
  const { worker } = await api.job(job.id, 0);
  expect(worker).toContain(`:${first.pid}:`);
  await first.kill();
  const ended = await eventually(
    'the other broker ends it',
    async () => {
      const now = await api.job(job.id, 1);
      return now.state !== 'running' && now;
    },
    60_000,
  );
  isOver = true;
  await Promise.all(consumers);
  expect(ended).toMatchObject({ state: 'done', skipped: 0, error: null });

  // Messages that a consumer held when the job came by stay where they are.
  const redriven = await drain(queue);
  const left = await drain(dead);
  expect(redriven).toHaveLength(ended.done);
  expect([...redriven, ...acked, ...left].toSorted((one, other) => Number(one) - Number(other))).toEqual(
    Array.from({ length: MESSAGES }, (_, index) => String(index)),
  );
}, 120_000);
