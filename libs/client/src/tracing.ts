import { createRequire } from 'node:module';
import type { Context, Span } from '@opentelemetry/api';
import { quietly, reasonOf } from './consumer/thrown.js';

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

/** Messages that share a handler call. */
export interface Handled {
  queue: string;
  messages: readonly { id: string; headers: Record<string, string>; receiveCount: number }[];
}

/**
 * Runs a handler in a span of its own. For a single message its parent is the producer's span. For
 * several it links to the producers' spans. If the tracing fails, the handler runs all the same.
 */
export async function inSpan<T>(handled: Handled, handle: () => Promise<T>): Promise<T> {
  const traced = quietly(() => begin(handled));
  if (api === undefined || traced === undefined) return handle();
  const { context, SpanStatusCode } = api;
  const { span, parent } = traced;
  let running: Promise<T> | undefined;
  const run = (): void => {
    running = handle();
  };
  try {
    quietly(() => context.with(parent, run));
    return await (running ?? handle());
  } catch (error) {
    const message = quietly(() => String(error)) ?? reasonOf(error);
    quietly(() => span.recordException(error as Error));
    quietly(() => span.setStatus({ code: SpanStatusCode.ERROR, message }));
    throw error;
  } finally {
    quietly(() => span.end());
  }
}

function begin({ queue, messages }: Handled): { span: Span; parent: Context } | undefined {
  if (api === undefined || tracer === undefined) return undefined;
  const { context, propagation, SpanKind, trace } = api;
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
  const span = tracer.startSpan(`process ${queue}`, { kind: SpanKind.CONSUMER, attributes, links }, parent);
  return { span, parent: trace.setSpan(parent, span) };
}
