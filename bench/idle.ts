import { number, table } from './harness/markdown.js';
import { benchCommand, type BenchOptions, positive } from './harness/options.js';
import { BrokerLoad, END_TO_END } from './harness/broker-load.js';
import { publish } from './harness/publish.js';
import { onEachServer, type Rig } from './harness/rig.js';
import { interleave, measureAndStop, type Scenario } from './harness/scenario.js';
import { eachScenario, type ServerResults } from './harness/tables.js';

interface Options extends BenchOptions {
  consumers: number;
  queues: number;
  rate: number;
}

/** Measures consumers that wait for messages which do not come. */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const options = readOptions(args);
  const scenarios = [
    waiting('idle', options, 0),
    waiting(`${options.rate} messages/s to one queue`, options, options.rate),
  ];
  const results = await onEachServer({ ...options, rig }, (on) => interleave(on, scenarios, options.runs, options));
  await publish({
    title: 'Idle consumers',
    script: 'bench:idle',
    args,
    options,
    results,
    markdown: toMarkdown(results, options),
  });
}

function readOptions(args: readonly string[]): Options {
  const defaults = { runs: 1, seconds: 60, json: 'idle' };
  return benchCommand('bench:idle', 'Queries and CPU of many consumers that wait on idle queues.', defaults)
    .option('--consumers <count>', 'how many wait', positive, 1000)
    .option('--queues <count>', 'on how many queues', positive, 50)
    .option('--rate <messages>', 'a second, to one of the queues in the second scenario', positive, 20)
    .parse(args, { from: 'user' })
    .opts<Options>();
}

function waiting(name: string, { consumers, queues }: Options, perSecond: number): Scenario {
  return {
    name,
    run: async (rig, timing) => {
      const broker = await rig.broker();
      const producers = perSecond === 0 ? 0 : { perSecond };
      const shape = { producers, consumers, batch: 1, bodyBytes: 200 };
      const load = await BrokerLoad.start(broker.url, { ...shape, queues: await rig.newQueues(queues) });
      return { [name]: await measureAndStop(rig, broker, load, timing) };
    },
  };
}

function toMarkdown(results: ServerResults, { consumers, queues, runs, seconds }: Options): string {
  const head = [
    'server',
    'scenario',
    'queries/s',
    'CPU % of a core: broker',
    'database',
    'both',
    'load generator',
    'broker MiB, start → end',
    'end to end: p50 / p99 ms',
  ];
  const rows = eachScenario(results).map(([server, name, { median: figures }]) => {
    const { broker, database, generator } = figures.cpuPercent;
    const latency = figures.latencyMs[END_TO_END];
    return [
      server,
      name,
      `**${number(figures.queriesPerSecond)}**`,
      number(broker),
      number(database),
      `**${number(broker + database)}**`,
      number(generator),
      `${number(figures.brokerMegabytes.start, 0)} → ${number(figures.brokerMegabytes.end, 0)}`,
      latency ? `${number(latency.p50)} / ${number(latency.p99)}` : '–',
    ];
  });
  return `${number(consumers)} consumers wait on ${queues} queues, 20 seconds at a time, and ask again. The server counts the
queries; those of the benchmark itself are left out. Medians of ${runs} stretches of ${seconds} s.

${table(head, rows)}`;
}
