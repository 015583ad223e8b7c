import { expect, test } from 'vitest';
import { readRequest } from './read-request.js';
import { dequeueRequest, enqueueRequest, putQueueRequest } from './schemas.js';

test('a request in the same process is read as JSON: undefined fields are absent, and NaN is null', () => {
  expect(readRequest(dequeueRequest, { leaseSeconds: undefined })).toEqual({ maxMessages: 1, waitSeconds: 0 });
  expect(readRequest(putQueueRequest, undefined)).toEqual({});
  expect(() => readRequest(dequeueRequest, { maxMessages: Number.NaN })).toThrow(
    expect.objectContaining({ code: 'invalid-request', faults: [expect.objectContaining({ path: 'maxMessages' })] }),
  );
});

test('a header named __proto__ is refused, because schemas would drop it', () => {
  const headers = JSON.parse('{"__proto__":"a"}');
  expect(() => readRequest(enqueueRequest, { messages: [{ body: 'x', headers }] })).toThrow(
    expect.objectContaining({ code: 'invalid-request', message: expect.stringContaining('__proto__') }),
  );
});

test('a refusal names ten faults, and how many more there are', () => {
  const messages = Array.from({ length: 12 }, () => ({ body: 'x', priority: 10 }));
  expect(() => readRequest(enqueueRequest, { messages })).toThrow(/^messages\.0\.priority: .*; and 2 more\.$/);
});

test('a request of more than 4 MiB is too large, whatever else is wrong with it', () => {
  const messages = Array.from({ length: 100 }, () => ({ body: 'x'.repeat(43_000), unknown: 1 }));
  expect(() => readRequest(enqueueRequest, { messages })).toThrow(
    expect.objectContaining({ code: 'message-too-large' }),
  );
});
