import { type CostedStretch, measureCosts } from './harness/costs.js';
import type { IndexSize } from './harness/database-probe.js';
import { median, medians } from './harness/figures.js';
import { BrokerLoad } from './harness/broker-load.js';
import { BATCH_1, BATCH_10, BATCH_100, type LoadShape, PACED_200 } from './harness/load.js';
import { number, table } from './harness/markdown.js';
import { benchCommand, type BenchOptions } from './harness/options.js';
import { publish } from './harness/publish.js';
import { onEachServer, type Rig } from './harness/rig.js';
import { assertDepth } from './harness/scenario.js';
import { settle, workFor } from './harness/stretch.js';

/** Bytes of a stored message in each index. */
interface Footprint {
  bodyBytes: number;
  messages: number;
  perMessage: Record<string, number>;
}

interface ServerCosts {
  footprints: Footprint[];
  lifecycles: Record<string, CostedStretch[]>;
}

const BODIES = [200, 1000, 2000, 4096];
const LOADS: Record<string, LoadShape> = {
  'batch 1': BATCH_1,
  'batch 10': BATCH_10,
  'batch 100': BATCH_100,
  'batch 1, with keys': { ...BATCH_1, idempotencyKeys: true },
  'batch 10, with keys': { ...BATCH_10, idempotencyKeys: true },
  'batch 100, 1,000 B': { ...BATCH_100, bodyBytes: 1000 },
  'batch 100, 4 KiB': { ...BATCH_100, bodyBytes: 4096 },
};
/**
 * Single messages at a steady rate: such a message shares its transaction with few others, or with
 * none.
 */
const PACED: Record<string, LoadShape> = {
  '200 messages/s, one at a time': PACED_200,
  '1,000 messages/s, one at a time': { batch: 1, producers: { perSecond: 1000 }, consumers: 50, bodyBytes: 200 },
};

/**
 * Measures the costs of a message: bytes stored, bytes written, fsyncs, statements, CPU.
 * docs/capacity.md plans capacity from them.
 */
export async function main(args: readonly string[], rig?: Rig): Promise<void> {
  const defaults = { runs: 3, seconds: 4, json: 'cost' };
  const options = benchCommand('bench:cost', 'What a message costs: bytes, fsyncs, statements, CPU.', defaults)
    .parse(args, { from: 'user' })
    .opts<BenchOptions>();
  // Each part has servers of its own. A stored message takes less in pages with deleted rows, and
  // its pages would also be written during the lifecycles.
  const footprints = await onEachServer({ ...options, rig }, (on) => measureFootprints(on, options));
  const lifecycles = await onEachServer({ ...options, rig }, (on) => measureLifecycles(on, options));
  const results = Object.fromEntries(
    Object.entries(footprints).map(([server, of]) => [
      server,
      { footprints: of, lifecycles: lifecycles[server] ?? {} },
    ]),
  );
  await publish({
    title: 'What a message costs',
    script: 'bench:cost',
    args,
    options,
    results,
    markdown: toMarkdown(results, options),
  });
}

async function measureFootprints(rig: Rig, { seconds }: BenchOptions): Promise<Footprint[]> {
  const footprints: Footprint[] = [];
  for (const bodyBytes of BODIES) footprints.push(await measureFootprint(rig, bodyBytes, seconds));
  return footprints;
}

/**
 * Measures in rounds, so that a machine that drifts hurts all loads alike. One load before them
 * warms up the broker.
 */
async function measureLifecycles(rig: Rig, options: BenchOptions): Promise<ServerCosts['lifecycles']> {
  const lifecycles: Record<string, CostedStretch[]> = {};
  const keep = (name: string, stretch: CostedStretch): void => {
    lifecycles[name] = [...(lifecycles[name] ?? []), stretch];
    console.error(`  ${rig.database.name}, ${name}: ${Math.round(stretch.perSecond)}/s`);
  };
  await measureLoad(rig, options, BATCH_100);
  for (let run = 1; run <= options.runs; run += 1) {
    for (const [name, shape] of Object.entries({ ...LOADS, ...PACED })) {
      keep(name, await measureLoad(rig, options, shape));
    }
  }
  return lifecycles;
}

/** Enqueues for so long, in requests of a hundred, and measures how much the indexes have grown. */
async function measureFootprint(rig: Rig, bodyBytes: number, seconds: number): Promise<Footprint> {
  const broker = await rig.broker();
  const queues = await rig.newQueues(1);
  const sizes = (): Promise<IndexSize[]> => rig.database.probe.indexSizes(['pack', 'delivery']);
  const before = await sizes();
  const load = await BrokerLoad.start(broker.url, { ...BATCH_100, bodyBytes, queues }, 'produce');
  try {
    await workFor(load, seconds);
  } finally {
    await load.stop();
  }
  const messages = load.done();
  const after = await sizes();
  await assertDepth(rig, queues[0] as string, messages);
  const grown = after.map(({ table: name, index, leafBytes }) => {
    const known = before.find((size) => size.table === name && size.index === index);
    return [`${name}.${index}`, (leafBytes - (known?.leafBytes ?? 0)) / messages] as const;
  });
  return { bodyBytes, messages, perMessage: Object.fromEntries(grown) };
}

async function measureLoad(rig: Rig, options: BenchOptions, shape: LoadShape): Promise<CostedStretch> {
  await settle(rig);
  const broker = await rig.broker();
  const queues = await rig.newQueues(1);
  const stretch = await measureCosts(rig, broker, () => BrokerLoad.start(broker.url, { ...shape, queues }), options);
  await assertDepth(rig, queues[0] as string, 0);
  return stretch;
}

function toMarkdown(results: Record<string, ServerCosts>, { runs, seconds, warmUpSeconds }: BenchOptions): string {
  const indexes = ['pack.PRIMARY', 'delivery.PRIMARY', 'delivery.delivery_next'];
  const stored = Object.entries(results).flatMap(([server, { footprints }]) =>
    footprints.map(({ bodyBytes, messages, perMessage }) => [
      server,
      number(bodyBytes, 0),
      number(messages, 0),
      ...indexes.map((index) => number(perMessage[index] ?? Number.NaN, 0)),
      `**${number(
        indexes.reduce((sum, index) => sum + (perMessage[index] ?? Number.NaN), 0),
        0,
      )}**`,
    ]),
  );
  const rows = Object.entries(results).flatMap(([server, { lifecycles }]) =>
    Object.entries(lifecycles).map(([name, of]) => {
      const { perSecond, cpuMicros, written, costs } = medians(of);
      const rates = of.map((one) => one.perSecond);
      return { server, name, perSecond, cpuMicros, written, costs, rates };
    }),
  );
  const cpu = rows.map(({ server, name, rates, cpuMicros, written, costs }) => [
    server,
    name,
    `${number(median(rates), 0)} (${number(Math.min(...rates), 0)} – ${number(Math.max(...rates), 0)})`,
    number(cpuMicros.broker),
    number(cpuMicros.database),
    number(written.redo, 0),
    number(written.binlog, 0),
    number(costs.storageBytes, 0),
    number(costs.bytesReceived, 0),
    number(costs.bytesSent, 0),
  ]);
  const operations = rows.map(({ server, name, costs }) => [
    server,
    name,
    number(costs.statements, 2),
    number(costs.commits, 3),
    number(costs.redoFsyncs, 3),
    number(costs.binlogFsyncs, 3),
    number(costs.dataFsyncs, 3),
    number(costs.lockWaits, 4),
    number(costs.deadlocks, 4),
  ]);
  return `Space of a stored message, in bytes a message: whole leaf pages of each index, after the given
number of messages was enqueued in requests of 100 for ${seconds} s.

${table(['server', 'body, B', 'messages', ...indexes, 'together'], stored)}

The load is full lifecycles (enqueue, dequeue, ack) over HTTP, as in "Throughput and latency over
HTTP", and single messages at steady rates. Figures are per message, and medians of ${runs} stretches of
${seconds} s after ${warmUpSeconds} s of warm-up. The kernel counts the bytes to storage for the server's process. The
server counts the bytes that it receives from the broker and sends to it.

${table(
  [
    'server',
    'scenario',
    'messages/s',
    'CPU µs: broker',
    'database',
    'bytes: redo',
    'binlog',
    'to storage',
    'received by the database',
    'sent',
  ],
  cpu,
)}

Events per message. \`Innodb_data_fsyncs\` counts all fsyncs of InnoDB, including the redo log's. A
dash means that the server does not count the event.

${table(
  [
    'server',
    'scenario',
    'statements',
    'commits',
    'fsyncs: redo',
    'binlog',
    'Innodb_data_fsyncs',
    'lock waits',
    'deadlocks',
  ],
  operations,
)}`;
}
