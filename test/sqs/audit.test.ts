import type { AuditAnswer } from '@rowmq/contract';
import { expect, test } from 'vitest';
import { newQueueName } from '../support/api.js';
import { openSocket } from '../support/raw-http.js';
import { eventually } from '../support/wait.js';
import { useSqsBroker } from './support.js';

const rowmq = useSqsBroker({ ROWMQ_TRUSTED_PROXIES: '127.0.0.1' });

async function audited(requestId: string) {
  return eventually(`${requestId} is in the audit`, async () => {
    const { entries } = (await rowmq.api.get<AuditAnswer>('/v1/admin/audit?limit=20')).json;
    return entries.find((entry) => entry.requestId === requestId);
  });
}

test.each([
  ['::ffff:10.1.1.1', '10.1.1.1'],
  ['10.1.1.2:4711', '10.1.1.2'],
  ['x'.repeat(100), '127.0.0.1'],
])('the audit has the address of a client of SQS, and no text that it claims: %s', async (claimed, address) => {
  const socket = await openSocket(rowmq.broker.url);
  const requestId = `claimed-${claimed.length}`;
  const form = `Action=CreateQueue&QueueName=${newQueueName()}`;
  const lines = [
    'POST / HTTP/1.1',
    'Host: localhost',
    `X-Request-Id: ${requestId}`,
    `X-Forwarded-For: ${claimed}`,
    'Content-Type: application/x-www-form-urlencoded',
    `Content-Length: ${form.length}`,
  ];
  socket.write(`${lines.join('\r\n')}\r\n\r\n${form}`);
  expect(await audited(requestId)).toMatchObject({ action: 'CreateQueue', address });
  socket.destroy();
});
