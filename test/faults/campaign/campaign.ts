import { setTimeout as sleep } from 'node:timers/promises';
import type { RowmqHttpClient } from '@rowmq/client/core';
import { simulate, type Result, type Watcher } from '../../../apps/simulator/src/simulation.js';
import type { SimulatorSettings } from '../../../apps/simulator/src/simulator.config.js';
import { CAUSES, FATES } from '../../../apps/simulator/src/verdict-text.js';
import { Prober } from '../../support/prober.js';
import { eventually } from '../../support/wait.js';
import type { Fault } from './faults.js';
import type { FaultRig } from './rig.js';

/** What a fault did to a load. */
export interface Outcome {
  fault: Fault;
  result: Result;
  strikes: number;
  /** When it struck: the most of them all, and at least some in every strike that is worth its name. */
  requestsInFlight: number;
  /** After each strike, until a message went from end to end again. */
  recoveryMs: number[];
  /** That the database has still, of the load's queues. */
  left: number;
}

/** Between two strikes. */
const PAUSE_MS = 1500;
const PROBED_QUEUE = 'probed';

const LOAD: SimulatorSettings = {
  url: undefined,
  defaultUrl: '',
  start: false,
  apiKey: undefined,
  producers: 4,
  consumers: 8,
  seconds: 3600,
  batch: 10,
  rate: 500,
  maxBacklog: 3000,
  queues: 2,
  bodyBytes: { min: 0, max: 1024 },
  priorities: { min: 0, max: 9 },
  leaseSeconds: 2,
  waitSeconds: 1,
  crashRate: 0.02,
  slowRate: 0.02,
  nackRate: 0.05,
  expireRate: 0.05,
  drainSeconds: 60,
  timeoutSeconds: 10,
  maxMessages: 1_000_000,
  keepQueues: true,
  seed: 1,
  report: undefined,
  json: undefined,
};

/** Has a fault strike again and again, for `seconds` and at least once, while producers and consumers work through both brokers and record every request and every answer. Then judges. */
export async function underFault(rig: FaultRig, fault: Fault, seconds: number): Promise<Outcome> {
  const undo = await fault.prepare?.(rig);
  const prober = await Prober.start(rig.client, PROBED_QUEUE);
  const stop = new AbortController();
  let inFlight = 0;
  let isUnderWay = false;
  const watcher: Watcher = {
    phase: () => undefined,
    sample: ({ requestsInFlight, counts }) => {
      inFlight = requestsInFlight;
      isUnderWay ||= counts.acked > 0;
    },
  };
  const settings = { ...LOAD, seed: Math.floor(Math.random() * 2 ** 31), ...fault.load };
  const running = simulate(inTurns(rig.clients), settings, watcher, stop.signal);
  const outcome = { strikes: 0, requestsInFlight: 0, recoveryMs: [] as number[] };
  try {
    await Promise.race([eventually('the load is under way', () => isUnderWay, 60_000), running]);
    const until = performance.now() + seconds * 1000;
    do {
      await Promise.race([sleep(PAUSE_MS), running]);
      if (fault.strike === undefined) continue;
      outcome.requestsInFlight = Math.max(outcome.requestsInFlight, inFlight);
      const since = await fault.strike(rig);
      outcome.strikes += 1;
      outcome.recoveryMs.push(await prober.recovered(since, fault.recoveryMs ?? 15_000));
    } while (performance.now() < until);
  } finally {
    stop.abort();
    await prober.stop();
  }
  const result = await running;
  await undo?.();
  const left = await rig.countDeliveries(`sim-${result.run}-%`);
  return { fault, result, ...outcome, left };
}

/** As a load balancer has it: each call goes to the next broker, so that what one leased another settles. */
function inTurns(clients: readonly RowmqHttpClient[]): RowmqHttpClient {
  let turn = 0;
  return new Proxy(clients[0] as RowmqHttpClient, {
    get: (_, name) => {
      const client = clients[(turn += 1) % clients.length] as RowmqHttpClient;
      const value: unknown = Reflect.get(client, name, client);
      return typeof value === 'function' ? value.bind(client) : value;
    },
  });
}

/** Requests that were not answered, or whose answer says that nobody knows: whatever they asked for was done, or was not. */
export function unknownOutcomes({ errors }: Result): number {
  return (errors['no-answer'] ?? 0) + (errors['database-unavailable'] ?? 0) + (errors['internal-error'] ?? 0);
}

export const COLUMNS = [
  'fault',
  'struck',
  'requests in flight',
  'messages',
  'unknown outcomes',
  'lost',
  'delivered again, and why',
  'what became of them',
  'left over',
  'time to recover, median (longest)',
  'verdict',
];

/** Its {@link COLUMNS}, as a row of a Markdown table. */
export function outcomeRow({ fault, result, strikes, requestsInFlight, recoveryMs, left }: Outcome): string {
  const { verdict } = result;
  const lost = verdict.guarantees.find(({ guarantee }) => guarantee === 'Nothing is lost')?.broken ?? 0;
  const cells = [
    fault.name,
    fault.strike === undefined ? 'throughout' : `${strikes}×`,
    fault.strike === undefined ? '' : requestsInFlight,
    result.messages,
    unknownOutcomes(result),
    lost,
    words(verdict.redeliveries, CAUSES),
    words(verdict.fates, FATES),
    left,
    recoveryMs.length === 0 ? '' : `${seconds(median(recoveryMs))} (${seconds(Math.max(...recoveryMs))})`,
    verdict.status,
  ];
  return `| ${cells.join(' | ')} |`;
}

function words<Key extends string>(counts: Record<Key, number>, names: Record<Key, string>): string {
  const some = (Object.keys(names) as Key[]).filter((key) => counts[key] > 0);
  return some.map((key) => `${counts[key]} ${names[key]}`).join(', ');
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;
const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
