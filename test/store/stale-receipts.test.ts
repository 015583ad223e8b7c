import type { LeasedDelivery, Queue } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openSession } from '../support/partitions.js';
import { createQueue, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * A request has receipts of lapsed leases, and one whose row it must wait for. A claim may want the
 * rows of the lapsed leases meanwhile, and must find them unlocked.
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
  it('does not lock the rows of lapsed leases and locks the rows of running leases', async () => {
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
      // The expectations below report a failure.
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
