import { createRequire } from 'node:module';
import 'reflect-metadata';
import {
  CreateQueueCommand,
  GetQueueAttributesCommand,
  type Message,
  SendMessageBatchCommand,
  type SQSClient,
} from '@aws-sdk/client-sqs';
import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { SqsMessageHandler, SqsModule, SqsService } from '@ssut/nestjs-sqs';
import type { SQS as SqsOfVersion2 } from 'aws-sdk';
import { Consumer } from 'sqs-consumer';
import { expect, test } from 'vitest';
import { newQueueName } from '../support/api.js';
import { eventually } from '../support/wait.js';
import { CREDENTIALS, newClient, REGION, useSqsBroker } from './support.js';

/* Libraries for Node that are built on SQS, unchanged. The SDKs check the digests themselves. */

const rowmq = useSqsBroker();
const MESSAGES = Number(process.env['ROWMQ_SQS_MESSAGES'] ?? 2000);

async function newQueue(sqs: SQSClient): Promise<string> {
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: newQueueName() }));
  return QueueUrl as string;
}

async function sendNumbers(sqs: SQSClient, QueueUrl: string, from: number, to: number): Promise<void> {
  for (let first = from; first < to; first += 10) {
    const Entries = Array.from({ length: 10 }, (_, index) => ({ Id: `${index}`, MessageBody: `${first + index}` }));
    const { Successful } = await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
    expect(Successful).toHaveLength(10);
  }
}

async function left(sqs: SQSClient, QueueUrl: string): Promise<string[]> {
  const names = ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible'] as const;
  const { Attributes } = await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: [...names] }));
  return names.map((name) => Attributes?.[name] as string);
}

test('version 2 of the JavaScript SDK, which speaks the Query protocol, sends, receives and deletes', async () => {
  // It is CommonJS, and warns of its age.
  process.env['AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE'] = '1';
  const { SQS } = createRequire(import.meta.url)('aws-sdk') as { SQS: typeof SqsOfVersion2 };
  const sqs = new SQS({ endpoint: rowmq.broker.url, region: REGION, credentials: CREDENTIALS, maxRetries: 0 });
  const { QueueUrl = '' } = await sqs.createQueue({ QueueName: newQueueName() }).promise();
  const MessageBody = 'line\r\nline <&> "é" 😀';
  const attribute = { DataType: 'Binary', BinaryValue: Buffer.from([0, 255]) };
  const sent = await sqs.sendMessage({ QueueUrl, MessageBody, MessageAttributes: { raw: attribute } }).promise();
  const { Messages = [] } = await sqs
    .receiveMessage({ QueueUrl, MessageAttributeNames: ['All'], AttributeNames: ['All'], WaitTimeSeconds: 10 })
    .promise();
  expect(Messages).toMatchObject([
    { MessageId: sent.MessageId, Body: MessageBody, Attributes: { ApproximateReceiveCount: '1' } },
  ]);
  expect(Messages[0]?.MessageAttributes?.['raw']?.BinaryValue).toEqual(Buffer.from([0, 255]));
  await sqs.deleteMessage({ QueueUrl, ReceiptHandle: Messages[0]?.ReceiptHandle as string }).promise();
  await expect(sqs.getQueueUrl({ QueueName: 'missing' }).promise()).rejects.toMatchObject({
    code: 'AWS.SimpleQueueService.NonExistentQueue',
    statusCode: 400,
  });
  expect(await left(newClient(rowmq.broker.url), QueueUrl)).toEqual(['0', '0']);
});

test(
  'eight consumers of sqs-consumer handle each message once, over a stop and a start',
  { timeout: 180_000 + MESSAGES * 60 },
  async () => {
    const sqs = newClient(rowmq.broker.url);
    const queueUrl = await newQueue(sqs);
    const handled = new Map<string, number>();
    const start = (): Consumer[] =>
      Array.from({ length: 8 }, () => {
        const consumer = Consumer.create({
          sqs,
          queueUrl,
          batchSize: 10,
          handleMessage: async (message: Message) => {
            const body = message.Body as string;
            handled.set(body, (handled.get(body) ?? 0) + 1);
            return message;
          },
        });
        consumer.on('error', () => undefined);
        consumer.start();
        return consumer;
      });
    const stop = async (consumers: Consumer[]): Promise<void> => {
      for (const consumer of consumers) consumer.stop();
      await eventually(
        'the consumers have stopped',
        () => consumers.every(({ status }) => !status.isRunning && !status.isPolling),
        60_000,
      );
    };

    const first = start();
    const sending = sendNumbers(sqs, queueUrl, 0, MESSAGES / 2);
    await eventually('the consumers work', () => handled.size >= 100, 60_000);
    await stop(first);
    await sending;
    const second = start();
    await sendNumbers(sqs, queueUrl, MESSAGES / 2, MESSAGES);
    await eventually('all messages are handled', () => handled.size === MESSAGES, 120_000 + MESSAGES * 60);
    await stop(second);
    expect([...handled.values()].filter((times) => times !== 1)).toEqual([]);
    expect(await left(sqs, queueUrl)).toEqual(['0', '0']);
  },
);

test('nestjs-sqs sends through its service and handles in a provider', async () => {
  const sqs = newClient(rowmq.broker.url);
  const queueUrl = await newQueue(sqs);
  const handled: string[] = [];

  @Injectable()
  class Handler {
    @SqsMessageHandler('orders', false)
    async handle(message: Message): Promise<void> {
      handled.push(message.Body as string);
    }
  }
  const options = { name: 'orders', queueUrl, region: REGION, sqs };
  @Module({ imports: [SqsModule.register({ consumers: [options], producers: [options] })], providers: [Handler] })
  class Application {}

  const application = await NestFactory.createApplicationContext(Application, { logger: ['error'] });
  await application.init();
  try {
    await application.get(SqsService).send('orders', { id: '1', body: { order: 17 } });
    await eventually('the message is handled and deleted', async () => {
      return handled.length > 0 && (await left(sqs, queueUrl)).every((count) => count === '0');
    });
    expect(handled).toEqual(['{"order":17}']);
  } finally {
    await application.close();
  }
});
