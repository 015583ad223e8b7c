import { describe, expect, test } from 'vitest';
import { ERROR_CODES, PROBLEMS } from './errors.js';
import { LIMITS, QUEUE_DEFAULTS } from './limits.js';
import * as schemas from './schemas.js';

describe('every request', () => {
  const requests = {
    enqueueRequest: { messages: [{ body: 'b' }] },
    dequeueRequest: {},
    ackRequest: { receipts: ['r'] },
    nackRequest: { receipts: ['r'] },
    extendRequest: { receipts: ['r'], leaseSeconds: 1 },
    putQueueRequest: {},
    redriveRequest: {},
    browseQuery: {},
  } as const;

  test.each(Object.entries(requests))('refuses fields it does not know: %s', (name, minimal) => {
    const schema = schemas[name as keyof typeof requests];
    expect(schema.safeParse(minimal)).toMatchObject({ success: true });
    expect(schema.safeParse({ ...minimal, unknown: 1 })).toMatchObject({ success: false });
  });
});

test('what is left out has its default', () => {
  expect(schemas.enqueueMessage.parse({ body: '' })).toEqual({ body: '', bodyEncoding: 'utf8', priority: 4 });
  expect(schemas.dequeueRequest.parse({})).toEqual({ maxMessages: 1, waitSeconds: 0 });
  expect(schemas.nackRequest.parse({ receipts: ['r'] })).toEqual({ receipts: ['r'], delaySeconds: 0 });
  expect(schemas.putQueueRequest.parse(undefined)).toEqual({});
  expect(schemas.browseQuery.parse({ limit: '7' })).toEqual({ state: 'ready', limit: 7 });
});

test('the defaults of a queue are settings that a queue may have', () => {
  expect(schemas.queueSettings.parse(QUEUE_DEFAULTS)).toEqual(QUEUE_DEFAULTS);
});

test('every error has its own title and an HTTP status of its kind', () => {
  expect(Object.keys(PROBLEMS).toSorted()).toEqual([...ERROR_CODES].toSorted());
  for (const { status } of Object.values(PROBLEMS)) expect(status).toBeGreaterThanOrEqual(400);
  expect(new Set(Object.values(PROBLEMS).map(({ title }) => title)).size).toBe(ERROR_CODES.length);
});

test('the largest request that is allowed fits into the largest that is read', () => {
  const body = '\u0001'.repeat(LIMITS.bodyBytes);
  const headers = { k: '\u0001'.repeat(Math.floor((LIMITS.headersBytes - 8) / 6)) };
  const messages = Array.from({ length: LIMITS.batch }, () => ({
    body,
    bodyEncoding: 'utf8',
    headers,
    priority: 9,
    delaySeconds: LIMITS.delaySeconds,
    expiresInSeconds: LIMITS.messageTtlSeconds,
  }));
  expect(schemas.enqueueRequest.safeParse({ messages })).toMatchObject({ success: true });
  expect(JSON.stringify({ messages }).length).toBeLessThan(LIMITS.requestBytes);
});
