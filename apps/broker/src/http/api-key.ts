import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyAdapter } from '@nestjs/platform-fastify';
import { RowmqError } from '@rowmq/contract';

/** Methods of which no body is read. */
const BODILESS = new Set(['GET', 'HEAD']);
/** What may be read without the key: routes as they are declared, since a look at the request's path would be fooled by the many ways to write it. */
const OPEN_ROUTES = /^\/(?:health\/|metrics$|docs|openapi\.json$)/;

/**
 * Has the broker serve only who sends the API key: `Authorization: Bearer <key>`. Operations and docs need none. It is asked for before the body: who has no key is not to make the broker buffer and parse
 * it.
 */
export function requireApiKey(adapter: FastifyAdapter, key: string): void {
  const expected = digest(key);
  adapter.getInstance().addHook('onRequest', (request, _reply, done) => {
    if (BODILESS.has(request.method)) {
      const { url } = request.routeOptions;
      // Without one there is no such route: 404.
      if (url === undefined || OPEN_ROUTES.test(url)) {
        done();
        return;
      }
    }
    done(refusal(request.headers.authorization, expected));
  });
}

/** Why this is not the key, or undefined. */
function refusal(authorization: string | undefined, expected: Buffer): RowmqError | undefined {
  const given = /^Bearer +(\S+) *$/i.exec(authorization ?? '')?.[1];
  // Digests have one length, so that the comparison's time tells nothing, not even the key's length.
  if (given !== undefined && timingSafeEqual(digest(given), expected)) return undefined;
  return new RowmqError(
    'unauthorized',
    given === undefined
      ? 'Send the API key as `Authorization: Bearer <key>`.'
      : 'The API key is not the one this broker was started with.',
  );
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
