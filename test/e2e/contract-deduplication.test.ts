import type { EnqueueAnswer } from '@rowmq/contract';
import { describe, expect, test } from 'vitest';
import { type Answer, expectProblem, type QueueApi, useBroker } from '../support/api.js';

/*
 * The store's tests say which repeats are duplicates. These say how a client asks and is answered.
 */

const shared = useBroker();

/** Enqueues with this header, as it is. */
async function send(queue: QueueApi, messages: unknown[], key?: string): Promise<Answer<EnqueueAnswer>> {
  const headers: Record<string, string> = key === undefined ? {} : { 'idempotency-key': key };
  return queue.api.call<EnqueueAnswer>('POST', queue.messagesPath, { messages }, headers);
}

const bodies = async (queue: QueueApi) => (await queue.browse('ready')).map(({ body }) => body).toSorted();

describe('a deduplicationId', () => {
  test('that is in the queue already gets 201 with the first id and duplicate: true', async () => {
    const queue = await shared.newQueue();
    const first = await send(queue, [{ body: '1', deduplicationId: 'a' }, { body: '2' }]);
    expect(first.json).toEqual({ messages: [{ id: expect.any(String) }, { id: expect.any(String) }] });
    const [a] = first.json.messages;
    const second = await send(queue, [{ body: '3' }, { body: '4', deduplicationId: 'a' }]);
    expect(second.status).toBe(201);
    expect(second.json).toEqual({ messages: [{ id: expect.any(String) }, { id: a?.id, duplicate: true }] });
    expect(await bodies(queue)).toEqual(['1', '2', '3']);
    const count = async (event: string) =>
      shared.api.metric(`rowmq_messages_total{event="${event}",queue="${queue.name}"}`);
    expect([await count('enqueued'), await count('duplicate')]).toEqual([3, 1]);
  });

  test('is remembered after its message was acked', async () => {
    const queue = await shared.newQueue();
    const [first] = (await send(queue, [{ body: '1', deduplicationId: 'a' }])).json.messages;
    const { receipt } = await queue.dequeueOne();
    await queue.ack(receipt);
    expect((await send(queue, [{ body: '1', deduplicationId: 'a' }])).json.messages).toEqual([
      { id: first?.id, duplicate: true },
    ]);
    expect(await queue.dequeue()).toEqual([]);
  });

  test.each(['', 'x'.repeat(129), 7, '\ud800'])('that is %j is refused', async (deduplicationId) => {
    const queue = await shared.newQueue();
    const problem = expectProblem(await send(queue, [{ body: '1', deduplicationId }]), 400, 'invalid-request');
    expect(problem.faults?.[0]?.path).toBe('messages.0.deduplicationId');
  });

  test('is remembered for deduplicationSeconds, a setting of the queue', async () => {
    const queue = await shared.newQueue();
    expect(await queue.get()).toMatchObject({ deduplicationSeconds: 300 });
    expect(await queue.put({ deduplicationSeconds: 86_400 })).toMatchObject({ deduplicationSeconds: 86_400 });
    for (const deduplicationSeconds of [0, 86_401, null]) {
      expectProblem(await queue.api.put(queue.adminPath, { deduplicationSeconds }), 400, 'invalid-request');
    }
  });
});

describe('an Idempotency-Key', () => {
  test('that was used before, quoted or not, gets 201 with the first answer', async () => {
    const queue = await shared.newQueue();
    const messages = [{ body: '1' }, { body: '2', deduplicationId: 'a' }];
    const first = await send(queue, messages, 'key-1');
    const again = await send(queue, messages, '"key-1"');
    expect([again.status, again.json]).toEqual([201, first.json]);
    expect((await send(queue, messages, 'key-2')).json).not.toEqual(first.json);
    expect(await bodies(queue)).toEqual(['1', '1', '2']);
  });

  test('that was used with other messages gets 422, and nothing is stored', async () => {
    const queue = await shared.newQueue();
    await send(queue, [{ body: '1' }], 'key');
    expectProblem(await send(queue, [{ body: '2' }], 'key'), 422, 'idempotency-key-reused');
    expect(await bodies(queue)).toEqual(['1']);
    const other = await shared.newQueue();
    expect((await send(other, [{ body: '2' }], 'key')).status).toBe(201);
  });

  test('does not mind the order of fields and headers, which some languages change each time', async () => {
    const queue = await shared.newQueue();
    const first = await send(queue, [{ body: '1', headers: { event: 'paid', shop: 'a', 7: 'x' }, priority: 5 }], 'key');
    const again = await send(queue, [{ priority: 5, headers: { shop: 'a', 7: 'x', event: 'paid' }, body: '1' }], 'key');
    expect([again.status, again.json]).toEqual([201, first.json]);
    const swapped = await send(
      queue,
      [{ priority: 5, headers: { shop: 'paid', 7: 'x', event: 'a' }, body: '1' }],
      'key',
    );
    expectProblem(swapped, 422, 'idempotency-key-reused');
  });

  test.each(['', '""', 'x'.repeat(129), '"x', 'one, two', 'a\\b', 'two words', 'grün'])(
    'that is %j is refused',
    async (key) => {
      const queue = await shared.newQueue();
      const problem = expectProblem(await send(queue, [{ body: '1' }], key), 400, 'invalid-request');
      expect(problem.faults).toEqual([{ path: 'Idempotency-Key', message: expect.stringContaining('1 to 128') }]);
      expect(await bodies(queue)).toEqual([]);
    },
  );

  test('with every allowed character and the greatest length is taken', async () => {
    const queue = await shared.newQueue();
    const visible = Array.from({ length: 94 }, (_, index) => String.fromCharCode(33 + index)).join('');
    const key = visible.replaceAll(/["\\,]/g, '').padEnd(128, 'x');
    expect((await send(queue, [{ body: '1' }], key)).status).toBe(201);
    expectProblem(await send(queue, [{ body: '2' }], key), 422, 'idempotency-key-reused');
  });
});
