import type { ServerResponse } from 'node:http';
import { type ArgumentsHost, Catch, type ExceptionFilter, HttpException, Inject, Logger } from '@nestjs/common';
import { HttpAdapterHost } from '@nestjs/core';
import {
  clip,
  type ErrorCode,
  PROBLEMS,
  type Problem,
  requestTooLarge,
  RowmqError,
  type SizeLimits,
} from '@rowmq/contract';
import { BROKER_CONFIG, type BrokerConfig } from '../broker.config.js';
import { HttpRefusal } from './http-refusal.js';
import { REQUEST_ID_HEADER } from './request-id.js';
import { VERSION } from './version.js';

/** A request that may have got a problem. */
export interface ProblemRequest {
  problem: ErrorCode | null;
}

/**
 * Turns every error of a request into RFC 9457 problem details. No other place maps errors to HTTP.
 */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  private readonly logger = new Logger(ProblemFilter.name);

  constructor(
    private readonly host: HttpAdapterHost,
    @Inject(BROKER_CONFIG) private readonly config: Pick<BrokerConfig, 'sizes'>,
  ) {}

  catch(thrown: unknown, context: ArgumentsHost): void {
    const { httpAdapter } = this.host;
    const response = context
      .switchToHttp()
      .getResponse<{ raw: ServerResponse; request: ProblemRequest & { id: string } }>();
    const error = toRowmqError(thrown, this.config.sizes);
    if (error.code === 'internal-error') this.logger.error(thrown);
    const problem = toProblem(error, httpStatus(thrown));
    httpAdapter.setHeader(response, 'content-type', 'application/problem+json; charset=utf-8');
    // Nest may refuse a request before the hook that sets these.
    httpAdapter.setHeader(response, 'rowmq-version', VERSION);
    httpAdapter.setHeader(response, REQUEST_ID_HEADER, response.request.id);
    response.request.problem = error.code;
    if (error.retryAfterSeconds !== undefined)
      httpAdapter.setHeader(response, 'retry-after', String(error.retryAfterSeconds));
    // Fastify would close the connection while the client still sends, and the client would miss
    // this answer. With keep-alive, Node reads the rest and drops it.
    if (problem.status === 413)
      httpAdapter.setHeader(response, 'connection', response.raw.shouldKeepAlive ? 'keep-alive' : 'close');
    if (error.code === 'unauthorized') httpAdapter.setHeader(response, 'www-authenticate', 'Bearer');
    httpAdapter.reply(response, problem, problem.status);
  }
}

/**
 * The problem document of an error. HTTP's own errors (404 of a path, 405, 415) bring their
 * `status`.
 */
export function toProblem(error: RowmqError, status: number = PROBLEMS[error.code].status): Problem {
  return {
    type: `urn:rowmq:problem:${error.code}`,
    title: PROBLEMS[error.code].title,
    status,
    detail: error.message,
    code: error.code,
    ...(error.faults === undefined ? {} : { faults: [...error.faults] }),
  };
}

function httpStatus(thrown: unknown): number | undefined {
  if (thrown instanceof HttpRefusal) return thrown.status;
  if (thrown instanceof RowmqError) return undefined;
  const status = statusOf(thrown);
  return status !== undefined && status >= 400 && status < 500 && status !== 413 ? status : undefined;
}

function statusOf(thrown: unknown): number | undefined {
  if (thrown instanceof HttpException) return thrown.getStatus();
  // Fastify's own errors: malformed JSON, too large, wrong media type.
  const status = (thrown as { statusCode?: unknown } | null)?.statusCode;
  return typeof status === 'number' ? status : undefined;
}

function toRowmqError(thrown: unknown, sizes: SizeLimits): RowmqError {
  if (thrown instanceof RowmqError) return thrown;
  const status = statusOf(thrown);
  const whole = thrown instanceof Error ? thrown.message : String(thrown);
  // The path of a request may be in it.
  const message = clip(whole);
  if (status === 413) return requestTooLarge(sizes);
  if (status === 415)
    return new RowmqError('invalid-request', 'Send the body as JSON, with `Content-Type: application/json`.');
  if (status === 403)
    return new RowmqError(
      'forbidden',
      'The browser says that a web page of another origin sent this request. A broker without an API key refuses such requests. Call it from a program or a server of yours, or set ROWMQ_ADMIN_KEY.',
    );
  if (status === 404) {
    const hint = ENDS_WITH_SLASH.test(whole) ? ' No path ends with a slash.' : '';
    return new RowmqError('invalid-request', `${message}; GET /openapi.json lists every call.${hint}`);
  }
  if (status === 503) return new RowmqError('database-unavailable', unreadyDetail(thrown), { retryAfterSeconds: 1 });
  if (status !== undefined && status >= 400 && status < 500) return new RowmqError('invalid-request', message);
  return new RowmqError(
    'internal-error',
    'The broker failed unexpectedly; its log has the details. You may try the request again.',
    {
      cause: thrown,
    },
  );
}

/** Matches `Cannot GET /path/`, with or without a query, and not the path `/`. */
const ENDS_WITH_SLASH = /^[^?]*[^ ?]\/(?:\?|$)/;

/** A failed readiness check names what is not ready. */
function unreadyDetail(thrown: unknown): string {
  const body =
    thrown instanceof HttpException ? (thrown.getResponse() as { error?: Record<string, { message?: string }> }) : {};
  const parts = Object.entries(body.error ?? {}).map(([name, fault]) => `${name}: ${fault.message ?? 'down'}`);
  return parts.length > 0 ? `Not ready: ${parts.join('; ')}.` : 'Not ready.';
}
