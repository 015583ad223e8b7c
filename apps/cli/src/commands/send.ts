import { createReadStream, fstatSync } from 'node:fs';
import { buffer } from 'node:stream/consumers';
import { Command } from 'commander';
import { isOutcomeUnknown } from '@rowmq/client/core';
import { advised, CommandFailed, EXIT, UsageError } from '../exit-codes.js';
import { examples } from '../examples.js';
import {
  addMessageOptions,
  messageFieldsOf,
  messageOf,
  type MessageOptions,
  type NewMessage,
} from '../message-options.js';
import { batchesOf } from '../ndjson.js';
import { Progress } from '../output/progress.js';
import { count, counted, rate, wholeNumber } from '../output/units.js';
import type { Open, Session } from '../session.js';

/** Stores messages, and answers the id of each. */
type Store = (messages: NewMessage[]) => Promise<{ id: string; duplicate?: true; subscriptions?: number }[]>;

export function sendCommand(open: Open): Command {
  const command = sending('send', 'Send a message, or many from stdin').argument('<queue>').argument('[body]', BODY);
  const complete = command.action(async (queue: string, body: string | undefined, options: SendOptions) => {
    const session = open();
    const store: Store = async (messages) => (await session.client.enqueue(queue, { messages })).messages;
    await send(session, queue, body, options, store);
  });
  examples(complete, [
    [`rowmq send orders '{"order":17}' --header content-type=application/json`, 'one message'],
    ['rowmq send orders < order.json', 'a body from a file'],
    ['rowmq send orders --ndjson < orders.ndjson', 'one message a line: {"body":"…","priority":9}'],
    ['seq 1000 | rowmq send orders --lines', 'one body a line'],
    ['rowmq send reminders "call back" --delay 2h', 'not handed out before'],
  ]);
  return complete;
}

export function publishCommand(open: Open): Command {
  const command = sending('publish', 'Publish a message to a topic, or many from stdin')
    .argument('<topic>')
    .argument('[body]', BODY);
  const complete = command.action(async (topic: string, body: string | undefined, options: SendOptions) => {
    const session = open();
    const store: Store = async (messages) => (await session.client.publish(topic, { messages })).messages;
    await send(session, topic, body, options, store);
  });
  examples(complete, [
    [`rowmq topic publish order-events '{"order":17}' --header event=created`, 'one message'],
    ['rowmq topic publish order-events --ndjson < events.ndjson', 'one message a line'],
  ]);
  return complete;
}

const BODY = 'the body; "-" or nothing reads it from stdin';

function sending(name: string, description: string): Command {
  return addMessageOptions(new Command(name).description(description))
    .option('--ndjson', 'stdin has one message a line, as JSON with the fields of enqueue')
    .option('--lines', 'stdin has one body a line')
    .option('--from-line <n>', 'begin at this line of stdin, to go on after a failure', wholeNumber(1, 1e12));
}

type SendOptions = MessageOptions & { ndjson?: true; lines?: true; fromLine?: number };

async function send(
  session: Session,
  target: string,
  body: string | undefined,
  options: SendOptions,
  store: Store,
): Promise<void> {
  if (options.ndjson || options.lines) {
    if (body !== undefined && body !== '-') throw new UsageError('Give a body, or --ndjson or --lines, but not both.');
    if (options.ndjson && options.lines) throw new UsageError('Give --ndjson or --lines, but not both.');
    await sendLines(session, target, options, store);
    return;
  }
  const content = body === undefined || body === '-' ? await bodyOfStdin() : body;
  const [stored] = await store([messageOf(content, options)]);
  session.out.data(stored as object, () => sentText(stored as NonNullable<typeof stored>));
}

function sentText({ id, duplicate, subscriptions }: Awaited<ReturnType<Store>>[number]): string {
  const queues = subscriptions === undefined ? '' : `  to ${subscriptions} ${subscriptions === 1 ? 'queue' : 'queues'}`;
  return `${id}${queues}${duplicate ? '  (a duplicate: nothing was stored)' : ''}`;
}

async function bodyOfStdin(): Promise<Buffer> {
  if (process.stdin.isTTY) throw new UsageError('Give a body, or pipe it to stdin.');
  return buffer(process.stdin);
}

/** Sends batch after batch, so that messages are stored in the order of their lines. */
async function sendLines(session: Session, target: string, options: SendOptions, store: Store): Promise<void> {
  const { out } = session;
  if (process.stdin.isTTY) throw new UsageError('Pipe the lines to stdin.');
  const interrupted = session.onInterrupt();
  const total = sizeOfStdin();
  const progress = new Progress(out, `sending to ${target}`, total);
  const started = performance.now();
  let sent = 0;
  let duplicates = 0;
  let lastLine = (options.fromLine ?? 1) - 1;
  const goOn = (): string => `${count(sent)} messages were stored. Go on with --from-line ${lastLine + 1}.`;
  try {
    // From a descriptor of its own: a pipe that nobody reads on must not keep the process.
    const input = createReadStream('', { fd: 0, autoClose: false });
    const { fromLine = 1 } = options;
    for await (const batch of batchesOf(input, {
      fields: messageFieldsOf(options),
      plain: options.lines === true,
      fromLine,
    })) {
      if (interrupted.aborted) throw new CommandFailed(`Stopped. ${goOn()}`, EXIT.interrupted);
      const stored = await store(batch.messages);
      sent += stored.length;
      duplicates += stored.filter(({ duplicate }) => duplicate === true).length;
      lastLine = batch.lastLine;
      progress.show(total === null ? sent : batch.bytes, total, sent);
    }
  } catch (error) {
    progress.end();
    if (isOutcomeUnknown(error))
      throw advised(
        error,
        `${count(sent)} messages were stored, up to line ${lastLine}. Some after it may be stored, too.`,
      );
    const isStopped = error instanceof CommandFailed && error.exitCode === EXIT.interrupted;
    throw isStopped || sent === 0 ? error : advised(error, goOn());
  }
  progress.end();
  const seconds = (performance.now() - started) / 1000;
  out.data({ sent, duplicates, seconds: Number(seconds.toFixed(3)) }, () => {
    const known = duplicates === 0 ? '' : `, of which ${count(duplicates)} were duplicates`;
    return `${target}: ${counted(sent)} sent${known}, ${rate(sent / Math.max(seconds, 0.001))}/s.`;
  });
}

/** Undefined for a pipe, whose end nobody knows. */
function sizeOfStdin(): number | null {
  try {
    const stat = fstatSync(0);
    return stat.isFile() && stat.size > 0 ? stat.size : null;
  } catch {
    return null;
  }
}
