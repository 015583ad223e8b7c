import { setTimeout as sleep } from 'node:timers/promises';

const TARGET_MS = 50;
const LONGEST_PAUSE_MS = 1000;

/**
 * Sizes batches by their duration. A quick one doubles the next, and a slow or failed one halves
 * it. A random pause of at most the same duration follows each batch. So the reaper uses at most
 * about two thirds of the resource that it shares.
 */
export class Batches {
  constructor(
    private size = 500,
    private readonly smallest = 50,
    private readonly largest = 5000,
  ) {}

  /** Runs one batch. The signal ends the pause after it early. */
  async run<T>(signal: AbortSignal, batch: (size: number) => Promise<T>): Promise<T> {
    const started = performance.now();
    let result: T;
    try {
      result = await batch(this.size);
    } catch (error) {
      // The batch may have been too large for the statement's deadline.
      this.shrink();
      throw error;
    }
    const took = performance.now() - started;
    if (took < TARGET_MS / 2) this.size = Math.min(this.size * 2, this.largest);
    else if (took > TARGET_MS * 2) this.shrink();
    await sleep(Math.min(Math.random() * took, LONGEST_PAUSE_MS), undefined, { signal }).catch(() => undefined);
    return result;
  }

  /**
   * Runs batches until one reports that it did nothing, until the signal, or until this time of
   * `performance.now()`. Returns the sum of what they report.
   */
  async runAll(
    signal: AbortSignal,
    batch: (size: number) => Promise<number>,
    { until = Infinity }: { until?: number } = {},
  ): Promise<number> {
    let sum = 0;
    for (let count = 1; count > 0 && !signal.aborted && performance.now() < until; sum += count) {
      count = await this.run(signal, batch);
    }
    return sum;
  }

  private shrink(): void {
    this.size = Math.max(Math.floor(this.size / 2), this.smallest);
  }
}
