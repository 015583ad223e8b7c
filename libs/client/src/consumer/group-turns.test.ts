import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Queue } from '../queue/queue.js';
import { InMemoryBroker } from '../testing/in-memory-broker.js';
import type { Message } from './message.js';
import { Retry } from './outcomes.js';
import { QueueConsumer } from './queue-consumer.js';

const GROUPS = ['a', 'b', 'c'];
const EACH = 12;

test('a consumer with many handlers handles one message of a group at a time, in order, past failures', async () => {
  const broker = new InMemoryBroker();
  await broker.putQueue('orders', { ordering: 'group' });
  const queue = new Queue<number>(broker, 'orders');
  for (let number = 0; number < EACH; number += 1)
    await queue.enqueueMany(
      GROUPS.map(() => number),
      (_, index) => ({ groupId: GROUPS[index] }),
    );
  const done: Record<string, number[]> = { a: [], b: [], c: [] };
  const busy = new Set<string>();
  let most = 0;
  const failed = new Set<string>();
  const handle = async (number: number, { groupId = '' }: Message<number>): Promise<void> => {
    expect(busy).not.toContain(groupId);
    busy.add(groupId);
    most = Math.max(most, busy.size);
    await sleep(1);
    busy.delete(groupId);
    const isFirstTry = number % 5 === 3 && !failed.has(`${groupId}${number}`);
    failed.add(`${groupId}${number}`);
    if (isFirstTry) throw Retry.after(0);
    done[groupId]?.push(number);
  };
  const wrong: unknown[] = [];
  const message = async (number: number, one: Message<number>): Promise<void> =>
    handle(number, one).catch((error: unknown) => {
      if (!(error instanceof Retry)) wrong.push(error);
      throw error;
    });
  const consumer = new QueueConsumer<number>(broker, 'orders', { message }, { concurrency: 8, waitSeconds: 1 });
  consumer.start();
  await broker.drained('orders');
  await consumer.stop();
  expect(wrong).toEqual([]);
  const inOrder = Array.from({ length: EACH }, (_, number) => number);
  expect(done).toEqual({ a: inOrder, b: inOrder, c: inOrder });
  // Groups do not wait for each other.
  expect(most).toBe(GROUPS.length);
});

test('in a queue without ordering, messages of one group are handled side by side', async () => {
  const broker = new InMemoryBroker();
  const queue = new Queue<number>(broker, 'orders');
  await queue.enqueueMany([1, 2, 3], { groupId: 'a' });
  let running = 0;
  let meet: () => void = () => undefined;
  const all = new Promise<void>((resolve) => (meet = resolve));
  const message = async (): Promise<void> => {
    running += 1;
    if (running === 3) meet();
    await all;
  };
  const consumer = new QueueConsumer<number>(broker, 'orders', { message }, { concurrency: 3, waitSeconds: 1 });
  consumer.start();
  await broker.drained('orders');
  await consumer.stop();
  expect(running).toBe(3);
});
