import { Command } from 'commander';
import { jobState, type JobAnswer } from '@rowmq/contract';
import { UsageError } from '../exit-codes.js';
import { examples } from '../examples.js';
import { followJob } from '../jobs.js';
import type { Output } from '../output/output.js';
import { ago, wholeNumber } from '../output/units.js';
import type { Open } from '../session.js';

const ID = '019a0b5d-ac96-774b-8cce-b302099a8057';

export function jobCommand(open: Open): Command {
  return new Command('job')
    .description('See and cancel redrives, drops and purges')
    .addCommand(list(open))
    .addCommand(show(open))
    .addCommand(wait(open))
    .addCommand(cancel(open));
}

function list(open: Open): Command {
  const command = new Command('list')
    .alias('ls')
    .description('List jobs, newest first')
    .option('--queue <queue>', 'only jobs of this queue')
    .option('--state <state>', `only ${jobState.options.join(', ')}`)
    .option('-n, --limit <n>', 'at most so many', wholeNumber(1, 100), 20)
    .action(async ({ queue, state, limit }: { queue?: string; state?: string; limit: number }) => {
      const { client, out } = open();
      const wanted = jobState.options.find((one) => one === state);
      if (state !== undefined && wanted === undefined)
        throw new UsageError(`'${state}' is no state. Choose ${jobState.options.join(', ')}.`);
      const { jobs } = await client.listJobs({
        limit,
        ...(queue !== undefined && { queue }),
        ...(wanted && { state: wanted }),
      });
      out.data(jobs, (rows) => (rows.length === 0 ? 'No jobs.' : table(out, rows)));
    });
  examples(command, [
    ['rowmq job list', 'the last jobs'],
    ['rowmq job list --state running', 'what runs now'],
  ]);
  return command;
}

function table(out: Output, jobs: JobAnswer[]): string {
  return out.table(
    [
      { title: 'JOB', of: ({ id }) => id },
      { title: 'KIND', of: ({ kind }) => kind },
      { title: 'QUEUE', of: ({ queue }) => queue },
      { title: 'STATE', of: ({ state }) => state, paint: (text) => (text === 'failed' ? out.paint.red(text) : text) },
      { title: 'DONE', of: ({ done }) => done, right: true },
      { title: 'LEFT', of: ({ skipped }) => skipped, right: true },
      { title: 'BEGUN', of: ({ createdAt }) => ago(createdAt) },
      { title: 'ERROR', of: ({ error }) => error, wide: true },
    ],
    jobs,
  );
}

function show(open: Open): Command {
  const command = new Command('show')
    .description('Show a job and its progress')
    .argument('<job>', 'the id')
    .action(async (id: string) => {
      const { client, out } = open();
      out.data(await client.getJob(id), (job) => table(out, [job]));
    });
  examples(command, [[`rowmq job show ${ID}`, 'how far it is']]);
  return command;
}

function wait(open: Open): Command {
  const command = new Command('wait')
    .description('Wait for the end of a job')
    .argument('<job>', 'the id')
    .action(async (id: string) => {
      const session = open();
      await followJob(session, await session.client.getJob(id), true);
    });
  examples(command, [[`rowmq job wait ${ID}`, 'with a progress bar']]);
  return command;
}

function cancel(open: Open): Command {
  const command = new Command('cancel')
    .description('Cancel a job. What it has done stays done')
    .argument('<job>', 'the id')
    .action(async (id: string) => {
      const { client, out } = open();
      out.data(await client.cancelJob(id), (job) => table(out, [job]));
    });
  examples(command, [[`rowmq job cancel ${ID}`, 'it handles no further message']]);
  return command;
}
