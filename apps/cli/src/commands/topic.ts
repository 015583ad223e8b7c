import { Command } from 'commander';
import { filter as filterSchema, putTopicRequest, topicSettings, type TopicAnswer } from '@rowmq/contract';
import { UsageError } from '../exit-codes.js';
import { examples } from '../examples.js';
import type { Output } from '../output/output.js';
import { ago, wholeSeconds } from '../output/units.js';
import { addFieldOptions, checked, fieldsOf } from '../schema-options.js';
import type { Open } from '../session.js';
import { publishCommand } from './send.js';

const { shape } = topicSettings;

export function topicCommand(open: Open): Command {
  return new Command('topic')
    .description('Publish to several queues: topics and their subscriptions')
    .addCommand(list(open))
    .addCommand(show(open))
    .addCommand(put(open))
    .addCommand(remove(open))
    .addCommand(subscribe(open))
    .addCommand(unsubscribe(open))
    .addCommand(publishCommand(open));
}

function list(open: Open): Command {
  const command = new Command('list')
    .alias('ls')
    .description('List topics')
    .action(async () => {
      const { client, out } = open();
      const { topics } = await client.listTopics();
      out.data(topics, (rows) =>
        rows.length === 0
          ? 'No topics.'
          : out.table(
              [
                { title: 'TOPIC', of: ({ name }) => name },
                { title: 'QUEUES', of: ({ subscriptions }) => subscriptions.length, right: true },
                { title: 'CREATED', of: ({ createdAt }) => ago(createdAt) },
                {
                  title: 'SUBSCRIBED',
                  of: ({ subscriptions }) => subscriptions.map(({ queue }) => queue).join(', '),
                  wide: true,
                },
              ],
              rows,
            ),
      );
    });
  examples(command, [['rowmq topic list', 'every topic']]);
  return command;
}

function topicText(out: Output, { name, deduplicationSeconds, createdAt, subscriptions }: TopicAnswer): string {
  const facts = out.fields([
    ['topic', name],
    ['created', ago(createdAt)],
    ['deduplicationSeconds', deduplicationSeconds],
  ]);
  if (subscriptions.length === 0) return `${facts}\n\nNo queue subscribes to it.`;
  const table = out.table(
    [
      { title: 'QUEUE', of: ({ queue }) => queue },
      { title: 'SINCE', of: (subscription) => ago(subscription.createdAt) },
      { title: 'FILTER', of: ({ filter }) => (filter === null ? 'every message' : JSON.stringify(filter)), wide: true },
    ],
    subscriptions,
  );
  return `${facts}\n\n${table}`;
}

function show(open: Open): Command {
  const command = new Command('show')
    .description('Show a topic and its subscriptions')
    .argument('<topic>')
    .action(async (name: string) => {
      const { client, out } = open();
      out.data(await client.getTopic(name), (topic) => topicText(out, topic));
    });
  examples(command, [['rowmq topic show order-events', 'who gets its messages']]);
  return command;
}

function put(open: Open): Command {
  const command = new Command('create')
    .description('Create a topic, or change its settings')
    .argument('<topic>')
    .action(async (name: string, options: object) => {
      const { client, out } = open();
      const request = checked(
        putTopicRequest,
        fieldsOf(options, shape, (_, text) => wholeSeconds(text)),
      );
      out.data(await client.putTopic(name, request), (topic) => topicText(out, topic));
    });
  addFieldOptions(command, shape);
  examples(command, [
    ['rowmq topic create order-events', 'a topic'],
    ['rowmq topic create order-events --deduplication-seconds 1h', 'that remembers ids for an hour'],
  ]);
  return command;
}

function remove(open: Open): Command {
  const command = new Command('delete')
    .description('Delete a topic and its subscriptions. The queues keep their messages')
    .argument('<topic>')
    .option('-y, --yes', 'do not ask')
    .action(async (name: string, { yes }: { yes?: true }) => {
      const session = open();
      const { subscriptions } = await session.client.getTopic(name);
      await session.confirm(
        'topic',
        name,
        `This deletes the topic ${name} with ${subscriptions.length} subscriptions.`,
        yes,
      );
      await session.client.deleteTopic(name);
      session.out.done({ deleted: name }, `Topic ${name} deleted.`);
    });
  examples(command, [['rowmq topic delete order-events --yes', 'in a script']]);
  return command;
}

function subscribe(open: Open): Command {
  const command = new Command('subscribe')
    .description('Subscribe a queue to a topic, or change the filter of its subscription')
    .argument('<topic>')
    .argument('<queue>')
    .option('--filter <json>', 'conditions on headers; "none" for every message')
    .action(async (topic: string, queue: string, { filter }: { filter?: string }) => {
      const { client, out } = open();
      const request = filter === undefined ? {} : { filter: filterOf(filter) };
      out.data(await client.putSubscription(topic, queue, request), () => `${queue} subscribes to ${topic}.`);
    });
  examples(command, [
    ['rowmq topic subscribe order-events mails', 'every message'],
    [`rowmq topic subscribe order-events mails --filter '{"event":["created"]}'`, 'some messages'],
  ]);
  return command;
}

function filterOf(text: string) {
  if (text === 'none') return null;
  try {
    return checked(filterSchema, JSON.parse(text));
  } catch (error) {
    throw new UsageError(`The filter is not valid: ${(error as Error).message}`);
  }
}

function unsubscribe(open: Open): Command {
  const command = new Command('unsubscribe')
    .description('End the subscription of a queue. It keeps its messages')
    .argument('<topic>')
    .argument('<queue>')
    .action(async (topic: string, queue: string) => {
      const { client, out } = open();
      await client.deleteSubscription(topic, queue);
      out.done({ topic, queue, subscribed: false }, `${queue} no longer subscribes to ${topic}.`);
    });
  examples(command, [['rowmq topic unsubscribe order-events mails', 'no further message goes there']]);
  return command;
}
