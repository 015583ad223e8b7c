import type { FastifyAdapter } from '@nestjs/platform-fastify';
import { clip, RowmqError } from '@rowmq/contract';
import type { CallConfig } from './api-call.js';

/**
 * Refuses parameters in the query of a call that has none. A field that a caller puts there by
 * mistake would have no effect: `purge?source=orders` would purge everything.
 *
 * It is a hook of these routes only, and runs after the check of the key.
 */
export function refuseQuery(adapter: FastifyAdapter): void {
  adapter.getInstance().addHook('onRoute', (route) => {
    const { hasQuery } = (route.config ?? {}) as Partial<CallConfig>;
    if (hasQuery !== false) return;
    route.onRequest = (request, _reply, done): void => {
      const [name] = Object.keys(request.query as object);
      done(name === undefined ? undefined : noSuchParameter(name));
    };
  });
}

function noSuchParameter(name: string): RowmqError {
  return new RowmqError(
    'invalid-request',
    `This call has no parameter '${clip(name)}' in its query; if it has such a field, send it in the body, as JSON.`,
  );
}
