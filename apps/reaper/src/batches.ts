import { setTimeout as sleep } from 'node:timers/promises';

const TARGET_MS = 50;
const LONGEST_PAUSE_MS = 1000;

/**
 * Sizes batches by how long they take: twice as large after a quick one, half as large after a slow
 * one or one that failed; and pauses after each for a random time up to what it took, so that the
 * reaper never takes more than some two thirds of what it competes for.
 */
export class Batches {
  constructor(
    private size = 500,
    private readonly smallest = 50,
    private readonly largest = 5000,
  ) {}

  /** Runs one batch. `pause` is ended early by the signal. */
  async run<T>(signal: AbortSignal, batch: (size: number) => Promise<T>): Promise<T> {
    const started = performance.now();
    let result: T;
    try {
      result = await batch(this.size);
    } catch (error) {
      // It may have been too much for the statement's deadline, and would be again.
      this.shrink();
      throw error;
    }
    const took = performance.now() - started;
    if (took < TARGET_MS / 2) this.size = Math.min(this.size * 2, this.largest);
    else if (took > TARGET_MS * 2) this.shrink();
    await sleep(Math.min(Math.random() * took, LONGEST_PAUSE_MS), undefined, { signal }).catch(() => undefined);
    return result;
  }

  private shrink(): void {
    this.size = Math.max(Math.floor(this.size / 2), this.smallest);
  }

  /** Rows of the next batch. */
  get nextSize(): number {
    return this.size;
  }
}
