import cluster from 'node:cluster';
import type { AddressInfo } from 'node:net';
import { Logger } from '@nestjs/common';
import { type Running, Supervisor, untilReady } from '@rowmq/runtime';
import type { BrokerConfig } from '../broker.config.js';
import { answerScrapes } from '../metrics/worker-metrics.js';
import { SharedPort } from './shared-port.js';

/**
 * The broker's processes behind one port. The primary starts them, keeps them running and hands
 * them connections. It answers no request itself.
 */
export class Workers {
  private readonly logger = new Logger('workers');
  private readonly supervisors: Supervisor[];
  private readonly port = new SharedPort();

  constructor(private readonly config: Pick<BrokerConfig, 'workers' | 'stopSeconds' | 'host' | 'port'>) {
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

  /**
   * Listens as soon as one runs, and resolves when all do, with the address. Throws if one does not
   * start, or if the port is taken, and leaves none running.
   */
  async start(): Promise<AddressInfo> {
    const [first, ...others] = this.supervisors;
    try {
      // A fault of the first mostly concerns all, and is reported once.
      await first?.start();
      const address = await this.port.listen(this.config.port, this.config.host);
      await Promise.all(others.map((other) => other.start()));
      return address;
    } catch (error) {
      this.kill();
      throw error;
    }
  }

  /** Refuses new connections, then stops all in order, each within its own time. */
  async close(): Promise<void> {
    await this.port.close();
    await Promise.all(this.supervisors.map((supervisor) => supervisor.stop()));
  }

  /** Ends all at once. */
  kill(): void {
    for (const worker of Object.values(cluster.workers ?? {})) worker?.process.kill('SIGKILL');
  }

  private async startOne(number: number, signal: AbortSignal): Promise<Running> {
    signal.throwIfAborted();
    // A worker runs the primary's own program.
    cluster.setupPrimary({ args: ['worker', String(number)] });
    const worker = cluster.fork();
    // A worker that is gone needs no messages.
    worker.on('error', () => undefined);
    const running = await untilReady(`worker ${number}`, worker.process, this.config.stopSeconds, signal);
    this.port.add(worker);
    return running;
  }
}
