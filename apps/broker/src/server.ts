import { NestFactory } from '@nestjs/core';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { clip, RowmqError } from '@rowmq/contract';
import { createLogger } from '@rowmq/runtime';
import type { BrokerConfig } from './broker.config.js';
import { BrokerModule } from './broker.module.js';
import { auditActions } from './audit/audit-actions.js';
import { AuditLog } from './audit/audit-log.js';
import { answerToBadBytes } from './http/bad-bytes.js';
import { BrokerAdapter } from './http/broker-adapter.js';
import { Connections } from './http/connections.js';
import { checkHost } from './http/check-host.js';
import { acceptJson } from './http/json-body.js';
import { serveDocs } from './http/openapi.js';
import { toProblem } from './http/problem.filter.js';
import { refuseQuery } from './http/refuse-query.js';
import { REQUEST_ID_HEADER, requestIdOf } from './http/request-id.js';
import { countAnswers, UnreadAnswers } from './http/unread-answers.js';
import { VERSION } from './http/version.js';
import { FailedAttempts } from './keys/failed-attempts.js';
import { checkKeys } from './keys/check-keys.js';
import { KnownKeys } from './keys/known-keys.js';
import { KnownSessions } from './keys/known-sessions.js';
import { delayRefusals } from './messages/late-refusals.js';
import { measureCalls } from './metrics/measure-calls.js';
import { Metrics } from './metrics/metrics.js';
import { SqsEndpoint } from './sqs/sqs-endpoint.js';
import { traceCalls } from './tracing/trace-calls.js';

/**
 * The broker hangs up on a client that is slower than this with its request, or with its next one.
 */
const REQUEST_MS = 30_000;
const KEEP_ALIVE_MS = 65_000;
/**
 * The broker also hangs up if no byte moves for this long. An answer that the client does not read
 * would stay in the broker, its messages under leases. The time exceeds a long poll with all
 * retries.
 */
const STANDSTILL_MS = 120_000;

/** The part of Fastify's reply that this file uses. */
interface RawReply {
  code(status: number): RawReply;
  header(name: string, value: string): RawReply;
  send(payload: never): unknown;
}

/**
 * Builds the broker's HTTP application. It does not listen yet.
 * @param name the process's name in its log
 * @param leavePort a worker's way to stop new connections
 */
export async function createBroker(
  config: BrokerConfig,
  name: string,
  leavePort?: () => Promise<void>,
): Promise<NestFastifyApplication> {
  const limits = {
    keepAliveMs: KEEP_ALIVE_MS,
    requestMs: REQUEST_MS,
    standstillMs: STANDSTILL_MS,
    stopMs: config.stopSeconds * 1000,
  };
  const connections = new Connections(limits, leavePort);
  const adapter = new BrokerAdapter(connections, {
    bodyLimit: config.sizes.requestBytes,
    // A request that comes while the broker stops gets a normal answer, not an error of Fastify.
    return503OnClosing: false,
    genReqId: requestIdOf,
    trustProxy: config.trustedProxies.length > 0 && config.trustedProxies,
    routerOptions: { maxParamLength: 300 },
    clientErrorHandler: ({ code }: NodeJS.ErrnoException, socket) => connections.refuse(socket, answerToBadBytes(code)),
    // A path that cannot be decoded does not reach Nest's filter.
    frameworkErrors: (error: Error, request: { id: string }, reply: RawReply) => {
      const problem = toProblem(new RowmqError('invalid-request', `${clip(error.message)}.`));
      void reply
        .code(problem.status)
        .header('content-type', 'application/problem+json; charset=utf-8')
        .header('rowmq-version', VERSION)
        .header(REQUEST_ID_HEADER, request.id)
        .send(JSON.stringify(problem) as never);
    },
  });
  const app = await NestFactory.create<NestFastifyApplication>(BrokerModule.forRoot(config), adapter, {
    logger: createLogger(name),
    bodyParser: false,
    abortOnError: false,
  });
  acceptJson(adapter);
  await traceCalls(adapter, config);
  auditActions(adapter, app.get(AuditLog));
  refuseQuery(adapter);
  if (!config.needsKeys) {
    // Loopback keeps other machines out, but not web pages in a browser on this machine.
    app.enableCsrfProtection();
    checkHost(adapter, config.allowedHosts);
  }
  const keys = config.needsKeys ? app.get(KnownKeys) : undefined;
  checkKeys(adapter, keys, app.get(FailedAttempts), app.get(KnownSessions), config);
  measureCalls(adapter, app.get(Metrics));
  delayRefusals(adapter);
  app.get(SqsEndpoint).serve(adapter);
  countAnswers(adapter, app.get(UnreadAnswers));
  serveDocs(app, config.sizes);
  return app;
}
