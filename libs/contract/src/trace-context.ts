import { createRequire } from 'node:module';
import { LIMITS } from './limits.js';
import { quietly } from './quietly.js';

/**
 * Undefined if `@opentelemetry/api` is not installed: nothing is traced then. It is required, not
 * imported, so that this module can be required, too. No declaration names its types.
 */
const api = quietly(() => createRequire(import.meta.url)('@opentelemetry/api') as typeof import('@opentelemetry/api'));

/**
 * Adds the W3C `traceparent` of the active span to the headers, if there is one, a propagator
 * writes it, and the headers have room for it. Tracing never makes an enqueue fail.
 */
export function withTraceContext(headers: Record<string, string> | undefined): Record<string, string> | undefined {
  const traceparent = quietly(activeTraceparent);
  if (traceparent === undefined) return headers;
  const traced = { traceparent, ...headers };
  return Object.keys(traced).length <= LIMITS.headerEntries && bytesOf(traced) <= LIMITS.headersBytes
    ? traced
    : headers;
}

/** Other headers of propagators are left out: headers are few and small. */
function activeTraceparent(): string | undefined {
  if (api === undefined || api.trace.getActiveSpan() === undefined) return undefined;
  const carrier: Record<string, unknown> = {};
  api.propagation.inject(api.context.active(), carrier);
  const { traceparent } = carrier;
  return typeof traceparent === 'string' && traceparent.isWellFormed() ? traceparent : undefined;
}

/** Infinite for headers that JSON cannot represent. The enqueue refuses them by itself. */
function bytesOf(headers: Record<string, string>): number {
  return quietly(() => Buffer.byteLength(JSON.stringify(headers))) ?? Infinity;
}
