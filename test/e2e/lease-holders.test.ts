import type { BrowseAnswer } from '@rowmq/contract';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Api, expectProblem, type QueueApi, useOwnBroker } from '../support/api.js';
import { type Broker, startBroker } from '../support/processes.js';
import { eventually } from '../support/wait.js';

const shared = useOwnBroker();
/** A second broker on the same database. */
let other: Broker;

beforeAll(async () => {
  other = await startBroker({ database: shared.broker.database });
});
afterAll(async () => {
  await other?.stop();
});

const AS = (userAgent: string): Api => new Api(shared.broker.url, { 'user-agent': userAgent });
const holders = async (queue: QueueApi): Promise<unknown[]> =>
  (await queue.browse('leased')).map(({ id, consumer }) => [id, consumer]);

describe('browse', () => {
  test('shows who holds each message, by the name in the dequeue or else by the User-Agent', async () => {
    const queue = await shared.newQueue();
    const ids = await queue.enqueue('1', '2', '3');
    for (const consumer of ['orders-worker-1', 'arbeiter-ö 😀'])
      await AS('a library').queue(queue.name).dequeueOne({ consumer });
    await AS('worker/3 (host-3)').queue(queue.name).dequeueOne();
    expect(await holders(queue)).toEqual([
      [ids[0], 'orders-worker-1'],
      [ids[1], 'arbeiter-ö 😀'],
      [ids[2], 'worker/3 (host-3)'],
    ]);
    expect((await shared.api.message(ids[0]!)).deliveries).toMatchObject([{ consumer: 'orders-worker-1' }]);
  });

  test('tells consumers apart that were served together', async () => {
    const queue = await shared.newQueue();
    const waiting = Array.from({ length: 5 }, async (_, index) =>
      queue.dequeueOne({ waitSeconds: 10, consumer: `worker-${index}` }),
    );
    await eventually('they wait', async () => (await shared.api.metric('rowmq_waiting_consumers')) === 5);
    await queue.enqueue('1', '2', '3', '4', '5');
    const taken = (await Promise.all(waiting)).map(({ id }, index) => [id, `worker-${index}`]);
    const sorted = (all: unknown[]): unknown[] => all.toSorted((a, b) => String(a).localeCompare(String(b)));
    expect(sorted(await holders(queue))).toEqual(sorted(taken));
  });

  test('shows who extended a lease last, and still since when it is held', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('b');
    const { receipt } = await queue.dequeueOne({ consumer: 'first' });
    const [before] = (await queue.browse('leased')) as [BrowseAnswer['messages'][number]];
    expect(Math.abs(Date.now() - Date.parse(before.leasedAt as string))).toBeLessThan(10_000);
    const renewed = await queue.request('extend', { receipts: [receipt], leaseSeconds: 900, consumer: 'second' });
    expect(renewed.status).toBe(200);
    expect(await queue.browse('leased')).toMatchObject([{ leasedAt: before.leasedAt, consumer: 'second' }]);
  });

  test('shows since when at every broker, and who at the broker that leased it', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('b');
    await queue.dequeueOne({ consumer: 'worker-1' });
    const [here] = await queue.browse('leased');
    const [there] = await new Api(other.url).queue(queue.name).browse('leased');
    expect(there).toEqual({ ...here, consumer: null });
  });

  test('shows neither for a message that nobody holds', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('b', { body: 'later', delaySeconds: 600 });
    const { receipt } = await queue.dequeueOne({ consumer: 'worker-1' });
    await queue.nack([receipt]);
    for (const state of ['ready', 'delayed'] as const) {
      const [message] = await queue.browse(state);
      expect(Object.keys(message!)).not.toEqual(expect.arrayContaining(['leasedAt']));
      expect(Object.keys(message!)).not.toEqual(expect.arrayContaining(['consumer']));
    }
  });
});

test.each(['', 'x'.repeat(129), '\uD83D', 5, null])('a consumer may not be called %j', async (consumer) => {
  const queue = await shared.newQueue();
  for (const answer of [
    await queue.request('dequeue', { consumer }),
    await queue.request('extend', { receipts: ['r'], leaseSeconds: 1, consumer }),
  ])
    expect(expectProblem(answer, 400, 'invalid-request').faults).toMatchObject([{ path: 'consumer' }]);
});

test('/metrics tells for how long the oldest lease of a queue has been held, extensions included', async () => {
  const queue = await shared.newQueue();
  const age = async (api = shared.api): Promise<number> =>
    api.metric(`rowmq_queue_oldest_lease_age_seconds{queue="${queue.name}"}`);
  await queue.enqueue('1', '2');
  const { receipt } = await queue.dequeueOne();
  await eventually('it is held for two seconds', async () => {
    await queue.extend([receipt], 60);
    return (await age()) >= 2;
  });
  await queue.dequeueOne();
  expect(await eventually('the oldest counts, at every broker', async () => age(new Api(other.url)))).toBeGreaterThan(
    1,
  );
  await queue.ack(receipt);
  await queue.job('purge');
  await eventually('nothing is held', async () => (await age()) === 0);
});
