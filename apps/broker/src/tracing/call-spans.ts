import type { FastifyAdapter } from '@nestjs/platform-fastify';
import {
  type Context,
  type Link,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
  type Tracer,
} from '@opentelemetry/api';
import { parseTraceParent, TraceState } from '@opentelemetry/core';
import type { CallConfig } from '../http/api-call.js';
import type { ProblemRequest } from '../http/problem.filter.js';

/** The types of OpenTelemetry's conventions for messaging, by call. */
const OPERATION_TYPES: Record<string, string> = {
  enqueue: 'send',
  publish: 'send',
  dequeue: 'receive',
  ack: 'settle',
  ackOne: 'settle',
  nack: 'settle',
  release: 'settle',
};
/** Links of a span. A request has 100 messages at most. */
const MOST_LINKS = 100;

interface TracedRequest extends Partial<ProblemRequest> {
  id: string;
  method: string;
  headers: Record<string, string | string[] | undefined>;
  params: unknown;
  body: unknown;
  routeOptions: { url?: string | undefined; config: unknown };
  span: Span | null;
}

/**
 * Makes a span of each call with messages. It continues the trace of the request's `traceparent`,
 * and links to the spans in which the messages were sent. Their headers `traceparent` name those.
 */
export function addSpans(adapter: FastifyAdapter, tracer: Tracer): void {
  const instance = adapter.getInstance();
  instance.decorateRequest('span', null);
  instance.addHook('onRequest', (request, _reply, done) => {
    const traced = request as unknown as TracedRequest;
    const { call, needs } = (traced.routeOptions.config ?? {}) as Partial<CallConfig>;
    if (call !== undefined && (needs?.scope === 'enqueue' || needs?.scope === 'dequeue'))
      traced.span = begin(tracer, call, traced);
    done();
  });
  // The messages that a producer sends, and those that a consumer gets.
  instance.addHook('preHandler', (request, _reply, done) => {
    addMessages(request as unknown as TracedRequest, request.body);
    done();
  });
  instance.addHook('preSerialization', (request, _reply, payload, done) => {
    const { routeOptions } = request as unknown as TracedRequest;
    if ((routeOptions.config as Partial<CallConfig>).call === 'dequeue')
      addMessages(request as unknown as TracedRequest, payload);
    done(null, payload);
  });
  instance.addHook('onResponse', (request, reply, done) => {
    end(request as unknown as TracedRequest, reply.statusCode);
    done();
  });
  // Nobody answers a client that has hung up.
  instance.addHook('onRequestAbort', (request, done) => {
    end(request as unknown as TracedRequest, undefined);
    done();
  });
}

function begin(tracer: Tracer, call: string, { id, method, headers, params, routeOptions }: TracedRequest): Span {
  const { queue, topic } = (params ?? {}) as { queue?: string; topic?: string };
  const destination = queue ?? topic;
  const type = OPERATION_TYPES[call];
  return tracer.startSpan(
    destination === undefined ? call : `${call} ${destination}`,
    {
      kind: SpanKind.SERVER,
      attributes: {
        'messaging.system': 'rowmq',
        'messaging.operation.name': call,
        ...(type !== undefined && { 'messaging.operation.type': type }),
        ...(destination !== undefined && { 'messaging.destination.name': destination }),
        'http.request.method': method,
        ...(routeOptions.url !== undefined && { 'http.route': routeOptions.url }),
        'rowmq.request.id': id,
      },
    },
    parentOf(headers),
  );
}

/** The trace that the client is in. */
function parentOf(headers: TracedRequest['headers']): Context {
  const { traceparent, tracestate } = headers;
  const parent = typeof traceparent === 'string' ? parseTraceParent(traceparent) : null;
  if (parent === null) return ROOT_CONTEXT;
  const state = typeof tracestate === 'string' ? { traceState: new TraceState(tracestate) } : {};
  return trace.setSpanContext(ROOT_CONTEXT, { ...parent, isRemote: true, ...state });
}

/** Any value may come here: the body is not checked yet. */
function addMessages({ span }: TracedRequest, content: unknown): void {
  if (span === null || !span.isRecording()) return;
  const { messages, receipts } = (content ?? {}) as { messages?: unknown; receipts?: unknown };
  const list = Array.isArray(messages) ? messages : undefined;
  const count = list?.length ?? (Array.isArray(receipts) ? receipts.length : undefined);
  if (count !== undefined) span.setAttribute('messaging.batch.message_count', count);
  const links = (list ?? []).slice(0, MOST_LINKS).flatMap(linkTo);
  if (links.length > 0) span.addLinks(links);
}

/** The span in which a message was sent. */
function linkTo(message: unknown): Link[] {
  const headers = (message as { headers?: Record<string, unknown> } | null)?.headers;
  const traceparent = headers?.['traceparent'];
  const context: SpanContext | null = typeof traceparent === 'string' ? parseTraceParent(traceparent) : null;
  return context === null ? [] : [{ context: { ...context, isRemote: true } }];
}

/** @param status undefined: the client has hung up */
function end(request: TracedRequest, status: number | undefined): void {
  const { span, problem } = request;
  if (span === null) return;
  request.span = null;
  if (status !== undefined) span.setAttribute('http.response.status_code', status);
  const error = status === undefined ? 'hung-up' : problem;
  if (error !== undefined && error !== null) span.setAttribute('error.type', error);
  if (status === undefined || status >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
  span.end();
}
