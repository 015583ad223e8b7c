import { expect, test } from 'vitest';
import { Rates } from './rates.js';

test('a name may use its rate, and a second of it at once', () => {
  const rates = new Rates();
  let [used, now] = [0, 100_000];
  for (; now < 110_000; now += 10)
    while (rates.waitMs('a', now) === 0) {
      rates.use('a', 5, 100, now);
      used += 5;
    }
  // Ten seconds, the burst and the request that makes the debt.
  expect(used).toBeGreaterThanOrEqual(1100);
  expect(used).toBeLessThanOrEqual(1110);
  expect(rates.waitMs('b', now)).toBe(0);
});

test('a request that is larger than the rate is admitted, and the next one waits until it is paid', () => {
  const rates = new Rates();
  expect(rates.waitMs('a', 5000)).toBe(0);
  rates.use('a', 100, 10, 5000);
  expect(rates.waitMs('a', 5000)).toBe(9000);
  expect(rates.waitMs('a', 14_000)).toBe(0);
});

test('a bounded number of names is remembered, and those in debt longest', () => {
  const rates = new Rates();
  rates.use('debtor', 1000, 1, 5000);
  for (let index = 0; index < 30_000; index += 1) rates.use(`name ${index}`, 1, 1000, 5000 + index);
  expect(rates.waitMs('debtor', 36_000)).toBeGreaterThan(0);
});
