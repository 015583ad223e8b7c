import { expect, test } from 'vitest';
import { readInput } from './sqs-input.js';

const withMember = (member: string): unknown => JSON.parse(`{"QueueUrl":"q",${member}}`);

test('a member that nobody knows, or that is null, is absent', () => {
  expect(readInput('SendMessage', withMember('"MessageBody":"b","DelaySeconds":null,"Newer":1'))).toEqual({
    QueueUrl: 'q',
    MessageBody: 'b',
  });
});

test.each(['"DelaySeconds":"5"', '"DelaySeconds":1.5', '"MessageBody":1', '"MessageAttributes":[]'])(
  'a member of another type is refused: %s',
  (member) => {
    expect(() => readInput('SendMessage', withMember(member))).toThrow(/^\w+: /);
  },
);

test('no attribute is lost because of its name', () => {
  const member = '"MessageAttributes":{"__proto__":{"DataType":"String","StringValue":"a"}}';
  expect(() => readInput('SendMessage', withMember(member))).toThrow('MessageAttributes: No name can be __proto__');
  const batch = withMember(`"Entries":[{"Id":"a",${member}}]`);
  expect(() => readInput('SendMessageBatch', batch)).toThrow('Entries.0.MessageAttributes: ');
});
