import { setTimeout as sleep } from 'node:timers/promises';
import { type BeforeApplicationShutdown, Injectable, Logger, type OnApplicationBootstrap } from '@nestjs/common';
import { ReaperRepository } from '@rowmq/store';
import { EnqueueTicks } from './duties/enqueue-ticks.js';
import { ReaperService } from './reaper.service.js';

/** After failures, the pause doubles from a second up to this. */
const LONGEST_PAUSE_MS = 10_000;
/** The run log gets a run that enqueued something this often at most, and any other one rarely. */
const LOG_MS = 5000;
const LOG_IDLE_MS = 60_000;

/**
 * Runs {@link EnqueueTicks} whenever a tick comes, and once a second to learn of new schedules. The
 * database's clock says how long to wait, so the clock of this machine does not matter.
 */
@Injectable()
export class TickService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private readonly logger = new Logger(TickService.name);
  private readonly stop = new AbortController();
  private running: Promise<void> = Promise.resolve();
  private loggedAt = -Infinity;
  private unlogged = 0;
  private failures = 0;

  constructor(
    private readonly duty: EnqueueTicks,
    private readonly reaper: ReaperRepository,
    private readonly service: ReaperService,
  ) {}

  onApplicationBootstrap(): void {
    this.running = this.repeat();
  }

  /** Waits for the transaction in flight. */
  async beforeApplicationShutdown(): Promise<void> {
    this.stop.abort();
    await this.running;
  }

  private async repeat(): Promise<void> {
    const { signal } = this.stop;
    while (!signal.aborted) {
      const waitMs = await this.run();
      await sleep(waitMs, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Runs the duty once. Returns the pause after it. Never rejects. */
  private async run(): Promise<number> {
    const [startedAt, started] = [Date.now(), performance.now()];
    let waitMs = 0;
    let error: string | null = null;
    try {
      const done = await this.duty.run(this.stop);
      waitMs = done.waitMs;
      this.unlogged += done.count;
      this.failures = 0;
    } catch (thrown) {
      error = thrown instanceof Error ? thrown.message : String(thrown);
      waitMs = Math.min(1000 * 2 ** this.failures, LONGEST_PAUSE_MS);
      this.failures += 1;
      this.logger.warn(`${this.duty.name} failed and will be tried again in ${waitMs / 1000} s: ${error}`);
    }
    const sinceLogged = started - this.loggedAt;
    if (error === null && sinceLogged < (this.unlogged > 0 ? LOG_MS : LOG_IDLE_MS)) return waitMs;
    this.loggedAt = started;
    const durationMs = Math.round(performance.now() - started);
    const count = this.unlogged;
    this.unlogged = 0;
    await this.reaper
      .record({ duty: this.duty.name, reaper: this.service.id, startedAt, durationMs, count, error })
      .catch(() => undefined);
    return waitMs;
  }
}
