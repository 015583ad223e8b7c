import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv, type ValidateFunction } from 'ajv';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  ackRequest,
  createKeyRequest,
  dequeueRequest,
  enqueueRequest,
  extendRequest,
  nackRequest,
  pauseRequest,
  publishRequest,
  putQueueRequest,
  keyLimits,
  putScheduleRequest,
  putSubscriptionRequest,
  dropRequest,
  moveMessageRequest,
  oneMessageRequest,
  type JobsAnswer,
  redriveRequest,
  releaseRequest,
  replayRequest,
  rotateKeyRequest,
  resumeRequest,
} from '@rowmq/contract';
import { type Answer, useOwnBroker } from '../support/api.js';
import { startReaper } from '../support/processes.js';
import { nearValuesOf, type Schema, valuesOf } from '../support/schema-arbitrary.js';
import { eventually } from '../support/wait.js';

const shared = useOwnBroker();

interface Media {
  schema: { example?: unknown; type?: string } & Record<string, unknown>;
  examples?: Record<string, { value: unknown }>;
}
interface Operation {
  operationId: string;
  summary: string;
  parameters?: { name: string; in: string; schema: Record<string, unknown> }[];
  requestBody?: { required?: boolean; content: Record<string, Media> };
  responses: Record<string, { description: string; content?: Record<string, Media> }>;
  security?: unknown[];
}
interface Document {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { securitySchemes: Record<string, unknown>; schemas: Record<string, Media['schema']> };
}

/** Every call of the contract, and the schema of its request where it has one. */
const CALLS = {
  'POST /v1/queues/{queue}/messages': enqueueRequest,
  'POST /v1/queues/{queue}/messages/dequeue': dequeueRequest,
  'POST /v1/queues/{queue}/messages/ack': ackRequest,
  'DELETE /v1/queues/{queue}/messages/{receipt}': undefined,
  'POST /v1/queues/{queue}/messages/nack': nackRequest,
  'POST /v1/queues/{queue}/messages/release': releaseRequest,
  'POST /v1/queues/{queue}/messages/extend': extendRequest,
  'POST /v1/topics/{topic}/messages': publishRequest,
  'GET /v1/admin/topics': undefined,
  'GET /v1/admin/topics/{topic}': undefined,
  'PUT /v1/admin/topics/{topic}': undefined,
  'DELETE /v1/admin/topics/{topic}': undefined,
  'GET /v1/admin/topics/{topic}/subscriptions/{queue}': undefined,
  'PUT /v1/admin/topics/{topic}/subscriptions/{queue}': putSubscriptionRequest,
  'DELETE /v1/admin/topics/{topic}/subscriptions/{queue}': undefined,
  'PUT /v1/admin/queues/{queue}': putQueueRequest,
  'GET /v1/admin/database': undefined,
  'GET /v1/admin/overview': undefined,
  'GET /v1/admin/queues': undefined,
  'GET /v1/admin/queues/{queue}': undefined,
  'DELETE /v1/admin/queues/{queue}': undefined,
  'POST /v1/admin/queues/{queue}/purge': undefined,
  'POST /v1/admin/queues/{queue}/pause': pauseRequest,
  'POST /v1/admin/queues/{queue}/resume': resumeRequest,
  'GET /v1/admin/queues/{queue}/history': undefined,
  'GET /v1/admin/queues/{queue}/consumers': undefined,
  'POST /v1/admin/queues/{queue}/redrive': redriveRequest,
  'POST /v1/admin/queues/{queue}/drop': dropRequest,
  'POST /v1/admin/messages/{id}/ack': oneMessageRequest,
  'POST /v1/admin/messages/{id}/release': oneMessageRequest,
  'POST /v1/admin/messages/{id}/redrive': oneMessageRequest,
  'POST /v1/admin/messages/{id}/move': moveMessageRequest,
  'GET /v1/admin/jobs': undefined,
  'GET /v1/admin/jobs/{id}': undefined,
  'DELETE /v1/admin/jobs/{id}': undefined,
  'POST /v1/admin/queues/{queue}/replay': replayRequest,
  'GET /v1/admin/queues/{queue}/messages': undefined,
  'GET /v1/admin/messages/{id}': undefined,
  'DELETE /v1/admin/messages/{id}': undefined,
  'GET /v1/admin/schedules': undefined,
  'GET /v1/admin/schedules/{schedule}': undefined,
  'PUT /v1/admin/schedules/{schedule}': putScheduleRequest,
  'DELETE /v1/admin/schedules/{schedule}': undefined,
  'POST /v1/admin/schedules/{schedule}/run': undefined,
  'POST /v1/admin/keys': createKeyRequest,
  'GET /v1/admin/keys': undefined,
  'GET /v1/admin/keys/{key}': undefined,
  'POST /v1/admin/keys/{key}/rotate': rotateKeyRequest,
  'PUT /v1/admin/keys/{key}/limits': keyLimits,
  'DELETE /v1/admin/keys/{key}': undefined,
  'GET /v1/admin/audit': undefined,
  'GET /v1/admin/reaper': undefined,
  'GET /': undefined,
  'GET /health/live': undefined,
  'GET /health/ready': undefined,
  'GET /metrics': undefined,
} as const;
type Call = keyof typeof CALLS;

/** The document as it is. */
let published: Document;
/** The document with each reference to a named schema replaced by that schema. */
let document: Document;
const ajv = new Ajv({
  strict: false,
  allErrors: true,
  formats: { 'date-time': (text) => text === new Date(text).toISOString() },
});

beforeAll(async () => {
  published = (await shared.api.get<Document>('/openapi.json')).json;
  document = resolve(published) as Document;
});

function resolve(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(resolve);
  if ('$ref' in value) {
    const name = /^#\/components\/schemas\/(\w+)$/.exec(String(value.$ref))?.[1] as string;
    expect(published.components.schemas, `${name} is not in the document`).toHaveProperty(name);
    return resolve(published.components.schemas[name]);
  }
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, resolve(part)]));
}

function operation(call: Call): Operation {
  const [method, path] = call.split(' ') as [string, string];
  const found = document.paths[path]?.[method.toLowerCase()];
  expect(found, `${call} is not in the document`).toBeDefined();
  return found as Operation;
}

/** Fails unless the answer is one that the document describes for this call, field by field. */
function expectDescribed(call: Call, answer: Answer): void {
  const described = operation(call).responses[String(answer.status)];
  expect(described, `${call} answered ${answer.status}, which is not described: ${answer.text}`).toBeDefined();
  const type = answer.headers.get('content-type')?.split(';')[0];
  if (answer.text === '') {
    expect(described!.content).toBeUndefined();
    return;
  }
  const media = described!.content?.[type ?? ''];
  expect(media, `${call} ${answer.status} answers ${type}, which is not described`).toBeDefined();
  const validate: ValidateFunction = ajv.compile(media!.schema);
  expect(
    validate(answer.json ?? answer.text),
    `${call} ${answer.status}: ${ajv.errorsText(validate.errors)}\n${answer.text}`,
  ).toBe(true);
}

describe('/openapi.json', () => {
  test('is a valid OpenAPI 3.0 document', async () => {
    const { valid, errors } = await new Validator().validate(
      structuredClone(published) as unknown as Record<string, unknown>,
    );
    expect(errors).toBeUndefined();
    expect(valid).toBe(true);
    expect(document.openapi).toMatch(/^3\.0\./);
  });

  test('names each call once, by a name that a generated client can use', () => {
    const ids = Object.values(published.paths).flatMap((methods) =>
      Object.values(methods).map(({ operationId }) => operationId),
    );
    for (const id of ids) expect(id).toMatch(/^[a-z][A-Za-z]+$/);
    expect(new Set(ids).size).toBe(ids.length);
    for (const reserved of ['delete', 'default', 'new', 'get', 'list', 'put']) expect(ids).not.toContain(reserved);
    expect(ids).toEqual(
      expect.arrayContaining(['enqueue', 'dequeue', 'ack', 'nack', 'extend', 'putQueue', 'deleteQueue', 'listQueues']),
    );
  });

  test('has a named schema for each request and answer in JSON, and for the parts that they share', () => {
    const named = { $ref: expect.stringMatching(/^#\/components\/schemas\/[A-Z]\w+$/) };
    for (const [path, methods] of Object.entries(published.paths)) {
      if (!path.startsWith('/v1/')) continue;
      for (const [method, { requestBody, responses }] of Object.entries(methods)) {
        const bodies = [requestBody, ...Object.values(responses)].flatMap((body) => Object.values(body?.content ?? {}));
        for (const { schema } of bodies) {
          // The body of a call without settings has no fields, and so no name.
          const isEmpty = schema.type === 'object' && Object.keys(schema['properties'] ?? {}).length === 0;
          if (!isEmpty) expect(schema, `${method} ${path}`).toEqual(named);
        }
      }
    }
    const { schemas } = published.components;
    expect(Object.keys(schemas)).toEqual(
      expect.arrayContaining(['EnqueueMessage', 'LeasedMessage', 'FailedReceipt', 'Queue', 'QueueStats', 'Problem']),
    );
    expect(schemas['DequeueAnswer']).toMatchObject({ properties: { messages: { items: named } } });
    expect(schemas['Queue']).toMatchObject({ properties: { stats: named } });
  });

  test('says that the key is a bearer token of no special format', () => {
    expect(published.components.securitySchemes).toEqual({
      bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'API key', description: expect.any(String) },
    });
  });

  test('has every call of the contract and no other', () => {
    const calls = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(calls.toSorted()).toEqual(Object.keys(CALLS).toSorted());
  });

  test.each(Object.keys(CALLS) as Call[])('describes %s, its request and its answers', (call) => {
    const { summary, responses, security, parameters = [] } = operation(call);
    expect(summary).toMatch(/\w/);
    const names = [...call.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    expect(parameters.filter((parameter) => parameter.in === 'path').map(({ name }) => name)).toEqual(names);
    expect(Object.keys(responses).filter((status) => status.startsWith('2'))).not.toEqual([]);
    if (!call.includes(' /v1/')) return;
    expect(security).toEqual([{ bearer: [] }]);
    expect(Object.keys(responses)).toEqual(expect.arrayContaining(['401', '403', '408', '429', '500', '503']));
    if (!call.startsWith('GET ')) expect(Object.keys(responses)).toEqual(expect.arrayContaining(['413', '415']));
    if (names.length > 0) expect(Object.keys(responses)).toContain('400');
  });

  test.each(Object.keys(CALLS) as Call[])('describes each problem of %s by an example that is one', (call) => {
    for (const [status, { content }] of Object.entries(operation(call).responses)) {
      if (Number(status) < 400) continue;
      const media = content?.['application/problem+json'];
      expect(media, `${call} ${status}`).toBeDefined();
      const examples = Object.entries(media!.examples ?? {});
      expect(examples).not.toEqual([]);
      for (const [code, { value }] of examples) {
        expect(value).toMatchObject({ code, status: Number(status), type: `urn:rowmq:problem:${code}` });
        expect(ajv.validate(media!.schema, value), ajv.errorsText()).toBe(true);
      }
    }
  });

  const withRequest = (Object.keys(CALLS) as Call[]).filter((call) => CALLS[call] !== undefined);
  test.each(withRequest)('shows an example request of %s that the broker accepts', (call) => {
    const media = operation(call).requestBody?.content['application/json'];
    expect(media?.schema.example, 'no example').toBeDefined();
    expect(CALLS[call]?.safeParse(media!.schema.example)).toMatchObject({ success: true });
    expect(ajv.validate(media!.schema, media!.schema.example), ajv.errorsText()).toBe(true);
    expect(media!.schema['additionalProperties']).toBe(false);
  });

  test('shows answers by examples that fit their own schemas', () => {
    const examples: [string, unknown, unknown][] = [];
    const collect = (schema: unknown, path: string): void => {
      if (typeof schema !== 'object' || schema === null) return;
      if ('example' in schema) examples.push([path, schema, schema.example]);
      for (const [key, value] of Object.entries(schema)) if (key !== 'example') collect(value, `${path}.${key}`);
    };
    for (const [path, methods] of Object.entries(document.paths))
      for (const [method, { responses }] of Object.entries(methods))
        for (const [status, { content }] of Object.entries(responses))
          for (const media of Object.values(content ?? {})) collect(media.schema, `${method} ${path} ${status}`);
    expect(examples.length).toBeGreaterThan(50);
    for (const [path, schema, example] of examples)
      expect(ajv.validate(schema as object, example), `${path}: ${JSON.stringify(example)} ${ajv.errorsText()}`).toBe(
        true,
      );
  });
});

describe('the real answers of the broker', () => {
  test('have exactly the described fields, for every call', async () => {
    const { api } = shared;
    const reaper = await startReaper(shared.broker.database, { ROWMQ_REAPER_INTERVAL_SECONDS: '1' });
    const dead = await shared.newQueue();
    const queue = await shared.newQueue();
    const answers: [Call, Answer][] = [];
    const call = async <T>(
      which: Call,
      path: string,
      body?: unknown,
      headers?: Record<string, string>,
    ): Promise<Answer<T>> => {
      const answer = await api.call<T>(which.split(' ')[0] as string, path, body, headers);
      answers.push([which, answer]);
      return answer;
    };
    const put = 'PUT /v1/admin/queues/{queue}';
    await call(put, '/v1/admin/queues/made-here', {}, { 'if-none-match': '*' });
    await call(put, '/v1/admin/queues/made-here', {}, { 'if-none-match': '*' });
    await call(put, '/v1/admin/queues/made-here', { maxReceives: 1, deadLetterQueue: dead.name, maxDepth: 100 });
    await call(put, '/v1/admin/queues/made-here', { maxReceives: 0 });

    const enqueue = 'POST /v1/queues/{queue}/messages';
    const messages = [
      { body: 'text', headers: { k: 'v' } },
      { body: '/w==', bodyEncoding: 'base64' },
      { body: 'later', delaySeconds: 600 },
      ...Array.from({ length: 5 }, (_, index) => ({ body: String(index) })),
    ];
    const { json: enqueued } = await call<{ messages: { id: string }[] }>(enqueue, queue.messagesPath, { messages });
    await call(enqueue, queue.messagesPath, { messages: [] });
    await call(enqueue, '/v1/queues/nowhere/messages', { messages });
    await call(enqueue, queue.messagesPath, { messages: [{ body: 'x'.repeat(4097) }] });
    await queue.put({ maxDepth: 1 });
    await call(enqueue, queue.messagesPath, { messages });
    await queue.put({ maxDepth: null });

    const dequeue = 'POST /v1/queues/{queue}/messages/dequeue';
    const { json: leased } = await call<{ messages: { receipt: string }[] }>(dequeue, `${queue.messagesPath}/dequeue`, {
      maxMessages: 6,
    });
    const [a, b, c, d, e] = leased.messages.map(({ receipt }) => receipt) as [string, string, string, string, string];
    await call(dequeue, `${dead.messagesPath}/dequeue`);
    const [f] = leased.messages.slice(5).map(({ receipt }) => receipt);
    const carrying = await call(dequeue, `${queue.messagesPath}/dequeue`, { ack: [f, 'x'] });
    expect(carrying.json).toMatchObject({ acked: [f], failed: [{ receipt: 'x' }] });
    await call(dequeue, `${queue.messagesPath}/dequeue`, { maxMessages: 0 });

    await call('POST /v1/queues/{queue}/messages/ack', `${queue.messagesPath}/ack`, { receipts: [a, a, 'x'] });
    const nacked = { receipts: [b, a, 'x'], reason: 'not now', delaySeconds: 600 };
    await call('POST /v1/queues/{queue}/messages/nack', `${queue.messagesPath}/nack`, nacked);
    const released = { receipts: [e, b, 'x'], delaySeconds: 600, reason: 'stopped' };
    await call('POST /v1/queues/{queue}/messages/release', `${queue.messagesPath}/release`, released);
    await call(dequeue, `${queue.messagesPath}/dequeue`, { withSettings: true });
    const extended = { receipts: [c, b, a], leaseSeconds: 60 };
    await call('POST /v1/queues/{queue}/messages/extend', `${queue.messagesPath}/extend`, extended);
    for (const receipt of [d, a, b, 'malformed'])
      await call('DELETE /v1/queues/{queue}/messages/{receipt}', `${queue.messagesPath}/${receipt}`);

    for (const state of ['ready', 'delayed', 'leased', 'none'])
      await call('GET /v1/admin/queues/{queue}/messages', `${queue.adminPath}/messages?limit=1&state=${state}`);
    for (const id of [enqueued.messages[0]!.id, enqueued.messages[1]!.id, '019a0b5d-ac96-774b-8cce-b302099a8057', 'x'])
      await call('GET /v1/admin/messages/{id}', `/v1/admin/messages/${id}`);
    for (const { id } of [enqueued.messages[2]!, enqueued.messages.at(-1)!, enqueued.messages.at(-1)!, { id: 'x' }])
      await call('DELETE /v1/admin/messages/{id}', `/v1/admin/messages/${id}`);
    const range = { from: '2026-01-01T00:00:00Z', to: '2100-01-01T00:00:00Z' };
    for (const [path, body] of [
      [queue.adminPath, range],
      [queue.adminPath, {}],
      ['/v1/admin/queues/nowhere', range],
    ] as const)
      await call('POST /v1/admin/queues/{queue}/replay', `${path}/replay`, body);
    await call('GET /v1/admin/queues', '/v1/admin/queues');
    await call('GET /v1/admin/overview', '/v1/admin/overview?sort=ready&limit=5');
    await call('GET /v1/admin/overview', '/v1/admin/overview?sort=size');
    await call('GET /v1/admin/database', '/v1/admin/database');
    await call('GET /v1/admin/queues/{queue}', queue.adminPath);
    await call('GET /v1/admin/queues/{queue}', '/v1/admin/queues/nowhere');
    for (const path of [queue.adminPath, '/v1/admin/queues/nowhere']) {
      await call('GET /v1/admin/queues/{queue}/history', `${path}/history?minutes=5`);
      await call('GET /v1/admin/queues/{queue}/consumers', `${path}/consumers`);
    }
    for (const action of ['pause', 'resume', 'redrive', 'drop', 'purge'] as const)
      for (const path of [queue.adminPath, '/v1/admin/queues/nowhere'])
        await call(`POST /v1/admin/queues/{queue}/${action}`, `${path}/${action}`);
    for (const action of ['release', 'redrive', 'move', 'ack'] as const)
      for (const id of [enqueued.messages[3]!.id, '019a0b5d-ac96-774b-8cce-b302099a8057', 'x'])
        await call(`POST /v1/admin/messages/{id}/${action}`, `/v1/admin/messages/${id}/${action}`, {
          toQueue: dead.name,
        });
    const { jobs } = (await api.get<JobsAnswer>('/v1/admin/jobs')).json;
    for (const id of [jobs[0]!.id, '019a0b5d-ac96-774b-8cce-b302099a8057', 'x'])
      for (const method of ['GET', 'DELETE'] as const)
        await call(`${method} /v1/admin/jobs/{id}`, `/v1/admin/jobs/${id}`);
    for (const query of ['limit=1', 'limit=0']) await call('GET /v1/admin/jobs', `/v1/admin/jobs?${query}`);
    const schedule = '/v1/admin/schedules/s';
    const putSchedule = 'PUT /v1/admin/schedules/{schedule}';
    const ticking = { everySeconds: 1, queue: queue.name, message: { body: 'tick' } };
    for (const body of [ticking, ticking, { ...ticking, cron: '* * * * *' }, { ...ticking, queue: 'nowhere' }])
      await call(putSchedule, schedule, body);
    await call(putSchedule, schedule, { ...ticking, message: { body: 'x'.repeat(4097) } });
    await eventually('a tick', async () => {
      const { json } = await api.get<{ lastRun: unknown }>(schedule);
      return json.lastRun !== null;
    });
    await call('GET /v1/admin/schedules', '/v1/admin/schedules?limit=1');
    await call('GET /v1/admin/schedules', '/v1/admin/schedules?limit=0');
    for (const path of [schedule, '/v1/admin/schedules/nowhere']) {
      await call('GET /v1/admin/schedules/{schedule}', path);
      await call('POST /v1/admin/schedules/{schedule}/run', `${path}/run`);
      await call('DELETE /v1/admin/schedules/{schedule}', path);
    }
    const key = { name: 'k', scopes: ['enqueue'], patterns: ['a', 'b*'], expiresAt: '2100-01-01T00:00:00Z' };
    for (const body of [key, key, { ...key, scopes: [] }]) await call('POST /v1/admin/keys', '/v1/admin/keys', body);
    for (const query of ['', '?limit=0']) await call('GET /v1/admin/overview', `/v1/admin/overview${query}`);
    await call('GET /v1/admin/database', '/v1/admin/database');
    for (const query of ['?limit=1', '?limit=0']) await call('GET /v1/admin/keys', `/v1/admin/keys${query}`);
    for (const path of ['/v1/admin/keys/k', '/v1/admin/keys/nobody']) {
      await call('POST /v1/admin/keys/{key}/rotate', `${path}/rotate`);
      await call('GET /v1/admin/keys/{key}', path);
      for (const body of [{ longPolls: 5 }, { longPolls: 0 }])
        await call('PUT /v1/admin/keys/{key}/limits', `${path}/limits`, body);
      await call('DELETE /v1/admin/keys/{key}', path);
    }
    for (const query of ['?limit=50', '?limit=0']) await call('GET /v1/admin/audit', `/v1/admin/audit${query}`);
    await eventually('a reaper has worked', async () => {
      const { json } = await api.get<{ duties: { runs: unknown[] }[] }>('/v1/admin/reaper');
      return json.duties.some(({ runs }) => runs.length > 0);
    });
    await call('GET /v1/admin/reaper', '/v1/admin/reaper');
    const topic = '/v1/admin/topics/of-events';
    const subscription = `${topic}/subscriptions/${dead.name}`;
    for (const path of [topic, topic, '/v1/admin/topics/a b']) await call('PUT /v1/admin/topics/{topic}', path);
    const filter = {
      kind: ['a', { prefix: 'b' }, { 'anything-but': ['c'] }, { exists: false }],
      size: [{ numeric: ['>', 1] }],
    };
    for (const body of [{}, { filter }, { filter: 'x' }])
      await call('PUT /v1/admin/topics/{topic}/subscriptions/{queue}', subscription, body);
    for (const path of [subscription, `${topic}/subscriptions/nowhere`])
      await call('GET /v1/admin/topics/{topic}/subscriptions/{queue}', path);
    await call('GET /v1/admin/topics', '/v1/admin/topics');
    for (const path of [topic, '/v1/admin/topics/nowhere']) await call('GET /v1/admin/topics/{topic}', path);
    const publish = 'POST /v1/topics/{topic}/messages';
    const { json: publishedThere } = await call<{ messages: { id: string }[] }>(
      publish,
      '/v1/topics/of-events/messages',
      {
        messages: [{ body: 'b', headers: { kind: 'a', size: '2' } }, { body: 'unwanted' }],
      },
    );
    await call('GET /v1/admin/messages/{id}', `/v1/admin/messages/${publishedThere.messages[0]!.id}`);
    await call(publish, '/v1/topics/nowhere/messages', { messages });
    for (const path of [subscription, subscription])
      await call('DELETE /v1/admin/topics/{topic}/subscriptions/{queue}', path);
    for (const path of [topic, topic]) await call('DELETE /v1/admin/topics/{topic}', path);
    await call('DELETE /v1/admin/queues/{queue}', queue.adminPath);
    await call('DELETE /v1/admin/queues/{queue}', dead.adminPath);
    await call('GET /', '/');
    await call('GET /health/live', '/health/live');
    await call('GET /health/ready', '/health/ready');
    await call('GET /metrics', '/metrics');
    await reaper.stop();

    expect(e).toBeDefined();
    for (const [which, answer] of answers) expectDescribed(which, answer);
    const called = new Set(answers.map(([which]) => which));
    expect((Object.keys(CALLS) as Call[]).filter((which) => !called.has(which))).toEqual([]);
  });
});

test('a body is required exactly where the broker refuses a request without one', async () => {
  const bodies = (Object.keys(CALLS) as Call[]).filter((call) => operation(call).requestBody !== undefined);
  expect(bodies.length).toBeGreaterThan(20);
  for (const call of bodies) {
    const [method, template] = call.split(' ') as [string, string];
    const path = template.replace('{id}', '019a0b5d-ac96-774b-8cce-b302099a8057').replaceAll(/\{\w+\}/g, 'bodiless');
    const { json } = await shared.api.call<{ faults?: { path: string }[] }>(method, path);
    const isMissed = json?.faults?.some((fault) => fault.path === '') ?? false;
    expect(isMissed, call).toBe(operation(call).requestBody?.required === true);
  }
});

/*
 * Calls that the document describes, with values that it allows and values that are near them. None
 * may make the broker fail, and every answer must be one that the document allows.
 */
describe('a fuzzer that reads /openapi.json', () => {
  const RUNS = Number(process.env['ROWMQ_FUZZ_RUNS'] ?? 12);
  /** Names that exist come up often enough for calls to get past 404. */
  const NAMES = fc.constantFrom('fuzz-a', 'fuzz-b', 'fuzz-a', 'missing', 'Not/a name', 'ü', 'x'.repeat(200));

  beforeAll(async () => {
    for (const queue of ['fuzz-a', 'fuzz-b']) await shared.api.queue(queue).put({});
    await shared.api.put('/v1/admin/topics/fuzz-a', {});
  });

  const requestsOf = (call: Call) => {
    const { parameters = [], requestBody } = operation(call);
    const parameterOf = ({ name, schema }: { name: string; schema: Schema }): fc.Arbitrary<[string, unknown]> =>
      fc.tuple(
        fc.constant(name),
        ['queue', 'topic', 'schedule', 'key'].includes(name)
          ? fc.oneof({ weight: 4, arbitrary: NAMES }, { weight: 1, arbitrary: valuesOf(schema) })
          : nearValuesOf(schema),
      );
    const of = (place: string) =>
      fc.tuple(...parameters.filter((parameter) => parameter.in === place).map(parameterOf));
    const schema = Object.values(requestBody?.content ?? {})[0]?.schema as Schema | undefined;
    return fc.record({
      path: of('path'),
      query: of('query'),
      body: schema === undefined ? fc.constant(undefined) : nearValuesOf(schema),
    });
  };

  /** A value as a part of a URL. `fetch` would take a lone `..` for a step up. */
  const inUrl = (value: unknown): string => {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    return encodeURIComponent(text.toWellFormed()).replace(/^\.{1,2}$/, 'dots');
  };

  /** Waits and rates that a request may ask for would only make the test slow. */
  const patient = (body: unknown): unknown =>
    typeof body === 'object' && body !== null && 'waitSeconds' in body && Number(body.waitSeconds) > 0
      ? { ...body, waitSeconds: 0 }
      : body;

  test.each(Object.keys(CALLS) as Call[])('finds no fault in %s', { timeout: 120_000 }, async (call) => {
    const [method, template] = call.split(' ') as [string, string];
    await fc.assert(
      fc.asyncProperty(requestsOf(call), async ({ path, query, body }) => {
        const filled = path.reduce((text, [name, value]) => text.replace(`{${name}}`, inUrl(value) || '%20'), template);
        const search = query.map(([name, value]) => `${name}=${inUrl(value)}`).join('&');
        const answer = await shared.api.call(method, search === '' ? filled : `${filled}?${search}`, patient(body));
        expect(answer.status, answer.text).toBeLessThan(500);
        expectDescribed(call, answer);
      }),
      // Shrinking takes minutes, and the counterexample tells enough.
      { numRuns: RUNS, endOnFailure: true },
    );
  });
});
