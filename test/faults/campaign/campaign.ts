import { setTimeout as sleep } from 'node:timers/promises';
import { mayPass, RowmqHttpClient } from '@rowmq/client/core';
import { type Counted, Meter } from '../../../tools/simulator/src/meter.js';
import { simulate, type Result, type Watcher } from '../../../tools/simulator/src/simulation.js';
import type { SimulatorSettings } from '../../../tools/simulator/src/simulator.config.js';
import { CAUSES, FATES } from '../../../tools/simulator/src/verdict-text.js';
import { Prober } from '../../support/prober.js';
import { eventually } from '../../support/wait.js';
import { DEADLINE_MS, type Fault, type Prepared } from './fault.js';
import type { FaultRig } from './rig.js';

/** The effect of a fault on a load. */
export interface Outcome {
  fault: Fault;
  result: Result;
  strikes: number;
  /** The load's requests without an answer at the moment of a strike: the most of all strikes. */
  requestsInFlight: number;
  /** After each strike, until a message went from end to end again. */
  recoveryMs: number[];
  /** The load's queues as the database holds them. */
  deliveriesLeft: number;
  messagesStored: number;
}

/** Between two strikes. */
const PAUSE_MS = 1500;
const RECOVERY_MS = 30_000;
/** Messages acked, at least. */
const LEAST_WORK = 100;
/** The deadline of calls that are all to be answered, however busy the machine is. */
const PATIENCE_MS = 60_000;
const USUAL_DEADLINE_MS = 10_000;
const PROBED_QUEUE = 'probed';
/** A round trip costs the broker as much CPU as a batch of the load. */
const PROBE_EVERY_MS = 200;

/** Groups of the load's queues, which are then ordered ones; 0: none. */
const GROUPS = Number(process.env['ROWMQ_FAULT_GROUPS'] ?? 0);

/**
 * The rate leaves CPU to other tests. A fault needs requests in flight, not a busy machine: {@link
 * underFault} checks them before each strike.
 */
const LOAD: SimulatorSettings = {
  url: undefined,
  defaultUrl: '',
  start: false,
  apiKey: undefined,
  producers: 4,
  consumers: 8,
  seconds: 3600,
  batch: 10,
  rate: 80,
  maxBacklog: 3000,
  queues: 2,
  topic: false,
  groups: GROUPS,
  bodyBytes: { min: 0, max: 1024 },
  priorities: GROUPS > 0 ? { min: 4, max: 4 } : { min: 0, max: 9 },
  leaseSeconds: 2,
  waitSeconds: 1,
  crashRate: 0.02,
  slowRate: 0.02,
  nackRate: 0.05,
  expireRate: 0.05,
  drainSeconds: 60,
  timeoutSeconds: USUAL_DEADLINE_MS / 1000,
  maxMessages: 1_000_000,
  keepQueues: true,
  seed: 1,
  report: undefined,
};

/**
 * Has a fault strike again and again, for `seconds` and at least once, while producers and
 * consumers work through both brokers and record every request and every answer. Then judges.
 *
 * Throws when nothing went wrong, when RowMQ does not recover, or when the load does not progress.
 * The load has ended then, but the rig needs a repair.
 */
export async function underFault(rig: FaultRig, fault: Fault, seconds: number): Promise<Outcome> {
  const prepared = await fault.prepare?.(rig);
  let outcome: Outcome;
  try {
    outcome = await underLoad(rig, fault, seconds, prepared);
  } catch (error) {
    await Promise.allSettled([prepared?.undo()]);
    throw error;
  }
  await prepared?.undo();
  return outcome;
}

async function underLoad(
  rig: FaultRig,
  fault: Fault,
  seconds: number,
  prepared: Prepared | undefined,
): Promise<Outcome> {
  const prober = await Prober.start(rig.client, PROBED_QUEUE, { everyMs: PROBE_EVERY_MS });
  const load = new Load(rig, fault);
  try {
    const seen = await strikeAgainAndAgain(rig, fault, { prober, load, seconds });
    load.stop();
    await prober.stop();
    const result = await load.result;
    await prepared?.check?.();
    const queues = `sim-${result.run}-%`;
    const [deliveriesLeft, messagesStored] = [await leftOver(rig, queues), await rig.countMessages(queues)];
    return { fault, result, ...seen, deliveriesLeft, messagesStored };
  } finally {
    load.stop();
    // The first failure is the one to report.
    await Promise.allSettled([prober.stop(), load.result]);
    await load.close();
  }
}

/**
 * Counts the deliveries that are left in these queues. An expired one that no claim met stays until
 * a reaper removes it, and after a failure a reaper waits for half a minute.
 */
async function leftOver(rig: FaultRig, queues: string): Promise<number> {
  const isRemoved = async (): Promise<boolean> => (await rig.countDeliveries(queues, 'expired')) === 0;
  await eventually('expired deliveries are removed', isRemoved, 2 * DEADLINE_MS);
  return rig.countDeliveries(queues);
}

async function strikeAgainAndAgain(
  rig: FaultRig,
  fault: Fault,
  { prober, load, seconds }: { prober: Prober; load: Load; seconds: number },
): Promise<Pick<Outcome, 'strikes' | 'requestsInFlight' | 'recoveryMs'>> {
  const seen = { strikes: 0, requestsInFlight: 0, recoveryMs: [] as number[] };
  await load.until('it is under way', ({ acked }) => acked > 0);
  const until = performance.now() + seconds * 1000;
  if (fault.strike === undefined) await load.during(sleep(seconds * 1000));
  while (fault.strike !== undefined && (seen.strikes === 0 || performance.now() < until)) {
    await load.during(sleep(PAUSE_MS));
    await load.until('writes are in flight', () => load.writesInFlight > 0);
    seen.requestsInFlight = Math.max(seen.requestsInFlight, load.requestsInFlight);
    const since = await fault.strike(rig, prober);
    seen.strikes += 1;
    const deadlineMs = fault.recoveryMs ?? RECOVERY_MS;
    seen.recoveryMs.push(await prober.recovered(since, deadlineMs));
    // Each by itself: calls turn from one that fails to the other.
    await Promise.all(rig.clients.map((client) => answersAgain(client, deadlineMs)));
  }
  await load.until('it has worked', (counts) => counts.acked >= LEAST_WORK && fault.hasStruck?.(counts) !== false);
  return seen;
}

/** Waits until a message goes from end to end through this broker. */
async function answersAgain(client: RowmqHttpClient, deadlineMs: number): Promise<void> {
  const options = { timeoutMs: 2000 };
  const roundTrip = async (): Promise<boolean> => {
    await client.enqueue(PROBED_QUEUE, { messages: [{ body: 'round trip' }] }, options);
    const { messages } = await client.dequeue(PROBED_QUEUE, { maxMessages: 1, waitSeconds: 1 }, options);
    const receipts = messages.map(({ receipt }) => receipt);
    return receipts.length > 0 && (await client.ack(PROBED_QUEUE, { receipts }, options)).acked.length > 0;
  };
  const passing = (error: unknown): boolean => {
    if (mayPass(error)) return false;
    throw error;
  };
  await eventually(`broker ${client.url} completes a round trip`, () => roundTrip().catch(passing), deadlineMs);
}

const WRITES: ReadonlySet<string> = new Set(['enqueue', 'ack', 'nack', 'extend']);

/** Producers and consumers at work, from now on. */
class Load {
  /** Calls without an answer now. A dequeue that waits for messages is one of them. */
  requestsInFlight = 0;
  /** The calls without an answer that store or settle messages. */
  writesInFlight = 0;
  /** The counts of the whole load, as of the last second. */
  readonly counts = new Meter().totals;
  readonly result: Promise<Result>;
  private readonly stopping = new AbortController();
  private readonly clients: RowmqHttpClient[];

  constructor(rig: FaultRig, fault: Fault) {
    const timeoutMs = fault.mayEndIn.includes('no-answer') ? USUAL_DEADLINE_MS : PATIENCE_MS;
    this.clients = rig.clients.map(({ url }) => new RowmqHttpClient({ url, retries: 0, timeoutMs }));
    const watcher: Watcher = {
      phase: () => undefined,
      sample: ({ counts }) => {
        for (const what of Object.keys(counts) as Counted[]) this.counts[what] += counts[what];
      },
    };
    const settings = { ...LOAD, seed: Math.floor(Math.random() * 2 ** 31), ...fault.load };
    this.result = simulate(this.inTurns(), settings, watcher, this.stopping.signal);
    // The caller that awaits the load gets the error.
    this.result.catch(() => undefined);
  }

  /** Ends the producing; what there is is consumed and judged. */
  stop(): void {
    this.stopping.abort();
  }

  /** When its result is there. */
  async close(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.close()));
  }

  /** Waits for what happens while it works; throws if it ends. */
  async during<T>(work: Promise<T>): Promise<T> {
    const ended = this.result.then(() => Promise.reject(new Error('the load ended by itself')));
    return Promise.race([work, ended]);
  }

  /** Waits until it has counted so much. */
  async until(what: string, condition: (counts: Record<Counted, number>) => boolean): Promise<void> {
    await this.during(eventually(`the load: ${what}`, () => condition(this.counts), 3 * DEADLINE_MS));
  }

  /**
   * Sends each call to the next broker, as a load balancer does. Each broker then settles leases of
   * the other.
   */
  private inTurns(): RowmqHttpClient {
    let turn = 0;
    return new Proxy(this.clients[0] as RowmqHttpClient, {
      get: (_, name) => {
        const client = this.clients[(turn += 1) % this.clients.length] as RowmqHttpClient;
        const value: unknown = Reflect.get(client, name, client);
        if (typeof value !== 'function') return value;
        return async (...args: unknown[]): Promise<unknown> => {
          const isWrite = WRITES.has(String(name));
          this.requestsInFlight += 1;
          if (isWrite) this.writesInFlight += 1;
          try {
            return await (value.apply(client, args) as Promise<unknown>);
          } finally {
            this.requestsInFlight -= 1;
            if (isWrite) this.writesInFlight -= 1;
          }
        };
      },
    });
  }
}

/**
 * Requests that were not answered, or whose answer says that nobody knows: whatever they asked for
 * was done, or was not.
 */
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
export function outcomeRow({ fault, result, strikes, requestsInFlight, recoveryMs, deliveriesLeft }: Outcome): string {
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
    deliveriesLeft,
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
