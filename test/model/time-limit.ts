/** A generous limit for one history. Its duration depends on the disk. */
const LONGEST_MS = 2000;
/** Shrinking runs a history hundreds of times. */
const SHRINKING_MS = 300_000;

/** The time that a test of so many histories may take. */
export function timeLimitMs(histories: number): number {
  return histories * LONGEST_MS + SHRINKING_MS;
}
