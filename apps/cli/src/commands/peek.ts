import { Command } from 'commander';
import { deliveryState, LIMITS, type BrowseQuery } from '@rowmq/contract';
import { CommandFailed, UsageError } from '../exit-codes.js';
import { examples } from '../examples.js';
import { addFilterOptions, filterOf } from '../filter-options.js';
import { bodyLine, browsedText } from '../output/message-text.js';
import type { Column, Output } from '../output/output.js';
import { ago, count, wholeNumber } from '../output/units.js';
import type { Open, Session } from '../session.js';
import type { BrowsedMessage } from '../types.js';

/** A search that finds nothing ends after so many pages, each of which looks for a second. */
const MOST_PAGES = 600;

export function peekCommand(open: Open): Command {
  const command = new Command('peek')
    .description('Look at messages of a queue without receiving them')
    .argument('<queue>')
    .option('--state <state>', deliveryState.options.join(', '), 'ready')
    .option('-n, --limit <n>', 'at most so many messages', wholeNumber(1, 100_000), 20)
    .option('--full', 'print each message with headers, moves and body')
    .action(async (queue: string, options: { state: string; limit: number; full?: true }) => {
      const session = open();
      const state = deliveryState.options.find((one) => one === options.state);
      if (state === undefined)
        throw new UsageError(`'${options.state}' is no state. Choose ${deliveryState.options.join(', ')}.`);
      await printMessages(session, queue, { state, ...filterOf(options) }, options.limit, options.full === true);
    });
  addFilterOptions(command);
  examples(command, [
    ['rowmq peek orders', 'the messages that come next'],
    ['rowmq peek orders --state leased', 'those that consumers hold, and who they are'],
    ['rowmq peek orders-dead --reason timeout --full', 'some dead letters, in full'],
    ['rowmq peek orders --limit 1000 --json | jq -r .body', 'bodies, for scripts'],
  ]);
  return command;
}

/** Prints up to `limit` messages, page after page: a table, or a stream of JSON. */
export async function printMessages(
  session: Session,
  queue: string,
  query: Partial<BrowseQuery>,
  limit: number,
  inFull: boolean,
): Promise<void> {
  const { out } = session;
  const rows: BrowsedMessage[] = [];
  let found = 0;
  try {
    for await (const message of browse(session, queue, query, limit)) {
      found += 1;
      if (out.json || inFull) out.item(message, (one) => browsedText(out, one));
      else rows.push(message);
    }
  } finally {
    // Also of a search that failed in the middle.
    if (rows.length > 0) out.line(out.table(columns(out, query.state ?? 'ready'), rows));
  }
  if (out.json) return;
  if (found === 0) out.note(`${queue} has no such message.`);
  if (found === limit) out.note(`The first ${count(limit)}. For more: --limit ${limit * 10}`);
}

/** Reads page after page. A filter may leave a page empty that is not the last. */
export async function* browse(
  { client }: Session,
  queue: string,
  query: Partial<BrowseQuery>,
  limit: number,
): AsyncGenerator<BrowsedMessage> {
  let after: string | null | undefined;
  let left = limit;
  for (let page = 0; page < MOST_PAGES && left > 0 && after !== null; page += 1) {
    const answer = await client.browse(queue, {
      ...query,
      limit: Math.min(left, LIMITS.page),
      ...(after !== undefined && { after }),
    });
    yield* answer.messages;
    left -= answer.messages.length;
    after = answer.nextAfter;
  }
  if (left > 0 && after !== null)
    throw new CommandFailed(
      `The search ended after ${count(MOST_PAGES)} pages, and the queue has more. Narrow it, such as with --enqueued-from.`,
    );
}

function columns(out: Output, state: string): Column<BrowsedMessage>[] {
  const isLeased = state === 'leased';
  return [
    { title: 'MESSAGE', of: ({ id }) => id },
    { title: 'ENQUEUED', of: ({ enqueuedAt }) => ago(enqueuedAt) },
    { title: 'PRI', of: ({ priority }) => priority, right: true },
    { title: 'RECEIVED', of: ({ receiveCount }) => receiveCount, right: true },
    ...(state === 'delayed' ? [{ title: 'AVAILABLE', of: ({ availableAt }: BrowsedMessage) => availableAt }] : []),
    ...(isLeased ? [{ title: 'HELD BY', of: ({ consumer }: BrowsedMessage) => consumer, wide: true }] : []),
    { title: 'FAILED', of: reasonOf, wide: true, paint: (text) => (text === '–' ? text : out.paint.yellow(text)) },
    { title: 'BODY', of: bodyLine, wide: true },
  ];
}

function reasonOf({ lastNackReason, moves }: BrowsedMessage): string | null {
  return lastNackReason ?? moves.at(-1)?.reason ?? moves.at(-1)?.cause ?? null;
}
