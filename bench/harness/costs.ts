import type { ServerCounters } from './database-probe.js';
import { bytesToStorage } from './process-usage.js';
import type { Rig, RunningBroker } from './rig.js';
import { measureAndStop } from './scenario.js';
import type { Load } from './load.js';
import type { Stretch, Timing } from './stretch.js';

/** Costs of a message beyond those in {@link Stretch}. */
export type Costs = ServerCounters & {
  statements: number;
  /** Bytes that the server had written to storage: redo, binlog, pages and their doublewrites. */
  storageBytes: number;
};

/** The figures of one stretch, with the costs of its load. */
export type CostedStretch = Stretch & { costs: Costs };

/**
 * Measures a load and the costs of a message, then stops it. The costs span the first message to
 * the last, warm-up included. Otherwise, work for messages that nobody counted would be in them.
 */
export async function measureCosts(
  rig: Rig,
  broker: RunningBroker,
  start: () => Promise<Load>,
  timing: Timing,
): Promise<CostedStretch> {
  const { probe, pid } = rig.database;
  const read = async (): Promise<Costs> => ({
    ...(await probe.counters()),
    statements: await probe.questions(),
    storageBytes: await bytesToStorage(pid),
  });
  const before = await read();
  const load = await start();
  const stretch = await measureAndStop(rig, broker, load, timing);
  const after = await read();
  const messages = load.done();
  const entries = Object.entries(after).map(([name, value]) => [
    name,
    (value - before[name as keyof Costs]) / messages,
  ]);
  return { ...stretch, costs: Object.fromEntries(entries) as Costs };
}
