import { createRequire } from 'node:module';
import type { Context, Span } from '@opentelemetry/api';

type Api = typeof import('@opentelemetry/api');

/** Undefined where `@opentelemetry/api` is not installed: then nothing is traced. Required rather than imported, so that this module, too, can be required. */
const api = load();
const tracer = api?.trace.getTracer('@rowmq/client');

function load(): Api | undefined {
  try {
    return createRequire(import.meta.url)('@opentelemetry/api') as Api;
  } catch {
    return undefined;
  }
}

/** Headers with the W3C `traceparent` of the span that is under way, if there is one and something propagates it; else as they are. */
export function withTraceContext(headers: Record<string, string> | undefined): Record<string, string> | undefined {
  if (api === undefined || api.trace.getActiveSpan() === undefined) return headers;
  const carrier: Record<string, string> = {};
  api.propagation.inject(api.context.active(), carrier);
  // Nothing else that propagators write: headers are few and small, and tracing must not make an enqueue fail.
  const { traceparent } = carrier;
  return traceparent === undefined ? headers : { traceparent, ...headers };
}

/** Messages that are handled together. */
export interface Handled {
  queue: string;
  messages: readonly { id: string; headers: Record<string, string>; receiveCount: number }[];
}

/** Runs a handler in a span of its own: below the producer's for a single message, with links to the producers' for several. */
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
