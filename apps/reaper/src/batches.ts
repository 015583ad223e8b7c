import { setTimeout as sleep } from 'node:timers/promises';

const TARGET_MS = 50;
const LONGEST_PAUSE_MS = 1000;

/**
 * Sizes batches by how long they take: twice as large after a quick one, half as large after a slow one; and pauses after each for a random time up to what it took, so that the reaper
 * never takes more than some two thirds of what it competes for.
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
    const result = await batch(this.size);
    const took = performance.now() - started;
    if (took < TARGET_MS / 2) this.size = Math.min(this.size * 2, this.largest);
    else if (took > TARGET_MS * 2) this.size = Math.max(Math.floor(this.size / 2), this.smallest);
    await sleep(Math.min(Math.random() * took, LONGEST_PAUSE_MS), undefined, { signal }).catch(() => undefined);
    return result;
  }

  /** Rows of the next batch. */
  get nextSize(): number {
    return this.size;
  }
}
