import { FIRST_ID, type Queue } from '@rowmq/store';
import { Batches } from './batches.js';

/** A run ends after this long. The next one continues at the same position. */
const RUN_MS = 5000;
/** The statement that removes the found rows takes 12 ms for 500 rows, but 1.5 s for 5000. */
export const LARGEST_STRETCH = 500;

/**
 * The count of one stretch, and the id after which the next begins; null at the end of the queue.
 */
export interface WalkStep {
  count: number;
  next: Buffer | null;
}

/** Walks every delivery of many queues, a stretch at a time, across as many runs as it takes. */
export class QueueWalk {
  private readonly batches = new Batches(200, 50, LARGEST_STRETCH);
  private position: { queueId: number; after: Buffer } | undefined;

  /** Visits each queue at most once. Returns the sum of the steps' counts. */
  async run(
    queues: readonly Queue[],
    signal: AbortSignal,
    step: (queue: Queue, after: Buffer, rows: number) => Promise<WalkStep>,
  ): Promise<number> {
    const until = performance.now() + RUN_MS;
    const start = Math.max(
      queues.findIndex(({ id }) => id === this.position?.queueId),
      0,
    );
    let count = 0;
    const round = [...queues.slice(start), ...queues.slice(0, start)];
    for (const [index, queue] of round.entries()) {
      let after: Buffer | null = queue.id === this.position?.queueId ? this.position.after : FIRST_ID;
      this.position = undefined;
      while (after !== null) {
        if (signal.aborted || performance.now() > until) {
          this.position = { queueId: queue.id, after };
          return count;
        }
        const from: Buffer = after;
        const done: WalkStep = await this.batches
          .run(signal, (rows) => step(queue, from, rows))
          .catch((error: unknown) => {
            // The next run begins with the next queue: one that always fails must not block the
            // others.
            this.position = { queueId: round[(index + 1) % round.length]!.id, after: FIRST_ID };
            throw error;
          });
        count += done.count;
        after = done.next;
      }
    }
    return count;
  }
}
