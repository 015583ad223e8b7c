import cluster, { type Worker } from 'node:cluster';
import { fileURLToPath } from 'node:url';
import { Logger } from '@nestjs/common';
import { type Running, Supervisor, untilReady } from '@rowmq/runtime';
import type { BrokerConfig } from '../broker.config.js';
import { Announcements } from './announcements.js';
import { Reports } from './reports.js';
import type { FromWorker, ToWorker } from './worker-messages.js';

/** The connection to a worker that listens. */
interface Link {
  readonly number: number;
  readonly announcements: Announcements;
  readonly tell: (message: ToWorker, sent?: () => void) => void;
}

/**
 * The broker's processes behind one port. The primary starts them, keeps them running, hands them
 * connections in turn, and passes messages between them. It answers no request itself.
 */
export class Workers {
  private readonly logger = new Logger('workers');
  private readonly reports = new Reports();
  private readonly links = new Map<number, Link>();
  private readonly supervisors: Supervisor[];

  constructor(private readonly config: Pick<BrokerConfig, 'workers' | 'stopSeconds'>) {
    // By default, the system distributes connections, and may give one worker nearly all.
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

  /** Resolves when all listen. Throws if one does not start, and leaves none running. */
  async start(): Promise<void> {
    const [first, ...others] = this.supervisors;
    try {
      // A fault of the first mostly concerns all, and is reported once.
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
    // A worker that is gone needs no messages.
    worker.on('error', () => undefined);
    const link = linkTo(number, worker);
    worker.on('message', (message: FromWorker | 'ready') => message !== 'ready' && this.receive(link, message));
    worker.process.once('exit', () => {
      this.links.delete(number);
      this.reports.retire(number);
    });
    const running = await untilReady(`worker ${number}`, worker.process, this.config.stopSeconds, signal);
    if (worker.isConnected()) this.links.set(number, link);
    return running;
  }

  private receive(from: Link, message: FromWorker): void {
    const others = [...this.links.values()].filter((link) => link !== from);
    switch (message.kind) {
      case 'available':
        for (const { announcements } of others) for (const queue of message.queues) announcements.add(queue);
        break;
      case 'deleted':
        this.reports.forget(message.queue);
        for (const other of others) other.tell(message);
        break;
      case 'report':
        // The last report can come after the worker's end, when another may have its number.
        if (this.links.get(from.number) === from) this.reports.take(from.number, message.metrics);
        break;
      case 'scrape':
        void this.answerScrape(from, message.id);
        break;
    }
  }

  private async answerScrape(from: Link, id: number): Promise<void> {
    try {
      const text = await this.reports.text(() =>
        [...this.links.values()].map(({ number, tell }) => ({ number, ask: () => tell({ kind: 'report' }) })),
      );
      from.tell({ kind: 'scraped', id, text });
    } catch (error) {
      // The worker's deadline refuses the scrape.
      this.logger.error(error);
    }
  }
}

function linkTo(number: number, worker: Worker): Link {
  const tell: Link['tell'] = (message, sent) => void worker.send(message, () => sent?.());
  return {
    number,
    tell,
    announcements: new Announcements((queues, sent) => tell({ kind: 'available', queues }, sent)),
  };
}
