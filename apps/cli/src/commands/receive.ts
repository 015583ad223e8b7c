import { Command } from 'commander';
import { LIMITS, type LeasedMessage } from '@rowmq/contract';
import { CommandFailed, EXIT } from '../exit-codes.js';
import { examples } from '../examples.js';
import { bodyBytes, leasedText } from '../output/message-text.js';
import { inert } from '../output/inert.js';
import type { Output } from '../output/output.js';
import { wholeNumber, wholeSeconds } from '../output/units.js';
import type { Open } from '../session.js';

interface ReceiveOptions {
  max: number;
  wait: number;
  lease?: number;
  consumer?: string;
  ack?: true;
  body?: true;
}

export function receiveCommand(open: Open): Command {
  const command = new Command('receive')
    .description('Receive messages under a lease, and print them with their receipts')
    .argument('<queue>')
    .option('-n, --max <n>', 'at most so many messages', wholeNumber(1, LIMITS.batch), 1)
    .option('-w, --wait <duration>', `wait so long for the first one, up to ${LIMITS.waitSeconds}s`, wholeSeconds, 0)
    .option('--lease <duration>', "the length of the lease; the queue's when absent", wholeSeconds)
    .option('--consumer <name>', 'the name that operators see')
    .option('--ack', 'ack them once they are printed')
    .option('--body', 'print only the bodies')
    .action(async (queue: string, { max, wait, lease, consumer, ack, body }: ReceiveOptions) => {
      const session = open();
      const { client, out } = session;
      const { messages } = await client.dequeue(queue, {
        maxMessages: max,
        waitSeconds: wait,
        consumer: consumer ?? session.consumer,
        ...(lease !== undefined && { leaseSeconds: lease }),
      });
      if (messages.length === 0) throw new CommandFailed(out.json ? '' : `${queue} has no message now.`, EXIT.nothing);
      for (const message of messages) print(out, message, body === true);
      if (ack === true) await ackAll(session.client, queue, messages, out);
    });
  examples(command, [
    ['rowmq receive orders', 'one message, if there is one'],
    ['rowmq receive orders --wait 20 --max 10', 'wait for up to ten'],
    ['rowmq receive orders --ack --body | jq .', 'take the body out of the queue'],
    ['rowmq receive orders --json | jq -r .receipt', 'the receipt, for ack or nack'],
  ]);
  return command;
}

function print(out: Output, message: LeasedMessage, bodyOnly: boolean): void {
  if (!bodyOnly) out.item(message, (one) => leasedText(out, one));
  // A terminal must not obey what a body says; another program gets its bytes.
  else if (out.isTerminal) out.line(inert(message.body));
  else out.raw(Buffer.concat([bodyBytes(message), Buffer.from('\n')]));
}

/** The messages are acked only after stdout took them. */
async function ackAll(
  client: {
    ack(queue: string, request: { receipts: string[] }): Promise<{ failed: { receipt: string; code: string }[] }>;
  },
  queue: string,
  messages: readonly LeasedMessage[],
  out: Output,
): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    out.stdout.write('', (error) => (error ? reject(error) : resolve()));
  });
  const { failed } = await client.ack(queue, { receipts: messages.map(({ receipt }) => receipt) });
  if (failed.length > 0)
    throw new CommandFailed(
      `${failed.length} of ${messages.length} messages were not acked: ${failed[0]?.code}. They may be handed out again.`,
    );
}
