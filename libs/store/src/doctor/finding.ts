/** The outcome of one check. */
export interface Finding {
  check: string;
  /**
   * `fault`: RowMQ does not work, or loses messages. `warning`: it may one day. `unknown`: the user
   * of the database may not see this.
   */
  state: 'ok' | 'warning' | 'fault' | 'unknown';
  /** The state of things, and for all but `ok` what to do. */
  text: string;
}
