import { Command } from 'commander';
import type { MessageAnswer } from '@rowmq/contract';
import { examples } from '../examples.js';
import { bodyText } from '../output/message-text.js';
import type { Output } from '../output/output.js';
import { ago } from '../output/units.js';
import type { Open, Session } from '../session.js';

const ID = '019a0b5d-ac96-774b-8cce-b302099a8057';

export function messageCommand(open: Open): Command {
  return new Command('message')
    .description('Look at one message, or act on it')
    .addCommand(show(open))
    .addCommand(
      act(open, 'cancel', 'Settle a message that is ready or delayed', async ({ client }, id) =>
        client.cancelMessage(id),
      ),
    )
    .addCommand(
      act(open, 'ack', 'Settle a message, also if a consumer holds it', async ({ client }, id, queue) =>
        client.ackMessage(id, queue),
      ),
    )
    .addCommand(
      act(open, 'release', 'Make a message ready that is leased or delayed', async ({ client }, id, queue) =>
        client.releaseMessage(id, queue),
      ),
    )
    .addCommand(
      act(open, 'redrive', 'Move a message back to the queue that it left first', async ({ client }, id, queue) =>
        client.redriveMessage(id, queue),
      ),
    )
    .addCommand(move(open));
}

function show(open: Open): Command {
  const command = new Command('show')
    .description('Show a message and each of its deliveries')
    .argument('<message>', 'the id')
    .action(async (id: string) => {
      const { client, out } = open();
      out.data(await client.getMessage(id), (message) => messageText(out, message));
    });
  examples(command, [[`rowmq message show ${ID}`, 'where it is, and what it says']]);
  return command;
}

/** An action of an operator on one message. */
function act(
  open: Open,
  name: string,
  description: string,
  call: (session: Session, id: string, queue: { queue?: string }) => Promise<void>,
): Command {
  const command = new Command(name).description(description).argument('<message>', 'the id');
  if (name !== 'cancel') command.option('--queue <queue>', 'the queue that owes it; every one when absent');
  command.action(async (id: string, options: { queue?: string }) => {
    const session = open();
    await call(session, id, options);
    session.out.done({ id, done: name }, `Message ${id}: ${DONE[name]}.`);
  });
  examples(command, [[`rowmq message ${name} ${ID}`, DONE[name] as string]]);
  return command;
}

const DONE: Record<string, string> = {
  cancel: 'settled, if no consumer holds it',
  ack: 'settled',
  release: 'ready again',
  redrive: 'back in its queue',
};

function move(open: Open): Command {
  const command = new Command('move')
    .description('Move a message to another queue')
    .argument('<message>', 'the id')
    .requiredOption('--to <queue>', 'the queue that gets it')
    .option('--queue <queue>', 'the queue that it leaves, if several owe it')
    .action(async (id: string, { to, queue }: { to: string; queue?: string }) => {
      const { client, out } = open();
      await client.moveMessage(id, { toQueue: to, ...(queue !== undefined && { queue }) });
      out.done({ id, toQueue: to }, `Message ${id}: moved to ${to}.`);
    });
  examples(command, [[`rowmq message move ${ID} --to orders-later`, 'to another queue']]);
  return command;
}

/** A message's life, for people. */
export function messageText(out: Output, message: MessageAnswer): string {
  const { id, queue, topic, settled, endings, deliveries, headers, groupId, enqueuedAt, expiresAt, replayOf } = message;
  const place = topic === null ? ['enqueued to', queue ?? 'a deleted queue'] : ['published to', topic];
  const facts = out.fields([
    ['message', id],
    place as [string, string],
    ['enqueued', `${enqueuedAt} (${ago(enqueuedAt)})`],
    ['expires', expiresAt],
    ['replay of', replayOf],
    ['group', groupId],
    ...(settled ? [['state', settledText(endings)] as [string, string]] : []),
    ...Object.entries(headers).map(([name, value]): [string, string] => ['header', `${name}: ${value}`]),
  ]);
  const lives = deliveries.map((delivery) =>
    out.fields([
      ['in', delivery.queue],
      ['state', delivery.state === 'ready' ? 'ready' : `${delivery.state}, until ${delivery.availableAt}`],
      ['received', `${delivery.receiveCount} ${delivery.receiveCount === 1 ? 'time' : 'times'}`],
      ['held by', delivery.consumer ?? undefined],
      ['failed', delivery.lastNackReason ?? undefined],
      ['left first', delivery.source ?? undefined],
      ...delivery.moves.map(({ from, at, cause, receiveCount, reason }): [string, string] => [
        'moved',
        `${at} from ${from ?? 'a deleted queue'}: ${cause} after ${receiveCount} receives${reason === null ? '' : `, ${reason}`}`,
      ]),
    ]),
  );
  return [facts, ...lives, bodyText(message)].join('\n\n');
}

function settledText(endings: MessageAnswer['endings']): string {
  if (endings.length === 0) return 'settled: acked or expired';
  return `settled: ${endings.map(({ queue, how }) => `${how} in ${queue ?? 'a deleted queue'}`).join(', ')}`;
}
