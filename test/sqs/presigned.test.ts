import { CreateQueueCommand, ReceiveMessageCommand } from '@aws-sdk/client-sqs';
import { Sha256 } from '@smithy/core/checksum';
import { SignatureV4 } from '@smithy/signature-v4';
import { describe, expect, test } from 'vitest';
import { newQueueName } from '../support/api.js';
import { callRaw } from '../support/raw-http.js';
import { CREDENTIALS, newClient, REGION, useSqsBroker } from './support.js';

const ADMIN_KEY = 'admin-key-of-the-tests';
const keyed = {
  rowmq: useSqsBroker({ ROWMQ_ADMIN_KEY: ADMIN_KEY, ROWMQ_MAX_FAILED_ATTEMPTS: '1000' }),
  credentials: { accessKeyId: 'ROWMQ_ADMIN_KEY', secretAccessKey: ADMIN_KEY },
};
const open = { rowmq: useSqsBroker(), credentials: CREDENTIALS };

type Query = Record<string, string>;

/** A URL that AWS's own signer made. */
async function presign({ rowmq, credentials }: typeof open, path: string, query: Query): Promise<URL> {
  const { hostname, host } = new URL(rowmq.broker.url);
  const signer = new SignatureV4({ service: 'sqs', region: REGION, credentials, sha256: Sha256 });
  const request = { method: 'GET', protocol: 'http:', hostname, path, query, headers: { host } };
  const signed = await signer.presign(request, { expiresIn: 60 });
  const url = new URL(path, rowmq.broker.url);
  url.search = new URLSearchParams(signed.query as Query).toString();
  return url;
}

describe.each([
  ['a broker that asks for keys', keyed],
  ['a broker that asks for none', open],
])('%s', (_, at) => {
  test('carries out the action of a presigned URL, of a queue and of /', async () => {
    const sqs = newClient(at.rowmq.broker.url, at.credentials);
    const { QueueUrl = '' } = await sqs.send(new CreateQueueCommand({ QueueName: newQueueName() }));
    const body = "a+b & 'c' = é/*~";
    const send = { Action: 'SendMessage', MessageBody: body, Version: '2012-11-05' };
    for (const [path, query] of [
      ['/', { ...send, QueueUrl }],
      [new URL(QueueUrl).pathname, send],
    ] as const) {
      const answer = await fetch(await presign(at, path, query));
      expect(answer.headers.get('content-type')).toBe('text/xml');
      expect(await answer.text()).toContain('<SendMessageResult>');
      const { Messages } = await sqs.send(new ReceiveMessageCommand({ QueueUrl, WaitTimeSeconds: 20 }));
      expect(Messages).toMatchObject([{ Body: body }]);
    }
    const list = await fetch(await presign(at, '/', { QueueNamePrefix: 'no-such', Action: 'ListQueues' }));
    expect(await list.text()).toMatch(/<ListQueuesResult\/?>/);
    const unknown = await fetch(await presign(at, '/', { Action: 'NoSuchAction' }));
    expect(await unknown.text()).toContain('<Code>InvalidAction</Code>');
  });

  test('answers GET / without an action as ever', async () => {
    for (const path of ['/', '/?', '/?NoAction=SendMessage', '/?x=Action=ListQueues', '/?action=ListQueues']) {
      const answer = await fetch(`${at.rowmq.broker.url}${path}`);
      expect(await answer.json(), path).toMatchObject({ name: 'RowMQ' });
      const page = await fetch(`${at.rowmq.broker.url}${path}`, {
        headers: { accept: 'text/html' },
        redirect: 'manual',
      });
      expect(page.headers.get('location'), path).toBe('dashboard');
    }
    expect((await fetch(`${at.rowmq.broker.url}/?Action=ListQueues`, { method: 'HEAD' })).status).toBe(404);
  });
});

test('a broker that asks for keys refuses an action of / without a signature, or with one for another action', async () => {
  const unsigned = await fetch(`${keyed.rowmq.broker.url}/?Action=ListQueues`);
  expect(unsigned.status).toBe(403);
  expect(await unsigned.text()).toContain('<Code>MissingAuthenticationToken</Code>');
  const url = await presign(keyed, '/', { Action: 'ListQueues' });
  expect((await fetch(url)).status).toBe(200);
  url.searchParams.set('Action', 'CreateQueue');
  const other = await fetch(url);
  expect(other.status).toBe(403);
  expect(await other.text()).toContain('<Code>SignatureDoesNotMatch</Code>');
});

describe('a broker that asks for no keys', () => {
  // `fetch` would add headers of its own.
  const get = async (path: string, headers: Query): Promise<string> => {
    const { status, text } = await callRaw(open.rowmq.broker.url, 'GET', path, undefined, headers);
    return `${status} ${text}`;
  };
  const BROWSER = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0';

  test('refuses what a web page of another origin makes a browser GET', async () => {
    const queue = await open.rowmq.newQueue();
    const [id] = await queue.enqueue('b');
    const url = encodeURIComponent(`${open.rowmq.broker.url}/000000000000/${queue.name}`);
    for (const path of [
      `/?Action=PurgeQueue&QueueUrl=${url}`,
      `/000000000000/${queue.name}?Action=PurgeQueue`,
      `/queue/${queue.name}?Action=DeleteQueue`,
    ])
      for (const headers of [
        { 'sec-fetch-site': 'cross-site' },
        { 'sec-fetch-site': 'same-site', 'user-agent': 'curl/8' },
        { 'sec-fetch-site': 'anything' },
        { 'user-agent': BROWSER },
      ]) {
        const answer = await get(path, headers as Query);
        expect(answer, path).toMatch(/^403 [^]*<Code>AccessDenied<\/Code>/);
      }
    expect(await queue.browse('ready')).toMatchObject([{ id }]);
  });

  test('answers programs, and addresses that a person typed', async () => {
    for (const headers of [
      {},
      { 'user-agent': 'curl/8.5.0' },
      { 'sec-fetch-site': 'none', 'user-agent': BROWSER },
      { 'sec-fetch-site': 'same-origin', 'user-agent': BROWSER },
    ])
      expect(await get('/?Action=ListQueues', headers as Query)).toMatch(/^200 /);
  });
});
