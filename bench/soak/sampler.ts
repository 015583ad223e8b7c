import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { AppProcess } from '../../test/support/processes.js';
import { folderMegabytes, openHandles, residentMegabytes } from '../harness/process-usage.js';
import type { RunningServer } from '../harness/rig.js';
import { BrokerMetrics } from './broker-metrics.js';
import type { QuantityName, Sample } from './quantities.js';

/** The processes that the soak measures. */
export interface Subjects {
  database: RunningServer;
  broker: AppProcess & { url: string };
  reaper: AppProcess;
  /** The reaper's heap in use, by its last message. */
  reaperHeapBytes(): number | undefined;
}

const MEGABYTE = 2 ** 20;

/**
 * Reads every quantity every `everySeconds` until `stop`. Throws if a process is gone or the broker
 * does not answer.
 */
export async function sampleUntil(
  stop: AbortSignal,
  everySeconds: number,
  subjects: Subjects,
  onSample: (sample: Sample) => void,
): Promise<void> {
  const metrics = new BrokerMetrics(subjects.broker.url);
  await metrics.read();
  const began = performance.now();
  for (let next = began; ;) {
    next = Math.max(next + everySeconds * 1000, performance.now());
    await sleep(next - performance.now(), undefined, { signal: stop }).catch(() => undefined);
    if (stop.aborted) return;
    onSample({ at: (performance.now() - began) / 1000, values: await read(subjects, metrics) });
  }
}

async function read(subjects: Subjects, metrics: BrokerMetrics): Promise<Record<QuantityName, number | null>> {
  const { database, broker, reaper } = subjects;
  const told = await metrics.read();
  const heapBytes = subjects.reaperHeapBytes();
  const sizes = await folderMegabytes(database.folder);
  return {
    brokerMegabytes: await residentMegabytes(broker.pid),
    reaperMegabytes: await residentMegabytes(reaper.pid),
    databaseMegabytes: await residentMegabytes(database.pid),
    brokerHeapMegabytes: told.heapBytes / MEGABYTE,
    reaperHeapMegabytes: heapBytes === undefined ? null : heapBytes / MEGABYTE,
    brokerHandles: await openHandles(broker.pid),
    reaperHandles: await openHandles(reaper.pid),
    databaseHandles: await openHandles(database.pid),
    connections: await database.probe.openConnections(),
    folderMegabytes: sum(sizes, () => true),
    tableMegabytes: sum(sizes, (file) => file.endsWith('.ibd')),
    binlogMegabytes: sum(sizes, (file) => file.startsWith('binlog.')),
    claimMedianMs: told.claimMs.p50,
    claimTailMs: told.claimMs.p99,
    historyListLength: await database.probe.historyListLength(),
    deliveries: told.deliveries,
    ackedPerSecond: told.ackedPerSecond,
  };
}

function sum(files: ReadonlyMap<string, number>, isWanted: (name: string) => boolean): number {
  return [...files].filter(([name]) => isWanted(name)).reduce((total, [, megabytes]) => total + megabytes, 0);
}
