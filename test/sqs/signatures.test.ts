import { CreateQueueCommand, ListQueuesCommand, ReceiveMessageCommand, SendMessageCommand } from '@aws-sdk/client-sqs';
import { describe, expect, test } from 'vitest';
import { Api, newQueueName } from '../support/api.js';
import { findPython, newClient, REGION, runProgram, useSqsBroker } from './support.js';

const ADMIN_KEY = 'admin-key-of-the-tests';
const rowmq = useSqsBroker({
  ROWMQ_ADMIN_KEY: ADMIN_KEY,
  ROWMQ_SQS_SECRET_KEY: 'a-key-of-the-tests-with-32-characters',
  ROWMQ_MAX_FAILED_ATTEMPTS: '1000',
});
const systemPython = findPython('boto3', true);
const otherPython = findPython('boto3', false);

interface NewKey {
  id: string;
  secret: string;
}

const asAdmin = () => new Api(rowmq.broker.url, { authorization: `Bearer ${ADMIN_KEY}` });

async function newKey(scopes: string[], patterns: string[] = []): Promise<NewKey> {
  const answer = await asAdmin().post<NewKey>('/v1/admin/keys', { name: newQueueName(), scopes, patterns });
  expect(answer.status, answer.text).toBe(201);
  return answer.json;
}

function clientOf({ id, secret }: NewKey) {
  return newClient(rowmq.broker.url, { accessKeyId: id, secretAccessKey: secret });
}

const admin = () => newClient(rowmq.broker.url, { accessKeyId: 'ROWMQ_ADMIN_KEY', secretAccessKey: ADMIN_KEY });

describe('a broker that asks for keys', () => {
  test('takes the signature of an API key, with its scopes and its patterns', async () => {
    const prefix = newQueueName();
    const { QueueUrl } = await admin().send(new CreateQueueCommand({ QueueName: `${prefix}-mine` }));
    const { QueueUrl: other } = await admin().send(new CreateQueueCommand({ QueueName: `${prefix}x` }));
    const key = await newKey(['enqueue'], [`${prefix}-*`]);
    const producer = clientOf(key);
    await producer.send(new SendMessageCommand({ QueueUrl, MessageBody: 'x' }));
    await expect(producer.send(new SendMessageCommand({ QueueUrl: other, MessageBody: 'x' }))).rejects.toMatchObject({
      $metadata: { httpStatusCode: 403 },
    });
    await expect(producer.send(new ReceiveMessageCommand({ QueueUrl }))).rejects.toMatchObject({
      $metadata: { httpStatusCode: 403 },
    });
    expect((await producer.send(new ListQueuesCommand({}))).QueueUrls).toEqual([QueueUrl]);
    const { Messages } = await admin().send(
      new ReceiveMessageCommand({ QueueUrl, MessageSystemAttributeNames: ['SenderId'], WaitTimeSeconds: 10 }),
    );
    expect(Messages).toMatchObject([{ Attributes: { SenderId: key.id } }]);
  });

  test('refuses a wrong secret, an unknown key, no signature, and a key that was revoked', async () => {
    const key = await newKey(['admin']);
    const refused = async (client: ReturnType<typeof clientOf>) =>
      client.send(new ListQueuesCommand({})).then(
        () => 'accepted',
        (error: { name: string; $metadata: { httpStatusCode: number } }) =>
          `${error.$metadata.httpStatusCode} ${error.name}`,
      );
    expect(await refused(clientOf(key))).toBe('accepted');
    expect(await refused(clientOf({ ...key, secret: `${key.secret}x` }))).toMatch(/^403 /);
    expect(await refused(clientOf({ ...key, id: 'nobody' }))).toMatch(/^403 /);
    const bare = await fetch(rowmq.broker.url, {
      method: 'POST',
      headers: { 'content-type': 'application/x-amz-json-1.0', 'x-amz-target': 'AmazonSQS.ListQueues' },
      body: '{}',
    });
    expect(bare.status).toBe(403);
    expect(bare.headers.get('x-amzn-query-error')).toBe('MissingAuthenticationToken;Sender');
    const keys = (await asAdmin().get<{ keys: { name: string; id: string }[] }>('/v1/admin/keys')).json.keys;
    const { name } = keys.find(({ id }) => id === key.id) as { name: string };
    await asAdmin().delete(`/v1/admin/keys/${name}`);
    expect(await refused(clientOf(key))).toMatch(/^403 /);
  });
});

const PRESIGN = `
import os, sys, boto3
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
key, secret = sys.argv[1:3]
sqs = boto3.client('sqs', endpoint_url=os.environ['SQS_URL'], region_name='${REGION}',
    aws_access_key_id=key, aws_secret_access_key=secret)
url = sqs.create_queue(QueueName='presigned')['QueueUrl']
request = AWSRequest('GET', url, params={'Action': 'SendMessage', 'MessageBody': 'a b&c*d/é'})
SigV4QueryAuth(Credentials(key, secret), 'sqs', '${REGION}', expires=60).add_auth(request)
print(request.prepare().url)
`;

describe.skipIf(systemPython === undefined && otherPython === undefined)('boto3', () => {
  test.each([systemPython, otherPython].filter((python) => python !== undefined))(
    'signs requests and URLs that the broker verifies, as %s has it',
    async (python) => {
      const { id, secret } = await newKey(['admin', 'enqueue']);
      const url = (await runProgram(python, ['-c', PRESIGN, id, secret], rowmq.broker.url)).trim();
      expect(url).toContain('X-Amz-Signature');
      const answer = await fetch(url);
      expect(answer.status, await answer.text()).toBe(200);
      expect((await fetch(url.replace('Body=a', 'Body=b'))).status).toBe(403);
    },
  );
});
