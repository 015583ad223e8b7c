import { RowmqHttpClient } from '@rowmq/client/core';
import type { SimulatorSettings } from './simulator.config.js';

/** A client for the workers of a run. */
export function openClient(url: string | readonly string[], settings: SimulatorSettings): RowmqHttpClient {
  return new RowmqHttpClient({
    url,
    apiKey: settings.apiKey,
    timeoutMs: settings.timeoutSeconds * 1000,
    // Each call is sent once, because the ledger has to know its outcome.
    retries: 0,
    // Each worker has a connection. Slow handlers, stats and look-ups do not queue behind waiting
    // dequeues.
    maxConnections: settings.producers + 2 * settings.consumers + settings.queues + 8,
  });
}
