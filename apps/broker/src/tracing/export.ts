import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Logger } from '@nestjs/common';
import { diag, DiagLogLevel, type Tracer } from '@opentelemetry/api';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace-base';
import { VERSION } from '../http/version.js';

/** Spans that wait for their export. Further ones are lost. */
const MOST_WAITING = 4096;
const BATCH = 512;
const BATCH_MS = 1000;
const EXPORT_MS = 5000;
/** A collector that does not answer holds up the stop for this long. */
const LAST_EXPORT_MS = 3000;
/** A collector that is gone would fill the log. */
const LOG_MS = 60_000;

/** Opens an export of spans to a collector, by OTLP over HTTP. `close` exports the last ones. */
export function openExport(url: string, percent: number): { tracer: Tracer; close: () => Promise<void> } {
  logTrouble();
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({
      'service.name': 'rowmq-broker',
      'service.version': VERSION,
      'service.instance.id': `${hostname()}/${process.pid}`,
    }),
    // A client that traces decides for its calls.
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(percent / 100) }),
    spanProcessors: [
      new BatchSpanProcessor(new OTLPTraceExporter({ url, timeoutMillis: EXPORT_MS }), {
        maxQueueSize: MOST_WAITING,
        maxExportBatchSize: BATCH,
        scheduledDelayMillis: BATCH_MS,
        exportTimeoutMillis: EXPORT_MS,
      }),
    ],
  });
  return {
    tracer: provider.getTracer('rowmq', VERSION),
    close: async () => {
      const closed = provider.shutdown().catch(() => undefined);
      await Promise.race([closed, sleep(LAST_EXPORT_MS, undefined, { ref: false })]);
    },
  };
}

/** OpenTelemetry is silent about spans that it loses, unless somebody listens. */
function logTrouble(): void {
  const logger = new Logger('traces');
  let quietUntil = 0;
  const warn = (message: string): void => {
    if (performance.now() < quietUntil) return;
    quietUntil = performance.now() + LOG_MS;
    logger.warn(`Cannot export traces: ${message}`);
  };
  const ignore = (): void => undefined;
  diag.setLogger({ error: warn, warn, info: ignore, debug: ignore, verbose: ignore }, DiagLogLevel.WARN);
}
