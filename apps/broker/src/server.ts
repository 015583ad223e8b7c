import type { ValueProvider } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';
import { LIMITS, RowmqError } from '@rowmq/contract';
import { createLogger } from '@rowmq/runtime';
import type { BrokerConfig } from './broker.config.js';
import { BrokerModule } from './broker.module.js';
import { requireApiKey } from './http/api-key.js';
import { closeConnectionsOnStop } from './http/close-on-stop.js';
import { acceptJson } from './http/json-body.js';
import { toProblem } from './http/problem.filter.js';
import { measureCalls } from './metrics/measure-calls.js';
import { Metrics } from './metrics/metrics.js';

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

/**
 * Builds the broker's HTTP application. It does not listen yet.
 * @param name the process's name in its log
 * @param ports see {@link BrokerModule}
 */
export async function createBroker(
  config: BrokerConfig,
  name: string,
  ports: readonly ValueProvider[] = [],
): Promise<NestFastifyApplication> {
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
  const app = await NestFactory.create<NestFastifyApplication>(BrokerModule.forRoot(config, ports), adapter, {
    logger: createLogger(name),
    bodyParser: false,
    abortOnError: false,
  });
  acceptJson(adapter);
  closeConnectionsOnStop(adapter);
  // Loopback keeps other machines out, but not the web pages that a browser on this one shows.
  if (config.adminKey === undefined) app.enableCsrfProtection();
  else requireApiKey(adapter, config.adminKey);
  measureCalls(adapter, app.get(Metrics));
  serveDocs(app);
  return app;
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
