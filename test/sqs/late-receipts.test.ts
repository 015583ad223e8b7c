import {
  ChangeMessageVisibilityBatchCommand,
  ChangeMessageVisibilityCommand,
  CreateQueueCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
} from '@aws-sdk/client-sqs';
import { expect, test } from 'vitest';
import { newQueueName } from '../support/api.js';
import { newClient, useSqsBroker } from './support.js';

const rowmq = useSqsBroker();

async function receive(QueueUrl: string | undefined, VisibilityTimeout: number) {
  const sqs = newClient(rowmq.broker.url);
  const { Messages } = await sqs.send(new ReceiveMessageCommand({ QueueUrl, VisibilityTimeout, WaitTimeSeconds: 20 }));
  return Messages?.[0]?.ReceiptHandle as string;
}

async function counts(QueueUrl: string | undefined) {
  const AttributeNames = ['ApproximateNumberOfMessages' as const, 'ApproximateNumberOfMessagesNotVisible' as const];
  const { Attributes } = await newClient(rowmq.broker.url).send(
    new GetQueueAttributesCommand({ QueueUrl, AttributeNames }),
  );
  return [Attributes?.['ApproximateNumberOfMessages'], Attributes?.['ApproximateNumberOfMessagesNotVisible']];
}

test('a receipt works after its deadline until somebody else receives the message', async () => {
  const sqs = newClient(rowmq.broker.url);
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: newQueueName() }));
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'x' }));
  const ended = await receive(QueueUrl, 0);
  // Extends it again, although its deadline has passed.
  await sqs.send(new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle: ended, VisibilityTimeout: 60 }));
  expect(await counts(QueueUrl)).toEqual(['0', '1']);
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: ended }));
  expect(await counts(QueueUrl)).toEqual(['0', '0']);

  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'y' }));
  const late = await receive(QueueUrl, 0);
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: late }));
  expect(await counts(QueueUrl)).toEqual(['0', '0']);

  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'z' }));
  const stale = await receive(QueueUrl, 0);
  const current = await receive(QueueUrl, 60);
  expect(current).not.toBe(stale);
  // It succeeds, and deletes nothing: another consumer holds the message.
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: stale }));
  expect(await counts(QueueUrl)).toEqual(['0', '1']);
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: current }));
  expect(await counts(QueueUrl)).toEqual(['0', '0']);
});

test('a receipt works after a change of the visibility to 0 until somebody else receives the message', async () => {
  const sqs = newClient(rowmq.broker.url);
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: newQueueName() }));
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'x' }));
  const give = async (ReceiptHandle: string) =>
    sqs.send(new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle, VisibilityTimeout: 0 }));
  const first = await receive(QueueUrl, 60);
  await give(first);
  expect(await counts(QueueUrl)).toEqual(['1', '0']);
  await sqs.send(new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle: first, VisibilityTimeout: 60 }));
  expect(await counts(QueueUrl)).toEqual(['0', '1']);
  await give(first);
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: first }));
  expect(await counts(QueueUrl)).toEqual(['0', '0']);

  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'y' }));
  const stale = await receive(QueueUrl, 60);
  await give(stale);
  const current = await receive(QueueUrl, 60);
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: stale }));
  expect(await counts(QueueUrl)).toEqual(['0', '1']);
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: current }));
  expect(await counts(QueueUrl)).toEqual(['0', '0']);
});

test('failures of a batch are in the order of its entries, and name the handle that the client sent', async () => {
  const sqs = newClient(rowmq.broker.url);
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: newQueueName() }));
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'x' }));
  const gone = await receive(QueueUrl, 60);
  await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: gone }));
  const { Failed = [] } = await sqs.send(
    new ChangeMessageVisibilityBatchCommand({
      QueueUrl,
      Entries: [
        { Id: 'gone', ReceiptHandle: gone, VisibilityTimeout: 60 },
        { Id: 'none', ReceiptHandle: 'none', VisibilityTimeout: 60 },
        { Id: 'late', ReceiptHandle: gone, VisibilityTimeout: 43_201 },
      ],
    }),
  );
  expect(Failed.map(({ Id, Code }) => [Id, Code])).toEqual([
    ['gone', 'InvalidParameterValue'],
    ['none', 'ReceiptHandleIsInvalid'],
    ['late', 'InvalidParameterValue'],
  ]);
  expect(Failed[0]?.Message).toContain(`Value ${gone} for parameter ReceiptHandle`);
});

test('a change of the visibility to 0 counts as a nack, and frees one message of several', async () => {
  const sqs = newClient(rowmq.broker.url);
  const QueueName = newQueueName();
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName }));
  const Entries = ['a', 'b', 'c'].map((Id) => ({ Id, MessageBody: Id }));
  await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
  const { Messages = [] } = await sqs.send(
    new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, VisibilityTimeout: 60, WaitTimeSeconds: 20 }),
  );
  expect(Messages.map(({ Body }) => Body)).toEqual(['a', 'b', 'c']);
  const [, { ReceiptHandle }] = Messages as [unknown, { ReceiptHandle: string }];
  await sqs.send(new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle, VisibilityTimeout: 0 }));
  expect(await counts(QueueUrl)).toEqual(['1', '2']);
  expect(await rowmq.api.metric(`rowmq_messages_total{event="nacked",queue="${QueueName}"}`)).toBe(1);
  for (const one of Messages) await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: one.ReceiptHandle }));
  expect(await counts(QueueUrl)).toEqual(['0', '0']);
});
