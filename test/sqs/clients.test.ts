import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import {
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  QueueDoesNotExist,
  QueueNameExists,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
} from '@aws-sdk/client-sqs';
import { expect, test } from 'vitest';
import { newQueueName } from '../support/api.js';
import { findAws, findPython, newClient, runProgram, useSqsBroker } from './support.js';

const rowmq = useSqsBroker();
const WALK = fileURLToPath(new URL('walk.py', import.meta.url));
const systemPython = findPython('boto3', true);
const otherPython = findPython('boto3', false);
const aws = findAws();

test("AWS's client for Node sends, receives and deletes messages, and knows the errors by their classes", async () => {
  const sqs = newClient(rowmq.broker.url);
  const QueueName = newQueueName();
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName, Attributes: { VisibilityTimeout: '45' } }));
  expect(QueueUrl).toBe(`${rowmq.broker.url}/000000000000/${QueueName}`);
  await expect(
    sqs.send(new CreateQueueCommand({ QueueName, Attributes: { VisibilityTimeout: '46' } })),
  ).rejects.toThrow(QueueNameExists);
  await expect(sqs.send(new SendMessageCommand({ QueueUrl: `${QueueUrl}-other`, MessageBody: 'x' }))).rejects.toThrow(
    QueueDoesNotExist,
  );

  const MessageBody = 'héllo\r\n<&>"\' 😀';
  const sent = await sqs.send(
    new SendMessageCommand({
      QueueUrl,
      MessageBody,
      MessageAttributes: {
        'Help.Me': { DataType: 'String', StringValue: 'Me' },
        Hello: { DataType: 'String', StringValue: 'There' },
        General: { DataType: 'String', StringValue: 'Kenobi' },
      },
    }),
  );
  expect(sent.MD5OfMessageBody).toBe(createHash('md5').update(MessageBody).digest('hex'));
  expect(sent.MD5OfMessageAttributes).toBe('4c360f3fdafd970e05fae2f149d997f5');
  const { Messages = [] } = await sqs.send(
    new ReceiveMessageCommand({ QueueUrl, MessageAttributeNames: ['He*', 'Help.*'], WaitTimeSeconds: 10 }),
  );
  expect(Messages).toMatchObject([{ Body: MessageBody, MessageId: sent.MessageId }]);
  expect(Messages[0]?.MessageAttributes).toEqual({ 'Help.Me': { DataType: 'String', StringValue: 'Me' } });
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: Messages[0]?.ReceiptHandle }));

  const entries = Array.from({ length: 10 }, (_, index) => ({ Id: `id-${index}`, MessageBody: String(index) }));
  const batch = await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries: entries }));
  expect(batch.Successful).toHaveLength(10);
  const handles: { Id: string; ReceiptHandle: string | undefined }[] = [];
  while (handles.length < 10) {
    const received = await sqs.send(
      new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 10 }),
    );
    for (const { MessageId, ReceiptHandle } of received.Messages ?? [])
      handles.push({ Id: MessageId as string, ReceiptHandle });
  }
  const deleted = await sqs.send(new DeleteMessageBatchCommand({ QueueUrl, Entries: handles }));
  expect(deleted.Successful).toHaveLength(10);
  const { Attributes } = await sqs.send(
    new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['ApproximateNumberOfMessagesNotVisible'] }),
  );
  expect(Attributes).toEqual({ ApproximateNumberOfMessagesNotVisible: '0' });
});

test('a message of SQS has headers for REST, and headers of REST are attributes for SQS', async () => {
  const sqs = newClient(rowmq.broker.url);
  const queue = await rowmq.newQueue();
  const QueueUrl = `${rowmq.broker.url}/000000000000/${queue.name}`;
  await sqs.send(
    new SendMessageCommand({
      QueueUrl,
      MessageBody: 'from SQS',
      MessageAttributes: {
        text: { DataType: 'String', StringValue: 'a' },
        number: { DataType: 'Number', StringValue: '1' },
        bytes: { DataType: 'Binary', BinaryValue: Buffer.from([0, 255]) },
      },
      MessageSystemAttributes: { AWSTraceHeader: { DataType: 'String', StringValue: 'Root=1' } },
    }),
  );
  const message = await queue.dequeueOne();
  expect(message).toMatchObject({ body: 'from SQS', headers: { text: 'a', number: '1', bytes: 'AP8=' } });
  expect(Object.keys(message.headers)).toHaveLength(3);
  await queue.ack(message.receipt);

  await queue.enqueue({ body: 'from REST', headers: { 'content-type': 'text/plain' } });
  await queue.enqueue({ body: Buffer.from([0, 255]).toString('base64'), bodyEncoding: 'base64' });
  const bodies: string[] = [];
  while (bodies.length < 2) {
    const { Messages = [] } = await sqs.send(
      new ReceiveMessageCommand({ QueueUrl, MessageAttributeNames: ['All'], WaitTimeSeconds: 10 }),
    );
    for (const { Body, MessageAttributes } of Messages) {
      bodies.push(String(Body));
      expect(MessageAttributes).toEqual(
        Body === 'from REST' ? { 'content-type': { DataType: 'String', StringValue: 'text/plain' } } : undefined,
      );
    }
  }
  expect(bodies.toSorted()).toEqual(['AP8=', 'from REST']);
});

test.skipIf(systemPython === undefined)(
  "Debian's boto3, which speaks the Query protocol, gets what AWS gives",
  async () => {
    expect(await runProgram(systemPython as string, [WALK], rowmq.broker.url)).toContain('walked');
  },
);

test.skipIf(otherPython === undefined)('the boto3 of the first Python in the path gets what AWS gives', async () => {
  expect(await runProgram(otherPython as string, [WALK], rowmq.broker.url)).toContain('walked');
});

test.skipIf(aws === undefined)('the command line of AWS creates a queue, sends and receives', async () => {
  const call = async (...args: string[]) =>
    JSON.parse(await runProgram(aws as string, ['--endpoint-url', rowmq.broker.url, 'sqs', ...args], '')) as never;
  const name = newQueueName();
  const { QueueUrl } = (await call('create-queue', '--queue-name', name)) as { QueueUrl: string };
  await call('send-message', '--queue-url', QueueUrl, '--message-body', 'x');
  const { Messages } = (await call('receive-message', '--queue-url', QueueUrl, '--wait-time-seconds', '10')) as {
    Messages: { Body: string }[];
  };
  expect(Messages).toMatchObject([{ Body: 'x' }]);
});
