import { describe, expect, test } from 'vitest';
import { browseQuery } from './browse-schemas.js';
import { ERROR_CODES, PROBLEMS } from './errors.js';
import { redriveRequest } from './job-schemas.js';
import { LIMITS, QUEUE_DEFAULTS } from './limits.js';
import { sizeLimits } from './size-limits.js';
import {
  ackRequest,
  dequeueRequest,
  emptyRequest,
  enqueueMessage,
  enqueueRequest,
  extendRequest,
  nackRequest,
  putQueueRequest,
  queueSettings,
} from './schemas.js';
import { putScheduleRequest } from './schedules.js';

describe('every request', () => {
  test.each([
    ['enqueue', enqueueRequest, { messages: [{ body: 'b' }] }],
    ['dequeue', dequeueRequest, {}],
    ['ack', ackRequest, { receipts: ['r'] }],
    ['nack', nackRequest, { receipts: ['r'] }],
    ['extend', extendRequest, { receipts: ['r'], leaseSeconds: 1 }],
    ['PUT of a queue', putQueueRequest, {}],
    ['redrive', redriveRequest, {}],
    ['PUT of a schedule', putScheduleRequest, { everySeconds: 1, queue: 'q', message: { body: 'b' } }],
    ['purge, pause and resume', emptyRequest, {}],
    ['browse', browseQuery, {}],
  ])('refuses fields it does not know: %s', (_, schema, minimal) => {
    expect(schema.safeParse(minimal)).toMatchObject({ success: true });
    expect(schema.safeParse({ ...minimal, unknown: 1 })).toMatchObject({ success: false });
  });
});

test('an absent field gets its default', () => {
  expect(enqueueMessage.parse({ body: '' })).toEqual({ body: '', bodyEncoding: 'utf8', priority: 4 });
  expect(dequeueRequest.parse({})).toEqual({ maxMessages: 1, waitSeconds: 0 });
  expect(nackRequest.parse({ receipts: ['r'] })).toEqual({ receipts: ['r'], delaySeconds: 0, deadLetter: false });
  expect(putQueueRequest.parse(undefined)).toEqual({});
  expect(browseQuery.parse({ limit: '7' })).toEqual({ state: 'ready', limit: 7 });
});

test('a dequeue carries up to a hundred acks, or none', () => {
  const acks = (count: number) => ({ ack: Array<string>(count).fill('r') });
  for (const count of [0, 1, 100]) expect(dequeueRequest.parse(acks(count))).toMatchObject(acks(count));
  expect(dequeueRequest.safeParse(acks(101))).toMatchObject({ success: false });
});

test('the defaults of a queue are valid settings', () => {
  expect(queueSettings.parse(QUEUE_DEFAULTS)).toEqual(QUEUE_DEFAULTS);
});

test('every error has its own title and an HTTP status of its kind', () => {
  expect(Object.keys(PROBLEMS).toSorted()).toEqual([...ERROR_CODES].toSorted());
  for (const { status } of Object.values(PROBLEMS)) expect(status).toBeGreaterThanOrEqual(400);
  expect(new Set(Object.values(PROBLEMS).map(({ title }) => title)).size).toBe(ERROR_CODES.length);
});

test('the largest valid request fits into the largest body that a broker reads', () => {
  const body = '\u0001'.repeat(LIMITS.bodyBytesDefault);
  const headers = { k: '\u0001'.repeat(Math.floor((LIMITS.headersBytes - 8) / 6)) };
  const messages = Array.from({ length: LIMITS.batch }, () => ({
    body,
    bodyEncoding: 'utf8',
    headers,
    priority: 9,
    delaySeconds: LIMITS.aheadSeconds,
    expiresInSeconds: LIMITS.expiresInSeconds,
  }));
  expect(enqueueRequest.safeParse({ messages })).toMatchObject({ success: true });
  expect(JSON.stringify({ messages }).length).toBeLessThan(sizeLimits().requestBytes);
});
