import { setTimeout as delay } from 'node:timers/promises';

/** A child that runs until it ends by itself or is stopped. */
export interface Running {
  readonly pid: number;
  /** Resolves when it ends, with the reason in words. Never rejects. */
  readonly exited: Promise<string>;
  /** Tells it to stop, and kills it at its deadline. Resolves when it is gone. */
  stop(): Promise<void>;
  /** Ends it at once. Resolves when it is gone. */
  kill(): Promise<void>;
}

/**
 * Starts a child. Rejects, and leaves none running, if it does not start or the signal cancels the
 * start.
 */
export type StartOnce = (signal: AbortSignal) => Promise<Running>;

/** Pauses before a restart. */
export interface BackOff {
  readonly firstMs: number;
  readonly longestMs: number;
  /** A child that has run this long is healthy, and the next pause is the first one again. */
  readonly healthyMs: number;
}

const BACK_OFF: BackOff = { firstMs: 1_000, longestMs: 30_000, healthyMs: 60_000 };

/**
 * Keeps one child running. If the first start fails, it throws: a retry does not cure a wrong
 * setting. Later it restarts a child that ends, after pauses that double and vary.
 */
export class Supervisor {
  private readonly stopping = new AbortController();
  private current: Running | undefined;
  private keeping: Promise<void> | undefined;

  constructor(
    readonly name: string,
    private readonly startOnce: StartOnce,
    private readonly log: (line: string) => void,
    private readonly backOff: BackOff = BACK_OFF,
  ) {}

  /** Starts the child for the first time, and keeps it running from then on. */
  async start(): Promise<void> {
    this.current = await this.startOnce(this.stopping.signal);
    this.keeping = this.keepRunning(this.current);
  }

  /** Stops the child for good. May be called twice. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await this.current?.stop();
    // A restart in progress notices the signal by itself.
    await this.keeping;
  }

  /** Ends the child at once and for good. */
  async kill(): Promise<void> {
    this.stopping.abort();
    await this.current?.kill();
  }

  private async keepRunning(first: Running): Promise<void> {
    let running = first;
    let failures = 0;
    for (;;) {
      const startedAt = performance.now();
      const ending = await running.exited;
      this.current = undefined;
      if (this.stopping.signal.aborted) return;
      if (performance.now() - startedAt >= this.backOff.healthyMs) failures = 0;
      this.log(`The ${this.name} (process ${running.pid}) ended unexpectedly: ${ending}.`);
      const restarted = await this.restart(failures);
      if (restarted === undefined) return;
      ({ running, failures } = restarted);
    }
  }

  private async restart(before: number): Promise<{ running: Running; failures: number } | undefined> {
    for (let failures = before; ; failures++) {
      const pauseMs = this.pauseMs(failures);
      this.log(`Starting the ${this.name} again in ${(pauseMs / 1000).toFixed(1)} s …`);
      try {
        await delay(pauseMs, undefined, { signal: this.stopping.signal });
        const running = await this.startOnce(this.stopping.signal);
        this.current = running;
        // A stop that came meanwhile has not seen this child.
        if (this.stopping.signal.aborted) await running.stop();
        else this.log(`The ${this.name} is running again (process ${running.pid}).`);
        return { running, failures: failures + 1 };
      } catch (error) {
        if (this.stopping.signal.aborted) return undefined;
        this.log(`The ${this.name} did not start: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }

  /**
   * Between half of the doubled pause and all of it, so that children that failed together restart
   * apart in time.
   */
  private pauseMs(failures: number): number {
    const { firstMs, longestMs } = this.backOff;
    return Math.min(longestMs, firstMs * 2 ** Math.min(failures, 16)) * (0.5 + Math.random() / 2);
  }
}
