import { measureDeadEntries, type DeadEntries } from './alternatives/dead-entries.js';
import {
  type Contention,
  type IdleLook,
  type LockCost,
  measureContention,
  measureIdleLook,
  measureLocks,
} from './alternatives/locking.js';
import { measureShapes, type ShapeCost } from './alternatives/shapes.js';
import {
  measurePacking,
  measureTransactions,
  type Packing,
  type TransactionCost,
} from './alternatives/transactions.js';
import { type Figures, medians } from './harness/figures.js';
import { number, table } from './harness/markdown.js';
import { benchCommand, type BenchOptions, positive } from './harness/options.js';
import { makePartitions } from './harness/partitions.js';
import { publish } from './harness/publish.js';
import { type RunningServer, withServer } from './harness/rig.js';

interface Alternatives {
  shapes: ShapeCost[];
  transactions: TransactionCost[];
  packing: Packing[];
  deadEntries: DeadEntries[];
  idleLook: IdleLook[];
  locks: LockCost[];
  contention: Contention[];
}

interface Options extends BenchOptions {
  messages: number;
}

type Measured = Record<string, Alternatives>;

/**
 * Measures the storage design beside alternatives to it: tables, transactions, ids, claims, locks
 * (docs/DESIGN.md). It works in this process, without brokers.
 */
export async function main(): Promise<void> {
  const defaults = { runs: 3, seconds: 3, json: 'alternatives' };
  const options = benchCommand('bench:alternatives', 'The storage design beside alternatives to it.', defaults)
    .option(
      '--messages <count>',
      'stored, dead or in a backlog where many are needed; a multiple of 400',
      positive,
      100_000,
    )
    .parse()
    .opts<Options>();
  const results: Measured = {};
  for (const kind of options.servers) {
    await withServer(kind, options, async (server) => {
      results[server.name] = await measureServer(server, options);
    });
  }
  await publish({
    title: 'The storage design beside alternatives',
    script: 'bench:alternatives',
    options,
    results,
    markdown: toMarkdown(results, options),
  });
}

async function measureServer(server: RunningServer, { runs, seconds, messages }: Options): Promise<Alternatives> {
  await makePartitions(server.url);
  const step = async <T>(name: string, work: Promise<T>): Promise<T> => {
    const result = await work;
    console.error(`  ${server.name}: ${name}`);
    return result;
  };
  return {
    shapes: await step(
      'tables',
      inRounds(runs, () => measureShapes(server, seconds)),
    ),
    transactions: await step(
      'sizes of transactions',
      inRounds(runs, () => measureTransactions(server, seconds)),
    ),
    packing: await step('ids', measurePacking(server, messages)),
    deadEntries: await step('dead entries', measureDeadEntries(server, seconds, messages)),
    idleLook: await step('a look at idle queues', measureIdleLook(server, seconds)),
    locks: await step(
      'locks',
      inRounds(runs, () => measureLocks(server, seconds)),
    ),
    contention: await step(
      'several brokers',
      inRounds(runs, () => measureContention(server, seconds, 2 * messages)),
    ),
  };
}

/**
 * Measures everything `runs` times, in rounds, so that a machine that drifts hurts every
 * alternative alike. Returns the median of each figure.
 */
async function inRounds<T extends Figures>(runs: number, measure: () => Promise<readonly T[]>): Promise<T[]> {
  const rounds: (readonly T[])[] = [];
  for (let run = 1; run <= runs; run += 1) rounds.push(await measure());
  return (rounds[0] ?? []).map((_, index) => medians(rounds.map((round) => round[index] as T)));
}

function toMarkdown(results: Measured, { runs, seconds, messages }: Options): string {
  const rows = <T>(part: (of: Alternatives) => readonly T[], cells: (one: T) => string[]): string[][] =>
    Object.entries(results).flatMap(([server, of]) => part(of).map((one) => [server, ...cells(one)]));
  return `SQL as a broker sends it, from this process, on one connection unless said otherwise; the server's CPU, stretches of ${seconds} s; tables, sizes of transactions, locks and several brokers are medians of ${runs}.

**Tables.** Lifecycles in flights of 100, one transaction each for enqueue, claim and ack; per message:

${table(
  ['server', 'tables', 'body, B', 'CPU µs of the server', 'redo, B', 'binlog, B'],
  rows(
    ({ shapes }) => shapes,
    ({ shape, bodyBytes, cost }) => [
      shape,
      number(bodyBytes, 0),
      number(cost.cpuMicros),
      number(cost.redo, 0),
      number(cost.binlog, 0),
    ],
  ),
)}

**Sizes of transactions.** INSERT into \`message\` and \`delivery\`, 200 B, and COMMIT; per message:

${table(
  ['server', 'messages a transaction', 'CPU µs of the server', 'redo, B', 'binlog, B'],
  rows(
    ({ transactions }) => transactions,
    ({ rows: size, cost }) => [number(size, 0), number(cost.cpuMicros), number(cost.redo, 0), number(cost.binlog, 0)],
  ),
)}

**Ids.** Leaf bytes a message of 200 B takes in \`message\`, flights of 100:

${table(
  ['server', 'ids', 'bytes'],
  rows(
    ({ packing }) => packing,
    ({ how, bytes }) => [how, number(bytes, 0)],
  ),
)}

**Claims and dead entries.** Ten deliveries of the sixth priority, 1,000 ready, locked and rolled back; the server's CPU, µs a claim:

${table(
  [
    'server',
    'when',
    'ten priorities from the left edge',
    'ten priorities from their floors',
    'look, then lock what was seen',
  ],
  rows(
    ({ deadEntries }) => deadEntries,
    ({ when, leftEdge, floors, lookThenLock }) => [
      when,
      number(leftEdge, 0),
      number(floors, 0),
      number(lookThenLock, 0),
    ],
  ),
)}

**\`delivery\` in partitions.** One look at 50 idle queues, ten priorities; the server's CPU, µs:

${table(
  ['server', '`delivery`', 'µs'],
  rows(
    ({ idleLook }) => idleLook,
    ({ pieces, micros }) => [pieces, number(micros, 0)],
  ),
)}

**Locks without contention.** START TRANSACTION, the statement, ROLLBACK; the server's CPU, µs:

${table(
  ['server', 'statement', 'without lock', 'with lock'],
  rows(
    ({ locks }) => locks,
    (one) => [one.what, number(one.without, 0), number(one.with, 0)],
  ),
)}

**Several brokers on one queue.** A backlog of ${number(2 * messages)}, claims of up to 50; each broker has one claim and one ack under way:

${table(
  [
    'server',
    'brokers',
    'acked/s',
    "server's CPU µs a message",
    'claims',
    'deliveries a claim',
    'lock waits',
    'deadlocks',
  ],
  rows(
    ({ contention }) => contention,
    (one) => [
      String(one.brokers),
      number(one.perSecond, 0),
      number(one.cpuMicros),
      number(one.claims, 0),
      number(one.claimed),
      String(one.lockWaits),
      String(one.deadlocks),
    ],
  ),
)}`;
}
