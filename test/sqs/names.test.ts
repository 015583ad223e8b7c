import { CreateQueueCommand, GetQueueUrlCommand, SendMessageCommand } from '@aws-sdk/client-sqs';
import { expect, test } from 'vitest';
import { newClient, useSqsBroker } from './support.js';

const rowmq = useSqsBroker();

test('a name that no queue can have is refused as the mistake that it is', async () => {
  const sqs = newClient(rowmq.broker.url);
  for (const name of ['é', 'über.fifo', 'a b', '😀']) {
    const missing = { name: 'QueueDoesNotExist' };
    await expect(sqs.send(new GetQueueUrlCommand({ QueueName: name }))).rejects.toMatchObject(missing);
    const QueueUrl = `${rowmq.broker.url}/000000000000/${encodeURIComponent(name)}`;
    await expect(sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'x' }))).rejects.toMatchObject(missing);
    const created = sqs.send(new CreateQueueCommand({ QueueName: name }));
    await expect(created).rejects.toMatchObject({ name: 'InvalidParameterValue' });
  }
});
