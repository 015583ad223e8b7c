import { Command } from 'commander';
import { putQueueRequest, queueSettings, type PutQueueRequest, type QueueAnswer } from '@rowmq/contract';
import { CommandFailed, EXIT } from '../exit-codes.js';
import { examples } from '../examples.js';
import { followJob } from '../jobs.js';
import type { Output } from '../output/output.js';
import { spark } from '../output/spark.js';
import { age, ago, count, counted, rate, wholeSeconds } from '../output/units.js';
import { addFieldOptions, checked, fieldsOf } from '../schema-options.js';
import type { Open } from '../session.js';
import { redriveCommand, replayCommand } from './move.js';
import { matchesGlob, queueColumns, sortQueues, SORTS } from './queue-table.js';

const settings = queueSettings.shape;
const { ordering: _fixed, ...changeable } = settings;

export function queueCommand(open: Open): Command {
  const queue = new Command('queue').description('Create, change, watch and empty queues');
  queue.addCommand(list(open));
  queue.addCommand(show(open));
  queue.addCommand(create(open));
  queue.addCommand(set(open));
  queue.addCommand(remove(open));
  queue.addCommand(purge(open));
  queue.addCommand(pause(open));
  queue.addCommand(resume(open));
  queue.addCommand(consumers(open));
  queue.addCommand(redriveCommand(open));
  queue.addCommand(replayCommand(open));
  return queue;
}

function list(open: Open): Command {
  const command = new Command('list')
    .alias('ls')
    .description('List queues with their depth and rates')
    .argument('[pattern]', 'only names that match, such as "orders.*"')
    .option('--sort <column>', `sort by ${SORTS.join(', ')}`, 'name')
    .action(async (pattern: string | undefined, { sort }: { sort: string }) => {
      const { client, out } = open();
      const { queues } = await client.listQueues();
      const shown = sortQueues(queues, sort).filter(({ name }) => pattern === undefined || matchesGlob(name, pattern));
      out.data(shown, (rows) => (rows.length === 0 ? 'No queues.' : out.table(queueColumns(out), rows)));
    });
  examples(command, [
    ['rowmq queue list', 'every queue'],
    ['rowmq queue list "orders.*" --sort age', 'some queues, those that wait longest first'],
    ['rowmq queue list --json', 'for scripts'],
  ]);
  return command;
}

const HISTORY_MINUTES = 60;

function show(open: Open): Command {
  const command = new Command('show')
    .description('Show a queue: settings, depth, and what happened in the last hour')
    .argument('<queue>')
    .action(async (name: string) => {
      const { client, out } = open();
      const queue = await client.getQueue(name);
      if (out.json) {
        out.data(queue, () => '');
        return;
      }
      const { minutes } = await client.getHistory(name, { minutes: HISTORY_MINUTES });
      out.line(queueText(out, queue));
      const line = (title: string, values: (number | null)[]): void =>
        out.line(
          `${out.paint.bold(title.padEnd(9))} ${spark(values)}  ${count(Math.max(0, ...values.map((value) => value ?? 0)))} at most`,
        );
      if (minutes.length === 0) return;
      out.line(`\nThe last ${counted(minutes.length, 'minute')} in which something happened:`);
      line(
        'enqueued',
        minutes.map(({ enqueued }) => enqueued),
      );
      line(
        'acked',
        minutes.map(({ acked }) => acked),
      );
      line(
        'failed',
        minutes.map(({ nacked, deadLettered }) => nacked + deadLettered),
      );
      line(
        'ready',
        minutes.map(({ ready }) => ready),
      );
    });
  examples(command, [
    ['rowmq queue show orders', 'settings, depth, the last hour'],
    ['rowmq queue show orders --json', 'the same for scripts, without the last hour'],
  ]);
  return command;
}

function queueText(out: Output, queue: QueueAnswer): string {
  const { stats, rates } = queue;
  const last = rates.find(({ minutes }) => minutes === 1);
  return out.fields([
    ['queue', queue.name],
    ['created', ago(queue.createdAt)],
    ['consumers', queue.paused ? 'paused' : 'running'],
    ['producers', queue.producersPaused ? 'paused' : 'running'],
    ['ready', stats.ready],
    ['delayed', stats.delayed],
    ['leased', stats.leased],
    ['waiting', queue.ordering === null ? undefined : stats.waiting],
    ['oldest ready', age(stats.oldestReadyAgeSeconds)],
    ['in, last minute', last && `${rate(last.in)}/s`],
    ['out, last minute', last && `${rate(last.out)}/s`],
    ['failed, last minute', last && `${rate(last.failed)}/s`],
    ...Object.keys(settings).map((field): [string, string] => [field, settingText(field, queue)]),
  ]);
}

function settingText(field: string, queue: QueueAnswer): string {
  const value = queue[field as keyof QueueAnswer] as string | number | boolean | null;
  if (value === null) return 'none';
  return field.endsWith('Seconds') ? `${String(value)} (${age(Number(value))})` : String(value);
}

/** The value of a setting as a request has it. `none` removes a limit. */
function settingOf(field: string, text: string): unknown {
  if (text === 'none') return null;
  if (text === 'true' || text === 'false') return text === 'true';
  if (field.endsWith('Seconds')) return wholeSeconds(text);
  return field.startsWith('max') && /^\d+$/.test(text) ? Number(text) : text;
}

const settingsOf = (options: object, shape: typeof settings | typeof changeable): PutQueueRequest =>
  checked(putQueueRequest, fieldsOf(options, shape, settingOf));

function create(open: Open): Command {
  const command = new Command('create')
    .description('Create a queue. Fails if it exists')
    .argument('<queue>')
    .option('--if-missing', 'do nothing if the queue exists')
    .action(async (name: string, options: { ifMissing?: true }) => {
      const { client, out } = open();
      const request = settingsOf(options, settings);
      const isNew = await client.createNewQueue(name, request);
      if (!isNew && options.ifMissing !== true)
        throw new CommandFailed(
          `Queue '${name}' exists already. Change it: rowmq queue set ${name} …`,
          EXIT.failed,
          'queue-exists',
        );
      const queue = await client.getQueue(name);
      out.done(queue, isNew ? `Queue ${name} created.` : `Queue ${name} exists.`);
    });
  addFieldOptions(command, settings);
  examples(command, [
    ['rowmq queue create orders', 'with the defaults'],
    ['rowmq queue create orders-dead --if-missing', 'in a script that may run again'],
    ['rowmq queue create orders --lease-seconds 2m --max-receives 5 --dead-letter-queue orders-dead', 'with settings'],
  ]);
  return command;
}

function set(open: Open): Command {
  const command = new Command('set')
    .description('Change settings of a queue. Others stay; "none" removes a limit')
    .argument('<queue>')
    .action(async (name: string, options: object) => {
      const { client, out } = open();
      const request = settingsOf(options, changeable);
      if (Object.keys(request).length === 0)
        throw new CommandFailed('Name a setting to change, such as --lease-seconds 60.', 2);
      // A PUT would create the queue, also if its name was only misspelt.
      await client.getQueue(name);
      const queue = await client.putQueue(name, request);
      out.data(queue, () => queueText(out, queue));
    });
  addFieldOptions(command, changeable);
  examples(command, [
    ['rowmq queue set orders --lease-seconds 120', 'one setting'],
    ['rowmq queue set orders --max-depth none', 'remove a limit'],
    ['rowmq queue set orders --message-ttl-seconds 7d', 'with a unit'],
  ]);
  return command;
}

function remove(open: Open): Command {
  const command = new Command('delete')
    .description('Delete a queue. With messages, only with --force')
    .argument('<queue>')
    .option('--force', 'delete it with its messages')
    .option('-y, --yes', 'do not ask')
    .action(async (name: string, { force, yes }: { force?: true; yes?: true }) => {
      const session = open();
      const { stats } = await session.client.getQueue(name);
      const held = stats.ready + stats.delayed + stats.leased + stats.waiting;
      const effect = `This deletes the queue ${name}${force && held > 0 ? ` with ${counted(held)}` : ''}.`;
      await session.confirm('queue', name, effect, yes);
      await session.client.deleteQueue(name, { force: force === true });
      session.out.done({ deleted: name }, `Queue ${name} deleted.`);
    });
  examples(command, [
    ['rowmq queue delete orders', 'asks for the name first'],
    ['rowmq queue delete orders --force --yes', 'in a script, with its messages'],
  ]);
  return command;
}

function purge(open: Open): Command {
  const command = new Command('purge')
    .description('Settle every message of a queue, also leased ones. Nothing brings them back')
    .argument('<queue>')
    .option('-y, --yes', 'do not ask')
    .option('--no-wait', 'do not wait for the end of the job')
    .action(async (name: string, { yes, wait }: { yes?: true; wait: boolean }) => {
      const session = open();
      const { stats } = await session.client.getQueue(name);
      const held = stats.ready + stats.delayed + stats.leased + stats.waiting;
      await session.confirm('queue', name, `This settles ${counted(held)} of ${name} for good.`, yes);
      await followJob(session, await session.client.purge(name), wait);
    });
  examples(command, [
    ['rowmq queue purge orders', 'asks for the name first'],
    ['rowmq queue purge orders --yes --json', 'in a script'],
  ]);
  return command;
}

const SIDES = ['consumers', 'producers', 'both'] as const;

function pause(open: Open): Command {
  const command = new Command('pause')
    .description('Pause consumers (default), who then get nothing, or producers, who are then refused')
    .argument('<queue>')
    .option('--side <side>', SIDES.join(', '), 'consumers')
    .action(async (name: string, { side }: { side: string }) => {
      const { client, out } = open();
      out.data(await client.pauseQueue(name, { side: sideOf(side) }), pausedText);
    });
  examples(command, [
    ['rowmq queue pause orders', 'consumers get nothing'],
    ['rowmq queue pause orders --side producers', 'enqueues are refused'],
  ]);
  return command;
}

function resume(open: Open): Command {
  const command = new Command('resume')
    .description('End the pause of both sides, or of one')
    .argument('<queue>')
    .option('--side <side>', SIDES.join(', '), 'both')
    .action(async (name: string, { side }: { side: string }) => {
      const { client, out } = open();
      out.data(await client.resumeQueue(name, { side: sideOf(side) }), pausedText);
    });
  examples(command, [['rowmq queue resume orders', 'both sides run again']]);
  return command;
}

function sideOf(text: string): (typeof SIDES)[number] {
  const side = SIDES.find((one) => one === text);
  if (side === undefined) throw new CommandFailed(`'${text}' is no side. Choose ${SIDES.join(', ')}.`, 2);
  return side;
}

const pausedText = ({ name, paused, producersPaused }: { name: string; paused: boolean; producersPaused: boolean }) =>
  `${name}: consumers ${paused ? 'paused' : 'running'}, producers ${producersPaused ? 'paused' : 'running'}.`;

function consumers(open: Open): Command {
  const command = new Command('consumers')
    .description('Show who consumes a queue and what they hold')
    .argument('<queue>')
    .action(async (name: string) => {
      const { client, out } = open();
      const answer = await client.getConsumers(name);
      out.data(answer, ({ consumers: rows, otherLeases, complete }) => {
        const table = out.table(
          [
            { title: 'CONSUMER', of: (row) => row.name, wide: true },
            { title: 'ADDRESS', of: (row) => row.address },
            { title: 'WAITING', of: (row) => row.waiting, right: true },
            { title: 'HOLDS', of: (row) => row.leases, right: true },
            { title: 'LAST SEEN', of: (row) => ago(row.lastSeenAt) },
          ],
          rows,
        );
        const lines = [rows.length === 0 ? 'No consumer was seen in the last ten minutes.' : table];
        if (otherLeases > 0) lines.push(`${count(otherLeases)} leased messages whose consumer no broker remembers.`);
        if (!complete) lines.push('Not complete: a broker did not answer, or there are too many leases.');
        return lines.join('\n');
      });
    });
  examples(command, [['rowmq queue consumers orders', 'who waits, and who holds messages']]);
  return command;
}
