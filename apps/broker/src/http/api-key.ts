import type { FastifyAdapter } from '@nestjs/platform-fastify';
import { RowmqError } from '@rowmq/contract';
import { bearerOf, digest, isSecret } from './bearer.js';

/** Methods without a body. */
const BODILESS = new Set(['GET', 'HEAD']);
/**
 * Routes that need no key, as they are declared. The path of a request would not do: there are many
 * ways to write the same path.
 */
const OPEN_ROUTES = /^\/(?:$|health\/|metrics$|docs|openapi\.json$)/;

/**
 * Requires the API key: `Authorization: Bearer <key>`. Operations and docs need none. The check
 * comes before the body, so that a request without the key makes the broker buffer and parse
 * nothing.
 */
export function requireApiKey(adapter: FastifyAdapter, key: string): void {
  const expected = digest(key);
  adapter.getInstance().addHook('onRequest', (request, _reply, done) => {
    if (BODILESS.has(request.method)) {
      const { url } = request.routeOptions;
      // A request without a route gets 404.
      if (url === undefined || OPEN_ROUTES.test(url)) {
        done();
        return;
      }
    }
    done(refusal(request.headers.authorization, expected));
  });
}

/** The refusal of a wrong key, or undefined. */
function refusal(authorization: string | undefined, expected: Buffer): RowmqError | undefined {
  const given = bearerOf(authorization);
  if (isSecret(given, expected)) return undefined;
  return new RowmqError(
    'unauthorized',
    given === undefined
      ? 'Send the API key as `Authorization: Bearer <key>`.'
      : 'The API key is wrong: send the value of the ROWMQ_ADMIN_KEY that this broker was started with.',
  );
}
