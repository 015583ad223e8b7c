import {
  AddPermissionCommand,
  CreateQueueCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  ListQueuesCommand,
  ReceiveMessageCommand,
  RemovePermissionCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
  SetQueueAttributesCommand,
} from '@aws-sdk/client-sqs';
import { describe, expect, test } from 'vitest';
import { newQueueName } from '../support/api.js';
import { newClient, REGION, useSqsBroker } from './support.js';

const rowmq = useSqsBroker();
const sqs = () => newClient(rowmq.broker.url);
const arnOf = (name: string, region = REGION): string => `arn:aws:sqs:${region}:000000000000:${name}`;

async function create(Attributes: Record<string, string> = {}, QueueName = newQueueName()): Promise<string> {
  await sqs().send(new CreateQueueCommand({ QueueName, Attributes }));
  return QueueName;
}

const urlOf = (name: string): string => `${rowmq.broker.url}/000000000000/${name}`;
const set = (name: string, Attributes: Record<string, string>) =>
  sqs().send(new SetQueueAttributesCommand({ QueueUrl: urlOf(name), Attributes }));

async function attributeOf(
  name: string,
  attribute: 'Policy' | 'RedriveAllowPolicy' | 'RedrivePolicy',
): Promise<string | undefined> {
  const { Attributes } = await sqs().send(
    new GetQueueAttributesCommand({ QueueUrl: urlOf(name), AttributeNames: [attribute] }),
  );
  return Attributes?.[attribute];
}

const to = (target: string) => ({
  RedrivePolicy: JSON.stringify({ deadLetterTargetArn: arnOf(target), maxReceiveCount: 3 }),
});
const allow = (redrivePermission: string, sourceQueueArns?: string[]) => ({
  RedriveAllowPolicy: JSON.stringify({ redrivePermission, sourceQueueArns }),
});

describe('the RedriveAllowPolicy of a dead-letter queue', () => {
  test('decides which queues may name it, when they are created and when they change', async () => {
    const [mine, other] = [newQueueName(), newQueueName()];
    const dead = await create();
    const denied = { name: 'InvalidParameterValue', message: expect.stringContaining(`RedriveAllowPolicy of ${dead}`) };

    await set(dead, allow('denyAll'));
    await expect(create(to(dead), mine)).rejects.toMatchObject(denied);
    await create({}, mine);
    await expect(set(mine, to(dead))).rejects.toMatchObject(denied);
    expect(await attributeOf(mine, 'RedrivePolicy')).toBeUndefined();

    // The region is that of the client, and no part of a queue.
    await set(dead, allow('byQueue', [arnOf('somebody'), arnOf(mine, 'us-west-2')]));
    await set(mine, to(dead));
    await expect(create(to(dead), other)).rejects.toMatchObject(denied);

    await set(dead, allow('allowAll'));
    await create(to(dead), other);

    // A link that exists stays, and a creation that changes nothing is no change.
    await set(dead, allow('denyAll'));
    expect(await create(to(dead), mine)).toBe(mine);
    expect(await attributeOf(mine, 'RedrivePolicy')).toBe(to(dead).RedrivePolicy);
    await set(mine, { VisibilityTimeout: '7' });
    await set(mine, { RedrivePolicy: '' });
    await expect(set(mine, to(dead))).rejects.toMatchObject(denied);

    await set(dead, { RedriveAllowPolicy: '' });
    expect(await attributeOf(dead, 'RedriveAllowPolicy')).toBeUndefined();
    await set(mine, to(dead));
  });

  test.each([
    '{}',
    '[]',
    'null',
    'allowAll',
    '"allowAll"',
    '{"redrivePermission":"AllowAll"}',
    '{"redrivePermission":["allowAll"]}',
    '{"redrivePermission":"allowAll","other":1}',
    '{"redrivePermission":"byQueue","sourceQueueArns":"arn:aws:sqs:us-east-1:000000000000:x"}',
    '{"redrivePermission":"byQueue","sourceQueueArns":[{}]}',
  ])('has a form: not %s', async (RedriveAllowPolicy) => {
    const refused = { name: 'InvalidAttributeValue', message: expect.stringContaining('unsupported format') };
    await expect(create({ RedriveAllowPolicy })).rejects.toMatchObject(refused);
    await expect(set(await create(), { RedriveAllowPolicy })).rejects.toMatchObject(refused);
  });

  test.each([
    [allow('byQueue'), 'one or more sourceQueueArns'],
    [allow('byQueue', []), 'one or more sourceQueueArns'],
    [
      allow(
        'byQueue',
        Array.from({ length: 11 }, (_, index) => arnOf(`q${index}`)),
      ),
      'is 10',
    ],
    [allow('byQueue', ['orders']), 'orders is not the ARN of a queue'],
    [allow('allowAll', [arnOf('q')]), 'you must set redrivePermission to byQueue'],
    [allow('denyAll', []), 'you must set redrivePermission to byQueue'],
  ])('names one to ten queues, with byQueue only: not %j', async (policy, words) => {
    const refused = { name: 'InvalidParameterValue', message: expect.stringContaining(words) };
    await expect(create(policy)).rejects.toMatchObject(refused);
  });

  test('is answered as it came', async () => {
    const ten = allow(
      'byQueue',
      Array.from({ length: 10 }, (_, index) => arnOf(`q${index}`)),
    );
    const dead = await create(ten);
    expect(await attributeOf(dead, 'RedriveAllowPolicy')).toBe(ten.RedriveAllowPolicy);
    expect(await create(ten, dead)).toBe(dead);
    await expect(create(allow('denyAll'), dead)).rejects.toMatchObject({ name: 'QueueNameExists' });
  });
});

describe('the Policy of a queue', () => {
  test.each(['{"Statement":[null]}', '{"Statement":[[]]}', '{"Statement":1}', '[]', 'null', 'x'])(
    'has a form: not %s',
    async (Policy) => {
      const refused = { name: 'InvalidAttributeValue', message: expect.stringContaining('Policy') };
      await expect(create({ Policy })).rejects.toMatchObject(refused);
      await expect(set(await create(), { Policy })).rejects.toMatchObject(refused);
    },
  );

  test('gets a statement by AddPermission, whether it had none, one or several', async () => {
    for (const Policy of ['', '{}', '{"Statement":{"Sid":"own"}}', '{"Statement":[{"Sid":"own"},{}]}']) {
      const name = await create({ Policy });
      const permission = { QueueUrl: urlOf(name), Label: 'theirs' };
      const given = { ...permission, AWSAccountIds: ['111111111111'], Actions: ['SendMessage'] };
      await sqs().send(new AddPermissionCommand(given));
      await expect(sqs().send(new AddPermissionCommand(given))).rejects.toThrow('Already exists');
      expect(await attributeOf(name, 'Policy')).toContain('"Sid":"theirs"');
      await sqs().send(new RemovePermissionCommand(permission));
      expect((await attributeOf(name, 'Policy')) ?? '').not.toContain('theirs');
    }
  });
});

test('a text attribute is at most 8 KiB large, however it grows', async () => {
  const largest = 8192;
  const name = await create({ KmsMasterKeyId: 'k'.repeat(largest) });
  const tooLarge: Record<string, string>[] = [
    { KmsMasterKeyId: 'k'.repeat(largest + 1) },
    { Policy: JSON.stringify({ Id: 'ü'.repeat(largest / 2) }) },
    { RedrivePolicy: `${to(name).RedrivePolicy}${' '.repeat(largest)}` },
  ];
  for (const Attributes of tooLarge) {
    const refused = { name: 'InvalidAttributeValue', message: expect.stringContaining(`at most ${largest} bytes`) };
    await expect(create(Attributes)).rejects.toMatchObject(refused);
    await expect(set(name, Attributes)).rejects.toMatchObject(refused);
  }
  const add = (Label: string) =>
    sqs().send(
      new AddPermissionCommand({
        QueueUrl: urlOf(name),
        Label,
        AWSAccountIds: ['111111111111'],
        Actions: ['SendMessage'],
      }),
    );
  await expect(add('l'.repeat(largest))).rejects.toMatchObject({ name: 'OverLimit' });
  expect(await attributeOf(name, 'Policy')).toBeUndefined();
  await add('l');
  expect(await attributeOf(name, 'Policy')).toContain('"Sid":"l"');
});

test('an AWSTraceHeader is at most 1 KiB large, because it is no part of the size of its message', async () => {
  const QueueUrl = urlOf(await create({ MaximumMessageSize: '1024' }));
  const traced = (bytes: number) => ({
    MessageBody: 'b'.repeat(1024),
    MessageSystemAttributes: { AWSTraceHeader: { DataType: 'String', StringValue: 'R'.repeat(bytes) } },
  });
  await sqs().send(new SendMessageCommand({ QueueUrl, ...traced(1024) }));
  const refused = { name: 'InvalidParameterValue', message: expect.stringContaining('at most 1024 bytes') };
  await expect(sqs().send(new SendMessageCommand({ QueueUrl, ...traced(1025) }))).rejects.toMatchObject(refused);
  const { Successful, Failed } = await sqs().send(
    new SendMessageBatchCommand({
      QueueUrl,
      Entries: [
        { Id: 'large', ...traced(1025) },
        { Id: 'fits', ...traced(1) },
      ],
    }),
  );
  expect(Successful).toMatchObject([{ Id: 'fits' }]);
  expect(Failed).toMatchObject([{ Id: 'large', Code: 'InvalidParameterValue' }]);
});

test('an answer without any of the wanted attributes has no member Attributes', async () => {
  const QueueUrl = urlOf(await create());
  const ask = async (name: 'Policy' | 'DelaySeconds') =>
    (await sqs().send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: [name] }))).Attributes;
  expect(await ask('Policy')).toBeUndefined();
  expect(await ask('DelaySeconds')).toEqual({ DelaySeconds: '0' });
});

test('a list of queues refuses a token that no list gave, because an empty list would be a lie', async () => {
  const name = await create();
  const list = (NextToken: string) =>
    sqs().send(new ListQueuesCommand({ QueueNamePrefix: name, MaxResults: 1, NextToken }));
  for (const token of ['~', 'not a token', `${Buffer.from(name).toString('base64url')}=`])
    await expect(list(token)).rejects.toMatchObject({ name: 'InvalidParameterValue' });
  const before = Buffer.from(name.slice(0, -1)).toString('base64url');
  expect((await list(before)).QueueUrls).toEqual([urlOf(name)]);
});

test('the DelaySeconds of a FIFO queue delays each message, and a message cannot change it', async () => {
  const name = `${newQueueName()}.fifo`;
  await create({ FifoQueue: 'true', ContentBasedDeduplication: 'true', DelaySeconds: '2' }, name);
  const QueueUrl = urlOf(name);
  const send = (MessageBody: string, DelaySeconds?: number) =>
    sqs().send(new SendMessageCommand({ QueueUrl, MessageBody, MessageGroupId: 'g', DelaySeconds }));
  const receive = async () => {
    const { Messages = [] } = await sqs().send(
      new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 1, WaitTimeSeconds: 20 }),
    );
    return Messages[0]!;
  };
  const sentAt = Date.now();
  await send('first');
  // In a FIFO queue it means the queue's.
  await send('second', 0);
  await expect(send('third', 1)).rejects.toMatchObject({ name: 'InvalidParameterValue' });
  const first = await receive();
  // Both clocks may be a little fast.
  expect(Date.now() - sentAt).toBeGreaterThan(1900);
  expect(first.Body).toBe('first');
  await sqs().send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: first.ReceiptHandle }));
  expect((await receive()).Body).toBe('second');
});
