import type { LeasedMessage } from '@rowmq/contract';
import { describe, expect, test, vi } from 'vitest';
import { expectProblem, type QueueApi, useBroker } from '../support/api.js';
import { eventually } from '../support/wait.js';

vi.setConfig({ maxConcurrency: 40 });

const shared = useBroker();
const LONG = 600;
/** Also on a busy machine, the holder acts before the end. A test then waits for that end. */
const IN_TIME = 5;

/**
 * Waits until a lease's deadline has passed and the message is ready again. Nobody may claim it
 * meanwhile.
 */
async function leaseRunsOut(queue: QueueApi, { id }: LeasedMessage): Promise<void> {
  await eventually('the lease runs out', async () =>
    (await queue.browse('ready')).some((message) => message.id === id),
  );
}

/**
 * Expects the message again after the end of its lease: not before its holder's deadline, and not
 * long after.
 */
function expectAvailableAfter({ availableAt }: { availableAt: string }, leaseExpiresAt: string): void {
  expect(Date.parse(availableAt)).toBeGreaterThanOrEqual(Date.parse(leaseExpiresAt));
  expect(Date.parse(availableAt)).toBeLessThanOrEqual(Date.parse(leaseExpiresAt) + 1000);
}

/** Expects that every verb refuses the receipt with this code and changes nothing. */
async function expectUseless(
  queue: QueueApi,
  receipt: string,
  code: 'lease-lost' | 'delivery-not-found',
): Promise<void> {
  const failed = [{ receipt, code }];
  expect(await queue.ack(receipt)).toEqual({ acked: [], failed });
  expect(await queue.nack([receipt])).toEqual({ nacked: [], failed });
  expect(await queue.nack([receipt], { delaySeconds: 5, reason: 'too late' })).toEqual({ nacked: [], failed });
  expect(await queue.extend([receipt], 100)).toEqual({ extended: [], failed });
  const { detail } = expectProblem(await queue.requestAckOne(receipt), code === 'lease-lost' ? 409 : 404, code);
  expect(detail).toMatch(code === 'lease-lost' ? /Do not act on it/ : /acked, has expired, or was purged/);
}

describe.concurrent('a lease', () => {
  test('keeps a message from all other consumers', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('mine');
    await queue.dequeueOne();
    const others = await Promise.all(Array.from({ length: 10 }, async () => queue.dequeue({ maxMessages: 10 })));
    expect(others.flat()).toEqual([]);
  });

  test("lasts as long as the dequeue asks, or as long as the queue's default", async () => {
    const queue = await shared.newQueue({ leaseSeconds: 100 });
    await queue.enqueue('queue', 'own', 'longest');
    const remaining = (message: LeasedMessage): number => (Date.parse(message.leaseExpiresAt) - Date.now()) / 1000;
    const queues = remaining(await queue.dequeueOne());
    const own = remaining(await queue.dequeueOne({ leaseSeconds: 5 }));
    const longest = remaining(await queue.dequeueOne({ leaseSeconds: 43_200 }));
    expect(queues).toBeGreaterThan(95);
    expect(queues).toBeLessThanOrEqual(100.5);
    expect(own).toBeLessThanOrEqual(5.5);
    expect(longest).toBeGreaterThan(43_190);
  });

  test('that ran out makes the message available again, with a higher count and a new receipt', async () => {
    const queue = await shared.newQueue();
    const [id] = await queue.enqueue({ body: 'again', headers: { h: '1' }, priority: 6 });
    const first = await queue.dequeueOne({ leaseSeconds: 1 });
    const [second] = await queue.dequeue({ waitSeconds: 10, leaseSeconds: LONG });
    expect(second).toEqual({
      ...first,
      id,
      receiveCount: 2,
      receipt: expect.not.stringMatching(first.receipt),
      leaseExpiresAt: expect.any(String),
    });
    expect(Date.parse(second!.leaseExpiresAt) - Date.parse(first.leaseExpiresAt)).toBeGreaterThan((LONG - 5) * 1000);
  });

  test('that ran out is useless to its old holder once another consumer holds the message', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('contested');
    const old = await queue.dequeueOne({ leaseSeconds: 1 });
    const [current] = await queue.dequeue({ waitSeconds: 10, leaseSeconds: LONG });

    await expectUseless(queue, old.receipt, 'lease-lost');

    const [held] = await queue.browse('leased');
    expect(held).toMatchObject({ id: old.id, receiveCount: 2, lastNackReason: null });
    expectAvailableAfter(held!, current!.leaseExpiresAt);
    expect(await queue.ack(current!.receipt)).toEqual({ acked: [current!.receipt], failed: [] });
  });

  test('that ran out is useless even before another consumer gets the message', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('left alone');
    const old = await queue.dequeueOne({ leaseSeconds: 1 });
    await leaseRunsOut(queue, old);

    await expectUseless(queue, old.receipt, 'lease-lost');

    expect(await queue.browse('ready')).toMatchObject([{ id: old.id, receiveCount: 1, lastNackReason: null }]);
    expect(await queue.dequeueOne()).toMatchObject({ id: old.id, receiveCount: 2 });
  });

  test('ends for good with the ack of the message', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('done');
    const { id, receipt, leaseExpiresAt } = await queue.dequeueOne({ leaseSeconds: IN_TIME });
    await queue.ack(receipt);

    await expectUseless(queue, receipt, 'delivery-not-found');

    await eventually('the deadline has passed', () => Date.now() > Date.parse(leaseExpiresAt));
    expect(await queue.dequeue({ waitSeconds: 1 })).toEqual([]);
    expect(await shared.api.message(id)).toMatchObject({ settled: true, deliveries: [] });
  });

  test('ends with the nack of the message', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('given back', 'given back for later');
    const [first, second] = await queue.dequeue({ maxMessages: 2 });
    await queue.nack([first!.receipt]);
    await queue.nack([second!.receipt], { delaySeconds: 600 });

    await expectUseless(queue, first!.receipt, 'lease-lost');
    await expectUseless(queue, second!.receipt, 'lease-lost');

    expect(await queue.browse('ready')).toMatchObject([{ id: first!.id }]);
    expect(await queue.browse('delayed')).toMatchObject([{ id: second!.id }]);
  });

  test('ends with the purge of the queue', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('purged');
    const { receipt } = await queue.dequeueOne();
    await queue.job('purge');
    await expectUseless(queue, receipt, 'delivery-not-found');
  });

  test('is proven only by its own receipt, not by the token of another message', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('one', 'two');
    const one = await queue.dequeueOne();
    const two = await queue.dequeueOne();
    const [firstBytes, secondBytes] = [one, two].map(({ receipt }) => Buffer.from(receipt, 'base64url'));
    const forged = Buffer.concat([firstBytes!.subarray(0, 17), secondBytes!.subarray(17)]).toString('base64url');
    const guessed = Buffer.concat([firstBytes!.subarray(0, 17), Buffer.alloc(14)]).toString('base64url');
    for (const receipt of [forged, guessed]) await expectUseless(queue, receipt, 'lease-lost');
    expect((await queue.browse('leased')).map(({ id }) => id)).toEqual([one.id, two.id]);
  });

  test('is valid only in its own queue', async () => {
    const queue = await shared.newQueue();
    const other = await shared.newQueue();
    await queue.enqueue('here');
    const { id, receipt } = await queue.dequeueOne();

    await expectUseless(other, receipt, 'delivery-not-found');

    expect((await queue.browse('leased')).map((message) => message.id)).toEqual([id]);
    expect(await queue.ack(receipt)).toEqual({ acked: [receipt], failed: [] });
  });
});

describe.concurrent('extend', () => {
  test('keeps the receipt valid past the original deadline', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('long work');
    const { receipt, leaseExpiresAt } = await queue.dequeueOne({ leaseSeconds: IN_TIME });
    const { extended } = await queue.extend([receipt], LONG);
    expect(extended).toEqual([{ receipt, leaseExpiresAt: expect.any(String) }]);
    await eventually('the original deadline has passed', () => Date.now() > Date.parse(leaseExpiresAt) + 300);
    expect(await queue.dequeue()).toEqual([]);
    expect(await queue.ack(receipt)).toEqual({ acked: [receipt], failed: [] });
  });

  test('can shorten a lease too', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('nearly done');
    const { id, receipt } = await queue.dequeueOne({ leaseSeconds: LONG });
    await queue.extend([receipt], 1);
    expect(await queue.dequeue({ waitSeconds: 10 })).toMatchObject([{ id, receiveCount: 2 }]);
    expect(await queue.ack(receipt)).toEqual({ acked: [], failed: [{ receipt, code: 'lease-lost' }] });
  });

  test('moves the deadlines of many leases at once', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue(...Array.from({ length: 100 }, (_, index) => String(index)));
    const receipts = (await queue.dequeue({ maxMessages: 100, leaseSeconds: 30 })).map(({ receipt }) => receipt);
    const { extended, failed } = await queue.extend(receipts, LONG);
    expect(failed).toEqual([]);
    expect(extended.map(({ receipt }) => receipt)).toEqual(receipts);
    const leased = await queue.browse('leased');
    expect(leased).toHaveLength(100);
    for (const message of leased) expectAvailableAfter(message, extended[0]!.leaseExpiresAt);
  });
});

describe.concurrent('nack', () => {
  test('with a delay and a reason hides the message meanwhile and shows the reason in browse', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('try later');
    const { id, receipt } = await queue.dequeueOne();
    const before = Date.now();
    await queue.nack([receipt], { delaySeconds: 600, reason: 'the gateway is down: 😀' });

    expect(await queue.dequeue()).toEqual([]);
    const [browsed] = await queue.browse('delayed');
    expect(browsed).toMatchObject({ id, receiveCount: 1, lastNackReason: 'the gateway is down: 😀' });
    expect(Date.parse(browsed!.availableAt) - before).toBeGreaterThan(595_000);
    expect((await shared.api.message(id)).deliveries).toMatchObject([
      { state: 'delayed', lastNackReason: 'the gateway is down: 😀' },
    ]);
  });

  test('hands the message out again when its delay is over', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('try soon');
    const { id, receipt } = await queue.dequeueOne({ leaseSeconds: LONG });
    const nackedAt = performance.now();
    await queue.nack([receipt], { delaySeconds: 1 });
    expect(await queue.dequeue({ waitSeconds: 10 })).toMatchObject([{ id, receiveCount: 2 }]);
    expect(performance.now() - nackedAt).toBeGreaterThanOrEqual(990);
  });

  test('keeps the last reason only', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('fails');
    await queue.nack([(await queue.dequeueOne()).receipt], { reason: 'x'.repeat(200) });
    expect(await queue.browse('ready')).toMatchObject([{ lastNackReason: 'x'.repeat(200) }]);
    await queue.nack([(await queue.dequeueOne()).receipt]);
    expect(await queue.browse('ready')).toMatchObject([{ lastNackReason: null }]);
  });
});

describe.concurrent('a request with many receipts', () => {
  test('is answered receipt by receipt, with good and bad ones mixed', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('stale', 'acked', 'held');
    const stale = await queue.dequeueOne({ leaseSeconds: LONG });
    await queue.nack([stale.receipt], { delaySeconds: 600 });
    const acked = await queue.dequeueOne();
    await queue.ack(acked.receipt);
    const held = await queue.dequeueOne();
    const malformed = ['x', `${held.receipt}x`, `${held.receipt.slice(0, -1)}+`, 'ü'.repeat(32), ' '];
    const receipts = [stale.receipt, 'x', acked.receipt, held.receipt, ...malformed];

    const { extended, failed } = await queue.extend(receipts, LONG);
    expect(extended.map(({ receipt }) => receipt)).toEqual([held.receipt]);
    const expected = [
      { receipt: stale.receipt, code: 'lease-lost' },
      { receipt: acked.receipt, code: 'delivery-not-found' },
      ...malformed.map((receipt) => ({ receipt, code: 'invalid-request' })),
    ];
    const sorted = (list: { receipt: string }[]) => list.toSorted((a, b) => (a.receipt < b.receipt ? -1 : 1));
    expect(sorted(failed)).toEqual(sorted(expected));
    const answer = await queue.ack(...receipts);
    expect(answer.acked).toEqual([held.receipt]);
    expect(sorted(answer.failed)).toEqual(sorted(expected));
  });

  test('counts a repeated receipt once', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('one', 'two');
    const [one, two] = (await queue.dequeue({ maxMessages: 2 })).map(({ receipt }) => receipt) as [string, string];
    const { extended } = await queue.extend([one, two, one], LONG);
    expect(extended.map(({ receipt }) => receipt)).toEqual([one, two]);
    expect(await queue.nack([two, two])).toEqual({ nacked: [two], failed: [] });
    expect(await queue.ack(one, one, one)).toEqual({ acked: [one], failed: [] });
    expect(await queue.ack(one, one)).toEqual({ acked: [], failed: [{ receipt: one, code: 'delivery-not-found' }] });
  });

  test('distinguishes the current receipt of a message from an older one', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('twice');
    const old = await queue.dequeueOne();
    await queue.nack([old.receipt]);
    const current = await queue.dequeueOne();
    expect(await queue.ack(old.receipt, current.receipt)).toEqual({
      acked: [current.receipt],
      failed: [{ receipt: old.receipt, code: 'lease-lost' }],
    });
  });

  test('acks a hundred at once', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue(...Array.from({ length: 100 }, (_, index) => String(index)));
    const receipts = (await queue.dequeue({ maxMessages: 100 })).map(({ receipt }) => receipt);
    expect(await queue.ack(...receipts)).toEqual({ acked: receipts, failed: [] });
    expect(await queue.browse('leased')).toEqual([]);
  });

  test('acks a message once when many clients try at the same time', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('contested');
    const { receipt } = await queue.dequeueOne();
    const answers = await Promise.all(Array.from({ length: 20 }, async () => queue.ack(receipt)));
    expect(answers.filter(({ acked }) => acked.length === 1)).toHaveLength(1);
    expect(answers.filter(({ failed }) => failed[0]?.code === 'delivery-not-found')).toHaveLength(19);
  });
});

describe.concurrent('nack with deadLetter', () => {
  test('moves a leased message to the dead-letter queue at once and as new, and redrive returns it', async () => {
    const dead = await shared.newQueue();
    const queue = await shared.newQueue({ deadLetterQueue: dead.name });
    const [id] = await queue.enqueue('poison', 'wholesome');
    const [poison, wholesome] = (await queue.dequeue({ maxMessages: 2 })) as [LeasedMessage, LeasedMessage];
    const answer = await queue.request('nack', {
      receipts: [poison.receipt],
      deadLetter: true,
      reason: 'no such customer',
    });
    expect(answer.json).toEqual({ nacked: [poison.receipt], failed: [] });
    await expectUseless(queue, poison.receipt, 'delivery-not-found');
    const [browsed] = await dead.browse('ready');
    expect(browsed).toMatchObject({ id, body: 'poison', receiveCount: 0, lastNackReason: 'no such customer' });
    const again = await dead.dequeueOne();
    expect(again).toMatchObject({ id, receiveCount: 1 });
    await dead.nack([again.receipt]);
    expect(await dead.job('redrive')).toMatchObject({ done: 1, skipped: 0 });
    expect(await queue.dequeueOne()).toMatchObject({ id, body: 'poison' });
    expect(await queue.ack(wholesome.receipt)).toMatchObject({ acked: [wholesome.receipt] });
  });

  test('moves a message only with its lease', async () => {
    const dead = await shared.newQueue();
    const queue = await shared.newQueue({ deadLetterQueue: dead.name });
    await queue.enqueue('mine');
    const first = await queue.dequeueOne({ leaseSeconds: 1 });
    await leaseRunsOut(queue, first);
    const second = await queue.dequeueOne();
    const stale = await queue.request('nack', { receipts: [first.receipt], deadLetter: true });
    expect(stale.json).toEqual({ nacked: [], failed: [{ receipt: first.receipt, code: 'lease-lost' }] });
    expect(await queue.ack(second.receipt)).toMatchObject({ acked: [second.receipt] });
    expect(await dead.browse('ready')).toEqual([]);
  });

  test('is refused and changes nothing without a dead-letter queue, or with a delay', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('mine');
    const { receipt } = await queue.dequeueOne();
    const nowhere = await queue.request('nack', { receipts: [receipt], deadLetter: true });
    expect(expectProblem(nowhere, 400, 'invalid-request').detail).toMatch(
      /has no dead-letter queue; set its deadLetterQueue/,
    );
    const delayed = await queue.request('nack', { receipts: [receipt], deadLetter: true, delaySeconds: 5 });
    expectProblem(delayed, 400, 'invalid-request');
    expect(await queue.ack(receipt)).toMatchObject({ acked: [receipt] });
  });
});
