import { setTimeout as sleep } from 'node:timers/promises';
import { type BrokerClient, RowmqHttpClient } from '@rowmq/client';
import { InMemoryBroker } from '@rowmq/client/testing';
import type { EnqueueRequest, LeasedMessage, PutQueueRequest, RowmqError } from '@rowmq/contract';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { newQueueName, useBroker } from '../support/api.js';

/* What services are tested with does as what they run with: each test passes on a real broker, and on the one in memory. */

const shared = useBroker();

const brokers: [string, () => BrokerClient][] = [
  ['a broker', () => new RowmqHttpClient({ url: shared.broker.url })],
  ['InMemoryBroker', () => new InMemoryBroker()],
];

describe.each(brokers)('%s', (_, make) => {
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

  /** Whatever its holder does with a receipt is refused with this code. */
  async function expectUseless(queue: string, receipt: string, code: string): Promise<void> {
    const failed = [{ receipt, code }];
    expect(await broker.ack(queue, { receipts: [receipt] })).toEqual({ acked: [], failed });
    expect(await broker.nack(queue, { receipts: [receipt], reason: 'too late' })).toEqual({ nacked: [], failed });
    expect(await broker.extend(queue, { receipts: [receipt], leaseSeconds: 100 })).toEqual({ extended: [], failed });
  }

  async function codeOf(call: Promise<unknown>): Promise<string> {
    return call.then(
      () => 'done',
      (error: unknown) => (error as RowmqError).code,
    );
  }

  test('a lease that was given back is lost, also when another has taken the message', async () => {
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

  test('a lease that ran out is lost, also when another has taken the message', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'x' });
    const old = await take(queue, 1);
    const current = await take(queue);
    expect(current).toMatchObject({ id: old.id, receiveCount: 2 });
    await expectUseless(queue, old.receipt, 'lease-lost');
    expect(await broker.ack(queue, { receipts: [current.receipt] })).toMatchObject({ failed: [] });
  });

  test('a delivery that was acked is not found, nor is one in another queue, and a receipt counts once', async () => {
    const [queue, other] = [await newQueue(), await newQueue()];
    await enqueue(queue, { body: 'x' });
    const { receipt } = await take(queue);
    await expectUseless(other, receipt, 'delivery-not-found');
    expect(await broker.ack(queue, { receipts: [receipt, receipt] })).toEqual({ acked: [receipt], failed: [] });
    await expectUseless(queue, receipt, 'delivery-not-found');
  });

  test('what is no receipt is invalid, and the token of another message opens nothing', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'one' }, { body: 'two' });
    const [one, two] = [(await take(queue)).receipt, (await take(queue)).receipt];
    // A receipt's last eight bytes are its token.
    const [oneBytes, twoBytes] = [Buffer.from(one, 'base64url'), Buffer.from(two, 'base64url')];
    const forged = Buffer.concat([oneBytes.subarray(0, 16), twoBytes.subarray(16)]).toString('base64url');
    const noToken = Buffer.concat([oneBytes.subarray(0, 16), Buffer.alloc(8)]).toString('base64url');
    for (const receipt of [forged, noToken]) await expectUseless(queue, receipt, 'lease-lost');
    for (const receipt of ['x', `${one}x`]) await expectUseless(queue, receipt, 'invalid-request');
    expect(await broker.ack(queue, { receipts: [one, two] })).toEqual({ acked: [one, two], failed: [] });
  });

  test('extend keeps a receipt valid past its first deadline', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'x' });
    const { receipt, leaseExpiresAt } = await take(queue, 3);
    const { extended } = await broker.extend(queue, { receipts: [receipt], leaseSeconds: 600 });
    expect(extended.map((one) => one.receipt)).toEqual([receipt]);
    expect(Date.parse(extended[0]!.leaseExpiresAt) - Date.parse(leaseExpiresAt)).toBeGreaterThan(590_000);
    expect(await broker.dequeue(queue, { waitSeconds: 4 })).toEqual({ messages: [] });
    expect(await broker.ack(queue, { receipts: [receipt] })).toMatchObject({ failed: [] });
  });

  test('an expired message is not handed out, but whoever holds it may settle it', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'held', expiresInSeconds: 2 }, { body: 'left', priority: 0, expiresInSeconds: 2 });
    const { body, receipt } = await take(queue);
    expect(body).toBe('held');
    await sleep(2100);
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
    ['a delay longer than messages live', 'invalid-request', { body: 'x', delaySeconds: 101 }],
    ['a field that is unknown', 'invalid-request', { body: 'x', unknown: 1 } as { body: string }],
  ])('refuses %s with %s, and stores nothing', async (_what, code, message) => {
    const queue = await newQueue({ messageTtlSeconds: 100 });
    expect(await codeOf(enqueue(queue, { body: 'x' }, message))).toBe(code);
    expect(await broker.dequeue(queue, { maxMessages: 10, waitSeconds: 1 })).toEqual({ messages: [] });
  });

  test('refuses more than a queue may hold, and says what is wrong with the message first', async () => {
    const queue = await newQueue({ maxDepth: 2 });
    await enqueue(queue, { body: 'x' });
    expect(await codeOf(enqueue(queue, { body: 'x' }, { body: 'x' }))).toBe('queue-full');
    const late = { body: 'x', delaySeconds: 60, expiresInSeconds: 1 };
    expect(await codeOf(enqueue(queue, { body: 'x' }, late))).toBe('invalid-request');
    expect(await codeOf(enqueue(queue, { body: 'x' }))).toBe('done');
  });

  test('refuses to settle what is no request', async () => {
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

  test('dead-letters at once what is rejected, and on sight what was received too often, as if it was new there', async () => {
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

  test('hands out the most urgent first, then the longest available, and what was delayed when it is due', async () => {
    const queue = await newQueue();
    await enqueue(queue, { body: 'later', priority: 9, delaySeconds: 3 }, { body: 'idle', priority: 0 });
    await enqueue(queue, { body: 'usual' }, { body: 'urgent', priority: 8 });
    const bodies: string[] = [];
    for (let index = 0; index < 4; index += 1) bodies.push((await take(queue)).body);
    expect(bodies).toEqual(['urgent', 'usual', 'idle', 'later']);
  });
});
