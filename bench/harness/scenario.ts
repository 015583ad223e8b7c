import { medians } from './figures.js';
import { BrokerLoad } from './broker-load.js';
import type { Load, LoadShape } from './load.js';
import type { Rig, RunningBroker } from './rig.js';
import { measure, settle, type Stretch, type Timing } from './stretch.js';

/**
 * A measurement that is repeated. Most have one stretch, some have several; each stretch has a
 * name.
 */
export interface Scenario {
  name: string;
  run(rig: Rig, timing: Timing): Promise<Record<string, Stretch>>;
}

/** Every run of a stretch, and the medians of its figures. */
export interface Measured {
  runs: Stretch[];
  median: Stretch;
}

/** Measured stretches by name, in the order in which they were first measured. */
export type Results = Record<string, Measured>;

/** Differences from one queue on the usual broker. */
export interface Setup {
  queues?: number;
  /** Settings of a broker of its own. */
  brokerEnv?: Record<string, string>;
}

/**
 * Measures each scenario `runs` times, in rounds, so that a machine that drifts hurts all of them
 * alike. A short round before them warms up every broker and does not count.
 */
export async function interleave(
  rig: Rig,
  scenarios: readonly Scenario[],
  runs: number,
  timing: Timing,
): Promise<Results> {
  const stretches = new Map<string, Stretch[]>();
  const short = { warmUpSeconds: 0, seconds: timing.warmUpSeconds };
  if (short.seconds > 0) for (const scenario of scenarios) await scenario.run(rig, short);
  for (let round = 1; round <= runs; round += 1) {
    for (const scenario of scenarios) {
      await settle(rig);
      for (const [name, stretch] of Object.entries(await scenario.run(rig, timing))) {
        stretches.set(name, [...(stretches.get(name) ?? []), stretch]);
        console.error(`  ${rig.database.name}, run ${round} of ${runs}, ${name}: ${Math.round(stretch.perSecond)}/s`);
      }
    }
  }
  return Object.fromEntries([...stretches].map(([name, of]) => [name, { runs: of, median: medians(of) }]));
}

/**
 * The scenarios with these names, or with these texts in their names; all if there are none. A
 * whole name means that scenario alone: `batch 1` is not `batch 10`.
 */
export function selected(scenarios: readonly Scenario[], only: readonly string[]): Scenario[] {
  const isWhole = (text: string): boolean => scenarios.some((scenario) => scenario.name === text);
  const matches = (name: string): boolean => only.some((text) => (isWhole(text) ? name === text : name.includes(text)));
  return scenarios.filter(({ name }) => only.length === 0 || matches(name));
}

/** Messages that are enqueued, dequeued and acked at the same time, on fresh queues. */
export function lifecycles(name: string, shape: LoadShape, setup: Setup = {}): Scenario {
  return {
    name,
    run: async (rig, timing) => {
      const broker = await rig.broker(setup.brokerEnv);
      const ordering = shape.groups === undefined ? null : 'group';
      const queues = await rig.newQueues(setup.queues ?? 1, { ordering });
      const load = await BrokerLoad.start(broker.url, { ...shape, queues });
      const stretch = await measureAndStop(rig, broker, load, timing);
      for (const queue of queues) await assertDepth(rig, queue, 0);
      return { [name]: stretch };
    },
  };
}

/**
 * Enqueues for a while. Then it dequeues and acks those messages, for as long or until none is
 * left.
 */
export function enqueueThenDrain(name: string, shape: LoadShape): Scenario {
  return {
    name: `${name}: enqueue, then drain`,
    run: async (rig, timing) => {
      const broker = await rig.broker();
      const queues = await rig.newQueues(1);
      const producing = await BrokerLoad.start(broker.url, { ...shape, queues }, 'produce');
      const enqueue = await measureAndStop(rig, broker, producing, timing);
      const draining = await BrokerLoad.start(broker.url, { ...shape, queues }, 'drain', producing.tally);
      // No warm-up, which could take all there is: the broker is warm already.
      const drain = await measureAndStop(rig, broker, draining, { ...timing, warmUpSeconds: 0 });
      for (const queue of queues) await assertDepth(rig, queue, 0);
      return { [`${name}: enqueue only`]: enqueue, [`${name}: drain only`]: drain };
    },
  };
}

/** Publishes to a topic for a while, and leaves the messages in the queues of its subscribers. */
export function publishOnly(name: string, shape: LoadShape, subscribers: number): Scenario {
  return {
    name,
    run: async (rig, timing) => {
      const broker = await rig.broker();
      const target = await rig.newTopic(subscribers);
      const load = await BrokerLoad.start(broker.url, { ...shape, ...target }, 'produce');
      const stretch = await measureAndStop(rig, broker, load, timing);
      for (const queue of target.queues) await assertDepth(rig, queue, load.tally.sent);
      return { [name]: stretch };
    },
  };
}

/** Measures a load and stops it. */
export async function measureAndStop(
  rig: Rig,
  brokers: RunningBroker | readonly RunningBroker[],
  load: Load,
  timing: Timing,
): Promise<Stretch> {
  let stretch: Stretch;
  try {
    stretch = await measure(rig, brokers, load, timing);
  } catch (error) {
    // The stop may fail because of it.
    await load.stop().catch(() => undefined);
    throw error;
  }
  await load.stop();
  return stretch;
}

/** Fails unless the database holds exactly so many deliveries of a queue. */
export async function assertDepth(rig: Rig, queue: string, expected: number): Promise<void> {
  const depth = await rig.database.probe.depth(queue);
  if (depth !== expected) throw new Error(`${queue} holds ${depth} deliveries, and should hold ${expected}`);
}
