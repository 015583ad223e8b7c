import { ClientDrain } from './harness/client-drain.js';
import { BrokerLoad } from './harness/broker-load.js';
import { BATCH_1, BATCH_10, BATCH_100, type ClosedShape } from './harness/load.js';
import { benchCommand, type BenchOptions } from './harness/options.js';
import { publish } from './harness/publish.js';
import { onEachServer, type Rig } from './harness/rig.js';
import { assertDepth, interleave, measureAndStop, type Scenario } from './harness/scenario.js';
import { type Comparison, rateTable, ratioTable } from './harness/tables.js';

const BATCHES: Record<string, ClosedShape> = { 'batch 1': BATCH_1, 'batch 10': BATCH_10, 'batch 100': BATCH_100 };
const HOWS = ['bare calls', "the client's consumers"] as const;

/** Measures the client's consumers beside bare HTTP calls. */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const defaults = { runs: 3, seconds: 4, json: 'client' };
  const options = benchCommand('bench:client', "The client's consumers beside bare HTTP calls.", defaults)
    .parse(args, { from: 'user' })
    .opts<BenchOptions>();
  const scenarios = Object.entries(BATCHES).flatMap(([batch, shape]) => HOWS.map((how) => drain(batch, shape, how)));
  const results = await onEachServer({ ...options, rig }, (on) => interleave(on, scenarios, options.runs, options));
  const comparisons = Object.keys(BATCHES).map((batch): Comparison => ({
    label: `${batch}: the client's consumers to bare calls`,
    of: `${batch}, ${HOWS[1]}`,
    to: `${batch}, ${HOWS[0]}`,
  }));
  await publish({
    title: "The client's consumers beside bare calls",
    script: 'bench:client',
    args,
    options,
    results,
    markdown: `Producers enqueue bodies of 200 bytes for ${options.seconds} s. Then the backlog is dequeued and acked in one of
two ways. Either 50, 16 and 8 loops make bare HTTP calls, one after the other, in batches of 1, 10
and 100. Or as many consumers of the client run handlers that do nothing. The load generator's CPU
is that of the loops or the consumers. Figures are medians (lowest – highest) of ${options.runs} stretches. A
stretch takes ${options.seconds} s, or less if no message is left. The two ways run in rounds.

${rateTable(results)}

${ratioTable(results, () => comparisons)}`,
  });
}

function drain(batch: string, shape: ClosedShape, how: (typeof HOWS)[number]): Scenario {
  const name = `${batch}, ${how}`;
  return {
    name,
    run: async (rig, timing) => {
      const broker = await rig.broker();
      const queues = (await rig.newQueues(1)) as [string];
      const producing = await BrokerLoad.start(broker.url, { ...shape, queues }, 'produce');
      await measureAndStop(rig, broker, producing, { ...timing, warmUpSeconds: 0 });
      const draining =
        how === 'bare calls'
          ? await BrokerLoad.start(broker.url, { ...shape, queues }, 'drain', producing.tally)
          : new ClientDrain(broker.url, queues[0], shape, producing.tally);
      const stretch = await measureAndStop(rig, broker, draining, { ...timing, warmUpSeconds: 0 });
      await assertDepth(rig, queues[0], 0);
      return { [name]: stretch };
    },
  };
}
