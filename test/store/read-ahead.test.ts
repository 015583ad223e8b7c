import { setTimeout as sleep } from 'node:timers/promises';
import { type LeasedDelivery, MessageRepository, type Queue } from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PEEK_AT_FRONT, recordStatements } from '../support/statements.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';
import { eventually } from '../support/wait.js';

/*
 * A claim uses the result of an earlier peek, and a batch locks the first deliveries of several
 * queues with one statement. Neither may change which messages are handed out, to whom, or in which
 * order.
 */

let store: TestStore;
let statements: string[];
let broker: MessageRepository;
let queues: Queue[];

beforeAll(async () => {
  store = await openStore();
  statements = recordStatements(store.database);
});
afterAll(() => store.close());
beforeEach(async () => {
  broker = new MessageRepository(store.database);
  queues = await Promise.all(Array.from({ length: 3 }, () => createQueue(store)));
  // A broker keeps nothing of its first peek at a queue.
  await dequeue(broker, queues, 1);
});

/** One batch for one consumer of each queue, on the database's clock. */
async function dequeue(
  from: MessageRepository,
  of: readonly Queue[],
  maxMessages: number,
): Promise<LeasedDelivery[][]> {
  const outcomes = await from.dequeue(of.map((queue) => ({ queue, demands: [{ maxMessages, leaseSeconds: 60 }] })));
  return outcomes.map(({ leased }) => leased.flat());
}

async function put(queue: Queue | undefined, ...messages: ReturnType<typeof message>[]): Promise<void> {
  const outcomes = await broker.enqueue([{ queueName: (queue as Queue).name, messages }]);
  expect(outcomes).toEqual([null]);
}

function peeks(): number {
  return statements.filter((sql) => PEEK_AT_FRONT.test(sql.trim())).length;
}

/** Enqueues each message in a millisecond of its own, which no other queue's messages share. */
async function putSpread(queue: Queue | undefined, count: number): Promise<void> {
  for (const one of numbered(count)) {
    await put(queue, one);
    await sleep(2);
  }
}

function locks(): string[] {
  return statements.filter((sql) => sql.endsWith('FOR UPDATE SKIP LOCKED'));
}

const upTo = (from: number, until: number) => Array.from({ length: until - from }, (_, index) => String(from + index));

/**
 * Dequeues from each queue the first of several messages. The claim sees more than it hands out, so
 * the next claim reads ahead.
 */
async function claimFirst(of: readonly Queue[]): Promise<void> {
  const first = await dequeue(broker, of, 1);
  expect(first.map(bodies)).toEqual(of.map(() => ['0']));
}

describe('a claim', () => {
  it('skips the peek if an earlier one saw enough, and hands out the same messages in the same order', async () => {
    const one = queues.slice(0, 1);
    await put(one[0], ...numbered(41));
    await claimFirst(one);
    statements.length = 0;
    const handedOut: string[] = [];
    for (let claim = 0; claim < 8; claim += 1) handedOut.push(...bodies((await dequeue(broker, one, 5))[0] ?? []));
    expect(handedOut).toEqual(upTo(1, 41));
    // On a slow machine the result of a peek may grow too old in between.
    expect(peeks()).toBeLessThan(8);
    expect(locks()).toHaveLength(8);
  });

  it('hands out a more urgent message first that was enqueued after the peek', async () => {
    const one = queues.slice(0, 1);
    await put(one[0], ...numbered(10));
    await claimFirst(one);
    expect(bodies((await dequeue(broker, one, 2))[0] ?? [])).toEqual(['1', '2']);
    await put(one[0], message({ priority: 9, body: Buffer.from('urgent') }));
    expect(bodies((await dequeue(broker, one, 2))[0] ?? [])).toEqual(['urgent', '3']);
  });

  it('hands out a more urgent message first that was nacked or released after the peek', async () => {
    const one = queues.slice(0, 1) as [Queue];
    await put(one[0], message({ priority: 9, body: Buffer.from('0') }), ...numbered(10));
    const [urgent = []] = await dequeue(broker, one, 1);
    await dequeue(broker, one, 2);
    await broker.nack([{ queueId: one[0].id, receipts: urgent, delaySeconds: 0 }]);
    const [again = []] = await dequeue(broker, one, 1);
    expect(again.map(({ messageId }) => messageId)).toEqual(urgent.map(({ messageId }) => messageId));
    await dequeue(broker, one, 2);
    await broker.release({ queueId: one[0].id, receipts: again });
    expect((await dequeue(broker, one, 1))[0]?.map(({ priority }) => priority)).toEqual([9]);
  });

  it('finds a more urgent message of another broker once its peek is a tenth of a second old', async () => {
    const one = queues.slice(0, 1);
    await put(one[0], message({ priority: 5, body: Buffer.from('0') }), ...numbered(10));
    await claimFirst(one);
    await dequeue(broker, one, 2);
    await new MessageRepository(store.database).enqueue([
      { queueName: (one[0] as Queue).name, messages: [message({ body: Buffer.from('urgent'), priority: 5 })] },
    ]);
    await sleep(150);
    expect(bodies((await dequeue(broker, one, 1))[0] ?? [])).toEqual(['urgent']);
  });

  it('skips the messages that another broker leased meanwhile and continues behind them', async () => {
    const one = queues.slice(0, 1);
    await put(one[0], ...numbered(21));
    await claimFirst(one);
    expect(bodies((await dequeue(broker, one, 2))[0] ?? [])).toEqual(['1', '2']);
    const others = (await dequeue(new MessageRepository(store.database), one, 10))[0] ?? [];
    expect(bodies(others)).toEqual(upTo(3, 13));
    expect(bodies((await dequeue(broker, one, 3))[0] ?? [])).toEqual(['13', '14', '15']);
  });

  it('finds less urgent messages at the second attempt after another broker leased all the urgent ones', async () => {
    const one = queues.slice(0, 1);
    await put(one[0], ...numbered(60, { priority: 9 }));
    await put(one[0], ...numbered(100));
    await claimFirst(one);
    expect((await dequeue(broker, one, 10))[0]).toHaveLength(10);
    const others = (await dequeue(new MessageRepository(store.database), one, 60))[0] ?? [];
    expect(others.filter(({ priority }) => priority === 9)).toHaveLength(49);
    const found = [...((await dequeue(broker, one, 10))[0] ?? []), ...((await dequeue(broker, one, 10))[0] ?? [])];
    expect(found.map(({ priority }) => priority)).toEqual(Array(found.length).fill(4));
    expect(found.length).toBeGreaterThanOrEqual(10);
  });

  it('hands out nothing from a queue that was deleted or emptied after the peek', async () => {
    const [one, another] = queues as [Queue, Queue];
    for (const queue of [one, another]) await putSpread(queue, 10);
    await claimFirst([one, another]);
    await dequeue(broker, [one, another], 2);
    await store.queues.delete(one.name);
    await store.database.write('DELETE FROM delivery WHERE queue_id = ?', [another.id]);
    expect(await dequeue(broker, [one, another], 2)).toEqual([[], []]);
  });
});

describe('a dequeue batch for several queues', () => {
  it('locks their first deliveries with one statement', async () => {
    for (const queue of queues) await putSpread(queue, 4);
    await claimFirst(queues);
    statements.length = 0;
    const leased = await dequeue(broker, queues, 3);
    expect(leased.map(bodies)).toEqual(queues.map(() => ['1', '2', '3']));
    expect(locks()).toHaveLength(1);
  });

  it('fills every request, even if one queue has many messages of the same millisecond', async () => {
    const [many, ...few] = queues;
    await put(many, ...numbered(51));
    for (const queue of few) await putSpread(queue, 4);
    await claimFirst(queues);
    statements.length = 0;
    for (const first of [1, 3]) {
      const leased = await dequeue(broker, queues, 2);
      const expected = [upTo(first, first + 2), ...few.map(() => upTo(first, Math.min(first + 2, 4)))];
      expect(leased.map(bodies)).toEqual(expected);
    }
    // The claim does not lock all of the many, either.
    const limits = locks().map((sql) => Number(/LIMIT (\d+)/.exec(sql)?.[1]));
    expect(Math.max(...limits)).toBeLessThanOrEqual(2 * 2 * queues.length);
  });

  it('removes expired messages and dead-letters over-received ones on its way, in each queue separately', async () => {
    const dead = await createQueue(store);
    const [expiring, tiring, plain] = queues as [Queue, Queue, Queue];
    await store.queues.put(tiring.name, { maxReceives: 1, deadLetterQueue: dead.name });
    await put(expiring, message({ expiresInSeconds: 1, body: Buffer.from('expired') }));
    await put(tiring, message({ body: Buffer.from('tired') }));
    const [first] = await broker.dequeue([{ queue: tiring, demands: [{ maxMessages: 1, leaseSeconds: 1 }] }]);
    expect(first?.leased.flat()).toHaveLength(1);
    for (const queue of [expiring, tiring, plain]) await putSpread(queue, 6);
    // Wait until the message has expired and the lease has run out.
    await sleep(1400);
    const handedOut: string[][] = [[], [], []];
    await eventually('all that can be handed out', async () => {
      for (const [index, leased] of (await dequeue(broker, queues, 2)).entries())
        handedOut[index]?.push(...bodies(leased));
      return handedOut.every((of) => of.length >= 6);
    });
    expect(handedOut).toEqual(queues.map(() => upTo(0, 6)));
    await eventually('the dead letter', async () =>
      bodies((await dequeue(broker, [dead], 5))[0] ?? []).includes('tired'),
    );
    const rows = await store.database.read('SELECT 1 FROM delivery WHERE queue_id = ?', [expiring.id]);
    expect(rows).toHaveLength(6);
  });

  it('gets past the messages that another broker leased from one queue after the peek', async () => {
    for (const queue of queues) await putSpread(queue, 9);
    await claimFirst(queues);
    expect((await dequeue(broker, queues, 2)).map(bodies)).toEqual(queues.map(() => upTo(1, 3)));
    const others = await dequeue(new MessageRepository(store.database), queues.slice(0, 1), 4);
    expect(others.map(bodies)).toEqual([upTo(3, 7)]);
    const leased = [await dequeue(broker, queues, 2), await dequeue(broker, queues, 2)];
    expect(leased.flatMap(([first]) => bodies(first ?? []))).toEqual(upTo(7, 9));
    expect(leased.flatMap(([, , last]) => bodies(last ?? []))).toEqual(upTo(3, 7));
  });

  it('gets past deliveries that others hold in one queue, and fills its requests from the other queues', async () => {
    for (const queue of queues) await putSpread(queue, 5);
    await claimFirst(queues);
    await store.database.exclusive(async (holder) => {
      await holder.write('START TRANSACTION');
      const held = await holder.read(
        `SELECT message_id FROM delivery FORCE INDEX (delivery_next) WHERE queue_id = ? AND priority_rank = 5
         ORDER BY priority_rank, available_at LIMIT 2 FOR UPDATE`,
        [queues[0]?.id],
      );
      expect(held).toHaveLength(2);
      const leased = await dequeue(broker, queues, 2);
      expect(leased.slice(1).map(bodies)).toEqual([upTo(1, 3), upTo(1, 3)]);
      const then = await dequeue(broker, queues, 2);
      expect(bodies([...(leased[0] ?? []), ...(then[0] ?? [])])).toEqual(['3', '4']);
      expect(then.slice(1).map(bodies)).toEqual([upTo(3, 5), upTo(3, 5)]);
      await holder.write('ROLLBACK');
    });
    expect((await dequeue(broker, queues, 4)).map(bodies)).toEqual([upTo(1, 3), [], []]);
  });
});
