import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { digestOf, readAttributes, select, sizeOf, toAnswer } from './message-attributes.js';
import { SqsError } from './sqs-error.js';
import type { MessageAttribute } from './sqs-input.js';

const attribute = (type: string | undefined, value: string | undefined): MessageAttribute => ({
  DataType: type,
  StringValue: type?.startsWith('Binary') ? undefined : value,
  BinaryValue: type?.startsWith('Binary') ? value : undefined,
  StringListValues: undefined,
  BinaryListValues: undefined,
});

function failure(name: string, type: string | undefined, value: string | undefined): string {
  try {
    readAttributes(Object.fromEntries([[name, attribute(type, value)]]));
  } catch (error) {
    if (error instanceof SqsError) return `${error.kind.code}: ${error.message}`;
    throw error;
  }
  return 'none';
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');

describe('the digest of attributes', () => {
  // Known from clients of AWS.
  test.each<[string, Record<string, MessageAttribute>]>([
    ['ae7155c6026991b6d54b11589678bf9c', { Foo: attribute('String', 'Bar') }],
    [
      '9fe1b90bbd9965bdf77bac517c7d2495',
      { customNumberTypeAttrib: attribute('Number.float', '4563442423554324324264524243.32543234') },
    ],
    ['31a92b15d92f8db860eda32aceb656c3', { binaryAttribute: attribute('Binary', base64('Hello binary world!')) }],
    [
      '4c360f3fdafd970e05fae2f149d997f5',
      {
        'Help.Me': attribute('String', 'Me'),
        Hello: attribute('String', 'There'),
        General: attribute('String', 'Kenobi'),
      },
    ],
  ])('is %s', (digest, given) => {
    expect(digestOf(readAttributes(given))).toBe(digest);
    const reversed = Object.fromEntries(Object.entries(given).toReversed());
    expect(digestOf(readAttributes(reversed))).toBe(digest);
  });

  test('counts lengths in bytes, of values and of types', () => {
    const encoded = Buffer.from(
      '\0\0\0\x01a\0\0\0\x09String.\u00c3\u00a9\x01\0\0\0\x06\u00e2\u0082\u00ac\u00c3\u00a9x',
      'latin1',
    );
    const digest = createHash('md5').update(encoded).digest('hex');
    expect(digestOf(readAttributes({ a: attribute('String.é', '€éx') }))).toBe(digest);
  });

  test('is absent without attributes', () => {
    expect(digestOf(readAttributes(undefined))).toBeUndefined();
    expect(digestOf(readAttributes({}))).toBeUndefined();
  });
});

test('the size of attributes is that of their names, types and values, in bytes', () => {
  const given = { abc: attribute('String', 'é€'), d: attribute('Binary.x', base64('1234567')) };
  expect(sizeOf(readAttributes(given))).toBe(3 + 6 + 5 + 1 + 8 + 7);
  expect(sizeOf(new Map())).toBe(0);
});

test.each([
  ['String', 'a'],
  ['String.custom', 'é\r\n'],
  ['Number', '-1.5e+10'],
  ['Number', '.5'],
  ['Number', '5.'],
  ['Number.int', '1'.repeat(1000)],
  ['Binary', base64('a')],
  ['Binary.gif', base64('abc')],
])('an attribute of type %s with the value "%s" is answered as it came', (type, value) => {
  const stored = readAttributes({ name: attribute(type, value) }).get('name')!;
  expect(toAnswer(stored)).toEqual({
    DataType: type,
    [type.startsWith('Binary') ? 'BinaryValue' : 'StringValue']: value,
  });
});

test('a binary value may leave out padding and have spaces', () => {
  for (const value of ['YQ', 'YQ=', 'YQ==', ' Y\r\nQ= = '])
    expect(readAttributes({ name: attribute('Binary', value) }).get('name')).toEqual(['Binary', 'YQ==']);
});

describe('a faulty attribute is refused', () => {
  test.each([
    ['', 'String', 'a'],
    ['.a', 'String', 'a'],
    ['a.', 'String', 'a'],
    ['a..b', 'String', 'a'],
    ['a b', 'String', 'a'],
    ['é', 'String', 'a'],
    ['aws.a', 'String', 'a'],
    ['Amazon.a', 'String', 'a'],
    ['a'.repeat(257), 'String', 'a'],
    ['a', undefined, 'a'],
    ['a', '', 'a'],
    ['a', 'Text', 'a'],
    ['a', 'Strings', 'a'],
    ['a', 'String.', 'a'],
    ['a', 'String.\u0001', 'a'],
    ['a', 'String.\uD800', 'a'],
    ['a', `String.${'a'.repeat(250)}`, 'a'],
    ['a', 'String', undefined],
    ['a', 'String', ''],
    ['a', 'String', '\u0000'],
    ['a', 'String', '\uD800'],
    ['a', 'Number', 'one'],
    ['a', 'Number', '1,5'],
    ['a', 'Number', '.'],
    ['a', 'Number', '1e'],
    ['a', 'Number', ' 1'],
    ['a', 'Number', 'Infinity'],
    ['a', 'Binary', ''],
    ['a', 'Binary', ' '],
    ['a', 'Binary', '='],
    ['a', 'Binary', 'Y'],
    ['a', 'Binary', 'YQ==='],
    ['a', 'Binary', 'Y=Q='],
    ['a', 'Binary', 'YQ-_'],
  ])('%j of type %j with the value %j', (name, type, value) => {
    expect(failure(name, type, value)).toMatch(/^InvalidParameterValue: /);
  });

  test('and so are more than ten', () => {
    const many = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, index) => [`a${index}`, attribute('String', 'x')]));
    expect(readAttributes(many(10)).size).toBe(10);
    expect(() => readAttributes(many(11))).toThrow('exceeds the allowed maximum [10]');
  });

  test.each([
    ['Number', '1', 'x'],
    ['Number', '1', '.x'],
    ['Number', '.1', 'x'],
    ['Binary', ' ', '!'],
    ['Binary', 'YQ', '!'],
    ['Binary', '=', 'a'],
    ['String', 'a', '\u0000'],
  ])(
    'in a time that does not grow faster than its length: type %s, many "%s" and a "%s"',
    { timeout: 10_000 },
    (type, part, end) => {
      const value = part.repeat(1_000_000);
      for (const [name, of, text] of [
        ['a', type, value + end],
        [value, type, value],
        ['a', `${type}.${value}`, value],
      ] as const)
        expect(failure(name, of, text)).toMatch(/^InvalidParameterValue: /);
    },
  );
});

test('a receive gets the attributes that it names, or whose names begin as it says, or all', () => {
  const attributes = readAttributes({
    a: attribute('String', '1'),
    'a.b': attribute('String', '2'),
    'a.b.c': attribute('String', '3'),
    ab: attribute('String', '4'),
  });
  const names = (...wanted: string[]): string[] => [...select(attributes, wanted).keys()];
  expect(names()).toEqual([]);
  expect(names('none')).toEqual([]);
  expect(names('ab', 'a')).toEqual(['a', 'ab']);
  expect(names('a.*')).toEqual(['a.b', 'a.b.c']);
  for (const all of ['All', '.*', '*']) expect(names(all)).toEqual(['a', 'a.b', 'a.b.c', 'ab']);
});
