import { createParamDecorator, type ExecutionContext } from '@nestjs/common';
import { idempotencyKey, invalidRequest } from '@rowmq/contract';
import type { FastifyRequest } from 'fastify';

/** The request's `Idempotency-Key`. Throws `invalid-request`, which names the header. */
export const IdempotencyKey = createParamDecorator((_: unknown, context: ExecutionContext) => {
  const { headers } = context.switchToHttp().getRequest<FastifyRequest>();
  const result = idempotencyKey.safeParse(headers['idempotency-key']);
  if (result.success) return result.data;
  throw invalidRequest(result.error.issues.map(({ message }) => ({ path: ['Idempotency-Key'], message })));
});

/** The header, as OpenAPI describes it. */
export const IDEMPOTENCY_KEY_HEADER = {
  name: 'Idempotency-Key',
  required: false,
  description:
    'Names the request: a repeat with the same key and body stores nothing, and gets the first answer. 1 to 128 visible ASCII characters, quoted or not',
  schema: { type: 'string', example: '"8e03978e-40d5-43e8-bc93-6894a57f9324"' },
} as const;
