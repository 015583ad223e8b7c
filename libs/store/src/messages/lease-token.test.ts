import { describe, expect, test } from 'vitest';
import { leasedAt, newLeaseToken } from './lease-token.js';

const NOW = Date.UTC(2026, 10, 30, 12, 0, 0, 700);
const SECOND = 1000;
const DAY = 86_400 * SECOND;

describe('the token of a lease', () => {
  test('tells to the second when the lease began, for as long as a message can live', () => {
    for (const age of [0, 1, 59, 3600, 86_400, 14 * 86_400])
      expect(leasedAt(newLeaseToken(NOW - age * SECOND), NOW)).toBe(Math.floor(NOW / SECOND - age) * SECOND);
  });

  test('tells it across the end of its count', () => {
    const end = 2 ** 24 * SECOND * 107;
    expect(leasedAt(newLeaseToken(end - 5 * SECOND), end + DAY)).toBe(end - 5 * SECOND);
  });

  test('never tells a time to come, if the clock of the broker is ahead', () => {
    expect(leasedAt(newLeaseToken(NOW + 600 * SECOND), NOW)).toBe(NOW);
  });

  test.each([3601, 7200, 86_400, 100 * 86_400])('tells nothing, if the clock of the broker is %d s ahead', (ahead) => {
    expect(leasedAt(newLeaseToken(NOW + ahead * SECOND), NOW)).toBeNull();
  });

  test('is another one each time', () => {
    const tokens = Array.from({ length: 1000 }, () => newLeaseToken(NOW).toString('hex'));
    expect(new Set(tokens).size).toBe(tokens.length);
  });
});
