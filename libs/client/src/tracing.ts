import { createRequire } from 'node:module';
import type { Context, Span } from '@opentelemetry/api';

type Api = typeof import('@opentelemetry/api');

/**
 * Undefined if `@opentelemetry/api` is not installed: nothing is traced then. It is required, not
 * imported, so that this module can be required, too.
 */
const api = load();
const tracer = api?.trace.getTracer('@rowmq/client');

function load(): Api | undefined {
  try {
    return createRequire(import.meta.url)('@opentelemetry/api') as Api;
  } catch {
    return undefined;
  }
}

/**
 * Adds the W3C `traceparent` of the active span to the headers, if there is one and a propagator
 * writes it.
 */
export function withTraceContext(headers: Record<string, string> | undefined): Record<string, string> | undefined {
  if (api === undefined || api.trace.getActiveSpan() === undefined) return headers;
  const carrier: Record<string, string> = {};
  api.propagation.inject(api.context.active(), carrier);
  // Other headers of propagators are left out: headers are few and small, and tracing must not make
  // an enqueue fail.
  const { traceparent } = carrier;
  return traceparent === undefined ? headers : { traceparent, ...headers };
}

/** Messages that share a handler call. */
export interface Handled {
  queue: string;
  messages: readonly { id: string; headers: Record<string, string>; receiveCount: number }[];
}

/**
 * Runs a handler in a span of its own. For a single message its parent is the producer's span. For
 * several it links to the producers' spans.
 */
export async function inSpan<T>({ queue, messages }: Handled, handle: () => Promise<T>): Promise<T> {
  if (api === undefined || tracer === undefined) return handle();
  const { context, propagation, SpanKind, SpanStatusCode, trace } = api;
  const producers = messages.map(({ headers }) => propagation.extract(context.active(), headers));
  const single = messages.length === 1 ? messages[0] : undefined;
  const parent = single === undefined ? context.active() : (producers[0] as Context);
  const links =
    single === undefined
      ? producers.flatMap((producer) => trace.getSpanContext(producer) ?? []).map((of) => ({ context: of }))
      : [];
  const attributes = {
    'messaging.system': 'rowmq',
    'messaging.operation.type': 'process',
    'messaging.destination.name': queue,
    ...(single === undefined
      ? { 'messaging.batch.message_count': messages.length }
      : { 'messaging.message.id': single.id, 'messaging.rowmq.receive_count': single.receiveCount }),
  };
  const options = { kind: SpanKind.CONSUMER, attributes, links };
  return tracer.startActiveSpan(`process ${queue}`, options, parent, async (span: Span) => {
    try {
      return await handle();
    } catch (error) {
      span.recordException(error as Error);
      span.setStatus({ code: SpanStatusCode.ERROR, message: String(error) });
      throw error;
    } finally {
      span.end();
    }
  });
}
