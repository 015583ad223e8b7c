import { createHash } from 'node:crypto';
import { LIMITS, type LeasedMessage, type RootAnswer } from '@rowmq/contract';
import type { Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import { Api, expectProblem, newQueueName, useOwnBroker } from '../support/api.js';
import { startBroker } from '../support/processes.js';
import { memoryOf } from '../support/process-facts.js';
import { openSocket, postBytes } from '../support/raw-http.js';
import { eventually } from '../support/wait.js';

const LARGEST = LIMITS.bodyBytesMost;
const MIB = 1024 * 1024;
const shared = useOwnBroker({ ROWMQ_MAX_BODY_BYTES: String(LARGEST) });

/** A body of this size that begins with its number. */
const numbered = (number: number, bytes = LARGEST): string => `${number} `.padEnd(bytes, 'x');
const numberOf = ({ body }: LeasedMessage): number => Number.parseInt(body, 10);
const digest = (body: string): string => createHash('sha256').update(body).digest('hex');
const times = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

describe('a broker with ROWMQ_MAX_BODY_BYTES=262144', () => {
  test.each<[string, { body: string; bodyEncoding?: 'base64' }]>([
    ['ASCII', { body: 'x'.repeat(LARGEST) }],
    ['characters of four bytes', { body: '😀'.repeat(LARGEST / 4) }],
    ['bytes that JSON escapes', { body: '\u0001'.repeat(LARGEST) }],
    ['base64', { body: Buffer.alloc(LARGEST, 0xff).toString('base64'), bodyEncoding: 'base64' }],
  ])('hands a largest body out as it came: %s', async (_, sent) => {
    const queue = await shared.newQueue();
    await queue.enqueue(sent);
    const { body, bodyEncoding } = await queue.dequeueOne();
    expect([digest(body), bodyEncoding]).toEqual([digest(sent.body), sent.bodyEncoding ?? 'utf8']);
  });

  test('refuses a byte more, and names its limit', async () => {
    const queue = await shared.newQueue();
    const answer = await queue.request('enqueue', { messages: [{ body: 'x'.repeat(LARGEST + 1) }] });
    expect(expectProblem(answer, 413, 'message-too-large').detail).toContain('262145 bytes, more than 262144');
    expect(await queue.browse('ready')).toEqual([]);
  });

  test('refuses a request of 100 largest bodies, and names the size that it accepts', async () => {
    const queue = await shared.newQueue();
    const answer = await queue.request('enqueue', {
      messages: times(100).map((number) => ({ body: numbered(number) })),
    });
    expect(expectProblem(answer, 413, 'message-too-large').detail).toContain('larger than 6 MiB; send fewer');
    const largest = times(23).map((number) => ({ body: numbered(number) }));
    expect((await queue.request('enqueue', { messages: largest })).status).toBe(201);
    expect((await queue.get()).stats.ready).toBe(23);
  });

  test('tells its limits at /, and in the OpenAPI document', async () => {
    const { json } = await shared.api.get<RootAnswer>('/');
    expect(json.limits).toEqual({
      bodyBytes: LARGEST,
      headersBytes: 1024,
      requestBytes: 6 * MIB,
      answerBytes: 4 * MIB,
    });
    const document = (
      await shared.api.get<{ components: { schemas: { EnqueueMessage: { properties: { body: object } } } } }>(
        '/openapi.json',
      )
    ).json;
    expect(document.components.schemas.EnqueueMessage.properties.body).toMatchObject({
      description: 'At most 262144 bytes after decoding',
      maxLength: Buffer.alloc(LARGEST).toString('base64').length,
    });
  });

  test('hands out 100 largest bodies to one consumer, each once, in answers of up to 4 MiB', async () => {
    const queue = await shared.newQueue();
    for (let first = 0; first < 100; first += 20)
      await queue.enqueue(...times(20).map((index) => numbered(first + index)));
    const got: number[] = [];
    while (got.length < 100) {
      const messages = await queue.dequeue({ maxMessages: 100, waitSeconds: 5, leaseSeconds: 600 });
      expect(messages.length).toBeGreaterThan(0);
      expect(messages.reduce((sum, { body }) => sum + body.length, 0)).toBeLessThanOrEqual(4 * MIB);
      for (const { body } of messages) expect(body.length).toBe(LARGEST);
      got.push(...messages.map(numberOf));
      const receipts = messages.map(({ receipt }) => receipt);
      expect((await queue.ack(...receipts)).acked).toHaveLength(receipts.length);
    }
    expect(got).toEqual(times(100));
    expect(await queue.dequeue({ maxMessages: 1 })).toEqual([]);
  });

  test('serves 60 consumers who wait at once, each with a largest body, without a pause for a poll', async () => {
    const queue = await shared.newQueue();
    const waiting = times(60).map(async () => queue.dequeueOne({ waitSeconds: 20 }));
    for (let first = 0; first < 60; first += 20)
      await queue.enqueue(...times(20).map((index) => numbered(first + index)));
    const got = (await Promise.all(waiting)).map(numberOf);
    expect(got.toSorted((one, other) => one - other)).toEqual(times(60));
  });

  test('keeps its memory in bounds while producers flood it and consumers do not read', async () => {
    const broker = await startBroker({ env: { ROWMQ_MAX_BODY_BYTES: String(LARGEST) } });
    const sockets: Socket[] = [];
    try {
      const queue = new Api(broker.url).queue(newQueueName());
      await queue.put();
      // 60 MiB of bodies arrive at once. The broker refuses requests for which it has no room.
      const answers = await Promise.all(
        times(12).map(async () =>
          queue.request('enqueue', { messages: times(20).map((number) => ({ body: numbered(number) })) }),
        ),
      );
      const accepted = answers.filter(({ status }) => status === 201).length;
      for (const answer of answers.filter(({ status }) => status !== 201)) expectProblem(answer, 503, 'overloaded');
      expect(accepted).toBeGreaterThan(0);
      expect((await queue.get()).stats.ready).toBe(20 * accepted);

      // Each answer has 24 MiB of JSON, because every byte is escaped, and nobody reads it.
      const message = { body: Buffer.alloc(LARGEST, 1).toString('base64'), bodyEncoding: 'base64' } as const;
      await queue.job('purge');
      for (let request = 0; request < 8; request += 1) await queue.enqueue(...times(16).map(() => message));
      for (let consumer = 0; consumer < 12; consumer += 1) {
        const socket = await openSocket(broker.url);
        socket.pause();
        socket.write(postBytes(`${queue.messagesPath}/dequeue`, { maxMessages: 100, leaseSeconds: 600 }));
        sockets.push(socket);
      }
      const refused = await eventually('a dequeue is refused', async () => {
        const answer = await queue.request('dequeue', { maxMessages: 1 });
        return answer.status === 503 && answer;
      });
      expect(expectProblem(refused, 503, 'overloaded').detail).toContain('Consumers have not read');
      expect(await memoryOf(broker.pid)).toBeLessThan(1000);
      for (const socket of sockets) socket.destroy();
      await eventually('dequeues go on', async () => (await queue.request('dequeue')).status === 200);
    } finally {
      for (const socket of sockets) socket.destroy();
      await broker.stop();
    }
  }, 180_000);
});

test('a broker with the default limit hands out larger bodies of another, and takes none', async () => {
  const name = newQueueName();
  const ordinary = await startBroker({ database: shared.broker.database });
  try {
    const [large, small] = [shared.api.queue(name), new Api(ordinary.url).queue(name)];
    await large.put();
    await large.enqueue(...times(20).map((number) => numbered(number)));
    const answer = await small.request('enqueue', { messages: [{ body: 'x'.repeat(4097) }] });
    expect(expectProblem(answer, 413, 'message-too-large').detail).toContain('4097 bytes, more than 4096');
    const messages = await small.dequeue({ maxMessages: 100, waitSeconds: 5 });
    expect(messages.map(numberOf)).toEqual(times(15));
    expect(messages.every(({ body }) => body.length === LARGEST)).toBe(true);
  } finally {
    await ordinary.stop();
  }
});
