import { text } from 'node:stream/consumers';
import { Command } from 'commander';
import { LIMITS, type FailedReceipt } from '@rowmq/contract';
import { CommandFailed, UsageError } from '../exit-codes.js';
import { examples } from '../examples.js';
import { wholeSeconds } from '../output/units.js';
import type { Open, Session } from '../session.js';

/* Commands that take receipts, as arguments or from stdin. */

const RECEIPTS = 'receipts of `rowmq receive`; "-" or none reads them from stdin';

export function ackCommand(open: Open): Command {
  const command = new Command('ack')
    .description('Settle received messages: they are never delivered again')
    .argument('<queue>')
    .argument('[receipts...]', RECEIPTS)
    .action(async (queue: string, given: string[]) => {
      const session = open();
      await settle(session, given, 'acked', async (receipts) => {
        const { acked, failed } = await session.client.ack(queue, { receipts });
        return { done: acked, failed };
      });
    });
  examples(command, [
    ['rowmq ack orders AZoLXayWd0uMzrMCCZqAV2lG9c0XgQ2T', 'one message'],
    ['rowmq receive orders -n 10 --json | jq -r .receipt | rowmq ack orders -', 'several'],
  ]);
  return command;
}

interface NackOptions {
  delay?: number;
  reason?: string;
  deadLetter?: true;
}

export function nackCommand(open: Open): Command {
  const command = new Command('nack')
    .description('Give received messages back, now or after a delay, or dead-letter them')
    .argument('<queue>')
    .argument('[receipts...]', RECEIPTS)
    .option('--delay <duration>', 'not handed out again before, such as 5m', wholeSeconds)
    .option('--reason <text>', 'why it failed; peek and dead show it')
    .option('--dead-letter', 'move them to the dead-letter queue at once')
    .action(async (queue: string, given: string[], { delay, reason, deadLetter }: NackOptions) => {
      const session = open();
      await settle(session, given, deadLetter === true ? 'dead-lettered' : 'given back', async (receipts) => {
        const { nacked, failed } = await session.client.nack(queue, {
          receipts,
          ...(delay !== undefined && { delaySeconds: delay }),
          ...(reason !== undefined && { reason }),
          ...(deadLetter === true && { deadLetter }),
        });
        return { done: nacked, failed };
      });
    });
  examples(command, [
    ['rowmq nack orders AZoLXayWd0uMzrMCCZqAV2lG9c0XgQ2T --delay 5m --reason "gateway is down"', 'try again later'],
    ['rowmq nack orders AZoLXayWd0uMzrMCCZqAV2lG9c0XgQ2T --dead-letter --reason "no such customer"', 'give up'],
  ]);
  return command;
}

export function releaseCommand(open: Open): Command {
  const command = new Command('release')
    .description('Give received messages back as if they had not been received')
    .argument('<queue>')
    .argument('[receipts...]', RECEIPTS)
    .option('--delay <duration>', 'not handed out again before', wholeSeconds)
    .action(async (queue: string, given: string[], { delay }: { delay?: number }) => {
      const session = open();
      await settle(session, given, 'released', async (receipts) => {
        const { released, failed } = await session.client.release(queue, {
          receipts,
          ...(delay !== undefined && { delaySeconds: delay }),
        });
        return { done: released, failed };
      });
    });
  examples(command, [['rowmq release orders AZoLXayWd0uMzrMCCZqAV2lG9c0XgQ2T', 'this receive does not count']]);
  return command;
}

export function extendCommand(open: Open): Command {
  const command = new Command('extend')
    .description('Move the end of leases')
    .argument('<queue>')
    .argument('[receipts...]', RECEIPTS)
    .requiredOption('--lease <duration>', 'from now on, such as 10m', wholeSeconds)
    .action(async (queue: string, given: string[], { lease }: { lease: number }) => {
      const session = open();
      await settle(session, given, 'extended', async (receipts) => {
        const request = { receipts, leaseSeconds: lease, consumer: session.consumer };
        const { extended, failed } = await session.client.extend(queue, request);
        return { done: extended.map(({ receipt }) => receipt), failed };
      });
    });
  examples(command, [['rowmq extend orders AZoLXayWd0uMzrMCCZqAV2lG9c0XgQ2T --lease 10m', 'ten minutes more']]);
  return command;
}

interface Settled {
  done: string[];
  failed: FailedReceipt[];
}

/** Handles any number of receipts, as many a request as the broker takes. */
async function settle(
  { out }: Session,
  given: readonly string[],
  done: string,
  call: (receipts: string[]) => Promise<Settled>,
): Promise<void> {
  const receipts = await receiptsOf(given);
  const total: Settled = { done: [], failed: [] };
  for (let at = 0; at < receipts.length; at += LIMITS.batch) {
    const settled = await call(receipts.slice(at, at + LIMITS.batch));
    total.done.push(...settled.done);
    total.failed.push(...settled.failed);
  }
  out.data({ done: total.done, failed: total.failed }, () =>
    [
      `${total.done.length} of ${receipts.length} messages ${done}.`,
      ...total.failed.map(({ receipt, code }) => `  ${receipt}  ${code}`),
    ].join('\n'),
  );
  if (total.failed.length > 0) throw new CommandFailed('');
}

async function receiptsOf(given: readonly string[]): Promise<string[]> {
  const isStdin = given.length === 0 || (given.length === 1 && given[0] === '-');
  if (isStdin && process.stdin.isTTY) throw new UsageError('Give a receipt, or pipe receipts to stdin.');
  const receipts = isStdin ? (await text(process.stdin)).split(/\s+/).filter((one) => one !== '') : given;
  if (receipts.length === 0) throw new UsageError('There is no receipt on stdin.');
  return [...new Set(receipts)];
}
