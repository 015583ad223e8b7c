/** Thrown by a handler: this message will never succeed. It goes to the queue's dead-letter queue at once; where there is none, it is given back like any other that failed. */
export class Reject extends Error {
  override readonly name = 'Reject';
}

/** Thrown by a handler: not now. The message is given back and comes again after a delay of its own. */
export class Retry extends Error {
  override readonly name = 'Retry';

  private constructor(
    readonly delayMs: number,
    reason?: string,
  ) {
    super(reason ?? `to be tried again in ${delayMs} ms`);
  }

  /** @param ms until it comes again, rounded up to whole seconds, 12 hours at most. @param reason kept with the delivery, and shown by browse. Throws RangeError unless `ms` is a number from 0 on. */
  static after(ms: number, reason?: string): Retry {
    if (!(ms >= 0)) throw new RangeError(`Retry.after takes milliseconds from 0 on, not ${ms}.`);
    return new Retry(ms, reason);
  }
}

/** A message's lease ran out, or was lost, while its handler worked: others have it, or will. The reason of the handler's `AbortSignal`. */
export class LeaseLostError extends Error {
  override readonly name = 'LeaseLostError';

  constructor(readonly messageId: string) {
    super(`The lease of message ${messageId} is no longer held: it has been or will be handed out again.`);
  }
}

/** The consumer was stopped and a handler did not end before the deadline: its message was given back. The reason of the handler's `AbortSignal`; told with `settleFailed` where the broker did not answer in time either. */
export class ConsumerStoppedError extends Error {
  override readonly name = 'ConsumerStoppedError';
}

/** How long a message that failed stays away. @param attempt 1 for the first. Returns milliseconds. */
export type Backoff = (attempt: number, error: unknown) => number;

const FIRST_DELAY_MS = 1000;
const LONGEST_DELAY_MS = 15 * 60_000;

/** Twice as long each time, up to a quarter of an hour, with jitter: between half of that and all of it. */
export const exponentialBackoff: Backoff = (attempt) => {
  const delay = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.max(0, attempt - 1));
  return delay * (0.5 + Math.random() / 2);
};
