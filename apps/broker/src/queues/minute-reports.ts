import { Injectable, type OnApplicationBootstrap, type OnApplicationShutdown } from '@nestjs/common';
import { MinuteRepository, QueueRepository } from '@rowmq/store';
import { Metrics } from '../metrics/metrics.js';

/** The contract promises it: see `errorBound`. */
const PAUSE_MS = 10_000;

/** Adds what this broker has counted to the history of the queues, every ten seconds. */
@Injectable()
export class MinuteReports implements OnApplicationBootstrap, OnApplicationShutdown {
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> = Promise.resolve();

  constructor(
    private readonly metrics: Metrics,
    private readonly queues: QueueRepository,
    private readonly minutes: MinuteRepository,
  ) {}

  onApplicationBootstrap(): void {
    this.timer = setInterval(() => {
      this.running = this.running.then(async () => this.report());
    }, PAUSE_MS).unref();
  }

  async onApplicationShutdown(): Promise<void> {
    clearInterval(this.timer);
    await this.running;
    await this.report();
  }

  /** Never rejects. Without the database, the next report has these counts too. */
  private async report(): Promise<void> {
    const counts = this.metrics.takeFresh();
    if (counts.size === 0) return;
    try {
      const queues = await this.queues.getAll([...counts.keys()]);
      await this.minutes.add(new Map([...queues].map(([name, { id }]) => [id, counts.get(name) ?? {}])));
    } catch {
      this.metrics.putBack(counts);
    }
  }
}
