import type { FastifyAdapter } from '@nestjs/platform-fastify';
import type { CallConfig } from '../http/api-call.js';
import type { CheckedRequest } from '../http/caller.js';
import type { AuditedRequest } from '../http/changes.js';
import { addressOf } from '../http/client-address.js';
import type { ProblemRequest } from '../http/problem.filter.js';
import type { AuditLog } from './audit-log.js';

const PATH_CHARS = 1000;

/**
 * Audits every call that needs the scope `admin` and is no GET. It is a hook of these routes only,
 * so other calls do not pay for it, and it sees the refusals of all other hooks. It runs before the
 * reply is sent, because nothing runs after it for a client that has hung up.
 */
export function auditActions(adapter: FastifyAdapter, audit: AuditLog): void {
  const instance = adapter.getInstance();
  instance.decorateRequest('changes', null);
  instance.addHook('onRoute', (route) => {
    const { call, needs } = (route.config ?? {}) as Partial<CallConfig>;
    if (needs?.scope !== 'admin' || call === undefined) return;
    if (route.method === 'GET' || route.method === 'HEAD') return;
    const { action } = route.config as unknown as CallConfig;
    route.onSend = (request, reply, _payload, done): void => {
      const { caller, changes, problem } = request as unknown as CheckedRequest & AuditedRequest & ProblemRequest;
      // A flood of guesses must not fill the table.
      if (problem !== 'too-many-attempts')
        audit.add({
          action,
          path: request.url.replace(/\?.*/s, '').slice(0, PATH_CHARS),
          status: reply.statusCode,
          problem,
          key: caller?.name ?? null,
          // The client may have hung up.
          address: addressOf(request) || 'unknown',
          requestId: request.id,
          changes: changes?.fields ?? null,
        });
      done();
    };
  });
}
