/** How one run of a duty is bounded. */
export interface Round {
  /**
   * Aborted when the process stops or the reaper's lease is lost: end after the batch under way.
   */
  signal: AbortSignal;
}

/**
 * Something the reaper does again and again. Two reapers may do it at the same time without harm.
 */
export interface Duty {
  /** As it is recorded and shown at `/v1/admin/reaper`. */
  readonly name: string;
  /** Least time between two runs. */
  readonly everySeconds: number;
  /**
   * Does what there is to do, for a bounded time; returns how many rows or partitions it took care
   * of.
   */
  run(round: Round): Promise<number>;
}
