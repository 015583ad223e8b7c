/** The bounds of one run of a duty. */
export interface Round {
  /**
   * Aborted when the process stops or loses the reaper's lease. The duty ends after the current
   * batch.
   */
  signal: AbortSignal;
}

/** A task that the reaper repeats. Two reapers may run it at the same time without harm. */
export interface Duty {
  /** Its name in the run log and at `/v1/admin/reaper`. */
  readonly name: string;
  /** Least time between two runs. */
  readonly everySeconds: number;
  /** It also runs while the database is slow and the others yield. */
  readonly isUrgent?: true;
  /** Works for a bounded time. Returns the number of rows or partitions that it handled. */
  run(round: Round): Promise<number>;
}
