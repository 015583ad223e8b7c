import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { writtenBetween, type WrittenBytes } from './database-probe.js';
import type { Quantiles } from './figures.js';
import type { Load } from './load.js';
import { ownCpuSeconds, residentMegabytes, treeCpuSeconds } from './process-usage.js';
import type { Rig, RunningBroker } from './rig.js';

/** A user of CPU. Several brokers count as one. The generator is this process. */
export type Party = 'broker' | 'database' | 'generator';

/** Measurements of a load over some seconds. */
export type Stretch = {
  seconds: number;
  messages: number;
  perSecond: number;
  /** CPU µs per message. */
  cpuMicros: Record<Party, number>;
  /** CPU in % of one core. */
  cpuPercent: Record<Party, number>;
  /** Statements that the database received. */
  queriesPerSecond: number;
  /** Bytes per message. */
  written: { redo: number; binlog: number };
  /** Resident. */
  brokerMegabytes: { start: number; end: number };
  latencyMs: Record<string, Quantiles>;
};

export interface Timing {
  warmUpSeconds: number;
  seconds: number;
}

interface Reading {
  at: number;
  done: number;
  cpu: Record<Party, number>;
  questions: number;
}

/** InnoDB purges for a moment after an earlier load. */
const SETTLED_HISTORY = 1000;
const SETTLE_DEADLINE_MS = 5000;
const POLL_MS = 100;

/**
 * Warms up under a load, then measures it for so long, or until it ends. A stretch without a
 * message would have no figures, so it lasts until the first one. It does not stop the load.
 * @param brokers all that serve the load
 * @throws the error that ended the load
 */
export async function measure(
  rig: Rig,
  brokers: RunningBroker | readonly RunningBroker[],
  load: Load,
  { warmUpSeconds, seconds }: Timing,
): Promise<Stretch> {
  const pids = [brokers].flat().map(({ pid }) => pid);
  await runFor(load, warmUpSeconds);
  const writtenBefore = await rig.database.probe.writtenBytes();
  const start = await sumOf(pids, residentMegabytes);
  load.takeLatencies();
  const before = await read(rig, pids, load);
  await workFor(load, seconds);
  const after = await read(rig, pids, load);
  const latencyMs = load.takeLatencies();
  const end = await sumOf(pids, residentMegabytes);
  const writtenAfter = await rig.database.probe.writtenBytes();
  return {
    ...figures(before, after),
    written: perMessage(writtenBefore, writtenAfter, after.done - before.done),
    brokerMegabytes: { start, end },
    latencyMs,
  };
}

/** Waits, a few seconds at most, until the database has purged what earlier loads left behind. */
export async function settle(rig: Rig): Promise<void> {
  const deadline = performance.now() + SETTLE_DEADLINE_MS;
  while (performance.now() < deadline && (await rig.database.probe.historyListLength()) > SETTLED_HISTORY)
    await sleep(POLL_MS);
}

/** Lets a load go on for so long, and for longer if it has done nothing by then. */
export async function workFor(load: Load, seconds: number): Promise<void> {
  const before = load.done();
  await runFor(load, seconds);
  const ended = load.ended.then(() => true);
  while (!load.isIdle && load.done() === before) {
    if (await Promise.race([ended, sleep(POLL_MS, false)])) return;
  }
}

/** Lets a load go on for so long, or until it ends. */
export async function runFor(load: Load, seconds: number): Promise<void> {
  await Promise.race([sleep(seconds * 1000), load.ended]);
}

async function sumOf(pids: readonly number[], of: (pid: number) => Promise<number>): Promise<number> {
  const each = await Promise.all(pids.map(of));
  return each.reduce((sum, value) => sum + value, 0);
}

async function read(rig: Rig, brokers: readonly number[], load: Load): Promise<Reading> {
  const [at, done] = [performance.now(), load.done()];
  const cpu = {
    broker: await sumOf(brokers, treeCpuSeconds),
    database: await ownCpuSeconds(rig.database.pid),
    generator: await ownCpuSeconds(process.pid),
  };
  return { at, done, cpu, questions: await rig.database.probe.questions() };
}

function figures(before: Reading, after: Reading): Omit<Stretch, 'written' | 'brokerMegabytes' | 'latencyMs'> {
  const seconds = (after.at - before.at) / 1000;
  const messages = after.done - before.done;
  const cpu = (scale: number): Record<Party, number> => ({
    broker: (after.cpu.broker - before.cpu.broker) * scale,
    database: (after.cpu.database - before.cpu.database) * scale,
    generator: (after.cpu.generator - before.cpu.generator) * scale,
  });
  return {
    seconds,
    messages,
    perSecond: messages / seconds,
    cpuMicros: cpu(1e6 / messages),
    cpuPercent: cpu(100 / seconds),
    queriesPerSecond: (after.questions - before.questions) / seconds,
  };
}

function perMessage(before: WrittenBytes, after: WrittenBytes, messages: number): Stretch['written'] {
  const { redo, binlog } = writtenBetween(before, after);
  return { redo: redo / messages, binlog: binlog / messages };
}
