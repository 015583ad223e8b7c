import { RowmqError } from '@rowmq/contract';
import type { BrokerConfig } from '../broker.config.js';
import type { BrokerAdapter } from '../http/broker-adapter.js';
import { HttpRefusal } from '../http/http-refusal.js';
import { addressOf } from '../http/client-address.js';
import { ANYBODY, type Caller, type CheckedRequest } from '../http/caller.js';
import type { Needs, NeedsConfig } from '../http/needs.js';
import type { FailedAttempts } from './failed-attempts.js';
import type { KnownKeys } from './known-keys.js';
import { hasSession, type KnownSessions } from './known-sessions.js';

/** Methods without a body. */
const BODILESS = new Set(['GET', 'HEAD']);
/** The needs of a path that does not exist. */
const ANY_KEY: Needs = { scope: 'any' };
const NO_KEY: Needs = { scope: 'none' };

/**
 * Checks the API key of every request against the needs that its call declares. The check comes
 * before the body, so that a request without a key makes the broker buffer and parse nothing.
 *
 * @param keys undefined: the broker asks for no keys
 * @param attempts the calls without a valid key
 * @param sessions the logins to the dashboard, which stand for their keys
 */
export function checkKeys(
  adapter: BrokerAdapter,
  keys: KnownKeys | undefined,
  attempts: FailedAttempts,
  sessions: Pick<KnownSessions, 'find'> | undefined,
  { operationsNeedKey, operationsPort }: Pick<BrokerConfig, 'operationsNeedKey' | 'operationsPort'>,
): void {
  const instance = adapter.getInstance();
  instance.decorateRequest('caller', null);
  instance.addHook('onRequest', (request, _reply, done) => {
    const { url, config } = request.routeOptions;
    const needs = url === undefined ? needsOfNoCall(request.method) : (config as Partial<NeedsConfig>).needs;
    const checked = request as unknown as CheckedRequest;
    const refuse = (error?: Error): void => {
      const isFailure = error instanceof RowmqError && error.code === 'unauthorized';
      done(isFailure ? attempts.count(addressOf(request), error) : error);
    };
    try {
      if (needs === undefined) throw undeclared();
      if (operationsPort !== undefined && needs.scope !== 'none') {
        const isForOperations = adapter.isForOperations(request.raw);
        if (isForOperations !== (needs.isOperation === true)) throw otherPort(isForOperations);
      }
      if (keys === undefined) {
        checked.caller = ANYBODY;
        done();
        return;
      }
      if (needs.scope === 'none' || (needs.isOperation === true && !operationsNeedKey)) {
        done();
        return;
      }
      let caller: Caller | Promise<Caller>;
      if (sessions !== undefined && hasSession(request)) {
        // A look for a session costs a read.
        attempts.refuseIfTooMany(addressOf(request));
        caller = sessions.find(request);
      } else caller = keys.find(request.headers.authorization);
      const admit = (found: Caller): void => {
        if (found === keys.admin) attempts.refuseIfTooMany(addressOf(request));
        checked.caller = found;
        check(found, needs, request);
      };
      if (caller instanceof Promise) {
        void admitLater(caller, admit, refuse);
        return;
      }
      admit(caller);
    } catch (error) {
      refuse(error as Error);
      return;
    }
    done();
  });
}

async function admitLater(
  caller: Promise<Caller>,
  admit: (found: Caller) => void,
  done: (error?: Error) => void,
): Promise<void> {
  try {
    admit(await caller);
  } catch (error) {
    done(error as Error);
    return;
  }
  done();
}

/** Throws `forbidden`. */
function check(
  caller: Caller,
  { scope, reach = [] }: Needs,
  { method, params }: { method: string; params: unknown },
): void {
  if (scope === 'admin' && BODILESS.has(method)) caller.mustHave('read');
  else if (scope !== 'any' && scope !== 'none') caller.mustHave(scope);
  if (caller.reachesAll) return;
  if (reach === 'everything') caller.mustReachAll();
  else for (const name of reach) caller.mustReach((params as Record<string, string>)[name] as string);
}

/** A request without a route gets 404. One that may have a body needs a key even so. */
function needsOfNoCall(method: string): Needs {
  return BODILESS.has(method) ? NO_KEY : ANY_KEY;
}

function otherPort(isForOperations: boolean): HttpRefusal {
  const served = isForOperations
    ? 'This port serves /metrics, /docs, /openapi.json and /health only. Call the port that ROWMQ_PORT names.'
    : 'Another port serves this path: call the one that ROWMQ_OPERATIONS_PORT names.';
  return new HttpRefusal(404, 'invalid-request', served);
}

function undeclared(): RowmqError {
  return new RowmqError(
    'forbidden',
    'The broker does not know what this call needs of an API key, so it refuses the call. This is a fault of the broker: report it.',
  );
}
