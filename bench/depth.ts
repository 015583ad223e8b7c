import { fillBacklog } from './harness/fill-backlog.js';
import { BrokerLoad } from './harness/broker-load.js';
import { BATCH_1, BATCH_100, type LoadShape } from './harness/load.js';
import { number } from './harness/markdown.js';
import { benchCommand, type BenchOptions, numbers } from './harness/options.js';
import { publish } from './harness/publish.js';
import { onEachServer, type Rig } from './harness/rig.js';
import { assertDepth, interleave, measureAndStop, type Results, type Scenario } from './harness/scenario.js';
import { type Comparison, rateTable, ratioTable } from './harness/tables.js';

interface Options extends BenchOptions {
  backlogs: number[];
}

interface Depths {
  results: Results;
  /** Messages put in per second, on the way to each backlog. */
  fillRates: number[];
}

/** A queue, and the number of messages in it. */
interface Standing {
  queue: string;
  depth: number;
}

const DAY = 86_400_000;
const BATCHES: Record<string, LoadShape> = { 'batch 1': BATCH_1, 'batch 100': BATCH_100 };
const NOTHING_STORED = 'nothing stored';
/** Backlog that the load itself may leave: small, so that an empty queue stays one. */
const BACKLOG_BATCHES = 2;

/** Measures how the rate depends on the depth of the queue. */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const options = readOptions(args);
  const from = Date.now() - DAY;
  const depths = await onEachServer({ ...options, rig, partitionsFrom: from }, (on) =>
    measureDepths(on, options, from),
  );
  await publish({
    title: 'Deep backlogs',
    script: 'bench:depth',
    args,
    options,
    results: depths,
    markdown: toMarkdown(depths, options),
  });
}

function readOptions(args: readonly string[]): Options {
  const defaults = { runs: 3, seconds: 4, json: 'depth' };
  const backlogs = [1_000_000, 10_000_000];
  return benchCommand('bench:depth', 'Rates on an empty queue and on deep backlogs.', defaults)
    .option('--backlogs <counts>', 'messages in the queue, with commas between, rising', numbers, backlogs)
    .parse(args, { from: 'user' })
    .opts<Options>();
}

/**
 * Measures first with nothing in the tables. Then it measures each backlog and, in the same rounds,
 * an empty queue beside it.
 */
async function measureDepths(rig: Rig, options: Options, from: number): Promise<Depths> {
  const [empty, deep] = (await rig.newQueues(2)).map((queue): Standing => ({ queue, depth: 0 })) as [
    Standing,
    Standing,
  ];
  const results = await interleave(rig, steadyLoads(empty, NOTHING_STORED), options.runs, options);
  const fillRates: number[] = [];
  const stepMs = DAY / Math.max(...options.backlogs);
  let present = 0;
  for (const messages of options.backlogs) {
    fillRates.push(
      await fillBacklog(rig.database.probe, { queue: deep.queue, bodyBytes: 200, present, messages, from, stepMs }),
    );
    deep.depth += messages - present;
    present = messages;
    const scenarios = [...steadyLoads(empty, emptyBeside(messages)), ...steadyLoads(deep, inQueue(messages))];
    Object.assign(results, await interleave(rig, scenarios, options.runs, options));
    for (const { queue, depth } of [empty, deep]) await assertDepth(rig, queue, depth);
  }
  return { results, fillRates };
}

/** Loads that leave as much in a queue as they find, one for each size of batch. */
function steadyLoads(standing: Standing, label: string): Scenario[] {
  return Object.entries(BATCHES).map(([batch, shape]) => ({
    name: `${batch}, ${label}`,
    run: async (rig, timing) => {
      const broker = await rig.broker();
      const queues = [standing.queue];
      const load = await BrokerLoad.start(broker.url, { ...shape, queues, backlogBatches: BACKLOG_BATCHES }, 'steady');
      const stretch = await measureAndStop(rig, broker, load, timing);
      standing.depth += load.tally.outstanding;
      return { [`${batch}, ${label}`]: stretch };
    },
  }));
}

function emptyBeside(messages: number): string {
  return `empty, beside a queue of ${number(messages)}`;
}

function inQueue(messages: number): string {
  return `${number(messages)} in the queue`;
}

function toMarkdown(depths: Record<string, Depths>, { backlogs, runs, seconds, warmUpSeconds }: Options): string {
  const results = Object.fromEntries(Object.entries(depths).map(([server, { results: of }]) => [server, of]));
  const comparisons = Object.keys(BATCHES).flatMap((batch) =>
    backlogs.flatMap((messages): Comparison[] => [
      {
        label: `${batch}: ${inQueue(messages)}, to empty beside it`,
        of: `${batch}, ${inQueue(messages)}`,
        to: `${batch}, ${emptyBeside(messages)}`,
      },
      {
        label: `${batch}: ${inQueue(messages)}, to ${NOTHING_STORED}`,
        of: `${batch}, ${inQueue(messages)}`,
        to: `${batch}, ${NOTHING_STORED}`,
      },
    ]),
  );
  const fills = Object.entries(depths).map(
    ([server, { fillRates }]) => `${server} ${fillRates.map((rate) => number(rate)).join(' and ')}`,
  );
  return `The load is full lifecycles over HTTP with bodies of 200 bytes. Consumers ask for as many messages
as were enqueued, so the backlog stays, and get the oldest ones. Figures are medians (lowest –
highest) of ${runs} stretches of ${seconds} s after ${warmUpSeconds} s of warm-up. The empty queue and the deep one run in the
same rounds, except where nothing is stored. Afterwards, the database holds exactly as many
messages as it should. The backlogs were filled at these rates:
${fills.join(', ')} messages/s.

${rateTable(results)}

${ratioTable(results, () => comparisons)}`;
}
