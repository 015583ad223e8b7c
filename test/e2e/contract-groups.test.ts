import { expect, test } from 'vitest';
import { newQueueName, useBroker } from '../support/api.js';
import { eventually } from '../support/wait.js';

const shared = useBroker();

test('an ordered queue hands the next message of a group to a consumer who waits, as soon as the ack is answered', async () => {
  const queue = shared.api.queue(newQueueName());
  expect(await queue.put({ ordering: 'group' })).toMatchObject({ ordering: 'group' });
  await queue.enqueue({ body: 'a1', groupId: 'ä' }, { body: 'b1', groupId: 'b' });
  await queue.enqueue({ body: 'a2', groupId: 'ä' });
  const leased = await queue.dequeue({ maxMessages: 10 });
  expect(leased.map(({ body, groupId }) => [body, groupId])).toEqual([
    ['a1', 'ä'],
    ['b1', 'b'],
  ]);
  // A count that took long is reused for a while.
  await eventually('the counts show what is leased and what waits', async () => {
    const { stats } = await queue.get();
    return stats.ready === 0 && stats.leased === 2 && stats.waiting === 1;
  });
  const [waiting] = await queue.browse('waiting');
  expect(waiting).toMatchObject({ body: 'a2', groupId: 'ä', state: 'waiting' });
  const next = queue.dequeueOne({ waitSeconds: 20 });
  await queue.ack((leased[0] as { receipt: string }).receipt);
  expect(await next).toMatchObject({ body: 'a2', groupId: 'ä', receiveCount: 1 });
});

test('an ordered queue hands out its messages after its delay, in order, also to a consumer who waits', async () => {
  const queue = shared.api.queue(newQueueName());
  await queue.put({ ordering: 'group', delaySeconds: 6 });
  const next = queue.dequeue({ maxMessages: 10, waitSeconds: 20 });
  const sentAt = Date.now();
  await queue.enqueue({ body: 'a1', groupId: 'a' }, { body: 'a2', groupId: 'a' });
  await queue.enqueue({ body: 'a3', groupId: 'a' });
  await eventually('the counts show what is delayed and what waits', async () => {
    const { stats } = await queue.get();
    return stats.ready === 0 && stats.delayed === 2 && stats.waiting === 1;
  });
  const leased = await next;
  expect(leased.map(({ body }) => body)).toEqual(['a1', 'a2']);
  // Both clocks may be a little fast.
  expect(Date.now() - sentAt).toBeGreaterThan(5900);
  await queue.ack(...leased.map(({ receipt }) => receipt));
  expect(await queue.dequeueOne()).toMatchObject({ body: 'a3' });
});

test('the groups of messages and the ordering of queues must fit', async () => {
  const ordered = shared.api.queue(newQueueName());
  await ordered.put({ ordering: 'group' });
  const refusals: [number, unknown][] = [];
  for (const messages of [
    [{ body: 'no group' }],
    [{ body: 'x', groupId: 'g', priority: 5 }],
    [{ body: 'x', groupId: 'g', delaySeconds: 5 }],
    [{ body: 'x', groupId: 'g', availableAt: '2026-11-22T18:38:26.123Z' }],
    [{ body: 'x', groupId: 'g' }, { body: 'no group' }],
    [{ body: 'x', groupId: 'g'.repeat(129) }],
  ]) {
    const { status, json } = await ordered.request<{ code: string }>('enqueue', { messages });
    refusals.push([status, json.code]);
  }
  expect(refusals).toEqual(Array.from({ length: 6 }, () => [400, 'invalid-request']));
  expect((await ordered.get()).stats).toMatchObject({ ready: 0, waiting: 0 });
});
