import { expect, test } from 'vitest';
import { LIMITS } from './limits.js';
import { requestTooLarge, sizeLimits } from './size-limits.js';

const MIB = 1024 * 1024;

test.each([
  [1, 4],
  [4096, 4],
  [65_536, 4],
  [174_762, 4],
  [174_763, 5],
  [262_144, 6],
])('with bodies of up to %i bytes, a request has up to %i MiB', (bodyBytes, mebibytes) => {
  expect(sizeLimits(bodyBytes)).toEqual({ bodyBytes, requestBytes: mebibytes * MIB });
  expect(requestTooLarge(sizeLimits(bodyBytes))).toMatchObject({
    code: 'message-too-large',
    message: `The request is larger than ${mebibytes} MiB; send fewer messages at a time.`,
  });
});

test('the largest request fits a packet of 16 MiB as SQL, in hexadecimal, with room for its other columns', () => {
  expect(2 * sizeLimits(LIMITS.bodyBytesMost).requestBytes).toBeLessThanOrEqual(12 * MIB);
});

test('a request holds a message of the largest size, however it is escaped', () => {
  for (let bodyBytes = 1; bodyBytes <= LIMITS.bodyBytesMost; bodyBytes += 4095) {
    const message = { body: '\u0001'.repeat(bodyBytes), headers: { h: 'x'.repeat(LIMITS.headersBytes) } };
    const bytes = JSON.stringify({ messages: [message] }).length;
    expect(bytes).toBeLessThan(sizeLimits(bodyBytes).requestBytes);
  }
});
