import { setTimeout as sleep } from 'node:timers/promises';
import { type LeasedDelivery, MessageRepository, type Queue } from '@rowmq/store';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { LOOK_AT_HEAD, recordStatements } from '../support/statements.js';
import { bodies, createQueue, message, numbered, openStore, type TestStore } from '../support/store.js';

/*
 * A claim goes by what an earlier look saw, and a flight locks the heads of several queues with one statement. Neither may change what is handed out, to whom, or in which order.
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
  // Whoever has never looked at a queue keeps nothing of the first look.
  await take(broker, queues, 1);
});

/** One flight for one consumer of each queue, on the database's clock. */
async function take(from: MessageRepository, of: readonly Queue[], maxMessages: number): Promise<LeasedDelivery[][]> {
  const outcomes = await from.dequeue(of.map((queue) => ({ queue, demands: [{ maxMessages, leaseSeconds: 60 }] })));
  return outcomes.map(({ leased }) => leased.flat());
}

async function put(queue: Queue | undefined, ...messages: ReturnType<typeof message>[]): Promise<void> {
  const outcomes = await broker.enqueue([{ queueName: (queue as Queue).name, messages }]);
  expect(outcomes).toEqual([null]);
}

function looks(): number {
  return statements.filter((sql) => LOOK_AT_HEAD.test(sql.trim())).length;
}

/** Each in a millisecond of its own, and in that of no other queue's. */
async function putApart(queue: Queue | undefined, count: number): Promise<void> {
  for (const one of numbered(count)) {
    await put(queue, one);
    await sleep(2);
  }
}

function locks(): string[] {
  return statements.filter((sql) => sql.endsWith('FOR UPDATE SKIP LOCKED'));
}

const upTo = (from: number, until: number) => Array.from({ length: until - from }, (_, index) => String(from + index));

describe('a claim', () => {
  it('does without a look where an earlier one saw enough, and hands out the same in the same order', async () => {
    const [queue] = queues;
    await put(queue, ...numbered(40));
    statements.length = 0;
    const handedOut: string[] = [];
    for (let claim = 0; claim < 8; claim += 1)
      handedOut.push(...bodies((await take(broker, queues.slice(0, 1), 5))[0] ?? []));
    expect(handedOut).toEqual(upTo(0, 40));
    // A slow machine may take longer than what was seen is good for.
    expect(looks()).toBeLessThan(8);
    expect(locks()).toHaveLength(8);
  });

  it('hands out what is more urgent first, though it came after the look', async () => {
    const [queue] = queues;
    await put(queue, ...numbered(10));
    expect(bodies((await take(broker, queues.slice(0, 1), 2))[0] ?? [])).toEqual(['0', '1']);
    await put(queue, message({ priority: 9, body: Buffer.from('urgent') }));
    expect(bodies((await take(broker, queues.slice(0, 1), 2))[0] ?? [])).toEqual(['urgent', '2']);
  });

  it('finds what another broker enqueued that is more urgent once what was seen is a tenth of a second old', async () => {
    const one = queues.slice(0, 1);
    await put(one[0], message({ priority: 5 }), ...numbered(10));
    await take(broker, one, 2);
    await new MessageRepository(store.database).enqueue([
      { queueName: (one[0] as Queue).name, messages: [message({ body: Buffer.from('urgent'), priority: 5 })] },
    ]);
    await sleep(101);
    expect(bodies((await take(broker, one, 1))[0] ?? [])).toEqual(['urgent']);
  });

  it('hands out nothing that another broker took meanwhile, and goes on behind it', async () => {
    const one = queues.slice(0, 1);
    await put(one[0], ...numbered(20));
    expect(bodies((await take(broker, one, 2))[0] ?? [])).toEqual(['0', '1']);
    const others = (await take(new MessageRepository(store.database), one, 10))[0] ?? [];
    expect(bodies(others)).toEqual(upTo(2, 12));
    expect(bodies((await take(broker, one, 3))[0] ?? [])).toEqual(['12', '13', '14']);
  });

  it('of a queue that was deleted since the look, or emptied, hands out nothing', async () => {
    const [one, another] = queues as [Queue, Queue];
    await put(one, ...numbered(10));
    await put(another, ...numbered(10));
    await take(broker, [one, another], 2);
    await store.queues.delete(one.name);
    await store.database.write('DELETE FROM delivery WHERE queue_id = ?', [another.id]);
    expect(await take(broker, [one, another], 2)).toEqual([[], []]);
  });
});

describe('a flight for several queues', () => {
  it('locks their heads with one statement', async () => {
    for (const queue of queues) await putApart(queue, 3);
    statements.length = 0;
    const leased = await take(broker, queues, 3);
    expect(leased.map(bodies)).toEqual(queues.map(() => ['0', '1', '2']));
    expect(locks()).toHaveLength(1);
  });

  it('gives each what it asks for, though one of them holds many that were enqueued in the same millisecond', async () => {
    const [many, ...few] = queues;
    await put(many, ...numbered(50));
    for (const queue of few) await put(queue, ...numbered(3));
    statements.length = 0;
    for (const first of [0, 2]) {
      const leased = await take(broker, queues, 2);
      const expected = [upTo(first, first + 2), ...few.map(() => upTo(first, Math.min(first + 2, 3)))];
      expect(leased.map(bodies)).toEqual(expected);
    }
    // Nor does it lock all of those.
    const limits = locks().map((sql) => Number(/LIMIT (\d+)/.exec(sql)?.[1]));
    expect(Math.max(...limits)).toBeLessThanOrEqual(2 * 2 * queues.length);
  });

  it('gets past what another broker took from one of them since the look', async () => {
    for (const queue of queues) await putApart(queue, 8);
    expect((await take(broker, queues, 2)).map(bodies)).toEqual(queues.map(() => upTo(0, 2)));
    const others = await take(new MessageRepository(store.database), queues.slice(0, 1), 4);
    expect(others.map(bodies)).toEqual([upTo(2, 6)]);
    const leased = [await take(broker, queues, 2), await take(broker, queues, 2)];
    expect(leased.flatMap(([first]) => bodies(first ?? []))).toEqual(upTo(6, 8));
    expect(leased.flatMap(([, , last]) => bodies(last ?? []))).toEqual(upTo(2, 6));
  });

  it('gets past what others hold at the head of one of them, and takes the others whole', async () => {
    for (const queue of queues) await putApart(queue, 4);
    await store.database.exclusive(async (holder) => {
      await holder.write('START TRANSACTION');
      const held = await holder.read(
        `SELECT message_id FROM delivery FORCE INDEX (delivery_next) WHERE queue_id = ? AND priority_rank = 5
         ORDER BY priority_rank, available_at LIMIT 2 FOR UPDATE`,
        [queues[0]?.id],
      );
      expect(held).toHaveLength(2);
      const leased = await take(broker, queues, 2);
      expect(leased.slice(1).map(bodies)).toEqual([upTo(0, 2), upTo(0, 2)]);
      const then = await take(broker, queues, 2);
      expect(bodies([...(leased[0] ?? []), ...(then[0] ?? [])])).toEqual(['2', '3']);
      expect(then.slice(1).map(bodies)).toEqual([upTo(2, 4), upTo(2, 4)]);
      await holder.write('ROLLBACK');
    });
    expect((await take(broker, queues, 4)).map(bodies)).toEqual([upTo(0, 2), [], []]);
  });
});
