import { Command } from 'commander';
import { LIMITS, type MessageFilter, type QueueAnswer } from '@rowmq/contract';
import { examples } from '../examples.js';
import { UsageError } from '../exit-codes.js';
import { addFilterOptions, filterOf } from '../filter-options.js';
import { followJob } from '../jobs.js';
import { count, wholeNumber } from '../output/units.js';
import type { Open, Session } from '../session.js';
import { messageText } from './message.js';
import { printMessages } from './peek.js';
import { queueColumns } from './queue-table.js';

const QUEUE = 'a dead-letter queue, or the queue whose dead letters are meant';

export function deadCommand(open: Open): Command {
  return new Command('dead')
    .description('Find, read, redrive and drop dead letters')
    .addCommand(list(open))
    .addCommand(show(open))
    .addCommand(redrive(open))
    .addCommand(drop(open));
}

function list(open: Open): Command {
  const command = new Command('list')
    .alias('ls')
    .description('List dead-letter queues, or the dead letters of a queue')
    .argument('[queue]', QUEUE)
    .option('-n, --limit <n>', 'at most so many messages', wholeNumber(1, 100_000), 20)
    .option('--full', 'print each message with headers, moves and body')
    .action(async (queue: string | undefined, options: { limit: number; full?: true }) => {
      const session = open();
      if (queue === undefined) return listQueues(session);
      const place = await placeOf(session, queue, filterOf(options));
      await printMessages(session, place.queue, place.filter, options.limit, options.full === true);
    });
  addFilterOptions(command);
  examples(command, [
    ['rowmq dead list', 'which queues hold dead letters'],
    ['rowmq dead list orders --reason timeout', 'dead letters that left the queue orders'],
    ['rowmq dead list orders-dead --moved-from 1h --full', 'those of the last hour, in full'],
  ]);
  return command;
}

async function listQueues({ client, out }: Session): Promise<void> {
  const { queues } = await client.listQueues();
  const sources = new Map<string, string[]>();
  for (const { name, deadLetterQueue } of queues)
    if (deadLetterQueue !== null) sources.set(deadLetterQueue, [...(sources.get(deadLetterQueue) ?? []), name]);
  const rows = queues
    .filter(({ name }) => sources.has(name))
    .map((queue) => ({ ...queue, sources: sources.get(queue.name) ?? [] }));
  const columns = queueColumns(out).filter(({ title }) => ['QUEUE', 'READY', 'LEASED', 'OLDEST'].includes(title));
  out.data(rows, () =>
    rows.length === 0
      ? 'No queue has a dead-letter queue. Set one: rowmq queue set <queue> --dead-letter-queue <queue> --max-receives 5'
      : out.table<QueueAnswer & { sources: string[] }>(
          [...columns, { title: 'FROM', of: (row) => row.sources.join(', '), wide: true }],
          rows,
        ),
  );
}

function show(open: Open): Command {
  const command = new Command('show')
    .description('Show a dead letter: where it comes from, why it failed, headers and body')
    .argument('<message>', 'the id')
    .action(async (id: string) => {
      const { client, out } = open();
      out.data(await client.getMessage(id), (message) => messageText(out, message));
    });
  examples(command, [['rowmq dead show 019a0b5d-ac96-774b-8cce-b302099a8057', 'why it failed, and what it says']]);
  return command;
}

interface JobOptions {
  to?: string;
  perSecond?: number;
  max?: number;
  yes?: true;
  wait: boolean;
}

function jobCommand(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .argument('<queue>', QUEUE)
    .option('--per-second <n>', 'the most messages a second', wholeNumber(LIMITS.jobRate.min, LIMITS.jobRate.max))
    .option('--max <n>', 'the most messages in all', wholeNumber(1, 1_000_000_000))
    .option('--no-wait', 'do not wait for the end of the job');
}

const boundsOf = ({ perSecond, max }: JobOptions): { messagesPerSecond?: number; maxMessages?: number } => ({
  ...(perSecond !== undefined && { messagesPerSecond: perSecond }),
  ...(max !== undefined && { maxMessages: max }),
});

function redrive(open: Open): Command {
  const command = jobCommand('redrive', 'Move dead letters back to the queues that they left')
    .option('--to <queue>', 'move all to this queue instead')
    .action(async (name: string, options: JobOptions) => {
      const session = open();
      const { queue, filter } = await placeOf(session, name, filterOf(options));
      const target = options.to === undefined ? {} : { toQueue: options.to };
      await followJob(
        session,
        await session.client.redrive(queue, { filter, ...target, ...boundsOf(options) }),
        options.wait,
      );
    });
  addFilterOptions(command);
  examples(command, [
    ['rowmq dead redrive orders', 'all dead letters of the queue orders'],
    ['rowmq dead redrive orders --reason timeout --per-second 200', 'some, slowly'],
  ]);
  return command;
}

function drop(open: Open): Command {
  const command = jobCommand('drop', 'Settle dead letters. Nothing brings them back')
    .option('-y, --yes', 'do not ask')
    .action(async (name: string, options: JobOptions) => {
      const session = open();
      const { queue, filter } = await placeOf(session, name, filterOf(options));
      const { stats } = await session.client.getQueue(queue);
      const which =
        Object.keys(filter).length === 0
          ? `all ${count(stats.ready + stats.delayed + stats.waiting)} messages of ${queue}`
          : `the messages of ${queue} that match`;
      await session.confirm('queue', queue, `This drops ${which} for good.`, options.yes);
      await followJob(session, await session.client.drop(queue, { filter, ...boundsOf(options) }), options.wait);
    });
  addFilterOptions(command);
  examples(command, [
    ['rowmq dead drop orders-dead --header event=test', 'some, after a question'],
    ['rowmq dead drop orders --moved-to 7d --yes --json', 'those that died a week ago or earlier, in a script'],
  ]);
  return command;
}

/**
 * The queue that holds the dead letters, and those that are meant. For a queue with a dead-letter
 * queue these are the messages that left it.
 *
 * Throws {@link UsageError} for a queue that has no dead-letter queue and is none: its messages are
 * alive.
 */
async function placeOf(
  { client }: Session,
  name: string,
  filter: MessageFilter,
): Promise<{ queue: string; filter: MessageFilter }> {
  const { deadLetterQueue } = await client.getQueue(name);
  if (deadLetterQueue !== null) return { queue: deadLetterQueue, filter: { source: name, ...filter } };
  const { queues } = await client.listQueues();
  if (queues.some((queue) => queue.deadLetterQueue === name)) return { queue: name, filter };
  throw new UsageError(
    `Queue '${name}' has no dead-letter queue, and is the dead-letter queue of no other, so its messages are no dead letters. Look at them with rowmq peek; rowmq queue redrive and rowmq queue purge work on any queue.`,
  );
}
