import type { FastifyAdapter } from '@nestjs/platform-fastify';
import type { BrokerConfig } from '../broker.config.js';

/**
 * Exports a span of each call that carries messages, if a collector is configured. Otherwise
 * nothing of OpenTelemetry is loaded, and no hook is added.
 */
export async function traceCalls(
  adapter: FastifyAdapter,
  { tracesUrl, tracesPercent }: Pick<BrokerConfig, 'tracesUrl' | 'tracesPercent'>,
): Promise<void> {
  if (tracesUrl === undefined) return;
  const [{ openExport }, { addSpans }] = await Promise.all([import('./export.js'), import('./call-spans.js')]);
  const { tracer, close } = openExport(tracesUrl, tracesPercent);
  addSpans(adapter, tracer);
  adapter.getInstance().addHook('onClose', close);
}
