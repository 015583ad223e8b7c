import { applyDecorators } from '@nestjs/common';
import { RouteConfig } from '@nestjs/platform-fastify';
import { ApiOperation, ApiResponse } from '@nestjs/swagger';
import type { ErrorCode } from '@rowmq/contract';
import type { z } from 'zod';
import type { Needs, NeedsConfig } from './needs.js';
import { problemResponses } from './problem-responses.js';

/** The call's part of a Fastify route's configuration. */
export interface CallConfig extends NeedsConfig {
  call: string;
  /** The call's name in the audit and in OpenAPI. */
  action: string;
  /** The handler reads the query, and refuses what it does not know. */
  hasQuery: boolean;
}

/** Problems of every call. */
const EVERYWHERE: ErrorCode[] = [
  'unauthorized',
  'forbidden',
  'too-many-attempts',
  'internal-error',
  'overloaded',
  'database-unavailable',
];

/**
 * Describes a call for OpenAPI: its summary, its answer, and an example of each problem. Metrics
 * use the handler's name, which is the verb.
 */
export function ApiCall(call: {
  /** The call's name in generated clients. The verb when absent. */
  id?: string;
  summary: string;
  /** The rights that the caller's API key must have. */
  needs: Needs;
  /** The call has parameters in its query. Without it, the broker refuses every one. */
  hasQuery?: true;
  status: number;
  answer?: z.ZodType;
  problems: ErrorCode[];
}): MethodDecorator {
  return applyDecorators(
    (target: object, verb: string | symbol, descriptor: PropertyDescriptor) =>
      RouteConfig({
        call: String(verb),
        action: call.id ?? String(verb),
        needs: call.needs,
        hasQuery: call.hasQuery === true,
      } satisfies CallConfig)(target, verb, descriptor),
    ApiOperation({ summary: call.summary, ...(call.id !== undefined && { operationId: call.id }) }),
    ApiResponse({ status: call.status, description: 'Done', ...(call.answer && { standardSchema: call.answer }) }),
    ApiProblems([...call.problems, ...EVERYWHERE]),
  );
}

/** Describes the problems of a call. */
export function ApiProblems(all: readonly ErrorCode[]): MethodDecorator {
  return applyDecorators(
    ...Object.entries(problemResponses(all)).map(([status, response]) =>
      ApiResponse({ status: Number(status), ...response }),
    ),
  );
}
