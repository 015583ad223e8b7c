import { expect, test } from 'vitest';
import { OTHERS, ShownQueues } from './shown-queues.js';

const MINUTE = 60_000;

test('as many queues as the limit have labels of their own, and the others share one', () => {
  const shown = new ShownQueues(2, () => undefined);
  expect(['a', 'b', 'c', 'a', 'd'].map((queue) => shown.labelOf(queue, 0))).toEqual(['a', 'b', OTHERS, 'a', OTHERS]);
  shown.forget('b');
  expect([shown.labelOf('c', 0), shown.labelOf('b', 0)]).toEqual(['c', OTHERS]);
});

test('a queue that was idle for ten minutes gives way to a busy one, the longest idle first', () => {
  const hidden: string[] = [];
  const shown = new ShownQueues(2, (queue) => hidden.push(queue));
  shown.labelOf('a', 0);
  shown.labelOf('b', 1);
  shown.labelOf('a', MINUTE);
  expect(shown.labelOf('c', 10 * MINUTE)).toBe(OTHERS);
  expect(shown.labelOf('c', 10 * MINUTE + 1)).toBe('c');
  expect([hidden, shown.names]).toEqual([['b'], ['a', 'c']]);
  expect(shown.labelOf('b', 11 * MINUTE)).toBe('b');
  expect(hidden).toEqual(['b', 'a']);
});
