import { BrokerLoad, END_TO_END, type Routes } from './harness/broker-load.js';
import { BATCH_1, BATCH_10, BATCH_100, type ClosedShape, type LoadShape, PACED_200 } from './harness/load.js';
import { number, table } from './harness/markdown.js';
import { benchCommand, type BenchOptions, collect, numbers } from './harness/options.js';
import { publish } from './harness/publish.js';
import { Balancer } from './harness/queue-client.js';
import { onEachServer, type Rig } from './harness/rig.js';
import { assertDepth, interleave, measureAndStop, type Scenario, selected } from './harness/scenario.js';
import { type Comparison, eachScenario, rateTable, ratioTable, type ServerResults } from './harness/tables.js';

interface Options extends BenchOptions {
  brokers: number[];
  only: string[];
}

const BATCHES: Record<string, ClosedShape> = { 'batch 1': BATCH_1, 'batch 10': BATCH_10, 'batch 100': BATCH_100 };

/** Which of the brokers a producer or consumer calls. */
const ROUTINGS: Record<string, (urls: readonly string[]) => Routes> = {
  'a broker for each worker': (urls) => ({ producers: urls, consumers: urls }),
  'requests dealt round': (urls) => {
    const balancer = new Balancer(urls);
    return { producers: [balancer], consumers: [balancer] };
  },
};

const [SAME, DIFFERENT, DEALT] = [
  '200 messages/s, one broker',
  '200 messages/s, producers and consumers on different brokers',
  '200 messages/s, two brokers, requests dealt round',
];

/** Measures several brokers on one queue, in comparison with one. */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const options = readOptions(args);
  const scenarios = selected(scenariosOf(options.brokers), options.only);
  const results = await onEachServer({ ...options, rig }, (on) => interleave(on, scenarios, options.runs, options));
  await publish({
    title: 'Several brokers on one queue',
    script: 'bench:brokers',
    args,
    options,
    results,
    markdown: toMarkdown(results, options),
  });
}

function readOptions(args: readonly string[]): Options {
  const defaults = { runs: 3, seconds: 4, json: 'brokers' };
  return benchCommand('bench:brokers', 'Rates and latencies of several brokers on one queue, and of one.', defaults)
    .option('--brokers <counts>', 'how many brokers, with commas between', numbers, [1, 2, 4])
    .option('--only <name>', 'a scenario, or all with this in their names; may be repeated', collect, [])
    .parse(args, { from: 'user' })
    .opts<Options>();
}

function scenariosOf(counts: readonly number[]): Scenario[] {
  const closed = Object.entries(BATCHES).flatMap(([batch, shape]) =>
    counts.flatMap((count) =>
      Object.entries(ROUTINGS)
        .slice(0, count === 1 ? 1 : undefined)
        .map(([routing, routes]) => onBrokers(nameOf(batch, count, routing), shape, count, routes)),
    ),
  );
  return [
    ...closed,
    onBrokers(SAME, PACED_200, 1, (urls) => ({ producers: urls, consumers: urls })),
    onBrokers(DIFFERENT, PACED_200, 2, (urls) => ({ producers: urls.slice(0, 1), consumers: urls.slice(1) })),
    onBrokers(DEALT, PACED_200, 2, ROUTINGS['requests dealt round'] as (urls: readonly string[]) => Routes),
  ];
}

function nameOf(batch: string, count: number, routing: string): string {
  return count === 1 ? `${batch}, one broker` : `${batch}, ${count} brokers, ${routing}`;
}

/** Lifecycles on one fresh queue through so many brokers. */
function onBrokers(
  name: string,
  shape: LoadShape,
  count: number,
  routesTo: (urls: readonly string[]) => Routes,
): Scenario {
  return {
    name,
    run: async (rig, timing) => {
      const brokers = await rig.brokers(count);
      const queues = (await rig.newQueues(1)) as [string];
      const load = await BrokerLoad.start(routesTo(brokers.map(({ url }) => url)), { ...shape, queues });
      const stretch = await measureAndStop(rig, brokers, load, timing);
      await assertDepth(rig, queues[0], 0);
      return { [name]: stretch };
    },
  };
}

function toMarkdown(results: ServerResults, { brokers, runs, seconds, warmUpSeconds }: Options): string {
  const comparisons = Object.keys(BATCHES).flatMap((batch) =>
    brokers
      .filter((count) => count > 1)
      .flatMap((count) =>
        Object.keys(ROUTINGS).map((routing): Comparison => ({
          label: `${nameOf(batch, count, routing)}, to one`,
          of: nameOf(batch, count, routing),
          to: nameOf(batch, 1, ''),
        })),
      ),
  );
  return `The load is full lifecycles (enqueue, dequeue, ack) over HTTP on one queue, with bodies of 200 bytes.
The number of workers is the same for every number of brokers: 50 producers and 50 consumers at
batch 1, 16 and 16 at batch 10, 8 and 8 at batch 100. Each worker calls one broker, and the workers
are dealt to the brokers in turn. "Requests dealt round" means that each request of all workers goes
to the next broker, as a load balancer does. Acks then often arrive at another broker than the one
that leased. The broker's CPU and memory are those of all brokers together. Every message is
accounted for by its id, and the queue is empty in the database at the end. Figures are medians
(lowest – highest) of ${runs} stretches of ${seconds} s after ${warmUpSeconds} s of warm-up. The scenarios run in rounds.

${rateTable(results)}

${ratioTable(results, () => comparisons)}

Single messages at a steady 200/s. Eight consumers wait. The latency is from the start of the
enqueue request to the dequeue answer with the message.

${pacedTable(results)}`;
}

function pacedTable(results: ServerResults): string {
  const rows = eachScenario(results).flatMap(([server, name, { median: figures }]) => {
    const latency = figures.latencyMs[END_TO_END];
    if (latency === undefined) return [];
    const { broker, database } = figures.cpuMicros;
    return [
      [
        server,
        name,
        number(broker, 0),
        number(database, 0),
        `**${number(broker + database, 0)}**`,
        number(figures.queriesPerSecond, 0),
        number(latency.p50),
        number(latency.p99),
      ],
    ];
  });
  return table(
    [
      'server',
      'scenario',
      'CPU µs a message: brokers',
      'database',
      'both',
      'queries/s',
      'end to end: p50, ms',
      'p99, ms',
    ],
    rows,
  );
}
