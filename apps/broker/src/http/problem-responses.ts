import type { ApiResponseNoStatusOptions } from '@nestjs/swagger';
import { type ErrorCode, problem, RowmqError } from '@rowmq/contract';
import { toProblem } from './problem.filter.js';
import { refTo } from './schema-names.js';

/** A problem's code, and its status if that is not the usual one. */
type Described = ErrorCode | { code: ErrorCode; status: number };

/** Describes problems for OpenAPI, by status, with an example of each. */
export function problemResponses(all: readonly Described[]): Record<string, ApiResponseNoStatusOptions & object> {
  const byStatus = new Map<number, Map<ErrorCode, unknown>>();
  for (const one of all) {
    const { code, status } = typeof one === 'string' ? { code: one, status: undefined } : one;
    const value = toProblem(new RowmqError(code, 'What happened, and what to do about it.'), status);
    byStatus.set(value.status, (byStatus.get(value.status) ?? new Map<ErrorCode, unknown>()).set(code, value));
  }
  return Object.fromEntries(
    Array.from(byStatus, ([status, examples]) => [
      status,
      {
        description: Array.from(examples.keys(), (code) => `\`${code}\``).join(' or '),
        content: {
          'application/problem+json': {
            schema: refTo(problem),
            examples: Object.fromEntries(Array.from(examples, ([code, value]) => [code, { summary: code, value }])),
          },
        },
      },
    ]),
  );
}
