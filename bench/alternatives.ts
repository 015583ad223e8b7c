import { measureDeadEntries, type DeadEntries } from './alternatives/dead-entries.js';
import {
  type Contention,
  type IdlePoll,
  type LockCost,
  measureContention,
  measureIdlePoll,
  measureLocks,
} from './alternatives/locking.js';
import { measureStorages, type StorageCost } from './alternatives/packs.js';
import { measureShapes, type ShapeCost } from './alternatives/shapes.js';
import {
  measurePacking,
  measureTransactions,
  type Packing,
  type TransactionCost,
} from './alternatives/transactions.js';
import type { MessageCost } from './alternatives/session.js';
import { type Figures, medians } from './harness/figures.js';
import { number, table } from './harness/markdown.js';
import { benchCommand, type BenchOptions, positive } from './harness/options.js';
import { makePartitions } from './harness/partitions.js';
import { publish } from './harness/publish.js';
import { type RunningServer, withEachServer } from './harness/rig.js';

interface Alternatives {
  storages: StorageCost[];
  shapes: ShapeCost[];
  transactions: TransactionCost[];
  packing: Packing[];
  deadEntries: DeadEntries[];
  idlePoll: IdlePoll[];
  locks: LockCost[];
  contention: Contention[];
}

interface Options extends BenchOptions {
  messages: number;
}

type Measured = Record<string, Alternatives>;

/**
 * Measures the storage design beside alternatives to it: tables, transactions, ids, claims, locks
 * (docs/storage.md). It works in this process, without brokers.
 */
export async function main(args: readonly string[]): Promise<void> {
  const defaults = { runs: 3, seconds: 3, json: 'alternatives' };
  const options = benchCommand('bench:alternatives', 'The storage design beside alternatives to it.', defaults)
    .option(
      '--messages <count>',
      'stored, dead or in a backlog where many are needed; a multiple of 400',
      positive,
      100_000,
    )
    .parse(args, { from: 'user' })
    .opts<Options>();
  const results: Measured = await withEachServer(options, (server) => measureServer(server, options));
  await publish({
    title: 'The storage design beside alternatives',
    script: 'bench:alternatives',
    args,
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
    storages: await step(
      'rows and packs',
      inRounds(runs, () => measureStorages(server, seconds)),
    ),
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
    idlePoll: await step('a poll of idle queues', measureIdlePoll(server, seconds)),
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

/** A row for each load, and a column for each storage. */
function storageTable(results: Measured, cell: (cost: MessageCost) => string): string {
  const loads = Object.entries(results).flatMap(([server, { storages }]) =>
    storages.map((load) => ({ server, ...load })),
  );
  return table(
    ['server', 'messages a transaction', 'body, B', ...Object.keys(loads[0]?.costs ?? {})],
    loads.map(({ server, messages, bodyBytes, costs }) => [
      server,
      number(messages, 0),
      number(bodyBytes, 0),
      ...Object.values(costs).map(cell),
    ]),
  );
}

function toMarkdown(results: Measured, { runs, seconds, messages }: Options): string {
  const rows = <T>(part: (of: Alternatives) => readonly T[], cells: (one: T) => string[]): string[][] =>
    Object.entries(results).flatMap(([server, of]) => part(of).map((one) => [server, ...cells(one)]));
  return `The benchmark's own process sends the SQL that a broker sends, on one connection unless a table says
otherwise. CPU is the server's. Stretches take ${seconds} s. Rows and packs, tables, sizes of
transactions, locks and several brokers are medians of ${runs} stretches.

**Rows and packs.** Enqueue, claim and ack, with one transaction each for so many messages. A pack
is one row with up to 32 messages or about 8 KB. With hand-off, an enqueue stores its messages
leased, and nothing is claimed. Acks come in batches of the same size, and each message is acked up
to one batch late. The server's CPU in µs a message:

${storageTable(results, ({ cpuMicros }) => number(cpuMicros))}

Bytes a message of redo / binlog:

${storageTable(results, ({ redo, binlog }) => `${number(redo, 0)} / ${number(binlog, 0)}`)}

**Tables.** Lifecycles in batches of 100, with one transaction each for enqueue, claim and ack.
Figures are per message:

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

**Sizes of transactions.** INSERT of a pack of one message and its delivery, 200 B, and COMMIT. Figures
are per message:

${table(
  ['server', 'messages a transaction', 'CPU µs of the server', 'redo, B', 'binlog, B'],
  rows(
    ({ transactions }) => transactions,
    ({ rows: size, cost }) => [number(size, 0), number(cost.cpuMicros), number(cost.redo, 0), number(cost.binlog, 0)],
  ),
)}

**Ids.** Bytes of leaf pages for a pack of one message of 200 B, in batches of 100:

${table(
  ['server', 'ids', 'bytes'],
  rows(
    ({ packing }) => packing,
    ({ how, bytes }) => [how, number(bytes, 0)],
  ),
)}

**Claims and dead entries.** A claim locks ten deliveries of the sixth priority, of 1,000 that are
ready, and rolls back. Figures are the server's CPU in µs a claim:

${table(
  [
    'server',
    'when',
    'ten priorities from the left edge',
    'ten priorities from their floors',
    'peek, then lock what was seen',
  ],
  rows(
    ({ deadEntries }) => deadEntries,
    ({ when, leftEdge, floors, peekThenLock }) => [
      when,
      number(leftEdge, 0),
      number(floors, 0),
      number(peekThenLock, 0),
    ],
  ),
)}

**\`delivery\` in partitions.** One poll of 50 idle queues with ten priorities; the server's CPU, µs:

${table(
  ['server', '`delivery`', 'µs'],
  rows(
    ({ idlePoll }) => idlePoll,
    ({ pieces, micros }) => [pieces, number(micros, 0)],
  ),
)}

**Locks without contention.** START TRANSACTION, the statement, ROLLBACK. Figures are the server's
CPU in µs:

${table(
  ['server', 'statement', 'without lock', 'with lock'],
  rows(
    ({ locks }) => locks,
    (one) => [one.what, number(one.without, 0), number(one.with, 0)],
  ),
)}

**Several brokers on one queue.** The backlog is ${number(2 * messages)}, and a claim takes up to 50. Each broker
has one claim and one ack in flight:

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
