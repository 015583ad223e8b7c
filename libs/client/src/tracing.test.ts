import { context, propagation, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Handler } from './consumer/handling.js';
import { QueueConsumer } from './consumer/queue-consumer.js';
import { Queue } from './queue/queue.js';
import { InMemoryBroker } from './testing/in-memory-broker.js';
import { inSpan } from './tracing.js';

const exporter = new InMemorySpanExporter();

beforeAll(() => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
});
afterAll(() => {
  trace.disable();
  propagation.disable();
  context.disable();
});
beforeEach(() => exporter.reset());

/** Enqueues within a span, has it handled, and returns both spans. */
async function passOn(handler: Handler<string>, count = 1) {
  const broker = new InMemoryBroker();
  const queue = new Queue<string>(broker, 'orders');
  const consumer = new QueueConsumer<string>(broker, 'orders', handler, {
    waitSeconds: 1,
    shutdownSeconds: 0,
    backoff: () => 3_600_000,
  });
  await trace.getTracer('test').startActiveSpan('the shop', async (span) => {
    await queue.enqueueMany(Array.from({ length: count }, () => 'tea'));
    span.end();
  });
  const [stored] = broker.messages('orders');
  consumer.start();
  await expect.poll(() => exporter.getFinishedSpans().length).toBe(2);
  await consumer.stop();
  const [producer, handled] = exporter.getFinishedSpans();
  return { producer, handled, headers: stored?.headers };
}

it('a handler runs in a child span of the producer, by the traceparent in the headers', async () => {
  let active: string | undefined;
  const { producer, handled, headers } = await passOn({
    message: () => void (active = trace.getActiveSpan()?.spanContext().spanId),
  });
  const { traceId, spanId } = producer?.spanContext() ?? {};
  expect(headers?.['traceparent']).toBe(`00-${traceId}-${spanId}-01`);
  expect(handled).toMatchObject({ name: 'process orders', parentSpanContext: { traceId, spanId } });
  expect(handled?.spanContext().spanId).toBe(active);
  expect(handled?.attributes).toMatchObject({ 'messaging.system': 'rowmq', 'messaging.destination.name': 'orders' });
});

it('a handler that fails leaves its error in the span', async () => {
  const { handled } = await passOn({ message: () => Promise.reject(new Error('no mail')) });
  expect(handled?.status).toMatchObject({ code: 2, message: 'Error: no mail' });
});

it('a batch handler runs in a span with links to the spans of the producers', async () => {
  const { producer, handled } = await passOn({ batch: () => undefined }, 3);
  expect(handled?.links.map(({ context: { spanId } }) => spanId)).toEqual(
    Array(3).fill(producer?.spanContext().spanId),
  );
  expect(handled?.attributes['messaging.batch.message_count']).toBe(3);
});

it('a message has no trace headers without an active span', async () => {
  const broker = new InMemoryBroker();
  await new Queue<string>(broker, 'orders').enqueue('tea');
  expect(broker.messages('orders')[0]?.headers).toEqual({});
});

describe('tracing never makes a message fail', () => {
  const headersOf = (count: number, bytes: number): Record<string, string> => {
    const names = Array.from({ length: count }, (_, index) => `h${index}`);
    const headers = Object.fromEntries(names.map((name) => [name, '']));
    headers['h0'] = 'x'.repeat(bytes - Buffer.byteLength(JSON.stringify(headers)));
    return headers;
  };

  /** The names of the headers that are stored with a message of these headers. */
  async function stored(headers: Record<string, string>): Promise<string[]> {
    const broker = new InMemoryBroker();
    await trace.getTracer('test').startActiveSpan('the shop', async (span) => {
      await new Queue<string>(broker, 'orders').enqueue('tea', { headers });
      span.end();
    });
    return Object.keys(broker.messages('orders')[0]?.headers ?? {});
  }

  it('whose headers have no room for the traceparent: it is left out', async () => {
    expect(await stored(headersOf(15, 500))).toContain('traceparent');
    expect(await stored(headersOf(16, 500))).toHaveLength(16);
    expect(await stored(headersOf(1, 1024))).toEqual(['h0']);
    expect(await stored(headersOf(1, 1024 - 60))).toEqual(['h0']);
    expect(await stored({ traceparent: 'of the user' })).toEqual(['traceparent']);
  });

  it('when the propagator or the tracer throws', async () => {
    const broken = (): never => {
      throw new Error('a defect of the tracing');
    };
    const inject = vi.spyOn(propagation, 'inject').mockImplementation(broken);
    const extract = vi.spyOn(propagation, 'extract').mockImplementation(broken);
    const handled: string[] = [];
    const broker = new InMemoryBroker();
    const consumer = new QueueConsumer<string>(broker, 'orders', { message: (payload) => void handled.push(payload) });
    try {
      await trace.getTracer('test').startActiveSpan('the shop', async (span) => {
        await new Queue<string>(broker, 'orders').enqueue('tea');
        span.end();
      });
      consumer.start();
      await broker.drained('orders');
    } finally {
      for (const spy of [inject, extract]) spy.mockRestore();
      await consumer.stop();
    }
    expect(handled).toEqual(['tea']);
  });

  it('when the context manager throws, and the handler runs once', async () => {
    const spy = vi.spyOn(context, 'with').mockImplementationOnce(() => {
      throw new Error('a defect of the tracing');
    });
    const handle = vi.fn<() => Promise<string>>(async () => 'done');
    const messages = [{ id: '1', headers: {}, receiveCount: 1 }];
    await expect(inSpan({ queue: 'orders', messages }, handle)).resolves.toBe('done');
    spy.mockRestore();
    expect(handle).toHaveBeenCalledOnce();
  });
});
