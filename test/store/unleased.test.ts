import { beforeEach, describe, expect, test } from 'vitest';
import { packIdOf } from '@rowmq/contract';
import { FIRST_ID, LEASE_GRACE_MS, type Queue, SettledRepository } from '@rowmq/store';
import type { Duty } from '../../apps/reaper/src/duties/duty.js';
import { DeadLetterDeliveries } from '../../apps/reaper/src/duties/dead-letter-deliveries.js';
import { ExpireDeliveries } from '../../apps/reaper/src/duties/expire-deliveries.js';
import { RemoveDeletedQueues } from '../../apps/reaper/src/duties/remove-deleted-queues.js';
import { deliveryRows, owedIds } from '../support/deliveries.js';
import { runWhole } from '../support/duties.js';
import {
  enqueueStamped,
  hex,
  MINUTE,
  openSession,
  START,
  storeStamped,
  claimAll,
  deadLetterAll,
} from '../support/partitions.js';
import { createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

let store: TestStore;
let queue: Queue;

beforeEach(async () => {
  store = await openStore();
  queue = await createQueue(store, { messageTtlSeconds: 600 });
  return () => store.close();
});

/** Runs a duty of the reaper at an instant. */
async function run(duty: Duty, now: number): Promise<number> {
  store.at(now);
  return runWhole(duty);
}

const left = (of: Queue): Promise<string[]> => owedIds(store, of);

async function enqueue(
  count: number,
  overrides: Partial<Parameters<typeof message>[0]> = {},
  of = queue,
): Promise<Buffer[]> {
  const ids: Buffer[] = [];
  for (let done = 0; done < count; done += 1000) {
    const messages = numbered(Math.min(1000, count - done), overrides);
    ids.push(...(await store.at(START).messages.enqueue(of.name, messages)));
  }
  return ids;
}

/** Enqueues messages one by one, so that each has a pack and a delivery of its own. */
async function enqueueApart(count: number, overrides: Partial<Parameters<typeof message>[0]> = {}): Promise<Buffer[]> {
  const ids: Buffer[] = [];
  for (let done = 0; done < count; done += 1) ids.push(...(await enqueue(1, overrides)));
  return ids;
}

describe('expire', () => {
  let duty: ExpireDeliveries;
  beforeEach(() => {
    duty = new ExpireDeliveries(store.queues, store.unleased, store.messages.batches, store.minutes);
  });

  test('removes expired deliveries without a lease, to the millisecond, and nothing else', async () => {
    const leased = await enqueue(1, { expiresInSeconds: 10, priority: 9 });
    await store.at(START).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 60 });
    const nacked = await enqueue(1, { expiresInSeconds: 10, priority: 9 });
    const taken = await store.at(START).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 60 });
    await store.at(START).messages.nack(queue.id, taken, { delaySeconds: 3600 });
    await enqueue(3, { expiresInSeconds: 10 });
    await enqueue(3, { expiresInSeconds: 10, delaySeconds: 9 });
    const young = await enqueue(2, { expiresInSeconds: 11 });
    expect(await run(duty, START + 10_000 - 1)).toBe(0);
    expect(await left(queue)).toHaveLength(10);
    expect(await run(duty, START + 10_000)).toBe(7);
    expect(await left(queue)).toEqual(hex([...leased, ...young]));
    expect(await left(queue)).not.toContain(hex(nacked)[0]);
    const leaseEnd = START + 60_000 + LEASE_GRACE_MS;
    // The lease may run to its end. After that the duty need not wait for anybody.
    expect(await run(duty, leaseEnd - 1)).toBe(2);
    expect(await left(queue)).toEqual(hex(leased));
    expect(await run(duty, leaseEnd)).toBe(1);
    expect(await left(queue)).toEqual([]);
  });

  test('skips locked rows and removes them in the next run', async () => {
    const ids = await enqueueApart(20, { expiresInSeconds: 10 });
    const other = await openSession(store);
    await other.write('START TRANSACTION');
    await other.read('SELECT 1 FROM delivery FORCE INDEX (PRIMARY) WHERE queue_id = ? AND pack_id IN (?) FOR UPDATE', [
      queue.id,
      ids.slice(5, 10),
    ]);
    // A wait would end with an error, because the other transaction stays open.
    expect(await run(duty, START + MINUTE)).toBe(15);
    expect(await left(queue)).toEqual(hex(ids.slice(5, 10)));
    await other.end();
    expect(await run(duty, START + MINUTE)).toBe(5);
  });

  test('walks 50,000 deliveries in bounded steps, continues in the next run where it was stopped, and finds the last', async () => {
    const kept = await createQueue(store, { messageTtlSeconds: 3600 });
    const stored = await storeStamped(store, kept, { at: START, count: 49_900 });
    expect(stored).toHaveLength(49_900);
    await enqueue(100, { expiresInSeconds: 10 }, kept);
    const steps: { after: string; rows: number }[] = [];
    const stopping = new AbortController();
    const findExpired = store.unleased.findExpired.bind(store.unleased);
    store.unleased.findExpired = (queueId, after, rows) => {
      if (queueId === kept.id) steps.push({ after: after.toString('hex'), rows });
      if (steps.length === 4) stopping.abort();
      return findExpired(queueId, after, rows);
    };
    store.at(START + MINUTE);
    expect(await duty.run({ signal: stopping.signal })).toBe(0);
    expect(steps).toHaveLength(4);
    expect(await run(duty, START + MINUTE)).toBe(100);
    // Each step continues behind the one before: the second run did not start again.
    expect(steps[0]?.after).toBe(FIRST_ID.toString('hex'));
    for (const [index, step] of steps.slice(1).entries()) expect(step.after > steps[index]!.after).toBe(true);
    expect(Math.max(...steps.map(({ rows }) => rows))).toBeLessThanOrEqual(5000);
    expect(await deliveryRows(store, kept)).toHaveLength(49_900);
  });
});

describe('dead-letter', () => {
  test('moves over-received deliveries as new once their lease has run out, and leaves leased, expired and other deliveries', async () => {
    const graveyard = await createQueue(store, { messageTtlSeconds: 600 });
    const strict = await createQueue(store, {
      messageTtlSeconds: 600,
      maxReceives: 2,
      deadLetterQueue: graveyard.name,
    });
    const duty = new DeadLetterDeliveries(store.queues, store.unleased, store.messages.batches, store.minutes);
    const spent = await enqueue(5, { priority: 9 }, strict);
    await claimAll(store, strict, START);
    const once = await enqueue(3, {}, strict);
    const expiring = await enqueue(2, { expiresInSeconds: 100, priority: 9 }, strict);
    const now = START + 121_000 + LEASE_GRACE_MS;
    await claimAll(store, strict, START + 61_000);
    expect(await run(duty, START + 62_000)).toBe(0);
    expect(await run(duty, now - 1)).toBe(0);
    expect(await run(duty, now)).toBe(5);
    expect(await left(graveyard)).toEqual(hex(spent));
    expect(await left(strict)).toEqual(hex([...once, ...expiring]));
    const revived = await claimAll(store, graveyard, now);
    expect(revived.map(({ receiveCount }) => receiveCount)).toEqual([1, 1, 1, 1, 1]);
    expect(await run(duty, now)).toBe(0);
  });
});

describe('purge', () => {
  test('deletes the deliveries that exist when it begins, in any state and in bounded steps, and leaves later ones', async () => {
    await enqueueApart(6);
    await store.at(START).messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 60 });
    await enqueueApart(4, { delaySeconds: 60 });
    const upTo = await store.unleased.lastId(queue.id);
    const late = await enqueue(3);
    const first = await store.unleased.purge(queue.id, FIRST_ID, upTo!, 7);
    expect(first.purged).toBe(7);
    const second = await store.unleased.purge(queue.id, first.next!, upTo!, 7);
    expect(second).toMatchObject({ purged: 3, next: null });
    expect(await left(queue)).toEqual(hex(late));
    expect(await store.unleased.lastId((await createQueue(store)).id)).toBeNull();
  });

  test('counts messages, and never stops between the deliveries of one pack', async () => {
    const first = await enqueue(20);
    const [one] = await store.at(START).messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 60 });
    await store.at(START).messages.dequeue(queue, { maxMessages: 4, leaseSeconds: 90 });
    const second = await enqueue(7);
    expect(await store.at(START).messages.ack(queue.id, [one!])).toEqual([null]);
    const upTo = await store.unleased.lastId(queue.id);
    const step = await store.unleased.purge(queue.id, FIRST_ID, upTo!, 1);
    expect(step).toEqual({ purged: 19, left: 0, next: packIdOf(first[0]!) });
    expect(await left(queue)).toEqual(hex(second));
    expect(await store.unleased.purge(queue.id, step.next!, upTo!, 1)).toMatchObject({ purged: 7, left: 0 });
    expect(await left(queue)).toEqual([]);
  });

  test('reports the deleted rows when the database fails before the rest, and throws when it deleted none', async () => {
    await store.messages.enqueue(queue.name, [message(), message()]);
    const leased = await store.messages.dequeue(queue, { maxMessages: 2, leaseSeconds: 600 });
    const free = await store.messages.enqueue(queue.name, numbered(3));
    // Makes each deletion of a delivery without a lease fail, as if others had locked it for too
    // long.
    await store.database.write(
      `CREATE TRIGGER refuse BEFORE DELETE ON delivery FOR EACH ROW
       IF OLD.lease_token = x'0000000000000000' THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1205; END IF`,
    );
    const purge = (): Promise<{ purged: number; left: number }> =>
      store.unleased.purge(queue.id, FIRST_ID, Buffer.alloc(16, 255), 10);
    expect(leased).toHaveLength(2);
    expect(await purge()).toMatchObject({ purged: 2, left: 3 });
    expect(await left(queue)).toEqual(hex(free));
    await expect(purge()).rejects.toMatchObject({ code: 'database-unavailable' });
    await store.database.write('DROP TRIGGER refuse');
    expect(await purge()).toMatchObject({ purged: 3, left: 0 });
  });

  test("by the reaper removes a deleted queue's deliveries, then its row, and nothing of other queues", async () => {
    const doomed = await createQueue(store);
    await enqueue(2500, {}, doomed);
    const others = await enqueueStamped(store, queue, { at: START, count: 5 });
    await store.queues.delete(doomed.name);
    expect(await store.queues.deletedIds()).toEqual([doomed.id]);
    const duty = new RemoveDeletedQueues(store.queues, store.unleased);
    expect(await duty.run({ signal: AbortSignal.abort() })).toBe(0);
    expect(await runWhole(duty)).toBe(2500);
    expect(await store.queues.deletedIds()).toEqual([]);
    expect(await left(doomed)).toEqual([]);
    expect(await left(queue)).toEqual(hex(others));
  });

  test('by the reaper keeps a replay from bringing back the dead letters of a deleted queue', async () => {
    const doomed = await createQueue(store, { messageTtlSeconds: 600 });
    const origin = await createQueue(store, { maxReceives: 1, deadLetterQueue: doomed.name });
    const [acked] = await enqueue(3, {}, origin);
    const leased = await claimAll(store, origin, START);
    await store.messages.ack(
      origin.id,
      leased.filter(({ messageId }) => messageId.equals(acked!)),
    );
    expect(await deadLetterAll(store, origin, START + 2 * MINUTE)).toBe(2);
    await store.queues.put(origin.name, { maxReceives: null, deadLetterQueue: null });
    await store.queues.delete(doomed.name);
    expect(await runWhole(new RemoveDeletedQueues(store.queues, store.unleased))).toBe(2);
    const settled = new SettledRepository(store.database);
    const { packs } = await settled.find(origin.id, FIRST_ID, Buffer.alloc(16, 255), 100);
    expect(packs).toMatchObject([{ id: packIdOf(acked!), settled: 0b1, owed: 0 }]);
  });
});
