import { setTimeout as delay } from 'node:timers/promises';

/** Something that runs until it ends by itself or is stopped. */
export interface Running {
  readonly pid: number;
  /** Resolves with how it ended, in words. Never rejects. */
  readonly exited: Promise<string>;
  /** Asks it to stop, and kills it at its deadline. Resolves when it is gone. */
  stop(): Promise<void>;
  /** Ends it at once. Resolves when it is gone. */
  kill(): Promise<void>;
}

/** Starts it once; rejects when it does not come up, or when the signal gives the start up, and leaves nothing running then. */
export type StartOnce = (signal: AbortSignal) => Promise<Running>;

/** Pauses before a restart. */
export interface BackOff {
  readonly firstMs: number;
  readonly longestMs: number;
  /** After running this long, it counts as healthy, and the next pause is the first one again. */
  readonly healthyMs: number;
}

const BACK_OFF: BackOff = { firstMs: 1_000, longestMs: 30_000, healthyMs: 60_000 };

/**
 * Keeps one child running. The first start may fail, and then says so: a wrong setting is not cured by trying again. After it, a
 * child that ends is started again, with pauses that double and vary.
 */
export class Supervisor {
  private readonly stopping = new AbortController();
  private current: Running | undefined;
  private watching: Promise<void> | undefined;

  constructor(
    readonly name: string,
    private readonly startOnce: StartOnce,
    private readonly log: (line: string) => void,
    private readonly backOff: BackOff = BACK_OFF,
  ) {}

  /** Starts the child for the first time, and watches it from then on. */
  async start(): Promise<void> {
    this.current = await this.startOnce(this.stopping.signal);
    this.watching = this.watch(this.current);
  }

  /** Stops the child, and starts it no more. May be called twice. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await this.current?.stop();
    // A restart that was under way notices the signal by itself.
    await this.watching;
  }

  /** Ends the child at once, and starts it no more. */
  async kill(): Promise<void> {
    this.stopping.abort();
    await this.current?.kill();
  }

  private async watch(first: Running): Promise<void> {
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
        // A stop that came between has not seen this one.
        if (this.stopping.signal.aborted) await running.stop();
        else this.log(`The ${this.name} is running again (process ${running.pid}).`);
        return { running, failures: failures + 1 };
      } catch (error) {
        if (this.stopping.signal.aborted) return undefined;
        this.log(`The ${this.name} did not start: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }

  /** Between half of the doubled pause and all of it, so that children that fell together do not rise together. */
  private pauseMs(failures: number): number {
    const { firstMs, longestMs } = this.backOff;
    return Math.min(longestMs, firstMs * 2 ** Math.min(failures, 16)) * (0.5 + Math.random() / 2);
  }
}
