import type { LeasedDelivery, Queue } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openSession } from '../support/partitions.js';
import { createQueue, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * Receipts whose lease has run out, beside one that has to be waited for: a claim may want their
 * rows meanwhile, and must find them free.
 */

let store: TestStore;

beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());

const LOCK =
  'SELECT message_id AS messageId FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? AND message_id IN (?) FOR UPDATE';

describe.each([
  [
    'nack',
    (queue: Queue, leases: LeasedDelivery[], now: number) =>
      store.at(now).messages.nack(queue.id, leases, { delaySeconds: 0 }),
  ],
  ['ack', (queue: Queue, leases: LeasedDelivery[], now: number) => store.at(now).messages.ack(queue.id, leases)],
] as const)('a %s that waits for a row', (_verb, settle) => {
  it('does not hold the rows of leases that have run out, and holds those of leases that run', async () => {
    const queue = await createQueue(store);
    const now = Date.now();
    await store.at(now).messages.enqueue(queue.name, numbered(3));
    const stale = await store.at(now).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 1 });
    const running = await store.at(now).messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 });
    const [first, second, third] = [...stale, ...running] as [LeasedDelivery, LeasedDelivery, LeasedDelivery];
    const [holder, other] = [await openSession(store), await openSession(store)];
    try {
      await holder.write('START TRANSACTION');
      await holder.read(LOCK, [queue.id, [third.messageId]]);
      const settling = settle(queue, [third, second, first], now + 10_000);
      // Whoever fails to get here is told so by what is expected below.
      settling.catch(() => undefined);
      const ids = [first.messageId, second.messageId];
      await eventually('of the two before it, it holds the second only', async () => {
        const free = await other.read<{ messageId: Buffer }>(`${LOCK} SKIP LOCKED`, [queue.id, ids]);
        return free.length === 1 && free[0]?.messageId.equals(first.messageId);
      });
      await holder.write('ROLLBACK');
      expect(await settling).toEqual([null, null, 'lease-lost']);
    } finally {
      await holder.end();
      await other.end();
    }
  });
});
