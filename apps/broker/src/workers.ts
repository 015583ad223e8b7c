import cluster from 'node:cluster';
import { fileURLToPath } from 'node:url';
import { Logger } from '@nestjs/common';
import { type Running, Supervisor, untilReady } from '@rowmq/runtime';
import type { BrokerConfig } from './broker.config.js';
import { answerScrapes } from './metrics/worker-metrics.js';

/**
 * The broker's processes behind one port. The primary starts them, keeps them running and hands
 * them connections in turn. It answers no request itself.
 */
export class Workers {
  private readonly logger = new Logger('workers');
  private readonly supervisors: Supervisor[];

  constructor(private readonly config: Pick<BrokerConfig, 'workers' | 'stopSeconds'>) {
    // By default, the system distributes connections, and may give one worker nearly all.
    cluster.schedulingPolicy = cluster.SCHED_RR;
    answerScrapes();
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
      exec: fileURLToPath(new URL('main.js', import.meta.url)),
      args: ['worker', String(number)],
    });
    const worker = cluster.fork();
    // A worker that is gone needs no messages.
    worker.on('error', () => undefined);
    return untilReady(`worker ${number}`, worker.process, this.config.stopSeconds, signal);
  }
}
