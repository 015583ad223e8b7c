import {
  type ArgumentsHost,
  ForbiddenException,
  ImATeapotException,
  Logger,
  NotFoundException,
  ServiceUnavailableException,
} from '@nestjs/common';
import type { HttpAdapterHost } from '@nestjs/core';
import { ERROR_CODES, problem, PROBLEMS, RowmqError, sizeLimits } from '@rowmq/contract';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ProblemFilter, toProblem } from './problem.filter.js';

const logged = vi.fn<(thrown: unknown) => void>();
beforeEach(() => {
  logged.mockReset();
  vi.spyOn(Logger.prototype, 'error').mockImplementation(logged);
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** The filter's answer to a request that threw this. */
function answerTo(thrown: unknown): { status: number; headers: Record<string, string>; body: unknown } {
  const headers: Record<string, string> = {};
  let [status, body]: [number, unknown] = [0, undefined];
  const httpAdapter = {
    setHeader: (_response: unknown, name: string, value: string) => (headers[name] = value),
    reply: (_response: unknown, answer: unknown, code: number) => ([status, body] = [code, answer]),
  };
  const filter = new ProblemFilter({ httpAdapter } as unknown as HttpAdapterHost, { sizes: sizeLimits() });
  filter.catch(thrown, {
    switchToHttp: () => ({ getResponse: () => ({ raw: { shouldKeepAlive: true }, request: { id: 'r' } }) }),
  } as unknown as ArgumentsHost);
  return { status, headers, body };
}

describe('a RowmqError', () => {
  test.each(ERROR_CODES)('%s becomes the problem of the contract', (code) => {
    const { status, headers, body } = answerTo(new RowmqError(code, 'Do this.'));
    expect(status).toBe(PROBLEMS[code].status);
    expect(headers['content-type']).toBe('application/problem+json; charset=utf-8');
    expect(body).toEqual({
      type: `urn:rowmq:problem:${code}`,
      title: PROBLEMS[code].title,
      status: PROBLEMS[code].status,
      detail: 'Do this.',
      code,
    });
    expect(problem.strict().safeParse(body)).toMatchObject({ success: true });
    expect('www-authenticate' in headers).toBe(code === 'unauthorized');
  });

  test('tells when to retry and which fields are at fault, if it knows', () => {
    const faults = [{ path: 'messages.0', message: 'is bad' }];
    expect(answerTo(new RowmqError('overloaded', 'Later.', { retryAfterSeconds: 7 })).headers['retry-after']).toBe('7');
    expect(answerTo(new RowmqError('invalid-request', 'Bad.')).headers).not.toHaveProperty('retry-after');
    expect(toProblem(new RowmqError('invalid-request', 'Bad.', { faults }))).toMatchObject({ faults });
  });
});

describe('an error of Nest, of Fastify or of the code', () => {
  test.each<[string, unknown, number, string]>([
    ['a path that does not exist', new NotFoundException('Cannot GET /x'), 404, 'invalid-request'],
    ['a page of another origin', new ForbiddenException('Cross-origin request'), 403, 'forbidden'],
    ['what only HTTP has a number for', new ImATeapotException('short and stout'), 418, 'invalid-request'],
    ['a request that is too large', Object.assign(new Error('big'), { statusCode: 413 }), 413, 'message-too-large'],
    ['a content type nobody reads', Object.assign(new Error('xml'), { statusCode: 415 }), 415, 'invalid-request'],
    ['a check that failed', new ServiceUnavailableException({ error: {} }), 503, 'database-unavailable'],
  ])('becomes a problem with its own status: %s', (_, thrown, status, code) => {
    const answer = answerTo(thrown);
    expect(answer).toMatchObject({ status, body: { status, code } });
  });

  test.each([new TypeError('secret: password=hunter2'), 'hunter2', null, undefined, { statusCode: 'hunter2' }])(
    'becomes an internal error that hides the cause from the client: %#',
    (thrown) => {
      const answer = answerTo(thrown);
      expect(answer).toMatchObject({ status: 500, body: { code: 'internal-error' } });
      expect(JSON.stringify(answer)).not.toContain('hunter2');
      expect(logged).toHaveBeenCalledExactlyOnceWith(thrown);
    },
  );

  test('names the part that is not ready', () => {
    const { body, headers } = answerTo(
      new ServiceUnavailableException({ error: { database: { status: 'down', message: 'timeout' } } }),
    );
    expect(body).toMatchObject({ detail: 'Not ready: database: timeout.' });
    expect(headers['retry-after']).toBe('1');
  });
});
