import { indexInPack, LIMITS, packIdOf } from '@rowmq/contract';
import type { LeasedMessage, Queue } from '@rowmq/store';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { has } from '../../libs/store/src/messages/members.js';
import { type DeliveryRow, deliveryRows } from '../support/deliveries.js';
import { openSession } from '../support/partitions.js';
import { testServer } from '../support/servers.js';
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
  'SELECT pack_id AS packId FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? AND pack_id IN (?) FOR UPDATE';

describe.each([
  [
    'nack',
    (queue: Queue, leases: LeasedMessage[], now: number) =>
      store.at(now).messages.nack(queue.id, leases, { delaySeconds: 0 }),
  ],
  ['ack', (queue: Queue, leases: LeasedMessage[], now: number) => store.at(now).messages.ack(queue.id, leases)],
] as const)('a %s that waits for a row', (_verb, settle) => {
  it('does not lock the rows of lapsed leases and locks the rows of running leases', async () => {
    const queue = await createQueue(store);
    const now = Date.now();
    // Each message is a pack, and so a row, of its own.
    for (const one of numbered(3)) await store.at(now).messages.enqueue(queue.name, [one]);
    const stale = await store.at(now).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 1 });
    const running = await store.at(now).messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 });
    const [first, second, third] = [...stale, ...running] as [LeasedMessage, LeasedMessage, LeasedMessage];
    const [holder, other] = [await openSession(store), await openSession(store)];
    try {
      await holder.write('START TRANSACTION');
      await holder.read(LOCK, [queue.id, [packIdOf(third.messageId)]]);
      const settling = settle(queue, [third, second, first], now + 10_000);
      // The expectations below report a failure.
      settling.catch(() => undefined);
      const ids = [first, second].map(({ messageId }) => packIdOf(messageId));
      await eventually('of the two before it, it holds the second only', async () => {
        const free = await other.read<{ packId: Buffer }>(`${LOCK} SKIP LOCKED`, [queue.id, ids]);
        return free.length === 1 && free[0]?.packId.equals(packIdOf(first.messageId));
      });
      await holder.write('ROLLBACK');
      expect(await settling).toEqual([null, null, 'lease-lost']);
    } finally {
      await holder.end();
      await other.end();
    }
  });

  it('does not lock the part of a pack whose lease has lapsed', async () => {
    const queue = await createQueue(store);
    const now = Date.now();
    await store.at(now).messages.enqueue(queue.name, numbered(3));
    const [first] = await store.at(now).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 1 });
    const [second, third] = await store.at(now).messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 });
    await store.at(now).messages.extend(queue.id, [third!], { leaseSeconds: 50 });
    const rows = await deliveryRows(store, queue);
    expect(rows).toHaveLength(3);
    const rowOf = (lease: LeasedMessage): unknown[] => {
      const row = rows.find(({ members }) => has(members, indexInPack(lease.messageId))) as DeliveryRow;
      return [queue.id, row.packId, row.leaseToken, row.part];
    };
    const lockRow =
      'SELECT 1 FROM delivery WHERE queue_id = ? AND pack_id = ? AND lease_token = ? AND part = ? FOR UPDATE';
    // The verb locks rows in the order of their keys, so it holds the first when it waits here.
    const [early, late] = [second!, third!].toSorted((one, other) => Number(rowOf(one)[3]) - Number(rowOf(other)[3]));
    const [holder, other] = [await openSession(store), await openSession(store)];
    try {
      await holder.write('START TRANSACTION');
      await holder.read(lockRow, rowOf(late!));
      const settling = settle(queue, [second!, third!, first!], now + 10_000);
      // The expectations below report a failure.
      settling.catch(() => undefined);
      const isFree = async (lease: LeasedMessage): Promise<boolean> =>
        (await other.read(`${lockRow} SKIP LOCKED`, rowOf(lease))).length > 0;
      await eventually('it holds the first of the running leases', async () => !(await isFree(early!)));
      expect(await isFree(first!)).toBe(true);
      await holder.write('ROLLBACK');
      expect(await settling).toEqual([null, null, 'lease-lost']);
    } finally {
      await holder.end();
      await other.end();
    }
  });
});

it('an ack of whole packs holds no index entry of a running lease while it waits for the row of an ended one', async () => {
  const queue = await createQueue(store);
  const now = Date.now();
  for (const one of numbered(2)) await store.at(now).messages.enqueue(queue.name, [one]);
  const [running] = await store.at(now).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 60 });
  const [ended] = await store.at(now).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 1 });
  const [claim, other] = [await openSession(store), await openSession(store)];
  // On MariaDB a claim that holds the ended one would wait for the entry of the other one, and the
  // ack for the claim. A shared lock on the index alone shows whether the ack holds the entry.
  const share = testServer().kind === 'mariadb' ? 'LOCK IN SHARE MODE' : 'FOR SHARE';
  const entries = `SELECT available_at FROM delivery FORCE INDEX (delivery_next)
     WHERE queue_id = ? AND priority_rank = ? AND available_at > ? ${share} SKIP LOCKED`;
  try {
    await claim.write('START TRANSACTION');
    await claim.read(LOCK, [queue.id, [packIdOf(ended!.messageId)]]);
    const acking = store.at(now + 10_000).messages.ack(queue.id, [running!, ended!]);
    // The expectations below report a failure.
    acking.catch(() => undefined);
    await eventually('it holds the row of the running lease', async () => {
      const free = await other.read<unknown>(`${LOCK} SKIP LOCKED`, [queue.id, [packIdOf(running!.messageId)]]);
      return free.length === 0;
    });
    const rank = LIMITS.priorityMax - running!.priority;
    expect(await other.read(entries, [queue.id, rank, now + 10_000])).toHaveLength(1);
    await claim.write('ROLLBACK');
    expect(await acking).toEqual([null, 'lease-lost']);
  } finally {
    await claim.end();
    await other.end();
  }
});
