import { RowmqError } from '@rowmq/contract';
import { MessageRepository, type Queue } from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { deliveryRows, owedIds } from '../support/deliveries.js';
import { losingAnswers } from '../support/lost-answer.js';
import { hex, openSession } from '../support/partitions.js';
import { createQueue, message, numbered, openStore, SingleMessages, type TestStore } from '../support/store.js';

let store: TestStore;
let queue: Queue;

beforeAll(async () => {
  store = await openStore();
});
afterAll(() => store.close());
beforeEach(async () => {
  queue = await createQueue(store);
});

/** Null if the message was cancelled, otherwise the refusal's code. */
async function cancel(id: Buffer, messages = new MessageRepository(store.database)): Promise<string | null> {
  return messages.cancel(id, [queue.id]).then(
    () => null,
    (error: unknown) => {
      if (error instanceof RowmqError) return error.code;
      throw error;
    },
  );
}

async function claim(maxMessages: number): Promise<Buffer[]> {
  const messages = new SingleMessages(new MessageRepository(store.database));
  return (await messages.dequeue(queue, { maxMessages, leaseSeconds: 60 })).map(({ messageId }) => messageId);
}

describe('a cancel', () => {
  test('settles a ready or delayed message, leaves the others of its pack, and happens once', async () => {
    const ids = await store.messages.enqueue(queue.name, [...numbered(3), message({ delaySeconds: 60 })]);
    expect(await cancel(ids[1]!)).toBeNull();
    expect(await cancel(ids[3]!)).toBeNull();
    expect(await owedIds(store, queue)).toEqual(hex([ids[0]!, ids[2]!]));
    expect(await cancel(ids[1]!)).toBe('delivery-not-found');
    expect(hex(await claim(10))).toEqual(hex([ids[0]!, ids[2]!]));
  });

  test('refuses a message that is leased, also in its grace period, but not after it', async () => {
    const T0 = 1_800_000_000_000;
    const [id] = await store.at(T0).messages.enqueue(queue.name, numbered(1));
    await store.messages.dequeue(queue, { maxMessages: 1, leaseSeconds: 10 });
    expect(await cancel(id!)).toBe('message-leased');
    store.at(T0 + 10_249);
    expect(await cancel(id!)).toBe('message-leased');
    store.at(T0 + 10_250);
    expect(await cancel(id!)).toBeNull();
    store.at(undefined);
  });

  test('waits out a claim that has locked the message, and then refuses', async () => {
    const [id] = await store.messages.enqueue(queue.name, numbered(1));
    const [row] = await deliveryRows(store, queue);
    const claiming = await openSession(store);
    await claiming.write('START TRANSACTION');
    await claiming.read('SELECT 1 FROM delivery FORCE INDEX (delivery_next) WHERE queue_id = ? FOR UPDATE', [queue.id]);
    const outcome = cancel(id!);
    const token = Buffer.from('0102030405060708', 'hex');
    await claiming.write(
      'UPDATE delivery SET lease_token = ?, available_at = available_at + 60000 WHERE queue_id = ?',
      [token, queue.id],
    );
    await claiming.write('COMMIT');
    await claiming.end();
    expect(await outcome).toBe('message-leased');
    expect(await deliveryRows(store, queue)).toEqual([
      { ...row, leaseToken: token, availableAt: row!.availableAt + 60_000 },
    ]);
  });

  test('whose COMMIT got no answer reports that its outcome is unknown, though it settled the message', async () => {
    const [id] = await store.messages.enqueue(queue.name, numbered(1));
    const messages = new MessageRepository(losingAnswers(store.database));
    expect(await cancel(id!, messages)).toBe('database-unavailable');
    expect(await owedIds(store, queue)).toEqual([]);
  });

  test('that races with claims: each message is either cancelled or leased, never both', async () => {
    const [rounds, packs, size] = [15, 10, 40];
    let [won, lost] = [0, 0];
    for (let round = 0; round < rounds; round += 1) {
      const enqueues = Array.from({ length: packs }, () => store.messages.enqueue(queue.name, numbered(size / packs)));
      const ids = (await Promise.all(enqueues)).flat();
      const claims = Array.from({ length: 4 }, () => claim(size / 4));
      const outcomes = await Promise.all(ids.map((id) => cancel(id)));
      const leased = (await Promise.all(claims)).flat();
      const cancelled = ids.filter((_, index) => outcomes[index] === null);
      const refused = ids.filter((_, index) => outcomes[index] === 'message-leased');
      expect(cancelled.length + refused.length).toBe(size);
      const rest = await claim(size);
      expect(hex([...leased, ...rest])).toEqual(hex(refused));
      won += cancelled.length;
      lost += refused.length;
      queue = await createQueue(store);
    }
    // A race that one side always wins shows nothing.
    expect(Math.min(won, lost)).toBeGreaterThan(0);
  });
});
