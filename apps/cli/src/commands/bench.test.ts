import { expect, it } from 'vitest';
import { quantiles } from './bench.js';

it('the quantiles of a load are values that occurred, in any order of arrival', () => {
  const values = Array.from({ length: 100 }, (_, index) => ((index * 37) % 100) + 1);
  expect(quantiles(values)).toEqual({ p50: 50, p95: 95, p99: 99, max: 100 });
  expect(quantiles([7])).toEqual({ p50: 7, p95: 7, p99: 7, max: 7 });
  expect(quantiles([])).toBeNull();
});
