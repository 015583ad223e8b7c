import { Command } from 'commander';
import { LIMITS, putScheduleRequest, type PutScheduleRequest, type ScheduleAnswer } from '@rowmq/contract';
import { examples } from '../examples.js';
import { addMessageOptions, messageFieldsOf, type MessageOptions } from '../message-options.js';
import { bodyText } from '../output/message-text.js';
import type { Column, Output } from '../output/output.js';
import { age, ago, wholeSeconds } from '../output/units.js';
import { checked } from '../schema-options.js';
import type { Open } from '../session.js';

export function scheduleCommand(open: Open): Command {
  return new Command('schedule')
    .description('Send a message again and again, by a cron pattern or an interval')
    .addCommand(list(open))
    .addCommand(show(open))
    .addCommand(set(open))
    .addCommand(enable(open, true))
    .addCommand(enable(open, false))
    .addCommand(run(open))
    .addCommand(remove(open));
}

const ahead = (time: string): string => age(Math.max(0, (Date.parse(time) - Date.now()) / 1000));

const everyText = ({ cron, everySeconds, timeZone }: ScheduleAnswer): string =>
  cron === null ? `every ${age(everySeconds)}` : `${cron} ${timeZone ?? 'UTC'}`;

function list(open: Open): Command {
  const command = new Command('list')
    .alias('ls')
    .description('List schedules with their next and last runs')
    .action(async () => {
      const { client, out } = open();
      const schedules: ScheduleAnswer[] = [];
      for (let after: string | null | undefined; after !== null;) {
        const page = await client.listSchedules({ limit: LIMITS.page, ...(after !== undefined && { after }) });
        schedules.push(...page.schedules);
        after = page.nextAfter;
      }
      out.data(schedules, (rows) => (rows.length === 0 ? 'No schedules.' : out.table(columns(out), rows)));
    });
  examples(command, [['rowmq schedule list', 'when each runs next']]);
  return command;
}

const columns = (out: Output): Column<ScheduleAnswer>[] => [
  { title: 'SCHEDULE', of: ({ name }) => name },
  { title: 'WHEN', of: everyText },
  { title: 'TO', of: ({ queue, topic }) => queue ?? `topic ${topic}` },
  {
    title: 'NEXT',
    of: ({ nextRunAt, enabled }) => (enabled && nextRunAt !== null ? `in ${ahead(nextRunAt)}` : 'not enabled'),
  },
  { title: 'LAST', of: ({ lastRun }) => ago(lastRun?.tick ?? null) },
  {
    title: 'FAILURE',
    of: ({ lastFailure }) => lastFailure,
    wide: true,
    paint: (text) => (text === '–' ? text : out.paint.red(text)),
  },
];

function scheduleText(out: Output, schedule: ScheduleAnswer): string {
  const { name, queue, topic, message, enabled, missed, createdAt, nextRunAt, lastRun, lastFailure } = schedule;
  const facts = out.fields([
    ['schedule', name],
    ['when', everyText(schedule)],
    ['to', queue ?? `topic ${topic}`],
    ['enabled', enabled ? 'yes' : 'no'],
    ['missed ticks', missed],
    ['created', ago(createdAt)],
    ['next', nextRunAt],
    ['last', lastRun === null ? 'never' : `${lastRun.tick}, message ${lastRun.messageId}`],
    ['failure', lastFailure ?? undefined],
    ...Object.entries(message.headers ?? {}).map(([header, value]): [string, string] => [
      'header',
      `${header}: ${value}`,
    ]),
  ]);
  return `${facts}\n\n${bodyText(message)}`;
}

function show(open: Open): Command {
  const command = new Command('show')
    .description('Show a schedule, its next and last run, and its message')
    .argument('<schedule>')
    .action(async (name: string) => {
      const { client, out } = open();
      out.data(await client.getSchedule(name), (schedule) => scheduleText(out, schedule));
    });
  examples(command, [['rowmq schedule show nightly-report', 'when it runs, and what it sends']]);
  return command;
}

interface SetOptions extends MessageOptions {
  cron?: string;
  every?: number;
  timeZone?: string;
  queue?: string;
  topic?: string;
  missed?: string;
  disabled?: true;
}

function set(open: Open): Command {
  const command = new Command('set')
    .description('Create a schedule, or replace its whole definition')
    .argument('<schedule>')
    .argument('<body>', 'the body of its messages')
    .option('--cron <pattern>', 'five fields, six with seconds first, or such as @daily')
    .option('--every <duration>', 'in place of --cron, such as 5m', wholeSeconds)
    .option('--time-zone <zone>', 'with --cron, such as Europe/Berlin; UTC when absent')
    .option('--queue <queue>', 'where its messages go')
    .option('--topic <topic>', 'in place of --queue')
    .option('--missed <what>', 'of missed ticks: skip, last or all', 'skip')
    .option('--disabled', 'it has no ticks');
  addMessageOptions(command, ['--at', '--deduplication-id']);
  command.action(async (name: string, body: string, options: SetOptions) => {
    const { client, out } = open();
    const { cron, every, timeZone, queue, topic, missed, disabled } = options;
    const request = {
      message: { ...messageFieldsOf(options), body },
      ...(cron !== undefined && { cron }),
      ...(every !== undefined && { everySeconds: every }),
      ...(timeZone !== undefined && { timeZone }),
      ...(queue !== undefined && { queue }),
      ...(topic !== undefined && { topic }),
      missed,
      enabled: disabled !== true,
    } as PutScheduleRequest;
    checked(putScheduleRequest, request);
    out.data(await client.putSchedule(name, request), (schedule) => scheduleText(out, schedule));
  });
  examples(command, [
    [
      `rowmq schedule set nightly-report '{"report":"daily"}' --cron "30 3 * * *" --time-zone Europe/Berlin --queue reports`,
      'every night',
    ],
    ['rowmq schedule set heartbeat tick --every 5m --topic health', 'every five minutes, to a topic'],
  ]);
  return command;
}

function enable(open: Open, isOn: boolean): Command {
  const name = isOn ? 'enable' : 'disable';
  const command = new Command(name)
    .description(isOn ? 'Let a schedule have ticks again' : 'Let a schedule have no ticks')
    .argument('<schedule>')
    .action(async (schedule: string) => {
      const { client, out } = open();
      const { message, cron, everySeconds, timeZone, queue, topic, missed } = await client.getSchedule(schedule);
      const changed = await client.putSchedule(schedule, {
        message,
        missed,
        enabled: isOn,
        ...(cron !== null && { cron }),
        ...(everySeconds !== null && { everySeconds }),
        ...(timeZone !== null && cron !== null && { timeZone }),
        ...(queue !== null && { queue }),
        ...(topic !== null && { topic }),
      });
      out.data(changed, () => `Schedule ${schedule} is ${isOn ? 'enabled' : 'disabled'}.`);
    });
  examples(command, [[`rowmq schedule ${name} nightly-report`, isOn ? 'its ticks begin anew' : 'until it is enabled']]);
  return command;
}

function run(open: Open): Command {
  const command = new Command('run')
    .description('Send the message of a schedule now. Its ticks stay as they are')
    .argument('<schedule>')
    .action(async (name: string) => {
      const { client, out } = open();
      out.data(await client.runSchedule(name), ({ messageId }) => messageId);
    });
  examples(command, [['rowmq schedule run nightly-report', 'once, now']]);
  return command;
}

function remove(open: Open): Command {
  const command = new Command('delete')
    .description('Delete a schedule. Messages that it sent stay')
    .argument('<schedule>')
    .option('-y, --yes', 'do not ask')
    .action(async (name: string, { yes }: { yes?: true }) => {
      const session = open();
      await session.client.getSchedule(name);
      await session.confirm('schedule', name, `This deletes the schedule ${name}.`, yes);
      await session.client.deleteSchedule(name);
      session.out.done({ deleted: name }, `Schedule ${name} deleted.`);
    });
  examples(command, [['rowmq schedule delete nightly-report --yes', 'in a script']]);
  return command;
}
