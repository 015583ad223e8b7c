import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Api, newQueueName, useOwnBroker } from '../support/api.js';
import { type Broker, startBroker } from '../support/processes.js';
import { eventually } from '../support/wait.js';

interface Attribute {
  key: string;
  value: { stringValue?: string; intValue?: number };
}
interface Span {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  attributes: Attribute[];
  links?: { traceId: string; spanId: string }[];
  status: { code?: number };
}
interface Export {
  resourceSpans: { resource: { attributes: Attribute[] }; scopeSpans: { spans: Span[] }[] }[];
}

const own = useOwnBroker();
const spans: (Span & { service: unknown })[] = [];
let collector: Server;
let url: string;
let broker: Broker;
let api: Api;

beforeAll(async () => {
  collector = createServer((request, response) => {
    void take(request, response);
  }).listen(0, '127.0.0.1');
  await once(collector, 'listening');
  url = `http://127.0.0.1:${(collector.address() as AddressInfo).port}/v1/traces`;
  broker = await startBroker({ database: own.broker.database, env: { ROWMQ_TRACES_URL: url } });
  api = new Api(broker.url);
});
afterAll(async () => {
  await broker.stop();
  collector.closeAllConnections();
  collector.close();
});

async function take(request: IncomingMessage, response: ServerResponse): Promise<void> {
  for (const { resource, scopeSpans } of ((await json(request)) as Export).resourceSpans) {
    const service = valuesOf(resource.attributes)['service.name'];
    spans.push(...scopeSpans.flatMap((scope) => scope.spans.map((span) => ({ ...span, service }))));
  }
  response.setHeader('content-type', 'application/json');
  response.end('{}');
}

function valuesOf(attributes: readonly Attribute[]): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, value.stringValue ?? value.intValue]));
}

let traces = 0;
/** The headers of a client that traces, and the ids in them. */
function newTrace(sampled = true): { traceId: string; spanId: string; traceparent: string } {
  traces += 1;
  const traceId = `${'a'.repeat(28)}${String(traces).padStart(4, '0')}`;
  const spanId = `${'b'.repeat(12)}${String(traces).padStart(4, '0')}`;
  return { traceId, spanId, traceparent: `00-${traceId}-${spanId}-${sampled ? '01' : '00'}` };
}

async function spanOf(traceId: string): Promise<(typeof spans)[number]> {
  return eventually('the collector has the span', () => spans.find((span) => span.traceId === traceId), 30_000);
}

test('an enqueue, a dequeue and an ack are spans of their clients’ traces, and the first two link to the producer’s', async () => {
  const name = newQueueName();
  await api.put(`/v1/admin/queues/${name}`);
  const path = `/v1/queues/${name}/messages`;
  const [sent, enqueues, dequeues, acks] = [newTrace(), newTrace(), newTrace(), newTrace()];
  const message = { body: 'top-secret', headers: { traceparent: sent.traceparent } };
  const call = async (verb: string, body: unknown, { traceparent }: { traceparent: string }) =>
    api.call<{ messages: { receipt: string }[] }>('POST', `${path}${verb}`, body, { traceparent });
  expect((await call('', { messages: [message, { body: 'plain' }] }, enqueues)).status).toBe(201);
  const { json: taken } = await call('/dequeue', { maxMessages: 2, waitSeconds: 5 }, dequeues);
  const receipts = taken.messages.map(({ receipt }) => receipt);
  expect((await call('/ack', { receipts }, acks)).status).toBe(200);

  const link = expect.objectContaining({ traceId: sent.traceId, spanId: sent.spanId }) as object;
  const enqueue = await spanOf(enqueues.traceId);
  expect(enqueue).toMatchObject({
    name: `enqueue ${name}`,
    parentSpanId: enqueues.spanId,
    kind: 2,
    links: [link],
    service: 'rowmq-broker',
  });
  expect(valuesOf(enqueue.attributes)).toMatchObject({
    'messaging.system': 'rowmq',
    'messaging.operation.type': 'send',
    'messaging.destination.name': name,
    'messaging.batch.message_count': 2,
    'http.response.status_code': 201,
  });
  const dequeue = await spanOf(dequeues.traceId);
  expect(dequeue).toMatchObject({ name: `dequeue ${name}`, parentSpanId: dequeues.spanId, links: [link] });
  const ack = await spanOf(acks.traceId);
  expect(ack).toMatchObject({ name: `ack ${name}`, parentSpanId: acks.spanId });
  expect(valuesOf(ack.attributes)).toMatchObject({
    'messaging.operation.type': 'settle',
    'messaging.batch.message_count': receipts.length,
  });
  expect(JSON.stringify(spans)).not.toContain('top-secret');
});

test('a refused call says why, a trace that is not sampled has no span, and a malformed one begins anew', async () => {
  const [refused, unsampled] = [newTrace(), newTrace(false)];
  const path = '/v1/queues/no-such-queue/messages/dequeue';
  const send = async (traceparent: string) => api.call('POST', path, {}, { traceparent, 'x-request-id': traceparent });
  for (const traceparent of [unsampled.traceparent, refused.traceparent, '00-zz-zz-01'])
    expect((await send(traceparent)).status).toBe(404);
  const span = await spanOf(refused.traceId);
  expect(valuesOf(span.attributes)).toMatchObject({
    'error.type': 'queue-not-found',
    'http.response.status_code': 404,
    'rowmq.request.id': refused.traceparent,
  });
  await eventually('the malformed one has a span', () =>
    spans.some((one) => valuesOf(one.attributes)['rowmq.request.id'] === '00-zz-zz-01' && !one.parentSpanId),
  );
  expect(spans.filter(({ traceId }) => traceId === unsampled.traceId)).toEqual([]);
});

test('nonsense in place of messages and their headers is refused as ever', async () => {
  const name = newQueueName();
  await api.put(`/v1/admin/queues/${name}`);
  for (const body of [
    'null',
    '[]',
    '"x"',
    '{"messages":{}}',
    '{"messages":[null,1,{"headers":[]},{"headers":{"traceparent":1}}]}',
  ])
    expect((await api.call('POST', `/v1/queues/${name}/messages`, body)).status, body).toBe(400);
});

test('a collector that is away costs no call, and the log says so', async () => {
  const lonely = await startBroker({
    database: own.broker.database,
    env: { ROWMQ_TRACES_URL: 'http://127.0.0.1:9/v1/traces' },
  });
  const there = new Api(lonely.url).queue(newQueueName());
  await there.put();
  await there.enqueue('a', 'b');
  await eventually('the log says so', () => lonely.output().includes('Cannot export traces'), 30_000);
  expect((await there.dequeue({ maxMessages: 2, waitSeconds: 5 })).length).toBeGreaterThan(0);
  await lonely.stop();
});
