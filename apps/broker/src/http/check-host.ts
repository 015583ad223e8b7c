import type { FastifyAdapter } from '@nestjs/platform-fastify';
import { clip, RowmqError } from '@rowmq/contract';

/** Names of this machine, which no page elsewhere can have. */
const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/i;
const PORT = /:\d*$/;

/**
 * Refuses requests whose `Host` is not this machine, on a broker that asks for no keys. The name of
 * a hostile web page may resolve to 127.0.0.1 after the page was loaded (DNS rebinding). To the
 * browser, the broker then is the page's own origin.
 *
 * @param allowed further hosts, without ports
 */
export function checkHost(adapter: FastifyAdapter, allowed: readonly string[]): void {
  const names = new Set(allowed.map((name) => name.toLowerCase()));
  adapter.getInstance().addHook('onRequest', (request, _reply, done) => {
    // Browsers always send one.
    const host = request.headers.host?.replace(PORT, '') ?? 'localhost';
    if (LOOPBACK.test(host) || names.has(host.toLowerCase())) done();
    else done(foreignHost(host));
  });
}

function foreignHost(host: string): RowmqError {
  return new RowmqError(
    'forbidden',
    `The request is for the host '${clip(host)}', but a broker that asks for no API keys serves its own machine only. Call it as localhost, name the host in ROWMQ_ALLOWED_HOSTS, or set ROWMQ_ADMIN_KEY.`,
  );
}
