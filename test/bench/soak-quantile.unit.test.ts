import { expect, it } from 'vitest';
import { quantile } from '../../bench/soak/broker-metrics.js';

const counts = new Map([
  [0.001, 0],
  [0.0025, 50],
  [0.005, 98],
  [0.01, 100],
  [Infinity, 100],
]);

it('quantile interpolates within the buckets of a histogram', () => {
  expect(quantile(counts, 0.5)).toBeCloseTo(0.0025);
  expect(quantile(counts, 0.25)).toBeCloseTo(0.00175);
  expect(quantile(counts, 0.99)).toBeCloseTo(0.0075);
});

it('quantile returns the last bound for larger values, and null without values', () => {
  expect(
    quantile(
      new Map([
        [10, 0],
        [Infinity, 3],
      ]),
      0.99,
    ),
  ).toBe(10);
  expect(
    quantile(
      new Map([
        [10, 0],
        [Infinity, 0],
      ]),
      0.5,
    ),
  ).toBeNull();
  expect(quantile(new Map(), 0.5)).toBeNull();
});
