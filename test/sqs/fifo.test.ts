import {
  ChangeMessageVisibilityBatchCommand,
  ChangeMessageVisibilityCommand,
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  type Message,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
} from '@aws-sdk/client-sqs';
import { expect, test } from 'vitest';
import { newQueueName } from '../support/api.js';
import { eventually } from '../support/wait.js';
import { newClient, useSqsBroker } from './support.js';

const rowmq = useSqsBroker();
const GROUPS = 200;
const OF_EACH = 8;
const PRODUCERS = 10;
const CONSUMERS = 8;
/** Share of receives whose consumer vanishes. */
const CRASHES = 0.1;

/** The messages of a group have numbers. One may come when all before it are deleted. */
class Ledger {
  readonly violations: string[] = [];
  /** By group, the first number whose deletion nobody has sent. */
  private readonly next = new Map<string, number>();

  received(messages: readonly Message[]): void {
    const inAnswer = new Map<string, number>();
    for (const { Body } of messages) {
      const [group, number] = read(Body);
      const earliest = Math.max(this.next.get(group) ?? 0, inAnswer.get(group) ?? 0);
      if (number > earliest) this.violations.push(`${Body} came before ${group}/${earliest} was deleted`);
      inAnswer.set(group, number + 1);
    }
  }

  deleting(messages: readonly Message[]): void {
    for (const { Body } of messages) {
      const [group, number] = read(Body);
      this.next.set(group, Math.max(this.next.get(group) ?? 0, number + 1));
    }
  }

  get isComplete(): boolean {
    return this.next.size === GROUPS && [...this.next.values()].every((next) => next === OF_EACH);
  }
}

function read(body: string | undefined): [group: string, number: number] {
  const [group = '', number] = (body ?? '').split('/');
  return [group, Number(number)];
}

test('one receive gets ten messages of a group that were sent one by one, and the group is locked meanwhile', async () => {
  const sqs = newClient(rowmq.broker.url);
  const { QueueUrl } = await sqs.send(
    new CreateQueueCommand({
      QueueName: `${newQueueName()}.fifo`,
      Attributes: { FifoQueue: 'true', ContentBasedDeduplication: 'true' },
    }),
  );
  const send = async (MessageBody: string) =>
    sqs.send(new SendMessageCommand({ QueueUrl, MessageBody, MessageGroupId: 'one' }));
  const receive = async (seconds = 30): Promise<Message[]> => {
    const command = { QueueUrl, MaxNumberOfMessages: 10, VisibilityTimeout: seconds };
    return (await sqs.send(new ReceiveMessageCommand(command))).Messages ?? [];
  };
  const textOf = (messages: readonly Message[]) => messages.map(({ Body }) => Body).join(' ');
  const remove = async ({ ReceiptHandle }: Message) => sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
  const show = async ({ ReceiptHandle }: Message) =>
    sqs.send(new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle, VisibilityTimeout: 0 }));

  for (let number = 0; number < 12; number += 1) await send(`m${number}`);
  const messages = await receive();
  expect(textOf(messages)).toBe('m0 m1 m2 m3 m4 m5 m6 m7 m8 m9');
  const { Attributes } = await sqs.send(
    new GetQueueAttributesCommand({
      QueueUrl,
      AttributeNames: ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible'],
    }),
  );
  expect(Attributes).toEqual({ ApproximateNumberOfMessages: '2', ApproximateNumberOfMessagesNotVisible: '10' });
  expect(await receive()).toEqual([]);

  const [first, second, third, ...others] = messages as [Message, Message, Message, ...Message[]];
  await remove(second);
  await send('m12');
  expect(await receive()).toEqual([]);
  // The head comes alone, because the messages behind it are in flight.
  await show(first);
  const again = await receive();
  expect(textOf(again)).toBe('m0');
  await show(third);
  await remove(again[0] as Message);
  const next = await receive(0);
  expect(textOf(next)).toBe('m2');
  for (const one of [...(await receive()), ...others]) await remove(one);
  const rest = await receive();
  expect(textOf(rest)).toBe('m10 m11 m12');
  for (const one of rest) await remove(one);
  expect(await receive()).toEqual([]);
});

test('all messages of a group get the visibility timeout 0, in one batch or one by one, and come again in order', async () => {
  const sqs = newClient(rowmq.broker.url);
  const { QueueUrl } = await sqs.send(
    new CreateQueueCommand({
      QueueName: `${newQueueName()}.fifo`,
      Attributes: { FifoQueue: 'true', ContentBasedDeduplication: 'true' },
    }),
  );
  const bodies = ['a', 'b', 'c'];
  // The messages of one request are stored together.
  const Entries = bodies.map((Id) => ({ Id, MessageBody: Id, MessageGroupId: 'g' }));
  await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
  const receive = async () => {
    const { Messages = [] } = await sqs.send(
      new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 20, VisibilityTimeout: 600 }),
    );
    expect(Messages.map(({ Body }) => Body)).toEqual(bodies);
    return Messages.map(({ ReceiptHandle }, index) => ({
      Id: String(index),
      ReceiptHandle: ReceiptHandle!,
      VisibilityTimeout: 0,
    }));
  };
  const answer = await sqs.send(new ChangeMessageVisibilityBatchCommand({ QueueUrl, Entries: await receive() }));
  expect(answer.Failed).toBeUndefined();
  expect(answer.Successful?.map(({ Id }) => Id)).toEqual(['0', '1', '2']);

  const held = await receive();
  for (const { ReceiptHandle } of held)
    await sqs.send(new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle, VisibilityTimeout: 0 }));
  const current = await receive();

  // A receipt that is not the current one must not end the timeout of somebody else.
  const stale = { QueueUrl, ReceiptHandle: held[0]!.ReceiptHandle };
  await sqs.send(new ChangeMessageVisibilityCommand({ ...stale, VisibilityTimeout: 0 }));
  const { Messages } = await sqs.send(new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 1 }));
  expect(Messages).toBeUndefined();
  const refused = { name: 'InvalidParameterValue' };
  await expect(sqs.send(new ChangeMessageVisibilityCommand({ ...stale, VisibilityTimeout: 1 }))).rejects.toMatchObject(
    refused,
  );
  const deleted = await sqs.send(new DeleteMessageBatchCommand({ QueueUrl, Entries: current }));
  expect(deleted.Failed).toBeUndefined();
  // The message is gone.
  await expect(
    sqs.send(
      new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle: current[0]!.ReceiptHandle, VisibilityTimeout: 0 }),
    ),
  ).rejects.toMatchObject(refused);
});

test('a FIFO queue keeps the order of 200 groups, although consumers vanish', { timeout: 240_000 }, async () => {
  const sqs = newClient(rowmq.broker.url);
  const { QueueUrl } = await sqs.send(
    new CreateQueueCommand({
      QueueName: `${newQueueName()}.fifo`,
      Attributes: { FifoQueue: 'true', ContentBasedDeduplication: 'true' },
    }),
  );
  const ledger = new Ledger();
  const stopping = new AbortController();

  const produce = async (producer: number): Promise<void> => {
    for (let number = 0; number < OF_EACH; number += 1) {
      for (let group = producer; group < GROUPS; group += PRODUCERS) {
        const MessageGroupId = `group-${group}`;
        const Entries = [{ Id: '0', MessageBody: `${MessageGroupId}/${number}`, MessageGroupId }];
        const { Failed = [] } = await sqs.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
        expect(Failed).toEqual([]);
      }
    }
  };
  const consume = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const { Messages = [] } = await sqs.send(
        new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 1, VisibilityTimeout: 5 }),
      );
      ledger.received(Messages);
      if (Messages.length === 0 || Math.random() < CRASHES) continue;
      ledger.deleting(Messages);
      const Entries = Messages.map(({ ReceiptHandle }, index) => ({ Id: String(index), ReceiptHandle }));
      await sqs.send(new DeleteMessageBatchCommand({ QueueUrl, Entries }));
    }
  };

  const consuming = Promise.all(Array.from({ length: CONSUMERS }, consume));
  await Promise.all(Array.from({ length: PRODUCERS }, async (_, producer) => produce(producer)));
  await eventually('all messages are deleted', () => ledger.isComplete, 180_000);
  stopping.abort();
  await consuming;
  expect(ledger.violations).toEqual([]);
});
