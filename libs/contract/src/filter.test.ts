import { describe, expect, test } from 'vitest';
import { type Filter, filter, matches } from './filter.js';

const sent = { event: 'order-created', amount: '120.50', empty: '' };

describe('a filter', () => {
  test.each<[string, Filter, boolean]>([
    ['an equal value', { event: ['x', 'order-created'] }, true],
    ['no equal value', { event: ['order', 'Order-created'] }, false],
    ['a header that is missing', { region: ['eu'] }, false],
    ['a prefix', { event: [{ prefix: 'order-' }] }, true],
    ['another prefix', { event: [{ prefix: 'created' }] }, false],
    ['anything but another value', { event: [{ 'anything-but': 'order-deleted' }] }, true],
    ['anything but this value', { event: [{ 'anything-but': ['x', 'order-created'] }] }, false],
    ['anything but this prefix', { event: [{ 'anything-but': { prefix: 'order' } }] }, false],
    ['anything but, for a header that is missing', { region: [{ 'anything-but': 'eu' }] }, false],
    ['that a header exists', { empty: [{ exists: true }] }, true],
    ['that a header is missing', { region: [{ exists: false }] }, true],
    ['that an existing header is missing', { event: [{ exists: false }] }, false],
    ['no header that every object inherits', { toString: [{ exists: true }] }, false],
    ['an equal number, written differently', { amount: [{ numeric: ['=', 120.5] }] }, true],
    ['a range', { amount: [{ numeric: ['>=', 120.5, '<', 121] }] }, true],
    ['a range that ends before', { amount: [{ numeric: ['>', 0, '<', 120.5] }] }, false],
    ['a number, for a text', { event: [{ numeric: ['>', -1] }] }, false],
    ['a number, for an empty text', { empty: [{ numeric: ['=', 0] }] }, false],
    ['one of several conditions', { amount: ['x', { numeric: ['<', 0] }, { prefix: '12' }] }, true],
    ['each of several headers', { event: [{ prefix: 'order' }], amount: [{ numeric: ['>', 500] }] }, false],
  ])('asks for %s', (_, wanted, expected) => {
    expect(filter.parse(wanted)).toEqual(wanted);
    expect(matches(wanted, sent)).toBe(expected);
  });

  test('that is absent lets every message through', () => {
    expect(matches(null, {})).toBe(true);
  });

  test.each<[string, unknown, string]>([
    ['no header', {}, 'must name 1 to 5 headers'],
    [
      'six headers',
      Object.fromEntries(['a', 'b', 'c', 'd', 'e', 'f'].map((name) => [name, ['x']])),
      'must name 1 to 5 headers',
    ],
    ['no condition', { event: [] }, '>=1 items'],
    ['a value outside a list', { event: 'x' }, 'expected array'],
    ['a bare number', { amount: [100] }, 'must be a string'],
    ['an unknown operator', { event: [{ suffix: 'x' }] }, 'must be a string'],
    ['two operators in one condition', { event: [{ prefix: 'x', exists: true }] }, 'must be a string'],
    ['a range whose upper bound comes first', { amount: [{ numeric: ['<', 1, '>', 0] }] }, 'must be a string'],
    ['too many conditions', { event: Array.from({ length: 151 }, (_, one) => `${one}`) }, 'at most 150 conditions'],
    ['too many bytes', { event: ['x'.repeat(5000)] }, 'at most 4096 bytes'],
  ])('with %s is refused', (_, given, why) => {
    const { error } = filter.safeParse(given);
    expect(error?.issues.map(({ message }) => message).join()).toContain(why);
  });
});
