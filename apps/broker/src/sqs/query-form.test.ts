import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readForm } from './query-form.js';
import { SqsError } from './sqs-error.js';

const read = (form: string | Buffer) => readForm(Buffer.from(form as string));
const membersOf = (form: string) => read(form).members;

function failure(form: string | Buffer): string {
  try {
    read(form);
  } catch (error) {
    if (error instanceof SqsError) return `${error.kind.code}: ${error.message}`;
    throw error;
  }
  return 'none';
}

describe('a form of the Query protocol', () => {
  test('has an operation and members, as JSON has', () => {
    expect(read('Action=SendMessage&Version=2012-11-05&MessageBody=a+b%26c&DelaySeconds=-1')).toEqual({
      operation: 'SendMessage',
      members: { Version: '2012-11-05', MessageBody: 'a b&c', DelaySeconds: -1 },
    });
    expect(read('')).toEqual({ operation: undefined, members: {} });
    expect(read('Action.1=SendMessage').operation).toBe('SendMessage');
  });

  test('has lists in the order of their numbers, whatever the order and the gaps', () => {
    expect(
      membersOf('AttributeName.10=c&AttributeName.2=b&AttributeName.1=a&AttributeName.99999999999999999999=d'),
    ).toEqual({ AttributeNames: ['a', 'b', 'c', 'd'] });
    expect(membersOf('ActionName.1=a&TagKey.1=b&AWSAccountId.1=c&MessageAttributeName.1=d')).toEqual({
      Actions: ['a'],
      TagKeys: ['b'],
      AWSAccountIds: ['c'],
      MessageAttributeNames: ['d'],
    });
  });

  test('has empty lists under the names of JSON', () => {
    expect(membersOf('AttributeNames=&Entries=')).toEqual({ AttributeNames: [], Entries: [] });
  });

  test('has maps of texts and of objects', () => {
    const form =
      'Attribute.2.Value=2&Attribute.1.Name=a&Attribute.2.Name=b&Attribute.1.Value=1&Tag.1.Key=k&Tag.1.Value=v' +
      '&MessageAttribute.1.Name=m&MessageAttribute.1.Value.DataType=String&MessageAttribute.1.Value.StringValue=x';
    expect(membersOf(form)).toEqual({
      Attributes: { a: '1', b: '2' },
      Tags: { k: 'v' },
      MessageAttributes: { m: { DataType: 'String', StringValue: 'x' } },
    });
  });

  test('has the entries of a batch, with their own lists and maps', () => {
    const entry = 'SendMessageBatchRequestEntry';
    const form = [
      `${entry}.2.Id=b`,
      `${entry}.1.Id=a`,
      `${entry}.1.DelaySeconds=5`,
      `${entry}.1.MessageAttribute.1.Value.BinaryValue=YQ%3D%3D`,
      `${entry}.1.MessageAttribute.1.Name=m`,
    ].join('&');
    expect(membersOf(form)).toEqual({
      Entries: [{ Id: 'a', DelaySeconds: 5, MessageAttributes: { m: { BinaryValue: 'YQ==' } } }, { Id: 'b' }],
    });
  });

  test('has the first of several values of a name', () => {
    expect(membersOf('QueueUrl=a&QueueUrl=b&AttributeName.1=c&AttributeName.1=d')).toEqual({
      QueueUrl: 'a',
      AttributeNames: ['c'],
    });
  });

  test.each(['', '1.5', '1e3', '0x10', ' 1', '1 ', 'one', '9'.repeat(16), '--1', '+1'])(
    'has no integer "%s"',
    (text) => {
      expect(failure(`WaitTimeSeconds=${encodeURIComponent(text)}`)).toContain('Must be an integer');
    },
  );

  test('changes no prototype, whatever it names', () => {
    const names = ['__proto__', 'constructor', 'toString'];
    for (const name of names) {
      const { members } = read(`${name}=1&${name}.x.y=2&Attribute.1.Name=${name}&Attribute.1.Value=3`);
      expect(Object.entries(members)).toEqual([
        [name, '1'],
        ['Attributes', Object.fromEntries([[name, '3']])],
      ]);
      expect(Object.getPrototypeOf(members)).toBe(Object.prototype);
      expect(Object.getPrototypeOf(members['Attributes'])).toBe(Object.prototype);
    }
    expect(Object.keys(Object.prototype)).toEqual([]);
  });

  test('keeps a percent sign that begins no escape', () => {
    expect(membersOf('MessageBody=100%&QueueUrl=%zz%4')).toEqual({ MessageBody: '100%', QueueUrl: '%zz%4' });
  });

  test.each(['%FF', 'a%C3b', '%ED%A0%80', '%F0%9F%92', '%C0%80', '%EF%BF%BD%FF', Buffer.from([0xc3, 0x28])])(
    'must be UTF-8: not %s',
    (value) => {
      const form = Buffer.concat([Buffer.from('MessageBody='), Buffer.from(value as string)]);
      expect(failure(form)).toContain('not UTF-8');
    },
  );

  test('may have a replacement character of its own', () => {
    expect(membersOf('MessageBody=%EF%BF%BD%ef%bf%bd\uFFFD%2525')).toEqual({ MessageBody: '\uFFFD\uFFFD\uFFFD%25' });
  });

  test('has every batch that a client writes, in any order of its parameters', () => {
    const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 8 }).filter((value) => value.isWellFormed());
    const attributes = fc.dictionary(
      fc.string({ minLength: 1, maxLength: 4 }).filter((name) => name !== '__proto__'),
      fc.record({ DataType: text, StringValue: text }),
      { minKeys: 1, maxKeys: 3 },
    );
    const entries = fc.array(fc.record({ Id: text, MessageBody: text, MessageAttributes: attributes }), {
      minLength: 1,
      maxLength: 12,
    });
    fc.assert(
      fc.property(entries, fc.infiniteStream(fc.nat()), (given, ranks) => {
        const parameters = given.flatMap(({ Id, MessageBody, MessageAttributes }, index): [string, string][] => {
          const at = `SendMessageBatchRequestEntry.${index + 1}`;
          const typed = Object.entries(MessageAttributes).flatMap(
            ([name, { DataType, StringValue }], number): [string, string][] => [
              [`${at}.MessageAttribute.${number + 1}.Name`, name],
              [`${at}.MessageAttribute.${number + 1}.Value.DataType`, DataType],
              [`${at}.MessageAttribute.${number + 1}.Value.StringValue`, StringValue],
            ],
          );
          return [[`${at}.Id`, Id], [`${at}.MessageBody`, MessageBody], ...typed];
        });
        const shuffled = parameters
          .map((parameter) => ({ parameter, rank: ranks.next().value }))
          .toSorted((one, other) => one.rank - other.rank)
          .map(({ parameter }) => parameter);
        expect(membersOf(new URLSearchParams(shuffled).toString())).toEqual({ Entries: given });
      }),
    );
  });
});

describe('a hostile form', () => {
  test('causes no error but those of SQS', () => {
    const parts = ['', '0', '1', '-1', 'x', '__proto__', 'Name', 'Key', 'Value', 'Action', 'DelaySeconds', 'Entries'];
    const known = ['Attribute', 'AttributeName', 'MessageAttribute', 'SendMessageBatchRequestEntry', 'AttributeNames'];
    const part = fc.constantFrom(...parts, ...known);
    const name = fc.array(part, { maxLength: 9 }).map((all) => all.join('.'));
    const value = fc.oneof(fc.string(), fc.constantFrom('%', '%FF', '1', '=', '&'));
    const parameters = fc
      .array(fc.tuple(name, value).map(([left, right]) => `${left}=${right}`))
      .map((all) => all.join('&'));
    const bytes = fc.uint8Array({ maxLength: 60 }).map((array) => Buffer.from(array));
    fc.assert(
      fc.property(fc.oneof(parameters, bytes), (form) => {
        expect(failure(form)).toMatch(/^(?:none|InvalidParameterValue: )/);
      }),
      { numRuns: 2000 },
    );
  });

  test('has neither more parameters nor deeper names than any operation', () => {
    const many = (count: number): string => 'a=1&'.repeat(count - 1) + 'a=1';
    expect(failure(many(10_000))).toBe('none');
    expect(failure(many(10_001))).toContain('more than 10000 parameters');
    const deepest = 'SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.StringListValue.1';
    expect(failure(`${deepest}=a`)).toBe('none');
    expect(failure(`${deepest}.1=a`)).toContain('more than 7 parts');
  });

  test.each([
    'Attribute.1.Value.',
    'SendMessageBatchRequestEntry.1.',
    '.',
    'a&',
    '&',
    '=',
    '%',
    '%41',
    '%EF%BF%BD',
    '+',
  ])('takes no time that grows faster than its length: one of many "%s"', { timeout: 10_000 }, (part) => {
    const long = part.repeat(2_000_000 / part.length);
    for (const form of [long, `MessageBody=${long}`])
      expect(failure(form)).toMatch(/^(?:none|InvalidParameterValue: )/);
  });
});
