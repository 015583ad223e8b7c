import { problem, RowmqError } from '@rowmq/contract';
import { errors } from 'undici';
import type { z } from 'zod';
import { BrokerUnreachableError } from './broker-unreachable.error.js';
import type { HttpAnswer, HttpRequest, NoAnswer } from './exchange.js';

/** The request and its broker, for the texts of errors. */
interface Asked extends Pick<HttpRequest, 'method' | 'path'> {
  /** The broker's base URL. */
  url: string;
  /** The answer of a success is text, not JSON. */
  isText?: boolean;
}

/**
 * Reads a broker's answer.
 * @throws {@link RowmqError} if it refuses, and {@link BrokerUnreachableError} for an answer that
 * no broker gives
 */
export function read<Schema extends z.ZodType>(
  schema: Schema,
  { method, url, path, isText = false }: Asked,
  { status, text, retryAfter }: HttpAnswer,
): z.output<Schema> {
  const isRaw = isText && status < 300;
  const answer = isRaw ? text : text === '' ? undefined : parseJson(text);
  const success = status < 300 ? schema.safeParse(answer) : undefined;
  if (success?.success) return success.data;
  const refusal = problem.safeParse(answer);
  if (refusal.success) {
    const { code, detail, faults } = refusal.data;
    const retryAfterSeconds = Number(retryAfter ?? Number.NaN);
    throw new RowmqError(code, detail, {
      ...(faults === undefined ? {} : { faults }),
      ...(Number.isFinite(retryAfterSeconds) ? { retryAfterSeconds } : {}),
    });
  }
  throw new BrokerUnreachableError(
    `${method} ${url}${path} was answered with status ${status} and something that is not RowMQ's answer to it; ` +
      'check that the URL is a RowMQ broker and not something in front of it.',
    url,
    'unknown',
  );
}

/**
 * The error for a call without an answer. The codes of errors do not tell whether anything was
 * sent: EHOSTUNREACH, for one, may belong to a request in flight.
 */
export function unreachable(asked: Asked, { cause, neverLeft }: NoAnswer, deadlineMs: number): BrokerUnreachableError {
  const what = neverLeft ? whyNotSent(asked, cause, deadlineMs) : whyUnknown(asked, cause, deadlineMs);
  return new BrokerUnreachableError(what, asked.url, neverLeft ? 'not-sent' : 'unknown', { cause });
}

function whyNotSent({ method, url, path }: Asked, cause: unknown, deadlineMs: number): string {
  if (cause instanceof errors.ClientDestroyedError) return 'The client is closed.';
  if (cause instanceof errors.HeadersTimeoutError) {
    return `${method} ${url}${path}: no connection for it within ${deadlineMs} ms, nothing was sent; check that the broker can be reached, and that maxConnections exceeds the number of waiting dequeues.`;
  }
  return `No broker can be reached at ${url} (${errorCode(cause)}); start one with npm start, or correct the URL.`;
}

function whyUnknown({ method, url, path }: Asked, cause: unknown, deadlineMs: number): string {
  const what =
    cause instanceof errors.HeadersTimeoutError
      ? `no answer within ${deadlineMs} ms`
      : `the connection broke (${messageOf(cause)})`;
  return `${method} ${url}${path}: ${what}; it may or may not have been carried out.`;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** The system's or undici's code, such as ECONNREFUSED, or else the error's message. */
function errorCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : messageOf(error);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
