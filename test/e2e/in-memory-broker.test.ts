import { setTimeout as sleep } from 'node:timers/promises';
import { type BrokerClient, RowmqHttpClient } from '@rowmq/client';
import { InMemoryBroker } from '@rowmq/client/testing';
import {
  type DequeueRequest,
  encodeReceipt,
  type EnqueueRequest,
  type LeasedMessage,
  PROBLEMS,
  type PutQueueRequest,
  RowmqError,
} from '@rowmq/contract';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
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

  test('a dequeue answers the settings that hold for its leases if it asks for them', async () => {
    const dead = await newQueue();
    const queue = await newQueue({ leaseSeconds: 77 });
    const ask = (request: DequeueRequest) => broker.dequeue(queue, { withSettings: true, ...request });
    expect(await ask({})).toEqual({ messages: [], settings: { leaseSeconds: 77, maxReceives: null } });
    await broker.putQueue(queue, { maxReceives: 3, deadLetterQueue: dead });
    expect(await ask({ leaseSeconds: 5 })).toEqual({ messages: [], settings: { leaseSeconds: 5, maxReceives: 3 } });
    expect(await ask({ withSettings: false })).toEqual({ messages: [] });
  });

  test('the calls of operators have the same effects', async () => {
    const dead = await newQueue();
    const queue = await newQueue({ deadLetterQueue: dead });
    const statsOf = async (name: string) => (await broker.getQueue(name)).stats;
    await broker.createQueue(queue, { leaseSeconds: 77 });
    expect(await broker.getQueue(queue)).toMatchObject({ name: queue, leaseSeconds: 30, paused: false });
    const [first] = await enqueue(queue, { body: 'one' }, { body: 'two', delaySeconds: 600 });
    const leased = await take(queue);
    await enqueue(queue, { body: 'three', headers: { a: 'b' } });
    expect(await statsOf(queue)).toMatchObject({ ready: 1, delayed: 1, leased: 1 });
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

    expect(await broker.pauseQueue(queue)).toEqual({ name: queue, paused: true });
    expect(await broker.dequeue(queue, { maxMessages: 10 })).toEqual({ messages: [] });
    expect(await broker.resumeQueue(queue)).toEqual({ name: queue, paused: false });

    await broker.nack(queue, { receipts: [leased.receipt], deadLetter: true, reason: 'never' });
    expect(await codeOf(broker.deleteQueue(dead))).toBe('invalid-request');
    expect((await broker.browse(dead)).messages).toMatchObject([{ body: 'one', lastNackReason: 'never' }]);
    expect(await broker.redrive(dead)).toEqual({ redriven: 1, skipped: 0, complete: true });
    expect(await statsOf(dead)).toMatchObject({ ready: 0 });

    const again = await take(queue);
    await broker.ackOne(queue, again.receipt);
    expect(await codeOf(broker.ackOne(queue, again.receipt))).toBe('delivery-not-found');
    expect(await broker.purge(queue)).toEqual({ purged: 2, complete: true });
    expect((await broker.listQueues()).queues.map(({ name }) => name)).toEqual(expect.arrayContaining([queue, dead]));
    await broker.deleteQueue(queue);
    await broker.deleteQueue(dead);
    expect((await broker.listQueues()).queues.map(({ name }) => name)).not.toContain(queue);
    await Promise.all([broker.ready(), broker.live()]);
    expect(await broker.metrics()).toBeTypeOf('string');
    expect(await broker.getReaper()).toMatchObject({ duties: [] });
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
    const { receipt, leaseExpiresAt } = await take(queue, 3);
    const { extended } = await broker.extend(queue, { receipts: [receipt], leaseSeconds: 600 });
    expect(extended.map((one) => one.receipt)).toEqual([receipt]);
    expect(Date.parse(extended[0]!.leaseExpiresAt) - Date.parse(leaseExpiresAt)).toBeGreaterThan(590_000);
    expect(await broker.dequeue(queue, { waitSeconds: 4 })).toEqual({ messages: [] });
    expect(await broker.ack(queue, { receipts: [receipt] })).toMatchObject({ failed: [] });
  });

  test('an expired message is not handed out, but its holder may settle it', async () => {
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
    await enqueue(queue, { body: 'later', priority: 9, delaySeconds: 3 }, { body: 'idle', priority: 0 });
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

const A_RECEIPT = encodeReceipt(Buffer.alloc(16), Buffer.alloc(8));
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
  ...[-1, 43_201, 1.5, '4'].map((delaySeconds): [string, Ask] => [
    `a delay of ${JSON.stringify(delaySeconds)} seconds`,
    enqueueOf({ body: 'x', delaySeconds }),
  ]),
  ...[0, 1_209_601, 1.5, Infinity].map((expiresInSeconds): [string, Ask] => [
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
