import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BrokerClient, RowmqHttpClient } from '@rowmq/client';
import { InMemoryBroker } from '@rowmq/client/testing';
import {
  type DequeueRequest,
  encodeReceipt,
  type EnqueueRequest,
  type JobAnswer,
  type LeasedMessage,
  PROBLEMS,
  type PutQueueRequest,
  type QueueStats,
  type RedriveRequest,
  RowmqError,
} from '@rowmq/contract';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { newQueueName, useBroker } from '../support/api.js';
import { eventually } from '../support/wait.js';

/* InMemoryBroker behaves like a broker: each test passes on both. */

const shared = useBroker();

const brokers: [string, () => BrokerClient][] = [
  ['a broker', () => new RowmqHttpClient({ url: shared.broker.url })],
  ['InMemoryBroker', () => new InMemoryBroker()],
];

async function codeOf(call: Promise<unknown>): Promise<string> {
  return call.then(
    () => 'done',
    (error: unknown) => (error as RowmqError).code,
  );
}

// Most of these tests wait for leases and delays, so they run at the same time.
describe.concurrent.each(brokers)('%s', (_, make) => {
  let broker: BrokerClient;
  beforeAll(() => {
    broker = make();
  });
  afterAll(() => broker.close());

  async function newQueue(settings: PutQueueRequest = {}): Promise<string> {
    const name = newQueueName();
    await broker.putQueue(name, settings);
    return name;
  }

  async function enqueue(queue: string, ...messages: EnqueueRequest['messages']): Promise<string[]> {
    return (await broker.enqueue(queue, { messages })).messages.map(({ id }) => id);
  }

  /** One message, for which it waits. */
  async function take(queue: string, leaseSeconds = 600): Promise<LeasedMessage> {
    const { messages } = await broker.dequeue(queue, { waitSeconds: 10, leaseSeconds });
    expect(messages).toHaveLength(1);
    return messages[0] as LeasedMessage;
  }

  /** Every verb refuses the receipt with this code. */
  async function expectUseless(queue: string, receipt: string, code: string): Promise<void> {
    const failed = [{ receipt, code }];
    expect(await broker.ack(queue, { receipts: [receipt] })).toEqual({ acked: [], failed });
    expect(await broker.nack(queue, { receipts: [receipt], reason: 'too late' })).toEqual({ nacked: [], failed });
    expect(await broker.release(queue, { receipts: [receipt] })).toEqual({ released: [], failed });
    expect(await broker.extend(queue, { receipts: [receipt], leaseSeconds: 100 })).toEqual({ extended: [], failed });
  }

  /** The job at its end. */
  const ended = ({ id }: JobAnswer): Promise<JobAnswer> => broker.getJob(id, { waitSeconds: 20 });
  const redrive = async (queue: string): Promise<JobAnswer> => ended(await broker.redrive(queue));

  test('an operator acks, releases, redrives and moves one message, also a leased one', async () => {
    const [dead, other] = [await newQueue(), await newQueue()];
    const queue = await newQueue({ deadLetterQueue: dead });
    const [a, b, late] = await enqueue(queue, { body: 'a' }, { body: 'b' }, { body: 'late', delaySeconds: 600 });
    const held = await take(queue);
    await broker.releaseMessage(held.id);
    expect(await broker.ack(queue, { receipts: [held.receipt] })).toMatchObject({ acked: [] });
    const again = await take(queue);
    expect(again).toMatchObject({ receiveCount: 1 });
    await broker.ackMessage(again.id, { queue });
    await broker.releaseMessage(late!);
    const left = again.id === a ? b! : a!;
    await broker.nack(queue, { receipts: [(await take(queue)).receipt], deadLetter: true });
    const { messages } = await broker.browse(dead);
    await broker.redriveMessage(messages[0]!.id);
    await broker.moveMessage(left, { toQueue: other });
    expect((await broker.browse(other)).messages).toMatchObject([{ id: left, source: queue }]);
    expect((await broker.browse(queue)).messages.map(({ id }) => id)).toEqual([late]);
    expect(await codeOf(broker.redriveMessage(late!))).toBe('invalid-request');
    expect(await codeOf(broker.ackMessage(again.id))).toBe('delivery-not-found');
  });

  test('a dead letter says where it comes from, and when and why it moved', async () => {
    const [dead, other] = [await newQueue(), await newQueue()];
    const queue = await newQueue({ deadLetterQueue: dead, maxReceives: 1 });
    const [id] = await enqueue(queue, { body: 'a' });
    const began = Date.now() - 1000;
    const show = async () => {
      const { source, moves } = (await broker.getMessage(id!)).deliveries[0]!;
      for (const { at } of moves) {
        expect(Date.parse(at)).toBeGreaterThan(began);
        expect(Date.parse(at)).toBeLessThan(Date.now() + 1000);
      }
      return { source, moves: moves.map(({ at: _at, ...move }) => move) };
    };
    expect(await show()).toEqual({ source: null, moves: [] });
    await broker.nack(queue, { receipts: [(await take(queue)).receipt], reason: 'busy' });
    await eventually('it is a dead letter', async () => {
      await broker.dequeue(queue);
      return (await show()).source === queue;
    });
    const died = { from: queue, cause: 'max-receives', receiveCount: 1, reason: 'busy' };
    expect(await show()).toEqual({ source: queue, moves: [died] });
    expect((await broker.browse(dead, { reason: 'max-rec' })).messages).toMatchObject([{ id, moves: [died] }]);
    await broker.redriveMessage(id!);
    const redriven = { from: dead, cause: 'redriven', receiveCount: 0, reason: 'busy' };
    expect(await show()).toEqual({ source: null, moves: [died, redriven] });
    await broker.nack(queue, { receipts: [(await take(queue)).receipt], deadLetter: true, reason: 'never' });
    const rejected = { from: queue, cause: 'rejected', receiveCount: 1, reason: 'never' };
    expect(await show()).toEqual({ source: queue, moves: [died, redriven, rejected] });
    for (const toQueue of [other, dead]) await broker.moveMessage(id!, { toQueue });
    const moved = { cause: 'moved', receiveCount: 0, reason: 'never' };
    const { moves } = await show();
    expect(moves).toEqual([died, rejected, { ...moved, from: dead }, { ...moved, from: other }]);
    await broker.deleteQueue(other);
    expect((await show()).moves.at(-1)).toEqual({ ...moved, from: null });
  });

  test('messages move to another queue of the same ordering only', async () => {
    const queue = await newQueue();
    const ordered = await newQueue({ ordering: 'group' });
    const [plain] = await enqueue(queue, { body: 'plain' });
    const [inOrder] = await enqueue(ordered, { body: 'in order', groupId: 'g' });
    for (const [from, id, toQueue] of [
      [queue, plain!, queue],
      [queue, plain!, ordered],
      [ordered, inOrder!, ordered],
      [ordered, inOrder!, queue],
    ] as const) {
      expect(await codeOf(broker.redrive(from, { toQueue }))).toBe('invalid-request');
      expect(await codeOf(broker.moveMessage(id, { toQueue }))).toBe('invalid-request');
    }
    expect((await broker.browse(queue)).messages).toMatchObject([{ id: plain }]);
    expect((await broker.browse(ordered)).messages).toMatchObject([{ id: inOrder }]);
  });

  test('a redrive moves what its filter selects, to the queue that it names', async () => {
    const [dead, other] = [await newQueue(), await newQueue()];
    const queue = await newQueue({ deadLetterQueue: dead });
    const bodies = ['red apple', 'green apple', 'red pear', 'ripe'];
    await enqueue(queue, ...bodies.map((body) => ({ body, headers: { kind: body.split(' ').at(-1)! } })));
    const reasons = ['timeout', 'no such customer', 'timeout', 'timeout'];
    for (const reason of reasons)
      await broker.nack(queue, { receipts: [(await take(queue)).receipt], deadLetter: true, reason });
    const filter = { source: queue, reason: 'time', header: 'kind=apple', body: 'red' };
    expect((await broker.browse(dead, filter)).messages.map(({ body }) => body)).toEqual(['red apple']);
    expect(await ended(await broker.redrive(dead, { filter, toQueue: other }))).toMatchObject({
      done: 1,
      toQueue: other,
    });
    expect((await broker.browse(other)).messages).toMatchObject([{ body: 'red apple', source: queue }]);
    expect(await ended(await broker.redrive(dead, { filter: { header: 'kind' }, maxMessages: 2 }))).toMatchObject({
      done: 2,
    });
    expect((await broker.browse(queue)).messages).toHaveLength(2);
    expect(await ended(await broker.drop(dead, { filter: { body: 'pear' } }))).toMatchObject({ kind: 'drop', done: 0 });
    expect(await ended(await broker.drop(dead, { filter: { source: queue } }))).toMatchObject({ done: 1 });
    const { jobs } = await broker.listJobs({ queue: dead, limit: 2 });
    expect(jobs.map(({ kind, done }) => [kind, done])).toEqual([
      ['drop', 1],
      ['drop', 0],
    ]);
    expect(await broker.cancelJob(jobs[0]!.id)).toEqual(jobs[0]);
    expect(await codeOf(broker.getJob('019a0b5d-0000-7000-8000-000000000000'))).toBe('job-not-found');
  });

  test('a job counts the messages that it has examined, and those that it wanted and that have no queue to go to', async () => {
    const dead = await newQueue();
    const queue = await newQueue({ deadLetterQueue: dead });
    await enqueue(dead, { body: 'held' });
    await take(dead);
    for (const body of ['native apple', 'native pear']) await enqueue(dead, { body });
    for (const body of ['apple', 'pear', 'plum']) {
      await enqueue(queue, { body });
      await broker.nack(queue, { receipts: [(await take(queue)).receipt], deadLetter: true });
    }
    const countsOf = async (request: RedriveRequest) => {
      const { total, examined, done, skipped } = await ended(await broker.redrive(dead, request));
      return { total, examined, done, skipped };
    };
    const filter = { body: 'apple' };
    expect(await countsOf({ filter })).toEqual({ total: 6, examined: 5, done: 1, skipped: 1 });
    expect(await countsOf({ maxMessages: 1 })).toEqual({ total: 5, examined: 3, done: 1, skipped: 2 });
    const { total, examined, done, skipped } = await ended(await broker.drop(dead, { filter: { body: 'native' } }));
    expect({ total, examined, done, skipped }).toEqual({ total: 4, examined: 3, done: 2, skipped: 0 });
    await broker.deleteQueue(queue, { force: true });
    expect(await countsOf({})).toEqual({ total: 2, examined: 1, done: 0, skipped: 1 });
  });

  test('a queue that keeps expired messages sends them to its dead-letter queue, and back they live by the queue alone', async () => {
    const dead = await newQueue();
    const queue = await newQueue({ deadLetterQueue: dead, deadLetterExpired: true });
    const [id] = await enqueue(queue, { body: 'late', expiresInSeconds: 1 });
    await eventually('it has expired', async () => (await broker.browse(queue)).messages.length === 0);
    await eventually('it is a dead letter', async () => {
      expect((await broker.dequeue(queue)).messages).toEqual([]);
      return (await broker.browse(dead)).messages.length > 0;
    });
    const [letter] = (await broker.browse(dead)).messages;
    expect(letter).toMatchObject({ id, source: queue, moves: [{ from: queue, cause: 'expired' }] });
    const dayAhead = Date.now() + 86_400_000;
    expect(Date.parse(letter!.expiresAt)).toBeGreaterThan(dayAhead);
    expect(await redrive(dead)).toMatchObject({ done: 1 });
    const back = await take(queue);
    expect(back).toMatchObject({ id, receiveCount: 1 });
    expect(Date.parse(back.expiresAt)).toBeGreaterThan(dayAhead);
    expect(await codeOf(broker.putQueue(queue, { deadLetterQueue: null }))).toBe('invalid-request');
  });

  test('a replay leaves out what is owed, and refuses a range that ends before it begins', async () => {
    const [queue, target] = [await newQueue(), await newQueue()];
    const ALWAYS = { from: '2020-01-01T00:00:00Z', to: '2100-01-01T00:00:00Z' };
    await enqueue(queue, { body: 'a' }, { body: 'b' });
    await take(queue);
    const nothing = { replayed: 0, owed: 2, complete: true, cursor: null };
    expect(await broker.replay(queue, { ...ALWAYS, toQueue: target })).toEqual(nothing);
    expect(await broker.replay(queue, { ...ALWAYS, to: '2020-01-02T00:00:00Z' })).toEqual({ ...nothing, owed: 0 });
    expect(await broker.replay(target, ALWAYS)).toEqual({ ...nothing, owed: 0 });
    expect(await codeOf(broker.replay(queue, { from: ALWAYS.to, to: ALWAYS.from }))).toBe('invalid-request');
    expect((await broker.getQueue(target)).stats.ready).toBe(0);
  });

  test('makes a message available at its time, and cancels it before', async () => {
    const queue = await newQueue({ messageTtlSeconds: 60 });
    const [past, soon, far] = await enqueue(
      queue,
      { body: 'past', availableAt: '2020-01-01T00:00:00Z' },
      { body: 'soon', availableAt: new Date(Date.now() + 1000).toISOString() },
      { body: 'far', delaySeconds: 366 * 86_400 },
    );
    expect((await take(queue)).id).toBe(past);
    expect(await codeOf(broker.cancelMessage(past!))).toBe('message-leased');
    await broker.cancelMessage(far!);
    expect(await codeOf(broker.cancelMessage(far!))).toBe('delivery-not-found');
    expect((await take(queue)).id).toBe(soon);
    expect((await broker.browse(queue, { state: 'delayed' })).messages).toEqual([]);
  });

  test('takes a request with its headers in another order for a repeat', async () => {
    const queue = await newQueue();
    const options = { idempotencyKey: 'key' };
    const first = await broker.enqueue(queue, { messages: [{ body: '1', headers: { b: '1', a: '2' } }] }, options);
    const again = broker.enqueue(queue, { messages: [{ body: '1', headers: { a: '2', b: '1' } }] }, options);
    expect(await again).toEqual(first);
    const swapped = broker.enqueue(queue, { messages: [{ body: '1', headers: { a: '1', b: '2' } }] }, options);
    expect(await codeOf(swapped)).toBe('idempotency-key-reused');
  });

  test('stores a deduplicationId and an Idempotency-Key once, and answers repeats like the first', async () => {
    const queue = await newQueue();
    const messages = [{ body: '1', deduplicationId: 'a' }, { body: '2' }, { body: '3', deduplicationId: 'a' }];
    const first = await broker.enqueue(queue, { messages }, { idempotencyKey: 'key' });
    const [a, b] = first.messages.map(({ id }) => id);
    expect(first).toEqual({ messages: [{ id: a }, { id: b }, { id: a, duplicate: true }] });
    expect(await broker.enqueue(queue, { messages }, { idempotencyKey: 'key' })).toEqual(first);
    expect((await broker.enqueue(queue, { messages: messages.slice(2) })).messages).toEqual([
      { id: a, duplicate: true },
    ]);
    const reused = broker.enqueue(queue, { messages: messages.slice(1) }, { idempotencyKey: 'key' });
    expect(await codeOf(reused)).toBe('idempotency-key-reused');
    expect(await codeOf(broker.enqueue(queue, { messages }, { idempotencyKey: 'two words' }))).toBe('invalid-request');
    expect((await broker.getQueue(queue)).stats.ready).toBe(2);
  });

  test('forgets a deduplicationId after deduplicationSeconds, and an Idempotency-Key later', async () => {
    const queue = await newQueue({ deduplicationSeconds: 1 });
    const messages = [{ body: '1', deduplicationId: 'a' }];
    const first = await broker.enqueue(queue, { messages }, { idempotencyKey: 'key' });
    await eventually('the queue forgets the id', async () => {
      const { messages: answers } = await broker.enqueue(queue, { messages });
      return answers[0]?.duplicate === undefined;
    });
    expect(await broker.enqueue(queue, { messages }, { idempotencyKey: 'key' })).toEqual(first);
    expect((await broker.getQueue(queue)).stats.ready).toBe(2);
  });

  test('creates, rotates, lists and revokes API keys', async () => {
    const name = newQueueName();
    const definition = {
      name,
      scopes: ['enqueue' as const],
      patterns: ['orders.*'],
      messagesPerSecond: 10,
      expiresAt: '2100-01-01T00:00:00Z',
    };
    const { secret, ...key } = await broker.createKey(definition);
    expect(secret).toMatch(new RegExp(`^rowmq_${key.id}_[\\w-]{43}$`));
    expect(key).toMatchObject({ ...definition, expiresAt: '2100-01-01T00:00:00.000Z', oldSecretUntil: null });
    expect(await broker.getKey(name)).toEqual(key);
    expect(await codeOf(broker.createKey(definition))).toBe('key-exists');
    const rotated = await broker.rotateKey(name, { oldSecretSeconds: 60 });
    expect(rotated.id).toBe(key.id);
    expect(rotated.secret).not.toBe(secret);
    expect(Date.parse(rotated.oldSecretUntil as string)).toBeGreaterThan(Date.now());
    expect((await broker.rotateKey(name, { oldSecretSeconds: 0 })).oldSecretUntil).toBeNull();
    expect(await broker.listKeys({ after: name.slice(0, -1), limit: 1 })).toMatchObject({ keys: [{ name }] });
    expect(key).toMatchObject({ messagesPerSecond: 10, longPolls: null });
    expect(await broker.putKeyLimits(name, { longPolls: 5 })).toMatchObject({ messagesPerSecond: 10, longPolls: 5 });
    expect(await broker.putKeyLimits(name, { messagesPerSecond: null })).toMatchObject({ messagesPerSecond: null });
    expect(await codeOf(broker.putKeyLimits(name, { longPolls: 0 }))).toBe('invalid-request');
    expect(await broker.getKey(name)).toMatchObject({ messagesPerSecond: null, longPolls: 5 });
    expect(await codeOf(broker.putKeyLimits('no-such-key', {}))).toBe('key-not-found');
    await broker.revokeKey(name);
    for (const call of [() => broker.getKey(name), () => broker.rotateKey(name), () => broker.revokeKey(name)])
      expect(await codeOf(call())).toBe('key-not-found');
  });

  test('defines schedules, runs them by hand, and refuses those that cannot work', async () => {
    const queue = await newQueue();
    const name = newQueueName();
    const message = { body: 'tick', headers: { a: 'b' } };
    const made = await broker.putSchedule(name, { cron: '0 0 1 1 *', timeZone: 'Europe/Berlin', queue, message });
    expect(made).toMatchObject({ name, cron: '0 0 1 1 *', everySeconds: null, queue, enabled: true, missed: 'skip' });
    expect(made.nextRunAt).toMatch(/^\d{4}-12-31T23:00:00\.000Z$/);
    expect(made).toMatchObject({ lastRun: null, lastFailure: null });
    expect(made.message).toMatchObject(message);
    expect(await broker.getSchedule(name)).toEqual(made);
    expect(await broker.putSchedule(name, { cron: '0 0 1 1 *', timeZone: 'Europe/Berlin', queue, message })).toEqual(
      made,
    );
    const { schedules } = await broker.listSchedules({ limit: 100 });
    expect(schedules.filter((one) => one.name === name)).toEqual([made]);
    const { messageId } = await broker.runSchedule(name);
    expect(await take(queue)).toMatchObject({
      id: messageId,
      body: 'tick',
      headers: { a: 'b', 'rowmq-schedule': name, 'rowmq-tick': expect.stringMatching(/^20.*Z$/) as string },
    });
    for (const times of [{}, { cron: '61 * * * *' }, { everySeconds: 0 }, { everySeconds: 60, timeZone: 'UTC' }])
      expect(await codeOf(broker.putSchedule(name, { ...times, queue, message }))).toBe('invalid-request');
    expect(await broker.getSchedule(name)).toEqual(made);
    await broker.deleteSchedule(name);
    expect(await codeOf(broker.getSchedule(name))).toBe('schedule-not-found');
    expect(await codeOf(broker.runSchedule(name))).toBe('schedule-not-found');
    expect(await codeOf(broker.deleteSchedule(name))).toBe('schedule-not-found');
  });

  test('a nacked lease is lost, also when another consumer has the message', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'x' });
    const old = await take(queue);
    await broker.nack(queue, { receipts: [old.receipt] });
    await expectUseless(queue, old.receipt, 'lease-lost');
    const current = await take(queue);
    expect(current).toMatchObject({ id: old.id, receiveCount: 2 });
    await expectUseless(queue, old.receipt, 'lease-lost');
    expect(await broker.ack(queue, { receipts: [old.receipt, current.receipt] })).toEqual({
      acked: [current.receipt],
      failed: [{ receipt: old.receipt, code: 'lease-lost' }],
    });
  });

  test('a released message is as if it had never been received, and its lease is lost', async () => {
    const dead = await newQueue();
    const queue = await newQueue({ maxReceives: 1, deadLetterQueue: dead });
    await enqueue(queue, { body: 'x' });
    for (let times = 0; times < 3; times += 1) {
      const { receiveCount, receipt } = await take(queue);
      expect(receiveCount).toBe(1);
      const failed = [{ receipt: 'x', code: 'invalid-request' }];
      const answer = await broker.release(queue, { receipts: [receipt, receipt, 'x'] });
      expect(answer).toEqual({ released: [receipt], failed });
      await expectUseless(queue, receipt, 'lease-lost');
    }
    expect(await broker.dequeue(dead)).toEqual({ messages: [] });
    await take(queue);
  });

  test('a message that is released with a delay is handed out after it', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'x' });
    const { receipt } = await take(queue);
    const since = performance.now();
    await broker.release(queue, { receipts: [receipt], delaySeconds: 1, reason: 'not yet' });
    expect(await take(queue)).toMatchObject({ receiveCount: 1 });
    expect(performance.now() - since).toBeGreaterThan(950);
    expect(await codeOf(broker.release(queue, { receipts: [] }))).toBe('invalid-request');
    expect(await codeOf(broker.release(queue, { receipts: [receipt], delaySeconds: -1 }))).toBe('invalid-request');
  });

  test('in a queue without ordering, a group that floods it does not make another one wait', async () => {
    const queue = await newQueue();
    await enqueue(queue, ...Array.from(Array(50).keys(), (number) => ({ body: String(number), groupId: 'flood' })));
    await enqueue(queue, { body: 'one', groupId: 'ö' }, { body: 'without a group' });
    const { messages: first } = await broker.dequeue(queue, { maxMessages: 33 });
    expect(first.map(({ groupId }) => groupId)).toEqual([...Array<string>(32).fill('flood'), 'ö']);
    const { messages: rest } = await broker.dequeue(queue, { maxMessages: 100 });
    expect(rest).toHaveLength(19);
    expect(rest.at(-1)).toMatchObject({ body: 'without a group' });
    expect(rest.at(-1)).not.toHaveProperty('groupId');
  });

  test('a dequeue answers the settings that hold for its leases if it asks for them', async () => {
    const dead = await newQueue();
    const queue = await newQueue({ leaseSeconds: 77 });
    const ask = (request: DequeueRequest) => broker.dequeue(queue, { withSettings: true, ...request });
    const waitedMs = expect.any(Number);
    expect(await ask({})).toEqual({
      messages: [],
      waitedMs,
      settings: { leaseSeconds: 77, maxReceives: null, ordering: null },
    });
    await broker.putQueue(queue, { maxReceives: 3, deadLetterQueue: dead });
    expect(await ask({ leaseSeconds: 5 })).toMatchObject({
      messages: [],
      settings: { leaseSeconds: 5, maxReceives: 3 },
    });
    expect(await ask({ withSettings: false })).toEqual({ messages: [] });
  });

  test('a dequeue answers how long it waited before its leases began', async () => {
    const queue = await newQueue();
    const askedAt = Date.now();
    const waiting = broker.dequeue(queue, { withSettings: true, waitSeconds: 20 });
    // A busy machine may keep the request from the broker for most of this time.
    await sleep(5000);
    await enqueue(queue, { body: 'x' });
    const { messages, waitedMs = 0, settings } = await waiting;
    expect(waitedMs).toBeGreaterThan(500);
    const leasedAt = Date.parse(messages[0]!.leaseExpiresAt) - (settings?.leaseSeconds ?? 0) * 1000;
    // The clocks are one here, and read in whole milliseconds.
    expect(askedAt + waitedMs).toBeLessThanOrEqual(leasedAt + 5);
  });

  test('the calls of operators have the same effects', async () => {
    const dead = await newQueue();
    const queue = await newQueue({ deadLetterQueue: dead });
    // A broker reuses a count for ten times as long as it took.
    const untilStats = async (name: string, stats: Partial<QueueStats>) =>
      vi.waitFor(async () => expect((await broker.getQueue(name)).stats).toMatchObject(stats), { timeout: 40_000 });
    await broker.createQueue(queue, { leaseSeconds: 77 });
    expect(await codeOf(broker.createQueue(queue, { leaseSeconds: 0 }))).toBe('invalid-request');
    expect(await codeOf(broker.createQueue('..'))).toBe('invalid-request');
    expect(await broker.getQueue(queue)).toMatchObject({ name: queue, leaseSeconds: 30, paused: false });
    const [first] = await enqueue(queue, { body: 'one' }, { body: 'two', delaySeconds: 600 });
    const leased = await take(queue);
    await enqueue(queue, { body: 'three', headers: { a: 'b' } });
    await untilStats(queue, { ready: 1, delayed: 1, leased: 1 });
    expect((await broker.browse(queue, { state: 'delayed' })).messages).toMatchObject([
      { body: 'two', receiveCount: 0 },
    ]);
    expect(await broker.browse(queue)).toMatchObject({
      messages: [{ body: 'three', headers: { a: 'b' }, state: 'ready', lastNackReason: null }],
      nextAfter: null,
    });
    expect(await broker.getMessage(first!)).toMatchObject({
      id: first,
      queue,
      settled: false,
      deliveries: [{ queue, state: 'leased', receiveCount: 1 }],
    });

    expect(await broker.pauseQueue(queue)).toEqual({ name: queue, paused: true, producersPaused: false });
    expect(await broker.dequeue(queue, { maxMessages: 10 })).toEqual({ messages: [] });
    expect(await broker.pauseQueue(queue, { side: 'producers' })).toMatchObject({
      paused: true,
      producersPaused: true,
    });
    expect(await codeOf(broker.enqueue(queue, { messages: [{ body: 'refused' }] }))).toBe('queue-paused');
    expect(await codeOf(broker.deleteQueue(queue))).toBe('queue-not-empty');
    expect(await broker.resumeQueue(queue)).toEqual({ name: queue, paused: false, producersPaused: false });
    expect(await broker.getHistory(queue)).toMatchObject({ queue });
    const consumers = await eventually('every broker answers', async () => {
      const answer = await broker.getConsumers(queue);
      return answer.complete && answer;
    });
    expect(consumers).toMatchObject({ queue, complete: true });

    await broker.nack(queue, { receipts: [leased.receipt], deadLetter: true, reason: 'never' });
    expect(await codeOf(broker.deleteQueue(dead))).toBe('invalid-request');
    expect((await broker.browse(dead)).messages).toMatchObject([{ body: 'one', lastNackReason: 'never' }]);
    expect(await redrive(dead)).toMatchObject({ state: 'done', done: 1, skipped: 0 });
    await untilStats(dead, { ready: 0 });

    const again = await take(queue);
    await broker.ackOne(queue, again.receipt);
    expect(await codeOf(broker.ackOne(queue, again.receipt))).toBe('delivery-not-found');
    expect(await ended(await broker.purge(queue))).toMatchObject({ kind: 'purge', done: 2, skipped: 0 });
    expect((await broker.listQueues()).queues.map(({ name }) => name)).toEqual(expect.arrayContaining([queue, dead]));
    await broker.deleteQueue(queue);
    await broker.deleteQueue(dead);
    expect((await broker.listQueues()).queues.map(({ name }) => name)).not.toContain(queue);
    await Promise.all([broker.ready(), broker.live()]);
    expect(await broker.metrics()).toBeTypeOf('string');
    expect(await broker.getReaper()).toMatchObject({ duties: [] });
  });

  test('a topic stores an id and a key once, and keeps the order of groups in ordered queues', async () => {
    const topic = `topic-${randomUUID()}`;
    const [ordered, plain] = [`ordered-${topic}`, `plain-${topic}`];
    await broker.putQueue(ordered, { ordering: 'group' });
    await broker.putQueue(plain);
    expect(await broker.putTopic(topic, { deduplicationSeconds: 60 })).toMatchObject({ deduplicationSeconds: 60 });
    await broker.putSubscription(topic, ordered);
    await broker.putSubscription(topic, plain);
    const message = { body: 'one', groupId: 'g', deduplicationId: 'a' };
    const request = { messages: [message, { body: 'two', groupId: 'g' }] };
    const options = { idempotencyKey: 'key' };
    const first = await broker.publish(topic, request, options);
    expect(first.messages).toMatchObject([{ subscriptions: 2 }, { subscriptions: 2 }]);
    expect(await broker.publish(topic, request, options)).toEqual(first);
    expect(await broker.publish(topic, { messages: [{ ...message, body: 'three' }] })).toEqual({
      messages: [{ ...first.messages[0], duplicate: true }],
    });
    await expect(broker.publish(topic, { messages: [message] }, options)).rejects.toMatchObject({
      code: 'idempotency-key-reused',
    });
    await expect(broker.publish(topic, { messages: [{ body: 'no group' }] })).rejects.toMatchObject({
      code: 'invalid-request',
    });
    const inOrder = await broker.dequeue(ordered, { maxMessages: 10, waitSeconds: 5 });
    expect(inOrder.messages.map(({ body, groupId }) => [body, groupId])).toEqual([
      ['one', 'g'],
      ['two', 'g'],
    ]);
    const others = await broker.dequeue(plain, { maxMessages: 10, waitSeconds: 5 });
    expect(others.messages.map(({ groupId }) => groupId)).toEqual(['g', 'g']);
    const schedule = { everySeconds: 3600, topic, message: { body: 'tick', groupId: 'g' } };
    expect(await broker.putSchedule(topic, schedule)).toMatchObject({ topic, queue: null });
    await broker.runSchedule(topic);
    const [tick] = (await broker.dequeue(plain, { maxMessages: 10, waitSeconds: 5 })).messages;
    expect(tick).toMatchObject({ body: 'tick', headers: { 'rowmq-schedule': topic } });
    await broker.deleteSchedule(topic);
  });

  test('a published message is owed by each queue that wants it, and each lives by itself', async () => {
    const [dead, all, some] = [await newQueue(), await newQueue(), await newQueue()];
    for (const queue of [all, some]) await broker.putQueue(queue, { deadLetterQueue: dead, maxReceives: 5 });
    const topic = newQueueName();
    expect(await broker.putTopic(topic)).toMatchObject({ name: topic, subscriptions: [] });
    const filter = { kind: [{ prefix: 'a' }] };
    expect(await broker.putSubscription(topic, some, { filter })).toMatchObject({ topic, queue: some, filter });
    await broker.putSubscription(topic, all);
    expect(await broker.putSubscription(topic, some)).toMatchObject({ filter });
    expect((await broker.getTopic(topic)).subscriptions.map(({ queue }) => queue)).toEqual([all, some].toSorted());
    expect((await broker.listTopics()).topics.map(({ name }) => name)).toContain(topic);

    const messages = [{ body: 'both', headers: { kind: 'ab' } }, { body: 'one' }];
    const { messages: published } = await broker.publish(topic, { messages });
    expect(published.map(({ subscriptions }) => subscriptions)).toEqual([2, 1]);
    const { id } = published[0]!;
    expect(await broker.getMessage(id)).toMatchObject({ topic, queue: null, deliveries: [{}, {}] });
    const fromAll = (await broker.dequeue(all, { maxMessages: 10 })).messages;
    const fromSome = (await broker.dequeue(some, { maxMessages: 10 })).messages;
    expect([fromAll, fromSome].map((list) => list.map(({ body }) => body))).toEqual([['both', 'one'], ['both']]);
    // Both die, and their copies meet. Each has a reason and a receipt of its own.
    await broker.nack(all, { receipts: [fromAll[0]!.receipt], deadLetter: true, reason: 'of all' });
    await broker.nack(some, { receipts: [fromSome[0]!.receipt], deadLetter: true, reason: 'of some' });
    const buried = (await broker.browse(dead)).messages;
    expect(buried.map((one) => one.id)).toEqual([id, id]);
    expect(buried.map(({ lastNackReason }) => String(lastNackReason)).toSorted()).toEqual(['of all', 'of some']);
    const taken: LeasedMessage[] = [await take(dead), await take(dead)];
    expect(new Set(taken.map(({ receipt }) => receipt)).size).toBe(2);
    await broker.ackOne(dead, taken[0]!.receipt);
    await broker.release(dead, { receipts: [taken[1]!.receipt] });
    // The copy that is left goes back to the queue that it left.
    expect(await redrive(dead)).toMatchObject({ state: 'done', done: 1, skipped: 0 });
    const back = [...(await broker.browse(all)).messages, ...(await broker.browse(some)).messages];
    expect(back.map((one) => one.id)).toEqual([id]);

    await broker.deleteSubscription(topic, some);
    await broker.deleteQueue(all, { force: true });
    expect((await broker.publish(topic, { messages })).messages.map(({ subscriptions }) => subscriptions)).toEqual([
      0, 0,
    ]);
    expect(await codeOf(broker.getSubscription(topic, some))).toBe('subscription-not-found');
    await broker.putSubscription(topic, some);
    await broker.putQueue(some, { maxDepth: 1 });
    expect(await codeOf(broker.publish(topic, { messages }))).toBe('queue-full');
    await broker.deleteTopic(topic);
  });

  test('a lease that ended is lost, also when another consumer has the message', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'x' });
    const old = await take(queue, 1);
    const current = await take(queue);
    expect(current).toMatchObject({ id: old.id, receiveCount: 2 });
    await expectUseless(queue, old.receipt, 'lease-lost');
    expect(await broker.ack(queue, { receipts: [current.receipt] })).toMatchObject({ failed: [] });
  });

  test('an acked delivery is not found, nor is one in another queue, and a receipt counts once', async () => {
    const [queue, other] = [await newQueue(), await newQueue()];
    await enqueue(queue, { body: 'x' });
    const { receipt } = await take(queue);
    await expectUseless(other, receipt, 'delivery-not-found');
    expect(await broker.ack(queue, { receipts: [receipt, receipt] })).toEqual({ acked: [receipt], failed: [] });
    await expectUseless(queue, receipt, 'delivery-not-found');
  });

  test('a dequeue settles the acks that it carries first, and answers for each', async () => {
    const [queue, other] = [await newQueue(), await newQueue()];
    await enqueue(queue, { body: 'one' }, { body: 'two' }, { body: 'stale' });
    await enqueue(other, { body: 'foreign' });
    const [one, two, stale, foreign] = [await take(queue), await take(queue), await take(queue), await take(other)];
    await broker.nack(queue, { receipts: [stale.receipt] });
    const failed = [
      { receipt: stale.receipt, code: 'lease-lost' },
      { receipt: foreign.receipt, code: 'delivery-not-found' },
    ];
    const acks = [one, stale, foreign, two, one].map(({ receipt }) => receipt);
    const answer = await broker.dequeue(queue, { waitSeconds: 10, leaseSeconds: 600, ack: acks });
    expect(answer).toMatchObject({ messages: [{ id: stale.id, receiveCount: 2 }], failed });
    expect(answer.acked).toEqual([one.receipt, two.receipt]);
    await expectUseless(queue, one.receipt, 'delivery-not-found');
    expect(await broker.dequeue(queue, { ack: [answer.messages[0]!.receipt, 'x'] })).toEqual({
      messages: [],
      acked: [answer.messages[0]!.receipt],
      failed: [{ receipt: 'x', code: 'invalid-request' }],
    });
    expect(await broker.dequeue(queue, { ack: [] })).toEqual({ messages: [], acked: [], failed: [] });
  });

  test('a dequeue that waits has settled its acks at once, and they stand when it is cancelled', async () => {
    const queue = await newQueue({ maxDepth: 1 });
    await enqueue(queue, { body: 'x' });
    const { receipt } = await take(queue);
    const giveUp = new AbortController();
    const dequeue = codeOf(broker.dequeue(queue, { waitSeconds: 20, ack: [receipt] }, { signal: giveUp.signal }));
    await eventually('it is settled', async () => {
      const { extended } = await broker.extend(queue, { receipts: [receipt], leaseSeconds: 600 });
      return extended.length === 0;
    });
    giveUp.abort(Object.assign(new Error('enough'), { code: 'cancelled' }));
    expect(await dequeue).toBe('cancelled');
    await expectUseless(queue, receipt, 'delivery-not-found');
    expect(await codeOf(enqueue(queue, { body: 'there is room again' }))).toBe('done');
  });

  test('a malformed receipt is invalid, and the token of another message proves nothing', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'one' }, { body: 'two' });
    const [one, two] = [(await take(queue)).receipt, (await take(queue)).receipt];
    // A receipt's last eight bytes are its token.
    const [oneBytes, twoBytes] = [Buffer.from(one, 'base64url'), Buffer.from(two, 'base64url')];
    const forged = Buffer.concat([oneBytes.subarray(0, -8), twoBytes.subarray(-8)]).toString('base64url');
    const noToken = Buffer.concat([oneBytes.subarray(0, -8), Buffer.alloc(8)]).toString('base64url');
    for (const receipt of [forged, noToken]) await expectUseless(queue, receipt, 'lease-lost');
    for (const receipt of ['x', `${one}x`]) await expectUseless(queue, receipt, 'invalid-request');
    expect(await broker.ack(queue, { receipts: [one, two] })).toEqual({ acked: [one, two], failed: [] });
  });

  test('extend keeps a receipt valid past its first deadline', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'x' });
    const { receipt, leaseExpiresAt } = await take(queue, 6);
    const { extended } = await broker.extend(queue, { receipts: [receipt], leaseSeconds: 600 });
    expect(extended.map((one) => one.receipt)).toEqual([receipt]);
    expect(Date.parse(extended[0]!.leaseExpiresAt) - Date.parse(leaseExpiresAt)).toBeGreaterThan(590_000);
    expect(await broker.dequeue(queue, { waitSeconds: 7 })).toEqual({ messages: [] });
    expect(await broker.ack(queue, { receipts: [receipt] })).toMatchObject({ failed: [] });
  });

  test('an expired message is not handed out, but its holder may settle it', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'held', expiresInSeconds: 6 }, { body: 'left', priority: 0, expiresInSeconds: 6 });
    const { body, receipt, expiresAt } = await take(queue);
    expect(body).toBe('held');
    await eventually('both have expired', () => Date.now() > Date.parse(expiresAt));
    expect(await broker.dequeue(queue, { maxMessages: 10 })).toEqual({ messages: [] });
    expect(await broker.ack(queue, { receipts: [receipt] })).toEqual({ acked: [receipt], failed: [] });
  });

  test('a body travels as text if it is valid UTF-8, however it was sent', async () => {
    const queue = await newQueue();
    const sent = ['grüß dich', ''].map((text) => Buffer.from(text));
    for (const bytes of [...sent, Buffer.from([0xff, 0x00, 0x80])]) {
      await enqueue(queue, { body: bytes.toString('base64'), bodyEncoding: 'base64' });
      const { body, bodyEncoding, receipt } = await take(queue);
      expect(bodyEncoding).toBe(sent.includes(bytes) ? 'utf8' : 'base64');
      expect(Buffer.from(body, bodyEncoding).equals(bytes)).toBe(true);
      await broker.ack(queue, { receipts: [receipt] });
    }
  });

  test.each<[string, string, EnqueueRequest['messages'][number]]>([
    ['a body of 4,097 bytes', 'message-too-large', { body: 'x'.repeat(4097) }],
    ['headers of more than 1,024 bytes', 'message-too-large', { body: 'x', headers: { h: 'x'.repeat(1024) } }],
    ['what is no base64', 'invalid-request', { body: 'no base64', bodyEncoding: 'base64' }],
    ['half of a surrogate pair', 'invalid-request', { body: '\ud83d' }],
    ['a priority of 10', 'invalid-request', { body: 'x', priority: 10 }],
    ['a delay as long as the life', 'invalid-request', { body: 'x', delaySeconds: 60, expiresInSeconds: 60 }],
    ['an instant in many years', 'invalid-request', { body: 'x', availableAt: '9999-01-01T00:00:00Z' }],
    ['a field that is unknown', 'invalid-request', { body: 'x', unknown: 1 } as { body: string }],
  ])('refuses %s with %s, and stores nothing', async (_what, code, message) => {
    const queue = await newQueue({ messageTtlSeconds: 100 });
    expect(await codeOf(enqueue(queue, { body: 'x' }, message))).toBe(code);
    expect(await broker.dequeue(queue, { maxMessages: 10, waitSeconds: 1 })).toEqual({ messages: [] });
  });

  test('refuses more messages than a queue may hold, and reports an invalid message first', async () => {
    const queue = await newQueue({ maxDepth: 2 });
    await enqueue(queue, { body: 'x' });
    expect(await codeOf(enqueue(queue, { body: 'x' }, { body: 'x' }))).toBe('queue-full');
    const late = { body: 'x', delaySeconds: 60, expiresInSeconds: 1 };
    expect(await codeOf(enqueue(queue, { body: 'x' }, late))).toBe('invalid-request');
    expect(await codeOf(enqueue(queue, { body: 'x' }))).toBe('done');
  });

  test('refuses invalid requests to settle', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'x' });
    const { receipt } = await take(queue);
    expect(await codeOf(broker.ack(queue, { receipts: [] }))).toBe('invalid-request');
    expect(await codeOf(broker.nack(queue, { receipts: [receipt], delaySeconds: -1 }))).toBe('invalid-request');
    expect(await codeOf(broker.nack(queue, { receipts: [receipt], deadLetter: true }))).toBe('invalid-request');
    expect(await codeOf(broker.extend(queue, { receipts: [receipt], leaseSeconds: 0 }))).toBe('invalid-request');
    expect(await codeOf(broker.putQueue(queue, { deadLetterQueue: queue }))).toBe('invalid-request');
    expect(await broker.ack(queue, { receipts: [receipt] })).toEqual({ acked: [receipt], failed: [] });
  });

  test('dead-letters a rejected message at once and an over-received one on sight, both as never received', async () => {
    const dead = await newQueue();
    const queue = await newQueue({ deadLetterQueue: dead, maxReceives: 1 });
    const ids = await enqueue(queue, { body: 'rejected' }, { body: 'received' });
    const [rejected, received] = [await take(queue), await take(queue)];
    await broker.nack(queue, { receipts: [rejected.receipt], deadLetter: true });
    await expectUseless(queue, rejected.receipt, 'delivery-not-found');
    await expectUseless(dead, rejected.receipt, 'lease-lost');
    await broker.nack(queue, { receipts: [received.receipt] });
    expect(await broker.dequeue(queue, { waitSeconds: 1 })).toEqual({ messages: [] });
    const moved = [await take(dead), await take(dead)];
    expect(moved.map(({ id, receiveCount }) => [id, receiveCount])).toEqual(ids.map((id) => [id, 1]));
  });

  test('hands out the most urgent message first, then the longest available, and a delayed one when it is due', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'later', priority: 9, delaySeconds: 8 }, { body: 'idle', priority: 0 });
    await enqueue(queue, { body: 'usual' }, { body: 'urgent', priority: 8 });
    const bodies: string[] = [];
    for (let index = 0; index < 4; index += 1) bodies.push((await take(queue)).body);
    expect(bodies).toEqual(['urgent', 'usual', 'idle', 'later']);
  });
});

/** A request that both brokers get. `queue` exists and has no dead-letter queue. */
type Ask = (broker: BrokerClient, queue: string) => Promise<unknown>;

const enqueueOf =
  (message: unknown): Ask =>
  async (broker, queue) =>
    broker.enqueue(queue, { messages: [message as { body: string }] });
const dequeueOf =
  (request: unknown): Ask =>
  async (broker, queue) =>
    broker.dequeue(queue, request as never);
const ackOf =
  (request: unknown): Ask =>
  async (broker, queue) =>
    broker.ack(queue, request as never);
const nackOf =
  (request: object): Ask =>
  async (broker, queue) =>
    broker.nack(queue, { receipts: [A_RECEIPT], ...request });
const releaseOf =
  (request: object): Ask =>
  async (broker, queue) =>
    broker.release(queue, { receipts: [A_RECEIPT], ...request });
const extendOf =
  (request: object): Ask =>
  async (broker, queue) =>
    broker.extend(queue, { receipts: [A_RECEIPT], leaseSeconds: 60, ...request });
const settingsOf =
  (settings: object): Ask =>
  async (broker, queue) =>
    broker.putQueue(queue, settings);

const A_RECEIPT = encodeReceipt({ messageId: Buffer.alloc(16), leaseToken: Buffer.alloc(8), part: 0, members: 1 });
const messagesOf = (count: number, body: string) => Array.from({ length: count }, () => ({ body }));
const HALF_A_PAIR = '\ud83d';
const PROTO = JSON.parse('{"__proto__":"a"}') as Record<string, string>;
const headers = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, index) => [`h${index}`, 'x']));

const WRONG_NAMES = ['orders/created', 'new orders', 'größe', 'x'.repeat(81), 'orders?', 'orders\n'];
const VERBS: [string, Ask][] = [
  ['enqueue', enqueueOf({ body: 'x' })],
  ['dequeue', dequeueOf({})],
  ['ack', ackOf({ receipts: [A_RECEIPT] })],
  ['nack', nackOf({})],
  ['release', releaseOf({})],
  ['extend', extendOf({})],
  ['PUT', settingsOf({})],
];

const REFUSED: [string, Ask][] = [
  ...WRONG_NAMES.flatMap((name) =>
    VERBS.map(([verb, ask]): [string, Ask] => [
      `${verb} of a queue named ${JSON.stringify(name)}`,
      async (broker) => ask(broker, name),
    ]),
  ),
  ['a header named __proto__', enqueueOf({ body: 'x', headers: PROTO })],
  ['a field named __proto__', enqueueOf(JSON.parse('{"body":"x","__proto__":{"priority":3}}'))],
  ['a header without a name', enqueueOf({ body: 'x', headers: { '': 'x' } })],
  ['a header that is a number', enqueueOf({ body: 'x', headers: { h: 1 } })],
  ['headers in a list', enqueueOf({ body: 'x', headers: ['h'] })],
  ['headers that are null', enqueueOf({ body: 'x', headers: null })],
  ['17 headers', enqueueOf({ body: 'x', headers: headers(17) })],
  ['half a surrogate pair in a header', enqueueOf({ body: 'x', headers: { h: HALF_A_PAIR } })],
  ['half a surrogate pair in the name of a header', enqueueOf({ body: 'x', headers: { [HALF_A_PAIR]: 'x' } })],
  ['headers of 1,025 bytes', enqueueOf({ body: 'x', headers: { h: 'x'.repeat(1017) } })],
  ['no body', enqueueOf({})],
  ['a body that is an object', enqueueOf({ body: { order: 17 } })],
  ['a body that is bytes', enqueueOf({ body: new Uint8Array([1, 2]) })],
  ['half a surrogate pair in the body', enqueueOf({ body: HALF_A_PAIR })],
  ['a body of 4,097 bytes', enqueueOf({ body: 'x'.repeat(4097) })],
  [
    'a body of 4,097 bytes in base64',
    enqueueOf({ body: Buffer.alloc(4097).toString('base64'), bodyEncoding: 'base64' }),
  ],
  ['a body of 4,097 bytes in fewer characters', enqueueOf({ body: 'ü'.repeat(2049) })],
  ['a body that is not base64', enqueueOf({ body: 'no base64', bodyEncoding: 'base64' })],
  ['base64 without padding', enqueueOf({ body: 'eA', bodyEncoding: 'base64' })],
  ['an unknown encoding', enqueueOf({ body: 'x', bodyEncoding: 'hex' })],
  ...[-1, 10, 1.5, '4', null, Number.NaN].map((priority): [string, Ask] => [
    `a priority of ${JSON.stringify(priority)} (${typeof priority})`,
    enqueueOf({ body: 'x', priority }),
  ]),
  ...[-1, 31_622_401, 1.5, '4'].map((delaySeconds): [string, Ask] => [
    `a delay of ${JSON.stringify(delaySeconds)} seconds`,
    enqueueOf({ body: 'x', delaySeconds }),
  ]),
  ...[0, 32_832_001, 1.5, Infinity].map((expiresInSeconds): [string, Ask] => [
    `a life of ${expiresInSeconds} seconds`,
    enqueueOf({ body: 'x', expiresInSeconds }),
  ]),
  ['a delay that ends with the message’s life', enqueueOf({ body: 'x', delaySeconds: 60, expiresInSeconds: 60 })],
  ['an unknown field of a message', enqueueOf({ body: 'x', unknown: 1 })],
  [
    'an unknown field of an enqueue',
    async (broker, queue) => broker.enqueue(queue, { messages: [{ body: 'x' }], unknown: 1 } as never),
  ],
  ['an enqueue of no messages', async (broker, queue) => broker.enqueue(queue, { messages: [] })],
  ['an enqueue of 101 messages', async (broker, queue) => broker.enqueue(queue, { messages: messagesOf(101, 'x') })],
  [
    'an enqueue of more than 4 MiB',
    async (broker, queue) => broker.enqueue(queue, { messages: messagesOf(100, 'x'.repeat(43_000)) }),
  ],
  ...[0, 101, 1.5, '1'].map((maxMessages): [string, Ask] => [
    `a dequeue of ${JSON.stringify(maxMessages)} messages`,
    dequeueOf({ maxMessages }),
  ]),
  ...[-1, 21, 0.5].map((waitSeconds): [string, Ask] => [
    `a wait of ${waitSeconds} seconds`,
    dequeueOf({ waitSeconds }),
  ]),
  ...[0, 43_201, 1.5].flatMap((leaseSeconds): [string, Ask][] => [
    [`a dequeue with a lease of ${leaseSeconds} seconds`, dequeueOf({ leaseSeconds })],
    [`an extend with a lease of ${leaseSeconds} seconds`, extendOf({ leaseSeconds })],
    [`a queue with leases of ${leaseSeconds} seconds`, settingsOf({ leaseSeconds })],
  ]),
  ['an extend without a lease', extendOf({ leaseSeconds: undefined })],
  ...[Array(101).fill(A_RECEIPT), [''], ['x'.repeat(201)], [17], A_RECEIPT, null].map((ack, index): [string, Ask] => [
    `a dequeue with wrong acks, number ${index}`,
    dequeueOf({ ack }),
  ]),
  ['an unknown field of a dequeue', dequeueOf({ unknown: 1 })],
  ['an unknown field of an ack', ackOf({ receipts: [A_RECEIPT], unknown: 1 })],
  ['an unknown field of a nack', nackOf({ unknown: 1 })],
  ['an unknown field of a release', releaseOf({ unknown: 1 })],
  ['an unknown field of an extend', extendOf({ unknown: 1 })],
  ['an unknown setting', settingsOf({ unknown: 1 })],
  ...[[], Array(101).fill(A_RECEIPT), [''], ['x'.repeat(201)], [17], A_RECEIPT, undefined].flatMap(
    (receipts, index): [string, Ask][] => [
      [`an ack with wrong receipts, number ${index}`, ackOf({ receipts })],
      [`a nack with wrong receipts, number ${index}`, nackOf({ receipts })],
      [`a release with wrong receipts, number ${index}`, releaseOf({ receipts })],
      [`an extend with wrong receipts, number ${index}`, extendOf({ receipts })],
    ],
  ),
  ['a nack with a delay of 43,201 seconds', nackOf({ delaySeconds: 43_201 })],
  ['a nack with a reason of 201 characters', nackOf({ reason: 'x'.repeat(201) })],
  ['a nack with half a surrogate pair in its reason', nackOf({ reason: HALF_A_PAIR })],
  ['a release with a delay of 43,201 seconds', releaseOf({ delaySeconds: 43_201 })],
  ['a release with a reason of 201 characters', releaseOf({ reason: 'x'.repeat(201) })],
  ['a reject with a delay', nackOf({ deadLetter: true, delaySeconds: 1 })],
  ['a reject where there is no dead-letter queue', nackOf({ deadLetter: true })],
  [
    'a queue that is its own dead-letter queue',
    async (broker, queue) => broker.putQueue(queue, { deadLetterQueue: queue }),
  ],
  [
    'a new queue that is its own dead-letter queue',
    async (broker) => broker.putQueue('mirror', { deadLetterQueue: 'mirror' }),
  ],
  ['a dead-letter queue that does not exist', settingsOf({ deadLetterQueue: 'nobody-made-this' })],
  ['a dead-letter queue whose name cannot be', settingsOf({ deadLetterQueue: 'new orders' })],
  [
    'dead-letter queues in a circle',
    async (broker, queue) => {
      await broker.putQueue('round', { deadLetterQueue: queue });
      await broker.putQueue(queue, { deadLetterQueue: 'round' });
    },
  ],
  ['a queue with maxReceives and no dead-letter queue', settingsOf({ maxReceives: 3 })],
  ['a queue called ..', async (broker) => broker.putQueue('..')],
  ['messages that live 0 seconds', settingsOf({ messageTtlSeconds: 0 })],
  ['messages that live too long', settingsOf({ messageTtlSeconds: 1_209_601 })],
  ['a queue with a negative delay', settingsOf({ delaySeconds: -1 })],
  ['a queue with 0 receives', settingsOf({ maxReceives: 0 })],
  ['a queue with 1,001 receives', settingsOf({ maxReceives: 1001 })],
  ['a queue with a depth of 0', settingsOf({ maxDepth: 0 })],
  ['a queue with too large a depth', settingsOf({ maxDepth: 1_000_000_001 })],
  ['a queue whose lease is null', settingsOf({ leaseSeconds: null })],
];

const ACCEPTED: [string, EnqueueRequest['messages'][number]][] = [
  [
    'headers with names of Object.prototype',
    { body: 'x', headers: { constructor: 'a', prototype: 'b', toString: 'c' } },
  ],
  ['undefined fields', { body: 'x', priority: undefined, headers: undefined, delaySeconds: undefined }],
  ['an empty body', { body: '' }],
  ['no headers', { body: 'x', headers: {} }],
  ['16 headers', { body: 'x', headers: headers(16) }],
  ['headers of 1,024 bytes', { body: 'x', headers: { h: 'x'.repeat(1016) } }],
  ['4,096 bytes', { body: 'ü'.repeat(2048) }],
];

describe('InMemoryBroker and a broker', () => {
  let real: RowmqHttpClient;
  let memory: InMemoryBroker;
  beforeAll(() => {
    real = new RowmqHttpClient({ url: shared.broker.url, retries: 0 });
    memory = new InMemoryBroker();
  });
  afterAll(() => real.close());

  /** Status, code and fields at fault of a refusal; undefined for a request that was accepted. */
  async function refusalOf(ask: Ask, broker: BrokerClient, queue: string): Promise<unknown> {
    try {
      await ask(broker, queue);
      return undefined;
    } catch (error) {
      if (!(error instanceof RowmqError)) throw error;
      return [PROBLEMS[error.code].status, error.code, error.faults?.map(({ path }) => path)];
    }
  }

  test.each(REFUSED)('refuse %s with the same status, code and fields at fault', async (_, ask) => {
    const queue = newQueueName();
    for (const broker of [real, memory]) await broker.putQueue(queue);
    const refusal = await refusalOf(ask, real, queue);
    expect(refusal).toBeDefined();
    expect(await refusalOf(ask, memory, queue)).toEqual(refusal);
    expect(memory.messages(queue)).toEqual([]);
  });

  /* Over HTTP an empty name makes another path, which no call has: its refusal names no field. */
  test.each(VERBS)('refuse %s of a queue without a name', async (_, ask) => {
    for (const broker of [real, memory]) {
      expect(await codeOf(ask(broker, ''))).toBe('invalid-request');
    }
  });

  test.each(ACCEPTED)('hand out a message with %s alike', async (_, message) => {
    const queue = newQueueName();
    const handedOut = async (broker: BrokerClient): Promise<unknown> => {
      await broker.putQueue(queue);
      await broker.enqueue(queue, { messages: [message] });
      const { messages } = await broker.dequeue(queue, { waitSeconds: 10 });
      return messages.map(({ body, bodyEncoding, headers: sent, priority, receiveCount }) => {
        return { body, bodyEncoding, sent, priority, receiveCount };
      });
    };
    expect(await handedOut(memory)).toEqual(await handedOut(real));
  });

  test('keep the reason of an earlier nack when a reject has none', async () => {
    const [queue, dead] = [newQueueName(), newQueueName()];
    for (const broker of [real, memory]) {
      await broker.putQueue(dead);
      await broker.putQueue(queue, { deadLetterQueue: dead });
      await broker.enqueue(queue, { messages: [{ body: 'x' }] });
      const [first] = (await broker.dequeue(queue, { waitSeconds: 10 })).messages;
      await broker.nack(queue, { receipts: [first!.receipt], reason: 'no mail' });
      const [second] = (await broker.dequeue(queue, { waitSeconds: 10 })).messages;
      await broker.nack(queue, { receipts: [second!.receipt], deadLetter: true });
    }
    const [kept] = (await real.browse(dead)).messages;
    expect(kept?.lastNackReason).toBe('no mail');
    expect(memory.messages(dead).map(({ nackReason }) => nackReason)).toEqual(['no mail']);
  });

  test('answer for malformed receipts one by one, also in a reject where there is no dead-letter queue', async () => {
    const queue = newQueueName();
    for (const broker of [real, memory]) {
      await broker.putQueue(queue);
      const answer = await broker.nack(queue, { receipts: ['no receipt', '!'], deadLetter: true });
      expect(answer.nacked).toEqual([]);
      expect(answer.failed.map(({ code }) => code)).toEqual(['invalid-request', 'invalid-request']);
    }
  });
});
