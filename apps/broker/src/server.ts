import { isUtf8 } from 'node:buffer';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';
import { LIMITS, RowmqError } from '@rowmq/contract';
import { createLogger } from '@rowmq/runtime';
import type { BrokerConfig } from '../broker.config.js';
import { BrokerModule } from '../broker.module.js';
import { Metrics } from '../metrics/metrics.js';
import type { CallConfig } from './api-call.js';
import { requireApiKey } from './api-key.js';
import { closeConnectionsOnStop } from './close-on-stop.js';
import { toProblem } from './problem.filter.js';

/** A client that is slower than this with its request, or with its next one, is hung up on. */
const REQUEST_MS = 30_000;
const KEEP_ALIVE_MS = 65_000;
/** And so is one on whose connection nothing moves for so long, longer than a long poll and all retries behind it: what it does not read of its answer would stay with the broker, under leases. */
const STANDSTILL_MS = 120_000;

/** Fastify's reply, as far as it is used here. */
interface RawReply {
  code(status: number): RawReply;
  header(name: string, value: string): RawReply;
  send(payload: never): unknown;
}

/** Builds the broker's HTTP application, whose log carries this name; it does not listen yet. */
export async function createBroker(config: BrokerConfig, name: string): Promise<NestFastifyApplication> {
  const adapter = new FastifyAdapter({
    bodyLimit: LIMITS.requestBytes,
    connectionTimeout: STANDSTILL_MS,
    requestTimeout: REQUEST_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    // What still comes while the broker stops is answered like everything else, not with an error of Fastify's own.
    return503OnClosing: false,
    routerOptions: { maxParamLength: 300 },
    // A path that cannot be decoded never reaches Nest and its filter.
    frameworkErrors: (error: Error, _request: unknown, reply: RawReply) => {
      const problem = toProblem(new RowmqError('invalid-request', `${error.message}.`));
      void reply
        .code(problem.status)
        .header('content-type', 'application/problem+json; charset=utf-8')
        .send(JSON.stringify(problem) as never);
    },
  });
  const app = await NestFactory.create<NestFastifyApplication>(BrokerModule.forRoot(config), adapter, {
    logger: createLogger(name),
    bodyParser: false,
    abortOnError: false,
  });
  adapter.getInstance().removeAllContentTypeParsers();
  adapter.getInstance().addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) => {
    try {
      done(null, parseJson(body as Buffer));
    } catch (error) {
      done(error as Error);
    }
  });
  closeConnectionsOnStop(adapter);
  // Loopback keeps other machines out, but not the web pages that a browser on this one shows.
  if (config.adminKey === undefined) app.enableCsrfProtection();
  else requireApiKey(adapter, config.adminKey);
  measureCalls(adapter, app.get(Metrics));
  serveDocs(app);
  return app;
}

/** A hook and not an interceptor: Nest wraps every request in Observables for those, a tenth of the time of a small one. */
function measureCalls(adapter: FastifyAdapter, metrics: Metrics): void {
  adapter.getInstance().addHook('onResponse', (request, reply, done) => {
    const { call } = request.routeOptions.config as Partial<CallConfig>;
    if (call !== undefined) metrics.observe(call, reply.statusCode, reply.elapsedTime / 1000);
    done();
  });
}

/** Parses a request's body. JSON.parse alone would turn broken UTF-8 into replacement characters, and so store something other than what was sent. */
function parseJson(body: Buffer): unknown {
  if (body.length === 0) return undefined;
  if (!isUtf8(body))
    throw new RowmqError(
      'invalid-request',
      'The request is not valid UTF-8; send a body that is not text with bodyEncoding base64.',
    );
  const text = body.toString();
  try {
    return JSON.parse(text, MAY_NAME_PROTO.test(text) ? refuseProto : undefined) as unknown;
  } catch (error) {
    if (error instanceof RowmqError) throw error;
    throw new RowmqError('invalid-request', `The request is not JSON: ${(error as Error).message}.`, { cause: error });
  }
}

/** Matches every text in which a key could be `__proto__`, written out or with escapes, and hardly any other. */
const MAY_NAME_PROTO = /__proto__|\\u00[4-7]/i;

/** Zod drops a key of this name, and so would lose a header quietly. */
function refuseProto(key: string, value: unknown): unknown {
  if (key === '__proto__')
    throw new RowmqError('invalid-request', "'__proto__' cannot be the name of a field or of a header.");
  return value;
}

function serveDocs(app: NestFastifyApplication): void {
  const document = SwaggerModule.createDocument(
    app,
    new DocumentBuilder()
      .setTitle('RowMQ')
      .setDescription(
        'A message broker whose only state is a MySQL database. Enqueue, dequeue under a lease, ack. Errors are RFC 9457 problem details with a stable `code`.',
      )
      .setVersion('1')
      .addBearerAuth()
      .build(),
  );
  SwaggerModule.setup('docs', app, document, { jsonDocumentUrl: 'openapi.json', customSiteTitle: 'RowMQ' });
}
