import { BATCH_1, BATCH_10 } from './harness/load.js';
import { benchCommand, type BenchOptions, numbers } from './harness/options.js';
import { publish } from './harness/publish.js';
import { onEachServer, type Rig } from './harness/rig.js';
import { interleave, lifecycles, type Results } from './harness/scenario.js';
import { type Comparison, rateTable, ratioTable, type ServerResults } from './harness/tables.js';

interface Options extends BenchOptions {
  consumers: number[];
}

const PRODUCERS = 16;
const BATCHES = { 'batch 1': BATCH_1, 'batch 10': BATCH_10 };

/** Measures how the rate depends on the number of consumers. */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const options = readOptions(args);
  const scenarios = Object.entries(BATCHES).flatMap(([batch, shape]) =>
    options.consumers.map((consumers) =>
      lifecycles(nameOf(batch, consumers), { ...shape, producers: PRODUCERS, consumers }),
    ),
  );
  const results = await onEachServer({ ...options, rig }, (on) => interleave(on, scenarios, options.runs, options));
  await publish({
    title: 'From one consumer to many',
    script: 'bench:fanin',
    args,
    options,
    results,
    markdown: toMarkdown(results, options),
  });
}

function readOptions(args: readonly string[]): Options {
  const defaults = { runs: 3, seconds: 3, json: 'fanin' };
  return benchCommand('bench:fanin', 'Rates with one consumer and with many on one queue.', defaults)
    .option('--consumers <counts>', 'how many consumers, with commas between', numbers, [1, 4, 16, 64, 256])
    .parse(args, { from: 'user' })
    .opts<Options>();
}

function nameOf(batch: string, consumers: number): string {
  return `${batch}, ${consumers} ${consumers === 1 ? 'consumer' : 'consumers'}`;
}

function toMarkdown(results: ServerResults, { consumers, runs, seconds, warmUpSeconds }: Options): string {
  const most = Math.max(...consumers);
  const mostToBest = (of: Results): Comparison[] =>
    Object.keys(BATCHES).map((batch) => {
      const best =
        consumers.map((count) => nameOf(batch, count)).toSorted((a, b) => rate(of, b) - rate(of, a))[0] ?? '';
      return { label: `${nameOf(batch, most)}, to the best (${best})`, of: nameOf(batch, most), to: best };
    });
  return `The load is full lifecycles over HTTP on one queue, with ${PRODUCERS} producers and bodies of 200 bytes.
Figures are medians (lowest – highest) of ${runs} stretches of ${seconds} s after ${warmUpSeconds} s of warm-up. The numbers of
consumers run in rounds.

${rateTable(results)}

${ratioTable(results, mostToBest)}`;
}

function rate(of: Results, name: string): number {
  return of[name]?.median.perSecond ?? 0;
}
