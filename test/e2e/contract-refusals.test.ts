import { encodeReceipt } from '@rowmq/contract';
import { describe, expect, test, vi } from 'vitest';
import { type Answer, expectProblem, newQueueName, type QueueApi, useBroker } from '../support/api.js';
import { callRaw } from '../support/raw-http.js';
import { isFirstKind } from '../support/servers.js';

vi.setConfig({ maxConcurrency: 20 });

const shared = useBroker();

/**
 * Expects an empty queue: browse and stats show nothing in any state, and a consumer gets nothing.
 */
async function expectNothingStored(queue: QueueApi): Promise<void> {
  for (const state of ['ready', 'delayed', 'leased'] as const) expect(await queue.browse(state)).toEqual([]);
  expect((await queue.get()).stats).toMatchObject({
    ready: 0,
    delayed: 0,
    leased: 0,
    waiting: 0,
    oldestReadyAgeSeconds: null,
  });
  expect(await queue.dequeue({ maxMessages: 100 })).toEqual([]);
}

const text = (bytes: number): string => 'x'.repeat(bytes);
const base64 = (bytes: number): string => Buffer.alloc(bytes, 0xff).toString('base64');
const headers = (entries: number): Record<string, string> =>
  Object.fromEntries(Array.from({ length: entries }, (_, index) => [`h${index}`, 'v']));
/** Headers of exactly this many bytes as JSON: `{"k":"…"}`. */
const headersOf = (bytes: number): Record<string, string> => ({ k: text(bytes - '{"k":""}'.length) });
const times = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);

describe.concurrent('an enqueue at the edge of a limit is accepted', () => {
  test.each<[string, Record<string, unknown>]>([
    ['a body of 4096 ASCII bytes', { body: text(4096) }],
    ['a body of 4096 bytes in 1024 characters', { body: '😀'.repeat(1024) }],
    ['a body of 4096 bytes with the last character half the size', { body: `${'ä'.repeat(2047)}xy` }],
    ['a base64 body of 4096 bytes', { body: base64(4096), bodyEncoding: 'base64' }],
    ['a body whose JSON is six times its size', { body: '\u0001'.repeat(4096) }],
    ['16 headers', { body: 'b', headers: headers(16) }],
    ['headers of 1024 bytes', { body: 'b', headers: headersOf(1024) }],
    ['headers of 1024 bytes in fewer characters', { body: 'b', headers: { k: 'ä'.repeat(508) } }],
    ['no headers in particular', { body: 'b', headers: {} }],
    ['priority 0', { body: 'b', priority: 0 }],
    ['priority 9', { body: 'b', priority: 9 }],
    ['priority 4.0, which JSON does not tell from 4', { body: 'b', priority: 4 }],
    ['the longest delay', { body: 'b', delaySeconds: 31_622_400 }],
    ['no delay', { body: 'b', delaySeconds: 0 }],
    ['the shortest life', { body: 'b', expiresInSeconds: 1 }],
    ['the longest life', { body: 'b', expiresInSeconds: 32_832_000 }],
    ['a time that has passed', { body: 'b', availableAt: '1970-01-01T00:00:00Z' }],
    ['a time with an offset', { body: 'b', availableAt: '2026-01-01T00:00:00.000+01:00' }],
  ])('%s', async (_, message) => {
    const queue = await shared.newQueue();
    const answer = await queue.request('enqueue', { messages: [message] });
    expect(answer.status, answer.text).toBe(201);
  });

  test('100 messages of 4096 bytes, each byte escaped', async () => {
    const queue = await shared.newQueue();
    const messages = times(100, { body: '\u0001'.repeat(4096), headers: headersOf(1024) });
    expect((await queue.request('enqueue', { messages })).status).toBe(201);
    expect(await queue.dequeue({ maxMessages: 100 })).toHaveLength(100);
  });
});

// The broker refuses these before it asks the database.
describe.runIf(isFirstKind()).concurrent('an enqueue is refused, and none of it is stored, for', () => {
  const good = { body: 'good' };

  test.each<[string, unknown, string]>([
    ['an unknown field beside messages', { messages: [good], queue: 'x' }, ''],
    ['an unknown field of a message', { messages: [good, { body: 'b', ttl: 5 }] }, 'messages.1'],
    ['a field named constructor', { messages: [{ body: 'b', constructor: 'x' }] }, 'messages.0'],
    ['a field whose name differs in case', { messages: [{ body: 'b', Priority: 1 }] }, 'messages.0'],
    ['no messages field', {}, 'messages'],
    ['messages that are no array', { messages: good }, 'messages'],
    ['no messages at all', { messages: [] }, 'messages'],
    ['101 messages', { messages: times(101, good) }, 'messages'],
    ['a message that is null', { messages: [null] }, 'messages.0'],
    ['a message that is text', { messages: ['text'] }, 'messages.0'],
    ['a message without a body', { messages: [good, {}] }, 'messages.1.body'],
    ['a body that is null', { messages: [{ body: null }] }, 'messages.0.body'],
    ['a body that is a number', { messages: [{ body: 1 }] }, 'messages.0.body'],
    ['a body that is an object', { messages: [{ body: { a: 1 } }] }, 'messages.0.body'],
    ['a body with half of a surrogate pair', { messages: [{ body: 'a\uD83D' }] }, 'messages.0.body'],
    ['a body with surrogates the wrong way round', { messages: [{ body: '\uDE00\uD83D' }] }, 'messages.0.body'],
    ['an unknown encoding', { messages: [{ body: 'b', bodyEncoding: 'hex' }] }, 'messages.0.bodyEncoding'],
    ['headers that are an array', { messages: [{ body: 'b', headers: ['a'] }] }, 'messages.0.headers'],
    ['headers that are null', { messages: [{ body: 'b', headers: null }] }, 'messages.0.headers'],
    ['a header that is a number', { messages: [{ body: 'b', headers: { a: 1 } }] }, 'messages.0.headers.a'],
    ['a header that is null', { messages: [{ body: 'b', headers: { a: null } }] }, 'messages.0.headers.a'],
    ['a header without a name', { messages: [{ body: 'b', headers: { '': 'v' } }] }, 'messages.0.headers'],
    ['half of a pair in a header', { messages: [{ body: 'b', headers: { a: '\uD83D' } }] }, 'messages.0.headers'],
    ['half of a pair in a name', { messages: [{ body: 'b', headers: { '\uDE00': 'a' } }] }, 'messages.0.headers'],
    ['17 headers', { messages: [{ body: 'b', headers: headers(17) }] }, 'messages.0.headers'],
    ['priority -1', { messages: [{ body: 'b', priority: -1 }] }, 'messages.0.priority'],
    ['priority 10', { messages: [{ body: 'b', priority: 10 }] }, 'messages.0.priority'],
    ['priority 4.5', { messages: [{ body: 'b', priority: 4.5 }] }, 'messages.0.priority'],
    ['a priority that is text', { messages: [{ body: 'b', priority: '4' }] }, 'messages.0.priority'],
    ['a priority that is null', { messages: [{ body: 'b', priority: null }] }, 'messages.0.priority'],
    ['delaySeconds -1', { messages: [{ body: 'b', delaySeconds: -1 }] }, 'messages.0.delaySeconds'],
    ['delaySeconds 31622401', { messages: [{ body: 'b', delaySeconds: 31_622_401 }] }, 'messages.0.delaySeconds'],
    ['delaySeconds 0.5', { messages: [{ body: 'b', delaySeconds: 0.5 }] }, 'messages.0.delaySeconds'],
    ['expiresInSeconds 0', { messages: [{ body: 'b', expiresInSeconds: 0 }] }, 'messages.0.expiresInSeconds'],
    ['expiresInSeconds 32832001', { messages: [{ body: 'b', expiresInSeconds: 32_832_001 }] }, 'messages.0.expiresIn'],
    ['a time without a zone', { messages: [{ body: 'b', availableAt: '2026-01-01T00:00:00' }] }, '0.availableAt'],
    ['a day that does not exist', { messages: [{ body: 'b', availableAt: '2026-02-29T00:00:00Z' }] }, '0.availableAt'],
    [
      'a delay and a time',
      { messages: [{ body: 'b', delaySeconds: 0, availableAt: '2026-01-01T00:00:00Z' }] },
      'messages.0.availableAt',
    ],
    ['expiresInSeconds 1e300', { messages: [{ body: 'b', expiresInSeconds: 1e300 }] }, 'messages.0.expiresInSeconds'],
    ['an array instead of an object', [good], ''],
    ['a string instead of an object', '"text"', ''],
    ['null instead of an object', 'null', ''],
  ])('%s', async (_, request, path) => {
    const queue = await shared.newQueue();
    const problem = expectProblem(await queue.request('enqueue', request), 400, 'invalid-request');
    expect(problem.faults?.map((fault) => fault.path).join(' ')).toContain(path);
    await expectNothingStored(queue);
  });

  test.each<[string, unknown, RegExp]>([
    ['a body that is not base64', { body: '=', bodyEncoding: 'base64' }, /messages\.1\.body.*base64/],
    ['base64 without its padding', { body: 'YQ', bodyEncoding: 'base64' }, /padded/],
    ['the base64 of URLs', { body: '_-8=', bodyEncoding: 'base64' }, /RFC 4648/],
    ['base64 with a line end', { body: 'YWJj\n', bodyEncoding: 'base64' }, /base64/],
    ['a life that ends before its delay', { body: 'b', delaySeconds: 60, expiresInSeconds: 60 }, /before its delay/],
    [
      'a life that ends before its time',
      { body: 'b', availableAt: new Date(Date.now() + 3_600_000), expiresInSeconds: 3000 },
      /before its delay/,
    ],
    ['a time too far ahead', { body: 'b', availableAt: new Date(Date.now() + 367 * 86_400_000) }, /366 days/],
  ])('%s, named by its place', async (_, message, detail) => {
    const queue = await shared.newQueue();
    const answer = await queue.request('enqueue', { messages: [good, message] });
    expect(expectProblem(answer, 400, 'invalid-request').detail).toMatch(detail);
    await expectNothingStored(queue);
  });

  test.each<[string, Record<string, unknown>, RegExp]>([
    ['a body of 4097 ASCII bytes', { body: text(4097) }, /messages\.1\.body has 4097 bytes, more than 4096/],
    ['a body of 4097 bytes in 2049 characters', { body: `${'ä'.repeat(2048)}x` }, /4097 bytes/],
    ['a base64 body of 4097 bytes', { body: base64(4097), bodyEncoding: 'base64' }, /4097 bytes/],
    ['headers of 1025 bytes', { body: 'b', headers: headersOf(1025) }, /messages\.1\.headers have 1025 bytes/],
    ['headers of 1025 bytes in fewer characters', { body: 'b', headers: { k: `${'ä'.repeat(508)}x` } }, /1025 bytes/],
  ])('%s: message-too-large', async (_, message, detail) => {
    const queue = await shared.newQueue();
    const answer = await queue.request('enqueue', { messages: [good, message] });
    expect(expectProblem(answer, 413, 'message-too-large').detail).toMatch(detail);
    await expectNothingStored(queue);
  });

  test.each<[string, string | Uint8Array, RegExp]>([
    ['text that is not JSON', '{"messages":[{"body":"good"}]', /not JSON/],
    ['two documents', '{"messages":[{"body":"good"}]}{}', /not JSON/],
    ['a comment', '{"messages":[{"body":"good"}]} // hello', /not JSON/],
    ['NaN', '{"messages":[{"body":"good","priority":NaN}]}', /not JSON/],
    ['a raw control character', '{"messages":[{"body":"a\u0000b"}]}', /not JSON/],
    ['a byte order mark', '\uFEFF{"messages":[{"body":"good"}]}', /not JSON/],
    ['UTF-16', Buffer.from('{"messages":[{"body":"good"}]}', 'utf16le'), /not JSON|UTF-8/],
    ['Latin-1', Buffer.from('{"messages":[{"body":"grün"}]}', 'latin1'), /not valid UTF-8/],
    [
      'bytes that are not UTF-8',
      Buffer.concat([Buffer.from('{"messages":[{"body":"'), Buffer.from([0xff]), Buffer.from('"}]}')]),
      /not valid UTF-8.*base64/,
    ],
    [
      'a header __proto__',
      '{"messages":[{"body":"b","headers":{"__proto__":"p","kept":"k"}}]}',
      /'__proto__' cannot be/,
    ],
    ['a hidden __proto__', '{"messages":[{"body":"b","headers":{"__pr\\u006fto__":"p"}}]}', /'__proto__' cannot be/],
    ['a field __proto__', '{"messages":[{"body":"b","__proto__":{"priority":9}}]}', /'__proto__' cannot be/],
    ['__proto__ beside messages', '{"__proto__":{},"messages":[{"body":"b"}]}', /'__proto__' cannot be/],
  ])('%s', async (_, request, detail) => {
    const queue = await shared.newQueue();
    const answer = await shared.api.post(queue.messagesPath, request);
    expect(expectProblem(answer, 400, 'invalid-request').detail).toMatch(detail);
    await expectNothingStored(queue);
  });

  test('no body at all', async () => {
    const queue = await shared.newQueue();
    for (const answer of [
      await shared.api.post(queue.messagesPath, ''),
      await shared.api.post(queue.messagesPath),
      await shared.api.call('POST', queue.messagesPath, undefined, { 'content-type': 'application/json' }),
    ])
      expectProblem(answer, 400, 'invalid-request');
    await expectNothingStored(queue);
  });

  test('a body with a member __proto__ is not refused', async () => {
    const queue = await shared.newQueue();
    const body = '{"__proto__":{"x":1}}';
    await queue.enqueue({ body, headers: { about: '__proto__' } });
    expect(await queue.dequeueOne()).toMatchObject({ body, headers: { about: '__proto__' } });
  });

  test.each(['text/plain', 'application/xml', 'application/x-www-form-urlencoded', 'nonsense', 'application/jsonx'])(
    'the content type %s',
    async (type) => {
      const queue = await shared.newQueue();
      const answer = await shared.api.call('POST', queue.messagesPath, '{"messages":[{"body":"b"}]}', {
        'content-type': type,
      });
      expect(expectProblem(answer, 415, 'invalid-request').detail).toContain('application/json');
      await expectNothingStored(queue);
    },
  );

  test('a content type with a charset is accepted', async () => {
    const queue = await shared.newQueue();
    const answer = await shared.api.call('POST', queue.messagesPath, '{"messages":[{"body":"b"}]}', {
      'content-type': 'application/json; charset=utf-8',
    });
    expect(answer.status, answer.text).toBe(201);
  });

  test('a request of more than 4 MiB', async () => {
    const queue = await shared.newQueue();
    const request = JSON.stringify({ messages: [good] });
    const padding = ' '.repeat(4 * 1024 * 1024 - request.length);
    expect((await shared.api.post(queue.messagesPath, request + padding)).status).toBe(201);
    for (const more of [' ', padding, padding.repeat(4)]) {
      const answer = await shared.api.post(queue.messagesPath, request + padding + more);
      expect(expectProblem(answer, 413, 'message-too-large').detail).toContain('4 MiB');
    }
    expect(await queue.browse('ready')).toHaveLength(1);
  });

  test('faults are named ten at a time', async () => {
    const queue = await shared.newQueue();
    const answer = await queue.request('enqueue', { messages: times(20, {}) });
    const problem = expectProblem(answer, 400, 'invalid-request');
    expect(problem.faults).toHaveLength(10);
    expect(problem.detail).toContain('and 10 more');
  });
});

describe.runIf(isFirstKind()).concurrent('the other calls refuse', () => {
  const receipt = encodeReceipt({ messageId: Buffer.alloc(16), leaseToken: Buffer.alloc(8), part: 0, members: 1 });

  test.each<['dequeue' | 'ack' | 'nack' | 'extend', string, unknown, string]>([
    ['dequeue', 'maxMessages 0', { maxMessages: 0 }, 'maxMessages'],
    ['dequeue', 'maxMessages 101', { maxMessages: 101 }, 'maxMessages'],
    ['dequeue', 'maxMessages "1"', { maxMessages: '1' }, 'maxMessages'],
    ['dequeue', 'maxMessages null', { maxMessages: null }, 'maxMessages'],
    ['dequeue', 'waitSeconds -1', { waitSeconds: -1 }, 'waitSeconds'],
    ['dequeue', 'waitSeconds 21', { waitSeconds: 21 }, 'waitSeconds'],
    ['dequeue', 'waitSeconds 0.1', { waitSeconds: 0.1 }, 'waitSeconds'],
    ['dequeue', 'leaseSeconds 0', { leaseSeconds: 0 }, 'leaseSeconds'],
    ['dequeue', 'leaseSeconds 43201', { leaseSeconds: 43_201 }, 'leaseSeconds'],
    ['dequeue', '101 acks', { ack: times(101, receipt) }, 'ack'],
    ['dequeue', 'an ack that is a number', { ack: [receipt, 1] }, 'ack.1'],
    ['dequeue', 'acks that are null', { ack: null }, 'ack'],
    ['dequeue', 'an unknown field', { maxmessages: 5 }, ''],
    ['dequeue', 'an array', [], ''],
    ['ack', 'no receipts', { receipts: [] }, 'receipts'],
    ['ack', 'no receipts field', {}, 'receipts'],
    ['ack', 'no body', undefined, ''],
    ['ack', '101 receipts', { receipts: times(101, receipt) }, 'receipts'],
    ['ack', 'a receipt that is a number', { receipts: [1] }, 'receipts.0'],
    ['ack', 'a receipt that is empty', { receipts: [''] }, 'receipts.0'],
    ['ack', 'a receipt of 201 characters', { receipts: [text(201)] }, 'receipts.0'],
    ['ack', 'an unknown field', { receipts: [receipt], delaySeconds: 1 }, ''],
    ['nack', '101 receipts', { receipts: times(101, receipt) }, 'receipts'],
    ['nack', 'delaySeconds -1', { receipts: [receipt], delaySeconds: -1 }, 'delaySeconds'],
    ['nack', 'delaySeconds 43201', { receipts: [receipt], delaySeconds: 43_201 }, 'delaySeconds'],
    ['nack', 'a reason of 201 characters', { receipts: [receipt], reason: text(201) }, 'reason'],
    ['nack', 'a reason with half of a pair', { receipts: [receipt], reason: '\uD83D' }, 'reason'],
    ['nack', 'an unknown field', { receipts: [receipt], why: 'x' }, ''],
    ['extend', 'no leaseSeconds', { receipts: [receipt] }, 'leaseSeconds'],
    ['extend', 'leaseSeconds 0', { receipts: [receipt], leaseSeconds: 0 }, 'leaseSeconds'],
    ['extend', 'leaseSeconds 43201', { receipts: [receipt], leaseSeconds: 43_201 }, 'leaseSeconds'],
    ['extend', 'an unknown field', { receipts: [receipt], leaseSeconds: 1, x: 1 }, ''],
  ])('%s: %s, and touches nothing', async (verb, _, request, path) => {
    const queue = await shared.newQueue();
    const [id] = await queue.enqueue('untouched');
    const problem = expectProblem(await queue.request(verb, request), 400, 'invalid-request');
    expect(problem.faults?.map((fault) => fault.path).join(' ')).toContain(path);
    expect(await queue.browse('ready')).toMatchObject([{ id, receiveCount: 0 }]);
  });

  test('dequeue accepts the limits: 100 messages, 20 seconds, 43200 seconds', async () => {
    const queue = await shared.newQueue();
    await queue.enqueue('b');
    expect(await queue.dequeue({ maxMessages: 100, waitSeconds: 20, leaseSeconds: 43_200 })).toHaveLength(1);
  });

  test.each(['x', text(31), text(33), `${text(31)}+`, `${text(31)}%20`, text(200), '%00', '%F0%9F%98%80'])(
    'DELETE with the malformed receipt %s',
    async (malformed) => {
      const queue = await shared.newQueue();
      const problem = expectProblem(await queue.requestAckOne(malformed), 400, 'invalid-request');
      expect(problem.detail).toContain('receipt');
    },
  );

  test.each(['%', '%ZZ', '%C3%28', text(301)])('a path that cannot be decoded, or is too long: %s', async (segment) => {
    const queue = await shared.newQueue();
    expectProblem(await queue.requestAckOne(segment), 400, 'invalid-request');
  });

  test.each<[string, string]>([
    ['GET', '/v1'],
    ['GET', '/v1/queues'],
    ['GET', '/v2/admin/queues'],
    ['POST', '/v1/queues/q/messages/dequeu'],
    ['GET', '/v1/queues/q/messages'],
    ['PATCH', '/v1/admin/queues/q'],
    ['DELETE', '/v1/admin/reaper'],
    ['POST', '/v1/admin/queues/q/purge/now'],
  ])('a call that does not exist: %s %s', async (method, path) => {
    const answer = await shared.api.call(method, path);
    expect(expectProblem(answer, 404, 'invalid-request').detail).toContain('/openapi.json');
  });

  test.each([
    'state=done',
    'state=',
    'limit=0',
    'limit=101',
    'limit=x',
    'limit=',
    'after=x',
    'offset=3',
    'limit=1&limit=2',
  ])('browse with ?%s', async (query) => {
    const queue = await shared.newQueue();
    expectProblem(await shared.api.get(`${queue.adminPath}/messages?${query}`), 400, 'invalid-request');
  });

  test.each(['1', 'x', '019a0b5dac96774b8cceb302099a8057', '{019a0b5d-ac96-774b-8cce-b302099a8057}', '%27'])(
    'to show a message of the id %s',
    async (id) => {
      expectProblem(await shared.api.get(`/v1/admin/messages/${id}`), 400, 'invalid-request');
    },
  );
});

describe.concurrent('a queue', () => {
  test.each([text(80), 'a', '0', '-', '_', 'A.b-c_9', '...', '.a', '..a', 'a.', '-..', 'constructor', '__proto__'])(
    'may be called %s',
    async (name) => {
      const queue = shared.api.queue(name);
      expect((await queue.put()).name).toBe(name);
      const [id] = await queue.enqueue('b');
      expect(await queue.dequeueOne()).toMatchObject({ id });
      expect((await shared.api.delete(`${queue.adminPath}?force=true`)).status).toBe(204);
    },
  );

  test.each([text(81), text(300), '%20', 'a%20b', 'a%2Fb', '%C3%A4', 'a%00', 'a:b', '*', 'a%0A', '%25', "'"])(
    'may not be called %s',
    async (name) => {
      const calls: Promise<Answer>[] = [
        shared.api.put(`/v1/admin/queues/${name}`),
        shared.api.get(`/v1/admin/queues/${name}`),
        shared.api.delete(`/v1/admin/queues/${name}`),
        shared.api.post(`/v1/queues/${name}/messages`, { messages: [{ body: 'b' }] }),
        shared.api.post(`/v1/queues/${name}/messages/dequeue`, {}),
      ];
      for (const answer of await Promise.all(calls)) expectProblem(answer, 400, 'invalid-request');
    },
  );

  // The clients of most languages, and proxies, take these for path segments to remove.
  test.each(['.', '..', '%2e', '%2E', '%2e%2e', '.%2E', '%2e.'])(
    'may not be called %s, which no URL can carry',
    async (name) => {
      const used = await shared.newQueue();
      for (const [method, path, body] of [
        ['PUT', `/v1/admin/queues/${name}`, {}],
        ['GET', `/v1/admin/queues/${name}`],
        ['POST', `/v1/queues/${name}/messages`, { messages: [{ body: 'b' }] }],
        ['POST', `/v1/queues/${name}/messages/dequeue`, {}],
      ] as const) {
        const { status, text: answer } = await callRaw(shared.broker.url, method, path, body);
        expect({ status, answer }).toEqual({ status: 400, answer: expect.stringContaining('no URL can carry') });
      }
      const dead = { deadLetterQueue: decodeURIComponent(name) };
      expectProblem(await shared.api.put(used.adminPath, dead), 400, 'invalid-request');
    },
  );

  test('is another one than a queue whose name differs in case only', async () => {
    const [lower, upper] = [shared.api.queue('case-matters'), shared.api.queue('CASE-matters')];
    await lower.put({ leaseSeconds: 11 });
    await upper.put({ leaseSeconds: 12 });
    expect([(await lower.get()).leaseSeconds, (await upper.get()).leaseSeconds]).toEqual([11, 12]);
  });

  test.each<[string, unknown, string]>([
    ['leaseSeconds 0', { leaseSeconds: 0 }, 'leaseSeconds'],
    ['leaseSeconds 43201', { leaseSeconds: 43_201 }, 'leaseSeconds'],
    ['leaseSeconds null', { leaseSeconds: null }, 'leaseSeconds'],
    ['leaseSeconds 1.5', { leaseSeconds: 1.5 }, 'leaseSeconds'],
    ['messageTtlSeconds 0', { messageTtlSeconds: 0 }, 'messageTtlSeconds'],
    ['messageTtlSeconds 1209601', { messageTtlSeconds: 1_209_601 }, 'messageTtlSeconds'],
    ['delaySeconds -1', { delaySeconds: -1 }, 'delaySeconds'],
    ['delaySeconds 43201', { delaySeconds: 43_201 }, 'delaySeconds'],
    ['maxReceives 0', { maxReceives: 0 }, 'maxReceives'],
    ['maxReceives 1001', { maxReceives: 1001 }, 'maxReceives'],
    ['maxReceives "5"', { maxReceives: '5' }, 'maxReceives'],
    ['maxDepth 0', { maxDepth: 0 }, 'maxDepth'],
    ['maxDepth 1000000001', { maxDepth: 1_000_000_001 }, 'maxDepth'],
    ['a malformed dead-letter queue', { deadLetterQueue: 'a b' }, 'deadLetterQueue'],
    ['an unknown field', { leaseSecond: 5 }, ''],
    ['a field named constructor', { constructor: 5 }, ''],
    ['its own name', { name: 'x' }, ''],
    ['paused', { paused: true }, ''],
    ['an array', [], ''],
  ])('is not created with %s', async (_, settings, path) => {
    const name = newQueueName();
    const problem = expectProblem(await shared.api.put(`/v1/admin/queues/${name}`, settings), 400, 'invalid-request');
    expect(problem.faults?.map((fault) => fault.path).join(' ')).toContain(path);
    expectProblem(await shared.api.get(`/v1/admin/queues/${name}`), 404, 'queue-not-found');
  });

  test('is created with every setting at its limit', async () => {
    const dead = await shared.newQueue();
    for (const settings of [
      {
        leaseSeconds: 1,
        messageTtlSeconds: 1,
        delaySeconds: 0,
        maxReceives: 1,
        maxDepth: 1,
        deadLetterQueue: dead.name,
      },
      {
        leaseSeconds: 43_200,
        messageTtlSeconds: 1_209_600,
        delaySeconds: 43_200,
        maxReceives: 1000,
        maxDepth: 1_000_000_000,
        deadLetterQueue: dead.name,
      },
    ])
      expect(await (await shared.newQueue(settings)).get()).toMatchObject(settings);
  });

  test('has no maxReceives without a dead-letter queue, however it would come to that', async () => {
    const name = newQueueName();
    const refused = await shared.api.put(`/v1/admin/queues/${name}`, { maxReceives: 3 });
    const { detail, faults } = expectProblem(refused, 400, 'invalid-request');
    expect(detail).toContain('or set maxReceives to null');
    expect(faults).toMatchObject([{ path: 'maxReceives' }]);
    expectProblem(await shared.api.get(`/v1/admin/queues/${name}`), 404, 'queue-not-found');

    const dead = await shared.newQueue();
    const queue = await shared.newQueue({ deadLetterQueue: dead.name });
    const strict = await queue.put({ maxReceives: 3 });
    for (const settings of [{ deadLetterQueue: null }, { deadLetterQueue: null, maxReceives: 4 }]) {
      const answer = await shared.api.put(queue.adminPath, settings);
      expect(expectProblem(answer, 400, 'invalid-request').faults).toMatchObject([{ path: 'maxReceives' }]);
    }
    expect(await queue.get()).toEqual(strict);
    expect(await queue.put({ deadLetterQueue: null, maxReceives: null })).toMatchObject({ maxReceives: null });
    expectProblem(await shared.api.put(queue.adminPath, { maxReceives: 3 }), 400, 'invalid-request');
  });

  test.each([2, 3, 7])('is not part of a circle of %i dead-letter queues', async (length) => {
    const queues: QueueApi[] = [];
    for (let index = 0; index < length; index += 1)
      queues.push(await shared.newQueue(index === 0 ? {} : { deadLetterQueue: queues[index - 1]!.name }));
    const [first, last] = [queues[0]!, queues.at(-1)!];
    const answer = await shared.api.put(first.adminPath, { deadLetterQueue: last.name, leaseSeconds: 77 });
    const { detail } = expectProblem(answer, 400, 'invalid-request');
    expect(detail).toContain([first, ...queues.toReversed()].map(({ name }) => name).join(' → '));
    expect(await first.get()).toMatchObject({ deadLetterQueue: null, leaseSeconds: 30 });
    // A tree is none.
    const other = await shared.newQueue({ deadLetterQueue: last.name });
    expect(await other.get()).toMatchObject({ deadLetterQueue: last.name });
  });

  test('is not part of a circle that several clients would close at the same time', async () => {
    for (let round = 0; round < 5; round += 1) {
      // Each change alone is none, and no two of them concern the same queue.
      const queues = await Promise.all(Array.from({ length: 8 }, async () => shared.newQueue()));
      for (let index = 1; index < 8; index += 2)
        await queues[index]!.put({ deadLetterQueue: queues[(index + 1) % 8]!.name });
      const answers = await Promise.all(
        [0, 2, 4, 6].map(async (index) =>
          shared.api.put(queues[index]!.adminPath, { deadLetterQueue: queues[index + 1]!.name }),
        ),
      );
      expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 200, 200, 400]);
    }
  });

  test('is not created with a dead-letter queue that does not exist, nor with itself', async () => {
    const name = newQueueName();
    for (const deadLetterQueue of ['nowhere', name]) {
      const answer = await shared.api.put(`/v1/admin/queues/${name}`, { deadLetterQueue });
      expectProblem(answer, 400, 'invalid-request');
    }
    expectProblem(await shared.api.get(`/v1/admin/queues/${name}`), 404, 'queue-not-found');
  });

  test.each<[string, unknown]>([
    ['maxMessages 0', { maxMessages: 0 }],
    ['maxMessages 1000000001', { maxMessages: 1_000_000_001 }],
    ['a rate of 0', { messagesPerSecond: 0 }],
    ['an unknown condition', { filter: { queue: 'q' } }],
    ['an empty text', { filter: { body: '' } }],
    ['a time without a zone', { filter: { movedTo: '2026-11-22T18:00:00' } }],
    ['an unknown field', { limit: 5 }],
  ])('is not redriven with %s', async (_, request) => {
    const queue = await shared.newQueue();
    expectProblem(await shared.api.post(`${queue.adminPath}/redrive`, request), 400, 'invalid-request');
  });

  test.each(['purge', 'pause', 'resume'])('refuses a request body with content for %s', async (action) => {
    const queue = await shared.newQueue();
    if (action === 'resume') await queue.admin('pause');
    await queue.enqueue('untouched');
    for (const request of [{ maxMessages: 10 }, { queue: queue.name }, [], '"text"', '1', 'true'])
      expectProblem(await shared.api.post(`${queue.adminPath}/${action}`, request), 400, 'invalid-request');
    expect(await queue.browse('ready')).toHaveLength(1);
    expect((await queue.get()).paused).toBe(action === 'resume');
  });

  test.each(['purge', 'pause', 'resume'])('accepts an empty or absent body for %s', async (action) => {
    const queue = await shared.newQueue();
    const path = `${queue.adminPath}/${action}`;
    for (const answer of [
      await shared.api.post(path),
      await shared.api.post(path, {}),
      await shared.api.post(path, ''),
      await shared.api.post(path, 'null'),
      await shared.api.call('POST', path, undefined, { 'content-type': 'application/json' }),
    ])
      expect(answer.status, answer.text).toBe(action === 'purge' ? 202 : 200);
  });
});
