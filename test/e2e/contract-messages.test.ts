import { randomBytes } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import { useBroker } from '../support/api.js';
import { eventually } from '../support/wait.js';

vi.setConfig({ maxConcurrency: 20 });

const shared = useBroker();
const bodies = (messages: { body: string }[]): string[] => messages.map(({ body }) => body);

describe.concurrent('a body comes out byte by byte as it was enqueued', () => {
  test.each<[string, string]>([
    ['nothing', ''],
    ['a NUL character', '\u0000'],
    ['every ASCII control character', Array.from({ length: 32 }, (_, code) => String.fromCharCode(code)).join('')],
    ['quotes, backslashes and SQL', `'"\\'; DROP TABLE delivery; -- \\0 \\Z %_`],
    ['characters of one to four bytes', 'aÄ€😀\u{10FFFF}'],
    ['a byte order mark', '\uFEFFbody'],
    ['what looks like unnormalised text', 'e\u0301 é \u212B Å'],
    ['replacement characters', '\uFFFD\uFFFE'],
    ['line ends of all kinds', 'a\nb\r\nc\rd\u2028e\u2029'],
    ['blanks at both ends', '  x  \t '],
    ['what looks like base64', 'aGVsbG8='],
  ])('as text: %s', async (_, body) => {
    const queue = await shared.newQueue();
    const headers = { key: body, [`key ${body}`]: 'value' };
    const [id] = await queue.enqueue({ body, headers });

    expect(await queue.dequeueOne()).toMatchObject({ id, body, bodyEncoding: 'utf8', headers });
    expect(await shared.api.message(id!)).toMatchObject({ id, body, bodyEncoding: 'utf8', headers });
  });

  test.each<[string, Buffer]>([
    ['every byte', Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))],
    ['a lone continuation byte', Buffer.from([0x80])],
    ['half of a surrogate pair, encoded', Buffer.from([0xed, 0xa0, 0x80])],
    ['an overlong NUL', Buffer.from([0xc0, 0x80])],
    ['text that was cut inside a character', Buffer.from('😀').subarray(0, 3)],
    ['4096 random bytes', randomBytes(4096)],
  ])('as base64: %s', async (_, bytes) => {
    const queue = await shared.newQueue();
    const [id] = await queue.enqueue({ body: bytes.toString('base64'), bodyEncoding: 'base64' });
    const message = await queue.dequeueOne();
    expect(message).toMatchObject({ id, bodyEncoding: 'base64' });
    expect(Buffer.from(message.body, 'base64').equals(bytes)).toBe(true);
    const [browsed] = await queue.browse('leased');
    expect(browsed).toMatchObject({ id, bodyEncoding: 'base64', body: message.body });
  });

  test('as text, when base64 carried valid UTF-8', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue(
      { body: Buffer.from('grüß dich').toString('base64'), bodyEncoding: 'base64' },
      { body: '', bodyEncoding: 'base64' },
    );
    const messages = await queue.dequeue({ maxMessages: 2 });
    expect(messages.map(({ body, bodyEncoding }) => ({ body, bodyEncoding }))).toEqual([
      { body: 'grüß dich', bodyEncoding: 'utf8' },
      { body: '', bodyEncoding: 'utf8' },
    ]);
  });

  test('headers with names that have a meaning in JavaScript', async () => {
    const queue = await shared.newQueue();
    const headers = '{"constructor":"c","toString":"t","prototype":"p","hasOwnProperty":"h","length":"9","1":"one"}';
    const answer = await shared.api.post(queue.messagesPath, `{"messages":[{"body":"b","headers":${headers}}]}`);
    expect(answer.status, answer.text).toBe(201);
    expect((await queue.dequeueOne()).headers).toEqual(JSON.parse(headers));
  });
});

describe.concurrent('ids', () => {
  test('are UUIDv7 that rise in the order of enqueueing, in a batch and from batch to batch', async () => {
    const queue = await shared.newQueue();
    const before = Date.now();
    const ids: string[] = [];
    for (let batch = 0; batch < 5; batch += 1)
      ids.push(...(await queue.enqueue(...Array.from({ length: 100 }, () => 'x'))));
    expect(ids).toEqual(ids.toSorted());
    expect(new Set(ids).size).toBe(500);
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const stamps = ids.map((id) => Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16));
    expect(Math.min(...stamps)).toBeGreaterThanOrEqual(before);
    expect(Math.max(...stamps)).toBeLessThanOrEqual(Date.now());
    const message = await queue.dequeueOne();
    expect(Date.parse(message.enqueuedAt)).toBe(stamps[0]);
  });
});

describe.concurrent('order', () => {
  test('is first in, first out among batches of one producer', async () => {
    const queue = await shared.newQueue();
    const sent: string[] = [];
    for (let batch = 0; batch < 10; batch += 1) {
      const body = `batch ${batch}`;
      await queue.enqueue(body);
      sent.push(body);
    }
    const received = [
      ...(await queue.dequeue({ maxMessages: 3 })),
      ...(await queue.dequeue({ maxMessages: 4 })),
      ...(await queue.dequeue({ maxMessages: 100 })),
    ];
    expect(bodies(received)).toEqual(sent);
  });

  test('is by urgency first, whenever a message was enqueued, with a default priority of 4', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue(
      ...Array.from({ length: 10 }, (_, priority) => ({ body: String(priority), priority })),
      'default',
    );
    await queue.enqueue({ body: 'late but urgent', priority: 9 });
    const messages = await queue.dequeue({ maxMessages: 100 });
    expect(bodies(messages)).toEqual(['9', 'late but urgent', '8', '7', '6', '5', '4', 'default', '3', '2', '1', '0']);
    expect(messages.map(({ priority }) => priority)).toEqual([9, 9, 8, 7, 6, 5, 4, 4, 3, 2, 1, 0]);
  });

  test('puts a nacked message behind those that became available before it', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('given back', 'stayed');
    const { receipt } = await queue.dequeueOne();
    await eventually('the clock moved on', async () => {
      const [stayed] = await queue.browse('ready');
      return Date.now() > Date.parse(stayed!.availableAt) + 5;
    });
    await queue.nack([receipt]);
    expect(bodies(await queue.dequeue({ maxMessages: 2 }))).toEqual(['stayed', 'given back']);
  });

  test('hands out at most as many as were asked for', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue(...Array.from({ length: 100 }, (_, index) => String(index)));
    await queue.enqueue('100');
    expect(await queue.dequeue()).toHaveLength(1);
    expect(await queue.dequeue({ maxMessages: 7 })).toHaveLength(7);
    expect(await queue.dequeue({ maxMessages: 100 })).toHaveLength(93);
    expect(await queue.dequeue({ maxMessages: 100 })).toHaveLength(0);
  });
});

describe.concurrent('delay', () => {
  test('hides a message until it is over, and no longer', async () => {
    const queue = await shared.newQueue();
    const sentAt = performance.now();
    await queue.enqueue({ body: 'later', delaySeconds: 5 }, 'now');
    expect(bodies(await queue.dequeue({ maxMessages: 10 }))).toEqual(['now']);
    expect(bodies(await queue.browse('delayed'))).toEqual(['later']);
    const [message] = await eventually('the delayed message is due', async () => {
      const messages = await queue.dequeue();
      return messages.length > 0 && messages;
    });
    expect(message).toMatchObject({ body: 'later', receiveCount: 1 });
    expect(performance.now() - sentAt).toBeGreaterThanOrEqual(5000);
  });

  test("is the queue's unless the message names one, and 0 overrides it", async () => {
    const queue = await shared.newQueue({ delaySeconds: 600 });
    await queue.enqueue('as the queue says', { body: 'at once', delaySeconds: 0 }, { body: 'own', delaySeconds: 60 });
    expect(bodies(await queue.dequeue({ maxMessages: 10 }))).toEqual(['at once']);
    const delayed = await queue.browse('delayed');
    const delays = delayed.map(({ body, availableAt, enqueuedAt }) => [
      body,
      Math.round((Date.parse(availableAt) - Date.parse(enqueuedAt)) / 1000),
    ]);
    expect(delays).toEqual([
      ['own', 60],
      ['as the queue says', 600],
    ]);
  });

  test('comes before priority: a message that is not due is not handed out, however urgent', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue({ body: 'urgent but delayed', priority: 9, delaySeconds: 600 }, { body: 'idle', priority: 0 });
    expect(bodies(await queue.dequeue({ maxMessages: 10 }))).toEqual(['idle']);
  });
});
