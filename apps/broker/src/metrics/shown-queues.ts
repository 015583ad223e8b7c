/** The label of all queues without series of their own. No queue can have this name. */
export const OTHERS = '(others)';
/** A queue without an event for this long gives way to another one. */
const IDLE_MS = 10 * 60_000;

/**
 * The queues that have series of their own: those that were busy last, so many at most. A thousand
 * queues would make a scrape of megabytes. The others share series, so that sums stay right.
 */
export class ShownQueues {
  /** The time of the last event. The queue that was idle longest comes first. */
  private readonly usedAt = new Map<string, number>();

  /** @param onHide a queue's series have to go */
  constructor(
    private readonly most: number,
    private readonly onHide: (queue: string) => void,
  ) {}

  get names(): string[] {
    return [...this.usedAt.keys()];
  }

  /** The label for an event of this queue. */
  labelOf(queue: string, now = performance.now()): string {
    const isShown = this.usedAt.delete(queue) || this.usedAt.size < this.most || this.hideIdle(now);
    if (!isShown) return OTHERS;
    this.usedAt.set(queue, now);
    return queue;
  }

  forget(queue: string): void {
    this.usedAt.delete(queue);
  }

  private hideIdle(now: number): boolean {
    const [queue, usedAt] = this.usedAt.entries().next().value as [string, number];
    if (usedAt > now - IDLE_MS) return false;
    this.usedAt.delete(queue);
    this.onHide(queue);
    return true;
  }
}
