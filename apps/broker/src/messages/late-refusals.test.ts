import { afterEach, expect, test, vi } from 'vitest';
import { LateRefusals } from './late-refusals.js';

const NOW = 100_000;

afterEach(() => vi.useRealTimers());

test('a caller gets a hundred refusals at once, and later ones in their turn', () => {
  const late = new LateRefusals();
  const delays = Array.from({ length: 151 }, () => late.delayMs('a', NOW));
  // The burst, and the one that makes the debt.
  expect(delays.slice(0, 101)).toEqual(Array.from({ length: 101 }, () => 0));
  expect(delays[150]).toBe(500);
  expect(late.delayMs('b', NOW)).toBe(0);
});

test('no refusal waits longer than a second, and a caller who pauses for two is forgiven', () => {
  const late = new LateRefusals();
  const delays = Array.from({ length: 5000 }, () => late.delayMs('a', NOW));
  expect(Math.max(...delays)).toBe(1000);
  expect(late.delayMs('a', NOW + 2000)).toBe(0);
});

test('a thousand refusals wait at a time, and further ones come at once', () => {
  vi.useFakeTimers();
  const late = new LateRefusals();
  let answered = 0;
  for (let sent = 0; sent < 2000; sent += 1) late.send('a', () => (answered += 1));
  expect([answered, late.waiting]).toEqual([1000, 1000]);
  vi.advanceTimersByTime(1000);
  expect([answered, late.waiting]).toEqual([2000, 0]);
});
