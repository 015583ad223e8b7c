import { Command } from 'commander';
import { LIMITS } from '@rowmq/contract';
import { advised, CommandFailed, EXIT } from '../exit-codes.js';
import { examples } from '../examples.js';
import { addFilterOptions, filterOf } from '../filter-options.js';
import { followJob } from '../jobs.js';
import { Progress } from '../output/progress.js';
import { count, counted, pastTime, wholeNumber } from '../output/units.js';
import type { Open } from '../session.js';

/* Commands that bring messages back: from a dead-letter queue, or after they were settled. */

const jobRate = wholeNumber(LIMITS.jobRate.min, LIMITS.jobRate.max);
const replayRate = wholeNumber(LIMITS.replayRate.min, LIMITS.replayRate.max);

interface RedriveOptions {
  to?: string;
  perSecond?: number;
  max?: number;
  wait: boolean;
}

export function redriveCommand(open: Open): Command {
  const command = new Command('redrive')
    .description('Move messages of a dead-letter queue back to the queues that they left')
    .argument('<queue>', 'the queue that holds them now')
    .option('--to <queue>', 'move all to this queue instead')
    .option('--per-second <n>', 'the most messages a second', jobRate)
    .option('--max <n>', 'the most messages in all', wholeNumber(1, 1_000_000_000))
    .option('--no-wait', 'do not wait for the end of the job')
    .action(async (queue: string, options: RedriveOptions) => {
      const session = open();
      const job = await session.client.redrive(queue, {
        filter: filterOf(options),
        ...(options.to !== undefined && { toQueue: options.to }),
        ...(options.perSecond !== undefined && { messagesPerSecond: options.perSecond }),
        ...(options.max !== undefined && { maxMessages: options.max }),
      });
      await followJob(session, job, options.wait);
    });
  addFilterOptions(command);
  examples(command, [
    ['rowmq redrive orders-dead', 'all, each to its queue'],
    ['rowmq redrive orders-dead --source orders --reason timeout --per-second 200', 'some, slowly'],
    ['rowmq redrive orders-dead --moved-from 2h --to orders-later', 'those of the last two hours, to another queue'],
  ]);
  return command;
}

interface ReplayOptions {
  from: string;
  to?: string;
  toQueue?: string;
  perSecond?: number;
  cursor?: string;
}

export function replayCommand(open: Open): Command {
  const command = new Command('replay')
    .description('Enqueue copies of settled messages of a time range, as long as they are stored')
    .argument('<queue>')
    .requiredOption('--from <time>', 'enqueued from this time on, or how long ago', (text: string) => pastTime(text))
    .option('--to <time>', 'enqueued before this time, or how long ago; now when absent', (text: string) =>
      pastTime(text),
    )
    .option('--to-queue <queue>', 'the queue that gets the copies; this one when absent')
    .option('--per-second <n>', 'the most messages a second', replayRate)
    .option('--cursor <cursor>', 'go on where an earlier replay stopped')
    .action(
      async (queue: string, { from, to = new Date().toISOString(), toQueue, perSecond, cursor }: ReplayOptions) => {
        const { client, out, onInterrupt } = bound(open);
        const interrupted = onInterrupt();
        const request = {
          from,
          to,
          ...(toQueue !== undefined && { toQueue }),
          ...(perSecond !== undefined && { messagesPerSecond: perSecond }),
        };
        const progress = new Progress(out, 'replay', null);
        let next: string | null | undefined = cursor;
        let replayed = 0;
        let owed = 0;
        try {
          for (let isComplete = false; !isComplete && !interrupted.aborted;) {
            const answer = await client.replay(queue, { ...request, ...(next && { cursor: next }) });
            replayed += answer.replayed;
            owed += answer.owed;
            next = answer.cursor;
            isComplete = answer.complete;
            progress.show(replayed);
          }
        } catch (error) {
          progress.end();
          if (replayed === 0) throw error;
          throw advised(error, `${count(replayed)} messages were replayed. Go on with: ${goOn(queue, from, to, next)}`);
        } finally {
          progress.end();
        }
        const isStopped = interrupted.aborted && next !== null && next !== undefined;
        out.data({ replayed, owed, complete: !isStopped, cursor: isStopped ? next : null }, () =>
          [
            `${queue}: ${counted(replayed)} replayed.`,
            ...(owed > 0 ? [`${count(owed)} were left out, because a queue still owes them.`] : []),
          ].join(' '),
        );
        if (isStopped) throw new CommandFailed(`Stopped. Go on with: ${goOn(queue, from, to, next)}`, EXIT.interrupted);
      },
    );
  examples(command, [
    ['rowmq replay orders --from 2h --to 1h', 'what was enqueued between two hours and one hour ago'],
    [
      'rowmq replay orders --from 2026-11-22T18:00:00Z --to 2026-11-22T19:00:00Z --to-queue orders-again',
      'to another queue',
    ],
  ]);
  return command;
}

const goOn = (queue: string, from: string, to: string, cursor: string | null | undefined): string =>
  `rowmq replay ${queue} --from ${from} --to ${to}${cursor ? ` --cursor ${cursor}` : ''}`;

function bound(open: Open) {
  const session = open();
  return { client: session.client, out: session.out, onInterrupt: () => session.onInterrupt() };
}
