import type { LeasedMessage } from '@rowmq/contract';
import { describe, expect, test, vi } from 'vitest';
import { type QueueApi, useBroker } from '../support/api.js';
import { eventually } from '../support/wait.js';

vi.setConfig({ maxConcurrency: 40 });

/** No reaper runs, so only the broker acts on an expired message. */
const shared = useBroker();

const bodies = (messages: { body: string }[]): string[] => messages.map(({ body }) => body);

/** Waits until the instant has passed on the database's clock too, which is this machine's. */
async function passed(instant: string): Promise<void> {
  await eventually(`${instant} has passed`, () => Date.now() > Date.parse(instant));
}

/**
 * Enqueues a message and leases it before it expires. A busy machine needs more than a second for
 * that, and gets a message with a longer life.
 */
async function leaseShortLived(
  queue: QueueApi,
  body: string,
  leaseSeconds: (lifeSeconds: number) => number = () => 60,
): Promise<LeasedMessage & { lifeSeconds: number }> {
  for (let lifeSeconds = 1; lifeSeconds <= 16; lifeSeconds *= 2) {
    await queue.enqueue({ body, expiresInSeconds: lifeSeconds });
    const [message] = await queue.dequeue({ leaseSeconds: leaseSeconds(lifeSeconds), waitSeconds: lifeSeconds });
    if (message !== undefined) return { ...message, lifeSeconds };
  }
  throw new Error('The message expired before it was leased.');
}

/** Expects that the message's only delivery has expired, though its row may still exist. */
async function expectNeverHandedOut(queue: QueueApi): Promise<void> {
  expect(await queue.dequeue({ maxMessages: 100 })).toEqual([]);
  expect(await queue.dequeue({ maxMessages: 100, waitSeconds: 1 })).toEqual([]);
  for (const state of ['ready', 'delayed'] as const) expect(await queue.browse(state)).toEqual([]);
}

describe.concurrent('an expired message is never handed out', () => {
  test('when it expires while it waits', async () => {
    const queue = await shared.newQueue();
    const [id] = await queue.enqueue({ body: 'short', expiresInSeconds: 1 }, 'long');
    const { expiresAt } = await shared.api.message(id!);
    await passed(expiresAt);
    expect(bodies(await queue.dequeue({ maxMessages: 10, waitSeconds: 1 }))).toEqual(['long']);
    await expectNeverHandedOut(queue);
    expect(await shared.api.message(id!)).toMatchObject({ settled: true });
  });

  test('not even an instant too late, while consumers lease and nack without pause', async () => {
    const queue = await shared.newQueue();
    const leaseStarts: number[] = [];
    // On a busy machine a short life ends before the message has been leased often enough.
    for (let seconds = 2; leaseStarts.length <= 5; seconds *= 2) {
      expect(seconds, `${leaseStarts.length} leases`).toBeLessThanOrEqual(16);
      const [id] = await queue.enqueue({ body: 'hot', expiresInSeconds: seconds });
      const expiresAt = Date.parse((await shared.api.message(id!)).expiresAt);
      leaseStarts.length = 0;
      while (Date.now() < expiresAt + 200) {
        for (const { receipt, leaseExpiresAt } of await queue.dequeue({ leaseSeconds: 60 })) {
          leaseStarts.push(Date.parse(leaseExpiresAt) - 60_000);
          await queue.nack([receipt]);
        }
      }
      expect(Math.max(...leaseStarts)).toBeLessThan(expiresAt);
    }
  });

  test('when it expires under a lease that then runs out', async () => {
    const queue = await shared.newQueue();
    const { id, leaseExpiresAt } = await leaseShortLived(queue, 'leased', (lifeSeconds) => lifeSeconds + 1);
    await passed(leaseExpiresAt);
    await expectNeverHandedOut(queue);
    expect(await shared.api.message(id)).toMatchObject({ settled: true });
  });

  test('when it expires under a lease and is nacked', async () => {
    const queue = await shared.newQueue();
    const { receipt, expiresAt } = await leaseShortLived(queue, 'given back');
    await passed(expiresAt);
    expect(await queue.nack([receipt])).toEqual({ nacked: [receipt], failed: [] });
    await expectNeverHandedOut(queue);
  });

  test('when it is nacked with a delay that outlives it', async () => {
    const queue = await shared.newQueue();
    const { receipt, expiresAt, lifeSeconds } = await leaseShortLived(queue, 'too late');
    const delaySeconds = lifeSeconds + 1;
    const nackedAt = Date.now();
    await queue.nack([receipt], { delaySeconds });
    await passed(expiresAt);
    await eventually('its delay is over', () => Date.now() > nackedAt + 1000 * delaySeconds);
    expect(await queue.dequeue({ maxMessages: 10, waitSeconds: 1 })).toEqual([]);
    await expectNeverHandedOut(queue);
  });

  test('when it was delayed and became due just before', async () => {
    const queue = await shared.newQueue();
    const [id] = await queue.enqueue({ body: 'delayed', delaySeconds: 1, expiresInSeconds: 2 });
    const { expiresAt } = await shared.api.message(id!);
    await passed(expiresAt);
    await expectNeverHandedOut(queue);
  });

  test('when many expired messages lie before, between and behind live ones', async () => {
    const queue = await shared.newQueue();
    const batches = Array.from({ length: 15 }, (_, batch) =>
      Array.from({ length: 100 }, (_unused, index) => ({
        body: index === 50 ? `lives ${batch}` : 'dies',
        ...(index === 50 ? {} : { expiresInSeconds: 1 }),
        priority: batch % 10,
      })),
    );
    const ids: string[] = [];
    for (const batch of batches) ids.push(...(await queue.enqueue(...batch)));
    await passed((await shared.api.message(ids.at(-1)!)).expiresAt);

    const taken: string[] = [];
    const received = await eventually('all that live are handed out', async () => {
      taken.push(...bodies(await queue.dequeue({ maxMessages: 100 })));
      return taken.length >= 15 && taken;
    });
    expect(received.toSorted()).toEqual(Array.from({ length: 15 }, (_, batch) => `lives ${batch}`).toSorted());
    await expectNeverHandedOut(queue);
  });

  test('not even to a consumer that waits for it', async () => {
    const queue = await shared.newQueue();
    const { id, receipt, lifeSeconds } = await leaseShortLived(queue, 'never');
    await queue.extend([receipt], lifeSeconds + 1);
    const waiting = Promise.all(
      Array.from({ length: 5 }, async () => queue.dequeue({ waitSeconds: Math.min(lifeSeconds + 3, 20) })),
    );
    expect(await waiting).toEqual([[], [], [], [], []]);
    expect(await shared.api.message(id)).toMatchObject({ settled: true });
  });
});

describe.concurrent('a message that expires under its lease', () => {
  test('can still be acked by its holder', async () => {
    const queue = await shared.newQueue();
    const { receipt, expiresAt } = await leaseShortLived(queue, 'in time');
    await passed(expiresAt);
    expect(await queue.browse('leased')).toHaveLength(1);
    expect(await queue.ack(receipt)).toEqual({ acked: [receipt], failed: [] });
  });

  test('can still be extended by its holder', async () => {
    const queue = await shared.newQueue();
    const { receipt, expiresAt } = await leaseShortLived(queue, 'slow');
    await passed(expiresAt);
    expect((await queue.extend([receipt], 60)).failed).toEqual([]);
    expect((await queue.ack(receipt)).acked).toEqual([receipt]);
  });
});

describe.concurrent('the lifetime of a message', () => {
  const life = ({ enqueuedAt, expiresAt }: { enqueuedAt: string; expiresAt: string }): number =>
    Math.round((Date.parse(expiresAt) - Date.parse(enqueuedAt)) / 1000);

  test("is the queue's TTL unless the message names a shorter one", async () => {
    const queue = await shared.newQueue({ messageTtlSeconds: 100 });
    await queue.enqueue('none named', { body: 'more', expiresInSeconds: 5000 }, { body: 'less', expiresInSeconds: 50 });
    const messages = await queue.dequeue({ maxMessages: 3 });
    expect(messages.map((message) => [message.body, life(message)])).toEqual([
      ['none named', 100],
      ['more', 100],
      ['less', 50],
    ]);
  });

  test('is set at its enqueue, so a later change of the TTL affects later messages only', async () => {
    const queue = await shared.newQueue({ messageTtlSeconds: 1000 });
    await queue.enqueue('before');
    await queue.put({ messageTtlSeconds: 10 });
    await queue.enqueue('after');
    const messages = await queue.dequeue({ maxMessages: 2 });
    expect(messages.map(life)).toEqual([1000, 10]);
  });

  test('is not extended by a lease and a nack', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue({ body: 'b', expiresInSeconds: 500 });
    const first = await queue.dequeueOne();
    await queue.nack([first.receipt]);
    expect((await queue.dequeueOne()).expiresAt).toBe(first.expiresAt);
  });
});
