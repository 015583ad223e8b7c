/** The parts of a second into which the rate divides what moves at a time. */
const BATCHES_A_SECOND = 4;
/** A batch without a rate is bounded by its deliveries. */
const MOST_MESSAGES = 16_000;
const LONGEST_PAUSE_MS = 1000;
/** The pause after a batch that did nothing, as while others keep deliveries locked. */
const IDLE_PAUSE_MS = 20;

/** The pause before another walk through the queue: others hold what the last one left. */
const NEXT_PASS_MS = 250;

/** How fast a job works. */
export class Pace {
  private readonly begunAt = performance.now();
  private handled = 0;

  /** @param messagesPerSecond Null: as fast as batches go, for about two thirds of the time. */
  constructor(private readonly messagesPerSecond: number | null) {}

  /** The most messages that the next batch may handle. */
  get most(): number {
    if (this.messagesPerSecond === null) return MOST_MESSAGES;
    return Math.max(1, Math.min(MOST_MESSAGES, Math.floor(this.messagesPerSecond / BATCHES_A_SECOND)));
  }

  /** The pause after a batch that handled so many messages and took so long. */
  after({ count, isNewPass }: { count: number; isNewPass: boolean }, tookMs: number): number {
    this.handled += count;
    if (isNewPass) return NEXT_PASS_MS;
    if (count === 0) return Math.max(IDLE_PAUSE_MS, Math.min(Math.random() * tookMs, LONGEST_PAUSE_MS));
    if (this.messagesPerSecond === null) return Math.min(Math.random() * tookMs, LONGEST_PAUSE_MS);
    const dueMs = (this.handled / this.messagesPerSecond) * 1000;
    return Math.max(0, Math.min(dueMs - (performance.now() - this.begunAt), LONGEST_PAUSE_MS));
  }
}
