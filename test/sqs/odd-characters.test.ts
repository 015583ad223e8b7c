import { expect, test } from 'vitest';
import { newQueueName } from '../support/api.js';
import { useSqsBroker } from './support.js';

const rowmq = useSqsBroker();

async function query(form: Record<string, string>): Promise<string> {
  const response = await fetch(rowmq.broker.url, { method: 'POST', body: new URLSearchParams(form) });
  return response.text();
}

/** The characters that XML 1.0 knows, none of which is a control character but these. */
const XML_TEXT = /^[\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]*$/u;

test('a message whose headers and group XML cannot carry can be received by the Query protocol', async () => {
  const name = newQueueName();
  const queue = rowmq.api.queue(name);
  await queue.put({ ordering: 'group' });
  await queue.enqueue({ body: 'x', headers: { 'a\u0001b': 'c', odd: 'c\u0002d', plain: 'text' }, groupId: 'g\u0003h' });
  const answer = await query({
    Action: 'ReceiveMessage',
    QueueUrl: `${rowmq.broker.url}/000000000000/${name}`,
    'AttributeName.1': 'All',
    'MessageAttributeName.1': 'All',
  });
  expect(answer).toContain('<Body>x</Body>');
  const odd = Buffer.from('c\u0002d').toString('base64');
  expect(answer).toContain('<Name>plain</Name><Value><StringValue>text</StringValue>');
  expect(answer).toContain(`<Name>odd</Name><Value><BinaryValue>${odd}</BinaryValue>`);
  expect(XML_TEXT.test(answer), JSON.stringify(answer)).toBe(true);
});

test('an error that quotes the request is XML', async () => {
  const answer = await query({ Action: 'GetQueueUrl', QueueName: 'a\u0001b' });
  expect(XML_TEXT.test(answer), JSON.stringify(answer)).toBe(true);
  const unknown = await query({ Action: 'No\u0001Such' });
  expect(XML_TEXT.test(unknown), JSON.stringify(unknown)).toBe(true);
});
