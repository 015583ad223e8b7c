import { expect, test } from 'vitest';
import { TransactionalQueue } from './adapter.js';
import { quotedName, withLiterals } from './literal.js';

/** A queue whose adapter answers every SELECT with this. */
function queueOf(answer: unknown): TransactionalQueue<object, string> {
  const adapter = () => ({ read: async () => answer, write: async () => undefined });
  return new TransactionalQueue<object, string>('orders', { adapter });
}

const facts = { name: 'orders', level: 'READ-COMMITTED', isOpen: 1 };

test.each([
  ['nothing', undefined, /read returned undefined; return the rows of the SELECT as an array of objects/],
  ['null', null, /read returned null; return the rows/],
  ['an object with rows', { rows: [] }, /read returned object; return the rows/],
  ['rows and fields', [[facts], []], /read returned an array of arrays; .* the first element of what query\(\)/],
  ['rows of values', [7], /read returned an array of number; return the rows as objects/],
  ['a null row', [null], /read returned an array of object; return the rows as objects/],
  ['text for a number', [{ ...facts, id: 'one' }], /returned 'one' in column 'id', which holds a number/],
])('an adapter that returns %s is named in the error', async (_, answer, sentence) => {
  await expect(queueOf(answer).enqueue({}, 'tea')).rejects.toThrow(sentence);
});

test('an error of the library passes unchanged', async () => {
  const error = new Error('the connection was lost');
  const adapter = () => ({ read: () => Promise.reject(error), write: async () => undefined });
  const queue = new TransactionalQueue('orders', { adapter });
  await expect(queue.enqueue({}, 'tea')).rejects.toBe(error);
});

test.each(['', 'a'.repeat(65), 'a\n', '中'])('a database named %j is refused', async (database) => {
  const adapter = () => ({ read: async () => [], write: async () => undefined });
  const queue = new TransactionalQueue('orders', { adapter, database });
  await expect(queue.enqueue({}, 'tea')).rejects.toThrow(/^database is '[^]*1 to 64 characters/);
});

test('values become literals that no sql_mode changes', () => {
  const values = [7, "o'\\?", Buffer.from([0, 255]), null, [1, 'b']];
  expect(withLiterals('a ? b ? c ? d ? e (?)', values)).toBe(
    "a 7 b _utf8mb4 x'6f275c3f' c x'00ff' d NULL e (1,_utf8mb4 x'62')",
  );
  expect(quotedName('a`b')).toBe('`a``b`');
});

test.each([[[undefined]], [[NaN]], [[{}]], [[[]]], [[]], [[1, 2]]])(
  'the values %j do not become a statement',
  (values) => {
    expect(() => withLiterals('SELECT ?', values)).toThrow(/^A statement /);
  },
);
