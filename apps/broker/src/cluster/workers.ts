import cluster, { type Worker } from 'node:cluster';
import { fileURLToPath } from 'node:url';
import { Logger } from '@nestjs/common';
import { type Running, Supervisor, untilReady } from '@rowmq/runtime';
import type { BrokerConfig } from '../broker.config.js';
import { Announcements } from './announcements.js';
import { Reports } from './reports.js';
import type { FromWorker, ToWorker } from './worker-messages.js';

/** A worker that serves. */
interface Line {
  readonly number: number;
  readonly announcements: Announcements;
  readonly tell: (message: ToWorker, sent?: () => void) => void;
}

/** The broker's processes behind one port, as their primary sees them: it starts them, keeps them running, hands them connections in turn, and passes on what they tell each other. It serves nothing itself. */
export class Workers {
  private readonly logger = new Logger('workers');
  private readonly reports = new Reports();
  private readonly lines = new Map<number, Line>();
  private readonly supervisors: Supervisor[];

  constructor(private readonly config: Pick<BrokerConfig, 'workers' | 'stopSeconds'>) {
    // Unless told otherwise, the system decides who gets a connection, and may give one worker nearly all.
    cluster.schedulingPolicy = cluster.SCHED_RR;
    this.supervisors = Array.from(
      { length: config.workers },
      (_, index) =>
        new Supervisor(
          `worker ${index + 1}`,
          (signal) => this.startOne(index + 1, signal),
          (line) => this.logger.warn(line),
        ),
    );
  }

  /** Resolves when all listen. Throws when one does not start, and leaves none running then. */
  async start(): Promise<void> {
    const [first, ...others] = this.supervisors;
    try {
      // What keeps one from starting mostly keeps all, and is to be told once.
      await first?.start();
      await Promise.all(others.map((other) => other.start()));
    } catch (error) {
      this.kill();
      throw error;
    }
  }

  /** Stops all in order, each within its own time. */
  async close(): Promise<void> {
    await Promise.all(this.supervisors.map((supervisor) => supervisor.stop()));
  }

  /** Ends all at once. */
  kill(): void {
    for (const worker of Object.values(cluster.workers ?? {})) worker?.process.kill('SIGKILL');
  }

  private async startOne(number: number, signal: AbortSignal): Promise<Running> {
    signal.throwIfAborted();
    cluster.setupPrimary({
      exec: fileURLToPath(new URL('../main.js', import.meta.url)),
      args: ['worker', String(number)],
    });
    const worker = cluster.fork();
    // What a worker that is gone cannot be told, it does not need.
    worker.on('error', () => undefined);
    const line = lineTo(number, worker);
    worker.on('message', (message: FromWorker | 'ready') => message !== 'ready' && this.receive(line, message));
    worker.process.once('exit', () => {
      this.lines.delete(number);
      this.reports.retire(number);
    });
    const running = await untilReady(`worker ${number}`, worker.process, this.config.stopSeconds, signal);
    if (worker.isConnected()) this.lines.set(number, line);
    return running;
  }

  private receive(from: Line, message: FromWorker): void {
    const others = [...this.lines.values()].filter((line) => line !== from);
    switch (message.kind) {
      case 'available':
        for (const { announcements } of others) for (const queue of message.queues) announcements.add(queue);
        break;
      case 'deleted':
        this.reports.forget(message.queue);
        for (const other of others) other.tell(message);
        break;
      case 'report':
        // What it said last can come after its end, when another may have its number.
        if (this.lines.get(from.number) === from) this.reports.take(from.number, message.metrics);
        break;
      case 'scrape':
        void this.answerScrape(from, message.id);
        break;
    }
  }

  private async answerScrape(from: Line, id: number): Promise<void> {
    try {
      const text = await this.reports.text(() =>
        [...this.lines.values()].map(({ number, tell }) => ({ number, ask: () => tell({ kind: 'report' }) })),
      );
      from.tell({ kind: 'scraped', id, text });
    } catch (error) {
      // The worker's deadline answers for it.
      this.logger.error(error);
    }
  }
}

function lineTo(number: number, worker: Worker): Line {
  const tell: Line['tell'] = (message, sent) => void worker.send(message, () => sent?.());
  return {
    number,
    tell,
    announcements: new Announcements((queues, sent) => tell({ kind: 'available', queues }, sent)),
  };
}
