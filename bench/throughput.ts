import { BATCH_1, BATCH_10, BATCH_100, type ClosedShape, PACED_200 } from './harness/load.js';
import { benchCommand, type BenchOptions, collect } from './harness/options.js';
import { BrokerLoad } from './harness/broker-load.js';
import { publish } from './harness/publish.js';
import { onEachServer, type Rig } from './harness/rig.js';
import {
  enqueueThenDrain,
  interleave,
  lifecycles,
  measureAndStop,
  publishOnly,
  type Scenario,
  selected,
} from './harness/scenario.js';
import { throughputMarkdown } from './throughput-markdown.js';

interface Options extends BenchOptions {
  only: string[];
}

const FULL_BODY = { bodyBytes: 4096 };
/** Bodies of so many KiB, and a broker that takes them. */
const large = (name: string, shape: ClosedShape, kibibytes: number): Scenario =>
  lifecycles(
    `${name}, ${kibibytes} KiB`,
    { ...shape, bodyBytes: kibibytes * 1024 },
    { brokerEnv: { ROWMQ_MAX_BODY_BYTES: String(kibibytes * 1024) } },
  );
const ONE_COMMIT_PER_REQUEST = { brokerEnv: { ROWMQ_BATCH_REQUESTS: '1' } };

/**
 * Scenarios that are compared stand side by side, so that one is measured right after the other.
 */
const SCENARIOS: readonly Scenario[] = [
  lifecycles('batch 1', BATCH_1),
  lifecycles('batch 1, one commit per request', BATCH_1, ONE_COMMIT_PER_REQUEST),
  lifecycles('batch 1, 16 queues', BATCH_1, { queues: 16 }),
  lifecycles('batch 1, ten priorities', { ...BATCH_1, priorities: 10 }),
  lifecycles('batch 10', BATCH_10),
  lifecycles('batch 10, 1,000 groups in order', { ...BATCH_10, groups: 1000 }),
  lifecycles('batch 10, 16 queues', BATCH_10, { queues: 16 }),
  lifecycles('batch 10, ten priorities', { ...BATCH_10, priorities: 10 }),
  lifecycles('batch 100', BATCH_100),
  lifecycles('batch 1, 4 KiB', { ...BATCH_1, ...FULL_BODY }),
  lifecycles('batch 10, 4 KiB', { ...BATCH_10, ...FULL_BODY }),
  lifecycles('batch 100, 4 KiB', { ...BATCH_100, ...FULL_BODY }),
  large('batch 1', BATCH_1, 16),
  large('batch 1', BATCH_1, 64),
  large('batch 1', BATCH_1, 256),
  large('batch 10', BATCH_10, 16),
  large('batch 10', BATCH_10, 64),
  large('batch 10', BATCH_10, 256),
  enqueueThenDrain('batch 1', BATCH_1),
  enqueueThenDrain('batch 10', BATCH_10),
  publishOnly('batch 10: publish to 10 subscribers', BATCH_10, 10),
  enqueueThenDrain('batch 100', BATCH_100),
  enqueueThenDrain('batch 100, 4 KiB', { ...BATCH_100, ...FULL_BODY }),
  paced('200 messages/s'),
];

/** Rates, latencies and costs of messages over HTTP. */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const options = readOptions(args);
  const scenarios = selected(SCENARIOS, options.only);
  const results = await onEachServer({ ...options, rig }, (on) => interleave(on, scenarios, options.runs, options));
  await publish({
    title: 'Throughput and latency over HTTP',
    script: 'bench',
    args,
    options,
    results,
    markdown: throughputMarkdown(results, options),
  });
}

function readOptions(args: readonly string[]): Options {
  const defaults = { runs: 3, seconds: 4, json: 'throughput' };
  return benchCommand('bench', 'Rates, latencies and costs of messages over HTTP.', defaults)
    .option('--only <name>', 'a scenario, or all with this in their names; may be repeated', collect, [])
    .addHelpText('after', `\nScenarios:\n${SCENARIOS.map(({ name }) => `  ${name}`).join('\n')}`)
    .parse(args, { from: 'user' })
    .opts<Options>();
}

/** Single messages at a steady rate to consumers that wait on the same broker. */
function paced(name: string): Scenario {
  return {
    name,
    run: async (rig, timing) => {
      const broker = await rig.broker();
      const load = await BrokerLoad.start(broker.url, { ...PACED_200, queues: await rig.newQueues(1) });
      return { [name]: await measureAndStop(rig, broker, load, timing) };
    },
  };
}
