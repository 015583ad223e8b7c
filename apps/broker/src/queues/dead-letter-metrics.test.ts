import { expect, test } from 'vitest';
import { bounded } from './dead-letter-metrics.js';

test('only the largest numbers of dead letters have labels of their own, and the sum stays', () => {
  const samples = [3, 9, 1, 5].map((messages, index) => ({ queue: 'dead', source: `s${index}`, messages }));
  expect(bounded(samples, 4)).toEqual(samples);
  expect(bounded(samples, 2)).toEqual([
    { queue: 'dead', source: 's1', messages: 9 },
    { queue: 'dead', source: 's3', messages: 5 },
    { queue: '(others)', source: '(others)', messages: 4 },
  ]);
});
