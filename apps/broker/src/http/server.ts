import { isUtf8 } from 'node:buffer';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';
import { LIMITS, RowmqError } from '@rowmq/contract';
import { createLogger } from '@rowmq/runtime';
import type { BrokerConfig } from '../broker.config.js';
import { BrokerModule } from '../broker.module.js';

/** A client that is slower than this with its request, headers or the pause between two, is hung up on. */
const REQUEST_MS = 30_000;
const KEEP_ALIVE_MS = 65_000;

/** Builds the broker's HTTP application; it does not listen yet. */
export async function createBroker(config: BrokerConfig): Promise<NestFastifyApplication> {
  const adapter = new FastifyAdapter({
    bodyLimit: LIMITS.requestBytes,
    requestTimeout: REQUEST_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    routerOptions: { maxParamLength: 300 },
  });
  const app = await NestFactory.create<NestFastifyApplication>(BrokerModule.forRoot(config), adapter, {
    logger: createLogger('broker'),
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
  serveDocs(app);
  return app;
}

/** Parses a request's body. JSON.parse alone would turn broken UTF-8 into replacement characters, and so store something other than what was sent. */
function parseJson(body: Buffer): unknown {
  if (body.length === 0) return undefined;
  if (!isUtf8(body))
    throw new RowmqError(
      'invalid-request',
      'The request is not valid UTF-8; send a body that is not text with bodyEncoding base64.',
    );
  try {
    return JSON.parse(body.toString()) as unknown;
  } catch (error) {
    throw new RowmqError('invalid-request', `The request is not JSON: ${(error as Error).message}.`, { cause: error });
  }
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
