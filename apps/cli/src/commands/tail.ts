import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { deliveryState, type LeasedMessage } from '@rowmq/contract';
import { brokerClock } from '../broker-clock.js';
import { UsageError } from '../exit-codes.js';
import { examples } from '../examples.js';
import { browsedText, bodyLine } from '../output/message-text.js';
import { inertLine } from '../output/inert.js';
import { durationSeconds, wholeSeconds } from '../output/units.js';
import type { Open, Session } from '../session.js';
import type { BrowsedMessage } from '../types.js';
import { browse } from './peek.js';

/** A message that was stored by a slow transaction may have an id from so long before. */
const OVERLAP_MS = 15_000;
/** Bounds what is remembered of printed messages. */
const REMEMBERED = 20_000;
/** Bounds what one look prints. */
const MOST_AT_ONCE = 1000;

interface TailOptions {
  follow?: true;
  since: number;
  interval: number;
  full?: true;
  topic?: true;
}

export function tailCommand(open: Open): Command {
  const command = new Command('tail')
    .description('Print messages of a queue as they arrive, without receiving them')
    .argument('<queue>', 'a queue; a topic with --topic')
    .option('-f, --follow', 'go on until Ctrl-C')
    .option('--since <duration>', 'begin with messages that were enqueued so long ago', wholeSeconds, 600)
    .option('-i, --interval <duration>', 'between two looks', durationSeconds, 1)
    .option('--full', 'print each message with headers and body')
    .option('--topic', 'follow a topic, through a queue of its own that is deleted at the end')
    .action(async (name: string, options: TailOptions) => {
      const session = open();
      if (options.interval < 0.2) throw new UsageError('The shortest interval is 0.2 seconds.');
      if (options.topic === true) await tailTopic(session, name, options);
      else await tailQueue(session, name, options);
    });
  command.addHelpText(
    'after',
    `\nA message that is enqueued and acked between two looks is not seen. Follow a topic to miss none.`,
  );
  examples(command, [
    ['rowmq tail orders', 'the messages of the last ten minutes that are still there'],
    ['rowmq tail orders -f --since 0', 'those that come from now on'],
    ['rowmq tail order-events --topic -f --json | jq -r .body', 'every message of a topic'],
  ]);
  return command;
}

/** Looks at every state, because a consumer may hold a message by the time of the look. */
async function tailQueue(session: Session, queue: string, options: TailOptions): Promise<void> {
  const interrupted = session.onInterrupt();
  const printed = new Set<string>();
  const now = await brokerClock(session.urls);
  let from = now() - options.since * 1000;
  // The queue exists, or this says that it does not.
  await session.client.getQueue(queue);
  for (;;) {
    const begun = now();
    const fresh: BrowsedMessage[] = [];
    for (const state of deliveryState.options) {
      const query = { state, enqueuedFrom: new Date(from).toISOString() };
      for await (const message of browse(session, queue, query, MOST_AT_ONCE)) {
        if (interrupted.aborted) return;
        if (printed.has(message.id)) continue;
        printed.add(message.id);
        fresh.push(message);
      }
    }
    // Ids ascend with time.
    fresh.sort((one, other) => (one.id < other.id ? -1 : 1));
    for (const message of fresh) print(session, message, options.full === true);
    if (options.follow !== true) return;
    for (const id of printed) {
      if (printed.size <= REMEMBERED) break;
      printed.delete(id);
    }
    from = Math.max(from, begun - OVERLAP_MS);
    await sleep(options.interval * 1000, undefined, { signal: interrupted }).catch(() => undefined);
    if (interrupted.aborted) return;
  }
}

function print({ out }: Session, message: BrowsedMessage, inFull: boolean): void {
  out.item(message, (one) => (inFull ? browsedText(out, one) : lineOf(out.paint.dim, one)));
}

function lineOf(
  dim: (text: string) => string,
  message: Pick<LeasedMessage, 'enqueuedAt' | 'id' | 'body' | 'bodyEncoding'>,
): string {
  return `${dim(`${message.enqueuedAt} ${message.id}`)}  ${inertLine(bodyLine(message))}`;
}

/** The queue goes by itself if this process cannot delete it: its messages expire, at least. */
const TAIL_TTL_SECONDS = 600;

/** Subscribes a queue of its own, and so gets every message. */
async function tailTopic(session: Session, topic: string, options: TailOptions): Promise<void> {
  const { client, out } = session;
  const interrupted = session.onInterrupt();
  const queue = `rowmq-tail-${randomBytes(6).toString('hex')}`;
  await client.getTopic(topic);
  await client.putQueue(queue, { messageTtlSeconds: TAIL_TTL_SECONDS });
  try {
    await client.putSubscription(topic, queue);
    if (!out.json) out.note(`Following ${topic} through the queue ${queue}.`);
    do {
      const request = { maxMessages: 100, waitSeconds: 20, consumer: session.consumer };
      const { messages } = await client.dequeue(queue, request, { signal: interrupted });
      for (const message of messages) out.item(message, (one) => lineOf(out.paint.dim, one));
      if (messages.length > 0) await client.ack(queue, { receipts: messages.map(({ receipt }) => receipt) });
    } while (options.follow === true && !interrupted.aborted);
  } catch (error) {
    if (!interrupted.aborted) throw error;
  } finally {
    await client.deleteQueue(queue, { force: true });
  }
}
