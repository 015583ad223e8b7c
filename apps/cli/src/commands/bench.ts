import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import { LIMITS } from '@rowmq/contract';
import { LoadGenerator } from '@rowmq/load';
import { CommandFailed, UsageError } from '../exit-codes.js';
import { examples } from '../examples.js';
import { Progress } from '../output/progress.js';
import { count, durationSeconds, rate, wholeNumber } from '../output/units.js';
import type { Open, Session } from '../session.js';

interface BenchOptions {
  seconds: number;
  producers: number;
  consumers: number;
  batch: number;
  size: number;
}

export function benchCommand(open: Open): Command {
  const command = new Command('bench')
    .description('Load a running broker for some seconds, through a queue of its own that is deleted at the end')
    .option('--seconds <duration>', 'how long producers send', durationSeconds, 10)
    .option('--producers <n>', 'enqueues in flight', wholeNumber(1, 64), 8)
    .option('--consumers <n>', 'dequeues in flight; 0 leaves all messages', wholeNumber(0, 64), 8)
    .option('--batch <n>', 'messages a request', wholeNumber(1, LIMITS.batch), 10)
    .option('--size <bytes>', 'bytes of a body', wholeNumber(20, LIMITS.bodyBytesDefault), 200)
    .action(async (options: BenchOptions) => {
      if (options.seconds < 0.5 || options.seconds > 3600) throw new UsageError('Choose 0.5 seconds to one hour.');
      await bench(open(), options);
    });
  examples(command, [
    ['rowmq bench', 'ten seconds with eight producers and consumers'],
    ['rowmq bench --seconds 60 --batch 100 --json', 'a minute with large batches, for scripts'],
    ['rowmq bench --producers 1 --consumers 1 --batch 1', 'the time of a single message'],
  ]);
  return command;
}

/** After the last enqueue, consumers get so long for the rest. */
const DRAIN_MS = 30_000;

/** Closed loops: each producer sends its next request once the last one was answered. */
async function bench(session: Session, options: BenchOptions): Promise<void> {
  const { client, out } = session;
  const interrupted = session.onInterrupt();
  const queue = `rowmq-bench-${randomBytes(6).toString('hex')}`;
  const enqueueMs: number[] = [];
  const endToEndMs: number[] = [];
  let sent = 0;
  let received = 0;
  await client.putQueue(queue, { messageTtlSeconds: 3600 });
  const progress = new Progress(out, 'bench', Math.round(options.seconds * 10));
  try {
    const consumers = consume();
    const begun = performance.now();
    const producers = new LoadGenerator({ workers: options.producers }, async () => {
      const at = performance.now();
      const body = String(at).padEnd(options.size, ' .');
      await client.enqueue(queue, { messages: Array.from({ length: options.batch }, () => ({ body })) });
      enqueueMs.push(performance.now() - at);
      sent += options.batch;
    });
    const until = begun + options.seconds * 1000;
    while (performance.now() < until && !interrupted.aborted) {
      progress.show(Math.round((performance.now() - begun) / 100), undefined, received);
      await Promise.race([sleep(100), producers.ended]);
    }
    await producers.stop();
    const sendingMs = performance.now() - begun;
    const drained = await consumers?.drain();
    const receivingMs = performance.now() - begun;
    progress.end();
    const report = {
      sent,
      received,
      sentPerSecond: Math.round((sent / sendingMs) * 1000),
      receivedPerSecond: Math.round((received / receivingMs) * 1000),
      enqueueMs: quantiles(enqueueMs),
      endToEndMs: quantiles(endToEndMs),
    };
    out.data(report, () =>
      out.fields([
        ['sent', `${count(sent)} messages, ${rate(report.sentPerSecond)}/s`],
        [
          'received',
          consumers === undefined ? undefined : `${count(received)} messages, ${rate(report.receivedPerSecond)}/s`,
        ],
        ['enqueue', quantilesText(report.enqueueMs)],
        ['end to end', consumers === undefined ? undefined : quantilesText(report.endToEndMs)],
      ]),
    );
    if (drained === false)
      throw new CommandFailed(`${count(sent - received)} messages did not come back within ${DRAIN_MS / 1000} s.`);
  } finally {
    progress.end();
    await client.deleteQueue(queue, { force: true });
  }

  function consume(): { drain(): Promise<boolean> } | undefined {
    if (options.consumers === 0) return undefined;
    const receipts = Array.from({ length: options.consumers }, (): string[] => []);
    const generator = new LoadGenerator({ workers: options.consumers }, async ({ worker, signal }) => {
      const ack = receipts[worker] ?? [];
      receipts[worker] = [];
      const request = {
        maxMessages: options.batch,
        waitSeconds: signal.aborted ? 0 : 1,
        ack,
        consumer: session.consumer,
      };
      const { messages } = await client.dequeue(queue, request);
      const now = performance.now();
      received += messages.length;
      for (const { body } of messages) endToEndMs.push(now - Number.parseFloat(body));
      receipts[worker] = messages.map(({ receipt }) => receipt);
    });
    return {
      async drain() {
        const deadline = performance.now() + DRAIN_MS;
        while (received < sent && performance.now() < deadline) await Promise.race([sleep(20), generator.ended]);
        await generator.stop();
        return received >= sent;
      },
    };
  }
}

interface Quantiles {
  p50: number;
  p95: number;
  p99: number;
  max: number;
}

/** Quantiles in ms, or null if there is no value. */
export function quantiles(values: readonly number[]): Quantiles | null {
  if (values.length === 0) return null;
  const sorted = values.toSorted((one, other) => one - other);
  const at = (share: number): number => {
    const value = sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] as number;
    return Math.round(value * 100) / 100;
  };
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}

function quantilesText(of: Quantiles | null): string | undefined {
  return of === null ? undefined : `p50 ${of.p50} ms, p95 ${of.p95} ms, p99 ${of.p99} ms, at most ${of.max} ms`;
}
