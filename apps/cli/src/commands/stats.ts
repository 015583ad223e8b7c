import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import type { QueueAnswer } from '@rowmq/contract';
import { codeOf, UsageError } from '../exit-codes.js';
import { examples } from '../examples.js';
import type { createLogUpdate } from 'log-update';
import type { Column, Output } from '../output/output.js';
import { spark } from '../output/spark.js';
import { count, counted, durationSeconds } from '../output/units.js';
import type { Open, Session } from '../session.js';
import { matchesGlob, minute, queueColumns, sortQueues, SORTS } from './queue-table.js';

type LogUpdate = ReturnType<typeof createLogUpdate>;

/** Values that a sparkline shows. */
const SAMPLES = 20;

export function statsCommand(open: Open): Command {
  const command = new Command('stats')
    .description('Show depth and rates of all queues, or of some')
    .argument('[patterns...]', 'names, or patterns such as "orders.*"')
    .option('-w, --watch', 'go on until Ctrl-C, as a live table or as a stream of JSON')
    .option('-i, --interval <duration>', 'between two looks', durationSeconds, 2)
    .option('--sort <column>', `sort by ${SORTS.join(', ')}`, 'ready')
    .action(async (patterns: string[], { watch, interval, sort }: { watch?: true; interval: number; sort: string }) => {
      const session = open();
      if (interval < 0.2) throw new UsageError('The shortest interval is 0.2 seconds.');
      const look = async (): Promise<QueueAnswer[]> => {
        const { queues } = await session.client.listQueues();
        const wanted = queues.filter(
          ({ name }) => patterns.length === 0 || patterns.some((one) => matchesGlob(name, one)),
        );
        return sortQueues(wanted, sort);
      };
      if (watch === true) await watchQueues(session, look, interval);
      else printOnce(session, await look());
    });
  examples(command, [
    ['rowmq stats', 'all queues once, the deepest first'],
    ['rowmq stats --watch', 'a live table'],
    ['rowmq stats "orders*" --watch --interval 5 --json', 'a line of JSON every five seconds'],
  ]);
  return command;
}

function printOnce({ out }: Session, queues: QueueAnswer[]): void {
  out.data({ at: new Date().toISOString(), queues }, () =>
    queues.length === 0 ? 'No queues.' : `${out.table(queueColumns(out), queues)}\n${totals(queues)}`,
  );
}

function totals(queues: readonly QueueAnswer[]): string {
  const sum = (of: (queue: QueueAnswer) => number): string =>
    count(queues.reduce((total, queue) => total + of(queue), 0));
  return `${counted(queues.length, 'queue')}: ${sum(({ stats }) => stats.ready)} ready, ${sum(({ stats }) => stats.leased)} leased.`;
}

/** Looks again and again. A broker that is away for a while only leaves a gap. */
async function watchQueues(session: Session, look: () => Promise<QueueAnswer[]>, interval: number): Promise<void> {
  const { out } = session;
  const interrupted = session.onInterrupt();
  const history = new Map<string, { ready: number[]; in: number[] }>();
  const columns: Column<QueueAnswer>[] = [
    ...queueColumns(out),
    {
      title: 'READY, LATELY',
      of: ({ name }) => spark(history.get(name)?.ready ?? []),
      paint: (text) => out.paint.cyan(text),
    },
    {
      title: 'IN/S, LATELY',
      of: ({ name }) => spark(history.get(name)?.in ?? []),
      paint: (text) => out.paint.cyan(text),
    },
  ];
  const live = out.isTerminal && !out.json ? await liveText(out) : undefined;
  try {
    while (!interrupted.aborted) {
      const queues = await Promise.race([look().catch((error: unknown) => error as Error), untilAborted(interrupted)]);
      if (queues === undefined) break;
      if (queues instanceof Error) {
        if (live === undefined) out.failure(codeOf(queues), queues.message);
        else live(out.paint.red(`${new Date().toLocaleTimeString()}  ${queues.message}`));
      } else {
        remember(history, queues);
        if (out.json) out.item({ at: new Date().toISOString(), queues }, () => '');
        else if (live === undefined) out.line(`${out.table(columns, queues)}\n`);
        else live(screen(session, columns, queues));
      }
      await sleep(interval * 1000, undefined, { signal: interrupted }).catch(() => undefined);
    }
  } finally {
    live?.done();
  }
}

/** Loaded here only, because it takes a tenth of the time in which other commands start. */
async function liveText({ stdout }: Output): Promise<LogUpdate> {
  const { createLogUpdate } = await import('log-update');
  return createLogUpdate(stdout as NodeJS.WriteStream);
}

async function untilAborted(signal: AbortSignal): Promise<undefined> {
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
}

function remember(history: Map<string, { ready: number[]; in: number[] }>, queues: readonly QueueAnswer[]): void {
  const present = new Set(queues.map(({ name }) => name));
  for (const name of history.keys()) if (!present.has(name)) history.delete(name);
  for (const queue of queues) {
    const samples = history.get(queue.name) ?? { ready: [], in: [] };
    samples.ready = [...samples.ready, queue.stats.ready].slice(-SAMPLES);
    samples.in = [...samples.in, minute(queue).in].slice(-SAMPLES);
    history.set(queue.name, samples);
  }
}

/** As many queues as the terminal has lines for. */
function screen({ out }: Session, columns: Column<QueueAnswer>[], queues: QueueAnswer[]): string {
  const room = Math.max(1, (out.stdout.rows ?? 24) - 4);
  const hidden = queues.length - room;
  const table = queues.length === 0 ? 'No queues.' : out.table(columns, queues.slice(0, room));
  const more = hidden > 0 ? `\n… and ${count(hidden)} more` : '';
  return `${table}${more}\n${out.paint.dim(`${totals(queues)}  ${new Date().toLocaleTimeString()}  Ctrl-C ends.`)}`;
}
